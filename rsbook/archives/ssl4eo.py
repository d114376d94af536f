"""SSL4EO-S12 with the noisy labels of NoLDO-S12: four seasons of radar and optical bands (data/ssl4eo/README.md)."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import rasterio

from rsbook.archives import prepared, sentinel
from rsbook.scenes import DataError

CLASSES = (  # of Dynamic World, in the order of its codes, 0 … 8
    *("water", "trees", "grass", "flooded vegetation", "crops", "shrub & scrub", "built", "bare", "snow & ice"),
)
SIZE = 264  # pixels of 10 m a side
SEASONS = 4
# Pixels a side as the publisher has cropped the bands: of 10 m but for those of 60 m and of 20 m.
NATIVE = dict.fromkeys(sentinel.BANDS, SIZE) | dict.fromkeys(("B1", "B9", "B10"), SIZE // 6)
NATIVE |= dict.fromkeys(("B5", "B6", "B7", "B8A", "B11", "B12"), SIZE // 2)
ODD = 32  # some images are a little larger or smaller: by a 32nd at most

PACKED = ("s1*", "s2c*", "s2_l1c*", "ssl4eo_s12_nol*")  # the publishers' archives by name, without S2 L2A
RADAR, OPTICAL, LABELS = ("s1",), ("s2c",), ("dw_noisy_labels", "ssl4eo_s12_nol")  # folders in raw, or one below
LABEL = "label.tif"
RADAR_TYPES, OPTICAL_TYPES = ("float32", "float64", "uint8"), ("uint16", "int16", "uint8")
LABEL_TYPES = ("uint8", "int8", "int16", "uint16", "int32", "float32", "float64")
VALIDATION = 0.01  # of the locations
TOGETHER = 4  # locations of one reading: 17 MB of images
CURE = "`python -m rsbook data card ssl4eo` says what to unpack where"

PAPER = {"locations": 103_793}  # arXiv 2405.01217

Season = tuple[
    str, str, str
]  # the location, and the names of its folders of Sentinel-1 and of Sentinel-2 and the label

load = sentinel.load


def source(raw: Path) -> prepared.Source:
    """Every location in `raw` whose four seasons all have both sensors and a label, its seasons one after the other.

    Raises DataError for missing folders, or when there is no such location, with the cure.
    """
    radar, optical, labels = (_folder(raw, names) for names in (RADAR, OPTICAL, LABELS))
    labelled = [name for name in os.listdir(labels) if re.fullmatch(r"\d+", name)]
    # Numbers go by place; ordered by hash, the first n locations are a fair sample of the Earth on every machine.
    seasons = {place: _seasons(radar, optical, labels, place) for place in sorted(labelled, key=sentinel.in_fair_order)}
    places = [place for place, found in seasons.items() if found]
    if len(places) < 2:
        what = (
            f"{len(places)} of the {len(labelled)} locations in {labels} have {SEASONS} labels and s1 and s2c to each"
        )
        raise DataError(f"{what}, expected at least 2: unpack more of them; {CURE}")
    validation = _validation(places)
    all_seasons = [season for place in places for season in seasons[place]]
    left_out = sorted(seasons.keys() - set(places))
    found = {"locations": len(places), "labelled_locations_left_out": len(left_out)}
    differ = [f"{name} {found[name]:,}, paper {value:,}" for name, value in PAPER.items() if found[name] != value]
    differ += [f"{len(left_out):,} labelled locations are left out, the first is {place}" for place in left_out[:1]]
    count, step = len(all_seasons), SEASONS * TOGETHER
    return prepared.Source(
        name="ssl4eo",
        version="SSL4EO-S12 1.0, NoLDO-S12; rules 1",
        classes=CLASSES,
        bands=sentinel.BANDS,
        rgb=sentinel.RGB,
        min_pixels=0,
        size=SIZE,
        dtype="uint8",
        has_positions=True,
        scenes=[f"{place}/{name}" for place, _, name in all_seasons],
        splits=["val" if place in validation else "train" for place, _, _ in all_seasons],
        groups=[list(range(i, min(i + step, count))) for i in range(0, count, step)],
        read=partial(_read, radar, optical, labels, all_seasons),
        notes={"found": found, "paper": PAPER, "differ": differ},
        modalities=sentinel.MODALITIES,
        seasons=SEASONS,
        map_positions=True,  # 4 bytes for each of 29 billion pixels
    )


def _validation(places: list[str]) -> set[str]:
    """A hundredth of the locations, by hash: no random generator and no order decides, and few change with the rest."""
    held_out = max(1, round(VALIDATION * len(places)))
    return set(sorted(places, key=lambda place: sentinel.in_fair_order(f"validation {place}"))[:held_out])


def _folder(raw: Path, names: tuple[str, ...]) -> Path:
    """The first folder of one of these names in `raw`, or in a folder there, as some of the archives unpack."""
    places = (place for name in names for place in (raw / name, *sorted(raw.glob(f"*/{name}"))))
    if (folder := next((place for place in places if place.is_dir()), None)) is None:
        raise DataError(f"{raw} has no folder {' or '.join(names)}: unpack its archive there; {CURE}")
    return folder


def _seasons(radar: Path, optical: Path, labels: Path, place: str) -> list[Season]:
    """The four seasons of a location, by date; none unless all of them have both sensors and a label.

    The publisher has asked for one image of each sensor in each of four windows of 30 days, so that the first belongs
    to the first. A label has the name of the optical image from which it was made.
    """
    seen_by_radar, seen, labelled = (_dated(folder / place) for folder in (radar, optical, labels))
    if labelled != seen or not len(seen_by_radar) == len(seen) == SEASONS:
        return []
    return [(place, *names) for names in zip(seen_by_radar, seen, strict=True)]


def _dated(folder: Path) -> list[str]:
    """The names of the folders in a folder that have a date, the time of the first line of the image, in its order."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    dates = {name: date[0] for name in names if (date := re.search(r"\d{8}T\d{6}", name))}
    return sorted(dates, key=lambda name: (dates[name], name))


