"""Miniature archives in the true formats and layouts of their publishers: python tests/make_archives.py DIR."""

import sys
import warnings
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from scipy.ndimage import gaussian_filter

# urban, agriculture, rangeland, forest, water, barren, unknown: as in class_dict.csv of the publishers
COLOURS = np.array(
    [(0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)], dtype=np.uint8
)
GROUND = np.array(
    [(140, 130, 125), (150, 140, 90), (120, 125, 80), (50, 75, 45), (40, 60, 80), (180, 170, 150), (0, 0, 0)]
)
OFF = (0.0005, 0.999, 0.0005)  # of the pixels are this colour darker, right, brighter


def make_deepglobe(folder, tiles=6, size=260, segment=48, seed=0):
    """DeepGlobe's training tiles: <id>_sat.jpg (RGB, JPEG) and <id>_mask.png (RGB) of size × size pixels, in `folder`.

    segment: how far classes reach, in pixels. Some ground is unknown, and the masks' colours are a little off, which is
    why they must be thresholded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for tile in sorted(rng.choice(999_999, tiles, replace=False)):
        classes = _land(rng, size, segment)
        Image.fromarray(_seen(classes, rng)).save(folder / f"{tile}_sat.jpg", quality=90)
        off = rng.choice((-100, 0, 100), (*classes.shape, 1), p=OFF)
        colours = COLOURS[classes].astype(np.int16) + off
        _write_png(folder / f"{tile}_mask.png", np.clip(colours, 0, 255).astype(np.uint8))
    return folder


def _land(rng, size, segment):
    """A map (size, size) of classes 0–6: segments of land from smooth noise, unknown in a corner of some tiles."""
    cells = -(-size // 4)
    smooth = np.stack([gaussian_filter(rng.normal(size=(cells, cells)), segment / 4) for _ in range(6)])
    classes = np.kron(smooth.argmax(axis=0), np.ones((4, 4), dtype=int))[:size, :size]
    if rng.random() < 0.4:
        classes[: size // 20, : size // 8] = 6
    return classes


def _seen(classes, rng):
    """An image (H,W,3) uint8 of the ground with texture."""
    texture = sum(gaussian_filter(rng.normal(size=classes.shape), s) * s * w for s, w in ((1, 12), (3, 20), (12, 30)))
    return np.clip(GROUND[classes] + texture[..., None], 0, 255).astype(np.uint8)


def _write_png(path, image):
    shape = {"height": image.shape[0], "width": image.shape[1], "count": 3, "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="PNG", **shape) as file:
            file.write(np.moveaxis(image, -1, 0))


if __name__ == "__main__":
    print(make_deepglobe(Path(sys.argv[1]) / "deepglobe" / "raw" / "train"))
