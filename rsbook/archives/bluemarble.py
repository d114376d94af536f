"""Blue Marble scenes: NASA's image of the Earth with MODIS land cover as reference maps (data/bluemarble/README.md)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from rasterio.features import sieve

from rsbook import scenes
from rsbook.archives import geotiff
from rsbook.scenes import DataError

# IGBP classes 0–16 of MCD12C1 are grouped to the seven classes of the book.
CLASSES = ("water", "forest", "rangeland", "grassland", "agriculture and built-up", "barren", "snow and ice")
IGBP_TO_CLASS = (0, 1, 1, 1, 1, 1, 2, 2, 1, 2, 3, 2, 4, 4, 4, 6, 5)

WINDOW = 32  # pixels a side
MIN_SEGMENT = 12  # pixels: smaller segments of one class are merged into their largest neighbour
CURE = "restore it with `git checkout -- data/bluemarble`"
PRESENCE = 0.02  # a class is in the label when it covers more than this share of the window


def load(folder: Path, checksum: str) -> scenes.Scenes:
    """Read images and map, cut the windows that scenes.csv lists, and return them as Scenes.

    Raises DataError for files that are not what they should be; `scenes.load` has checked the sha256 before.
    """
    corners, split_of_scene = read_windows(folder / "scenes.csv")
    images = torch.from_numpy(cut(geotiff.read(folder / "image.tif", (3, None, None), "uint8", CURE), corners))
    maps = torch.from_numpy(cut(read_map(folder / "igbp.tif")[None], corners)[:, 0])

    return as_scenes("bluemarble", images, maps, split_of_scene, checksum)


def as_scenes(
    name: str, images: torch.Tensor, maps: torch.Tensor, split_of_scene: list[str], checksum: str
) -> scenes.Scenes:
    """Scenes of images (N,3,H,W) and maps (N,H,W) uint8 of the same ground, with the split of each."""
    min_pixels = int(PRESENCE * maps[0].numel())
    bits, labels = scenes.from_maps(maps, len(CLASSES), min_pixels)
    splits = {
        split: torch.tensor([i for i, one in enumerate(split_of_scene) if one == split], dtype=torch.int64)
        for split in scenes.SPLITS
    }
    training = images[splits["train"]].double()
    return scenes.Scenes(
        name=name,
        images=images,
        labels=labels,
        positions=bits,
        classes=CLASSES,
        splits=splits,
        mean=training.mean(dim=(0, 2, 3)).float(),
        std=training.std(dim=(0, 2, 3)).float(),
        min_pixels=min_pixels,
        checksum=checksum,
    )


def read_windows(path: Path) -> tuple[list[tuple[int, int]], list[str]]:
    """Upper left corner (row, column) in pixels and split of every scene, in the order of the scenes."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        corners = [(int(row["row"]), int(row["column"])) for row in rows]
        splits = [row["split"] for row in rows]
        if not rows or not set(splits) <= set(scenes.SPLITS):
            raise ValueError(f"expected scenes, each in one of {', '.join(scenes.SPLITS)}")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}): {CURE}") from error
    return corners, splits


def read_map(path: Path) -> np.ndarray:
    """Land cover (H,W) uint8 of class indices 0–6: IGBP grouped, segments under 12 pixels merged into neighbours."""
    [igbp] = geotiff.read(path, (1, None, None), "uint8", CURE)
    if igbp.max() >= len(IGBP_TO_CLASS):
        raise DataError(f"{path} has class {igbp.max()}, expected 0 … {len(IGBP_TO_CLASS) - 1}: {CURE}")
    return sieve(np.asarray(IGBP_TO_CLASS, dtype=np.uint8)[igbp], size=MIN_SEGMENT)


def cut(layers: np.ndarray, corners: list[tuple[int, int]], side: int = WINDOW) -> np.ndarray:
    """Windows (N,C,side,side) of layers (C,H,W) by their upper left corners; raises DataError for one outside."""
    height, width = (size - side for size in layers.shape[1:])
    if outside := [corner for corner in corners if not (0 <= corner[0] <= height and 0 <= corner[1] <= width)]:
        raise DataError(f"scenes.csv has a window at {outside[0]}, outside the image of {layers.shape[1:]}: {CURE}")
    return np.stack([layers[:, row : row + side, column : column + side] for row, column in corners])