def _read(radar: Path, optical: Path, labels: Path, seasons: list[Season], indices: list[int]) -> prepared.Patches:
    """Images (n,15,264,264) uint8, class positions (n,264,264) int32 and labels (n,9) bool of these scenes.

    Raises DataError for a missing or damaged file.
    """
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):  # else every opening lists the folder first
        chosen = [seasons[i] for i in indices]
        images = np.stack([_image(radar / place / s1, optical / place / s2) for place, s1, s2 in chosen])
        bits = np.stack([_positions(labels / place / s2 / LABEL) for place, _, s2 in chosen])
    return images, bits, sentinel.present(bits, len(CLASSES))


def _image(radar: Path, optical: Path) -> np.ndarray:
    """The fifteen bands (15,264,264) uint8 of one season."""
    layers = [_band(radar, band, RADAR_TYPES) for band in sentinel.S1]
    layers += [_band(optical, band, OPTICAL_TYPES) for band in sentinel.S2]
    return np.concatenate(layers)


def _band(folder: Path, band: str, dtypes: tuple[str, ...]) -> np.ndarray:
    """A band (1,264,264) uint8, clipped before it is enlarged: there are fewer pixels then."""
    sides = _near(NATIVE[band]) + _near(SIZE)  # the smaller release has all bands at 10 m
    layer = sentinel.read(
        folder / f"{band}.tif", 1, sides, dtypes, f"unpack the archive of {folder.parts[-3]} again; {CURE}"
    )
    return sentinel.enlarge(sentinel.clip(layer, [band]), SIZE)


def _positions(path: Path) -> np.ndarray:
    codes = sentinel.read(path, 1, _near(SIZE), LABEL_TYPES, f"unpack ssl4eo_s12_nol.zip again; {CURE}")
    return sentinel.to_bits(sentinel.enlarge(codes, SIZE)[0], range(len(CLASSES)))


def _near(side: int) -> list[int]:
    """What may be there in place of a side, itself first."""
    return [side, *range(side - side // ODD, side), *range(side + 1, side + side // ODD + 1)]
