"""Scenes: labelled patches with their class positions, the one form in which every archive reaches the book."""

from __future__ import annotations

import hashlib
import importlib
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rsbook import positions as class_positions

DATA = Path(__file__).parents[1] / "data"
ARCHIVES = ("bluemarble",)
SPLITS = ("train", "val", "test")


class DataError(RuntimeError):
    """A data set is missing, damaged or not what its manifest says."""


@dataclass(frozen=True)
class Scenes:
    """Labelled patches of one archive, as integers, with everything the book needs to know about them.

    images (N,C,H,W) integers as the archive stores them · labels (N,L) bool · positions (N,H,W) int32 bit masks or
    None · splits: indices (n,) int64 into N for "train", "val" and "test" · mean, std (C,) of the training images, in
    the images' units · min_pixels: a class is in the label when more pixels than this carry it.
    Raises ValueError when the shapes do not fit together.
    """

    name: str
    images: Tensor
    labels: Tensor
    positions: Tensor | None
    classes: tuple[str, ...]
    splits: dict[str, Tensor]
    mean: Tensor
    std: Tensor
    min_pixels: int
    checksum: str

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise ValueError(f"{self.name}: images has shape {tuple(self.images.shape)}, expected (N,C,H,W)")
        n, bands, height, width = self.images.shape
        expected = {
            "labels": (n, len(self.classes)),
            "positions": (n, height, width),
            "mean": (bands,),
            "std": (bands,),
        }
        for field, shape in expected.items():
            value = getattr(self, field)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{self.name}: {field} has shape {tuple(value.shape)}, expected {shape}")
        for split, index in self.splits.items():
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < n:
                raise ValueError(f"{self.name}: split {split!r} names scenes outside 0 … {n - 1}")

    def split(self, name: str) -> Tensor:
        """Indices (n,) int64 of the scenes of split "train", "val" or "test"; raises ValueError for any other name."""
        if name not in self.splits:
            raise ValueError(f"split={name!r}: {self.name} has {', '.join(self.splits)}")
        return self.splits[name]

    def normalise(self, images: Tensor) -> Tensor:
        """Standardise images (B,C,H,W) of any type to float32 with the training mean and std of each band."""
        shape = (1, -1, 1, 1)
        mean, std = self.mean.to(images.device).view(shape), self.std.to(images.device).view(shape)
        return (images.float() - mean) / std


def load(name: str, root: str | Path | None = None) -> Scenes:
    """Load the archive `name` from `root`/`name` (default: the project's data folder), its checksums verified.

    Raises ValueError for an unknown name and DataError for missing or damaged files.
    """
    folder = location(name, root)
    checksum = verify(folder)
    archive = importlib.import_module(f"rsbook.archives.{name}")
    return archive.load(folder, checksum)


def checksum(name: str, root: str | Path | None = None) -> str:
    """The sha256 of the archive's SHA256SUMS: it identifies the data in a record, and the files are not read."""
    return _manifest_checksum(location(name, root))


def verify(folder: Path) -> str:
    """Check every file that folder/SHA256SUMS lists and return the manifest's own sha256.

    Raises DataError naming the missing or damaged file and how to get it back.
    """
    checksum = _manifest_checksum(folder)
    lines = (folder / "SHA256SUMS").read_bytes().decode(errors="replace").removesuffix("\n").split("\n")
    for line in lines:
        entry = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
        if entry is None:
            raise DataError(f"{folder / 'SHA256SUMS'} is damaged: {line!r} is no sha256 and file name; {_cure(folder)}")
        expected, name = entry.groups()
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing: {_cure(folder)}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise DataError(f"{path} is damaged: sha256 {found[:12]}…, expected {expected[:12]}…; {_cure(folder)}")
    return checksum


def from_maps(maps: Tensor, num_classes: int, min_pixels: int) -> tuple[Tensor, Tensor]:
    """Class positions (N,H,W) int32 and labels (N,L) bool of reference maps (N,H,W) by the rule `min_pixels`."""
    bits = class_positions.from_reference_maps(maps, num_classes)
    return bits, class_positions.to_labels(bits, num_classes, min_pixels)


def location(name: str, root: str | Path | None = None) -> Path:
    """The folder of the archive `name` under `root` (default: the project's data folder).

    Raises ValueError for an unknown name.
    """
    if name not in ARCHIVES:
        raise ValueError(f"dataset={name!r}: known archives are {', '.join(ARCHIVES)}")
    return Path(root if root is not None else DATA) / name


def _manifest_checksum(folder: Path) -> str:
    manifest = folder / "SHA256SUMS"
    if not manifest.is_file():
        raise DataError(f"{manifest} is missing: {_cure(folder)}")
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def _cure(folder: Path) -> str:
    return f"restore it with `git checkout -- {folder.name}` in {folder.parent}, or see data/{folder.name}/README.md"
