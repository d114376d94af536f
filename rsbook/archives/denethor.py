"""DENETHOR: two areas of Brandenburg, seen by Sentinel-2 and every day by Planet Fusion (data/denethor/README.md)."""

from __future__ import annotations

import json
import math
import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.transform import from_bounds

from rsbook.archives import prepared, prepared_series, sentinel
from rsbook.scenes import DataError
from rsbook.series import SENSORS, Pairs, Series

CROPS = {  # the publisher's crop_name: ours
    **{"Wheat": "wheat", "Rye": "rye", "Barley": "barley", "Oats": "oats", "Corn": "corn", "Oil Seeds": "oil seeds"},
    **{"Root Crops": "root crops", "Meadows": "meadow", "Forage Crops": "forage"},
}
CLASSES = tuple(CROPS.values())
PAIRED = "brandenburg_2018"
TILES = {  # how the publisher's names tell the areas: the tile, the part, the year
    PAIRED: ("18E[-_]242N", "train", 2018),
    "brandenburg_2019": ("17E[-_]243N", "test", 2019),
}
REGIONS = tuple(TILES)

PACKED = (  # without Sentinel-1, the light-weight Planet of every fifth day, and Planet of 2019
    *("dlr_fusion_competition_germany_*_labels*", "dlr_fusion_competition_germany_*_source_sentinel_2*"),
    *("dlr_fusion_competition_germany_train_source_planet.*", "s2-utm-33N-1[78]E-24[23]N-201[89]*"),
)
PRETRAINING, TRAINING = 0.7, 0.7  # of the fields of 2018, and of those of a crop that are left
DRAWN = {"train": 5_000, "val": 1_000}  # pixels a class
PAIRS = 100_000  # a date
SEED = 32

BANDS_TYPES, PLANET_TYPES = ("uint16", "int16", "float32"), ("uint16", "int16")
MOST_SIDE = 2_400  # pixels of 10 m; three of Planet cover one
MOST_COORDINATE = 1e8  # meters
MOST_BYTES, MOST_PICKLED = 2**28, 2**20  # of field boundaries, and of what Python has written
CURE = "`python -m rsbook data card denethor` says what to unpack where"

PAPER = {"fields of brandenburg_2018": 2_534, "fields of brandenburg_2019": 2_064, "dates of brandenburg_2018": 144}


@dataclass(frozen=True)
class Area:
    """One of the two areas: its bands (T,H,W,12), their dates, fields by number and class, and whose each pixel is.

    crops: class indices, -1 where the crop is none of ours · owner (H,W): index of the field, -1 where there is none.
    """

    bands: Path
    dates: list[date]
    fields: list[int]
    crops: list[int]
    owner: np.ndarray
    inputs: list[Path]


def source(raw: Path) -> prepared_series.Source:
    """Both areas in `raw`, wherever they were unpacked there: pixels to learn from and, of 2018, pairs to pre-train on.

    Raises DataError for missing, damaged or unexpected files, with the cure.
    """
    files = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file())
    areas = {region: _area(raw, files, region) for region in REGIONS}
    planet = _planet_images(raw, files, areas[PAIRED].dates)
    pixels, rows, pretraining = [], [], np.zeros(0, dtype=np.int64)
    for number, (region, area) in enumerate(areas.items()):
        unlabelled, parts = _split(raw, region, area)
        if region == PAIRED:
            pretraining = _pixels(area, unlabelled)
        chosen = _draw(number, area, parts)
        pixels.append(np.array([pixel for pixel, _, _, _ in chosen]))
        rows += [(region, *row) for _, *row in chosen]
    regions, splits, labels, fields = (list(column) for column in zip(*rows, strict=True))
    dates = [len(area.dates) for area in areas.values()]
    pairs = (dates[0], min(PAIRS, len(pretraining)))
    found = {f"fields of {region}": len(area.fields) for region, area in areas.items()}
    found |= {f"dates of {region}": len(area.dates) for region, area in areas.items()}
    found |= {f"fields of no class in {region}": area.crops.count(-1) for region, area in areas.items()}
    differ = [f"{name} {found[name]:,}, paper {value:,}" for name, value in PAPER.items() if found[name] != value]
    return prepared_series.Source(
        name="denethor",
        version="DENETHOR; rules 1",
        classes=CLASSES,
        regions=regions,
        splits=splits,
        labels=labels,
        fields=fields,
        days={region: [day.timetuple().tm_yday for day in area.dates] for region, area in areas.items()},
        shapes={
            "series": (sum(dates), len(pixels[0]), SENSORS["s2"]),
            **{f"pairs_{sensor}": (*pairs, width) for sensor, width in SENSORS.items()},
        },
        unit="dates",
        groups=[[i] for i in range(sum(dates))],
        read=partial(_read, [area.bands for area in areas.values()], pixels, planet, pretraining, pairs[1]),
        dates_first=True,
        notes={"found": found, "paper": PAPER, "differ": differ},
        inputs=prepared.identify(path for area in areas.values() for path in area.inputs),
        group_inputs=[prepared.identify(planet[i : i + 1]) for i in range(sum(dates))],
    )


