"""Miniature archives of SSL4EO-S12 with NoLDO-S12 and of DFC2020 in the publishers' layouts, formats and names."""

import json
import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

RADAR = ("VV", "VH")
OPTICAL = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
SIDES = dict.fromkeys((*RADAR, *OPTICAL), 264) | dict.fromkeys(("B1", "B9", "B10"), 44)
SIDES |= dict.fromkeys(("B5", "B6", "B7", "B8A", "B11", "B12"), 132)

# Of each location four seasons, oldest first: the folders of Sentinel-1 and of Sentinel-2. Nothing but the date puts
# them in this order: the first letters and the hours do not.
SEASONS = (
    ("S1A_IW_GRDH_1SDV_20200329T231515_20200329T231540_031883_03AE27_9BAF", "20200323T162931_20200323T163750_T15QXA"),
    ("S1B_IW_GRDH_1SDV_20200627T001449_20200627T001514_022212_02A27E_2A09", "20200621T162901_20200621T164746_T15QXA"),
    ("S1B_IW_GRDH_1SDV_20200928T120105_20200928T120130_023575_02CCB0_F035", "20200924T162929_20200924T164434_T15QXA"),
    ("S1A_IW_GRDH_1SDV_20201230T001523_20201230T001548_035908_04349D_C91E", "20201228T163711_20201228T164519_T15QXA"),
)
WHOLE = ("0000011", "0000200", "0003141")
# Left out for: three labels; three seasons of radar; no optical images; a label of another image.
LEFT_OUT = ("0000012", "0000013", "0000014", "0000015")
UNLABELLED = "0000016"
NO_CLASS = (9, 255)  # codes that Dynamic World does not have

PATCHES = {"validation": (0, 7, 123), "test": (0, 5127)}
CODES = (1, 2, 4, 5, 6, 7, 9, 10)  # of the contest's classes that have a class here


def make_ssl4eo(folder, generator, eight_bits=False):
    """s1/, s2c/ and dw_noisy_labels/ with the list of its IDs; eight_bits: as in the compressed release."""
    for place in (*WHOLE, *LEFT_OUT, UNLABELLED):
        for season, (radar, optical) in enumerate(SEASONS):
            small = place not in WHOLE  # never read: an empty file will do
            if not (place == "0000013" and season == 2):
                write_bands(folder / "s1" / place / radar, RADAR, generator, eight_bits, small)
            if place != "0000014":
                write_bands(folder / "s2c" / place / optical, OPTICAL, generator, eight_bits, small)
            if place == UNLABELLED or (place == "0000012" and season == 0):
                continue
            name = optical.replace("0621", "0622") if place == "0000015" else optical
            write_label(folder / "dw_noisy_labels" / place / name / "label.tif", generator, small)
    rows = [",".join((str(int(place)), *(optical for _, optical in SEASONS))) for place in (*WHOLE, *LEFT_OUT)]
    (folder / "dw_complete_ids.csv").write_text("\n".join(("ids,sub1,sub2,sub3,sub4", *rows, "")))


def write_bands(folder, bands, generator, eight_bits, small):
    """The bands of one season and the publisher's metadata; most values lie in what is kept of them."""
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps({"system:index": folder.name}))
    for band in bands:
        path = folder / f"{band}.tif"
        if small:
            path.touch()
        elif eight_bits:
            write(path, generator.integers(0, 256, (1, 264, 264), dtype=np.uint8), compress="JPEG")
        else:
            write(path, layers(band in RADAR, (1, SIDES[band], SIDES[band]), generator))


def layers(radar, shape, generator):
    """Values of Sentinel-1, float32 in dB, or of Sentinel-2, uint16: some far below or above the others."""
    if radar:
        return generator.uniform(-45, 10, shape).astype(np.float32)
    return generator.integers(0, 2 ** generator.integers(4, 17, shape)).astype(np.uint16)


def write_label(path, generator, small):
    """A noisy label: three classes in stripes, and pixels without a class."""
    path.parent.mkdir(parents=True)
    if small:
        path.touch()
        return
    values = np.array([*generator.permutation(9)[:3], *NO_CLASS], dtype=np.uint8)
    stripes = np.arange(264) * 3 // 264
    label = np.where(generator.random((1, 264, 264)) < 0.05, generator.choice([3, 4], (1, 264, 264)), stripes)
    write(path, values[label])


def make_dfc2020(folder, generator):
    """ROIs0000_validation/ and ROIs0000_test/, with the maps of low resolution that are not read."""
    for part, numbers in PATCHES.items():
        for number in numbers:
            for kind, image in patch(generator).items():
                name = f"ROIs0000_{part}_{kind}_0_p{number}.tif"
                write(folder / f"ROIs0000_{part}" / f"{kind}_0" / name, image)


def patch(generator):
    """The four files of a patch: radar float64, bands uint16, the map of the contest int32 and that of MODIS uint16."""
    codes = np.concatenate([generator.choice(CODES, 3, replace=False), (0, 3, 8, 11)])
    stripes = np.arange(256) * 3 // 256
    where = np.where(generator.random((1, 256, 256)) < 0.05, generator.integers(3, 7, (1, 256, 256)), stripes)
    return {
        "s1": layers(True, (2, 256, 256), generator).astype(np.float64),
        "s2": layers(False, (13, 256, 256), generator),
        "dfc": codes[where].astype(np.int32),
        "lc": generator.integers(1, 18, (4, 256, 256)).astype(np.uint16),
    }


def write(path, image, **options):
    """An image (C,H,W) as a georeferenced GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = image.shape
    grid = {"crs": "EPSG:32615", "transform": from_origin(550000, 2050000, 2640 / width, 2640 / height)}
    shape = {"height": height, "width": width, "count": bands, "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **grid, **options) as file:
        file.write(image)


if __name__ == "__main__":
    for name, make in (("ssl4eo", make_ssl4eo), ("dfc2020", make_dfc2020)):
        make(Path(sys.argv[1]) / name / "raw", np.random.default_rng(0))
