"""DENETHOR: a miniature archive against loops over its files."""

import json
import os
import pickle
import shutil
import tarfile
from datetime import UTC, datetime

import make_archives_crops as miniature
import numpy as np
import pytest
import rasterio
from make_archives_crops import FIELD, SEEN, SIDE

from rsbook import cli, filling, preparing, scenes, series
from rsbook.archives import denethor, prepared_series
from rsbook.archives.denethor import CLASSES, CROPS
from rsbook.scenes import DataError

pytestmark = [
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]
CARD = (scenes.DATA / "denethor" / "README.md").read_text("utf-8")
BOTH = {"brandenburg_2018": 2018, "brandenburg_2019": 2019}
S2 = "dlr_fusion_competition_germany_{0}_source_sentinel_2/dlr_fusion_competition_germany_{0}_source_sentinel_2_{1}_{2}"
LABELS = "dlr_fusion_competition_germany_{0}_labels/dlr_fusion_competition_germany_{0}_labels_{1}/labels.geojson"
PLANET = "dlr_fusion_competition_germany_train_source_planet/dlr_fusion_competition_germany_train_source_planet_{}_{}"
FOLDERS = {year: S2.format(*area, year) for year, area in miniature.AREAS.items()}
BOUNDARIES = {year: LABELS.format(*area) for year, area in miniature.AREAS.items()}
DAY = PLANET.format("33N_18E_242N", "2018_02_09") + "/sr.tif"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The folder of a miniature archive; not to be written to."""
    folder = tmp_path_factory.mktemp("denethor")
    miniature.make_denethor(folder, np.random.default_rng(7))
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer pixels than the paper has."""
    monkeypatch.setattr(denethor, "DRAWN", {"train": 40, "val": 15})
    monkeypatch.setattr(denethor, "PAIRS", 200)


@pytest.fixture
def raw(archive, tmp_path):
    """A copy of the archive."""
    return shutil.copytree(archive, tmp_path / "denethor" / "raw")


