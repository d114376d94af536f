"""Miniature archives of DENETHOR and of BreizhCrops in the publishers' layouts, formats and names."""

import csv
import json
import pickle
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import h5py
import numpy as np
import rasterio
from rasterio.transform import from_origin

SIDE = 120  # pixels of 10 m; Planet has 400 of 3 m
WEST, NORTH = 442_800, 5_832_000
FIELD = 7  # pixels a side of a place; a field is smaller
CROPS = ("Wheat", "Rye", "Barley", "Oats", "Corn", "Oil Seeds", "Root Crops", "Meadows", "Forage Crops")
SEEN = {2018: [3, 40, 40, 77, 200, 361], 2019: [1, 99, 150, 365]}  # days of the year; swaths overlap
AREAS = {2018: ("train", "33N_18E_242N"), 2019: ("test", "33N_17E_243N")}

PARTS = {"frh01": "2018/L1C", "frh03": "2018/L1C"}
CULTURES = {  # codes of the publisher's table, with their class
    **{"ORH": "barley", "ORP": "barley", "BTH": "wheat", "CZH": "rapeseed", "MIS": "corn", "MIE": "corn"},
    **{"TRN": "sunflower", "VRG": "orchards", "NOX": "nuts", "PPH": "permanent meadows", "PTR": "temporary meadows"},
}
COLUMNS = (  # of a series, as the publisher's later code writes them
    *("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"),
    *("QA10", "QA20", "QA60", "doa"),
)


class BBox:
    """What sentinelhub pickles, as far as it is looked at."""


BBox.__module__ = "sentinelhub.geometry"


def make_denethor(folder, generator):
    """The collections of Radiant MLHub: labels, Sentinel-2 and Planet of 2018; labels and Sentinel-2 of 2019."""
    for year, (part, tile) in AREAS.items():
        name = f"dlr_fusion_competition_germany_{part}"
        write_labels(folder / f"{name}_labels" / f"{name}_labels_{tile}" / "labels.geojson", generator)
        days = [date(year, 1, 1) + timedelta(days=day - 1) for day in SEEN[year]]
        write_bands(folder / f"{name}_source_sentinel_2" / f"{name}_source_sentinel_2_{tile}_{year}", days, generator)
        if year == 2018:
            for day in sorted(set(days)):  # the archive has every day
                place = folder / f"{name}_source_planet" / f"{name}_source_planet_{tile}_{day:%Y_%m_%d}"
                write_planet(place / "sr.tif", generator)
            other = folder / f"{name}_source_planet_5day" / f"{name}_source_planet_5day_{tile}_2018_01_03"
            other.mkdir(parents=True)
            (other / "sr.tif").touch()  # never read


def write_labels(path, generator):
    """Fields of every crop, some too small for a pixel; one whose crop is another, and one of two parts."""
    features = []
    places = [(r, c) for r in range(0, SIDE - FIELD, FIELD) for c in range(0, SIDE - FIELD, FIELD)]
    for i, (row, column) in enumerate(places):
        size = 10 * generator.uniform(2.5, FIELD - 0.5) if i % 25 else 2.0
        corner = WEST + 10 * column + 6, NORTH - 10 * row - 6
        polygons = [square(*corner, size)] if i != 5 else [square(*corner, 25), square(corner[0] + 30, corner[1], 25)]
        crop = CROPS[generator.integers(9)] if i != 3 else None
        properties = {"fid": 1000 + 3 * i, "crop_id": CROPS.index(crop) + 1 if crop else None, "crop_name": crop}
        shape = {"type": "MultiPolygon", "coordinates": polygons}
        features.append({"type": "Feature", "properties": properties, "geometry": shape})
    system = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::25833"}}
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": system, "features": features}))


def square(west, north, size):
    """A polygon of four sides, in meters."""
    east, south = west + size, north - size
    return [[[west, north], [east, north], [east, south], [west, south], [west, north]]]


def write_bands(folder, days, generator):
    """bands.npy (T,S,S,12), clp.npy, and what eo-learn has pickled: the bounding box and the timestamps."""
    folder.mkdir(parents=True)
    np.save(folder / "bands.npy", generator.integers(0, 2**16, (len(days), SIDE, SIDE, 12), dtype=np.uint16))
    np.save(folder / "clp.npy", np.zeros((len(days), 1, 1, 1), dtype=np.uint8))
    box = BBox()
    box.__dict__ |= {"min_x": float(WEST), "min_y": float(NORTH - 10 * SIDE), "_crs": "32633"}
    box.__dict__ |= {"max_x": float(WEST + 10 * SIDE), "max_y": float(NORTH)}
    stamps = [datetime(day.year, day.month, day.day, 10, 12, i, tzinfo=UTC) for i, day in enumerate(days)]
    (folder / "timestamp.pkl").write_bytes(pickle.dumps(stamps))
    modules = {name: ModuleType(name) for name in ("sentinelhub", "sentinelhub.geometry")}
    modules["sentinelhub.geometry"].BBox = BBox
    with patch.dict(sys.modules, modules):  # pickle looks whether they are there
        (folder / "bbox.pkl").write_bytes(pickle.dumps(box))


def write_planet(path, generator):
    """Four bands of a day."""
    path.parent.mkdir(parents=True)
    side = SIDE * 10 // 3
    grid = {"crs": "EPSG:32633", "transform": from_origin(WEST, NORTH, 3, 3)}
    with rasterio.open(path, "w", driver="GTiff", count=4, height=side, width=side, dtype="uint16", **grid) as file:
        file.write(generator.integers(0, 2**16, (4, side, side), dtype=np.uint16))


def make_breizhcrops(folder, generator, columns=COLUMNS):
    """Two parts with their series and index, and the table of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(i, list(CULTURES.values()).index(name), name, code) for i, (code, name) in enumerate(CULTURES.items())]
    write_table(folder / "classmapping.csv", ["", "id", "classname", "code"], rows)
    number = 20_000
    for part, place in PARTS.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        index = []
        with h5py.File(folder / place / f"{part}.h5", "w") as file:
            for code in list(CULTURES) * 4:
                number += 7
                length = int(generator.choice([51, 142, 143, 144, 146]))
                path = f"breizhcrops_dataset/{place}/{part}/csv/{number}.csv"
                file.create_dataset(path, data=series(length, generator, columns))
                index.append((len(index), 0.1, number, code, path, len(index) + 1, length))
        names = ["", "meanQA60", "id", "CODE_CULTU", "path", "idx", "sequencelength"]
        write_table(folder / place / f"{part}.csv", names, index)


def series(length, generator, columns=COLUMNS):
    """A series (length,17) float64: means of a field in any year's days; B10 is dark."""
    values = {name: generator.uniform(0, 9000, length) for name in COLUMNS}
    values["B10"] = generator.uniform(5, 60, length)
    days = np.sort(generator.choice(365, length, replace=False))
    values["doa"] = (np.datetime64("2018-01-01", "ns") + days.astype("timedelta64[D]")).astype(np.int64)
    return np.stack([values[name].astype(np.float64) for name in columns], axis=1)


def write_table(path, names, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])


if __name__ == "__main__":
    for name, make in (("denethor", make_denethor), ("breizhcrops", make_breizhcrops)):
        make(Path(sys.argv[1]) / name / "raw", np.random.default_rng(0))
