"""SSL4EO-S12 with noisy labels: miniature archives against a loop over their files."""

import json
import pickle
import shutil
import tarfile
import zipfile
from datetime import datetime

import make_archives_sentinel as miniature
import numpy as np
import pytest
import rasterio
from test_sentinel import scaled

from rsbook import cli, preparing, scenes
from rsbook.archives import prepared, sentinel, ssl4eo
from rsbook.archives.ssl4eo import CLASSES
from rsbook.figures import CLASS_COLOURS
from rsbook.scenes import DataError

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
CARD = (scenes.DATA / "ssl4eo" / "README.md").read_text("utf-8")
N = 4 * len(miniature.WHOLE)
LABEL = "dw_noisy_labels/0000200/*_T15QXA/label.tif"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folders of miniature archives, raw and as bytes; not to be written to."""
    folders = {eight_bits: tmp_path_factory.mktemp("ssl4eo") for eight_bits in (False, True)}
    for eight_bits, folder in folders.items():
        miniature.make_ssl4eo(folder, np.random.default_rng(5), eight_bits)
    return folders


@pytest.fixture
def raw(whole, tmp_path):
    """A copy of the raw archive."""
    return shutil.copytree(whole[False], tmp_path / "ssl4eo" / "raw")


def layer(path):
    with rasterio.open(path) as file:
        return file.read(1)


def expected(folder, place, season):
    """Image, class positions and label of a season, pixel by pixel from its files."""
    radar, optical = miniature.SEASONS[season]
    image = np.zeros((15, 264, 264), dtype=np.uint8)
    for i, band in enumerate((*miniature.RADAR, *miniature.OPTICAL)):
        values = layer(folder / ("s1" if i < 2 else "s2c") / place / (radar if i < 2 else optical) / f"{band}.tif")
        bytes_ = (
            values.tolist() if values.dtype == np.uint8 else [[scaled(v, band) for v in row] for row in values.tolist()]
        )
        factor = 264 // len(values)
        for row in range(264):
            old = bytes_[row // factor]
            image[i, row] = [old[column // factor] for column in range(264)]
    codes = layer(folder / "dw_noisy_labels" / place / optical / "label.tif").tolist()
    bits = [[1 << code if code < 9 else 0 for code in row] for row in codes]
    present = {code for row in codes for code in row}
    return image, bits, [code in present for code in range(9)]


@pytest.mark.parametrize("eight_bits", [False, True])
def test_every_scene_is_read_as_a_loop_over_its_files_does(whole, eight_bits):
    folder = whole[eight_bits]
    source = ssl4eo.source(folder)
    order = [*range(3, N), 1, 0, 2]
    images, positions, labels = pickle.loads(pickle.dumps(source.read))(order)  # as a worker process gets it
    assert (images.dtype, images.shape) == (np.uint8, (N, 15, 264, 264))
    assert (positions.dtype, positions.shape) == (np.int32, (N, 264, 264))
    assert (labels.dtype, labels.shape) == (bool, (N, 9))
    assert 0 in positions, "pixels without a class"
    for row, i in enumerate(order):
        image, bits, label = expected(folder, source.scenes[i].split("/")[0], i % 4)
        assert (images[row] == image).all()
        assert (positions[row] == bits).all()
        assert labels[row].tolist() == label


def test_the_seasons_of_a_place_follow_each_other_and_share_a_split(whole):
    source = ssl4eo.source(whole[False])
    assert source.seasons == 4
    for i in range(0, N, 4):
        [place] = {name.split("/")[0] for name in source.scenes[i : i + 4]}
        assert place in miniature.WHOLE
        assert [name.split("/")[1] for name in source.scenes[i : i + 4]] == [
            optical for _, optical in miniature.SEASONS
        ]
        assert len(set(source.splits[i : i + 4])) == 1
    dates = [
        [datetime.strptime(name[at : at + 8], "%Y%m%d") for name in names]
        for at, names in (
            (17, [radar for radar, _ in miniature.SEASONS]),
            (0, [optical for _, optical in miniature.SEASONS]),
        )
    ]
    assert all(abs((radar - optical).days) <= 30 for radar, optical in zip(*dates, strict=True))
    assert [source.splits.count(split) for split in scenes.SPLITS] == [8, 4, 0]
    assert source.scenes != sorted(source.scenes), "neighbours must not stand together"
    assert (source.min_pixels, source.size, source.dtype, source.bands) == (0, 264, "uint8", sentinel.BANDS)
    assert (source.modalities, source.rgb, source.map_positions) == (sentinel.MODALITIES, sentinel.RGB, True)


def test_a_group_holds_whole_locations(whole, monkeypatch):
    assert ssl4eo.source(whole[False]).groups == [list(range(N))]
    monkeypatch.setattr(ssl4eo, "TOGETHER", 2)
    assert ssl4eo.source(whole[False]).groups == [list(range(8)), list(range(8, 12))]


def test_validation_is_a_hundredth_of_the_locations_wherever_the_rest_is():
    places = [f"{i:07d}" for i in range(0, 250_000, 7)]
    held_out = ssl4eo._validation(places)
    assert len(held_out) == round(len(places) / 100)
    assert ssl4eo._validation(places[::-1]) == held_out
    assert abs(np.mean(list(map(int, held_out))) - 125_000) < 3 * 72_169 / np.sqrt(len(held_out))
    half = places[: len(places) // 2]
    assert len(ssl4eo._validation(half) & held_out) > 0.85 * len(half) / 100
    assert len(ssl4eo._validation(places[:2])) == 1


def test_a_location_needs_four_seasons_of_everything(raw):
    source = ssl4eo.source(raw)
    assert {name.split("/")[0] for name in source.scenes} == set(miniature.WHOLE)
    notes = source.notes
    assert json.loads(json.dumps(notes)) == notes
    assert notes["found"] == {"locations": 3, "labelled_locations_left_out": 4}
    assert notes["differ"] == [
        "locations 3, paper 103,793",
        "4 labelled locations are left out, the first is 0000012",
    ]
    # A fifth season cannot be told from the four, and a folder without a date is none.
    shutil.copytree(raw / "s1" / "0000011" / miniature.SEASONS[0][0], raw / "s1" / "0000011" / "S1A_20210329T001515")
    (raw / "s1" / "0000200" / "preview").mkdir()
    (raw / "s2c" / "0003141" / "20200323T162931_20200323T163750_T15QXA.tif").touch()
    assert {name.split("/")[0] for name in ssl4eo.source(raw).scenes} == {"0000200", "0003141"}


def test_classes_are_those_of_dynamic_world_and_of_the_card():
    rows = [line.strip("| ").split(" | ") for line in CARD.splitlines() if line.startswith("| ")]
    table = {int(row[0]): row[1:] for row in rows if row[0].isdigit()}
    assert [table[code][0] for code in range(9)] == list(CLASSES)
    assert [table[code][1] for code in range(9)] == [CLASS_COLOURS[name] for name in CLASSES]
    assert len({CLASS_COLOURS[name] for name in CLASSES}) == 9


def test_bands_may_all_be_at_10_m_and_images_a_pixel_too_large(raw):
    """As some releases, and some images of the first, are."""
    folder = raw / "s2c" / "0000200" / miniature.SEASONS[1][1]
    draw = np.random.default_rng(0)
    changed = {"B1": (264, 264), "B5": (264, 265), "B4": (265, 264), "B9": (45, 44), "B11": (131, 132)}
    changed = {band: miniature.layers(False, (1, *shape), draw) for band, shape in changed.items()}
    for band, values in changed.items():
        miniature.write(folder / f"{band}.tif", values.astype(np.int16))
    label = np.full((1, 263, 264), 4, dtype=np.float32)
    label[0, 0, :3] = (np.nan, 0.5, -1)
    miniature.write(raw / "dw_noisy_labels" / "0000200" / folder.name / "label.tif", label)
    source = ssl4eo.source(raw)
    images, positions, labels = source.read([source.scenes.index(f"0000200/{folder.name}")])
    for band, values in changed.items():
        values = values[0].astype(np.int16)
        got = images[0, sentinel.BANDS.index(band)]
        for row, column in [(0, 0), (263, 263), *draw.integers(0, 264, (50, 2)).tolist()]:
            old = values[int((row + 0.5) * len(values) / 264), int((column + 0.5) * values.shape[1] / 264)]
            assert got[row, column] == scaled(int(old), band)
    assert np.bincount(positions.ravel()).nonzero()[0].tolist() == [0, 16]
    assert (positions == 0).sum() == 3
    assert labels.tolist() == [[code == 4 for code in range(9)]]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float64"])
def test_labels_may_be_of_any_common_type(raw, dtype):
    before = ssl4eo.source(raw).read([0, 1, 2, 3])
    for path in raw.glob("dw_noisy_labels/00*/*/label.tif"):
        if path.stat().st_size:
            miniature.write(path, layer(path)[None].astype(dtype))
    for old, new in zip(before, ssl4eo.source(raw).read([0, 1, 2, 3]), strict=True):
        assert (old.dtype, old.tolist() == new.tolist()) == (new.dtype, True)


@pytest.mark.parametrize("labels", ["ssl4eo_s12_nol/dw_noisy_labels", "ssl4eo_s12_nol"])
def test_folders_may_lie_as_the_archives_unpack(whole, raw, labels):
    (raw / "0k_251k_uint8_jpeg_tif").mkdir()
    for name in ("s1", "s2c"):
        (raw / name).rename(raw / "0k_251k_uint8_jpeg_tif" / name)
    (raw / labels).parent.mkdir(exist_ok=True)
    (raw / "dw_noisy_labels").rename(raw / labels)
    there, here = ssl4eo.source(whole[False]), ssl4eo.source(raw)
    assert there.scenes == here.scenes
    for other, own in zip(there.read([5]), here.read([5]), strict=True):
        assert (other == own).all()


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def removed(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def replaced(shape, dtype):
    def replace(path):
        path.unlink()
        miniature.write(path, np.zeros(shape, dtype=dtype))

    return replace


def only_one_location(path):
    for place in sorted(path.iterdir())[1:]:
        shutil.rmtree(place)


DAMAGES = [
    ("s1/0000200/*_9BAF/VH.tif", truncated, r"9BAF/VH\.tif is damaged.*unpack the archive of s1 again"),
    ("s1/0000200/*_9BAF/VH.tif", removed, r"9BAF/VH\.tif is missing"),
    ("s1/0000200/*_9BAF/VV.tif", replaced((1, 264, 264), "uint16"), r"\(1, 264, 264\) uint16, expected .* float32"),
    (
        "s1/0000200/*_9BAF/VV.tif",
        replaced((1, 132, 132), "float32"),
        r"\(1, 132, 132\) float32, expected \(1, 264, 264\)",
    ),
    ("s2c/0000200/20200323*/B8A.tif", truncated, r"B8A\.tif is damaged.*unpack the archive of s2c again"),
    ("s2c/0000200/20200323*/B10.tif", removed, r"B10\.tif is missing"),
    (
        "s2c/0000200/20200323*/B10.tif",
        replaced((1, 132, 132), "uint16"),
        r"\(1, 132, 132\) uint16, expected \(1, 44, 44\)",
    ),
    ("s2c/0000200/20200323*/B2.tif", replaced((2, 264, 264), "uint16"), r"\(2, 264, 264\) uint16, expected \(1, 264"),
    (
        "s2c/0000200/20200323*/B2.tif",
        replaced((1, 264, 264), "float32"),
        r"\(1, 264, 264\) float32, expected .* uint16",
    ),
    (LABEL.replace("*", "20200323*"), truncated, r"label\.tif is damaged.*unpack ssl4eo_s12_nol\.zip again"),
    (LABEL.replace("*", "20200323*"), removed, r"0000200/20200323.*label\.tif is missing"),
    (
        LABEL.replace("*", "20200323*"),
        replaced((1, 132, 132), "uint8"),
        r"\(1, 132, 132\) uint8, expected \(1, 264, 264\)",
    ),
    ("s1", removed, r"raw has no folder s1: unpack its archive there"),
    ("s2c", removed, r"raw has no folder s2c: unpack its archive there"),
    ("dw_noisy_labels", removed, r"raw has no folder dw_noisy_labels or ssl4eo_s12_nol: unpack its archive there"),
    ("s2c", only_one_location, r"1 of the 7 locations in .*dw_noisy_labels have 4 labels and s1 and s2c to each"),
]


@pytest.mark.parametrize(("where", "damage", "message"), DAMAGES)
def test_what_is_missing_or_damaged_is_named_with_the_cure(raw, where, damage, message):
    [path] = raw.glob(where)
    damage(path)
    with pytest.raises(DataError, match=message) as error:
        ssl4eo.source(raw).read(list(range(N)))
    assert "data card ssl4eo" in str(error.value)


def test_prepared_and_loaded_the_scenes_are_those_of_the_raw_files(raw, tmp_path, capsys):
    assert cli.main(["data", "prepare", "ssl4eo", "--root", str(tmp_path)]) == 0, capsys.readouterr()
    assert "8 train, 4 val, 0 test" in capsys.readouterr().out
    data = scenes.load("ssl4eo", tmp_path)
    source = ssl4eo.source(raw)
    images, positions, labels = source.read(list(range(N)))
    assert (data.images.numpy() == images).all()
    assert (data.positions.numpy() == positions).all()
    assert (data.labels.numpy() == labels).all()
    for split in scenes.SPLITS:
        assert [source.splits[i] for i in data.split(split)] == [split] * source.splits.count(split)
    assert (data.classes, data.rgb, data.min_pixels) == (CLASSES, (5, 4, 3), 0)
    assert (data.seasons, data.modalities) == (4, {"s1": (0, 1), "s2": tuple(range(2, 15))})
    assert data.bands("s2") == tuple(range(2, 15))
    training = images[[split == "train" for split in source.splits]].astype(float)
    assert data.mean.tolist() == [0] * 15  # as the authors, whatever the training scenes are
    assert data.std.tolist() == [255] * 15
    np.testing.assert_allclose(
        prepared.read_manifest(tmp_path / "ssl4eo")["mean"], training.mean(axis=(0, 2, 3)), rtol=1e-6
    )
    assert np.load(tmp_path / "ssl4eo" / "positions.npy", mmap_mode="r").dtype == np.int32


def test_a_preparation_goes_on_where_it_was(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(ssl4eo, "TOGETHER", 1)
    read, image = [], ssl4eo._image
    monkeypatch.setattr(ssl4eo, "_image", lambda radar, optical: read.append(optical) or image(radar, optical))
    names = ssl4eo.source(raw).scenes
    broken = raw / "s2c" / names[-1] / "B3.tif"
    content = broken.read_bytes()
    truncated(broken)
    with pytest.raises(DataError, match=r"B3\.tif is damaged"):
        preparing.prepare("ssl4eo", tmp_path, workers=0, progress=False)
    assert [str(path.relative_to(raw / "s2c")) for path in read] == names
    read.clear()
    broken.write_bytes(content)
    preparing.prepare("ssl4eo", tmp_path, workers=0, progress=False)
    assert [str(path.relative_to(raw / "s2c")) for path in read] == names[-4:]
    assert (scenes.load("ssl4eo", tmp_path).images.numpy() == ssl4eo.source(raw).read(list(range(N)))[0]).all()


def test_the_publishers_archives_are_unpacked(raw, tmp_path):
    plain = preparing.prepare("ssl4eo", tmp_path, workers=0, progress=False)
    packed = tmp_path / "packed" / "ssl4eo" / "raw"
    packed.mkdir(parents=True)
    for archive, name in (("s1.tar.gz", "s1"), ("s2_l1c.tar.gz", "s2c")):
        with tarfile.open(packed / archive, "w:gz", compresslevel=1) as file:
            file.add(raw / name, name)
    with zipfile.ZipFile(packed / "ssl4eo_s12_nol.zip", "w") as file:
        for path in [raw / "dw_complete_ids.csv", *raw.glob("dw_noisy_labels/**/*.tif")]:
            file.write(path, f"ssl4eo_s12_nol/{path.relative_to(raw)}")
    (packed / "s2_l2a.tar.gz").write_bytes(b"not needed")
    preparing.prepare("ssl4eo", tmp_path / "packed", workers=0, progress=False)
    assert scenes.checksum("ssl4eo", tmp_path / "packed") == scenes.checksum("ssl4eo", plain.parent)
