"""DeepGlobe-ML from a miniature of the publishers' archive, against slow and obvious code; and what may be wrong."""

import csv
import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from make_archives import make_deepglobe
from PIL import Image
from torch import nn

from rsbook import preparing, scenes, training
from rsbook.archives import deepglobe

COLOURS = {(0, 255, 255): 0, (255, 255, 0): 1, (255, 0, 255): 2, (0, 255, 0): 3, (0, 0, 255): 4, (255, 255, 255): 5}

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The root of a prepared miniature."""
    root = tmp_path_factory.mktemp("archives")
    make_deepglobe(root / "deepglobe" / "raw" / "train")
    preparing.prepare("deepglobe", root, workers=2, progress=False)
    return root


@pytest.fixture
def raw(archive, tmp_path):
    """The raw folder of an archive of one's own, to damage."""
    return shutil.copytree(archive / "deepglobe" / "raw", tmp_path / "deepglobe" / "raw")


def names_of(root):
    with (root / "deepglobe" / "scenes.csv").open(newline="") as file:
        return [(row["scene"], row["split"]) for row in csv.DictReader(file)]


def cut_all(folder):
    """Every patch without unknown pixels, by name: image, reference map (120,120), set of classes; in slow loops."""
    patches = {}
    for path in folder.glob("*_mask.png"):
        tile = path.name.removesuffix("_mask.png")
        with rasterio.open(path) as file:
            mask = np.where(file.read() >= 128, 255, 0)
        image = np.asarray(Image.open(folder / f"{tile}_sat.jpg"))
        for row in range(mask.shape[1] // 120):
            for column in range(mask.shape[2] // 120):
                window = np.s_[120 * row : 120 * row + 120, 120 * column : 120 * column + 120]
                classes = np.full((120, 120), -1)
                for colour, index in COLOURS.items():
                    same = [mask[band][window] == colour[band] for band in range(3)]
                    classes[same[0] & same[1] & same[2]] = index
                if (classes >= 0).all():
                    patches[f"{tile}_{row}_{column}"] = (image[window], classes, set(classes.ravel().tolist()))
    return patches


def test_scenes_are_those_of_an_obvious_reading(archive):
    data, names = scenes.load("deepglobe", archive), names_of(archive)
    patches = cut_all(archive / "deepglobe" / "raw" / "train")
    assert len(names) == len(data.images) > 10
    for i, (name, split) in enumerate(names):
        image, classes, present = patches[name]
        assert np.array_equal(data.images[i], image.transpose(2, 0, 1))
        assert np.array_equal(data.positions[i], 1 << classes)
        assert set(data.labels[i].nonzero().flatten().tolist()) == present
        assert i in data.split(split)
    assert data.positions.dtype == torch.int32
    assert np.load(archive / "deepglobe" / "positions.npy", mmap_mode="r").dtype == np.uint8
    several = {name for name, (_, _, present) in patches.items() if len(present) > 1}
    assert several <= {name for name, _ in names}


def test_images_are_what_rasterio_reads_but_for_the_decoder(archive):
    data, names = scenes.load("deepglobe", archive), names_of(archive)
    for i, (name, _) in enumerate(names):
        tile, row, column = name.split("_")
        with rasterio.open(archive / "deepglobe" / "raw" / "train" / f"{tile}_sat.jpg") as file:
            whole = file.read().astype(int)
        top, left = 120 * int(row), 120 * int(column)
        difference = abs(whole[:, top : top + 120, left : left + 120] - data.images[i].numpy())
        assert difference.mean() < 1.5


def test_a_fifth_of_the_patches_of_one_class_is_kept_and_unknown_ones_are_not():
    grid = np.full((200, 200), 1 << 1, dtype=np.uint8)  # water alone
    grid[:20], grid[20:40] = 1 << 1 | 1 << 7, 1 << 1 | 1 << 7 | 1 << 0
    kept = deepglobe._keep(grid, deepglobe._draws("17", grid.shape)[0])
    assert kept[:20].all()
    assert not kept[20:40].any()
    assert abs(kept[40:].mean() - 0.2) < 4 * (0.2 * 0.8 / kept[40:].size) ** 0.5


def test_tiles_are_split_by_60_20_20_and_no_tile_is_in_two(archive):
    split = deepglobe._split([str(i) for i in range(803)])
    assert [list(split.values()).count(name) for name in scenes.SPLITS] == [482, 161, 160]
    split_of = {}
    for name, where in names_of(archive):
        assert split_of.setdefault(name.split("_")[0], where) == where
    assert set(split_of.values()) == set(scenes.SPLITS)


def test_a_tile_alone_decides_on_its_patches_whatever_the_order_of_files(raw, monkeypatch):
    whole = deepglobe.source(raw)
    listing = type(raw).iterdir
    monkeypatch.setattr(type(raw), "iterdir", lambda path: reversed(list(listing(path))))
    again = deepglobe.source(raw)
    assert (again.scenes, again.splits, again.inputs) == (whole.scenes, whole.splits, whole.inputs)
    [gone, *_] = {name.split("_")[0] for name in whole.scenes}
    for end in deepglobe.ENDS:
        (raw / "train" / f"{gone}{end}").unlink()
    assert deepglobe.source(raw).scenes == [name for name in whole.scenes if not name.startswith(f"{gone}_")]


def test_counts_stand_beside_the_papers(archive):
    patches = cut_all(archive / "deepglobe" / "raw" / "train")
    notes = json.loads((archive / "deepglobe" / "manifest.json").read_text())["notes"]
    names = names_of(archive)
    assert notes["found"]["tiles"] == 6
    assert notes["found"]["patches"] == 24
    assert notes["found"]["patches_without_unknown"] == len(patches)
    assert notes["found"]["patches_of_one_class"] == sum(len(present) == 1 for _, _, present in patches.values())
    assert notes["found"]["patches_kept"] == len(names)
    mean = np.mean([len(patches[name][2]) for name, _ in names])
    assert notes["found"]["labels_per_scene"] == round(mean, 2)
    assert notes["paper"]["patches_kept"] == 30_443
    assert f"patches_kept {len(names)}, paper 30,443" in notes["differ"]
    assert f"patches_kept {len(names)}, paper 30,443" in preparing.summary(archive / "deepglobe")


def test_one_step_of_training_moves_the_weights(archive):
    data = scenes.load("deepglobe", archive)
    task = training.Classification(
        data,
        train=data.split("train")[:8],
        val=data.split("val"),
        augment=lambda images, labels, positions, generator: (images, labels.float()),
    )
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))
    before = [weight.detach().clone() for weight in model.parameters()]
    settings = {"seed": 0, "epochs": 1, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu", "progress": False}
    history = training.fit(model, task, **settings)
    assert np.isfinite(history[0]["loss"])
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def first(raw, end):
    return sorted((raw / "train").glob(f"*{end}"))[0]


def truncate(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


@pytest.mark.parametrize("share", [0.5, 0.97, 0.001, 0])
@pytest.mark.parametrize("end", deepglobe.ENDS)
def test_a_truncated_file_is_named(raw, end, share):
    path = truncate(first(raw, end), share)
    with pytest.raises(scenes.DataError, match=f"{path.name} is damaged .*data card deepglobe"):
        preparing.prepare("deepglobe", raw.parents[1], workers=0, progress=False)
    assert not (raw.parent / "SHA256SUMS").exists()


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_in_a_mask_is_named(raw, seed):
    path = first(raw, "_mask.png")
    content = bytearray(path.read_bytes())
    content[np.random.default_rng(seed).integers(60, len(content) - 20)] ^= 16
    path.write_bytes(content)
    with pytest.raises(scenes.DataError, match=f"{path.name} is damaged"):
        deepglobe.source(raw)


def test_a_mask_with_something_after_its_end_is_read_all_the_same(raw):
    before = deepglobe.source(raw).scenes
    path = first(raw, "_mask.png")
    path.write_bytes(path.read_bytes() + b"\n")
    assert deepglobe.source(raw).scenes == before


def test_a_truncated_image_stops_workers_and_the_rest_is_kept(raw, archive):
    path = first(raw, "_sat.jpg")
    whole, state = path.read_bytes(), path.stat()
    truncate(path)
    with pytest.raises(scenes.DataError, match=f"{path.name} is damaged"):
        preparing.prepare("deepglobe", raw.parents[1], workers=2, progress=False)
    path.write_bytes(whole)
    assert state.st_size == len(whole)
    preparing.prepare("deepglobe", raw.parents[1], workers=0, progress=False)
    assert scenes.checksum("deepglobe", raw.parents[1]) == scenes.checksum("deepglobe", archive)


@pytest.mark.parametrize(("gone", "missing"), [("_sat.jpg", "_sat.jpg"), ("_mask.png", "_mask.png")])
def test_missing_files_are_counted_and_named(raw, gone, missing):
    paths = sorted((raw / "train").glob(f"*{gone}"))[:4]
    for path in paths:
        path.unlink()
    with pytest.raises(scenes.DataError, match=rf"4 files missing in .*train: {paths[0].name}, .* …; .*data card"):
        deepglobe.source(raw)


def test_validation_tiles_in_a_folder_of_their_own_are_left_alone(raw):
    (raw / "valid").mkdir()
    shutil.copy(first(raw, "_sat.jpg"), raw / "valid" / "99_sat.jpg")
    (raw / "class_dict.csv").write_text("name,r,g,b\n")
    assert not any(name.startswith("99_") for name in deepglobe.source(raw).scenes)


def test_files_that_do_not_belong_are_named(raw):
    shutil.copy(first(raw, "_sat.jpg"), raw / "train" / "119_sat (1).jpg")
    with pytest.raises(scenes.DataError, match=r"1 files unexpected in .*: 119_sat \(1\).jpg; move them away"):
        deepglobe.source(raw)


def repaint(path, colour):
    with rasterio.open(path) as file:
        mask = file.read()
    mask[:, 5, 7] = colour
    shape = {"height": mask.shape[1], "width": mask.shape[2], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="PNG", **shape) as file:
        file.write(mask)


def test_a_colour_of_no_class_is_named(raw):
    path = first(raw, "_mask.png")
    repaint(path, (127, 128, 127))
    deepglobe.source(raw)  # a little off green
    repaint(path, (255, 0, 0))
    with pytest.raises(scenes.DataError, match=f"{path.name} is red at row 5, column 7"):
        deepglobe.source(raw)


def test_an_image_of_another_size_or_kind_is_named(raw):
    path = first(raw, "_sat.jpg")
    with Image.open(path) as image:
        image.crop((0, 0, 250, 260)).save(path)
    with pytest.raises(scenes.DataError, match=f"{path.name} has 250 × 260 pixels of RGB, expected 260 × 260 .*RGB"):
        deepglobe.source(raw)
    with Image.open(first(raw, "_mask.png")) as image:
        image.convert("L").save(first(raw, "_mask.png"))
    with pytest.raises(scenes.DataError, match="has 1 bands of uint8, expected 3"):
        deepglobe.source(raw)


def test_no_raw_folder_and_an_empty_one_are_named(tmp_path):
    with pytest.raises(scenes.DataError, match=r"deepglobe.raw is missing: .*data card deepglobe"):
        preparing.prepare("deepglobe", tmp_path, progress=False)
    (tmp_path / "deepglobe" / "raw").mkdir(parents=True)
    with pytest.raises(scenes.DataError, match=r"there is no \*_mask.png in .*raw: .*data card deepglobe"):
        preparing.prepare("deepglobe", tmp_path, progress=False)
