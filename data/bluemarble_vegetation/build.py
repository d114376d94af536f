"""Make data/bluemarble_vegetation from a wheel of the package registry (README.md says what it is and how to get it).

python data/bluemarble_vegetation/build.py FOLDER_WITH_THE_WHEEL
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import rasterio

HERE = Path(__file__).parent
WHEEL = "ptjpl-*.whl"
# By layer: file in the wheel, its own units a unit of the quantity, lowest value and steps a unit in vegetation.tif.
LAYERS = {
    "mean maximum fAPAR": ("PTJPL/fAPARmax_mean_CMG_int16.tif", 10_000, 0, 1000 / 3),
    "optimum temperature in degrees Celsius": ("PTJPL/Topt_mean_CMG_int16.tif", 100, -36, 3),
}
GRID = (3600, 7200)  # of the wheel: 0.05 degree
BLUEMARBLE = ("image.tif", "igbp.tif", "scenes.csv")
OVERLAP = np.array([[3, 1, 0, 0], [0, 2, 2, 0], [0, 0, 1, 3]])  # thirds of 4 pixels of the wheel in each of 3 of ours


def resample(layer, missing):
    """Mean of a layer (H,W) over pixels 4/3 as wide, NaN where less than half of a pixel has a value."""
    height, width = layer.shape
    known = layer != missing
    blocks = np.stack([np.where(known, layer, 0), known]).reshape(2, height // 4, 4, width // 4, 4).astype(np.int32)
    total, weight = np.einsum("ai,bj,nyixj->nyaxb", OVERLAP, OVERLAP, blocks, optimize=True).reshape(
        2, height * 3 // 4, width * 3 // 4
    )
    return np.where(weight >= OVERLAP[0].sum() ** 2 / 2, total / np.maximum(weight, 1), np.nan)


def scale(values, low, steps):
    """Values as uint8: `low` is 1, each 1 / `steps` above it one more, 0 where there is none; all must fit."""
    scaled = np.floor((values - low) * steps + 0.5) + 1
    if np.nanmin(scaled) < 1 or np.nanmax(scaled) > 255:
        raise SystemExit(f"values from {np.nanmin(values)} to {np.nanmax(values)} do not fit into 1 … 255")
    return np.nan_to_num(scaled, nan=0).astype(np.uint8)


def main(wheels):
    """Write the two layers, and the sha256 of all files of the archive, beside this script."""
    (wheel,) = Path(wheels).glob(WHEEL)
    with rasterio.open(HERE.parent / "bluemarble" / "image.tif") as image:
        grid = {"crs": image.crs, "transform": image.transform, "height": image.height, "width": image.width}
        bounds = image.bounds
    layers = []
    for name, units, low, steps in LAYERS.values():
        with rasterio.open(f"/vsizip/{{{wheel}}}/{name}") as source:
            if (source.shape, source.bounds, source.crs) != (GRID, bounds, grid["crs"]):
                raise SystemExit(
                    f"{name} has shape {source.shape} and bounds {source.bounds}, expected {GRID} {bounds}"
                )
            layers.append(scale(resample(source.read(1), source.nodata) / units, low, steps))

    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band"}
    kind = {"count": len(layers), "dtype": "uint8", "nodata": 0, "compress": "DEFLATE", "predictor": 2, "zlevel": 9}
    with rasterio.open(HERE / "vegetation.tif", "w", driver="GTiff", **grid, **tiles, **kind) as out:
        out.write(np.stack(layers))
        out.descriptions = tuple(LAYERS)
        out.scales = tuple(1 / steps for *_, steps in LAYERS.values())
        out.offsets = tuple(low - 1 / steps for *_, low, steps in LAYERS.values())

    names = ("vegetation.tif", *(f"../bluemarble/{name}" for name in BLUEMARBLE))
    sums = [f"{hashlib.sha256((HERE / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (HERE / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main(*sys.argv[1:])
