"""BreizhCrops, the year 2018: a series of the mean of each field of Brittany (data/breizhcrops/README.md)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from rsbook.archives import prepared, prepared_series, sentinel
from rsbook.scenes import DataError
from rsbook.series import SENSORS, Pairs, Series

CLASSES = ("permanent meadows", "temporary meadows", "corn", "wheat", "rapeseed", "barley")  # the publisher's names
REGIONS = ("brittany_2018",)
YEAR = 2018
PARTS = ("frh01", "frh02", "frh03", "frh04")  # the departments: Côtes-d'Armor, Finistère, Ille-et-Vilaine, Morbihan
BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
# The publisher's code has written its columns in one order and in another; quality flags and the date come last.
BY_NUMBER = (*BANDS[:10], "B10", *BANDS[10:])
BY_NAME = tuple(sorted(BY_NUMBER))
WIDTH, DATE = 17, 16

PACKED = ("frh0[1-4].h5.tar*",)
DATES = 143  # of each series
TRAINING = 0.7  # of the fields of a class
DRAWN = {"train": 9_000, "val": 1_000}  # fields a class
SEED = 32
TOGETHER = 500  # series of one reading: 10 MB
LOOKED_AT = 100  # series of each part: their days, and the order of their bands, are those of all

NANOSECONDS = 86_400 * 10**9  # of a day
MOST_DATES, MOST_BYTES = 366, 2**28  # of a series, and of a table
CURE = "`python -m rsbook data card breizhcrops` says what to put where"

Row = tuple[int, str, int]  # of which part a field is, the name of its series there, and its own number


def source(raw: Path) -> prepared_series.Source:
    """The fields of all parts that lie in `raw`, in any folder there, that were seen on enough dates.

    Raises DataError for missing, damaged or unexpected files, with the cure.
    """
    files, tables = _files(raw)
    codes = _codes(_only(raw, "classmapping.csv"))
    fields = _fields(tables, codes)
    rows, splits, labels = _draw(raw, fields)
    files = list(files.values())
    looked_at = [_series(files, [row for row in rows if row[0] == part][:LOOKED_AT]) for part in range(len(files))]
    columns = [_columns(path, some) for path, some in zip(files, looked_at, strict=True)]
    days = np.median([_days(values)[_sample(len(values))] for some in looked_at for values in some], axis=0)
    found = {f"fields of {name}": len(members) for name, members in zip(CLASSES, fields, strict=True)}
    missing = [part for part in PARTS if part not in tables]
    return prepared_series.Source(
        name="breizhcrops",
        version="BreizhCrops 2018, L1C; rules 1",
        classes=CLASSES,
        regions=[REGIONS[0]] * len(rows),
        splits=splits,
        labels=labels,
        fields=[number for _, _, number in rows],
        days={REGIONS[0]: days.astype(int).tolist()},
        shapes={"series": (len(rows), DATES, SENSORS["s2"])},
        unit="series",
        groups=[list(range(i, min(i + TOGETHER, len(rows)))) for i in range(0, len(rows), TOGETHER)],
        read=partial(_read, files, rows, columns),
        notes={"found": found, "differ": [f"{part} is missing, the paper has all Brittany" for part in missing]},
        inputs=prepared.identify([*files, *tables.values()]),
    )


def load_series(folder: Path, checksum: str, region: str, train: int, val: int, world: int = 0) -> Series:
    """As `rsbook.series.load`: an archive has but one world."""
    return prepared_series.load_series(folder, checksum, region, train, val)


def load_pairs(folder: Path, checksum: str, region: str, count: int, world: int = 0) -> Pairs:
    """Raises ValueError: Planet has not seen Brittany for this archive."""
    raise ValueError("dataset='breizhcrops': holds no pairs; denethor and crops do")


def _files(raw: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Series and index of each part that is there."""
    parts = [part for part in PARTS if any(raw.rglob(f"{part}.h5"))]
    if not parts:
        raise DataError(f"{raw} holds no {PARTS[0]}.h5 or the like: put it there; {CURE}")
    return tuple({part: _only(raw, f"{part}.{end}") for part in parts} for end in ("h5", "csv"))


def _only(raw: Path, name: str) -> Path:
    found = sorted(path for path in raw.rglob(name) if path.is_file())
    if len(found) != 1:
        what = f"{len(found)} files {name}, expected that of {YEAR}, L1C" if found else f"no {name}"
        raise DataError(f"{raw} holds {what}: {'keep that one' if found else 'put it there'}; {CURE}")
    return found[0]


def _codes(path: Path) -> dict[str, int]:
    """The class of each code of a culture."""
    rows = _table(path, ("code", "classname"))
    codes = {code: CLASSES.index(name) for code, name in rows if name in CLASSES}
    if missing := [name for i, name in enumerate(CLASSES) if i not in codes.values()]:
        raise DataError(f"{path} has no class {missing[0]}: download it again; {CURE}")
    return codes