def load_series(folder: Path, checksum: str, region: str, train: int, val: int, world: int = 0) -> Series:
    """As `rsbook.series.load`: an archive has but one world."""
    return prepared_series.load_series(folder, checksum, region, train, val)


def load_pairs(folder: Path, checksum: str, region: str, count: int, world: int = 0) -> Pairs:
    """As `rsbook.series.load_pairs`; raises ValueError for the area that has no pairs."""
    if region != PAIRED:
        raise ValueError(f"region={region!r}: denethor has pairs of {PAIRED} only")
    return prepared_series.load_pairs(folder, checksum, region, count)


def _area(raw: Path, files: list[str], region: str) -> Area:
    tile, part, year = TILES[region]
    bands = _only(raw, files, rf".*{tile}.*/bands\.npy", f"bands.npy of Sentinel-2 of {region}")
    shape = _map(bands).shape
    beside = bands.parent.parent if bands.parent.name == "data" else bands.parent  # two releases, two layouts
    dates = _dates(beside / "timestamp.pkl", shape[0], year)
    labels = _only(raw, files, rf"(.*{tile}|.*{part}_{year}).*\.geojson", f"field boundaries of {region}, a GeoJSON")
    fields, crops, shapes = _fields(labels)
    grid = from_bounds(*_bounds(beside / "bbox.pkl"), shape[2], shape[1])
    try:  # a pixel is of the field that its centre lies in
        values = list(zip(shapes, range(len(shapes)), strict=True))
        owner = rasterize(values, out_shape=shape[1:3], fill=-1, transform=grid, dtype="int32")
    except (RasterioError, ValueError, TypeError) as error:
        raise DataError(f"{labels} is damaged ({error}): unpack it again; {CURE}") from error
    if not (owner >= 0).any():
        raise DataError(f"no field of {labels} lies in what {beside / 'bbox.pkl'} says: unpack both again; {CURE}")
    return Area(bands, dates, fields, crops, owner, [bands, beside / "timestamp.pkl", beside / "bbox.pkl", labels])


def _only(raw: Path, files: list[str], pattern: str, what: str) -> Path:
    """The only file whose place below `raw` is as the pattern says."""
    found = [file for file in files if re.fullmatch(pattern, file, re.IGNORECASE)]
    if len(found) == 1:
        return raw / found[0]
    if not found:
        raise DataError(f"{raw} holds no {what}: unpack it there; {CURE}")
    raise DataError(f"{raw} holds {len(found)} files that may be the {what}, as {found[1]}: keep one; {CURE}")


def _planet_images(raw: Path, files: list[str], dates: list[date]) -> list[Path]:
    """The image that Planet has of each of these dates."""
    tile, _, _ = TILES[PAIRED]
    name = rf"(?!.*(5.?day|PF-QA)).*{tile}.*(\d{{4}})[-_](\d\d)[-_](\d\d)(/sr)?\.tif"
    found = {match.group(2, 3, 4): file for file in files if (match := re.fullmatch(name, file))}
    if missing := [day for day in dates if tuple(day.isoformat().split("-")) not in found]:
        more = f", nor of {len(set(missing)) - 1} other days" if len(set(missing)) > 1 else ""
        what = f"no daily image of Planet of {missing[0]} for {PAIRED}{more}"
        raise DataError(f"{raw} holds {what}: unpack them there; {CURE}")
    return [raw / found[tuple(day.isoformat().split("-"))] for day in dates]


