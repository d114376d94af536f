"""Miniature BigEarthNet-S2 archives in the publisher's layouts, formats and names."""

import json

import numpy as np
import pandas as pd
import rasterio
from rasterio.transform import from_origin

PIXELS = {"B02": 120, "B03": 120, "B04": 120, "B08": 120} | dict.fromkeys(
    ("B05", "B06", "B07", "B8A", "B11", "B12"), 60
)
PIXELS |= {"B01": 20, "B09": 20}  # 60 m: shipped, not used

TILES = ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", "S2B_MSIL2A_20180525T094029_N9999_R036_T35VNK")
ACQUISITIONS = ("S2A_MSIL2A_20170613T101031", "S2B_MSIL2A_20180525T94029")
SNOWY = f"{TILES[1]}_9_9"  # of version 2.0: on the disk, but in the other of the two metadata files

# Codes of each map, from the left; 523 stands for two codes' worth of columns, 124 and 999 have no class.
MAPS = ((111, 112, 124, 311), (312, 231, 999, 523), (211, 212, 213, 333), (243, 243, 512, 521), (412, 422, 324, 331))
LABELS = (  # the classes of these maps, but for the last, where the metadata say something else
    ["Urban fabric", "Broad-leaved forest"],
    ["Coniferous forest", "Marine waters", "Pastures"],
    ["Arable land", "Natural grassland and sparsely vegetated areas"],
    [
        "Inland waters",
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "Marine waters",
    ],
    ["Coastal wetlands", "Inland wetlands", "Transitional woodland, shrub"],
)
LEVEL_3 = (  # labels of version 1.0
    ["Continuous urban fabric", "Airports", "Broad-leaved forest"],
    ["Coniferous forest", "Pastures", "Sea and ocean"],
    ["Rice fields", "Non-irrigated arable land", "Sparsely vegetated areas", "Bare rock"],
    ["Bare rock", "Intertidal flats"],  # no class at all
    ["Peatbogs", "Salines", "Transitional woodland/shrub", "Beaches, dunes, sands"],
)
SPLITS = ("train", "validation", "test", "train", "train")


def names(tiles):
    """Five patches, two of them in the second of the tiles."""
    return [f"{tiles[i // 3]}_{30 + i}_{7 * i}" for i in range(5)]


def make_v2(folder, generator):
    """BigEarthNet-S2/, Reference_Maps/, metadata.parquet and the metadata of the snowy patch."""
    patches = names(TILES)
    for patch, codes in zip([*patches, SNOWY], [*MAPS, (335,)], strict=True):
        tile = patch.rsplit("_", 2)[0]
        write_bands(folder / "BigEarthNet-S2" / tile / patch, patch, generator, compress="deflate")
        where = folder / "Reference_Maps" / tile / patch
        where.mkdir(parents=True)
        reference_map = np.repeat(np.uint16(codes), 120 // len(codes))[None].repeat(120, 0)
        write_band(where / f"{patch}_reference_map.tif", reference_map, compress="deflate", predictor=2)
    columns = {
        "patch_id": patches,
        "labels": LABELS,
        "split": SPLITS,
        "country": "Austria",
        "s1_name": [f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{i}_0" for i in range(5)],
        "s2v1_name": names(ACQUISITIONS),
        "contains_seasonal_snow": False,
        "contains_cloud_or_shadow": False,
    }
    table = pd.DataFrame(columns)
    table.to_parquet(folder / "metadata.parquet", index=False)
    snowy = table.iloc[:1].assign(patch_id=SNOWY, contains_seasonal_snow=True)
    snowy.to_parquet(folder / "metadata_for_patches_with_snow_cloud_or_shadow.parquet", index=False)


def make_v1(folder, generator):
    """BigEarthNet-v1.0/ with labels in JSON, and the three lists of the official split beside it."""
    patches = names(ACQUISITIONS)
    for patch, labels in zip(patches, LEVEL_3, strict=True):
        where = folder / "BigEarthNet-v1.0" / patch
        write_bands(where, patch, generator)
        content = {
            "labels": labels,
            "coordinates": {"ulx": 300000, "uly": 5100000, "lrx": 301200, "lry": 5098800},
            "projection": 'PROJCS["WGS 84 / UTM zone 33N"]',
            "tile_source": "S2A_MSIL1C_20170613T101031_N0205_R022_T33UUP_20170613T101608.SAFE",
            "acquisition_date": "2017-06-13 10:10:31",
        }
        (where / f"{patch}_labels_metadata.json").write_text(json.dumps(content))
    for split, file in (("train", "train.csv"), ("validation", "val.csv"), ("test", "test.csv")):
        listed = [patch for patch, other in zip(patches, SPLITS, strict=True) if other == split]
        (folder / file).write_text("".join(f"{patch}\n" for patch in listed))


def write_bands(folder, patch, generator, **options):
    """The twelve bands of a patch, at 10, 20 and 60 m."""
    folder.mkdir(parents=True)
    for band, size in PIXELS.items():
        layer = generator.integers(0, 2**16, (size, size), dtype=np.uint16)
        write_band(folder / f"{patch}_{band}.tif", layer, **options)


def write_band(path, layer, **options):
    """One band of a patch of 1,200 m as a georeferenced GeoTIFF."""
    meters = 1200 / len(layer)
    grid = {"crs": "EPSG:32633", "transform": from_origin(300000, 5100000, meters, meters)}
    shape = {"height": len(layer), "width": len(layer), "count": 1, "dtype": layer.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **grid, **options) as file:
        file.write(layer, 1)
