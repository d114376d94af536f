"""Pascal VOC 2012 with SBD: a miniature archive against a loop over its files."""

import csv
import hashlib
import json
import os
import pickle
import re
import shutil

import make_archives_voc as miniature
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat

from rsbook import cli, positions, preparing, presets, scenes, weak_runs, weak_uses
from rsbook.archives import prepared, voc
from rsbook.archives.voc import CLASSES
from rsbook.scenes import DataError

NAMES = miniature.TRAIN.keys() | miniature.VAL.keys() | miniature.EXTRA
N = len(NAMES)
CARD = (scenes.DATA / "voc" / "README.md").read_text("utf-8")
IMAGES, MAPS = f"{miniature.VOC}/JPEGImages", f"{miniature.VOC}/SegmentationClass"
LISTS = f"{miniature.VOC}/ImageSets/Segmentation"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The folder of a miniature archive; not to be written to."""
    folder = tmp_path_factory.mktemp("voc")
    miniature.make(folder, np.random.default_rng(3))
    return folder


@pytest.fixture
def raw(archive, tmp_path):
    """A copy of the archive."""
    return shutil.copytree(archive, tmp_path / "raw")


@pytest.fixture(scope="module")
def ready(archive, tmp_path_factory):
    """A root with the prepared archive; not to be written to."""
    root = tmp_path_factory.mktemp("ready")
    shutil.copytree(archive, root / "voc" / "raw")
    preparing.prepare("voc", root, workers=0, progress=False)
    return root


def read(raw, name):
    """Image (H,W,3) and map (H,W) of a name, as the tools of others read them."""
    with Image.open(raw / IMAGES / f"{name}.jpg") as file:
        image = np.asarray(file.convert("RGB"))
    if name in miniature.EXTRA:
        return image, loadmat(raw / miniature.SBD / "cls" / f"{name}.mat")["GTcls"][0]["Segmentation"][0]
    with Image.open(raw / MAPS / f"{name}.png") as file:
        return image, np.asarray(file)


def test_every_scene_is_read_as_a_loop_over_its_files_does(archive):
    source = voc.source(archive)
    assert set(source.scenes) == NAMES
    order = [3, 0, *range(4, N), 1, 2]
    images, bits, labels = pickle.loads(pickle.dumps(source.read))(order)  # as a worker process gets it
    assert (images.dtype, images.shape) == (np.uint8, (N, 3, 500, 500))
    assert (bits.dtype, bits.shape, labels.dtype, labels.shape) == (np.int32, (N, 500, 500), bool, (N, 21))
    shown = miniature.SBD_TRAIN | miniature.SBD_VAL | miniature.TRAIN | miniature.VAL
    for row, i in enumerate(order):
        name = source.scenes[i]
        image, classes = read(archive, name)
        height, width = classes.shape
        assert (height, width) == source.sizes[i] == shown[name][:2]
        assert (images[row, :, :height, :width].transpose(1, 2, 0) == image).all()
        for outside in (np.s_[height:, :], np.s_[:, width:]):
            assert (images[row].transpose(1, 2, 0)[outside] == (124, 116, 104)).all()
            assert not bits[row][outside].any()
        for index in (*range(21), 255):
            bit = 0 if index == 255 else 1 << (index - 1) % 21
            assert (bits[row, :height, :width][classes == index] == bit).all()
        expected = [index for index in shown[name][2] if index != 255]
        assert set(np.flatnonzero(labels[row])) == {(index - 1) % 21 for index in expected}


def test_a_map_tells_the_background_from_what_is_ignored(ready):
    data = scenes.load("voc", ready)
    maps = positions.to_reference_maps(data.positions, 21)
    assert set(maps.unique().tolist()) <= {-1, *range(21)}
    names = [row["scene"] for row in csv.DictReader((ready / "voc" / "scenes.csv").open())]
    for i, name in enumerate(names):
        _, classes = read(ready / "voc" / "raw", name)
        expected = np.full((500, 500), 255)
        expected[: classes.shape[0], : classes.shape[1]] = classes
        assert (maps[i].numpy() == np.where(expected == 0, 20, np.where(expected == 255, -1, expected - 1))).all()
    assert (positions.to_labels(data.positions, 21, data.min_pixels) == data.labels).all()
    [empty] = [i for i, name in enumerate(names) if name == "2011_000004"]  # all of it is ignored
    assert not data.labels[empty].any()


def test_classes_are_those_of_the_card_and_the_background_is_the_last():
    assert len(CLASSES) == len(set(CLASSES)) == 21
    assert sorted(voc.OBJECTS) == list(voc.OBJECTS)
    assert (CLASSES[:20], CLASSES[20]) == (voc.OBJECTS, "background")
    classes = CARD[CARD.index("## Classes") :].split("\n\n")[1]
    assert classes.replace("\n", " ").rstrip(".").split(", ") == list(CLASSES)


def test_the_test_split_is_vocs_validation_list_and_a_tenth_is_held_out_of_its_training_list(archive):
    source = voc.source(archive)
    split_of = dict(zip(source.scenes, source.splits, strict=True))
    assert {name for name, split in split_of.items() if split == "test"} == set(miniature.VAL)
    held_out = min(miniature.TRAIN, key=lambda name: hashlib.sha256(f"validation {name}".encode()).hexdigest())
    assert {name for name, split in split_of.items() if split == "val"} == {held_out}
    assert source.scenes == sorted(NAMES, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert {n for n, where in zip(source.scenes, source.lists, strict=True) if where == "sbd"} == miniature.EXTRA


def test_the_split_of_vocs_images_does_not_depend_on_sbd(archive, raw):
    shutil.rmtree(raw / "benchmark_RELEASE")
    with_it, without = voc.source(archive), voc.source(raw)
    assert set(without.scenes) == NAMES - miniature.EXTRA
    assert set(without.lists) == {"voc"}
    splits = dict(zip(with_it.scenes, with_it.splits, strict=True))
    assert [splits[name] for name in without.scenes] == without.splits
    assert (without.version, with_it.version) == ("VOC 2012; rules 1", "VOC 2012 and SBD; rules 1")
    assert without.inputs != with_it.inputs
    found = without.notes["found"]
    assert {"extra", "augmented"}.isdisjoint(found | without.notes["paper"])


@pytest.mark.parametrize("sbd", [True, False])
def test_the_card_has_the_counts_that_the_papers_lists_give(tmp_path, monkeypatch, sbd):
    """Lists as long as the publishers', and as much in common: no images."""
    names = [f"2008_{i:06}" for i in range(1464 + 1449 + 9118)]
    train, val, extra = names[:1464], names[1464:2913], names[2913:]
    miniature.listed(tmp_path / LISTS / "train.txt", train)
    miniature.listed(tmp_path / LISTS / "val.txt", val)
    if sbd:
        miniature.listed(tmp_path / miniature.SBD / "train.txt", train[:1000] + val[:678] + extra[:6820])
        miniature.listed(tmp_path / miniature.SBD / "val.txt", train[1000:1200] + val[678:1037] + extra[6820:])
    monkeypatch.setattr(voc, "_files", lambda raw, names, extra: (names, names))
    monkeypatch.setattr(voc, "_size", lambda path: (500, 375))
    monkeypatch.setattr(prepared, "identify", lambda paths: "")
    notes = voc.source(tmp_path).notes
    assert notes["differ"] == []
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", CARD, re.MULTILINE)
    assert [name for name, _ in rows] == ["train", "val", "test", "extra"]
    for name, value in rows if sbd else rows[:3]:
        assert f"{notes['found'][name]:,}" == value


