"""The embedded data against its card, its recipe and its own maps."""

import csv
import hashlib
import importlib.util
import re
from itertools import combinations

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from rsbook import positions, scenes
from rsbook.archives import bigearthnet, bluemarble, deepglobe
from rsbook.archives.bluemarble import CLASSES, MIN_SEGMENT, PRESENCE, WINDOW
from rsbook.figures import CLASS_COLOURS, class_colours

FOLDER = scenes.DATA / "bluemarble"
CARD = (FOLDER / "README.md").read_text()
LAND_COVER = bluemarble.read_map(FOLDER / "igbp.tif")

COLOURS = class_colours(CLASSES)


@pytest.fixture(scope="module")
def data():
    return scenes.load("bluemarble")


@pytest.fixture(scope="module")
def windows():
    with (FOLDER / "scenes.csv").open(newline="") as file:
        return [(int(row["row"]), int(row["column"]), row["split"]) for row in csv.DictReader(file)]


def table(first_header):
    """Rows of the card's table with this first column, as dictionaries."""
    lines = CARD[CARD.index(f"| {first_header} |") :].split("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_counts_on_the_card_are_those_of_the_scenes(data):
    number = lambda text: float(text.replace(",", ""))  # noqa: E731
    rows = {row["split"]: row for row in table("split")}
    splits = {name: data.labels[data.split(name)] for name in scenes.SPLITS} | {"all": data.labels}
    assert set(rows) == set(splits)
    for name, labels in splits.items():
        assert number(rows[name]["scenes"]) == len(labels)
        assert number(rows[name]["mean labels"]) == round(labels.sum().item() / len(labels), 2)
        assert number(rows[name]["scenes of one class"]) == (labels.sum(dim=1) == 1).sum()
    classes = table("class")
    assert [row["class"] for row in classes] == list(data.classes)
    for layer, row in enumerate(classes):
        assert {name: number(row[name]) for name in splits} == {
            name: labels[:, layer].sum().item() for name, labels in splits.items()
        }


def test_classes_on_the_card_are_those_of_the_code():
    for layer, row in enumerate(table("class")):
        assert row["colour"] == f"`{COLOURS[layer]}`"
        igbp = {value for value, group in enumerate(bluemarble.IGBP_TO_CLASS) if group == layer}
        assert {int(value) for value in row["IGBP"].split(", ")} == igbp


def test_files_on_the_card_in_the_manifest_and_on_disk_are_the_same():
    on_card = {row["file"].strip("`"): (int(row["bytes"].replace(",", "")), row["sha256"]) for row in table("file")}
    listed = dict(reversed(line.split("  ")) for line in (FOLDER / "SHA256SUMS").read_text().splitlines())
    on_disk = {name: (FOLDER / name).read_bytes() for name in listed}
    assert set(on_card) == set(listed)
    for name, content in on_disk.items():
        checksum = hashlib.sha256(content).hexdigest()
        assert on_card[name] == (len(content), f"`{checksum}`")
        assert listed[name] == checksum
    assert sum(map(len, on_disk.values())) < 10_000_000


def test_splits_are_disjoint_and_complete(data):
    every = np.concatenate([data.split(name).numpy() for name in scenes.SPLITS])
    assert np.array_equal(np.sort(every), np.arange(len(data.images)))


def test_windows_lie_on_one_grid_so_that_none_overlaps_another(windows):
    corners = {(row, column) for row, column, _ in windows}
    assert len(corners) == len(windows)
    first, last = (90 - 72) * 15, (90 + 56) * 15  # 72° N to 56° S
    for row, column in corners:
        assert (row - first) % WINDOW == column % WINDOW == 0
        assert first <= row <= last - WINDOW
        assert 0 <= column <= 5400 - WINDOW


def test_no_block_of_windows_is_in_two_splits(windows):
    splits_of_block = {}
    for row, column, split in windows:
        splits_of_block.setdefault(((row - 270) // WINDOW // 4, column // WINDOW // 4), set()).add(split)
    assert all(len(splits) == 1 for splits in splits_of_block.values())
    assert len(splits_of_block) > 100


def test_the_first_scenes_are_a_fair_sample(windows):
    rows = np.array([row for row, _, _ in windows])
    for n in (200, 1000):  # in the order of the map, these would be the far north
        assert abs(rows[:n].mean() - rows.mean()) < 4 * rows.std() / n**0.5
    splits = [split for _, _, split in windows[:1000]]
    assert 0.55 < splits.count("train") / 1000 < 0.68


def test_every_label_follows_the_presence_rule_and_every_map_the_files(data, windows):
    assert data.min_pixels == int(PRESENCE * WINDOW**2)
    masks = positions.to_masks(data.positions, len(CLASSES)).numpy()
    for i, (row, column, _) in enumerate(windows):
        window = LAND_COVER[row : row + WINDOW, column : column + WINDOW]
        shares = np.bincount(window.ravel(), minlength=len(CLASSES)) / WINDOW**2
        assert data.labels[i].tolist() == (shares > PRESENCE).tolist()
        assert np.array_equal(masks[i].argmax(axis=0), window)
    assert (masks.sum(axis=1) == 1).all()


def test_images_are_cut_where_the_table_says(data, windows):
    with rasterio.open(FOLDER / "image.tif") as source:
        for i in range(0, len(windows), 97):
            row, column, _ = windows[i]
            assert np.array_equal(data.images[i], source.read(window=((row, row + WINDOW), (column, column + WINDOW))))


def test_a_few_scenes_pixel_by_pixel(data, windows):
    with rasterio.open(FOLDER / "igbp.tif") as source:
        igbp = source.read(1)
    for i in (0, 1, 1500, len(windows) - 1):
        row, column, _ = windows[i]
        pixels = dict.fromkeys(range(len(CLASSES)), 0)
        kept = 0
        for y in range(WINDOW):
            for x in range(WINDOW):
                bits = int(data.positions[i, y, x])
                assert bits.bit_count() == 1
                pixels[bits.bit_length() - 1] += 1
                kept += bits == 1 << bluemarble.IGBP_TO_CLASS[igbp[row + y, column + x]]
        assert data.labels[i].tolist() == [pixels[layer] > 20 for layer in range(len(CLASSES))]
        assert kept > 0.8 * WINDOW**2  # the sieve changes specks only


def test_no_scene_is_water_alone_and_none_is_without_a_class(data):
    alone = data.labels.sum(dim=1) == 1
    assert not (alone & data.labels[:, 0]).any()
    assert data.labels.any(dim=1).all()


def test_the_sieve_leaves_no_segment_below_its_size():
    for layer in range(len(CLASSES)):
        segments, _ = ndimage.label(layer == LAND_COVER)
        assert np.bincount(segments.ravel())[1:].min() >= MIN_SEGMENT


def test_image_and_map_lie_on_the_same_grid_of_the_whole_earth():
    with rasterio.open(FOLDER / "image.tif") as image, rasterio.open(FOLDER / "igbp.tif") as land_cover:
        assert image.crs == land_cover.crs == rasterio.crs.CRS.from_epsg(4326)
        assert image.transform == land_cover.transform
        assert image.shape == land_cover.shape == (2700, 5400)
        assert tuple(image.bounds) == (-180, -90, 180, 90)
        assert image.res == (pytest.approx(1 / 15), pytest.approx(1 / 15))
        assert (image.count, land_cover.count) == (3, 1)
        assert {*image.block_shapes, *land_cover.block_shapes} == {(256, 256)}
        assert land_cover.read(1).max() <= 16


def test_map_and_image_show_the_same_ground():
    with rasterio.open(FOLDER / "image.tif") as source:
        red, _, blue = source.read().astype(np.int16)
    blueness, water = (blue - red)[300:2100, 200:5200].ravel(), LAND_COVER == 0
    agreement = {
        (down, right): np.corrcoef(blueness, water[300 + down : 2100 + down, 200 + right : 5200 + right].ravel())[0, 1]
        for down in (-2, 0, 2)
        for right in (-2, 0, 2)
    }
    assert max(agreement, key=agreement.get) == (0, 0)
    assert agreement[0, 0] > 0.8


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("bluemarble_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_build_script_chooses_the_scenes_that_are_committed(build, windows):
    chosen = list(build.choose_scenes(LAND_COVER, np.random.default_rng(build.SEED)))
    assert sorted(chosen) == sorted(windows)


def test_the_build_script_drops_water_and_thins_single_classes(build):
    land_cover = np.zeros((2700, 5400), dtype=np.uint8)
    land_cover[:, 1800:3600] = 1  # forest alone: columns of windows 57 to 111
    land_cover[:, 3600:] = np.where(np.arange(1800) % 2, 2, 3)  # rangeland and grassland: columns 113 to 167
    chosen = list(build.choose_scenes(land_cover, np.random.default_rng(0)))
    columns = np.array([column for _, column, _ in chosen])
    rows_of_windows = (128 * 15) // WINDOW
    assert columns.min() >= 56 * WINDOW  # no window of water alone
    assert (columns >= 113 * WINDOW).sum() == rows_of_windows * 55  # every window of several classes
    single = ((columns >= 57 * WINDOW) & (columns <= 111 * WINDOW)).sum()
    windows_of_one = rows_of_windows * 55
    assert abs(single / windows_of_one - 0.2) < 4 * (0.2 * 0.8 / windows_of_one) ** 0.5


# How the three kinds of colour blindness see linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1).
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def linear(colour):
    assert re.fullmatch("#[0-9A-F]{6}", colour)
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Perceived lightness and hue (Ottosson, 2020): a distance of 0.02 is just visible."""
    to_cones = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.6806995, 0.10739696],
        [0.08830246, 0.28171884, 0.6299787],
    ]
    to_lab = [
        [0.21045426, 0.79361779, -0.00407205],
        [1.9779985, -2.4285922, 0.45059371],
        [0.0259040, 0.78277177, -0.80867577],
    ]
    return np.asarray(to_lab) @ np.cbrt(np.asarray(to_cones) @ rgb)


@pytest.mark.parametrize("classes", [CLASSES, deepglobe.CLASSES])
@pytest.mark.parametrize("vision", VISION)
def test_every_eye_tells_every_class_colour_from_every_other(vision, classes):
    seen = {
        name: oklab(np.clip(VISION[vision] @ linear(colour), 0, 1))
        for name, colour in zip(classes, class_colours(classes), strict=True)
    }
    for first, second in combinations(classes, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 0.1, (first, second)


def test_every_class_with_a_map_has_a_colour_of_its_own():
    for classes in (CLASSES, deepglobe.CLASSES, bigearthnet.CLASSES):
        assert set(classes) <= set(CLASS_COLOURS)
        assert len(set(class_colours(classes))) == len(classes)


@pytest.mark.parametrize(("paper", "least"), [("#FFFFFF", 1.3), ("#121212", 2.2)])
def test_class_colours_stand_out_from_the_paper_of_both_themes(paper, least):
    for name, colour in zip(CLASSES, COLOURS, strict=True):
        low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] + 0.05 for c in (paper, colour))
        assert high / low > least, name
