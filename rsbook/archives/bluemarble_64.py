"""Blue Marble scenes twice as wide, of 64 × 64 pixels: four windows of `bluemarble` (data/bluemarble_64/README.md)."""

from __future__ import annotations

from pathlib import Path

import torch

from rsbook import scenes
from rsbook.archives import bluemarble, geotiff

SIDE = 2 * bluemarble.WINDOW


def load(folder: Path, checksum: str) -> scenes.Scenes:
    """Read the files of `bluemarble` beside the folder and cut the wider scenes.

    Raises DataError for files that are not what they should be; `scenes.load` has checked the sha256 before.
    """
    beside = folder.parent / "bluemarble"
    corners, splits = wider(*bluemarble.read_windows(beside / "scenes.csv"))
    image = geotiff.read(beside / "image.tif", (3, None, None), "uint8", bluemarble.CURE)
    images = torch.from_numpy(bluemarble.cut(image, corners, SIDE))
    maps = torch.from_numpy(bluemarble.cut(bluemarble.read_map(beside / "igbp.tif")[None], corners, SIDE)[:, 0])
    return bluemarble.as_scenes("bluemarble_64", images, maps, splits, checksum)


def wider(corners: list[tuple[int, int]], splits: list[str]) -> tuple[list[tuple[int, int]], list[str]]:
    """Corner and split of each window of 64 × 64 pixels whose four quarters are windows of one split, in their order.

    Such windows overlap by halves within a split, and never share a pixel with those of another.
    """
    split_at = dict(zip(corners, splits, strict=True))
    steps = [(down, right) for down in (0, bluemarble.WINDOW) for right in (0, bluemarble.WINDOW)]
    kept = [
        (row, column)
        for row, column in corners
        if len({split_at.get((row + down, column + right)) for down, right in steps}) == 1
    ]
    return kept, [split_at[corner] for corner in kept]
