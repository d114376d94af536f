"""Series: single pixels through a year, and pairs of what two sensors see of one pixel on one day (Part III)."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsbook import scenes

if TYPE_CHECKING:  # PyTorch takes seconds to import
    from torch import Tensor

SCALE = 10_000  # what a reflectance of 1 is stored as
SENSORS = {"s2": 12, "planet": 36}  # values a pixel: twelve bands; four bands of 3×3 pixels, band by band


@dataclass(frozen=True)
class Series:
    """Labelled pixels of one region through a year, as Sentinel-2 sees them.

    values (N,T,12) uint16: reflectance × SCALE · labels (N,) int64: class indices · fields (N,) int64: the number of
    the field that each pixel lies in · days (T,) int64: day of the year, rising · splits: indices (n,) int64 into N for
    "train" and "val", in an order in which the first k pixels of each class are a sample of k.
    Raises ValueError when the shapes do not fit together.
    """

    name: str
    region: str
    values: Tensor
    labels: Tensor
    fields: Tensor
    days: Tensor
    classes: tuple[str, ...]
    splits: dict[str, Tensor]
    checksum: str

    def __post_init__(self) -> None:
        n, dates, _ = self.values.shape
        expected = {"values": (n, dates, SENSORS["s2"]), "labels": (n,), "fields": (n,), "days": (dates,)}
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{self.name}: {name} has shape {tuple(getattr(self, name).shape)}, expected {shape}")

    def split(self, name: str) -> Tensor:
        """Indices (n,) int64 of the pixels of split "train" or "val"; raises ValueError for any other name."""
        if name not in self.splits:
            raise ValueError(f"split={name!r}: {self.name} has {', '.join(self.splits)}")
        return self.splits[name]


@dataclass(frozen=True)
class Pairs:
    """What both sensors see of a pixel on one day, unlabelled, of the fields that are there to pre-train on.

    s2 (N,12), planet (N,36) uint16: reflectance × SCALE; planet is band-major, 3×3 pixels a band · day (N,) int64: of
    the year. Raises ValueError when the shapes do not fit together.
    """

    name: str
    region: str
    s2: Tensor
    planet: Tensor
    day: Tensor
    checksum: str

    def __post_init__(self) -> None:
        for name, width in SENSORS.items():
            shape, expected = tuple(getattr(self, name).shape), (len(self.day), width)
            if shape != expected:
                raise ValueError(f"{self.name}: {name} has shape {shape}, expected {expected}")


def load(name: str, region: str, train: int, val: int, root: str | Path | None = None, world: int = 0) -> Series:
    """The series of one region, so many pixels a class for each split, drawn with replacement from separate fields.

    name: of an archive of series, in `root`/`name` (default: the project's data folder) · world: a simulated archive
    is drawn anew for each; others have but one. Raises ValueError for an unknown name or region, or for more pixels
    than there are, and DataError for missing or damaged files.
    """
    folder = scenes.location(name, root)
    return _load("series", name, folder.absolute(), scenes.verify(folder), region, (train, val), world)


def load_pairs(name: str, region: str, count: int, root: str | Path | None = None, world: int = 0) -> Pairs:
    """About `count` pairs of one region to pre-train on: the same number on each date, drawn anew on each.

    Arguments and errors as those of `load`; `count` is rounded down to a multiple of the number of dates.
    """
    folder = scenes.location(name, root)
    return _load("pairs", name, folder.absolute(), scenes.verify(folder), region, (count,), world)


@functools.lru_cache(maxsize=4)
def _load(
    what: str, name: str, folder: Path, checksum: str, region: str, counts: tuple[int, ...], world: int
) -> Series | Pairs:
    # Kept for the next run in this process.
    archive = importlib.import_module(f"rsbook.archives.{name}")
    if not hasattr(archive, "REGIONS"):
        raise ValueError(f"dataset={name!r}: holds scenes, not series")
    if region not in archive.REGIONS:
        raise ValueError(f"region={region!r}: {name} has {', '.join(archive.REGIONS)}")
    return getattr(archive, f"load_{what}")(folder, checksum, region, *counts, world)
