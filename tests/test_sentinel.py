"""What the archives of both Sentinels share: bytes, pixels and codes against plain loops; what is no such file."""

import make_archives_sentinel as miniature
import numpy as np
import pytest

from rsbook.archives import sentinel
from rsbook.scenes import DataError

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

# As CromSS prints them; Sentinel-1 first, then B1 … B8, B8A, B9 … B12 of Sentinel-2, level 1C.
MEANS = (-12.548, -20.192, 1605.58, 1390.78, 1314.87, 1363.52, 1549.44, 2091.75, 2371.72, 2299.90, 2560.30, 830.07)
MEANS += (22.10, 2177.07, 1524.07)
STDS = (5.257, 5.912, 786.79, 850.35, 875.06, 1138.85, 1122.18, 1161.59, 1274.39, 1248.43, 1345.53, 577.32, 51.15)
STDS += (1336.10, 1136.54)


def scaled(value, band):
    """The byte of one value of a band."""
    mean, std = sentinel.STATISTICS[band]
    byte = (value - (mean - 2 * std)) / (4 * std) * 255
    return int(byte) if 0 <= byte <= 255 else 255 * (byte > 255)


def test_bands_and_what_they_are_clipped_with():
    assert (*miniature.RADAR, *miniature.OPTICAL) == sentinel.BANDS
    for i, band in enumerate(sentinel.BANDS):
        mean, std = sentinel.STATISTICS[band]
        digits = 3 if i < 2 else 2
        assert (round(mean, digits), round(std, digits)) == (MEANS[i], STDS[i])
    assert {name: [sentinel.BANDS[b] for b in bands] for name, bands in sentinel.MODALITIES.items()} == {
        "s1": list(miniature.RADAR),
        "s2": list(miniature.OPTICAL),
    }
    assert [sentinel.BANDS[band] for band in sentinel.RGB] == ["B4", "B3", "B2"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "int16"])
def test_values_are_clipped_and_scaled_as_a_loop_does(dtype):
    draw = np.random.default_rng(0)
    for band in sentinel.BANDS:
        mean, std = sentinel.STATISTICS[band]
        values = draw.normal(mean, 2 * std, (1, 30, 30)).clip(*((0, 30_000) if "int" in dtype else (-1e9, 1e9)))
        values = values.astype(dtype)
        got = sentinel.clip(values, [band])
        assert got.dtype == np.uint8
        assert got[0].tolist() == [[scaled(value, band) for value in row] for row in values[0].tolist()]


def test_ends_fractions_and_what_is_no_number():
    mean, std = sentinel.STATISTICS["VV"]
    ends = [mean - 2 * std - 1, mean - 2 * std, mean, mean + 2 * std, mean + 2 * std + 1, -np.inf, np.inf, np.nan]
    assert sentinel.clip(np.array([[ends]]), ["VV"]).tolist() == [[[0, 0, 127, 255, 255, 0, 255, 0]]]
    bytes_ = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert sentinel.clip(bytes_, ["VV"]) is bytes_


@pytest.mark.parametrize(("height", "width"), [(264, 264), (132, 132), (44, 44), (265, 263), (45, 44), (131, 133)])
def test_pixels_are_enlarged_by_their_centres(height, width):
    layers = np.random.default_rng(0).integers(0, 256, (2, height, width), dtype=np.uint8)
    got = sentinel.enlarge(layers, 264)
    for row, column in [(0, 0), (263, 263), *np.random.default_rng(1).integers(0, 264, (500, 2)).tolist()]:
        old = int((row + 0.5) / 264 * height), int((column + 0.5) / 264 * width)
        assert (got[:, row, column] == layers[:, *old]).all()
    if 264 % height == 264 % width == 0:
        assert (got == layers.repeat(264 // height, 1).repeat(264 // width, 2)).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32"])
def test_codes_become_bits_and_others_none(dtype):
    codes = np.array([[[0, 1, 4], [9, 127, 4]]]).astype(dtype)
    bits = sentinel.to_bits(codes, (1, 4, 7))
    assert (bits.dtype, bits.tolist()) == (np.int32, [[[0, 1, 2], [0, 0, 2]]])
    assert sentinel.present(bits, 3).tolist() == [[True, True, False]]
    assert sentinel.to_bits(np.array([-1.0, 0.5, np.nan, np.inf]), (0, 1)).tolist() == [0, 0, 0, 0]


def test_only_what_was_expected_is_read(tmp_path):
    path = tmp_path / "a.tif"

    def read(**changes):
        return sentinel.read(
            path, **{"bands": 1, "sides": [6, 7], "dtypes": ["uint16", "int16"], "cure": "so"} | changes
        )

    with pytest.raises(DataError, match=r"a\.tif is missing .*: so"):
        read()
    for shape, dtype in (((1, 6, 6), "uint16"), ((1, 7, 6), "int16"), ((1, 7, 7), "uint16")):
        image = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
        miniature.write(path, image)
        assert read().dtype == dtype
        assert (read() == image).all()
    for shape, dtype in (((1, 8, 7), "uint16"), ((2, 6, 6), "uint16"), ((1, 6, 6), "float32")):
        miniature.write(path, np.zeros(shape, dtype))
        with pytest.raises(
            DataError, match=rf"is \({', '.join(map(str, shape))}\) {dtype}, expected \(1, 6, 6\) uint16: so"
        ):
            read()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a\.tif is damaged"):
        read()