def test_notes_put_the_counts_beside_the_paper(archive):
    notes = voc.source(archive).notes
    assert json.loads(json.dumps(notes)) == notes
    counts = {"images": 16, "train_list": 10, "train": 9, "val": 1, "test": 3, "extra": 3, "augmented": 13}
    assert notes["found"] == counts
    assert "augmented 13, paper 10,582" in notes["differ"]


def test_files_of_sbd_are_read_as_scipy_reads_them(archive, tmp_path):
    paths = sorted((archive / miniature.SBD / "cls").iterdir())
    assert len(paths) == 6
    for path in paths:
        assert (voc._segmentation(path) == loadmat(path)["GTcls"][0]["Segmentation"][0]).all()
    packed = {path.read_bytes()[128] == voc.COMPRESSED for path in paths}
    assert packed == {True, False}
    for size in (1, 2, 3, 4, 5, 500):  # a small map is kept in another way
        classes = np.random.default_rng(size).integers(0, 21, (size, 1), dtype=np.uint8)
        miniature.matlab(tmp_path / "a.mat", classes)
        assert (voc._segmentation(tmp_path / "a.mat") == classes).all()


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def removed(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def photograph(*shape):
    return lambda path: miniature.photograph(path, np.zeros(shape, dtype=np.uint8))


def painted(shape, value=0):
    return lambda path: miniature.painted(path, np.full(shape, value, dtype=np.uint8))


def in_colours(path):
    Image.fromarray(np.zeros((281, 500, 3), dtype=np.uint8)).save(path)


def listed(*names):
    return lambda path: miniature.listed(path, names)


def matlab(content):
    return lambda path: savemat(path, content)


def segmentation(array):
    return matlab({"GTcls": {"Segmentation": array}})


PHOTO, MAP, MAT = f"{IMAGES}/2007_000032.jpg", f"{MAPS}/2007_000032.png", f"{miniature.SBD}/cls/2008_000002.mat"
SMALL = np.zeros((375, 500), dtype=np.uint8)

DAMAGES = [
    (PHOTO, truncated, r"000032.jpg is damaged"),
    (PHOTO, lambda path: path.write_bytes(b"none"), r"000032.jpg is damaged"),
    (PHOTO, removed, r"000032.jpg is missing, which the lists in .*/Segmentation name: unpack VOCdevkit again"),
    (PHOTO, photograph(501, 20, 3), r"has 20 × 501 pixels of RGB, expected at most 500 × 500 of RGB or L"),
    (PHOTO, photograph(280, 500, 3), r"000032.png has 500 × 281 pixels, expected 500 × 280 as 2007_000032.jpg has"),
    (PHOTO, lambda path: Image.new("CMYK", (500, 281)).save(path), r"has 500 × 281 pixels of CMYK"),
    (IMAGES, removed, r"JPEGImages/\d+_\d+.jpg is missing, with 15 more of the 32 images and maps"),
    (MAP, truncated, r"000032.png is damaged"),
    (MAP, removed, r"000032.png is missing"),
    (MAP, painted((281, 501)), r"000032.png has 501 × 281 pixels of P, expected at most"),
    (MAP, painted((281, 499)), r"000032.png has 499 × 281 pixels, expected 500 × 281"),
    (MAP, painted((281, 500), 21), r"has class 21 at row 0, column 0, expected 0 … 20 or 255"),
    (MAP, in_colours, r"000032.png has 500 × 281 pixels of RGB, expected at most 500 × 500 of P"),
    (f"{LISTS}/train.txt", removed, r"train.txt is missing"),
    (f"{LISTS}/val.txt", listed(), r"val.txt is empty"),
    (f"{LISTS}/val.txt", listed("2007_000033", "2007_000033"), r"val.txt names an image twice"),
    (f"{LISTS}/val.txt", listed("2007_000032"), r"2007_000032 is in .*train.txt and .*val.txt"),
    (f"{LISTS}/val.txt", listed("../../2007_000033"), r"val.txt names '../../2007_000033', expected images as"),
    (f"{LISTS}/val.txt", listed("2007_00003٣"), r"val.txt names '2007_00003٣'"),
    (f"{LISTS}/val.txt", lambda path: path.write_bytes(b"\xff\xfe"), r"val.txt is damaged"),
    (f"{miniature.SBD}/val.txt", removed, r"dataset/val.txt is missing.*unpack benchmark_RELEASE again"),
    (f"{miniature.SBD}/cls", removed, r"cls/\d+_\d+.mat is missing, with 2 more of the 32 images and maps"),
    (MAT, removed, r"000002.mat is missing, which the lists in .*/dataset name: unpack benchmark_RELEASE again"),
    (MAT, truncated, r"000002.mat is damaged"),
    (MAT, lambda path: path.write_bytes(b""), r"expected a MATLAB file of level 5"),
    (MAT, lambda path: savemat(path, {"GTcls": SMALL}, format="4"), r"expected a MATLAB file of level 5"),
    (MAT, matlab({"GTinst": {"Segmentation": SMALL}}), r"expected the struct GTcls"),
    (MAT, matlab({"GTcls": SMALL}), r"expected the struct GTcls"),
    (MAT, matlab({"GTcls": {"Boundaries": SMALL}}), r"KeyError: b'Segmentation'"),
    (MAT, segmentation(SMALL.astype(float)), r"Segmentation is \(375, 500\), expected at most 500 × 500 of uint8"),
    (MAT, segmentation(SMALL[None]), r"Segmentation is \(1, 375, 500\)"),
    (MAT, segmentation(np.zeros((501, 2), dtype=np.uint8)), r"Segmentation is \(501, 2\)"),
    (MAT, segmentation(SMALL[:0]), r"Segmentation is \(0, 500\)"),
    (MAT, segmentation(SMALL[:374]), r"000002.mat has 500 × 374 pixels, expected 500 × 375"),
    (MAT, segmentation(SMALL + 77), r"000002.mat has class 77 .*unpack benchmark_RELEASE again"),
]


@pytest.mark.parametrize(("where", "damage", "message"), DAMAGES)
def test_what_is_missing_or_damaged_is_named_with_the_cure(raw, where, damage, message):
    damage(raw / where)
    with pytest.raises(DataError, match=message) as error:
        voc.source(raw).read(list(range(N)))
    assert "data card voc" in str(error.value)


def test_what_no_list_names_is_not_looked_at(raw):
    (raw / IMAGES / f"{miniature.UNLISTED}.jpg").write_bytes(b"none")
    for name in ("2008_000015", "2010_000002", "2009_000013"):  # VOC has a map of them
        (raw / miniature.SBD / "cls" / f"{name}.mat").unlink()
    (raw / LISTS / "trainval.txt").unlink()
    assert len(voc.source(raw).read(list(range(N)))[0]) == N


def test_only_the_group_of_a_mended_file_is_read_again(archive, tmp_path, monkeypatch):
    raw, looked, image = shutil.copytree(archive, tmp_path / "voc" / "raw"), [], voc._image
    monkeypatch.setattr(voc, "TOGETHER", 4)
    monkeypatch.setattr(voc, "_image", lambda path: looked.append(path.stem) or image(path))
    names = voc.source(raw).scenes
    first, last = raw / IMAGES / f"{names[1]}.jpg", raw / IMAGES / f"{names[-1]}.jpg"
    whole = last.read_bytes()
    truncated(last)
    with pytest.raises(DataError, match="is damaged"):
        preparing.prepare("voc", tmp_path, workers=0, progress=False)
    assert looked == names
    looked.clear()
    last.write_bytes(whole)
    os.utime(first)
    preparing.prepare("voc", tmp_path, workers=0, progress=False)
    assert looked == names[:4] + names[12:]


def test_prepared_and_loaded_the_scenes_are_those_of_the_raw_files(archive, tmp_path, capsys):
    raw = shutil.copytree(archive, tmp_path / "voc" / "raw")
    assert cli.main(["data", "prepare", "voc", "--root", str(tmp_path)]) == 0, capsys.readouterr()
    data, source = scenes.load("voc", tmp_path), voc.source(raw)
    for found, expected in zip((data.images, data.positions, data.labels), source.read(list(range(N))), strict=True):
        assert (found.numpy() == expected).all()
    assert data.positions.dtype == torch.int32
    assert (data.classes, data.rgb, data.min_pixels) == (CLASSES, (0, 1, 2), 0)
    rows = list(csv.DictReader((tmp_path / "voc" / "scenes.csv").open()))
    assert [(row["scene"], row["split"], row["list"]) for row in rows] == list(
        zip(source.scenes, source.splits, source.lists, strict=True)
    )
    assert [(int(row["height"]), int(row["width"])) for row in rows] == source.sizes


def test_what_sbd_adds_is_a_split_of_its_own(ready):
    data = scenes.load("voc", ready)
    names = [row["scene"] for row in csv.DictReader((ready / "voc" / "scenes.csv").open())]
    assert list(data.splits) == ["train", "val", "test", "extra"]
    parts = {split: {names[i] for i in index} for split, index in data.splits.items()}
    assert sum(map(len, data.splits.values())) == N
    assert parts["extra"] == miniature.EXTRA
    assert parts["train"] | parts["val"] == set(miniature.TRAIN)
    assert parts["test"] == set(miniature.VAL)


def test_scenes_know_their_sizes_without_padding(ready, archive):
    assert scenes.load("voc", ready).sizes.tolist() == [list(size) for size in voc.source(archive).sizes]


def test_without_sbd_there_is_no_such_split(archive, tmp_path):
    raw = shutil.copytree(archive, tmp_path / "voc" / "raw")
    shutil.rmtree(raw / "benchmark_RELEASE")
    preparing.prepare("voc", tmp_path, workers=0, progress=False)
    assert list(scenes.load("voc", tmp_path).splits) == ["train", "val", "test"]


def test_mean_and_standard_deviation_leave_the_padding_out(ready):
    data, source = scenes.load("voc", ready), voc.source(ready / "voc" / "raw")
    train = [name for name, split in zip(source.scenes, source.splits, strict=True) if split == "train"]
    pixels = np.concatenate([read(ready / "voc" / "raw", name)[0].reshape(-1, 3) for name in train]).astype(float)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std(axis=0, ddof=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",list,", ",lists,", "KeyError"),
        (",sbd,", ",coco,", "'coco' is no list"),
        (",sbd,", ",", "'50'|'60'|'375'"),
        (",500\n", ",501\n", "outside 1 … 500"),
    ],
)
def test_a_table_of_other_lists_is_refused(ready, tmp_path, old, new, message):
    folder = shutil.copytree(ready / "voc", tmp_path / "voc", ignore=shutil.ignore_patterns("raw"))
    path = folder / "scenes.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=rf"scenes.csv is damaged .*{message}.*data prepare voc"):
        voc.load(folder, "")


