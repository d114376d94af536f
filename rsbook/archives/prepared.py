"""Archives that are prepared once: what a reader of the publisher's files offers, and the files that come of it.

DIR/NAME/raw/ holds the archive as its publishers ship it. `rsbook.preparing` fills, in DIR/NAME/:
images.npy (N,C,S,S), positions.npy (N,S,S) bit masks where there are maps (uint8 for up to 8 classes, uint16 for up to
16, else int32; int32 with `map_positions`), labels.npy (N,L) bool, scenes.csv (scene, split), manifest.json (all else),
and SHA256SUMS, the last: only with it is the archive there.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rsbook import scenes
from rsbook.scenes import DataError

DTYPES = ("uint8", "uint16")
MAP_NORESERVE = 0x4000  # of Linux; Python's mmap does not name it
MANIFEST = (  # what is read of manifest.json: names, their type, and that of what is in them
    ("name", str, str),
    ("classes", list, str),
    ("rgb", list, int),
    ("mean std", list, int | float),
    ("min_pixels", int, int),
    ("has_positions", bool, bool),
    ("scenes", dict, int),
    ("notes", dict, object),
    ("modalities", dict, list),
    ("seasons", int, int),
)
ADDED = {"modalities": {}, "seasons": 1}  # what a manifest says that was made before it had these

# images (n,C,S,S), positions (n,S,S) bit masks, int32 or as they are stored, or None, labels (n,L) bool
Patches = tuple[np.ndarray, np.ndarray | None, np.ndarray]


@dataclass(frozen=True)
class Source:
    """What an archive holds and how to read it, before any image is read.

    version: of the publisher's files and of our rules · rgb: which bands are red, green, blue · size: pixels a side ·
    dtype: "uint8" or "uint16" · scenes: their names, in the order of the prepared arrays · splits: "train", "val" or
    "test" of each · groups: indices into scenes that are read together; each scene is in one group · read: indices of
    one group → Patches; worker processes call it, so it is a `functools.partial` of a function of a module, over plain
    data · notes: counts found, beside the paper's · modalities, seasons: as in Scenes · map_positions: class positions
    are stored as int32, as Scenes has them, for 4 bytes a pixel on the disk instead of 1 or 2: `load` then maps them,
    and converts none into memory, which would not hold those of a large archive · inputs: what tells the raw files that
    decide on all of this from others (`identify`) · group_inputs: the same of the files of each group, so that a group
    whose files were mended is read again and no other; empty where it would take too long.
    Raises ValueError when the parts do not fit together.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    bands: tuple[str, ...]
    rgb: tuple[int, int, int]
    min_pixels: int
    size: int
    dtype: str
    has_positions: bool
    scenes: list[str]
    splits: list[str]
    groups: list[list[int]]
    read: Callable[[list[int]], Patches]
    notes: dict[str, Any] = field(default_factory=dict)
    modalities: dict[str, tuple[int, ...]] = field(default_factory=dict)
    seasons: int = 1
    map_positions: bool = False
    inputs: str = ""
    group_inputs: list[str] = field(default_factory=list)

    names: ClassVar = ("images", "positions", "labels")  # of what `read` gives
    unit: ClassVar = "scenes"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.name}: dtype={self.dtype!r}, expected {' or '.join(DTYPES)}")
        if len(self.splits) != len(self.scenes) or not set(self.splits) <= set(scenes.SPLITS):
            raise ValueError(f"{self.name}: expected one of {', '.join(scenes.SPLITS)} for each scene")
        if sorted(i for group in self.groups for i in group) != list(range(len(self.scenes))):
            raise ValueError(f"{self.name}: expected every scene in exactly one group")
        if self.group_inputs and len(self.group_inputs) != len(self.groups):
            raise ValueError(f"{self.name}: {len(self.group_inputs)} group_inputs for {len(self.groups)} groups")
        for name, bands in [("rgb", self.rgb), *self.modalities.items()]:
            if not all(0 <= band < len(self.bands) for band in bands):
                raise ValueError(f"{self.name}: {name}={bands} names bands outside 0 … {len(self.bands) - 1}")
        places = [self.splits[i : i + self.seasons] for i in range(0, len(self.splits), self.seasons)]
        if not all(len(set(splits)) == 1 and len(splits) == self.seasons for splits in places):
            raise ValueError(f"{self.name}: expected {self.seasons} scenes of every place, all in one split")

    def arrays(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Type and shape of each prepared array, by the name of its file."""
        n, side = len(self.scenes), (self.size, self.size)
        found = {"images.npy": (np.dtype(self.dtype), (n, len(self.bands), *side))}
        if self.has_positions:
            dtype = np.dtype("int32") if self.map_positions else bits_dtype(len(self.classes))
            found["positions.npy"] = (dtype, (n, *side))
        return found | {"labels.npy": (np.dtype("bool"), (n, len(self.classes)))}

    def tables(self, folder: Path, sums: list[int], squares: list[int]) -> dict[str, str]:
        """scenes.csv and manifest.json, by name, of the arrays in `folder`; sums: of each band over training pixels."""
        labels, splits = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False), np.array(self.splits)
        counted = {split: labels[splits == split].sum(axis=0).tolist() for split in scenes.SPLITS}
        mean, std = _moments(self.splits.count("train") * self.size**2, sums, squares)
        names = ("name", "version", "classes", "bands", "rgb", "modalities", "seasons", "min_pixels", "size", "dtype")
        manifest = {
            **{name: getattr(self, name) for name in (*names, "has_positions")},
            "scenes": {split: self.splits.count(split) for split in scenes.SPLITS},
            "scenes_of_class": {split: dict(zip(self.classes, n, strict=True)) for split, n in counted.items()},
            "mean": mean,
            "std": std,
            "notes": self.notes,
        }
        rows = zip(self.scenes, self.splits, strict=True)
        return {"scenes.csv": to_csv(["scene", "split"], rows), "manifest.json": to_json(manifest)}


def to_csv(names: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table as text, the same wherever it is made."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    table.writerows(rows)
    return text.getvalue()


def to_json(manifest: dict[str, Any]) -> str:
    """A manifest as text, the same wherever it is made."""
    return json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _moments(n: int, sums: list[int], squares: list[int]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each band from exact sums of n integers."""
    variances = [(n * q - s * s) / (n * (n - 1)) for s, q in zip(sums, squares, strict=True)]
    return [s / n for s in sums], [math.sqrt(v) for v in variances]


def bits_dtype(num_classes: int) -> np.dtype:
    """The type in which bit masks of so many classes are stored: the smallest, but nothing larger than Scenes has."""
    return np.dtype("uint8" if num_classes <= 8 else "uint16" if num_classes <= 16 else "int32")


def identify(paths: Iterable[Path]) -> str:
    """A hash over names, sizes and times of files, which are not read; raises FileNotFoundError when one is missing."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        state = path.stat()
        digest.update(f"{path.name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def load(folder: Path, checksum: str) -> scenes.Scenes:
    """The prepared archive in `folder` as Scenes on memory-mapped arrays: what is not looked at is not read.

    Only positions that are stored smaller than int32 are read and converted, once, into memory: 4 bytes a pixel.
    Writing to the tensors changes no file. Raises DataError for files that are not as `rsbook.preparing` writes them or
    do not fit together, whatever their sha256, which `scenes.load` has checked before.
    """
    import torch  # here: preparing does without it

    manifest = read_manifest(folder)
    stored = {"images": DTYPES, "labels": ("bool",)}
    if manifest["has_positions"]:
        stored["positions"] = ("uint8", "uint16", "int32")
    maps = {name: open_array(folder / f"{name}.npy", dtypes, "c") for name, dtypes in stored.items()}
    splits = _read_splits(folder / "scenes.csv")
    with explained(folder):
        if len(splits) != len(maps["images"]):
            raise ValueError(f"{len(splits)} scenes in scenes.csv, {len(maps['images'])} in images.npy")
        if len(splits) % manifest["seasons"]:
            raise ValueError(f"{len(splits)} scenes, which are not of {manifest['seasons']} seasons each")
        if "positions" in maps:
            maps["positions"] = np.asarray(maps["positions"], dtype=np.int32)  # the map itself where it is int32
        tensors = {name: torch.from_numpy(array) for name, array in maps.items()}
        return scenes.Scenes(
            name=manifest["name"],
            images=tensors["images"],
            labels=tensors["labels"],
            positions=tensors.get("positions"),
            classes=tuple(manifest["classes"]),
            splits={name: torch.from_numpy(np.flatnonzero(splits == name)) for name in scenes.SPLITS},
            mean=torch.tensor(manifest["mean"]),
            std=torch.tensor(manifest["std"]),
            min_pixels=manifest["min_pixels"],
            checksum=checksum,
            rgb=tuple(manifest["rgb"]),
            modalities={name: tuple(bands) for name, bands in manifest["modalities"].items()},
            seasons=manifest["seasons"],
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What folder/manifest.json says; raises DataError where a part is missing or of another type."""
    path = folder / "manifest.json"
    with explained(path):
        manifest = ADDED | json.loads(path.read_text(encoding="utf-8"))
        for names, kind, inner in MANIFEST:
            for name in names.split():
                value = manifest[name]
                parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
                if type(value) is not kind or not all(isinstance(part, inner) for part in parts):
                    raise ValueError(f"{name} is {value!r:.50}")
        for name, bands in [("rgb", manifest["rgb"]), *manifest["modalities"].items()]:
            if not all(type(band) is int and 0 <= band < len(manifest["mean"]) for band in bands):
                raise ValueError(f"{name:.50} is {bands!r:.50}")
        if len(manifest["rgb"]) != 3 or manifest["seasons"] < 1:
            raise ValueError(f"rgb is {manifest['rgb']!r:.50}, seasons is {manifest['seasons']}")
    return manifest


def open_array(path: Path, dtypes: Iterable[str], mode: str) -> np.ndarray:
    """A .npy file of one of these types as a memory map, "r" to read or "c" to write in memory alone.

    Raises DataError for anything else. Nothing is unpickled.
    """
    with explained(path):
        array = np.lib.format.open_memmap(path, mode="r")  # unlike numpy.load, it knows no other kind of file
        if array.dtype not in dtypes:
            raise ValueError(f"it holds {array.dtype}, expected {' or '.join(dtypes)}")
        return array if mode == "r" else _copied_on_write(path, array)


def _copied_on_write(path: Path, array: np.memmap) -> np.ndarray:
    # not NumPy's: for it Linux sets memory aside, and refuses an archive that is larger than what there is
    how = {"access": mmap.ACCESS_COPY}
    if sys.platform == "linux":
        how = {"flags": mmap.MAP_PRIVATE | MAP_NORESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, **how)
    return np.ndarray(array.shape, array.dtype, pages, array.offset, array.strides)


def _read_splits(path: Path) -> np.ndarray:
    with explained(path), path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)  # csv.DictReader takes twice as long, half a second for BigEarthNet
        column = next(rows, []).index("split")
        splits = [row[column] for row in rows]
        if strange := sorted(map(str, set(splits) - set(scenes.SPLITS))):
            raise ValueError(f"{strange[0]!r:.50} is no split")
    return np.array(splits, dtype=str)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """DataError, with the cure, for whatever goes wrong with a prepared file: numpy, json and csv raise much."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        folder = path if path.is_dir() else path.parent
        cure = f"delete {folder / 'SHA256SUMS'}, then `python -m rsbook data prepare {folder.name}` makes it again"
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}): {cure}") from error
