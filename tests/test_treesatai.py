"""TreeSatAI: a miniature archive against a loop over its files."""

import json
import os
import pickle
import shutil

import make_archives_treesatai as miniature
import numpy as np
import pytest
import tifffile

from rsbook import cli, preparing, scenes
from rsbook.archives import treesatai
from rsbook.archives.treesatai import CLASSES
from rsbook.scenes import DataError

LABELS_FILE = "TreeSatBA_v9_60m_multi_labels.json"
N = len(miniature.LABELS)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The folder of a miniature archive; not to be written to."""
    folder = tmp_path_factory.mktemp("treesatai")
    miniature.make(folder, np.random.default_rng(3))
    return folder


@pytest.fixture
def raw(archive, tmp_path):
    """A copy of the archive."""
    return shutil.copytree(archive, tmp_path / "raw")


def test_every_scene_is_read_as_a_loop_over_its_files_does(archive):
    source = treesatai.source(archive)
    assert set(source.scenes) == {name.removesuffix(".tif") for name in miniature.LABELS}
    order = [3, 0, *range(4, N), 1, 2]
    images, positions, labels = pickle.loads(pickle.dumps(source.read))(order)  # as a worker process gets it
    assert (images.dtype, images.shape, labels.dtype, labels.shape) == (np.uint8, (N, 4, 304, 304), bool, (N, 15))
    assert positions is None
    assert not source.has_positions
    for row, i in enumerate(order):
        name = f"{source.scenes[i]}.tif"
        [path] = archive.glob(f"aerial_60m_*/{name}")
        pixels = tifffile.imread(path)
        assert (images[row] == (pixels if len(pixels) == 4 else pixels.transpose(2, 0, 1))).all()
        present = set()
        for genus, share in miniature.LABELS[name]:
            if share >= 0.05:
                present.add(genus)
        assert {CLASSES[c] for c in range(15) if labels[row, c]} == present


def test_a_genus_of_exactly_five_percent_is_in_the_label(archive):
    source = treesatai.source(archive)
    _, _, labels = source.read(list(range(N)))
    label = dict(zip(source.scenes, labels, strict=True))
    column = CLASSES.index
    assert label["Abies_alba_2_1005_WEFL_NLF"][column("Fagus")]
    edge = label["Acer_pseudoplatanus_3_21_WEFL_NLF"]
    assert (edge[column("Quercus")], edge[column("Tilia")]) == (True, False)
    # The same rule in pixels: more than `min_pixels` of 304 × 304.
    assert source.min_pixels < 0.05 * 304 * 304 <= source.min_pixels + 1


def test_classes_and_bands_are_those_of_the_card():
    assert len(CLASSES) == len(set(CLASSES)) == 15
    assert "Cleared" in CLASSES
    assert sorted(CLASSES) == list(CLASSES)
    assert treesatai.BANDS == ("NIR", "green", "blue", "red")
    card = (scenes.DATA / "treesatai" / "README.md").read_text()
    rows = card[card.index("| class | tree |") :].split("\n\n")[0].splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == list(CLASSES)


def test_the_test_split_is_the_official_one_and_a_tenth_is_held_out_of_the_training_list(archive):
    source = treesatai.source(archive)
    split_of = dict(zip(source.scenes, source.splits, strict=True))
    assert {name for name, split in split_of.items() if split == "test"} == {"Quercus_robur_4_1234_WEFL_NLF"}
    assert [source.splits.count(split) for split in scenes.SPLITS] == [8, 1, 1]
    assert [source.bands[band] for band in source.rgb] == ["red", "green", "blue"]
    assert source.scenes != sorted(source.scenes), "the scenes of a species must not stand together"


def test_the_split_depends_on_names_only(tmp_path):
    """Shares of 80, 10 and 10 % of the real number of scenes, the same in any order of the lists."""
    names = [f"Fagus_sylvatica_1_{i}_WEFL_NLF.tif" for i in range(5038)]
    (tmp_path / "train_filenames.lst").write_text("\n".join(names[504:]))
    (tmp_path / "test_filenames.lst").write_text("\n".join(names[:504]))
    splits = treesatai._splits(tmp_path)
    counts = [list(splits.values()).count(split) for split in scenes.SPLITS]
    assert counts == [4030, 504, 504]
    held_out = [int(name.split("_")[3]) for name, split in splits.items() if split == "val"]
    assert abs(np.mean(held_out) - 2771) < 3 * 1309 / np.sqrt(504), "validation scenes come from all over the list"
    (tmp_path / "train_filenames.lst").write_text("\n".join(names[:503:-1]))
    assert treesatai._splits(tmp_path) == splits


def test_notes_put_the_counts_beside_the_paper(raw):
    extra = raw / "aerial_60m_tilia" / "Tilia_spec._9_1_WEFL_NLF.tif"
    shutil.copy(next(extra.parent.glob("*.tif")), extra)
    notes = treesatai.source(raw).notes
    assert json.loads(json.dumps(notes)) == notes
    assert notes["found"]["images_not_listed"] == 1
    assert [notes["found"][split] for split in scenes.SPLITS] == [8, 1, 1]
    assert "train 8, paper 40,332" in notes["differ"]
    # in all: 2 + 2 + 2 + 1 + 2 + 1 + 1 + 1 + 2 + 2 labels, of which the eight of training are counted
    source = treesatai.source(raw)
    _, _, labels = source.read(list(range(N)))
    assert labels.sum() == 16
    training = [split == "train" for split in source.splits]
    assert notes["found"]["labels_per_scene"] == round(float(labels[training].sum(axis=1).mean()), 2)


@pytest.mark.parametrize("place", ["", "aerial", "aerial/60m"])
def test_images_may_lie_in_one_folder_and_the_labels_beside_them(archive, raw, place):
    (raw / place).mkdir(parents=True, exist_ok=True)
    for path in list(raw.glob("aerial_60m_*/*.tif")):
        path.rename(raw / place / path.name)
    (raw / "labels" / LABELS_FILE).rename(raw / LABELS_FILE)
    shutil.rmtree(raw / "labels")
    there, here = treesatai.source(archive), treesatai.source(raw)
    assert there.scenes == here.scenes
    for other, own in zip(there.read(list(range(N))), here.read(list(range(N))), strict=True):
        assert other is own is None or (other == own).all()


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def removed(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def three_bands(path):
    path.unlink()
    miniature.write(path, np.zeros((3, 304, 304), dtype=np.uint8), meters=0.2)


def sixteen_bits(path):
    path.unlink()
    miniature.write(path, np.zeros((4, 304, 304), dtype=np.uint16), meters=0.2)


def text(content):
    return lambda path: path.write_text(content)


ALNUS = json.dumps(miniature.LABELS | {"Cleared_0_77_WEFL_NLF.tif": [["Alder", 1.0]]})
WITHOUT = json.dumps({k: v for k, v in miniature.LABELS.items() if not k.startswith("Cleared")})
BOTH = "".join(f"{name}\n" for name in miniature.LABELS)

DAMAGES = [
    ("aerial_60m_pinus/*.tif", truncated, r"Pinus_nigra_5_311_WEFL_NLF.tif is damaged.*aerial_60m_pinus_nigra\.zip"),
    ("aerial_60m_pinus/*.tif", three_bands, r"is \(3, 304, 304\) uint8, expected \(4, 304, 304\) uint8"),
    ("aerial_60m_pinus/*.tif", sixteen_bits, r"is \(4, 304, 304\) uint16"),
    ("aerial_60m_pinus/*.tif", removed, r"Pinus_nigra_5_311_WEFL_NLF.tif is missing.*aerial_60m_pinus_nigra\.zip"),
    ("aerial_60m_tilia", removed, r"with 1 more of the 10 listed: unpack aerial_60m_tilia_spec\.zip"),
    ("aerial_60m_cleared", removed, r"unpack aerial_60m_cleared\.zip"),
    ("train_filenames.lst", removed, "train_filenames.lst is missing"),
    ("test_filenames.lst", removed, "test_filenames.lst is missing"),
    ("test_filenames.lst", text(BOTH), "Abies_alba_1_834_WEFL_NLF.tif is in both lists"),
    ("labels", removed, "TreeSatBA_v9_60m_multi_labels.json is missing.*unpack labels.zip"),
    (f"labels/{LABELS_FILE}", truncated, "TreeSatBA_v9_60m_multi_labels.json is damaged"),
    (f"labels/{LABELS_FILE}", text(ALNUS), "'Alder' at Cleared_0_77_WEFL_NLF.tif"),
    (f"labels/{LABELS_FILE}", text(WITHOUT), "no entry for Cleared_0_77_WEFL_NLF.tif"),
]


@pytest.mark.parametrize(("where", "damage", "message"), DAMAGES)
def test_what_is_missing_or_damaged_is_named_with_the_cure(raw, where, damage, message):
    [path] = raw.glob(where)
    damage(path)
    with pytest.raises(DataError, match=message) as error:
        treesatai.source(raw).read(list(range(N)))
    assert "data card treesatai" in str(error.value)


def test_other_raw_files_are_told_apart(raw):
    def inputs():
        source = treesatai.source(raw)
        return source.inputs, source.group_inputs

    before = inputs()
    assert inputs() == before
    shutil.copyfile(
        raw / "s2/60m/Pinus_nigra_5_311_WEFL_NLF.tif", raw / "aerial_60m_pinus/Pinus_nigra_5_311_WEFL_NLF.tif"
    )
    after = inputs()
    assert after[0] == before[0]
    assert after[1] != before[1]
    for name in ("train_filenames.lst", "test_filenames.lst", f"labels/{LABELS_FILE}"):
        last = inputs()[0]
        (raw / name).write_text((raw / name).read_text() + "\n")
        assert inputs() == (inputs()[0], after[1])
        assert inputs()[0] != last


def test_only_the_group_of_a_mended_file_is_read_again(archive, tmp_path, monkeypatch):
    raw, read, image = shutil.copytree(archive, tmp_path / "treesatai" / "raw"), [], treesatai._image
    monkeypatch.setattr(treesatai, "TOGETHER", 3)
    monkeypatch.setattr(treesatai, "_image", lambda path: read.append(path.stem) or image(path))
    names = treesatai.source(raw).scenes
    [first], [last] = (list(raw.glob(f"aerial_60m_*/{name}.tif")) for name in (names[1], names[-1]))
    whole = last.read_bytes()
    truncated(last)
    with pytest.raises(DataError, match="is damaged"):
        preparing.prepare("treesatai", tmp_path, workers=0, progress=False)
    assert read == names
    read.clear()
    last.write_bytes(whole)
    os.utime(first)
    preparing.prepare("treesatai", tmp_path, workers=0, progress=False)
    assert read == names[:3] + names[9:]
    assert (scenes.load("treesatai", tmp_path).images.numpy() == treesatai.source(raw).read(list(range(N)))[0]).all()


def test_prepared_and_loaded_the_scenes_are_those_of_the_raw_files(archive, tmp_path, capsys):
    raw = shutil.copytree(archive, tmp_path / "treesatai" / "raw")
    assert cli.main(["data", "prepare", "treesatai", "--root", str(tmp_path)]) == 0, capsys.readouterr()
    data = scenes.load("treesatai", tmp_path)
    source = treesatai.source(raw)
    images, _, labels = source.read(list(range(N)))
    assert (data.images.numpy() == images).all()
    assert (data.labels.numpy() == labels).all()
    assert data.positions is None
    for split in scenes.SPLITS:
        assert [source.splits[i] for i in data.split(split)] == [split] * source.splits.count(split)
    assert (data.classes, data.rgb, data.min_pixels) == (CLASSES, (3, 1, 2), 4620)
    training = images[[split == "train" for split in source.splits]].astype(float)
    np.testing.assert_allclose(data.mean, training.mean(axis=(0, 2, 3)), rtol=1e-6)
