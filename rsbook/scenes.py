"""Scenes: labelled patches with their class positions, the one form in which every archive reaches the book."""

from __future__ import annotations

import ctypes
import difflib
import functools
import hashlib
import importlib
import json
import mmap
import platform
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsbook.files import replacing

if TYPE_CHECKING:  # PyTorch takes seconds to import: listing and preparing archives do without it
    from torch import Tensor

DATA = Path(__file__).parents[1] / "data"
EMBEDDED = ("bluemarble", "bluemarble_64", "bluemarble_vegetation", "crops")  # these come with the repository
ARCHIVES = (
    *(*EMBEDDED, "deepglobe", "bigearthnet", "treesatai", "aid", "ssl4eo", "dfc2020"),
    *("denethor", "breizhcrops", "voc"),
)
SPLITS = ("train", "val", "test")
LARGE = 64 * 2**20  # bytes: a larger file is hashed again only after its size or time has changed
STAMP = ".verified.json"
MUCH = 2**15  # bytes of an image that are worth a call of the system
C = ctypes.CDLL("libc.so.6") if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None


class DataError(RuntimeError):
    """A data set is missing, damaged or not what its manifest says."""


@dataclass(frozen=True)
class Scenes:
    """Labelled patches of one archive, as integers, with everything the book needs to know about them.

    images (N,C,H,W) integers as the archive stores them · labels (N,L) bool · positions (N,H,W) int32 bit masks or
    None · splits: indices (n,) int64 into N for "train", "val" and "test" · mean, std (C,) of the training images, in
    the images' units · min_pixels: a class is in the label when more pixels than this carry it · rgb: which bands are
    red, green and blue · modalities: which bands each sensor or product has, by its name; empty where there is one ·
    seasons: how many scenes in a row show the same place, each at another time of the year ·
    sizes (N,2): height and width in pixels of images that are padded at the right and at the bottom, or None.
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
    rgb: tuple[int, int, int] = (0, 1, 2)
    modalities: dict[str, tuple[int, ...]] = field(default_factory=dict)
    seasons: int = 1
    sizes: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise ValueError(f"{self.name}: images has shape {tuple(self.images.shape)}, expected (N,C,H,W)")
        n, bands, height, width = self.images.shape
        expected = {
            "labels": (n, len(self.classes)),
            "positions": (n, height, width),
            "mean": (bands,),
            "std": (bands,),
            "sizes": (n, 2),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{self.name}: {name} has shape {tuple(value.shape)}, expected {shape}")
        for split, index in self.splits.items():
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < n:
                raise ValueError(f"{self.name}: split {split!r} names scenes outside 0 … {n - 1}")
        if outside := [band for chosen in self.modalities.values() for band in chosen if not 0 <= band < bands]:
            raise ValueError(f"{self.name}: modalities name band {outside[0]}, outside 0 … {bands - 1}")

    def split(self, name: str) -> Tensor:
        """Indices (n,) int64 of the scenes of split "train", "val" or "test"; raises ValueError for any other name."""
        if name not in self.splits:
            raise ValueError(f"split={name!r}: {self.name} has {', '.join(self.splits)}")
        return self.splits[name]

    def bands(self, modality: str) -> tuple[int, ...]:
        """Which bands of the images are those of a modality; raises ValueError for a name that is none."""
        if modality not in self.modalities:
            known = ", ".join(self.modalities) or "none"
            raise ValueError(f"modality={modality!r}: the modalities of {self.name} are {known}")
        return self.modalities[modality]

    def normalise(self, images: Tensor) -> Tensor:
        """Standardise images (B,C,H,W) of any type to float32 with the training mean and std of each band."""
        shape = (1, -1, 1, 1)
        mean, std = self.mean.to(images.device).view(shape), self.std.to(images.device).view(shape)
        return images.to(mean.dtype, copy=True).sub_(mean).div_(std)


def take(images: Tensor, index: Tensor) -> Tensor:
    """images[index] of images (N,…) and an index (B,) of integers from 0: on a CPU up to twenty times as fast."""
    if images.device.type != "cpu" or not images.is_contiguous():  # index_select would lay out others anew
        return images[index]
    if C is not None and images[:1].nbytes >= MUCH:
        _announce(images, index)
    return images.index_select(0, index)


def _announce(images: Tensor, index: Tensor) -> None:
    """Ask the system for these images before they are read: those of a mapped file then come from the disk together,
    ten times as fast as one page after another. Where they are in memory, nothing happens.
    """
    size, first = images[:1].nbytes, images.data_ptr()
    for row in index.tolist():
        start = (first + row * size) // mmap.PAGESIZE * mmap.PAGESIZE
        C.madvise(ctypes.c_void_p(start), ctypes.c_size_t(first + (row + 1) * size - start), mmap.MADV_WILLNEED)


def load(name: str, root: str | Path | None = None) -> Scenes:
    """Load the archive `name` from `root`/`name` (default: the project's data folder), its checksums verified.

    Raises ValueError for an unknown name, or one of an archive of series, and DataError for missing or damaged files.
    """
    folder = location(name, root)
    if not hasattr(importlib.import_module(f"rsbook.archives.{name}"), "load"):
        raise ValueError(f"dataset={name!r}: holds series, not scenes; rsbook.series.load opens it")
    return _load(name, folder.absolute(), verify(folder))


@functools.lru_cache(maxsize=2)
def _load(name: str, folder: Path, checksum: str) -> Scenes:
    # Kept for the next run in this process: on small networks, reading takes as long as an epoch.
    return importlib.import_module(f"rsbook.archives.{name}").load(folder, checksum)


def checksum(name: str, root: str | Path | None = None) -> str:
    """The sha256 of the archive's SHA256SUMS: it identifies the data in a record, and the files are not read."""
    return _manifest_checksum(location(name, root))


def verify(folder: Path, everything: bool = False, advance: Callable[[int], Any] = lambda size: None) -> str:
    """Check every file that folder/SHA256SUMS lists and return the manifest's own sha256.

    A file over 64 MB that was whole at an earlier check, and whose size and time are still what they were, is hashed
    again only with `everything`. advance is called with the number of bytes of each piece that has been hashed. Raises
    DataError naming the missing or damaged file and how to get it back.
    """
    checksum = _manifest_checksum(folder)
    known, states = _remembered(folder, checksum), {}
    for name, expected in listed(folder).items():
        path = place(folder, name)
        if not path.is_file():
            raise DataError(f"{path} is missing: {_cure(path.parent)}")
        states[name] = _state(path)
        if states[name][0] <= LARGE or known.get(name) != states[name] or everything:
            found = sha256(path, advance)
            if found != expected:
                (folder / STAMP).unlink(missing_ok=True)
                what = f"sha256 {found[:12]}…, expected {expected[:12]}…"
                raise DataError(f"{path} is damaged: {what}; {_cure(path.parent)}")
    if states != known:
        _remember(folder, checksum, states)
    return checksum


def listed(folder: Path) -> dict[str, str]:
    """The sha256 of every file that folder/SHA256SUMS lists, by name; raises DataError for a line that is no entry.

    An archive that builds on another one lists that one's files too, as ../NAME/FILE.
    """
    lines = (folder / "SHA256SUMS").read_bytes().decode(errors="replace").removesuffix("\n").split("\n")
    entries = [(line, re.fullmatch(r"([0-9a-f]{64})  ((?:\.\./\w+/)?[\w.-]+)", line)) for line in lines]
    for line, entry in entries:
        if entry is None:
            what = f"{line!r:.80} is no sha256 and file name"
            raise DataError(f"{folder / 'SHA256SUMS'} is damaged: {what}; {_cure(folder)}")
    return {entry[2]: entry[1] for _, entry in entries}


def place(folder: Path, name: str) -> Path:
    """Where the file is that folder/SHA256SUMS lists by this name."""
    return folder.parent / name.removeprefix("../") if name.startswith("../") else folder / name


def sha256(path: Path, advance: Callable[[int], Any] = lambda size: None) -> str:
    """The sha256 of a file of any size, in hex digits; advance is called with the bytes of each piece that is done."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(2**20))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(piece):
            digest.update(piece[:size])
            advance(size)
    return digest.hexdigest()


def remember(folder: Path, checksum: str) -> None:
    """Note that every file of the archive is whole as it is now; for who has just written and hashed them."""
    _remember(folder, checksum, {name: _state(place(folder, name)) for name in listed(folder)})


def from_maps(maps: Tensor, num_classes: int, min_pixels: int) -> tuple[Tensor, Tensor]:
    """Class positions (N,H,W) int32 and labels (N,L) bool of reference maps (N,H,W) by the rule `min_pixels`."""
    from rsbook import positions as class_positions

    bits = class_positions.from_reference_maps(maps, num_classes)
    return bits, class_positions.to_labels(bits, num_classes, min_pixels)


def location(name: str, root: str | Path | None = None) -> Path:
    """The folder of the archive `name` under `root` (default: the project's data folder).

    Raises ValueError for an unknown name.
    """
    if name not in ARCHIVES:
        near = difflib.get_close_matches(name, ARCHIVES, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"dataset={name!r}: known archives are {', '.join(ARCHIVES)}{hint}")
    return Path(root if root is not None else DATA) / name


def _manifest_checksum(folder: Path) -> str:
    manifest = folder / "SHA256SUMS"
    if not manifest.is_file():
        raise DataError(f"{manifest} is missing: {_cure(folder)}")
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def _state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def _remembered(folder: Path, checksum: str) -> dict[str, list[int]]:
    """Size and time of each file when the archive with this manifest was last found whole, as far as noted."""
    try:
        stamp = json.loads((folder / STAMP).read_bytes())
        return dict(stamp["files"]) if stamp["checksum"] == checksum else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _remember(folder: Path, checksum: str, states: dict[str, list[int]]) -> None:
    if any(size > LARGE for size, _ in states.values()):
        with suppress(OSError), replacing(folder / STAMP) as temporary:  # a folder that may not be written to will do
            temporary.write_text(json.dumps({"checksum": checksum, "files": states}), encoding="utf-8")


def _cure(folder: Path) -> str:
    name, root = folder.name, folder.parent
    if name not in ARCHIVES or name in EMBEDDED:
        return f"restore it with `git checkout -- {name}` in {root}, or see data/{name}/README.md"
    where = "" if root == DATA else f" --root {root}"
    card = f"`python -m rsbook data card {name}` says where to get the archive"
    return f"{card}, and `python -m rsbook data prepare {name}{where}` makes its files"
