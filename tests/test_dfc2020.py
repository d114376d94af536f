"""DFC2020: a miniature archive against a loop over its files."""

import json
import os
import pickle
import shutil
import zipfile

import make_archives_sentinel as miniature
import numpy as np
import pytest
import tifffile
from test_sentinel import scaled

from rsbook import cli, preparing, scenes
from rsbook.archives import dfc2020, prepared, sentinel
from rsbook.archives.dfc2020 import CLASSES, CODES
from rsbook.figures import CLASS_COLOURS
from rsbook.scenes import DataError

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
CARD = (scenes.DATA / "dfc2020" / "README.md").read_text("utf-8")
NAMES = [f"ROIs0000_{part}_p{number}" for part, numbers in miniature.PATCHES.items() for number in numbers]
N = len(NAMES)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The folder of a miniature archive; not to be written to."""
    folder = tmp_path_factory.mktemp("dfc2020")
    miniature.make_dfc2020(folder, np.random.default_rng(4))
    return folder


@pytest.fixture
def raw(archive, tmp_path):
    """A copy of the archive."""
    return shutil.copytree(archive, tmp_path / "dfc2020" / "raw")


def expected(folder, name):
    """Image, class positions and label of a patch, pixel by pixel from its files."""
    part, number = name.removeprefix("ROIs0000_").split("_")
    files = {
        kind: folder / f"ROIs0000_{part}/{kind}_0/ROIs0000_{part}_{kind}_0_{number}.tif" for kind in ("s1", "s2", "dfc")
    }
    layers = []
    for kind, count in (("s1", 2), ("s2", 13)):
        image = tifffile.imread(files[kind])
        layers += [*(image if len(image) == count else image.transpose(2, 0, 1))]
    image = []
    for band, layer in zip(sentinel.BANDS, layers, strict=True):
        image.append([[scaled(value, band) for value in row] for row in layer.tolist()])
    codes = tifffile.imread(files["dfc"]).tolist()
    bits, present = np.zeros((256, 256), dtype=np.int32), set()
    for row, column in np.ndindex(256, 256):
        code = codes[row][column]
        if code in (1, 2, 4, 5, 6, 7, 9, 10):
            place = (1, 2, 4, 5, 6, 7, 9, 10).index(code)
            bits[row, column] = 1 << place
            present.add(place)
    return image, bits, [place in present for place in range(8)]


def test_every_patch_is_read_as_a_loop_over_its_files_does(archive):
    source = dfc2020.source(archive)
    assert set(source.scenes) == set(NAMES)
    order = [3, 0, 4, 1, 2]
    images, positions, labels = pickle.loads(pickle.dumps(source.read))(order)  # as a worker process gets it
    assert (images.dtype, images.shape) == (np.uint8, (N, 15, 256, 256))
    assert (positions.dtype, positions.shape) == (np.int32, (N, 256, 256))
    assert (labels.dtype, labels.shape) == (bool, (N, 8))
    assert 0 in positions, "savanna, snow and what is no class"
    for row, i in enumerate(order):
        image, bits, label = expected(archive, source.scenes[i])
        assert (images[row] == image).all()
        assert (positions[row] == bits).all()
        assert labels[row].tolist() == label


def test_the_first_part_is_for_training_and_the_second_for_testing(archive):
    source = dfc2020.source(archive)
    for name, split in zip(source.scenes, source.splits, strict=True):
        assert split == {"validation": "train", "test": "test"}[name.split("_")[1]]
    assert [source.splits.count(split) for split in scenes.SPLITS] == [3, 0, 2]
    assert source.scenes != sorted(source.scenes), "neighbours must not stand together"
    assert (source.min_pixels, source.size, source.dtype, source.bands) == (0, 256, "uint8", sentinel.BANDS)
    assert (source.modalities, source.rgb, source.seasons) == (sentinel.MODALITIES, sentinel.RGB, 1)


def test_a_group_holds_a_limited_number_of_patches(archive, monkeypatch):
    monkeypatch.setattr(dfc2020, "TOGETHER", 2)
    assert dfc2020.source(archive).groups == [[0, 1], [2, 3], [4]]


def test_classes_are_eight_of_the_contest_and_those_of_the_card():
    rows = [line.strip("| ").split(" | ") for line in CARD.splitlines() if line.startswith("| ")]
    table = {row[1]: (int(row[0]), row[2]) for row in rows if row[0].isdigit()}
    assert table == {name: (code, CLASS_COLOURS[name]) for name, code in CODES.items()}
    assert tuple(CODES.values()) == miniature.CODES
    assert len({CLASS_COLOURS[name] for name in CLASSES}) == 8


def test_notes_put_the_counts_beside_the_paper(archive):
    notes = dfc2020.source(archive).notes
    assert json.loads(json.dumps(notes)) == notes
    assert notes["found"] == {"train": 3, "test": 2}
    assert notes["differ"] == ["train 3, paper 986", "test 2, paper 5,128"]
    for count in notes["paper"].values():
        assert f"{count:,}" in CARD


def test_files_may_lie_in_any_folders(archive, raw):
    for path in list(raw.rglob("*.tif")):
        _, part, kind, *_ = path.stem.split("_")
        folder = raw / "DFC" / part / f"{kind}_{part}"
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    there, here = dfc2020.source(archive), dfc2020.source(raw)
    assert (there.scenes, there.splits) == (here.scenes, here.splits)
    for other, own in zip(there.read([1]), here.read([1]), strict=True):
        assert (other == own).all()


@pytest.mark.parametrize(("kind", "dtype"), [("s1", "float32"), ("dfc", "uint8"), ("dfc", "uint16"), ("dfc", "int16")])
def test_other_types_of_the_same_values_will_do(raw, kind, dtype):
    before = dfc2020.source(raw).read(list(range(N)))
    for path in raw.rglob(f"*_{kind}_0_p*.tif"):
        image = tifffile.imread(path)
        image = image[None] if image.ndim == 2 else image if len(image) == 2 else image.transpose(2, 0, 1)
        path.unlink()
        miniature.write(path, image.astype(dtype))
    for old, new in zip(before, dfc2020.source(raw).read(list(range(N))), strict=True):
        assert old.dtype == new.dtype
        assert (old == new).all()


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def removed(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def replaced(shape, dtype):
    def replace(path):
        path.unlink()
        miniature.write(path, np.zeros(shape, dtype=dtype))

    return replace


S1, S2, DFC = (f"ROIs0000_test/{kind}_0/ROIs0000_test_{kind}_0_p0.tif" for kind in ("s1", "s2", "dfc"))
DAMAGES = [
    (S1, truncated, r"test_s1_0_p0\.tif is damaged.*unpack its archive again"),
    (S1, removed, r"ROIs0000_test_s1_0_p0\.tif is missing in .*raw: unpack its archive again"),
    (S1, replaced((2, 256, 256), "uint16"), r"\(2, 256, 256\) uint16, expected \(2, 256, 256\) float64"),
    (S1, replaced((1, 256, 256), "float64"), r"\(1, 256, 256\) float64, expected \(2, 256, 256\)"),
    (S2, truncated, r"test_s2_0_p0\.tif is damaged"),
    (S2, replaced((12, 256, 256), "uint16"), r"\(12, 256, 256\) uint16, expected \(13, 256, 256\)"),
    (S2, replaced((13, 255, 256), "uint16"), r"\(13, 255, 256\) uint16, expected \(13, 256, 256\)"),
    (S2, replaced((13, 256, 256), "uint8"), r"\(13, 256, 256\) uint8, expected .* uint16"),
    (DFC, truncated, r"test_dfc_0_p0\.tif is damaged"),
    (DFC, removed, r"ROIs0000_test_dfc_0_p0\.tif is missing"),
    (DFC, replaced((1, 256, 256), "float32"), r"\(1, 256, 256\) float32, expected \(1, 256, 256\) int32"),
    ("ROIs0000_validation/dfc_0", removed, r"ROIs0000_validation_dfc_0_p0\.tif is missing in .*, with 2 more"),
    ("ROIs0000_validation", removed, r"raw holds no file ROIs0000_validation_s1_0_p0\.tif or the like"),
    ("ROIs0000_test", removed, r"raw holds no file ROIs0000_test_s1_0_p0\.tif or the like"),
]


@pytest.mark.parametrize(("where", "damage", "message"), DAMAGES)
def test_what_is_missing_or_damaged_is_named_with_the_cure(raw, where, damage, message):
    damage(raw / where)
    with pytest.raises(DataError, match=message) as error:
        dfc2020.source(raw).read(list(range(N)))
    assert "data card dfc2020" in str(error.value)


def test_only_the_group_of_a_mended_file_is_read_again(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(dfc2020, "TOGETHER", 2)
    read, layers = [], dfc2020._layers
    monkeypatch.setattr(dfc2020, "_layers", lambda path, kind: read.append(path.name) or layers(path, kind))
    names = dfc2020.source(raw).scenes
    first, last = (next(raw.rglob(dfc2020._file(name, "dfc"))) for name in (names[1], names[-1]))
    whole = last.read_bytes()
    truncated(last)
    with pytest.raises(DataError, match="is damaged"):
        preparing.prepare("dfc2020", tmp_path, workers=0, progress=False)
    assert read == [dfc2020._file(name, kind) for name in names for kind in ("s1", "s2", "dfc")]
    read.clear()
    last.write_bytes(whole)
    os.utime(first)
    preparing.prepare("dfc2020", tmp_path, workers=0, progress=False)
    assert read == [dfc2020._file(name, kind) for name in [*names[:2], names[-1]] for kind in ("s1", "s2", "dfc")]
    assert (scenes.load("dfc2020", tmp_path).images.numpy() == dfc2020.source(raw).read(list(range(N)))[0]).all()


def test_prepared_and_loaded_the_scenes_are_those_of_the_raw_files(raw, tmp_path, capsys):
    assert cli.main(["data", "prepare", "dfc2020", "--root", str(tmp_path)]) == 0, capsys.readouterr()
    assert "3 train, 0 val, 2 test" in capsys.readouterr().out
    data = scenes.load("dfc2020", tmp_path)
    source = dfc2020.source(raw)
    images, positions, labels = source.read(list(range(N)))
    assert (data.images.numpy() == images).all()
    assert (data.positions.numpy() == positions).all()
    assert (data.labels.numpy() == labels).all()
    assert len(data.split("val")) == 0
    for split in ("train", "test"):
        assert [source.splits[i] for i in data.split(split)] == [split] * source.splits.count(split)
    assert (data.classes, data.rgb, data.min_pixels, data.seasons) == (CLASSES, (5, 4, 3), 0, 1)
    assert data.modalities == {"s1": (0, 1), "s2": tuple(range(2, 15))}
    training = images[[split == "train" for split in source.splits]].astype(float)
    assert data.mean.tolist() == [0] * 15  # as the authors, whatever the training scenes are
    assert data.std.tolist() == [255] * 15
    np.testing.assert_allclose(
        prepared.read_manifest(tmp_path / "dfc2020")["mean"], training.mean(axis=(0, 2, 3)), rtol=1e-6
    )


def test_the_publishers_archives_are_unpacked(raw, tmp_path):
    plain = preparing.prepare("dfc2020", tmp_path, workers=0, progress=False)
    packed = tmp_path / "packed" / "dfc2020" / "raw"
    packed.mkdir(parents=True)
    for part in miniature.PATCHES:
        with zipfile.ZipFile(packed / f"DFC2020_{part}.zip", "w") as file:
            for path in (raw / f"ROIs0000_{part}").rglob("*.tif"):
                file.write(path, path.relative_to(raw))
    preparing.prepare("dfc2020", tmp_path / "packed", workers=0, progress=False)
    assert scenes.checksum("dfc2020", tmp_path / "packed") == scenes.checksum("dfc2020", plain.parent)
