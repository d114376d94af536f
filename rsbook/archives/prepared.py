"""Archives that are prepared once: what a reader of the publisher's files offers, and the files that come of it.

DIR/NAME/raw/ holds the archive as its publishers ship it. `rsbook.preparing` fills, in DIR/NAME/:
images.npy (N,C,S,S), positions.npy (N,S,S) bit masks where there are maps (uint8 for up to 8 classes, uint16 for up to
16, else int32), labels.npy (N,L) bool, scenes.csv (scene, split), manifest.json (all else), and SHA256SUMS, the last:
only with it is the archive there.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rsbook import scenes

DTYPES = ("uint8", "uint16")

# images (n,C,S,S), positions (n,S,S) bit masks, int32 or as they are stored, or None, labels (n,L) bool
Patches = tuple[np.ndarray, np.ndarray | None, np.ndarray]


@dataclass(frozen=True)
class Source:
    """What an archive holds and how to read it, before any image is read.

    version: of the publisher's files and of our rules · rgb: which bands are red, green, blue · size: pixels a side ·
    dtype: "uint8" or "uint16" · scenes: their names, in the order of the prepared arrays · splits: "train", "val" or
    "test" of each · groups: indices into scenes that are read together; each scene is in one group · read: indices of
    one group → Patches; worker processes call it, so it is a `functools.partial` of a function of a module, over plain
    data · notes: counts found, beside the paper's · inputs: what tells the raw files that decide on all of this from
    others (`identify`) · group_inputs: the same of the files of each group, so that a group whose files were mended is
    read again and no other; empty where it would take too long.
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
    inputs: str = ""
    group_inputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.name}: dtype={self.dtype!r}, expected {' or '.join(DTYPES)}")
        if len(self.splits) != len(self.scenes) or not set(self.splits) <= set(scenes.SPLITS):
            raise ValueError(f"{self.name}: expected one of {', '.join(scenes.SPLITS)} for each scene")
        if sorted(i for group in self.groups for i in group) != list(range(len(self.scenes))):
            raise ValueError(f"{self.name}: expected every scene in exactly one group")
        if self.group_inputs and len(self.group_inputs) != len(self.groups):
            raise ValueError(f"{self.name}: {len(self.group_inputs)} group_inputs for {len(self.groups)} groups")
        if not all(0 <= band < len(self.bands) for band in self.rgb):
            raise ValueError(f"{self.name}: rgb={self.rgb} names bands outside 0 … {len(self.bands) - 1}")

    def arrays(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Type and shape of each prepared array, by the name of its file."""
        n, side = len(self.scenes), (self.size, self.size)
        found = {"images.npy": (np.dtype(self.dtype), (n, len(self.bands), *side))}
        if self.has_positions:
            found["positions.npy"] = (bits_dtype(len(self.classes)), (n, *side))
        return found | {"labels.npy": (np.dtype("bool"), (n, len(self.classes)))}


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
    Writing to the tensors changes no file. Raises ValueError for files that do not fit together; `scenes.load` has
    checked the sha256 before.
    """
    import torch  # here: preparing does without it

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    names = ["images", "positions", "labels"] if manifest["has_positions"] else ["images", "labels"]
    maps = {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in names}
    if "positions" in maps:
        maps["positions"] = np.asarray(maps["positions"], dtype=np.int32)  # the map itself where it is int32
    tensors = {name: torch.from_numpy(array) for name, array in maps.items()}
    with (folder / "scenes.csv").open(newline="", encoding="utf-8") as file:
        splits = np.array([row["split"] for row in csv.DictReader(file)])
    if len(splits) != len(tensors["images"]):
        raise ValueError(f"{folder}: {len(splits)} scenes in scenes.csv, {len(tensors['images'])} in images.npy")
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
    )