def _fields(tables: dict[str, Path], codes: dict[str, int]) -> list[list[Row]]:
    """The fields of each class that were seen on enough dates, in an order that their numbers' hashes decide."""
    fields: list[list[Row]] = [[] for _ in CLASSES]
    for number, path in enumerate(tables.values()):
        for name, code, length in _table(path, ("path", "CODE_CULTU", "sequencelength")):
            field = re.fullmatch(r"(?:.*/)?(\d{1,18})(\.csv)?", name)
            if field is None or not re.fullmatch(r"\d{1,9}(\.0)?", length):
                what = f"path {name!r:.99} and sequencelength {length!r:.99}"
                raise DataError(f"{path} is damaged ({what} are none): download it again; {CURE}")
            if code in codes and float(length) >= DATES:
                fields[codes[code]].append((number, name, int(field[1])))
    parts = list(tables)
    return [sorted(rows, key=lambda row: sentinel.in_fair_order(f"{parts[row[0]]} {row[2]}")) for rows in fields]


def _table(path: Path, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """These columns of a CSV file."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.reader(file)
            names = next(table, [])
            at = [names.index(column) for column in columns]
            return [tuple(row[i] for i in at) for row in table if row]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error!s:.300}): download it again; {CURE}") from error


def _draw(raw: Path, fields: list[list[Row]]) -> tuple[list[Row], list[str], list[int]]:
    """Fields drawn with replacement, with their split and class; those of one split are never in the other."""
    rows, splits, labels = [], [], []
    for split, count in DRAWN.items():
        for label, members in enumerate(fields):
            if len(members) < 2:
                what = f"{len(members)} fields of {CLASSES[label]} with {DATES} dates or more, expected at least 2"
                raise DataError(f"{raw} has {what}: are these the tables of {YEAR}? {CURE}")
            indices = prepared_series.share(range(len(members)), TRAINING)[list(DRAWN).index(split)]
            drawn = prepared_series.draw((SEED, list(DRAWN).index(split), label), len(indices), count)
            rows += [members[indices[i]] for i in drawn]
            splits += [split] * count
            labels += [label] * count
    return rows, splits, labels


def _columns(path: Path, looked_at: list[np.ndarray]) -> list[int]:
    """Where the bands are in the series of one file: B10 sees clouds only, so that nothing else is as dark."""
    if not looked_at:
        return []  # none of its fields was drawn
    darkest = int(np.concatenate(looked_at)[:, : len(BY_NUMBER)].mean(axis=0).argmin())
    for order in (BY_NUMBER, BY_NAME):
        if order[darkest] == "B10":
            return [order.index(band) for band in BANDS]
    raise DataError(f"{path} has its darkest band in column {darkest}, where no B10 is: is it L1C of {YEAR}? {CURE}")


def _read(files: list[Path], rows: list[Row], columns: list[list[int]], indices: list[int]) -> tuple[np.ndarray]:
    """The series (n,143,12) uint16 of these rows; raises DataError for a damaged file or one that is another.

    columns: where the twelve bands are, for each file.
    """
    chosen = [rows[i] for i in indices]
    found = [
        values[_sample(len(values))][:, columns[part]]
        for (part, _, _), values in zip(chosen, _series(files, chosen), strict=True)
    ]
    return (prepared_series.stored(np.stack(found)),)


def _sample(length: int) -> np.ndarray:
    """Which dates of so many are taken: all over the year, the first among them."""
    return np.arange(DATES) * length // DATES


def _days(values: np.ndarray) -> np.ndarray:
    """The day of the year of each date, from nanoseconds since 1970."""
    begin = np.datetime64(f"{YEAR}-01-01", "D").astype(int)
    return (values[:, DATE] // NANOSECONDS).astype(int) - begin + 1


def _series(files: list[Path], rows: list[Row]) -> list[np.ndarray]:
    """All columns (n,17) float64 of each of these fields."""
    found = {}
    for part in sorted({part for part, _, _ in rows}):
        with _explained(files[part]), h5py.File(files[part], "r") as file:
            for row in rows:
                if row[0] == part:
                    found[row] = _values(file, row[1])
    return [found[row] for row in rows]


def _values(file: h5py.File, name: str) -> np.ndarray:
    """One series, if it is stored as the publisher's are; raises ValueError for whatever else HDF5 may hold."""
    found = file
    for part in name.strip("/").split("/"):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{name:.99} is not in it")  # a link may lead to any other file
        found = found[part]
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external or not _is_plain(found):
        raise ValueError(f"{name:.99} is not stored as the publisher's series are")
    if found.ndim != 2 or not DATES <= found.shape[0] <= MOST_DATES or found.shape[1] != WIDTH:
        raise ValueError(f"{name:.99} holds {found.shape}, expected at least ({DATES}, {WIDTH})")
    values = found[()].astype(np.float64)
    if not np.isfinite(values).all() or not (np.diff(values[:, DATE]) > 0).all():
        raise ValueError(f"{name:.99} holds what is no number, or its dates do not rise")
    if (days := _days(values))[0] < 1 or days[-1] > 365:
        raise ValueError(f"{name:.99} has dates of other years than {YEAR}")
    return values


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether it holds numbers in one piece: filters may be plugins, of whose code nobody knows."""
    plan = dataset.id.get_create_plist()
    return dataset.dtype.kind in "fiu" and plan.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """DataError, with the cure, for whatever goes wrong with a file: h5py raises much."""
    try:
        yield
    except Exception as error:
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error!s:.300}): unpack its archive again; {CURE}") from error