def _split(raw: Path, region: str, area: Area) -> tuple[list[int], dict[str, list[list[int]]]]:
    """Which fields are to pre-train on, and by split and class those that are to learn from and to test with.

    By hash: no random generator and no order decides. Only fields that any pixel lies in are dealt out.
    """
    there = np.unique(area.owner[area.owner >= 0]).tolist()
    order = sorted(there, key=lambda i: sentinel.in_fair_order(f"denethor {region} {area.fields[i]}"))
    cut = round(PRETRAINING * len(order)) if region == PAIRED else 0
    parts: dict[str, list[list[int]]] = {"train": [], "val": []}
    for label, name in enumerate(CLASSES):
        left = [i for i in order[cut:] if area.crops[i] == label]
        if len(left) < 2:
            what = f"{len(left)} fields of {name} in {region} besides those to pre-train on"
            raise DataError(f"{raw} has {what}, expected at least 2: unpack its field boundaries again; {CURE}")
        for split, fields in zip(parts, prepared_series.share(left, TRAINING), strict=True):
            parts[split].append(fields)
    return order[:cut], parts


def _pixels(area: Area, fields: list[int]) -> np.ndarray:
    """The pixels (n,) of these fields, counted row by row."""
    return np.flatnonzero(np.isin(area.owner, fields))


def _draw(number: int, area: Area, parts: dict[str, list[list[int]]]) -> list[tuple[int, str, int, int]]:
    """Pixels drawn with replacement: the pixel, its split, its class and the number of its field."""
    chosen = []
    for split, count in DRAWN.items():
        for label, fields in enumerate(parts[split]):
            pixels = _pixels(area, fields)
            seed = (SEED, number, list(DRAWN).index(split), label)
            drawn = pixels[prepared_series.draw(seed, len(pixels), count)]
            owners = area.owner.reshape(-1)[drawn]
            chosen += [(int(p), split, label, area.fields[i]) for p, i in zip(drawn, owners, strict=True)]
    return chosen


def _read(
    bands: list[Path],
    pixels: list[np.ndarray],
    planet: list[Path],
    pretraining: np.ndarray,
    count: int,
    dates: list[int],
) -> tuple[np.ndarray | None, ...]:
    """Of one date the series' pixels (1,N,12) uint16 and, of 2018, as many pairs (1,P,12) and (1,P,36), else None.

    Raises DataError for a damaged file or one that is another.
    """
    [index] = dates
    area, when = (0, index) if index < len(planet) else (1, index - len(planet))
    image = np.ascontiguousarray(_map(bands[area])[when])
    seen = image.reshape(-1, image.shape[-1])
    series = prepared_series.stored(seen[pixels[area]])[None]
    if area:
        return series, None, None
    drawn = pretraining[prepared_series.shuffled((SEED, when), len(pretraining), count)]
    return series, prepared_series.stored(seen[drawn])[None], _around(planet[when], len(image), drawn)[None]


