"""Loading, checking and normalising scenes, on a miniature archive in the form of the real one."""

import hashlib
import os
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_bounds

from rsbook import scenes
from rsbook.archives import bluemarble

FILES = ("image.tif", "igbp.tif", "scenes.csv")
ROWS, COLUMNS = 3, 4  # windows of the miniature


@pytest.fixture
def root(tmp_path):
    """A data folder with a Blue Marble archive of 3×4 windows, each split in two halves of different land cover."""
    folder = tmp_path / "bluemarble"
    folder.mkdir()
    rng = np.random.default_rng(0)
    height, width = ROWS * bluemarble.WINDOW, COLUMNS * bluemarble.WINDOW
    image = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
    igbp = np.repeat(np.repeat(rng.integers(0, 17, (ROWS, 2 * COLUMNS), dtype=np.uint8), 32, axis=0), 16, axis=1)
    grid = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, width, height)}
    for name, layers in (("image.tif", image), ("igbp.tif", igbp[None])):
        shape = {"count": len(layers), "height": height, "width": width, "dtype": "uint8"}
        with rasterio.open(folder / name, "w", driver="GTiff", **shape, **grid) as file:
            file.write(layers)
    lines = [f"{32 * i},{32 * j},{('train', 'train', 'val', 'test')[j]}\n" for i in range(ROWS) for j in range(COLUMNS)]
    (folder / "scenes.csv").write_text("row,column,split\n" + "".join(lines))
    seal(folder)
    return tmp_path


def seal(folder):
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES]
    (folder / "SHA256SUMS").write_text("".join(sums))


def test_an_archive_becomes_scenes(root):
    data = scenes.load("bluemarble", root)
    assert data.images.shape == (12, 3, 32, 32)
    assert data.images.dtype == torch.uint8
    assert data.labels.shape == (12, 7)
    assert data.labels.dtype == torch.bool
    assert data.positions.shape == (12, 32, 32)
    assert data.positions.dtype == torch.int32
    assert {name: index.tolist() for name, index in data.splits.items()} == {
        "train": [0, 1, 4, 5, 8, 9],
        "val": [2, 6, 10],
        "test": [3, 7, 11],
    }
    with rasterio.open(root / "bluemarble" / "image.tif") as file:
        assert np.array_equal(data.images[6], file.read()[:, 32:64, 64:96])
    with rasterio.open(root / "bluemarble" / "igbp.tif") as file:
        halves = file.read(1)[32, [64, 80]]
    present = {bluemarble.IGBP_TO_CLASS[value] for value in halves}
    assert set(data.labels[6].nonzero().flatten().tolist()) == present


def test_normalised_training_images_have_mean_0_and_standard_deviation_1(root):
    data = scenes.load("bluemarble", root)
    training = data.normalise(data.images[data.split("train")])
    assert training.dtype == torch.float32
    assert torch.allclose(training.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(training.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4)
    # Other splits are normalised with the numbers of the training split, not with their own.
    other = data.images[data.split("test")]
    assert torch.allclose(data.normalise(other) * data.std.view(1, 3, 1, 1) + data.mean.view(1, 3, 1, 1), other.float())


def test_the_checksum_names_the_content_and_reads_no_file(root):
    folder = root / "bluemarble"
    expected = hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()
    assert scenes.load("bluemarble", root).checksum == expected
    for name in FILES:
        (folder / name).unlink()
    assert scenes.checksum("bluemarble", str(root)) == expected


def test_a_thousand_flipped_bits_are_all_detected(root):
    folder, draw, detected = root / "bluemarble", random.Random(0), 0
    scenes.load("bluemarble", root)  # that it was whole, and is kept in memory, is no excuse
    for trial in range(1_000):
        path = folder / FILES[trial % 3]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(scenes.DataError, match=rf"{path.name} is damaged: .*git checkout"):
            scenes.load("bluemarble", root)
        path.write_bytes(whole)
        detected += 1
    assert detected == 1_000
    scenes.load("bluemarble", root)


def test_an_archive_is_kept_until_it_is_another(root, tmp_path):
    first = scenes.load("bluemarble", root)
    assert scenes.load("bluemarble", str(root)) is first
    path = root / "bluemarble" / "scenes.csv"
    whole = path.read_text()
    path.write_text(whole.replace("0,0,train", "0,0,test"))
    with pytest.raises(scenes.DataError, match=r"scenes.csv is damaged"):
        scenes.load("bluemarble", root)
    seal(root / "bluemarble")
    assert scenes.load("bluemarble", root).split("test").tolist() == [0, 3, 7, 11]
    path.write_text(whole)
    seal(root / "bluemarble")
    assert scenes.load("bluemarble", root).split("test").tolist() == [3, 7, 11]
    other = shutil.copytree(root / "bluemarble", tmp_path / "other" / "bluemarble")
    assert scenes.load("bluemarble", other.parent) is not scenes.load("bluemarble", root)


def test_every_flipped_bit_of_the_manifest_is_detected(root):
    manifest = root / "bluemarble" / "SHA256SUMS"
    whole = manifest.read_bytes()
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        manifest.write_bytes(damaged)
        with pytest.raises(scenes.DataError):
            scenes.verify(root / "bluemarble")


OUTSIDE = ("../../outside", "../outside", "../a/../b", "../a/b/c", "/etc/passwd", "a/b", "../../bluemarble/a.tif")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\xff\xfe", b"nonsense\n", *(f"{'0' * 64}  {name}\n".encode() for name in OUTSIDE)]
)
def test_a_manifest_that_is_none_is_named(root, content):
    (root / "bluemarble" / "SHA256SUMS").write_bytes(content)
    with pytest.raises(scenes.DataError, match=r"SHA256SUMS is damaged: .*git checkout"):
        scenes.load("bluemarble", root)


