"""Archives of series that are prepared once: what a reader of the publisher's files offers, and what comes of it.

`rsbook.preparing` fills, in DIR/NAME/: series.npy, of each series each date; where there are pairs, pairs_s2.npy
(T,P,12) and pairs_planet.npy (T,P,36); pixels.csv (region, split, class, field of each series); manifest.json (all
else), and SHA256SUMS, the last. Arrays are uint16, reflectance × 10,000. series.npy is (N,T,12) where an archive is
read a field at a time. One that is read a date at a time has (T,N,12), the dates of one region after those of another.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rsbook.archives.prepared import explained, open_array, to_csv, to_json
from rsbook.series import SENSORS, Pairs, Series

SPLITS = ("train", "val")
MANIFEST = {"name": str, "classes": list, "days": dict, "dates_first": bool, "counts": dict, "notes": dict}
MOST = 2**16 - 1  # what uint16 holds


@dataclass(frozen=True)
class Source:
    """What an archive of series holds and how to read it, before any of them is read.

    version: of the publisher's files and of our rules · regions, splits ("train" or "val"), labels (class indices),
    fields (numbers): of each series, those of a region in a row · days: of the year, for each region, rising · shapes:
    of each prepared array, by its name, series the first · unit: what the first axis of series counts; a shorter array
    has no row for the last of them · groups: indices into that axis that are read together · read: indices of one
    group → an array (n,…) uint16 for each of shapes, None for one that has no rows for these; worker processes call
    it, as that of `prepared.Source` · dates_first: whether the unit is a date · notes, inputs, group_inputs: as there.
    Raises ValueError when the parts do not fit together.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    regions: list[str]
    splits: list[str]
    labels: list[int]
    fields: list[int]
    days: dict[str, list[int]]
    shapes: dict[str, tuple[int, ...]]
    unit: str
    groups: list[list[int]]
    read: Callable[[list[int]], tuple[np.ndarray | None, ...]]
    dates_first: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    inputs: str = ""
    group_inputs: list[str] = field(default_factory=list)

    bands: ClassVar = ()  # no sums are kept of: whoever learns from series knows which of them

    def __post_init__(self) -> None:
        if not len(self.regions) == len(self.splits) == len(self.labels) == len(self.fields):
            raise ValueError(f"{self.name}: expected region, split, class and field of every series")
        if not set(self.splits) <= set(SPLITS) or not set(self.regions) <= set(self.days):
            raise ValueError(f"{self.name}: expected one of {', '.join(SPLITS)} and a region that has days")
        units = self.shapes["series"][0]
        if sorted(i for group in self.groups for i in group) != list(range(units)):
            raise ValueError(f"{self.name}: expected each of {units} {self.unit} in exactly one group")
        if self.group_inputs and len(self.group_inputs) != len(self.groups):
            raise ValueError(f"{self.name}: {len(self.group_inputs)} group_inputs for {len(self.groups)} groups")

    @property
    def names(self) -> tuple[str, ...]:
        """Of what `read` gives."""
        return tuple(self.shapes)

    def arrays(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Type and shape of each prepared array, by the name of its file."""
        return {f"{name}.npy": (np.dtype("uint16"), tuple(shape)) for name, shape in self.shapes.items()}

    def tables(self, folder: Path, sums: list[int], squares: list[int]) -> dict[str, str]:
        """pixels.csv and manifest.json, by name."""
        columns = (self.regions, self.splits, (self.classes[label] for label in self.labels), self.fields)
        rows = list(zip(self.regions, self.splits, strict=True))
        counts = {f"{split} of {region}": rows.count((region, split)) for region in self.days for split in SPLITS}
        if "pairs_s2" in self.shapes:
            counts["pairs"] = int(np.prod(self.shapes["pairs_s2"][:2]))
        names = ("name", "version", "classes", "days", "dates_first")
        manifest = {name: getattr(self, name) for name in names} | {"counts": counts, "notes": self.notes}
        pixels = to_csv(["region", "split", "class", "field"], zip(*columns, strict=True))
        return {"pixels.csv": pixels, "manifest.json": to_json(manifest)}


def stored(values: np.ndarray) -> np.ndarray:
    """Reflectances × 10,000 of any type of number as uint16, cut off at both ends; what is no number becomes 0."""
    whole = np.nan_to_num(np.rint(values)) if values.dtype.kind == "f" else values
    return np.clip(whole, 0, MOST).astype(np.uint16)


def share(members: Sequence[int], part: float) -> tuple[list[int], list[int]]:
    """Members in two parts, the first of this share, rounded down, and none of them empty; needs two members."""
    cut = min(max(int(part * len(members)), 1), len(members) - 1)
    return list(members[:cut]), list(members[cut:])


def draw(seed: Iterable[int], size: int, count: int) -> np.ndarray:
    """Indices (count,) int64 below `size`, drawn with replacement: the first k are a sample of k."""
    # RandomState is the generator of NumPy whose numbers no later version changes: the same on every machine.
    return np.random.RandomState(list(seed)).randint(size, size=count, dtype=np.int64)


def shuffled(seed: Iterable[int], size: int, count: int) -> np.ndarray:
    """Indices (count,) below `size`, drawn without replacement: the first k are a sample of k."""
    return np.random.RandomState(list(seed)).permutation(size)[:count]


def load_series(folder: Path, checksum: str, region: str, train: int, val: int) -> Series:
    """The series of a region on memory-mapped arrays, split into the first so many pixels of each class.

    Raises ValueError for more pixels a class than there are, and DataError for files that are not as `rsbook.preparing`
    writes them or do not fit together, whatever their sha256.
    """
    import torch  # here: preparing does without it

    manifest = read_manifest(folder)
    array = open_array(folder / "series.npy", ("uint16",), "c")
    regions, splits, labels, fields = _read_pixels(folder / "pixels.csv", manifest["classes"])
    with explained(folder):
        days, here = manifest["days"][region], np.flatnonzero(regions == region)
        values = _of_region(array, manifest, region, here)
        if values.shape != (len(here), len(days), SENSORS["s2"]):
            raise ValueError(f"series.npy holds {values.shape} for the {len(here)} series of {region}")
    labels, fields, splits = labels[here], fields[here], splits[here]
    chosen = {
        split: _first(labels, splits == split, count, f"{split}={count}: {manifest['name']}", manifest["classes"])
        for split, count in (("train", train), ("val", val))
    }
    return Series(
        name=manifest["name"],
        region=region,
        values=torch.from_numpy(values),
        labels=torch.from_numpy(labels),
        fields=torch.from_numpy(fields),
        days=torch.tensor(days),
        classes=tuple(manifest["classes"]),
        splits={split: torch.from_numpy(index) for split, index in chosen.items()},
        checksum=checksum,
    )


def load_pairs(folder: Path, checksum: str, region: str, count: int) -> Pairs:
    """`count` pairs of a region that has them, less what is no multiple of its dates: the first ones of each date.

    All of them are memory-mapped, some are copied. Raises ValueError for a number that there is not, and DataError as
    `load_series` does.
    """
    import torch  # here: preparing does without it

    manifest = read_manifest(folder)
    arrays = {name: open_array(folder / f"pairs_{name}.npy", ("uint16",), "c") for name in SENSORS}
    with explained(folder):
        days = manifest["days"][region]
        for name, width in SENSORS.items():
            if arrays[name].shape != (len(days), arrays["s2"].shape[1], width):
                raise ValueError(f"pairs_{name}.npy holds {arrays[name].shape} for {len(days)} dates")
    there, each = arrays["s2"].shape[1], count // len(days)
    if not 1 <= each <= there:
        raise ValueError(
            f"count={count}: {manifest['name']} has {len(days):,} … {there * len(days):,} pairs of {region}"
        )
    found = {name: torch.from_numpy(array[:, :each].reshape(-1, array.shape[2])) for name, array in arrays.items()}
    day = torch.tensor(days).repeat_interleave(each)
    return Pairs(name=manifest["name"], region=region, day=day, checksum=checksum, **found)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What folder/manifest.json says; raises DataError where a part is missing or of another type."""
    path = folder / "manifest.json"
    with explained(path):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in MANIFEST.items():
            if type(manifest[name]) is not kind:
                raise ValueError(f"{name} is {manifest[name]!r:.50}")
        for name, days in manifest["days"].items():
            if type(days) is not list or not days or not all(type(day) is int and 1 <= day <= 366 for day in days):
                raise ValueError(f"days of {name:.50} are {days!r:.50}")
        if not all(type(count) is int for count in manifest["counts"].values()):
            raise ValueError(f"counts is {manifest['counts']!r:.50}")
        if not all(type(name) is str for name in manifest["classes"]):
            raise ValueError(f"classes is {manifest['classes']!r:.50}")
    return manifest


def _read_pixels(path: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Region, split, class index and field of each series."""
    index = {name: i for i, name in enumerate(classes)}
    with explained(path), path.open(newline="", encoding="utf-8") as file:
        rows = [(row["region"], row["split"], index[row["class"]], int(row["field"])) for row in csv.DictReader(file)]
        regions, splits, labels, fields = zip(*rows, strict=True)
        if strange := sorted(set(splits) - set(SPLITS)):
            raise ValueError(f"{strange[0]!r:.50} is no split")
        return np.array(regions), np.array(splits), np.array(labels, np.int64), np.array(fields, np.int64)


def _of_region(array: np.ndarray, manifest: dict[str, Any], region: str, here: np.ndarray) -> np.ndarray:
    """The series (n,T,12) of a region, as a view."""
    if not manifest["dates_first"]:
        return array[here[0] : here[-1] + 1]
    before = sum(len(manifest["days"][name]) for name in list(manifest["days"])[: list(manifest["days"]).index(region)])
    return array[before : before + len(manifest["days"][region])].transpose(1, 0, 2)


def _first(labels: np.ndarray, split: np.ndarray, count: int, what: str, classes: list[str]) -> np.ndarray:
    """The first `count` series of each class in a split."""
    found = [np.flatnonzero(split & (labels == label)) for label in range(len(classes))]
    for name, index in zip(classes, found, strict=True):
        if not 0 <= count <= len(index):
            raise ValueError(f"{what} has 0 … {len(index):,} of {name}")
    return np.concatenate([index[:count] for index in found])
