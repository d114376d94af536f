"""The engine that prepares archives: whole or not at all, resumed after a kill, checked; on a reader made for it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from pathlib import Path

import made_up
import numpy as np
import psutil
import pytest
import torch
from made_up import BANDS, SCENES, SIDE, make_source

from rsbook import filling, preparing, scenes
from rsbook.archives import deepglobe, prepared

PROGRAM = """\
import sys
sys.path.insert(0, sys.argv[3])
import made_up
from rsbook import preparing
from rsbook.archives import deepglobe

deepglobe.source = made_up.slow_source
preparing.prepare("deepglobe", sys.argv[1], int(sys.argv[2]), progress=False)
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder whose deepglobe/raw holds 60 arrays of 16 bit; the reader of deepglobe is replaced by the one above."""
    raw = tmp_path / "root" / "deepglobe" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(SCENES):
        np.save(raw / f"{i}.npy", rng.integers(0, 2**16, (BANDS, SIDE, SIDE), dtype=np.uint16))
    monkeypatch.setattr(deepglobe, "source", make_source)
    return tmp_path / "root"


def prepare(root, workers=0):
    return preparing.prepare("deepglobe", root, workers, progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "log"}


def times_read(root):
    """How often each group was read, by its first scene."""
    lines = (root / "deepglobe" / "log").read_text().split()
    return {line: lines.count(line) for line in lines}


def test_the_prepared_arrays_are_what_the_reader_gives(root):
    data = scenes.load("deepglobe", prepare(root).parent)
    raw = np.stack([np.load(root / "deepglobe" / "raw" / f"{i}.npy") for i in range(SCENES)])
    assert data.images.dtype == torch.uint16
    assert np.array_equal(data.images.numpy(), raw)
    assert data.positions.dtype == torch.int32
    assert np.array_equal(data.positions.numpy(), raw[:, 0].astype(int) & 7)
    assert data.labels.dtype == torch.bool
    assert np.array_equal(data.labels.numpy(), [[((r[0] >> k) & 1).any() for k in range(3)] for r in raw])
    train = raw[[i for i in range(SCENES) if i % 4 < 2]].astype(float)
    assert data.split("train").tolist() == [i for i in range(SCENES) if i % 4 < 2]
    assert data.split("test").tolist() == list(range(3, SCENES, 4))
    assert np.allclose(data.mean, train.mean(axis=(0, 2, 3)), rtol=1e-6)
    assert np.allclose(data.std, train.transpose(1, 0, 2, 3).reshape(BANDS, -1).std(axis=1, ddof=1), rtol=1e-6)
    assert (data.rgb, data.classes, data.min_pixels) == ((2, 1, 0), ("one", "two", "three"), 0)
    assert data.checksum == scenes.checksum("deepglobe", root)
    manifest = json.loads((root / "deepglobe" / "manifest.json").read_text())
    assert manifest["scenes"] == {"train": 30, "val": 15, "test": 15}
    assert not (root / "deepglobe" / ".preparing").exists()


def test_arrays_are_mapped_and_writing_to_them_changes_no_file(root):
    folder = prepare(root)
    before = contents(folder)
    data = scenes.load("deepglobe", root)
    mapped = Path("/proc/self/maps")
    if mapped.is_file():
        for name in ("images", "labels"):
            assert str(folder / f"{name}.npy") in mapped.read_text()
    data.images[0] = 0
    data.positions[0] = 0
    assert contents(folder) == before


def source_of_bits(bits, num_classes):
    """A source whose positions are bits (SCENES,SIDE,SIDE) of so many classes."""
    classes = tuple(map(str, range(num_classes)))
    images, labels = np.ones((SCENES, BANDS, SIDE, SIDE), dtype=np.uint8), np.ones((SCENES, num_classes), dtype=bool)
    return partial(
        make_source,
        dtype="uint8",
        classes=classes,
        read=lambda indices: (images[indices], bits[indices], labels[indices]),
    )


@pytest.mark.parametrize("as_stored", [False, True])
@pytest.mark.parametrize(
    ("num_classes", "stored"),
    [(1, "uint8"), (8, "uint8"), (9, "uint16"), (16, "uint16"), (17, "int32"), (32, "int32")],
)
def test_positions_are_stored_small_and_loaded_as_int32(root, monkeypatch, num_classes, stored, as_stored):
    bits = np.random.default_rng(2).integers(0, 2**num_classes, (SCENES, SIDE, SIDE), dtype=np.uint32).view(np.int32)
    assert (bits >> (num_classes - 1) & 1).any()  # the last class occurs: the sign bit of 32
    given = bits.astype(stored) if as_stored else bits
    monkeypatch.setattr(deepglobe, "source", source_of_bits(given, num_classes))
    folder = prepare(root)
    before = contents(folder)
    assert np.load(folder / "positions.npy").dtype == stored
    positions = scenes.load("deepglobe", root).positions
    assert positions.dtype == torch.int32
    assert np.array_equal(positions.numpy(), bits)
    mapped = Path("/proc/self/maps")
    if mapped.is_file():
        assert (str(folder / "positions.npy") in mapped.read_text()) == (stored == "int32")
    positions[0] = 0
    assert contents(folder) == before


def test_positions_may_be_stored_as_they_are_loaded(root, monkeypatch):
    """For archives whose positions memory would not hold: they are mapped, and no second copy is made."""
    bits = np.random.default_rng(2).integers(0, 512, (SCENES, SIDE, SIDE), dtype=np.int32)
    monkeypatch.setattr(deepglobe, "source", partial(source_of_bits(bits, 9), map_positions=True))
    folder = prepare(root)
    before = contents(folder)
    assert np.load(folder / "positions.npy").dtype == np.int32
    positions = scenes.load("deepglobe", root).positions
    assert np.array_equal(positions.numpy(), bits)
    mapped = Path("/proc/self/maps")
    if mapped.is_file():
        assert str(folder / "positions.npy") in mapped.read_text()
    positions[0] = 0
    assert contents(folder) == before


def test_modalities_and_seasons_are_kept(root, monkeypatch):
    splits = ["train"] * 30 + ["val"] * 30
    changes = {"modalities": {"a": (3, 0), "b": (1, 2)}, "seasons": 2, "splits": splits}
    monkeypatch.setattr(deepglobe, "source", partial(make_source, **changes))
    folder = prepare(root)
    data = scenes.load("deepglobe", root)
    assert (data.modalities, data.seasons) == ({"a": (3, 0), "b": (1, 2)}, 2)
    assert data.bands("b") == (1, 2)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["modalities"], manifest["seasons"]) == ({"a": [3, 0], "b": [1, 2]}, 2)
    assert len(data.split("test")) == 0  # a split may be empty
    assert data.split("test").dtype == torch.int64
    assert "30 train, 30 val, 0 test" in preparing.summary(folder)


def test_a_manifest_of_before_has_one_season_and_no_modalities(root):
    folder = prepare(root)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest.pop("modalities"), manifest.pop("seasons")) == ({}, 1)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    data = prepared.load(folder, "")
    assert (data.modalities, data.seasons) == ({}, 1)


@pytest.mark.parametrize("empty", ["val", "test"])
def test_splits_but_that_for_training_may_be_empty(root, monkeypatch, empty):
    other = {"val": "test", "test": "val"}[empty]
    monkeypatch.setattr(deepglobe, "source", partial(make_source, splits=["train", other] * (SCENES // 2)))
    folder = prepare(root)
    data = scenes.load("deepglobe", root)
    assert [len(data.split(name)) for name in ("train", other, empty)] == [30, 30, 0]
    assert json.loads((folder / "manifest.json").read_text())["scenes_of_class"][empty] == {
        "one": 0,
        "two": 0,
        "three": 0,
    }
    monkeypatch.setattr(deepglobe, "source", partial(make_source, splits=[other] * SCENES))
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(scenes.DataError, match="no training scenes among the 60"):
        prepare(root)


@pytest.mark.parametrize(("num_classes", "lost"), [(8, 8), (8, 31), (16, 16), (16, 31)])
def test_a_bit_that_would_be_lost_is_refused(root, monkeypatch, num_classes, lost):
    bits = np.ones((SCENES, SIDE, SIDE), dtype=np.int32)
    bits[make_source(root / "deepglobe" / "raw").groups[4][1], 3, 5] |= np.uint32(1 << lost).astype(np.int32)
    monkeypatch.setattr(deepglobe, "source", source_of_bits(bits, num_classes))
    with pytest.raises(ValueError, match=f"group 4: .*positions with a bit above class {num_classes - 1}"):
        prepare(root)
    monkeypatch.setattr(deepglobe, "source", source_of_bits(bits.astype(np.int64), num_classes))
    with pytest.raises(ValueError, match="group 4: the reader gave positions of"):
        prepare(root)


def test_positions_are_converted_without_a_second_copy(root):
    folder = prepare(root)
    np.save(folder / "images.npy", np.zeros((SCENES, BANDS, 200, 200), dtype=np.uint16))
    np.save(folder / "positions.npy", np.ones((SCENES, 200, 200), dtype=np.uint8))
    prepared.load(folder, "")
    tracemalloc.start()
    data = prepared.load(folder, "")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.positions.dtype == torch.int32
    assert data.positions.nbytes <= peak < 1.1 * data.positions.nbytes


def test_an_archive_without_maps_has_no_positions(root, monkeypatch):
    monkeypatch.setattr(deepglobe, "source", partial(make_source, dtype="uint8", has_positions=False))
    folder = prepare(root)
    assert scenes.load("deepglobe", root).positions is None
    assert scenes.load("deepglobe", root).images.dtype == torch.uint8
    assert not (folder / "positions.npy").exists()


def test_any_number_of_workers_makes_the_same_bytes_and_a_second_run_does_nothing(root, tmp_path):
    here = contents(prepare(root))
    prepare(root)
    assert set(times_read(root).values()) == {1}
    shutil.copytree(root, tmp_path / "other")  # copies have other times: they are the same archive
    os.unlink(tmp_path / "other" / "deepglobe" / "SHA256SUMS")
    os.utime(tmp_path / "other" / "deepglobe" / "raw" / "7.npy")
    assert contents(prepare(tmp_path / "other", workers=2)) == here


def test_a_killed_preparation_goes_on_and_ends_with_the_same_bytes(root, tmp_path):
    shutil.copytree(root, tmp_path / "whole")
    expected = contents(prepare(tmp_path / "whole"))
    draw, kills, workers, program = random.Random(0), 0, 1, [sys.executable, "-c", PROGRAM]
    arguments = [str(root), str(workers), str(Path(__file__).parent)]
    before = None
    while kills < 4:
        process = subprocess.Popen([*program, *arguments], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 30
        count = len(journal(root))
        while len(journal(root)) < count + 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        assert not (root / "deepglobe" / "SHA256SUMS").exists()
        with pytest.raises(scenes.DataError, match="data prepare deepglobe --root"):
            scenes.load("deepglobe", root)
        # What an earlier run had in its journal is not read again; a killed one leaves nothing else behind.
        now = journal(root)
        assert before is None or now[: len(before)] == before
        before = now
        time.sleep(0.2)  # workers notice the end of their parent
    assert contents(prepare(root)) == expected
    journaled = {str(make_source(root / "deepglobe" / "raw").groups[line["group"]][0]) for line in before[1:]}
    assert len(journaled) >= 4
    in_flight = 1 + filling.AHEAD * workers  # groups of a kill that were read and not yet in the journal
    twice = sum(times - 1 for times in times_read(root).values())
    assert twice <= kills * in_flight


def journal(root):
    """The whole lines of the journal."""
    path = root / "deepglobe" / ".preparing" / "journal.jsonl"
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def stop_after(root, monkeypatch, groups):
    """Prepare until so many groups are in the journal."""
    end = filling.finished

    def stopping(filler, waiting, workers):
        yield from end(filler, waiting[:groups], workers)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(filling, "finished", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare(root)


def test_what_is_in_the_journal_is_not_read_again(root, monkeypatch):
    stop_after(root, monkeypatch, 12)
    assert preparing.state(root / "deepglobe") == "begun"
    with (root / "deepglobe" / ".preparing" / "journal.jsonl").open("a") as file:
        file.write('{"group": 15, "su')  # as a kill leaves it
    prepare(root)
    assert set(times_read(root).values()) == {1}
    assert preparing.state(root / "deepglobe") == "ready"


@pytest.mark.parametrize("change", ["raw", "inputs", "version", "libraries"])
def test_what_has_changed_since_is_prepared_anew(root, monkeypatch, change):
    stop_after(root, monkeypatch, 12)
    raw = root / "deepglobe" / "raw"
    if change == "raw":
        np.save(raw / "8.npy", np.zeros((BANDS, SIDE, SIDE), dtype=np.uint16))
    elif change != "libraries":
        monkeypatch.setattr(deepglobe, "source", partial(make_source, **{change: "another"}))
    else:
        monkeypatch.setattr(preparing, "LIBRARIES", ("numpy", "rasterio"))
    prepare(root)
    first_12 = [i for group in make_source(raw).groups[:12] for i in group]
    assert sum(times_read(root).values()) == (20 + (8 in first_12) if change == "raw" else 20 + 12)
    found = scenes.load("deepglobe", root).images.numpy()
    assert all(np.array_equal(found[i], np.load(raw / f"{i}.npy")) for i in range(SCENES))


@pytest.mark.parametrize("moved", range(6))
def test_a_kill_while_files_are_moved_leaves_no_archive_or_a_whole_one(root, monkeypatch, moved):
    expected = contents(prepare(root))
    os.unlink(root / "deepglobe" / "SHA256SUMS")
    real, done = Path.replace, []

    def replace(path, target):
        if path.parent.name == ".preparing" and not path.name.startswith("."):
            if len(done) == moved:
                raise KeyboardInterrupt
            done.append(path.name)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        prepare(root)
    assert not (root / "deepglobe" / "SHA256SUMS").exists()
    monkeypatch.undo()
    monkeypatch.setattr(deepglobe, "source", None)  # all has been read
    assert contents(prepare(root)) == expected


def test_a_failure_keeps_what_was_finished(root):
    broken = root / "deepglobe" / "raw" / "5.npy"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"."):
        prepare(root, workers=1)
    kept = len(journal(root)) - 1
    assert 0 < kept < 20
    broken.write_bytes(whole)
    prepare(root)  # the file is another now, but the groups without it are not read again
    assert set(times_read(root).values()) == {1}
    assert len(times_read(root)) == 20


@pytest.mark.parametrize(
    ("reader", "message"), [(made_up.die, "a worker process died; out of memory"), (made_up.full, "disk is full")]
)
def test_what_the_machine_lacks_is_said(root, monkeypatch, reader, message):
    monkeypatch.setattr(deepglobe, "source", partial(make_source, read=reader))
    with pytest.raises(scenes.DataError, match=message):
        prepare(root, workers=1)
    assert not (root / "deepglobe" / "SHA256SUMS").exists()


def test_room_on_the_disk_is_checked_first(root, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1_000_000))
    with pytest.raises(scenes.DataError, match=r"needs 0\.0 GB in .*deepglobe, where 0\.0 GB are free: .*--root"):
        prepare(root)
    assert [path.name for path in (root / "deepglobe").iterdir()] == ["raw"]


def test_two_processes_do_not_prepare_the_same_archive(root):
    with preparing._alone(root / "deepglobe"), pytest.raises(scenes.DataError, match="by another process"):
        prepare(root)
    prepare(root)


def test_a_damaged_archive_is_prepared_anew(root):
    expected = contents(prepare(root))
    (root / "deepglobe" / "images.npy").write_bytes(b"damaged")
    with pytest.raises(scenes.DataError, match=r"images.npy is damaged.*data prepare deepglobe --root"):
        scenes.load("deepglobe", root)
    assert contents(prepare(root)) == expected


def test_every_flipped_byte_is_found_by_check(root):
    folder, draw = prepare(root), random.Random(0)
    assert preparing.check(folder, progress=False) == (
        5,
        sum(len(c) for n, c in contents(folder).items() if n[0] != "S"),
    )
    for name in scenes.listed(folder):
        for _ in range(5):
            path = folder / name
            whole, state = path.read_bytes(), path.stat()
            damaged = bytearray(whole)
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
            with pytest.raises(scenes.DataError, match=f"{name} is damaged"):
                preparing.check(folder, progress=False)
            path.write_bytes(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int16"}, "dtype='int16', expected uint8 or uint16"),
        ({"splits": ["train"]}, "expected one of train, val, test for each scene"),
        ({"groups": [[0, 1], [1, 2]]}, "every scene in exactly one group"),
        ({"group_inputs": ["a"]}, "1 group_inputs for 20 groups"),
        ({"rgb": (0, 1, 4)}, "names bands outside 0 … 3"),
        ({"modalities": {"a": (0, 1), "b": (2, 4)}}, r"b=\(2, 4\) names bands outside 0 … 3"),
        ({"seasons": 7}, "expected 7 scenes of every place, all in one split"),
        ({"seasons": 4}, "expected 4 scenes of every place, all in one split"),
    ],
)
def test_a_source_that_does_not_fit_together_is_refused(root, changes, message):
    with pytest.raises(ValueError, match=message):
        make_source(root / "deepglobe" / "raw", **changes)


def test_a_reader_that_breaks_its_promise_is_named(root, monkeypatch):
    monkeypatch.setattr(deepglobe, "source", partial(make_source, size=SIDE + 1))
    with pytest.raises(ValueError, match=r"group 0: the reader gave images of .*, expected"):
        prepare(root)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sums_are_exact_and_do_not_overflow(dtype):
    most = np.iinfo(dtype).max
    images = np.full((40, 2, 64, 64), most, dtype=dtype)
    images[:, 1] = np.random.default_rng(0).integers(0, most + 1, (40, 64, 64))
    sums, squares = filling.moments(images)
    assert sums == [int(band.sum(dtype=object)) for band in images.transpose(1, 0, 2, 3).astype(object)]
    assert squares == [int((band**2).sum()) for band in images.transpose(1, 0, 2, 3).astype(object)]
    assert filling.moments(images[:0]) == ([0, 0], [0, 0])


def test_an_array_larger_than_the_memory_is_mapped(tmp_path):
    side = 1024
    n = 2 * psutil.virtual_memory().total // side**2
    path = tmp_path / "images.npy"
    stored = np.lib.format.open_memmap(path, mode="w+", dtype="uint8", shape=(n, 1, side, side))  # holes: takes no room
    stored[n - 1] = 7
    del stored
    images = torch.from_numpy(prepared.open_array(path, ["uint8"], "c"))
    before = psutil.Process().memory_info().rss
    found = scenes.take(images, torch.tensor([n - 1, 0]))
    assert found.flatten(1).float().mean(dim=1).tolist() == [7, 0]
    images[0] = 3  # in memory alone
    assert images[0].float().mean() == 3
    assert prepared.open_array(path, ["uint8"], "r")[0].max() == 0
    assert psutil.Process().memory_info().rss - before < 100e6


def test_a_table_without_splits_is_said_to_be_damaged(root):
    path = prepare(root) / "scenes.csv"
    before = path.read_text()
    for damaged in ("", "scene\na\n", "scene,split\na\n"):
        path.write_text(damaged)
        with pytest.raises(scenes.DataError, match=r"scenes\.csv is damaged"):
            prepared.load(root / "deepglobe", "")
    path.write_text(before)
