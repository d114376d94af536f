"""What is kept of simulated crops: whole or not at all, whoever else writes; and the archive's card."""

import errno
import hashlib
import shutil
import threading

import numpy as np
import pytest
import torch
from test_crops_data import FILES, FOLDER, OPTICS, PARAMETERS, REGION

from rsbook import scenes, series
from rsbook.archives import crops

CARD = (FOLDER / "README.md").read_text()


@pytest.fixture
def folder(tmp_path):
    """A copy of the archive in which nothing is kept yet."""
    folder = tmp_path / "crops"
    folder.mkdir()
    for name in FILES:
        shutil.copy(FOLDER / name, folder)
    return folder


def kept(folder):
    """Folders of what is kept, and nothing besides."""
    found = sorted((folder / ".simulated").iterdir())
    assert not [one for one in found if one.name.startswith(".")]
    return found


def load(folder, world=0):
    return crops.load_series(folder, "checksum", "brittany_2018", 2, 1, world)


@pytest.fixture
def count(monkeypatch):
    """How often the simulator has drawn a world."""
    calls, draw = [], crops.draw_world
    monkeypatch.setattr(crops, "draw_world", lambda *arguments: calls.append(arguments) or draw(*arguments))
    return calls


def test_what_is_kept_is_read_again(folder, count):
    first, again = load(folder), load(folder)
    assert len(count) == 1
    assert torch.equal(first.values, again.values)
    [one] = kept(folder)
    assert set(scenes.listed(one)) == {"values.npy", "labels.npy", "fields.npy"}
    for name, sha256 in scenes.listed(one).items():
        assert hashlib.sha256((one / name).read_bytes()).hexdigest() == sha256
    crops.load_pairs(folder, "checksum", REGION, 144, 0)
    crops.load_pairs(folder, "checksum", REGION, 150, 0)  # rounded down: the same
    assert (len(kept(folder)), len(count)) == (2, 2)


def test_another_request_or_another_simulator_is_kept_apart(folder, count, monkeypatch):
    load(folder)
    load(folder, world=1)
    crops.load_series(folder, "another checksum", "brittany_2018", 2, 1, 0)
    assert len(kept(folder)) == len(count) == 3
    monkeypatch.setattr(crops.sources, "reachable", lambda *_: {"rsbook.archives.crops": "changed"})
    load(folder)
    assert len(kept(folder)) == len(count) == 4


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a bit": lambda one: flip(one / "values.npy"),
    "cut": lambda one: (one / "labels.npy").write_bytes((one / "labels.npy").read_bytes()[:-8]),
    "a file is gone": lambda one: (one / "fields.npy").unlink(),
    "no list": lambda one: (one / "SHA256SUMS").unlink(),
    "nonsense": lambda one: (one / "SHA256SUMS").write_bytes(b"\xff\x00"),
    "a shorter list": lambda one: (one / "SHA256SUMS").write_text((one / "SHA256SUMS").read_text().split("\n")[0]),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_noticed_and_mended(folder, count, how):
    expected = load(folder).values.clone()
    DAMAGE[how](kept(folder)[0])
    assert torch.equal(load(folder).values, expected)
    assert torch.equal(load(folder).values, expected)
    assert (len(kept(folder)), len(count)) == (1, 2)


def test_large_arrays_stay_on_the_disk(folder, monkeypatch):
    expected = load(folder)
    monkeypatch.setattr(crops, "MAPPED", 1000)
    mapped = load(folder)
    [one] = kept(folder)
    arrays = crops._read(one, dict.fromkeys(("values", "labels", "fields")))
    assert [isinstance(array, np.memmap) for array in arrays.values()] == [True, False, False]
    assert torch.equal(mapped.values, expected.values)
    mapped.values[0, 0, 0] = 7  # who writes into it changes no file
    assert torch.equal(load(folder).values, expected.values)


def test_two_makers_at_once_make_one(folder, monkeypatch):
    """Both have simulated before either renames: the second finds the first's and uses it."""
    barrier, write, found = threading.Barrier(2), crops._write, []

    def together(*arguments):
        write(*arguments)
        barrier.wait(60)

    monkeypatch.setattr(crops, "_write", together)
    threads = [threading.Thread(target=lambda: found.append(load(folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert torch.equal(found[0].values, found[1].values)
    assert len(kept(folder)) == 1


@pytest.mark.parametrize("when", ["no folder", "full disk"])
def test_without_a_place_to_keep_it_is_simulated_in_memory(folder, monkeypatch, when):
    expected = load(folder)
    pairs = crops.load_pairs(folder, "checksum", REGION, 144 * 3, 0)
    shutil.rmtree(folder / ".simulated")
    if when == "no folder":
        (folder / ".simulated").write_text("in the way")
    else:

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(crops, "replacing", full)
    again = load(folder)
    for name in ("values", "labels", "fields"):
        assert torch.equal(getattr(again, name), getattr(expected, name))
    again = crops.load_pairs(folder, "checksum", REGION, 144 * 3, 0)
    assert torch.equal(again.s2, pairs.s2)
    assert torch.equal(again.planet, pairs.planet)
    if when == "full disk":
        assert not list((folder / ".simulated").iterdir())


@pytest.mark.parametrize("name", ["optics.npz", "parameters.yaml"])
def test_a_damaged_file_of_the_archive_is_named(folder, name):
    flip(folder / name)
    with pytest.raises(scenes.DataError, match=rf"{name} is damaged: .*git checkout -- crops"):
        series.load("crops", REGION, 1, 1, folder.parent)


# The card


def table(*header):
    """Rows of the card's table whose first columns are these, as dictionaries."""
    lines = CARD[CARD.index(f"| {' | '.join(header)} |") :].split("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_card_lists_the_files():
    sums = scenes.listed(FOLDER)
    rows = table("file", "what", "bytes", "sha256")
    assert [row["file"].strip("`") for row in rows] == list(sums)
    for row, (name, sha256) in zip(rows, sums.items(), strict=True):
        assert row["sha256"].strip("`") == sha256
        assert int(row["bytes"].replace(",", "")) == (FOLDER / name).stat().st_size


def test_the_card_counts_the_fields():
    for row in table("region", "fields"):
        about = PARAMETERS["regions"][row["region"].strip("`")]
        assert int(row["fields"].replace(",", "")) == sum(about["fields"].values())
        assert row["of each class"] == ", ".join(f"{name} {count}" for name, count in about["fields"].items())
        splits = about["splits"]
        assert row["splits of fields"] == ", ".join(f"{name} {100 * splits[name]:.0f} %" for name in splits)


def test_the_card_says_what_is_in_the_optics():
    assert f"{len(OPTICS['soils'])} spectra of European soils" in CARD
    assert f"{len(OPTICS['check_reflectance'])} canopies" in CARD
    rows = table("band", "centre in nm")
    assert [round(float(row["centre in nm"])) for row in rows] == OPTICS["wavelengths"].round().astype(int).tolist()
