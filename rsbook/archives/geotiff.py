"""GeoTIFFs of which is known what they should be: nothing else is read, whatever a file claims to be or to hold."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from rsbook.scenes import DataError

MOST_VALUES = 2**28  # of an image whose size is not known
MOST_IN_BLOCK = 2**22  # pixels: a block is decoded as a whole, and a small file may claim that it is large


def read(path: Path, shape: tuple[int, int | None, int | None], dtype: str, cure: str) -> np.ndarray:
    """All bands (C,H,W) of a file that must have this shape, of which None may be anything, and type.

    Raises DataError with the cure when it is missing, damaged or another.
    """
    quietly = warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning)
    try:  # without coordinates, which nothing here needs, a file opens in half the time
        with quietly, rasterio.open(path, driver="GTiff", GEOREF_SOURCES="NONE") as file:
            found, kinds, block = (file.count, *file.shape), set(file.dtypes), max(map(math.prod, file.block_shapes))
            alike = all(want in (None, have) for want, have in zip(shape, found, strict=True)) and kinds == {dtype}
            small = math.prod(found) <= MOST_VALUES and block <= MOST_IN_BLOCK
            image = file.read() if alike and small else None
    except RasterioError as error:
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error.__cause__ or error}): {cure}") from error
    if image is None:
        what = f"{found} {' and '.join(sorted(kinds))}" + f" in blocks of {block:,} pixels" * (alike and not small)
        expected = f"({', '.join('any' if size is None else str(size) for size in shape)}) {dtype}"
        raise DataError(f"{path} is {what}, expected {expected}: {cure}")
    return image