def test_from_labels_of_photographs_to_maps(ready, tmp_path):
    """Part V's chain as `full` has it, but for networks: a background, padding, crops, and images that SBD adds."""
    chosen = presets.load("weak_segmentation", "full", "voc")
    small = {"network": "narrow_resnet", "output_stride": None, "pretrained": False, "scales": (1, 0.5)}
    where = {"dataset": "voc", "root": ready, "seed": 1, "device": "cpu", **chosen["more"], "train_scenes": 4}
    once = {"batch_size": 2, "evaluate_every": 1}

    def settings(name, *left_out):
        fitting = {key: value for key, value in (chosen[name]["fitting"] | once).items() if key not in left_out}
        taken = {key: value for key, value in small.items() if key in chosen[name] or key == "scales"}
        return chosen[name] | where | taken | {"fitting": fitting}

    def place(function):
        module = "weak_uses" if function == "segment" else "weak_runs"
        return tmp_path / f"{module}.{function}" / "x.safetensors"

    given = settings("recommended") | {"crop": 64}
    first = weak_runs.classify(method="fmix", epochs=1, checkpoint=place("classify"), **given)
    assert len(first["average_precision"]) == len(CLASSES) - 1
    assert len(first["iou"]) == len(CLASSES)
    given = settings("refinement", "evaluate_every") | {"steps": 4}
    given["fitting"]["epochs"] = 1
    refined = weak_runs.refine(stage_one=first["weights"], checkpoint=place("refine"), **given)
    assert 0 <= refined["miou"] <= 1
    given = settings("segmentation", "evaluate_every") | {"classifier": "narrow_resnet", "crop": 64, "steps": 4}
    given |= {"stage_one": first["weights"], "refined": refined["weights"]}
    given["fitting"] |= {"epochs": 1}
    found = weak_uses.segment(source="walk", checkpoint=place("segment"), **given)
    assert len(found["iou"]) == len(CLASSES)
    assert found["iou"][-1] is not None
