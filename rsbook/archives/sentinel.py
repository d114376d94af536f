"""What archives of Sentinel-1 and Sentinel-2 share: their bands, and how these become the bytes that CromSS reads."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from rsbook import scenes
from rsbook.archives import geotiff, prepared

# Mean and standard deviation of each band, of Sentinel-1 in dB and of Sentinel-2 L1C as stored: those of 50,000
# locations of SSL4EO-S12, which its authors and those of CromSS clip with (S1_MEAN … S2C_STD in the code of both).
STATISTICS = {
    "VV": (-12.54847273, 5.25697717),
    "VH": (-20.19237134, 5.91150917),
    "B1": (1605.57504906, 786.78685367),
    "B2": (1390.78157673, 850.34818441),
    "B3": (1314.8729939, 875.06484736),
    "B4": (1363.52445545, 1138.84957046),
    "B5": (1549.44374991, 1122.17775652),
    "B6": (2091.74883118, 1161.59187054),
    "B7": (2371.7172463, 1274.39184232),
    "B8": (2299.90463006, 1248.42891965),
    "B8A": (2560.29504086, 1345.52684884),
    "B9": (830.06605044, 577.31607053),
    "B10": (22.10351321, 51.15431158),
    "B11": (2177.07172323, 1336.09932639),
    "B12": (1524.06546312, 1136.53823676),
}
BANDS = tuple(STATISTICS)
S1, S2 = BANDS[:2], BANDS[2:]
MODALITIES = {"s1": tuple(range(2)), "s2": tuple(range(2, 15))}
RGB = tuple(map(BANDS.index, ("B4", "B3", "B2")))


def load(folder: Path, checksum: str) -> scenes.Scenes:
    """The prepared archive as `prepared.load` opens it; its bytes are normalised to 0 … 1, as the authors' are.

    So an encoder meets the same numbers in pre-training and in transfer.
    """
    import torch  # here: preparing does without it

    data = prepared.load(folder, checksum)
    return replace(data, mean=torch.zeros(len(BANDS)), std=torch.full((len(BANDS),), 255.0))


def in_fair_order(name: str) -> bytes:
    """What names are sorted by so that the first of them are a fair sample, the same one on every machine."""
    return hashlib.sha256(name.encode()).digest()


def read(path: Path, bands: int, sides: Sequence[int], dtypes: Sequence[str], cure: str) -> np.ndarray:
    """All bands (C,H,W) of a GeoTIFF whose height and width are each one of `sides` and whose type is one of `dtypes`.

    Raises DataError with the cure when it is missing, damaged or another; the first of each is then what was expected.
    """
    shape, dtype = (sides[0], sides[0]), dtypes[0]
    quietly = warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning)
    try:  # the header says which of them it may be, and is then taken at its word
        with quietly, rasterio.open(path, driver="GTiff", GEOREF_SOURCES="NONE") as file:
            if set(file.shape) <= set(sides) and file.dtypes[0] in dtypes:
                shape, dtype = file.shape, file.dtypes[0]
    except RasterioError:
        pass  # as below
    return geotiff.read(path, (bands, *shape), dtype, cure)


def clip(layers: np.ndarray, bands: Iterable[str]) -> np.ndarray:
    """Layers (C,H,W) of these bands as uint8: mean ± 2 standard deviations become 0 and 255, what is beyond is cut off.

    Fractions are dropped, as by the authors; a value that is no number becomes 0. Bytes are clipped already, and stay.
    """
    if layers.dtype == np.uint8:
        return layers
    mean, std = np.array([STATISTICS[band] for band in bands]).T.reshape(2, -1, 1, 1)
    low, high = mean - 2 * std, mean + 2 * std
    with np.errstate(invalid="ignore"):  # of what is no number
        return np.nan_to_num(np.clip((layers - low) / (high - low) * 255, 0, 255), nan=0).astype(np.uint8)


def enlarge(layers: np.ndarray, size: int) -> np.ndarray:
    """Layers (C,H,W) as (C,size,size): each pixel is the old one that lies over its centre, so no value is new."""
    rows, columns = ((2 * np.arange(size) + 1) * side // (2 * size) for side in layers.shape[1:])
    return layers if layers.shape[1:] == (size, size) else layers[:, rows[:, None], columns]


def to_bits(codes: np.ndarray, classes: Iterable[int]) -> np.ndarray:
    """Class positions int32 of a map, in its shape: bit l where it holds the l-th of `classes`, none elsewhere."""
    bits = np.zeros(codes.shape, dtype=np.int32)
    for bit, code in enumerate(classes):
        bits[codes == code] = 1 << bit
    return bits


def present(bits: np.ndarray, num_classes: int) -> np.ndarray:
    """The labels (n,L) bool of class positions (n,H,W): a class is present when any pixel carries it."""
    return np.bitwise_or.reduce(bits, axis=(1, 2))[:, None] >> np.arange(num_classes) & 1 > 0