@pytest.mark.parametrize("name", ["SHA256SUMS", *FILES])
def test_a_missing_file_is_named_with_its_cure(root, name):
    (root / "bluemarble" / name).unlink()
    with pytest.raises(scenes.DataError, match=rf"{name} is missing: restore it .*data/bluemarble/README.md"):
        scenes.load("bluemarble", root)


def test_a_root_without_the_archive_is_named(tmp_path):
    with pytest.raises(scenes.DataError, match=r"bluemarble.SHA256SUMS is missing"):
        scenes.load("bluemarble", tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["blue_marble", "", "../bluemarble", "/etc", "bluemarble/", "os"])
def test_an_unknown_data_set_is_refused_before_any_file_is_read(root, name):
    for function in (scenes.load, scenes.checksum, scenes.location):
        with pytest.raises(ValueError, match=r"dataset='.*': known archives are bluemarble"):
            function(name, root)


def test_an_unknown_split_is_refused(root):
    with pytest.raises(ValueError, match="split='validation': bluemarble has train, val, test"):
        scenes.load("bluemarble", root).split("validation")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(12, 32, 32)}, r"images has shape \(12, 32, 32\), expected \(N,C,H,W\)"),
        ({"images": torch.zeros(11, 3, 32, 32)}, r"labels has shape \(12, 7\), expected \(11, 7\)"),
        ({"labels": torch.zeros(12, 6)}, r"labels has shape \(12, 6\), expected \(12, 7\)"),
        ({"positions": torch.zeros(12, 32, 31)}, r"positions has shape \(12, 32, 31\), expected \(12, 32, 32\)"),
        ({"mean": torch.zeros(4)}, r"mean has shape \(4,\), expected \(3,\)"),
        ({"std": torch.zeros(1)}, r"std has shape \(1,\), expected \(3,\)"),
        ({"classes": ("water",)}, r"labels has shape \(12, 7\), expected \(12, 1\)"),
        ({"splits": {"train": torch.tensor([0, 12])}}, r"split 'train' names scenes outside 0 … 11"),
        ({"splits": {"val": torch.tensor([-1])}}, r"split 'val' names scenes outside 0 … 11"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(root, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(scenes.load("bluemarble", root), **changes)


def test_scenes_may_have_no_class_positions(root):
    assert replace(scenes.load("bluemarble", root), positions=None).positions is None


def test_labels_of_maps_follow_the_presence_rule():
    maps = torch.tensor([[[0, 0, 1], [0, 0, 2], [0, 0, 2]]])
    for min_pixels, expected in ((0, [True, True, True]), (1, [True, False, True]), (2, [True, False, False])):
        bits, labels = scenes.from_maps(maps, 3, min_pixels)
        assert labels.tolist() == [expected]
        assert bits.tolist() == [[[1, 1, 2], [1, 1, 4], [1, 1, 4]]]


def hashed(monkeypatch):
    """The names of the files that are hashed from now on."""
    names, real = [], scenes.sha256
    monkeypatch.setattr(scenes, "sha256", lambda path, advance=None: names.append(path.name) or real(path))
    return names


@pytest.fixture
def large(root, monkeypatch):
    """The miniature, in a world where its image is a large file: whole, and known to be."""
    monkeypatch.setattr(scenes, "LARGE", 30_000)
    assert (root / "bluemarble" / "image.tif").stat().st_size > 30_000
    scenes.verify(root / "bluemarble")
    return root / "bluemarble"


def test_a_large_file_is_hashed_again_only_when_it_has_changed(large, monkeypatch):
    names = hashed(monkeypatch)
    scenes.verify(large)
    assert sorted(names) == ["igbp.tif", "scenes.csv"]
    os.utime(large / "image.tif")
    names.clear()
    scenes.verify(large)
    assert sorted(names) == sorted(FILES)
    names.clear()
    scenes.verify(large)
    assert sorted(names) == ["igbp.tif", "scenes.csv"]


@pytest.mark.parametrize("damage", ["content", "size", "manifest", "stamp"])
def test_what_was_found_whole_before_is_no_excuse(large, monkeypatch, damage):
    image, names = large / "image.tif", hashed(monkeypatch)
    if damage == "content":
        flipped = bytearray(image.read_bytes())
        flipped[-1] ^= 1
        image.write_bytes(flipped)
    elif damage == "size":
        image.write_bytes(image.read_bytes()[:-1])
    elif damage == "manifest":
        sums = (large / "SHA256SUMS").read_text().splitlines(keepends=True)
        (large / "SHA256SUMS").write_text("0" * 64 + sums[0][64:] + "".join(sums[1:]))
    else:
        (large / scenes.STAMP).write_text('{"checksum": []')
        scenes.verify(large)
        assert "image.tif" in names
        return
    with pytest.raises(scenes.DataError, match=r"image.tif is damaged"):
        scenes.verify(large)


def test_everything_finds_damage_that_left_no_trace_and_the_next_load_knows(large):
    image = large / "image.tif"
    state, flipped = image.stat(), bytearray(image.read_bytes())
    flipped[-1] ^= 1
    image.write_bytes(flipped)
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    scenes.verify(large)
    for everything in (True, False):
        with pytest.raises(scenes.DataError, match=r"image.tif is damaged"):
            scenes.verify(large, everything=everything)


def test_small_archives_leave_no_stamp(root):
    scenes.verify(root / "bluemarble")
    assert not (root / "bluemarble" / scenes.STAMP).exists()


def test_the_cure_of_other_archives_is_to_prepare_them(tmp_path):
    with pytest.raises(scenes.DataError) as error:
        scenes.load("deepglobe", tmp_path)
    assert "`python -m rsbook data card deepglobe`" in str(error.value)
    assert f"`python -m rsbook data prepare deepglobe --root {tmp_path}`" in str(error.value)


def test_a_name_that_is_nearly_right_is_suggested():
    with pytest.raises(ValueError, match="did you mean 'bigearthnet'"):
        scenes.load("bigearthnet-s2")


def test_bands_of_a_picture_are_the_first_three_unless_said(root):
    assert scenes.load("bluemarble", root).rgb == (0, 1, 2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.uint16, torch.int32, torch.float32])
def test_rows_that_are_taken_are_those_of_the_index(dtype):
    images = torch.arange(5 * 2 * 3 * 4).view(5, 2, 3, 4).to(dtype)
    index = torch.tensor([4, 0, 4])
    assert torch.equal(scenes.take(images, index).int(), images[index].int())
    assert torch.equal(scenes.take(images.transpose(2, 3), index).int(), images.transpose(2, 3)[index].int())
    assert scenes.take(images, index[:0]).shape == (0, 2, 3, 4)


def test_normalising_leaves_the_images_as_they_are(tiny_scenes):
    images = tiny_scenes.images[:4].float()
    before = images.clone()
    assert not torch.equal(tiny_scenes.normalise(images), before)
    assert torch.equal(images, before)
