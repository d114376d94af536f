"""BreizhCrops: a miniature archive against loops over its files, and HDF5 that is none of the publisher's."""

import csv
import json
import os
import pickle
import shutil
import tarfile
from datetime import date, datetime
from functools import partial

import h5py
import make_archives_crops as miniature
import numpy as np
import pytest
from make_archives_crops import COLUMNS, CULTURES

from rsbook import cli, filling, preparing, scenes, series
from rsbook.archives import breizhcrops
from rsbook.archives.breizhcrops import BANDS, CLASSES
from rsbook.scenes import DataError

CARD = (scenes.DATA / "breizhcrops" / "README.md").read_text("utf-8")
REGION = "brittany_2018"
H5, INDEX = "2018/L1C/frh01.h5", "2018/L1C/frh01.csv"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The folder of a miniature archive; not to be written to."""
    folder = tmp_path_factory.mktemp("breizhcrops")
    miniature.make_breizhcrops(folder, np.random.default_rng(5))
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer series than the paper has."""
    monkeypatch.setattr(breizhcrops, "DRAWN", {"train": 30, "val": 10})
    monkeypatch.setattr(breizhcrops, "TOGETHER", 50)


@pytest.fixture
def raw(archive, tmp_path):
    """A copy of the archive."""
    return shutil.copytree(archive, tmp_path / "breizhcrops" / "raw")