def _around(path: Path, side: int, pixels: np.ndarray) -> np.ndarray:
    """What Planet sees around these pixels of 10 m: (P,36) uint16, the 3×3 pixels of each band in a row."""
    large = side * 10 // 3
    image = sentinel.read(path, 4, [large], PLANET_TYPES, f"unpack its archive again; {CURE}")
    near = np.arange(-1, 2)
    rows, columns = (np.clip((at * 10 // 3)[:, None] + near, 0, large - 1) for at in np.divmod(pixels, side))
    found = image[:, rows[:, :, None], columns[:, None, :]]  # (4,P,3,3)
    return prepared_series.stored(found.transpose(1, 0, 2, 3).reshape(len(pixels), -1))


def _map(path: Path) -> np.ndarray:
    """The bands (T,S,S,12) as a memory map; raises DataError for anything else. Nothing is unpickled."""
    try:
        bands = np.lib.format.open_memmap(path, mode="r")  # unlike numpy.load, it knows no other kind of file
        square = bands.ndim == 4 and bands.shape[1] == bands.shape[2] <= MOST_SIDE and bands.shape[2] % 3 == 0
        if not square or bands.shape[3] != SENSORS["s2"] or bands.dtype not in BANDS_TYPES or not bands.size:
            expected = f"(T,S,S,{SENSORS['s2']}) of {' or '.join(BANDS_TYPES)}"
            raise ValueError(f"it holds {bands.shape} {bands.dtype!s:.50}, expected {expected}")
    except Exception as error:  # numpy raises much for what is none of its files
        raise DataError(f"{path} is damaged ({error!s:.300}): unpack its archive again; {CURE}") from error
    return bands


def _fields(path: Path) -> tuple[list[int], list[int], list[dict[str, Any]]]:
    """Number, class (-1 for none) and shape of each field."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
        features = json.loads(path.read_bytes())["features"]
        names = [feature["properties"]["crop_name"] for feature in features]
        numbers = [feature["properties"]["fid"] for feature in features]
        if not all(type(number) is int and abs(number) < 2**63 for number in numbers):
            raise ValueError("a fid is no whole number")
        if len(set(numbers)) < len(numbers):
            raise ValueError("two fields have the same fid")
        if not set(CROPS).intersection(name for name in names if isinstance(name, str)):
            raise ValueError("no crop_name is one of those that are known")
        shapes = [_shape(feature["geometry"]) for feature in features]
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error!r:.300}): unpack it again; {CURE}") from error
    known = [CROPS.get(name) if isinstance(name, str) else None for name in names]
    return numbers, [CLASSES.index(name) if name else -1 for name in known], shapes


def _shape(geometry: dict[str, Any]) -> dict[str, Any]:
    """The polygons of a geometry, of finite points of two coordinates and nothing else."""
    polygons = {"Polygon": lambda found: [found], "MultiPolygon": list}[geometry["type"]](geometry["coordinates"])
    clean = [[[(float(x), float(y)) for x, y, *_ in ring] for ring in polygon] for polygon in polygons]
    rings = [ring for polygon in clean for ring in polygon]
    near = (abs(value) < MOST_COORDINATE for ring in rings for point in ring for value in point)  # NaN is not
    if not clean or not all(clean) or min(map(len, rings)) < 4 or not all(near):
        raise ValueError("a boundary is none")
    return {"type": "MultiPolygon", "coordinates": clean}


def _bounds(path: Path) -> tuple[float, float, float, float]:
    """West, south, east and north of the BBox of sentinelhub that was pickled there."""
    names, found, name = ("min_x", "min_y", "max_x", "max_y"), {}, None
    for value in _pickled(path):
        if type(value) in (int, float) and name is not None and abs(value) < MOST_COORDINATE:
            found[name] = float(value)
        name = value if value in names else None
    west, south, east, north = (found.get(name, math.nan) for name in names)
    if not (west < east and south < north):
        raise DataError(f"{path} is damaged (it has no {', '.join(names)}): unpack its archive again; {CURE}")
    return west, south, east, north


def _dates(path: Path, count: int, year: int) -> list[date]:
    """The days of the datetimes that were pickled there, which hold theirs in ten bytes."""
    found = [value for value in _pickled(path) if isinstance(value, bytes) and len(value) == 10]
    try:
        dates = [date(256 * value[0] + value[1], value[2], value[3]) for value in found]
        if len(dates) != count:
            raise ValueError(f"it has {len(dates)} dates, bands.npy has {count}")
        if dates != sorted(dates) or {day.year for day in dates} != {year}:
            raise ValueError(f"its dates are not those of {year}, one after the other")
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): unpack its archive again; {CURE}") from error
    return dates


def _pickled(path: Path) -> Iterator[Any]:
    """The plain values in a pickle, in its order. It is never loaded: to load one is to run what it says."""
    try:
        if path.stat().st_size > MOST_PICKLED:
            raise ValueError(f"it is larger than {MOST_PICKLED:,} bytes")
        values = [(code.name, value) for code, value, _ in pickletools.genops(path.read_bytes())]
    except Exception as error:  # pickletools raises much for what is none
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error!s:.300}): unpack its archive again; {CURE}") from error
    asides = ("PUT", "GET", "PROTO", "FRAME")  # numbers that count what is in the pickle
    return (value for name, value in values if value is not None and not name.endswith(asides))
