"""The picture of the cover: the Earth, mixed with itself, and its map mixed along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rsbook import figures
from rsbook.archives import bluemarble
from rsbook.figures import Html
from rsbook.scenes import DATA

SIZE = 760  # pixels across a globe
FIRST, SECOND = (14.0, 20.0), (-8.0, -58.0)  # latitude, longitude of the two views: Africa; South America
HOLE, PATCH = (205, 215, 445, 545), (275, 225, 515, 555)  # top, left, bottom, right


def draw_cover(folder: Path = DATA / "bluemarble") -> Html:
    """CutMix of two sides of the Earth, image and land cover, from the embedded data."""
    with rasterio.open(folder / "image.tif") as source:
        image = source.read().transpose(1, 2, 0)
    colours = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in figures.class_colours(bluemarble.CLASSES)]
    classes = bluemarble.read_map(folder / "igbp.tif")
    layers = (image, np.asarray(colours, dtype=np.uint8)[classes])
    globes = [_mixed(globe(layer, *FIRST, SIZE), globe(layer, *SECOND, SIZE)) for layer in layers]
    patch = globe(classes[..., None], *SECOND, SIZE)[_slices(PATCH)][..., 0]
    pixels = np.bincount(patch.ravel(), minlength=len(bluemarble.CLASSES))

    def draw(theme: Mapping[str, str]) -> Figure:
        figure = Figure(figsize=(8, 4))
        for k, pixels in enumerate(globes):
            ax = figure.add_axes((0.5 * k, 0, 0.5, 1))
            ax.imshow(pixels, interpolation="antialiased")
            top, left, bottom, right = HOLE
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="#ffffff", lw=1.6))
            ax.axis("off")
        return figure

    return figures.show(
        draw,
        alt="Two globes that show Africa and Europe, the left as seen from space, the right as a map of land cover. In "
        "the same box on both, a part of South America has been pasted.",
        caption="The idea of the first part in one picture, made from this book's data: what is pasted into the image "
        "is pasted into its map, so nobody has to guess what the mixture shows.",
        data=pd.DataFrame({"class": bluemarble.CLASSES, "pixels_in_the_box": pixels}),
        name="cover",
        vector=False,
    )


def globe(layer: np.ndarray, latitude: float, longitude: float, size: int) -> np.ndarray:
    """The Earth from far above a place in degrees: (size,size,bands) of a world map (H,W,bands), with alpha if RGB.

    Orthographic projection (Snyder, USGS Professional Paper 1395, eqs. 20-14, 20-15, 20-18), nearest pixel.
    """
    x, y = np.meshgrid(np.linspace(-1.01, 1.01, size), np.linspace(1.01, -1.01, size))
    rho = np.hypot(x, y)
    seen = rho <= 1
    c = np.arcsin(rho.clip(1e-9, 1))
    phi, lam = np.radians(latitude), np.radians(longitude)
    lat = np.arcsin((np.cos(c) * np.sin(phi) + y * np.cos(phi)).clip(-1, 1))  # sin c = ρ
    lon = lam + np.arctan2(x * np.sin(c), rho * np.cos(phi) * np.cos(c) - y * np.sin(phi) * np.sin(c))
    height, width = layer.shape[:2]
    row = ((0.5 - lat / np.pi) * height).astype(int).clip(0, height - 1)
    column = ((lon / (2 * np.pi) + 0.5) * width).astype(int) % width
    found = layer[row, column]
    if found.shape[-1] != 3:
        return found
    edge = ((1 - rho) * size / 2).clip(0, 1)  # a soft rim, one pixel wide
    return np.dstack((found, (255 * edge * seen).astype(np.uint8)))


def _mixed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    mixed = first.copy()
    mixed[_slices(HOLE)] = second[_slices(PATCH)]
    return mixed


def _slices(box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    top, left, bottom, right = box
    return slice(top, bottom), slice(left, right)
