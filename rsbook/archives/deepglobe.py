"""DeepGlobe-ML: patches of DeepGlobe's land-cover tiles with multi-labels (data/deepglobe/README.md)."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from rsbook.archives import prepared
from rsbook.scenes import DataError

CLASSES = ("urban", "agriculture", "rangeland", "forest", "water", "barren")
ENDS = ("_sat.jpg", "_mask.png")  # of a tile's two files
SIZE = 120  # pixels a side of a patch
MOST_PIXELS = 2**26  # of a tile; the publishers' have 2,448 × 2,448
KEPT = 0.2  # of the patches with a single class (section IV-A)
SHARES = {"train": 0.6, "val": 0.2}  # of the tiles; the others are for testing
PAPER = {"tiles": 1949, "patches_kept": 30_443, "train": 18_185, "labels_per_scene": 1.71, "before_thinning": 1.28}

# A mask's colour is thresholded at 128 in each band, as the publishers advise: 4·red + 2·green + blue is its code.
UNKNOWN, INVALID = 0, 4  # black; red, which stands for nothing
BIT = np.array([0, 1 << 4, 1 << 3, 1 << 0, 0, 1 << 2, 1 << 1, 1 << 5], dtype=np.uint8)  # the class bit of each code

PACKED = ("*",)  # the publishers' archives by name: any, as every source of the tiles has its own
PNG_END = b"IEND\xaeB`\x82"  # the last chunk of every PNG
CURE = "`python -m rsbook data card deepglobe` says what to unpack where"

load = prepared.load
_scratch = threading.local()  # memory for one mask a thread: pages that are mapped already halve the time of reading


def source(raw: Path) -> prepared.Source:
    """The patches that the rules of section IV-A keep of the training tiles in `raw`; reads all masks.

    Raises DataError naming missing, unexpected or damaged files.
    """
    folder, tiles = find_tiles(raw)
    with _quietly(), ThreadPoolExecutor(os.cpu_count()) as threads:
        masks = dict(zip(tiles, threads.map(partial(_look, folder), tiles), strict=True))
    grids = {tile: grid for tile, (grid, _) in masks.items()}
    split_of = _split(tiles)
    draws = {tile: _draws(tile, grid.shape) for tile, grid in grids.items()}
    kept = {tile: _keep(grid, draws[tile][0]) for tile, grid in grids.items()}
    # In shuffled order, so that the first of a split are a fair sample of its tiles.
    order = sorted((draws[t][1][r, c], t, r, c) for t in tiles for r, c in np.argwhere(kept[t]).tolist())
    cells = [(tile, row, column) for _, tile, row, column in order]
    groups: dict[str, list[int]] = {}
    for i, (tile, _, _) in enumerate(cells):
        groups.setdefault(tile, []).append(i)
    splits = [split_of[tile] for tile, _, _ in cells]
    return prepared.Source(
        name="deepglobe",
        version=f"DeepGlobe land-cover classification 2018, {len(tiles)} training tiles; rules 1",
        classes=CLASSES,
        bands=("red", "green", "blue"),
        rgb=(0, 1, 2),
        min_pixels=0,
        size=SIZE,
        dtype="uint8",
        has_positions=True,
        scenes=[f"{tile}_{row}_{column}" for tile, row, column in cells],
        splits=splits,
        groups=list(groups.values()),
        read=partial(read, str(folder), cells, masks),
        notes=_notes(grids, kept, splits),
        group_inputs=[prepared.identify(_paths(folder, tile)) for tile in groups],
    )


def find_tiles(raw: Path) -> tuple[Path, list[str]]:
    """The folder of the training tiles, `raw` or one folder in it, and their ids, sorted.

    The publishers' folders of validation and test tiles have no masks and are left alone. Raises DataError naming
    images without masks, masks without images and files that are neither.
    """
    candidates = [raw, *sorted(path for path in raw.iterdir() if path.is_dir() and not path.name.startswith("."))]
    found = [folder for folder in candidates if next(folder.glob("*_mask.png"), None)]
    if len(found) != 1:
        where = f"masks are in {' and '.join(map(str, found))}" if found else f"there is no *_mask.png in {raw}"
        raise DataError(f"expected the training tiles in one folder, but {where}: {CURE}")
    [folder] = found
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if strange := [name for name in names if not re.fullmatch(r"\w+?_(sat\.jpg|mask\.png)", name)]:
        raise DataError(_naming(f"unexpected in {folder}", strange) + "; move them away")
    images, masks = ({name.removesuffix(end) for name in names if name.endswith(end)} for end in ENDS)
    missing = [f"{tile}_mask.png" for tile in images - masks] + [f"{tile}_sat.jpg" for tile in masks - images]
    if missing:
        raise DataError(_naming(f"missing in {folder}", sorted(missing)) + f"; {CURE}")
    return folder, sorted(images)


def read(
    folder: str, cells: list[tuple[str, int, int]], masks: dict[str, tuple[np.ndarray, bytes]], indices: list[int]
) -> prepared.Patches:
    """Images (n,3,120,120) uint8, positions (n,120,120) uint8 and labels (n,6) bool of scenes of one tile.

    cells: tile, row and column in the grid of patches, of every scene · masks: what `_look` has seen of every tile.
    Raises DataError for a damaged file.
    """
    [tile] = {cells[i][0] for i in indices}
    where = [cells[i][1:] for i in indices]
    images = _read_image(_paths(Path(folder), tile)[0], [(SIZE * row, SIZE * column) for row, column in where])
    grid, packed = masks[tile]
    several = np.bitwise_count(grid) > 1
    number = np.cumsum(several).reshape(grid.shape) - 1  # of a patch among those of several classes
    maps = np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(-1, SIZE, SIZE)
    positions = np.empty((len(indices), SIZE, SIZE), dtype=np.uint8)
    for position, cell in zip(positions, where, strict=True):
        position[:] = BIT[maps[number[cell]]] if several[cell] else BIT[int(grid[cell]).bit_length() - 1]
    present = np.bitwise_or.reduce(positions.reshape(len(indices), -1), axis=1)
    return images, positions, (present[:, None] >> np.arange(len(CLASSES)) & 1).astype(bool)


def _read_image(path: Path, corners: list[tuple[int, int]]) -> np.ndarray:
    # Pillow, not rasterio, whose wheels bring a libjpeg that takes three times as long as the libjpeg-turbo that
    # Pillow, OpenCV and torchvision have, and decodes to slightly other pixels than theirs.
    images = np.empty((len(corners), 3, SIZE, SIZE), dtype=np.uint8)
    with _opened(path) as tile:
        tile.load()
        for image, (top, left) in zip(images, corners, strict=True):
            image[:] = np.asarray(tile.crop((left, top, left + SIZE, top + SIZE))).transpose(2, 0, 1)
    return images


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The JPEG, opened and not yet decoded. Raises DataError for what is no JPEG, truncated or far too large."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            _check_size(path, image.height, image.width)
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # of Pillow
        raise DataError(f"{path} is damaged ({error}): get it again; {CURE}") from error


def _check_size(path: Path, height: int, width: int) -> None:
    if height * width > MOST_PIXELS:  # a file of a few bytes may claim that many
        raise DataError(f"{path} has {width} × {height} pixels, expected at most {MOST_PIXELS:,} in all: {CURE}")


def _read_codes(path: Path) -> np.ndarray:
    """The code (H,W) uint8 of every pixel's colour, in this thread's scratch memory: it lasts until the next call."""
    # GDAL has a fast way to read a whole PNG, but takes what is cut off a file for black; the slow one says so.
    ends = path.read_bytes().endswith(PNG_END)
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PNG_WHOLE_IMAGE_OPTIM": ends}
    try:
        with rasterio.Env(**options), rasterio.open(path, driver="PNG") as mask:
            if (mask.count, set(mask.dtypes)) != (3, {"uint8"}):
                raise DataError(f"{path} has {mask.count} bands of {mask.dtypes[0]}, expected 3 of uint8; {CURE}")
            _check_size(path, mask.height, mask.width)
            shape = (3, mask.height, mask.width)
            if getattr(_scratch, "mask", np.empty(0)).shape != shape:
                _scratch.mask = np.empty(shape, dtype=np.uint8)
            bands = mask.read(out=_scratch.mask)
    except RasterioError as error:
        raise DataError(f"{path} is damaged ({error.__cause__ or error}): get it again; {CURE}") from error
    bands &= 128  # all in place: new memory would take four times as long
    red, green, blue = bands
    red >>= 5
    green >>= 6
    blue >>= 7
    red |= green
    red |= blue
    return red


def _look(folder: Path, tile: str) -> tuple[np.ndarray, bytes]:
    """What a mask holds: which codes occur in each patch, (rows, columns) uint8 whose bit i stands for code i; and the
    codes of the patches with several, packed, so that no mask is read twice (50 kB a tile).
    """
    image_path, mask_path = _paths(folder, tile)
    codes = _read_codes(mask_path)
    with _opened(image_path) as image:
        kind = (image.height, image.width, image.mode)
    if kind != (*codes.shape, "RGB"):
        height, width = codes.shape
        expected = f"expected {width} × {height} pixels of RGB, as its mask has"
        raise DataError(f"{image_path} has {kind[1]} × {kind[0]} pixels of {kind[2]}, {expected}; {CURE}")
    if (codes == INVALID).any():
        row, column = np.argwhere(codes == INVALID)[0]
        raise DataError(f"{mask_path} is red at row {row}, column {column}, which is no class's colour; {CURE}")
    rows, columns = codes.shape[0] // SIZE, codes.shape[1] // SIZE
    codes = np.ascontiguousarray(codes[: rows * SIZE, : columns * SIZE]).reshape(rows, SIZE, columns, SIZE)
    lines = np.bitwise_or.reduce(np.left_shift(np.uint8(1), codes), axis=1)
    grid = np.bitwise_or.reduce(lines, axis=2)
    several = codes.transpose(0, 2, 1, 3)[np.bitwise_count(grid) > 1]
    return grid, zlib.compress(several, 1)


def _draws(tile: str, shape: tuple[int, int]) -> np.ndarray:
    """Two random numbers for each patch: the tile's name alone decides on them, whatever other tiles there are."""
    seed = int.from_bytes(hashlib.sha256(f"deepglobe patches {tile}".encode()).digest()[:8])
    return np.random.default_rng(seed).random((2, *shape))