def prepare(raw, workers=0):
    return preparing.prepare("denethor", raw.parents[1], workers, progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def bands(raw, year):
    return np.load(raw / FOLDERS[year] / "bands.npy")


def fields(raw, year):
    """The crop and the pixels of each field, from the corners of its squares."""
    found = {}
    for feature in json.loads((raw / BOUNDARIES[year]).read_text())["features"]:
        inside = set()
        for [[west, north], _, [east, south], *_] in (polygon[0] for polygon in feature["geometry"]["coordinates"]):
            for row, column in np.ndindex(SIDE, SIDE):
                x, y = miniature.WEST + 10 * column + 5, miniature.NORTH - 10 * row - 5
                if west < x < east and south < y < north:
                    inside.add((row, column))
        found[feature["properties"]["fid"]] = (feature["properties"]["crop_name"], inside)
    return found


@pytest.fixture(scope="module")
def places(archive):
    """Of each year the fields, by number."""
    return {year: fields(archive, year) for year in FOLDERS}


def positions(image):
    """Where each spectrum of an image (S,S,12) is; all of them differ."""
    return {tuple(image[at].tolist()): at for at in np.ndindex(image.shape[:2])}


@pytest.mark.parametrize("region", BOTH)
def test_series_are_those_of_pixels_in_their_fields(raw, places, region):
    year = BOTH[region]
    data = series.load("denethor", region, 40, 15, prepare(raw).parent)
    seen, found = bands(raw, year), positions(bands(raw, year)[0])
    assert data.values.shape == (9 * 55, len(seen), 12)
    assert data.days.tolist() == SEEN[year]
    for i in range(len(data.labels)):
        row, column = found[tuple(data.values[i, 0].tolist())]
        assert data.values[i].tolist() == seen[:, row, column].tolist()
        crop, pixels = places[year][int(data.fields[i])]
        assert (row, column) in pixels
        assert CROPS[crop] == CLASSES[data.labels[i]]
    for split, count in (("train", 40), ("val", 15)):
        labels = data.labels[data.split(split)]
        assert labels.tolist() == [label for label in range(9) for _ in range(count)]


def test_pairs_are_what_both_see_on_one_day(raw, places):
    root = prepare(raw).parent
    pairs = series.load_pairs("denethor", "brandenburg_2018", 1200, root)
    assert (pairs.s2.shape, pairs.planet.shape) == ((1200, 12), (1200, 36))
    assert pairs.day.tolist() == [day for day in SEEN[2018] for _ in range(200)]
    owner = {pixel: fid for fid, (_, pixels) in places[2018].items() for pixel in pixels}
    labelled = series.load("denethor", "brandenburg_2018", 40, 15, root).fields.tolist()
    every, drawn = bands(raw, 2018), []
    for when, day in enumerate(SEEN[2018]):
        found = positions(every[when])
        name = datetime.strptime(f"2018 {day}", "%Y %j").strftime("%Y_%m_%d")
        with rasterio.open(raw / PLANET.format("33N_18E_242N", name) / "sr.tif") as file:
            image = file.read()
        pixels = [found[tuple(one.tolist())] for one in pairs.s2[200 * when : 200 * (when + 1)]]
        for (row, column), planet in zip(pixels, pairs.planet[200 * when :].tolist(), strict=False):
            assert owner[row, column] not in labelled
            at = int(row * 10 / 3), int(column * 10 / 3)
            expected = [
                int(image[band, max(at[0] + down, 0), max(at[1] + right, 0)])
                for band in range(4)
                for down in (-1, 0, 1)
                for right in (-1, 0, 1)
            ]
            assert planet == expected
        assert len(set(pixels)) == 200, "without replacement"
        drawn.append(set(pixels))
    assert all(one != other for i, one in enumerate(drawn) for other in drawn[:i]), "drawn anew on each date"


def test_at_the_first_row_and_column_the_pixel_itself_is_taken(raw):
    image = rasterio.open(raw / DAY).read()
    [corner, last] = denethor._around(raw / DAY, SIDE, np.array([0, SIDE * SIDE - 1]))
    assert corner.reshape(4, 3, 3)[2].tolist() == image[2][np.ix_([0, 0, 1], [0, 0, 1])].tolist()
    assert last.reshape(4, 3, 3)[1].tolist() == image[1, 395:398, 395:398].tolist()


@pytest.mark.parametrize("region", BOTH)
def test_every_field_is_in_one_split(archive, places, region):
    there = {fid: crop for fid, (crop, pixels) in places[BOTH[region]].items() if pixels}
    files = sorted(path.relative_to(archive).as_posix() for path in archive.rglob("*") if path.is_file())
    area = denethor._area(archive, files, region)
    pretraining, parts = denethor._split(archive, region, area)
    everything = [pretraining, *parts["train"], *parts["val"]]
    numbers = [area.fields[i] for part in everything for i in part]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= set(there)
    assert len(pretraining) == (round(0.7 * len(there)) if region == "brandenburg_2018" else 0)
    left = set(there) - {area.fields[i] for i in pretraining}
    for label, name in enumerate(CROPS):
        train, val = ([area.fields[i] for i in parts[split][label]] for split in ("train", "val"))
        assert {fid for fid in left if there[fid] == name} == {*train, *val}
        assert len(train) == max(1, int(0.7 * (len(train) + len(val))))
    known = [crop for crop in there.values() if crop is not None]
    assert len(known) == len(there) - 1  # one field has another crop: it may be learned from only without a label


def test_a_pixel_is_of_the_field_that_its_centre_lies_in(archive, places):
    files = sorted(path.relative_to(archive).as_posix() for path in archive.rglob("*") if path.is_file())
    area = denethor._area(archive, files, "brandenburg_2018")
    owner = {pixel: fid for fid, (_, pixels) in places[2018].items() for pixel in pixels}
    found = {at: area.fields[area.owner[at]] for at in np.ndindex(SIDE, SIDE) if area.owner[at] >= 0}
    assert found == owner
    assert len(owner) < FIELD * FIELD * len(area.fields) / 2


def test_the_first_pixels_of_each_class_are_those_of_a_smaller_sample(raw):
    root = prepare(raw).parent
    whole, part = (series.load("denethor", "brandenburg_2019", *sizes, root) for sizes in ((40, 15), (7, 3)))
    for split, size in (("train", 7), ("val", 3)):
        for label in range(9):
            of_class = [data.split(split)[data.labels[data.split(split)] == label] for data in (whole, part)]
            assert of_class[1].tolist() == of_class[0][:size].tolist()
    assert len(set(part.fields[part.split("train")].tolist()) & set(part.fields[part.split("val")].tolist())) == 0
    pairs, fewer = (series.load_pairs("denethor", "brandenburg_2018", count, root) for count in (1200, 305))
    assert len(fewer.day) == 300
    assert fewer.planet.reshape(6, 50, 36).tolist() == pairs.planet.reshape(6, 200, 36)[:, :50].tolist()
    assert fewer.day.tolist() == [day for day in SEEN[2018] for _ in range(50)]


def test_what_is_not_there_cannot_be_loaded(raw):
    root = prepare(raw).parent
    for call, message in (
        (lambda: series.load("denethor", "brandenburg_2018", 41, 1, root), "train=41: denethor has 0 … 40 of wheat"),
        (lambda: series.load("denethor", "brandenburg_2018", 1, 16, root), "val=16: denethor has 0 … 15 of wheat"),
        (lambda: series.load("denethor", "brandenburg_2018", -1, 1, root), "train=-1: denethor has 0 … 40"),
        (lambda: series.load("denethor", "brandenburg", 1, 1, root), "denethor has brandenburg_2018, brandenburg_2019"),
        (lambda: series.load_pairs("denethor", "brandenburg_2019", 9, root), "pairs of brandenburg_2018 only"),
        (lambda: series.load_pairs("denethor", "brandenburg_2018", 1206, root), "denethor has 6 … 1,200 pairs"),
        (lambda: series.load_pairs("denethor", "brandenburg_2018", 5, root), "count=5: denethor has 6 … 1,200 pairs"),
        (lambda: scenes.load("denethor", root), "'denethor': holds series, not scenes; rsbook.series.load opens it"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_values_are_mapped_and_writing_to_them_changes_no_file(raw):
    folder = prepare(raw)
    before = contents(folder)
    data = series.load("denethor", "brandenburg_2018", 40, 15, folder.parent)
    data.values[0] = 0
    pairs = series.load_pairs("denethor", "brandenburg_2018", 1200, folder.parent)
    pairs.planet[0] = 0
    assert contents(folder) == before


def stop_after(raw, monkeypatch, groups):
    """Prepare until so many dates are in the journal."""
    end = filling.finished

    def stopping(filler, waiting, workers):
        yield from end(filler, waiting[:groups], workers)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(filling, "finished", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw)


def log_images(monkeypatch):
    read, around = [], denethor._around
    monkeypatch.setattr(
        denethor, "_around", lambda path, *rest: read.append(path.parent.name[-5:]) or around(path, *rest)
    )
    return read


def test_a_preparation_that_was_cut_off_goes_on_and_ends_with_the_same_bytes(raw, tmp_path, monkeypatch):
    expected = contents(prepare(shutil.copytree(raw, tmp_path / "other" / "denethor" / "raw"), workers=2))
    stop_after(raw, monkeypatch, 3)
    read = log_images(monkeypatch)
    assert contents(prepare(raw)) == expected
    assert read == ["03_18", "07_19", "12_27"]
    assert {*expected} == {
        *("series.npy", "pairs_s2.npy", "pairs_planet.npy", "pixels.csv", "manifest.json", "SHA256SUMS"),
    }


@pytest.mark.parametrize(("file", "dates"), [(DAY, 5), (FOLDERS[2019] + "/bands.npy", 6), (BOUNDARIES[2018], 6)])
def test_what_has_changed_since_is_read_again(raw, monkeypatch, file, dates):
    stop_after(raw, monkeypatch, 3)
    os.utime(raw / file)
    read = log_images(monkeypatch)
    prepare(raw)
    assert len(read) == dates, "of a day the two dates, else all of them"


def test_room_on_the_disk_is_checked_first(raw, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1_000))
    with pytest.raises(DataError, match=r"denethor needs 0\.0 GB in "):
        prepare(raw)


def test_the_names_of_the_other_release_will_do(archive, raw):
    for year, (part, tile) in ((2018, ("train", "18E-242N")), (2019, ("test", "17E-243N"))):
        folder = raw / f"sentinel-2/s2-utm-33N-{tile}-{year}"
        (folder / "data").mkdir(parents=True)
        (raw / FOLDERS[year] / "bands.npy").rename(folder / "data" / "BANDS.npy")
        for name in ("bbox.pkl", "timestamp.pkl"):
            (raw / FOLDERS[year] / name).rename(folder / name)
        (raw / BOUNDARIES[year]).rename(raw / f"brandenburg_crops_{part}_{year}.geojson")
    images = raw / "planet/UTM-24000/33N/18E-242N"
    (images / "PF-SR").mkdir(parents=True)
    (images / "PF-QA").mkdir()
    for path in list(raw.glob("*_planet/*/sr.tif")):
        name = path.parent.name[-10:].replace("_", "-") + ".tif"
        path.rename(images / "PF-SR" / name)
        (images / "PF-QA" / name).touch()
    there, here = denethor.source(archive), denethor.source(raw)
    assert (there.fields, there.splits, there.days) == (here.fields, here.splits, here.days)
    for group in there.groups:
        for one, other in zip(there.read(group), here.read(group), strict=True):
            assert (one is None and other is None) or (one == other).all()


@pytest.mark.parametrize(
    ("dtype", "value", "stored"), [("int16", -7, 0), ("float32", 12.6, 13), ("float32", np.nan, 0)]
)
def test_other_types_of_the_same_numbers_will_do(raw, dtype, value, stored):
    path = raw / FOLDERS[2019] / "bands.npy"
    np.save(path, np.full(np.load(path).shape, value, dtype=dtype))
    found, *_ = denethor.source(raw).read([len(SEEN[2018])])
    assert (found == stored).all()


def test_stored_cuts_off_what_does_not_fit():
    values = np.array([-1, -0.4, 0.5, 1.5, 65534.6, 1e9, np.inf, -np.inf, np.nan])
    assert prepared_series.stored(values).tolist() == [0, 0, 0, 2, 65535, 65535, 65535, 0, 0]
    assert prepared_series.stored(np.array([-5, 7, 70_000])).tolist() == [0, 7, 65535]


def test_the_reader_goes_to_a_worker(archive):
    source = denethor.source(archive)
    values, s2, planet = pickle.loads(pickle.dumps(source.read))([0])
    assert (values.shape, s2.shape, planet.shape) == ((1, 495, 12), (1, 200, 12), (1, 200, 36))
    assert source.read([len(SEEN[2018])])[1:] == (None, None)
    assert json.loads(json.dumps(source.notes)) == source.notes
    assert "dates of brandenburg_2018 6, paper 144" in source.notes["differ"]


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def removed(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def array(shape, dtype="uint16"):
    return lambda path: np.save(path, np.zeros(shape, dtype=dtype))


def stamps(*days):
    return lambda path: path.write_bytes(pickle.dumps([datetime(*day, tzinfo=UTC) for day in days]))


def image(shape, dtype="uint16"):
    def replace(path):
        layout = dict(zip(("count", "height", "width"), shape, strict=True))
        with rasterio.open(path, "w", driver="GTiff", dtype=dtype, **layout) as file:
            file.write(np.zeros(shape, dtype))

    return replace


def edited(change):
    def edit(path):
        features = json.loads(path.read_text())["features"]
        change(features)
        path.write_text(json.dumps({"features": features}))

    return edit


def each(key, value):
    return edited(lambda features: [feature["properties"].update({key: value}) for feature in features])


def outline(coordinates, kind="Polygon"):
    shape = {"type": kind, "coordinates": coordinates}
    return edited(lambda features: features[3].update(geometry=shape))


BANDS, BOX, STAMPS = (f"{FOLDERS[2018]}/{name}" for name in ("bands.npy", "bbox.pkl", "timestamp.pkl"))
DAMAGES = [
    (BANDS, truncated, r"bands\.npy is damaged .*unpack its archive again"),
    (BANDS, removed, r"raw holds no bands\.npy of Sentinel-2 of brandenburg_2018: unpack it there"),
    (BANDS, lambda path: shutil.copytree(path.parent, path.parent / "again"), r"holds 2 files that may be the bands"),
    (BANDS, array((6, 120, 120, 13)), r"bands\.npy is damaged \(it holds \(6, 120, 120, 13\) uint16, expected"),
    (BANDS, array((6, 120, 117, 12)), r"it holds \(6, 120, 117, 12\)"),
    (BANDS, array((0, 120, 120, 12)), r"it holds \(0, 120, 120, 12\)"),
    (BANDS, array((6, 120, 120, 12), "int64"), r"int64, expected \(T,S,S,12\) of uint16 or int16"),
    (BANDS, array((5, 120, 120, 12)), r"timestamp\.pkl is damaged \(it has 6 dates, bands\.npy has 5\)"),
    (BANDS, array((6, 117, 117, 12)), r"sr\.tif is \(4, 400, 400\) uint16, expected \(4, 390, 390\)"),
    (BOX, truncated, r"bbox\.pkl is damaged"),
    (BOX, removed, r"bbox\.pkl is missing"),
    (BOX, lambda path: path.write_bytes(pickle.dumps({"min_x": 1.0})), r"bbox\.pkl is damaged \(it has no min_x"),
    (BOX, lambda path: path.write_bytes(pickle.dumps({"min_x": 3.0, "max_x": 1.0})), r"bbox\.pkl is damaged"),
    (STAMPS, truncated, r"timestamp\.pkl is damaged"),
    (STAMPS, removed, r"timestamp\.pkl is missing"),
    (STAMPS, stamps(*[(2019, 1, 1)] * 6), r"timestamp\.pkl is damaged \(its dates are not those of 2018"),
    (STAMPS, stamps(*[(2018, 1, 7 - i) for i in range(6)]), r"its dates are not those of 2018, one after the other"),
    (DAY, truncated, r"sr\.tif is damaged .*unpack its archive again"),
    (DAY, removed, r"raw holds no daily image of Planet of 2018-02-09 for brandenburg_2018: unpack them there"),
    (DAY, image((3, 400, 400)), r"sr\.tif is \(3, 400, 400\) uint16, expected \(4, 400, 400\)"),
    (DAY, image((4, 400, 400), "uint8"), r"sr\.tif is .* uint8, expected"),
    (PLANET.partition("/")[0], removed, r"of Planet of 2018-01-03 for brandenburg_2018, nor of 4 other days"),
    (BOUNDARIES[2018], truncated, r"labels\.geojson is damaged \(JSONDecodeError.*unpack it again"),
    (BOUNDARIES[2018], removed, r"raw holds no field boundaries of brandenburg_2018, a GeoJSON"),
    (BOUNDARIES[2019], each("crop_name", "Quinoa"), r"no crop_name is one of those that are known"),
    (BOUNDARIES[2019], each("crop_name", "Rye"), r"raw has 0 fields of wheat in brandenburg_2019 besides"),
    (BOUNDARIES[2019], each("fid", 7), r"two fields have the same fid"),
    (BOUNDARIES[2019], each("fid", "7"), r"a fid is no whole number"),
    (BOUNDARIES[2018], outline([[[0, 0], [1, 0], [1, 1]]]), r"a boundary is none"),
    (BOUNDARIES[2018], outline([[[0, 0], [1, 0], [1, float("nan")], [0, 0]]]), r"a boundary is none"),
    (BOUNDARIES[2018], outline([[[0], [1], [1], [0]]]), r"labels\.geojson is damaged"),
    (BOUNDARIES[2018], outline([0, 0], "Point"), r"labels\.geojson is damaged \(KeyError"),
    (
        BOUNDARIES[2018],
        edited(lambda features: [f.update(geometry=features[0]["geometry"] | {"coordinates": []}) for f in features]),
        r"a boundary is none",
    ),
    (
        BOUNDARIES[2018],
        edited(
            lambda features: [f["geometry"].update(coordinates=[[[[0, 0], [9, 0], [9, 9], [0, 0]]]]) for f in features]
        ),
        r"no field of .*labels\.geojson lies in what .*bbox\.pkl says",
    ),
]


@pytest.mark.parametrize(("where", "damage", "message"), DAMAGES)
def test_what_is_missing_or_damaged_is_named_with_the_cure(raw, where, damage, message):
    damage(raw / where)
    with pytest.raises(DataError, match=message) as error:
        prepare(raw)
    assert "data card denethor" in str(error.value)


def test_classes_are_those_of_the_card():
    rows = [line.strip("| ").split(" | ") for line in CARD.splitlines() if line.startswith("| ")]
    assert {row[0]: row[1] for row in rows if row[0] in miniature.CROPS} == CROPS
    assert tuple(CROPS) == miniature.CROPS
    assert tuple(CROPS.values()) == CLASSES
    for count in (*denethor.PAPER.values(), 100_000, 5_000, 1_000):
        assert f"{count:,}" in CARD


def test_prepared_from_the_shell_from_the_publishers_archives(archive, raw, tmp_path, capsys):
    plain = prepare(raw)
    packed = tmp_path / "packed" / "denethor" / "raw"
    packed.mkdir(parents=True)
    for path in sorted(archive.iterdir()):
        with tarfile.open(packed / f"{path.name}.tar.gz", "w:gz") as file:
            file.add(path, path.name)
    assert cli.main(["data", "prepare", "denethor", "--root", str(tmp_path / "packed")]) == 0, capsys.readouterr()
    said = capsys.readouterr()
    assert "360 train of brandenburg_2018, 135 val of brandenburg_2018, 360 train of brandenburg_2019" in said.out
    assert "1,200 pairs" in said.out
    assert "fields of brandenburg_2018 289, paper 2,534" in said.out
    assert "dates/s" in said.err
    assert not (packed / "dlr_fusion_competition_germany_train_source_planet_5day").exists()
    for name in ("series.npy", "pairs_planet.npy", "pixels.csv"):
        assert (plain / name).read_bytes() == (packed.parent / name).read_bytes()
    assert cli.main(["data", "check", "denethor", "--root", str(tmp_path / "packed")]) == 0
