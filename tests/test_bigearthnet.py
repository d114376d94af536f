"""BigEarthNet-S2: miniature archives of both versions against a loop over their files."""

import gzip
import json
import pickle
import shutil

import make_archives_bigearthnet as miniature
import numpy as np
import pandas as pd
import pytest
import tifffile

from rsbook import cli, scenes
from rsbook.archives import bigearthnet
from rsbook.archives.bigearthnet import BANDS, BITS, CLASS_OF, CLASSES, NOMENCLATURE, WITHOUT_CLASS
from rsbook.scenes import DataError

MAKERS = {"1.0": miniature.make_v1, "2.0": miniature.make_v2}

CARD = (scenes.DATA / "bigearthnet" / "README.md").read_text()

# CORINE's level 3 in the order of its codes, without glaciers, and the 19 classes: torchgeo's BigEarthNet.class_sets,
# and for each of the 19 the places of its names among the 43, from BigEarthNet.label_converter.
CODES = [111, 112, *range(121, 125), *range(131, 134), 141, 142, *range(211, 214), *range(221, 224), 231]
CODES += [*range(241, 245), *range(311, 314), *range(321, 325), *range(331, 335), 411, 412, *range(421, 424), 511, 512]
CODES += [521, 522, 523]
NAMES = """\
Continuous urban fabric; Discontinuous urban fabric; Industrial or commercial units; Road and rail networks
and associated land; Port areas; Airports; Mineral extraction sites; Dump sites; Construction sites; Green
urban areas; Sport and leisure facilities; Non-irrigated arable land; Permanently irrigated land; Rice fields;
Vineyards; Fruit trees and berry plantations; Olive groves; Pastures; Annual crops associated with permanent
crops; Complex cultivation patterns; Land principally occupied by agriculture, with significant areas of
natural vegetation; Agro-forestry areas; Broad-leaved forest; Coniferous forest; Mixed forest; Natural
grassland; Moors and heathland; Sclerophyllous vegetation; Transitional woodland/shrub; Beaches, dunes, sands;
Bare rock; Sparsely vegetated areas; Burnt areas; Inland marshes; Peatbogs; Salt marshes; Salines; Intertidal
flats; Water courses; Water bodies; Coastal lagoons; Estuaries; Sea and ocean"""
NINETEEN = """\
Urban fabric; Industrial or commercial units; Arable land; Permanent crops; Pastures; Complex cultivation patterns;
Land principally occupied by agriculture, with significant areas of natural vegetation; Agro-forestry areas;
Broad-leaved forest; Coniferous forest; Mixed forest; Natural grassland and sparsely vegetated areas;
Moors, heathland and sclerophyllous vegetation; Transitional woodland, shrub; Beaches, dunes, sands; Inland wetlands;
Coastal wetlands; Inland waters; Marine waters"""
NAMES, NINETEEN = ([" ".join(name.split()) for name in text.split(";")] for text in (NAMES, NINETEEN))
CONVERSION = [[0, 1], [2], [11, 12, 13], [14, 15, 16, 18], [17], [19], [20], [21], [22], [23], [24], [25, 31], [26, 27]]
CONVERSION += [[28], [29], [33, 34], [35, 36], [38, 39], [40, 41, 42]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a miniature archive, by version; not to be written to."""
    folders = {}
    for version, make in MAKERS.items():
        folders[version] = tmp_path_factory.mktemp("whole")
        make(folders[version], np.random.default_rng(7))
    return folders


@pytest.fixture(params=MAKERS)
def archive(request, whole):
    """Version and folder of each miniature archive; not to be written to."""
    return request.param, whole[request.param]


@pytest.fixture
def raw(whole, tmp_path):
    """A function that gives a version's own copy of the archive."""
    return lambda version: shutil.copytree(whole[version], tmp_path / "raw")


def expected(folder, version, patch):
    """Image, class positions and label of a patch, pixel by pixel from its files."""
    i = miniature.names(miniature.TILES if version == "2.0" else miniature.ACQUISITIONS).index(patch)
    tile = patch.rsplit("_", 2)[0]
    where = folder / "BigEarthNet-S2" / tile / patch if version == "2.0" else folder / "BigEarthNet-v1.0" / patch
    image = np.zeros((10, 120, 120), dtype=np.uint16)
    for layer, band in enumerate(("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")):
        pixels = tifffile.imread(where / f"{patch}_{band}.tif")
        factor = 120 // len(pixels)
        for row, column in np.ndindex(120, 120):
            image[layer, row, column] = pixels[row // factor, column // factor]
    class_of_code = {CODES[place]: c for c, places in enumerate(CONVERSION) for place in places}
    if version == "1.0":
        code_of = dict(zip(NAMES, CODES, strict=True))
        present = {class_of_code.get(code_of[name]) for name in miniature.LEVEL_3[i]}
        return image, None, [c in present for c in range(19)]
    positions = np.zeros((120, 120), dtype=np.int32)
    for row, column in np.ndindex(120, 120):
        code = miniature.MAPS[i][column // 30]
        if code in class_of_code:
            positions[row, column] = 1 << class_of_code[code]
    return image, positions, [name in miniature.LABELS[i] for name in CLASSES]


def test_the_classes_are_the_published_conversion_of_level_3():
    assert len(CODES) == len(set(NAMES)) == 43
    assert list(CLASSES) == NINETEEN
    assert len(CONVERSION) == 19
    class_of_place = {place: CLASSES[c] for c, places in enumerate(CONVERSION) for place in places}
    for place, (code, name) in enumerate(zip(CODES, NAMES, strict=True)):
        wanted = class_of_place.get(place)
        assert CLASS_OF.get(name) == wanted, name
        assert (name in WITHOUT_CLASS) == (wanted is None), name
        assert BITS[code] == (1 << CLASSES.index(wanted) if wanted else 0), code
        assert wanted is None or NOMENCLATURE[wanted][code] == name
    assert np.count_nonzero(BITS) == len(class_of_place) == 32


def test_the_card_has_the_table_of_the_classes():
    rows = [line.strip("| ").split(" | ") for line in CARD.splitlines() if line.startswith("| ")]
    table = {name: level_3 for name, level_3 in (row for row in rows if len(row) == 2) if name in CLASSES}
    assert list(table) == list(CLASSES)
    for name, codes in NOMENCLATURE.items():
        assert table[name] == "; ".join(f"{code} {old}" for code, old in codes.items())
    for counts in bigearthnet.PUBLISHER.values():
        assert ", ".join(f"{n:,}" for n in counts.values()) in CARD


def test_every_scene_is_read_as_a_loop_over_its_files_does(archive):
    version, folder = archive
    source = bigearthnet.source(folder)
    read = pickle.loads(pickle.dumps(source.read))  # as a worker process gets it
    images, positions, labels = read([4, 1, 0, 2, 3])
    assert (images.dtype, images.shape, labels.dtype) == (np.uint16, (5, 10, 120, 120), bool)
    assert (positions is not None) == source.has_positions == (version == "2.0")
    for row, i in enumerate([4, 1, 0, 2, 3]):
        image, bits, label = expected(folder, version, source.scenes[i])
        assert (images[row] == image).all()
        assert labels[row].tolist() == label
        if bits is not None:
            assert positions.dtype == np.int32
            assert (positions[row] == bits).all()


def test_splits_bands_and_order(archive):
    version, folder = archive
    source = bigearthnet.source(folder)
    patches = miniature.names(miniature.TILES if version == "2.0" else miniature.ACQUISITIONS)
    ours = ["val" if split == "validation" else split for split in miniature.SPLITS]
    assert dict(zip(source.scenes, source.splits, strict=True)) == dict(zip(patches, ours, strict=True))
    assert source.scenes != sorted(source.scenes), "the scenes of a tile must not stand together"
    assert [source.bands[band] for band in source.rgb] == ["B04", "B03", "B02"]
    assert (source.min_pixels, source.size, source.dtype, source.bands) == (0, 120, "uint16", BANDS)
    assert version in source.version


def test_a_group_holds_a_limited_number_of_scenes(archive, monkeypatch):
    monkeypatch.setattr(bigearthnet, "TOGETHER", 2)
    assert bigearthnet.source(archive[1]).groups == [[0, 1], [2, 3], [4]]


def test_notes_put_the_counts_beside_the_paper(archive):
    version, folder = archive
    notes = bigearthnet.source(folder).notes
    assert json.loads(json.dumps(notes)) == notes
    found = notes["found"]
    assert [found[split] for split in scenes.SPLITS] == [3, 1, 1]
    # labels of the first, fourth and fifth patch
    assert found["labels_per_scene"] == {"1.0": 2.0, "2.0": 2.67}[version]
    assert "train 3, paper 250,249" in notes["differ"]
    assert sum(notes["publisher"].values()) == {"1.0": 519_284, "2.0": 480_038}[version]
    assert found["folders_not_listed"] == {"1.0": 0, "2.0": 1}[version]
    # The metadata of the fifth patch do not name its beach: the label stands, and the difference is counted.
    assert found.get("maps_unlike_their_label") == {"1.0": None, "2.0": "1 of 5 looked at"}[version]


def test_metadata_with_snow_or_cloud_are_left_out(raw):
    folder = raw("2.0")
    table = pd.read_parquet(folder / "metadata.parquet")
    table.loc[0, "contains_seasonal_snow"] = True
    table.loc[4, "contains_cloud_or_shadow"] = True
    table.to_parquet(folder / "metadata.parquet")
    source = bigearthnet.source(folder)
    assert set(source.scenes) == set(table["patch_id"][1:4])
    assert source.notes["found"]["excluded_for_snow_cloud_or_shadow"] == 2


def test_lists_of_snow_and_cloud_are_left_out_and_lists_may_be_compressed(raw):
    folder = raw("1.0")
    patches = miniature.names(miniature.ACQUISITIONS)
    (folder / "patches_with_seasonal_snow.csv").write_text(f"{patches[0]}\nS2A_MSIL2A_20171208T093351_1_1\n")
    (folder / "patches_with_cloud_and_shadow.csv.gz").write_bytes(gzip.compress(f"{patches[3]}\n".encode()))
    lines = (folder / "train.csv").read_text().split()
    (folder / "train.csv").unlink()
    with_s1 = "".join(f"{patch},S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{patch[-4:]}\n" for patch in lines)
    (folder / "train.csv.gz").write_bytes(gzip.compress(with_s1.encode()))
    source = bigearthnet.source(folder)
    assert set(source.scenes) == {patches[1], patches[2], patches[4]}
    assert source.splits[source.scenes.index(patches[4])] == "train"
    assert source.notes["found"]["excluded_for_snow_cloud_or_shadow"] == 2


def test_version_1_uses_reference_maps_where_there_are_some(raw):
    folder = raw("1.0")
    for patch in miniature.names(miniature.ACQUISITIONS):
        where = folder / "Reference_Maps" / patch
        where.mkdir(parents=True)
        miniature.write_band(where / f"{patch}_reference_map.tif", np.full((120, 120), 311, dtype=np.uint16))
    source = bigearthnet.source(folder)
    _, positions, _ = source.read([0, 1])
    assert source.has_positions
    assert (positions == 1 << CLASSES.index("Broad-leaved forest")).all()


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_band(path):
    path.unlink()
    miniature.write_band(path, np.zeros((30, 30), dtype=np.uint16))


def other_type(path):
    path.unlink()
    miniature.write_band(path, np.zeros((120, 120), dtype=np.uint8))


def removed(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def changed_table(**columns):
    return lambda path: pd.read_parquet(path).assign(**columns).to_parquet(path)


def without_labels(path):
    pd.read_parquet(path).drop(columns="labels").to_parquet(path)


DAMAGES = [
    ("2.0", "**/*_34_28_B08.tif", truncated, "_34_28_B08.tif is damaged"),
    ("2.0", "**/*_34_28_B11.tif", removed, "_34_28_B11.tif is missing"),
    ("2.0", "**/*_34_28_B11.tif", other_band, r"B11.tif is \(1, 30, 30\) uint16, expected \(1, 60, 60\)"),
    ("2.0", "**/*_34_28_B02.tif", other_type, r"B02.tif is \(1, 120, 120\) uint8"),
    ("2.0", "BigEarthNet-S2/*/*_34_28", removed, r"_34_28 is missing, with 0 more of 5"),
    ("2.0", "Reference_Maps/*/*_34_28", removed, r"Reference_Maps.*_34_28 is missing"),
    ("2.0", "Reference_Maps", removed, r"Reference_Maps.* is missing, with 4 more of 5"),
    ("2.0", "**/*_34_28_reference_map.tif", truncated, "_34_28_reference_map.tif is damaged"),
    ("2.0", "metadata.parquet", removed, "metadata.parquet is missing"),
    ("2.0", "metadata.parquet", truncated, "metadata.parquet is damaged"),
    ("2.0", "metadata.parquet", without_labels, "metadata.parquet has no column labels"),
    ("2.0", "metadata.parquet", changed_table(split="validate"), "a split other than train, validation, test"),
    ("2.0", "metadata.parquet", changed_table(patch_id="S2A_1_1"), "names a patch twice"),
    ("2.0", "metadata.parquet", changed_table(labels=[["Glacier"]] * 5), "has the class 'Glacier'"),
    ("1.0", "**/*_34_28_B08.tif", truncated, "_34_28_B08.tif is damaged"),
    ("1.0", "**/*_34_28_B8A.tif", removed, "_34_28_B8A.tif is missing"),
    ("1.0", "BigEarthNet-v1.0/*_34_28", removed, "_34_28 is missing, with 0 more of 5"),
    ("1.0", "**/*_34_28_labels_metadata.json", removed, "_34_28_labels_metadata.json is missing"),
    ("1.0", "**/*_34_28_labels_metadata.json", truncated, "_34_28_labels_metadata.json is damaged"),
    ("1.0", "**/*_labels_metadata.json", lambda path: path.write_text('{"labels": ["Glacier"]}'), "class 'Glacier'"),
    ("1.0", "val.csv", removed, "val.csv is missing"),
    ("1.0", "val.csv", lambda path: path.write_text(""), "val.csv is damaged"),
    ("1.0", "test.csv", lambda path: shutil.copy(path.parent / "val.csv", path), "is in val.csv and in test.csv"),
]


@pytest.mark.parametrize(("version", "where", "damage", "message"), DAMAGES)
def test_what_is_missing_or_damaged_is_named_with_the_cure(raw, version, where, damage, message):
    folder = raw(version)
    paths = sorted(folder.glob(where))
    assert paths
    for path in paths[:1]:
        damage(path)
    with pytest.raises(DataError, match=message) as error:
        bigearthnet.source(folder).read(list(range(5)))
    assert "data card bigearthnet" in str(error.value)


def test_one_version_at_a_time(raw, tmp_path):
    with pytest.raises(DataError, match=r"neither of BigEarthNet-v1\.0 and BigEarthNet-S2"):
        bigearthnet.source(tmp_path)
    folder = raw("2.0")
    (folder / "BigEarthNet-v1.0").mkdir()
    with pytest.raises(DataError, match="both of"):
        bigearthnet.source(folder)


def test_other_raw_files_are_told_apart(raw):
    folder = raw("2.0")
    before = bigearthnet.source(folder).inputs
    assert bigearthnet.source(folder).inputs == before
    changed_table(country="Finland")(folder / "metadata.parquet")
    assert bigearthnet.source(folder).inputs != before


def test_prepared_and_loaded_the_scenes_are_those_of_the_raw_files(archive, tmp_path, capsys):
    raw = shutil.copytree(archive[1], tmp_path / "bigearthnet" / "raw")
    assert cli.main(["data", "prepare", "bigearthnet", "--root", str(tmp_path)]) == 0, capsys.readouterr()
    data = scenes.load("bigearthnet", tmp_path)
    source = bigearthnet.source(raw)
    images, positions, labels = source.read(list(range(5)))
    assert (data.images.numpy() == images).all()
    assert (data.labels.numpy() == labels).all()
    assert data.positions is None if positions is None else (data.positions.numpy() == positions).all()
    assert [source.splits[i] for i in data.split("val")] == ["val"]
    assert data.classes == CLASSES
    assert data.rgb == (2, 1, 0)
    training = images[[split == "train" for split in source.splits]].astype(float)
    np.testing.assert_allclose(data.mean, training.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(
        data.normalise(data.images[:1])[0, 0, 0, 0], (images[0, 0, 0, 0] - data.mean[0]) / data.std[0]
    )