def _keep(grid: np.ndarray, draws: np.ndarray) -> np.ndarray:
    known = grid & (1 << UNKNOWN) == 0
    return known & ((np.bitwise_count(grid) > 1) | (draws < KEPT))


def _split(tiles: list[str]) -> dict[str, str]:
    """The split of every tile: 60, 20 and 20 % of them, in an order that their names decide on."""
    order = sorted(tiles, key=lambda tile: hashlib.sha256(f"deepglobe split {tile}".encode()).digest())
    train, val = (round(share * len(tiles)) for share in SHARES.values())
    return {tile: "train" if i < train else "val" if i < train + val else "test" for i, tile in enumerate(order)}


def _notes(grids: dict[str, np.ndarray], kept: dict[str, np.ndarray], splits: list[str]) -> dict[str, Any]:
    every = np.concatenate([grid.ravel() for grid in grids.values()])
    chosen = np.concatenate([mask.ravel() for mask in kept.values()])
    known = every & (1 << UNKNOWN) == 0
    labels = np.bitwise_count(every)
    mean = {"labels_per_scene": labels[chosen], "before_thinning": labels[known]}
    found = {
        "tiles": len(grids),
        "patches": len(every),
        "patches_without_unknown": int(known.sum()),
        "patches_of_one_class": int((known & (labels == 1)).sum()),
        "patches_kept": int(chosen.sum()),
        "train": splits.count("train"),
        **{name: round(float(values.mean()), 2) if len(values) else 0.0 for name, values in mean.items()},
    }
    differ = [f"{name} {found[name]:,}, paper {value:,}" for name, value in PAPER.items() if found[name] != value]
    return {"found": found, "paper": PAPER, "differ": differ}


def _paths(folder: Path, tile: str) -> list[Path]:
    return [folder / f"{tile}{end}" for end in ENDS]


def _naming(what: str, names: list[str]) -> str:
    return f"{len(names)} files {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Without rasterio's warning that a PNG has no coordinates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
