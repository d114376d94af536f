"""DFC2020, the IEEE GRSS Data Fusion Contest of 2020: radar, optical bands and their maps (data/dfc2020/README.md)."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import rasterio

from rsbook.archives import prepared, sentinel
from rsbook.scenes import DataError

CODES = {  # those of the contest's ten classes that CromSS has; savanna, 3, and snow, 8, carry none, as any other
    **{"forest": 1, "shrubland": 2, "grassland": 4, "wetland": 5},
    **{"cropland": 6, "urban": 7, "barren": 9, "water": 10},
}
CLASSES = tuple(CODES)
SIZE = 256  # pixels of 10 m a side
FILES = {  # of a patch: how many bands and which types
    "s1": (2, ("float64", "float32")),
    "s2": (13, ("uint16",)),
    "dfc": (1, ("int32", "uint16", "uint8", "int16")),
}
NAME = re.compile(r"ROIs0000_(validation|test)_(s1|s2|dfc)_0_(p\d+)\.tif")
SPLITS = {"validation": "train", "test": "test"}  # CromSS trains on the first part, and has no validation

PACKED = ("*",)  # what the publisher has packed has had several names
TOGETHER = 32  # patches of one reading: 31 MB of images
CURE = "`python -m rsbook data card dfc2020` says what to unpack where"

PAPER = {"train": 986, "test": 5_128}  # arXiv 2405.01217

load = sentinel.load


def source(raw: Path) -> prepared.Source:
    """The patches of both parts in `raw`, wherever they were unpacked there: one part to train with, one to test.

    Raises DataError for missing files, with the cure.
    """
    files = {path.name: path for path in sorted(raw.rglob("ROIs0000_*.tif")) if NAME.fullmatch(path.name)}
    patches = {(match[1], match[3]) for match in map(NAME.fullmatch, files)}
    if missing := [part for part in SPLITS if part not in {part for part, _ in patches}]:
        raise DataError(f"{raw} holds no file ROIs0000_{missing[0]}_s1_0_p0.tif or the like: unpack that part; {CURE}")
    # Neighbours have neighbouring numbers; ordered by hash, the first n patches of a part are a fair sample of it.
    names = sorted((f"ROIs0000_{part}_{number}" for part, number in patches), key=sentinel.in_fair_order)
    wanted = [[_file(name, kind) for kind in FILES] for name in names]
    if missing := sorted({file for row in wanted for file in row} - files.keys()):
        more = f", with {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]} is missing in {raw}{more}: unpack its archive again; {CURE}")
    paths = [[files[file] for file in row] for row in wanted]
    splits = [SPLITS[name.split("_")[1]] for name in names]
    groups = [list(range(i, min(i + TOGETHER, len(names)))) for i in range(0, len(names), TOGETHER)]
    found = {split: splits.count(split) for split in PAPER}
    differ = [f"{name} {found[name]:,}, paper {value:,}" for name, value in PAPER.items() if found[name] != value]
    return prepared.Source(
        name="dfc2020",
        version="DFC2020; rules 1",
        classes=CLASSES,
        bands=sentinel.BANDS,
        rgb=sentinel.RGB,
        min_pixels=0,
        size=SIZE,
        dtype="uint8",
        has_positions=True,
        scenes=names,
        splits=splits,
        groups=groups,
        read=partial(_read, paths),
        notes={"found": found, "paper": PAPER, "differ": differ},
        modalities=sentinel.MODALITIES,
        group_inputs=[prepared.identify(path for i in group for path in paths[i]) for group in groups],
    )


def _file(name: str, kind: str) -> str:
    """The publisher's file of one kind for a patch such as ROIs0000_test_p12."""
    return f"_{kind}_0_p".join(name.rsplit("_p", 1)) + ".tif"


def _read(paths: list[list[Path]], indices: list[int]) -> prepared.Patches:
    """Images (n,15,256,256) uint8, class positions (n,256,256) int32 and labels (n,8) bool of these patches.

    Raises DataError for a damaged file or one that is another.
    """
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):  # else every opening lists the folder first
        found = [[_layers(path, kind) for path, kind in zip(paths[i], FILES, strict=True)] for i in indices]
    images = np.stack([sentinel.clip(np.concatenate([s1, s2]), sentinel.BANDS) for s1, s2, _ in found])
    bits = np.stack([sentinel.to_bits(codes[0], CODES.values()) for _, _, codes in found])
    return images, bits, sentinel.present(bits, len(CLASSES))


def _layers(path: Path, kind: str) -> np.ndarray:
    """All bands (C,256,256) of one file of a patch, as they are stored."""
    bands, dtypes = FILES[kind]
    return sentinel.read(path, bands, [SIZE], dtypes, f"unpack its archive again; {CURE}")