def prepare(raw, workers=0):
    return preparing.prepare("breizhcrops", raw.parents[1], workers, progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def fields(raw):
    """Class and series (length,17) of every field of one of the six classes that has more than 142 dates."""
    found = {}
    for part, place in miniature.PARTS.items():
        with h5py.File(raw / place / f"{part}.h5") as file, (raw / place / f"{part}.csv").open() as table:
            for row in csv.DictReader(table):
                values = file[row["path"]][()]
                if CULTURES[row["CODE_CULTU"]] in CLASSES and len(values) > 142:
                    found[int(row["id"])] = (CULTURES[row["CODE_CULTU"]], values)
    return found


def names_in(file):
    """All series of a file."""
    names = []
    file.visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
    return names


def expected(values, columns=COLUMNS):
    """Twelve bands on 143 of the dates, number by number."""
    length = len(values)
    return [[round(values[i * length // 143][columns.index(band)]) for band in BANDS] for i in range(143)]


def test_every_series_is_that_of_its_field(raw):
    data = series.load("breizhcrops", REGION, 30, 10, prepare(raw).parent)
    there = fields(raw)
    assert data.values.shape == (240, 143, 12)
    for i in range(240):
        name, values = there[int(data.fields[i])]
        assert CLASSES[data.labels[i]] == name
        assert data.values[i].tolist() == expected(values)
    for split, count in (("train", 30), ("val", 10)):
        assert data.labels[data.split(split)].tolist() == [label for label in range(6) for _ in range(count)]
    assert len({len(values) for _, values in there.values()}) == 3
    assert data.days.tolist() == sorted(data.days.tolist())


@pytest.mark.parametrize("only_one", [False, True])
def test_the_columns_may_be_in_the_order_of_their_names(raw, only_one):
    before = series.load("breizhcrops", REGION, 30, 10, prepare(raw).parent)
    by_name = sorted(COLUMNS[:13]) + list(COLUMNS[13:])
    assert by_name[1] == "B10"
    for path in [raw / H5] if only_one else raw.rglob("*.h5"):
        with h5py.File(path, "r+") as file:
            for name in names_in(file):
                file[name][...] = file[name][()][:, [COLUMNS.index(column) for column in by_name]]
    (raw.parent / "SHA256SUMS").unlink()
    after = series.load("breizhcrops", REGION, 30, 10, prepare(raw).parent)
    assert after.values.tolist() == before.values.tolist()


def test_days_are_the_median_of_the_fields(raw, monkeypatch):
    monkeypatch.setattr(breizhcrops, "LOOKED_AT", 1_000)
    data = series.load("breizhcrops", REGION, 30, 10, prepare(raw).parent)
    there, seen = fields(raw), []
    for number in data.fields.tolist():
        values = there[number][1]
        stamps = [datetime.fromtimestamp(values[i * len(values) // 143, 16] / 1e9 + 43_200) for i in range(143)]
        seen.append([(stamp.date() - date(2017, 12, 31)).days for stamp in stamps])
    assert data.days.tolist() == np.median(seen, axis=0).astype(int).tolist()


def test_every_field_is_in_one_split(archive):
    source = breizhcrops.source(archive)
    parts = {split: set() for split in ("train", "val")}
    for split, number in zip(source.splits, source.fields, strict=True):
        parts[split].add(number)
    assert not parts["train"] & parts["val"]
    there = fields(archive)
    for name in CLASSES:
        count = sum(one == name for one, _ in there.values())
        drawn = [{number for number in part if there[number][0] == name} for part in parts.values()]
        assert len(drawn[0]) <= max(1, int(0.7 * count))
        assert len(drawn[1]) <= count - max(1, int(0.7 * count))
        assert min(map(len, drawn)) > 0
    assert len(set(source.fields)) < len(source.fields), "with replacement"


def test_the_first_series_of_each_class_are_those_of_a_smaller_sample(raw):
    root = prepare(raw).parent
    whole, part = (series.load("breizhcrops", REGION, *sizes, root) for sizes in ((30, 10), (4, 3)))
    for split, size in (("train", 4), ("val", 3)):
        for label in range(6):
            of_class = [data.split(split)[data.labels[data.split(split)] == label] for data in (whole, part)]
            assert of_class[1].tolist() == of_class[0][:size].tolist()


def test_what_is_not_there_cannot_be_loaded(raw):
    root = prepare(raw).parent
    for call, message in (
        (lambda: series.load("breizhcrops", REGION, 31, 1, root), "train=31: breizhcrops has 0 … 30 of permanent"),
        (lambda: series.load("breizhcrops", "brittany", 1, 1, root), "breizhcrops has brittany_2018"),
        (lambda: series.load_pairs("breizhcrops", REGION, 9, root), "'breizhcrops': holds no pairs"),
        (lambda: scenes.load("breizhcrops", root), "'breizhcrops': holds series, not scenes"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def stop_after(raw, monkeypatch, groups):
    """Prepare until so many groups are in the journal."""
    end = filling.finished

    def stopping(filler, waiting, workers):
        yield from end(filler, waiting[:groups], workers)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(filling, "finished", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw)


def counted(series_of, read, files, rows):
    read.append(len(rows))
    return series_of(files, rows)


def test_a_preparation_that_was_cut_off_goes_on_and_ends_with_the_same_bytes(raw, tmp_path, monkeypatch):
    whole = contents(prepare(shutil.copytree(raw, tmp_path / "other" / "breizhcrops" / "raw"), workers=2))
    stop_after(raw, monkeypatch, 3)
    read = []
    monkeypatch.setattr(breizhcrops, "_series", partial(counted, breizhcrops._series, read))
    assert contents(prepare(raw)) == whole
    assert read[2:] == [50, 40], "of 240 series 150 were there"


@pytest.mark.parametrize("file", [H5, INDEX])
def test_files_that_have_changed_begin_the_preparation_anew(raw, monkeypatch, file):
    stop_after(raw, monkeypatch, 3)
    os.utime(raw / file)
    read = []
    monkeypatch.setattr(breizhcrops, "_series", partial(counted, breizhcrops._series, read))
    prepare(raw)
    assert read[2:] == [50, 50, 50, 50, 40]


def test_the_reader_goes_to_a_worker(archive):
    source = breizhcrops.source(archive)
    [values] = pickle.loads(pickle.dumps(source.read))([7, 3])
    assert (values.shape, values.dtype) == ((2, 143, 12), np.uint16)
    assert source.groups == [list(range(i, min(i + 50, 240))) for i in range(0, 240, 50)]
    assert json.loads(json.dumps(source.notes)) == source.notes
    assert source.notes["differ"] == [f"{part} is missing, the paper has all Brittany" for part in ("frh02", "frh04")]


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def removed(path):
    path.unlink()


def again(path):
    shutil.copytree(path.parent, path.parents[2] / "2017" / "L1C")


def every(change):
    """Replace all series of a file by what `change` makes of them."""

    def replace(path):
        with h5py.File(path, "r+") as file:
            for name in names_in(file):
                values = file[name][()]
                del file[name]
                change(file, name, values)

    return replace


def stored(**options):
    return every(lambda file, name, values: file.create_dataset(name, data=values, **options))


def linked(kind):
    def link(file, name, values):
        aside = f"aside/{name.rpartition('/')[2]}"
        if kind == "external":
            file[name] = h5py.ExternalLink("other.h5", aside)
        else:
            file.create_dataset(aside, data=values)
            file[name] = h5py.SoftLink(f"/{aside}")

    return every(link)


def virtual(file, name, values):
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource("other.h5", "a", values.shape)
    file.create_virtual_dataset(name, layout)


def elsewhere(file, name, values):
    """Its bytes are those of another file, which lies beside it. Nothing is written: that would go into that file."""
    file.create_dataset(name, values.shape, values.dtype, external=[(f"{file.filename}.other", 0, h5py.h5f.UNLIMITED)])


def column(number, value):
    def change(file, name, values):
        values[:, number] = value
        file[name] = values

    return every(change)


def table(*rows):
    return lambda path: miniature.write_table(path, ["path", "CODE_CULTU", "sequencelength"], rows)


PLAIN = r"is not stored as the publisher's series are"
DAMAGES = [
    (H5, truncated, r"frh01\.h5 is damaged .*unpack its archive again"),
    (H5, again, r"raw holds 2 files frh01\.h5, expected that of 2018, L1C: keep that one"),
    (H5, lambda path: path.write_bytes(b"abc" * 999), r"frh01\.h5 is damaged"),
    (H5, every(lambda *_: None), r"frh01\.h5 is damaged \(.* is not in it\)"),
    (H5, every(lambda file, name, _: file.create_group(name)), PLAIN),
    (H5, linked("external"), r"frh01\.h5 is damaged \(.* is not in it\)"),
    (H5, linked("soft"), r"frh01\.h5 is damaged \(.* is not in it\)"),
    (H5, every(virtual), PLAIN),
    (H5, every(elsewhere), PLAIN),
    (H5, stored(compression="gzip"), PLAIN),
    (H5, stored(chunks=True), PLAIN),
    (H5, every(lambda file, name, values: file.create_dataset(name, values.shape, "S9")), PLAIN),
    (H5, every(lambda file, name, values: file.create_dataset(name, values.shape, h5py.ref_dtype)), PLAIN),
    (H5, every(lambda file, name, _: file.create_dataset(name, (143,), h5py.vlen_dtype(float))), PLAIN),
    (H5, every(lambda file, name, _: file.create_dataset(name, (2**30, 17), float)), r"holds \(1073741824, 17\)"),
    (
        H5,
        every(lambda file, name, values: file.create_dataset(name, data=values[:, :16])),
        r"expected at least \(143, 17",
    ),
    (H5, every(lambda file, name, values: file.create_dataset(name, data=values[:99])), r"holds \(99, 17\), expected"),
    (H5, column(3, np.nan), r"holds what is no number, or its dates do not rise"),
    (H5, column(16, 1.53e18), r"holds what is no number, or its dates do not rise"),
    (H5, column(16, np.nan), r"holds what is no number"),
    (
        H5,
        every(lambda file, name, v: file.create_dataset(name, data=v - 365 * 86_400e9)),
        r"dates of other years than 2018",
    ),
    (H5, column(2, 0), r"has its darkest band in column 2, where no B10 is: is it L1C of 2018\?"),
    (INDEX, truncated, r"frh01\.csv is damaged"),
    (INDEX, removed, r"raw holds no frh01\.csv: put it there"),
    (INDEX, lambda path: path.write_text("a,b\n1,2\n"), r"frh01\.csv is damaged .*download it again"),
    (
        INDEX,
        table(("a/b.csv", "PPH", 143)),
        r"frh01\.csv is damaged \(path 'a/b.csv' and sequencelength '143' are none",
    ),
    (INDEX, table(("a/1.csv", "PPH", "many")), r"sequencelength 'many' are none"),
    (INDEX, table(("a/1.csv", "PPH", 143)), r"frh01\.h5 is damaged \(a/1\.csv is not in it\)"),
    ("classmapping.csv", removed, r"raw holds no classmapping\.csv: put it there"),
    ("classmapping.csv", lambda path: path.write_text("id,classname,code\n1,corn,MIS\n"), r"has no class permanent"),
]


@pytest.mark.parametrize(("where", "damage", "message"), DAMAGES)
def test_what_is_missing_or_damaged_is_named_with_the_cure(raw, where, damage, message):
    damage(raw / where)
    with pytest.raises(DataError, match=message) as error:
        prepare(raw)
    assert "data card breizhcrops" in str(error.value)


def test_a_part_may_be_left_out_but_not_all(raw):
    (raw / H5).unlink()
    assert "frh01 is missing" in breizhcrops.source(raw).notes["differ"][0]
    for path in raw.rglob("*.h5"):
        path.unlink()
    with pytest.raises(DataError, match=r"raw holds no frh01\.h5 or the like: put it there"):
        prepare(raw)


def test_too_few_fields_of_a_class_are_named(raw):
    for path in raw.rglob("frh0?.csv"):
        text = path.read_text()
        path.write_text(text.replace(",CZH,", ",NOX,"))
    with pytest.raises(DataError, match="0 fields of rapeseed with 143 dates or more, expected at least 2"):
        prepare(raw)


def test_the_card_has_our_numbers():
    for name in CLASSES:
        assert name in CARD
    for count in (breizhcrops.DATES, "9,000", "1,000", *breizhcrops.PARTS[::3]):
        assert str(count) in CARD
    assert [band for band in COLUMNS[:13] if band != "B10"] == list(BANDS)
    assert COLUMNS[:13] == breizhcrops.BY_NUMBER


def test_prepared_from_the_shell_from_the_publishers_archives(archive, raw, tmp_path, capsys):
    plain = prepare(raw)
    packed = shutil.copytree(archive, tmp_path / "packed" / "breizhcrops" / "raw")
    for path in list(packed.rglob("*.h5")):
        with tarfile.open(packed / f"{path.name}.tar.gz", "w:gz") as file:
            file.add(path, f"data/{path.name}")
        path.unlink()
    assert cli.main(["data", "prepare", "breizhcrops", "--root", str(tmp_path / "packed")]) == 0, capsys.readouterr()
    said = capsys.readouterr()
    assert "180 train of brittany_2018, 60 val of brittany_2018" in said.out
    assert "frh02 is missing" in said.out
    assert "series/s" in said.err
    for name in ("series.npy", "pixels.csv"):
        assert (plain / name).read_bytes() == (packed.parent / name).read_bytes()
