"""AID-multilabel: a miniature archive against a loop over its files."""

import hashlib
import json
import os
import pickle
import shutil

import make_archives_aid as miniature
import numpy as np
import pytest
from PIL import Image

from rsbook import cli, preparing, scenes
from rsbook.archives import aid
from rsbook.archives.aid import CLASSES
from rsbook.scenes import DataError

N = len(miniature.LABELS)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The folder of a miniature archive; not to be written to."""
    folder = tmp_path_factory.mktemp("aid")
    miniature.make(folder, np.random.default_rng(3))
    return folder


@pytest.fixture
def raw(archive, tmp_path):
    """A copy of the archive."""
    return shutil.copytree(archive, tmp_path / "raw")


def label_sets(source):
    _, _, labels = source.read(list(range(N)))
    return {name: {CLASSES[c] for c in np.flatnonzero(row)} for name, row in zip(source.scenes, labels, strict=True)}


def test_every_scene_is_read_as_a_loop_over_its_files_does(archive):
    source = aid.source(archive)
    assert set(source.scenes) == set(miniature.LABELS)
    order = [3, 0, *range(4, N), 1, 2]
    images, positions, labels = pickle.loads(pickle.dumps(source.read))(order)  # as a worker process gets it
    assert (images.dtype, images.shape, labels.dtype, labels.shape) == (np.uint8, (N, 3, 600, 600), bool, (N, 17))
    assert positions is None
    assert not source.has_positions
    for row, i in enumerate(order):
        [path] = archive.glob(f"images_*/*/{source.scenes[i]}.jpg")
        with Image.open(path) as file:
            assert (images[row].transpose(1, 2, 0) == np.asarray(file)).all()
        assert {CLASSES[c] for c in range(17) if labels[row, c]} == set(miniature.LABELS[source.scenes[i]])


def test_classes_are_those_of_the_card():
    assert len(CLASSES) == len(set(CLASSES)) == 17
    assert sorted(CLASSES) == list(CLASSES)
    card = (scenes.DATA / "aid" / "README.md").read_text()
    classes = card[card.index("## Classes") :].split("\n\n")[1]
    assert classes.replace("\n", " ").rstrip(".").split(", ") == list(CLASSES)


def test_the_test_split_is_the_test_folder_and_a_tenth_is_held_out_of_the_training_folder(archive):
    source = aid.source(archive)
    split_of = dict(zip(source.scenes, source.splits, strict=True))
    assert {name for name, split in split_of.items() if split == "test"} == set(miniature.TEST)
    training = miniature.LABELS.keys() - set(miniature.TEST)
    held_out = min(training, key=lambda name: hashlib.sha256(f"validation {name}".encode()).hexdigest())
    assert {name for name, split in split_of.items() if split == "val"} == {held_out}
    assert source.scenes == sorted(miniature.LABELS, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def test_the_split_depends_on_names_only():
    """The real number of images, the same in any order of the files."""
    folders = {f"farmland_{i}": "test" if i < 600 else "train" for i in range(3000)}
    splits = aid._splits(folders)
    assert [list(splits.values()).count(split) for split in scenes.SPLITS] == [2160, 240, 600]
    assert aid._splits(dict(reversed(folders.items()))) == splits


def test_an_image_without_any_class_is_kept(archive):
    source = aid.source(archive)
    assert label_sets(source)["desert_7"] == set()
    assert source.notes["found"]["images_without_label"] == 1


def test_corrected_labels_go_first_and_the_notes_say_which_were_used(raw):
    before = aid.source(raw)
    assert before.notes["labels_file"] == "multilabel.csv"
    assert label_sets(before)["meadow_2"] == {"grass", "pavement"}
    miniature.table(raw / "multilabel_corrected.csv", miniature.CORRECTED)
    after = aid.source(raw)
    assert after.notes["labels_file"] == "multilabel_corrected.csv"
    assert label_sets(after) == {name: set(present) for name, present in miniature.CORRECTED.items()}
    assert (before.version, before.inputs) != (after.version, after.inputs)
    assert before.group_inputs == after.group_inputs
    (raw / "multilabel.csv").unlink()
    assert aid.source(raw).inputs == after.inputs


def without(*names):
    return [name for name in CLASSES if name not in names]


@pytest.mark.parametrize(
    ("rows", "columns", "missing"),
    [
        (["meadow_2", "meadow_20"], CLASSES, r"has no row for airport_1, nor for 9 more of the 12 images"),
        ([name for name in miniature.LABELS if name != "port_9"], CLASSES, r"has no row for port_9: "),
        (miniature.LABELS, without("ship", "water"), r"has no column ship, water: "),
    ],
)
def test_corrected_labels_that_lack_images_or_classes_are_refused_and_not_filled_up(raw, rows, columns, missing):
    path = raw / "multilabel_corrected.csv"
    miniature.table(path, {name: miniature.CORRECTED[name] for name in rows}, columns)
    with pytest.raises(DataError, match=rf"{path.name} {missing}.*move it away and multilabel\.csv is read"):
        aid.source(raw)
    path.unlink()
    assert aid.source(raw).notes["labels_file"] == "multilabel.csv"


def test_columns_may_be_in_any_order_and_the_file_may_begin_with_a_mark(archive, raw):
    path = raw / "multilabel.csv"
    miniature.table(path, miniature.LABELS, CLASSES[::-1])
    path.write_text("\ufeff" + path.read_text() + "\n", encoding="utf-8")
    assert label_sets(aid.source(raw)) == label_sets(aid.source(archive))


def test_notes_put_the_counts_beside_the_paper(archive):
    notes = aid.source(archive).notes
    assert json.loads(json.dumps(notes)) == notes
    assert [notes["found"][split] for split in scenes.SPLITS] == [9, 1, 2]
    assert (notes["found"]["scene_types"], notes["found"]["training_folder"]) == (6, 10)
    assert notes["found"]["labels_per_scene"] == round(sum(map(len, miniature.LABELS.values())) / N, 2)
    assert "training_folder 10, paper 2,400" in notes["differ"]


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def removed(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def smaller(path):
    miniature.write(path, np.zeros((512, 600, 3), dtype=np.uint8))


def grey(path):
    miniature.write(path, np.zeros((600, 600), dtype=np.uint8))


def in_both(path):
    shutil.copytree(path, path.parents[1] / "images_test" / path.name)


def labels(change):
    return lambda path: miniature.table(path, change)


def edited(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new))


WITHOUT = {name: present for name, present in miniature.LABELS.items() if name != "port_9"}

DAMAGES = [
    ("images_tr/Port/port_9.jpg", truncated, r"port_9.jpg is damaged"),
    ("images_tr/Port/port_9.jpg", lambda path: path.write_bytes(b"none"), r"port_9.jpg is damaged"),
    ("images_tr/Port/port_9.jpg", smaller, r"has 600 × 512 pixels of RGB, expected 600 × 600 pixels of RGB"),
    ("images_tr/Port/port_9.jpg", grey, r"has 600 × 600 pixels of L, expected"),
    ("images_tr/Port/port_9.jpg", removed, r"port_9.jpg is missing"),
    ("images_tr/Port", removed, r"port_10.jpg is missing.*with 1 more of the 12 listed"),
    ("images_tr/Port", in_both, r"port_10.jpg is in .*images_tr/Port and .*images_test/Port"),
    ("images_tr", removed, r"images_tr, it is missing or empty"),
    ("images_test", removed, r"images_test, it is missing or empty"),
    ("multilabel.csv", removed, r"multilabel.csv is missing"),
    ("multilabel.csv", truncated, r"multilabel.csv (is damaged at row|has no row)"),
    ("multilabel.csv", lambda path: path.write_bytes(b"\xff\xfe\x00"), r"multilabel.csv is damaged"),
    ("multilabel.csv", lambda path: path.write_text(""), r"has no column airplane, bare-soil"),
    ("multilabel.csv", edited("tanks", "tank"), r"has no column tanks: download it again"),
    ("multilabel.csv", edited("tanks", "tanks,tanks"), r"has other columns"),
    ("multilabel.csv", edited("desert_7,0", "desert_7,2"), r"is damaged at row 6, expected a name and 0 or 1"),
    ("multilabel.csv", edited("desert_7", "desert_7" * 99), r"is damaged at row 6"),
    ("multilabel.csv", edited("port_10,", "port_9,"), r"has port_9 twice"),
    ("multilabel.csv", labels(WITHOUT), r"has no row for port_9"),
]


@pytest.mark.parametrize(("where", "damage", "message"), DAMAGES)
def test_what_is_missing_or_damaged_is_named_with_the_cure(raw, where, damage, message):
    damage(raw / where)
    with pytest.raises(DataError, match=message) as error:
        aid.source(raw).read(list(range(N)))
    assert "data card aid" in str(error.value)


def test_only_the_group_of_a_mended_file_is_read_again(archive, tmp_path, monkeypatch):
    raw, read, image = shutil.copytree(archive, tmp_path / "aid" / "raw"), [], aid._image
    monkeypatch.setattr(aid, "TOGETHER", 3)
    monkeypatch.setattr(aid, "_image", lambda path: read.append(path.stem) or image(path))
    names = aid.source(raw).scenes
    [first], [last] = (list(raw.glob(f"images_*/*/{name}.jpg")) for name in (names[1], names[-1]))
    whole = last.read_bytes()
    truncated(last)
    with pytest.raises(DataError, match="is damaged"):
        preparing.prepare("aid", tmp_path, workers=0, progress=False)
    assert read == names
    read.clear()
    last.write_bytes(whole)
    os.utime(first)
    preparing.prepare("aid", tmp_path, workers=0, progress=False)
    assert read == names[:3] + names[9:]


def test_prepared_and_loaded_the_scenes_are_those_of_the_raw_files(archive, tmp_path, capsys):
    raw = shutil.copytree(archive, tmp_path / "aid" / "raw")
    assert cli.main(["data", "prepare", "aid", "--root", str(tmp_path)]) == 0, capsys.readouterr()
    data = scenes.load("aid", tmp_path)
    source = aid.source(raw)
    images, _, labels = source.read(list(range(N)))
    assert (data.images.numpy() == images).all()
    assert (data.labels.numpy() == labels).all()
    assert data.positions is None
    for split in scenes.SPLITS:
        assert [source.splits[i] for i in data.split(split)] == [split] * source.splits.count(split)
    assert (data.classes, data.rgb, data.min_pixels) == (CLASSES, (0, 1, 2), 0)
    assert json.loads((tmp_path / "aid" / "manifest.json").read_text())["notes"]["labels_file"] == "multilabel.csv"
    training = images[[split == "train" for split in source.splits]].astype(float)
    np.testing.assert_allclose(data.mean, training.mean(axis=(0, 2, 3)), rtol=1e-6)
