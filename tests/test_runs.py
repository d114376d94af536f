"""Records of runs: what identifies a run, what a record holds, and that nothing is lost, half-written or done twice."""

import ast
import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rsbook import presets, provenance, runs, scenes, sources
from rsbook.checkpoints import weights_path
from rsbook.files import replacing
from rsbook.runs import RunError


def work(*, value, seed=0, then=None, dataset=None, root, device, checkpoint):
    """A run that notes that it was called, and by which process; `then` says how it goes on."""
    with (Path(os.environ["CALLS"])).open("a") as file:
        file.write(f"{value} {os.getpid()} {torch.get_num_threads()}\n")
    if then == "raise":
        raise LookupError(f"no {value}")
    if then == "die":
        os._exit(3)
    if then == "interrupt":
        raise KeyboardInterrupt
    if then == "checkpoint" and not checkpoint.exists():
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(f"state of {value}")
        raise InterruptedError(f"interrupted at {value}")
    if then == "weights":
        path = weights_path(checkpoint.parent, f"w{value}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"weights of {value}")
        return {"score": value / 8, "weights": f"w{value}"}
    results = {
        "tensor": torch.ones(2),
        "nan": {"history": [{"loss": 1.0}, {"loss": float("nan")}]},
        "numpy": {"x": np.int64(3)},
        "keys": {"classes": {1: 0.5}},
        "nothing": None,
    }
    return results[then] if then in results else {"score": value / 8, "curve": [value, None], "device_was": device}


def grid(*values, **more):
    return [{"value": value, **more} for value in values]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The folder of the records; calls of `work` are noted beside it."""
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "store"


@pytest.fixture
def table(store):
    def table(rows, **settings):
        defaults = {"store": store, "device": "cpu", "workers": 0, "progress": False}
        return runs.table(work, rows, **{**defaults, **settings})

    return table


def calls(store):
    path = store.parent / "calls"
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def records(store):
    return sorted((store / "test_runs.work").glob("*.json"))


# The table


def test_one_row_a_run_in_the_order_of_the_grid_and_only_what_is_missing_is_done(table, store):
    first = table(grid(3, 1, 2))
    assert calls(store) == [3, 1, 2]
    assert first["value"].tolist() == [3, 1, 2]
    assert first["score"].tolist() == [0.375, 0.125, 0.25]
    defaults, results = ["dataset", "seed", "then"], ["score", "curve", "device_was"]
    assert list(first.columns) == [*defaults, "value", *results, "seconds", "record"]
    assert first[defaults].to_numpy().tolist() == [[None, 0, None]] * 3
    assert [json.loads(Path(path).read_text())["results"]["score"] for path in first["record"]] == [0.375, 0.125, 0.25]
    again = table(grid(2, 4, 3))
    assert calls(store) == [3, 1, 2, 4]
    assert again["value"].tolist() == [2, 4, 3]
    assert again.iloc[2].equals(first.iloc[0])
    pd.testing.assert_frame_equal(table(grid(3, 1, 2)), first)
    assert calls(store) == [3, 1, 2, 4]


def test_duplicates_are_done_once_and_shown_as_often_as_asked(table, store):
    found = table(grid(1, 2, 1))
    assert found["value"].tolist() == [1, 2, 1]
    assert calls(store) == [1, 2]
    assert found["record"].nunique() == len(records(store)) == 2


def test_fixed_parameters_join_every_row(table, store):
    found = table(grid(1, 2), seed=7)
    assert found["seed"].tolist() == [7, 7]
    with pytest.raises(ValueError, match="seed: given both in the grid and for all runs"):
        table(grid(1, seed=1), seed=7)


def test_a_parameter_given_its_default_is_as_good_as_not_given(table, store):
    first = table([{"value": 1}, {"value": 1, "seed": 0}, {"value": 1, "then": None, "dataset": None, "seed": 0}])
    assert calls(store) == [1]
    assert first["record"].nunique() == len(records(store)) == 1
    assert json.loads(records(store)[0].read_text())["parameters"] == {"value": 1}
    pd.testing.assert_frame_equal(table(grid(1), seed=0, then=None), first.iloc[:1])
    assert calls(store) == [1]
    both = table([{"value": 1}, {"value": 1, "seed": 7}])
    assert both["seed"].tolist() == [0, 7]
    assert calls(store) == [1, 1]
    assert both["record"].nunique() == 2


def with_a_tuple(*, area=(1, 2), root, device, checkpoint):
    return {"area_was": list(area)}


def test_a_default_is_compared_as_json_holds_it(store):
    rows = [{}, {"area": (1, 2)}, {"area": [1, 2]}, {"area": (2, 1)}]
    found = runs.table(with_a_tuple, rows, store=store, device="cpu", workers=0, progress=False)
    assert found["area_was"].tolist() == found["area"].tolist() == [[1, 2], [1, 2], [1, 2], [2, 1]]
    assert found["record"].nunique() == 2


def test_an_empty_grid_is_an_empty_table(table, store):
    assert table([]).empty
    assert not store.exists()


def test_two_workers_give_the_same_records_and_a_death_costs_one_run(table, store, capfd):
    with pytest.raises(RunError) as raised:
        table([*grid(1, 2), {"value": 3, "then": "die"}, {"value": 4, "then": "raise"}, *grid(5)], workers=2)
    message = str(raised.value)
    assert message.startswith("2 of 5 runs failed, the others are kept:\n")
    assert (
        "  a worker process died, 3 times of 3 (killed; out of memory?) in the run with {'then': 'die', 'value': 3}"
        in message
    )
    assert "  LookupError: no 4 in the run with {'then': 'raise', 'value': 4}" in message
    assert sorted(calls(store)) == [1, 2, 3, 3, 3, 4, 5]
    lines = (store.parent / "calls").read_text().split("\n")[:-1]
    assert {line.split()[2] for line in lines} == {"1"}  # one thread in each, for the same bytes on any machine
    assert len({line.split()[1] for line in lines}) >= 2
    kept = {json.loads(path.read_text())["parameters"]["value"] for path in records(store)}
    assert kept == {1, 2, 5}
    found = table(grid(5, 2, 1))
    assert len(calls(store)) == 7
    shutil.rmtree(store)
    alone = table(grid(5, 2, 1))
    pd.testing.assert_frame_equal(found.drop(columns="seconds"), alone.drop(columns="seconds"))


@pytest.mark.parametrize("then", ["raise", "nan"])
def test_in_this_process_too_a_failing_run_does_not_stop_the_others(table, store, then):
    with pytest.raises(RunError, match=r"1 of 3 runs failed, the others are kept:\n  .*'value': 2") as raised:
        table([{"value": 1}, {"value": 2, "then": then}, {"value": 3}])
    assert calls(store) == [1, 2, 3]
    assert len(records(store)) == 2
    assert "Traceback (most recent call last)" in raised.value.__notes__[0]
    assert list(store.rglob("*.tmp")) == []


@pytest.mark.parametrize(
    ("then", "what"),
    [
        ("nan", r"results\['history'\]\[1\]\['loss'\] is nan"),
        ("tensor", r"results is tensor\(.*\), expected a dict"),
        ("nothing", "results is None, expected a dict"),
        ("numpy", r"results\['x'\] is (np\.int64\()?3"),
        ("keys", r"results\['classes'\] has the key 1"),
    ],
)
def test_results_that_json_cannot_hold_are_refused_by_name(table, store, then, what):
    with pytest.raises(RunError, match=rf"JSON cannot hold what test_runs\.work returned: {what}"):
        table([{"value": 1, "then": then}])
    assert records(store) == []


@pytest.mark.parametrize("then", [None, "raise", "interrupt"])
def test_the_bar_counts_runs_and_is_closed_on_every_path(table, store, monkeypatch, then):
    bars = []

    class Bar(runs.tqdm):
        closed = False

        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            bars.append(self)

        def close(self):
            self.closed = True
            super().close()

    monkeypatch.setattr(runs, "tqdm", Bar)
    expected = {"raise": pytest.raises(RunError), "interrupt": pytest.raises(KeyboardInterrupt), None: nullcontext()}
    with expected[then]:
        table([{"value": 1}, {"value": 2, "then": then}], progress=True)
    assert [bar.closed for bar in bars] == [True]
    assert (bars[0].n, bars[0].total) == (1 if then == "interrupt" else 2, 2)
    assert len(records(store)) == (2 if then is None else 1)


def test_progress_goes_to_stderr_only_when_asked(table, capfd):
    table(grid(1))
    assert capfd.readouterr() == ("", "")
    table(grid(2), progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "1/1" in err
    table(grid(1, 2), progress=True)  # nothing to do
    assert capfd.readouterr() == ("", "")


def test_threads_are_one_in_a_run_and_put_back_after_it(table, store):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(RunError):
            table([{"value": 1}, {"value": 2, "then": "raise"}])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert [line.split()[2] for line in (store.parent / "calls").read_text().splitlines()] == ["1", "1"]


def test_the_store_is_that_of_the_environment_unless_told(table, store, monkeypatch, tmp_path):
    monkeypatch.setenv("RSBOOK_STORE", str(tmp_path / "elsewhere"))
    path = Path(table(grid(1), store=None)["record"][0])
    assert path.parent == tmp_path / "elsewhere" / "test_runs.work"
    assert Path(table(grid(1))["record"][0]).parent == store / "test_runs.work"


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"value": {1, 2}}], {}, r"value=\{1, 2\}: a run's parameters must be plain data that JSON can hold"),
        ([{"value": float("nan")}], {}, "value=nan: .*plain data"),
        ([{"value": torch.ones(1)}], {}, "value=tensor"),
        ([{"value": {"a": 1, 2: 3}}], {}, "value=.*plain data"),
        ([{"value": 1, "sede": 3}], {}, r"cannot be called with .*unexpected keyword argument 'sede'"),
        ([{}], {}, "missing a required argument: 'value'"),
        ([{"value": 1, "checkpoint": "x"}], {}, "checkpoint"),
        ([{"value": 1}], {"workers": -1}, "workers=-1"),
        ([{"value": 1}], {"device": "gpu"}, "device='gpu'"),
        ([{"value": 1, "dataset": "blumarble"}], {}, "dataset='blumarble'"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_runs(table, store, rows, settings, message):
    with pytest.raises(ValueError, match=message):
        table([{"value": 0}, *rows], **settings)
    assert calls(store) == []
    assert not store.exists()


@pytest.mark.parametrize("function", [lambda **_: {}, functools.partial(work, value=1)])
def test_functions_that_workers_cannot_import_are_refused(store, function):
    with pytest.raises(ValueError, match="can import from a module"):
        runs.table(function, [{}], store=store)


# Records


def test_a_record_holds_all_that_is_needed_to_run_it_again(table, store, monkeypatch):
    table(grid(3, seed=42, dataset="bluemarble"))
    (path,) = records(store)
    record = json.loads(path.read_text())
    assert path.stem == record["fingerprint"] == runs.fingerprint(work, record["parameters"])
    assert re.fullmatch(r"[0-9a-f]{32}", path.stem)
    assert record["function"] == "test_runs.work"
    assert record["parameters"] == {"value": 3, "seed": 42, "dataset": "bluemarble"}
    assert record["data"] == {"bluemarble": scenes.checksum("bluemarble")}
    assert {"test_runs", "rsbook.label_propagation", "rsbook.archives.bluemarble"} <= record["sources"].keys()
    assert record["results"] == {"score": 0.375, "curve": [3, None], "device_was": "cpu"}
    assert 0 <= record["seconds"] < 600
    assert time.time() - pd.Timestamp(record["started"]).timestamp() < 600
    assert record["started"].endswith("+00:00")
    assert record["libraries"]["torch"] == provenance.locked_versions()["torch"]
    assert 10 < record["memory"]["process_megabytes"] < 100_000
    assert record["provenance"].keys() == {
        *("commit", "uncommitted_changes", "lock", "python", "system", "device", "driver", "versions")
    }


def test_records_and_provenance_name_no_host_user_or_folder(table, store):
    table(grid(1))
    text = records(store)[0].read_text()
    secrets = [socket.gethostname(), str(Path.home()), str(store), str(runs.ROOT), os.environ.get("USER") or ""]
    for secret in secrets:
        assert len(secret) < 6 or secret not in text  # a short one may be part of a hash
    assert not re.search(r'"/|\\\\', text)  # no absolute path


def change(text, **changes):
    return json.dumps({**json.loads(text), **changes})


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "null",
        lambda text: "{}",
        lambda text: "\ud800".encode("utf-16", "surrogatepass").decode("latin-1"),
        lambda text: change(text, fingerprint="0" * 32),
        lambda text: change(text, parameters={"value": 2}),
        lambda text: change(text, results=None),
        lambda text: change(text, seconds="long"),
    ],
)
def test_a_damaged_record_is_said_with_its_cure(table, store, damage):
    table(grid(1))
    (path,) = records(store)
    path.write_text(damage(path.read_text()), encoding="latin-1")
    damaged = path.read_bytes()
    with pytest.raises(RunError, match=rf"{path.name} is damaged .*: delete it, and the run is done again"):
        table(grid(1, 2))
    assert path.read_bytes() == damaged
    assert calls(store) == [1]
    path.unlink()
    assert table(grid(1))["score"].tolist() == [0.125]
    assert calls(store) == [1, 1]


def test_a_record_under_another_name_is_damaged(table, store):
    table(grid(1, 2))
    first, second = records(store)
    shutil.copy(first, second)
    with pytest.raises(RunError, match=f"{second.name} is damaged"):
        table(grid(1, 2))


def test_a_record_whose_weights_are_gone_counts_as_missing_and_is_done_again(table, store):
    rows = [*grid(1, 2, then="weights"), *grid(3)]
    first = table(rows)
    assert first["weights"].tolist()[:2] == ["w1", "w2"]
    path = weights_path(store / "test_runs.work", "w2")
    fingerprint = runs.fingerprint(work, rows[1])
    assert runs.load_record(path.parents[1], fingerprint)["results"]["weights"] == "w2"
    path.unlink()
    assert runs.load_record(path.parents[1], fingerprint) is None
    again = table(rows)
    assert calls(store) == [1, 2, 3, 2]
    assert path.read_text() == "weights of 2"
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), first.drop(columns="seconds"))
    assert len(records(store)) == 3


def test_files_that_dead_processes_left_are_no_records(table, store):
    path = store / "test_runs.work" / f"{runs.fingerprint(work, {'value': 1})}.json"
    path.parent.mkdir(parents=True)
    leftover = path.with_name(f".{path.name}.123.tmp")
    leftover.write_text("{")
    assert table(grid(1))["score"].tolist() == [0.125]
    assert records(store) == [path]
    assert leftover.read_text() == "{"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_any_moment_a_record_is_whole_or_absent(table, store):
    table(grid(1))
    (path,) = records(store)
    record = json.loads(path.read_text())
    moments, halves, wholes = random.Random(0), 0, 0
    for i in range(100):
        folder = store / str(i)
        text = json.dumps({**record, "results": {"curve": [i] * 20_000}})
        if (child := os.fork()) == 0:
            try:
                while True:
                    with replacing(folder / path.name) as temporary:
                        temporary.write_text(text)
            finally:
                os._exit(1)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        found = runs.load_record(folder, path.stem)
        assert found is None or found["results"]["curve"] == [i] * 20_000
        assert [p.name for p in folder.glob("*.json")] == ([] if found is None else [path.name])
        wholes += found is not None
        halves += bool(list(folder.glob(".*.tmp")))
    assert wholes > 0  # the moments were neither all too early
    assert halves > 0  # nor all between two writes


# What identifies a run


def copy_of_rsbook(folder):
    shutil.copytree(runs.ROOT / "rsbook", folder / "rsbook", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def lp_fingerprint(root=None, **changes):
    from rsbook import label_propagation  # not at the top: every worker of this file would import timm and Lightning

    training = presets.load("label_propagation", "smoke")["training"]
    row = {"dataset": "bluemarble", "method": "none", "area_range": None, "seed": 42}
    return runs.fingerprint(label_propagation.train, {**training, **row, **changes}, root=root)


def test_every_parameter_counts_but_not_its_order_or_whether_it_is_a_tuple():
    base = lp_fingerprint()
    assert base == lp_fingerprint()
    changed = [
        lp_fingerprint(seed=43),
        lp_fingerprint(epochs=3),
        lp_fingerprint(method="cutmix"),
        lp_fingerprint(min_pixels=0),
    ]
    assert len({base, *changed}) == 5
    assert runs.fingerprint(work, {"value": 1, "seed": 2}) == runs.fingerprint(work, {"seed": 2, "value": 1})
    assert lp_fingerprint(area_range=(0.1, 0.3)) == lp_fingerprint(area_range=[0.1, 0.3])


def test_function_counts(monkeypatch):
    assert runs.fingerprint(work, {"value": 1}) != runs.fingerprint(grid, {"value": 1})


def test_where_how_and_how_many_at_a_time_do_not_count(table, store, tmp_path):
    shutil.copytree(scenes.DATA / "bluemarble", tmp_path / "data" / "bluemarble")
    rows = grid(1, dataset="bluemarble")
    table(rows)
    table(rows, root=tmp_path / "data", device="auto", workers=2)
    shutil.copytree(store, tmp_path / "moved")
    table(rows, store=tmp_path / "moved")
    assert calls(store) == [1]


def test_data_counts_by_its_checksum_not_its_place(tmp_path):
    folder = tmp_path / "bluemarble"
    folder.mkdir()
    manifest = (scenes.DATA / "bluemarble" / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(manifest)
    assert lp_fingerprint(root=tmp_path) == lp_fingerprint()
    (folder / "SHA256SUMS").write_text(manifest.replace("a", "b", 1))
    assert lp_fingerprint(root=tmp_path) != lp_fingerprint()
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(scenes.DataError, match="SHA256SUMS is missing"):
        lp_fingerprint(root=tmp_path)


def test_sources_that_can_change_a_number_count_and_others_do_not(tmp_path, monkeypatch):
    base = lp_fingerprint()
    monkeypatch.setattr(sources, "ROOT", copy_of_rsbook(tmp_path))
    assert lp_fingerprint() == base  # not the place of the sources either
    counted = set()
    for path in sorted((tmp_path / "rsbook").rglob("*.py")):
        before = path.read_text()
        path.write_text(before + "\nCHANGED = 1\n")
        if lp_fingerprint() != base:
            counted.add(path.relative_to(tmp_path / "rsbook").with_suffix("").as_posix())
        path.write_text(before)
    direct = {"label_propagation", "mixing", "models", "scenes", "training", "noise", "explain", "thematic"}
    assert counted >= direct | {"augmentations", "checkpoints", "positions", "metrics", "archives/bluemarble"}
    assert not counted & {
        "figures",
        "report",
        "batch",
        "presets",
        "cli",
        "published",
        "runs",
        "cluster",
        "receipts",
        "planning",
    }


def test_comments_docstrings_and_layout_do_not_count(tmp_path, monkeypatch):
    base = lp_fingerprint()
    monkeypatch.setattr(sources, "ROOT", copy_of_rsbook(tmp_path))
    for path in (tmp_path / "rsbook").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            if documented and ast.get_docstring(node) is not None:
                node.body[0].value.value = "Other words."
        path.write_text("# another comment\n\n" + ast.unparse(tree))
    assert lp_fingerprint() == base


def test_what_the_reader_of_the_data_imports_counts_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOT", copy_of_rsbook(tmp_path))
    reader = tmp_path / "rsbook" / "archives" / "bluemarble.py"
    reader.write_text(reader.read_text() + "\nfrom rsbook.archives import tiles\n")
    (tmp_path / "rsbook" / "archives" / "tiles.py").write_text("SIZE = 1")
    base = lp_fingerprint()
    (tmp_path / "rsbook" / "archives" / "tiles.py").write_text("SIZE = 2")
    assert lp_fingerprint() != base
    without = runs.source_hashes(work)
    assert "rsbook.label_propagation" in without  # from here, as above
    assert "rsbook.archives.tiles" not in without


def test_sources_that_change_while_runs_are_planned_are_an_error(store, tmp_path, monkeypatch):
    print_before = runs.fingerprint(work, {"value": 1})
    monkeypatch.setattr(runs, "source_hashes", lambda function: {"test_runs": "changed"})
    with pytest.raises(RunError, match="are not those that the run was planned with: start again"):
        runs.run(work, {"value": 1}, print_before, store, None, "cpu")
    assert calls(store) == []
    assert not store.exists()


def test_a_run_finds_its_checkpoint_again_and_leaves_none_behind(table, store):
    rows = grid(1, then="checkpoint")
    with pytest.raises(RunError, match="interrupted at 1"):
        table(rows)
    path = store / "test_runs.work" / f"{runs.fingerprint(work, rows[0])}.safetensors"
    assert path.read_text() == "state of 1"
    assert table(rows)["score"].tolist() == [0.125]
    assert not path.exists()
    assert calls(store) == [1, 1]


def test_two_stores_on_one_scheduler_are_two_runs(store, tmp_path):
    from rsbook import cluster

    with cluster.connect(workers=1) as client:
        for name in ("one", "two"):
            settings = {"store": tmp_path / name, "scheduler": client.scheduler.address, "progress": False}
            assert runs.table(work, grid(1), device="cpu", **settings)["score"].tolist() == [0.125]
    assert calls(store) == [1, 1]


def test_a_record_that_no_worker_leaves_here_is_said(table, monkeypatch):
    monkeypatch.setattr(runs, "ARRIVES", 0.2)
    monkeypatch.setattr(runs, "run", lambda *given: None)
    with pytest.raises(RunError, match=r"[0-9a-f]{32}\.json is not there though its run has ended"):
        table(grid(1))


# What is stored


def stored(store, **settings):
    return runs.stored(work, store=store, **settings)


def test_stored_runs_are_those_of_the_table_and_nothing_is_run(table, store):
    first = table(grid(3, 1, 2))
    found = stored(store)
    assert calls(store) == [3, 1, 2]
    assert found["value"].tolist() == [1, 2, 3]  # by their parameters, whenever they were run
    pd.testing.assert_frame_equal(found, first.sort_values("value", ignore_index=True))
    assert stored(store / "elsewhere").empty


def test_stored_runs_are_chosen_by_parameters_and_defaults_count_as_given(table, store):
    table(grid(1, 2) + grid(1, 3, seed=7))
    assert stored(store, seed=7)["value"].tolist() == [1, 3]
    assert stored(store, seed=0)["value"].tolist() == [1, 2]
    assert stored(store, seed=7, value=1)["score"].tolist() == [0.125]
    assert stored(store, then=None, dataset=None)["value"].tolist() == [1, 2, 1, 3]
    assert stored(store, seed=False).empty
    table(grid(7, dataset="bluemarble"))
    assert stored(store, dataset="bluemarble")["value"].tolist() == [7]
    assert stored(store, dataset=None)["value"].tolist() == [1, 2, 1, 3]
    with pytest.raises(ValueError, match=r"test_runs\.work takes no colour"):
        stored(store, colour="red")
    for name in ("device", "checkpoint"):  # no part of a run
        with pytest.raises(ValueError, match=rf"test_runs\.work takes no {name}"):
            stored(store, **{name: "cpu"})
    found = runs.table(with_a_tuple, [{}, {"area": (2, 1)}], store=store, device="cpu", workers=0, progress=False)
    chosen = runs.stored(with_a_tuple, store=store, area=(1, 2))
    pd.testing.assert_frame_equal(chosen, found.head(1))


def test_stored_runs_of_older_code_or_data_and_damaged_ones_are_left_out(table, store, tmp_path, monkeypatch):
    table(grid(1, 2, 3, 4) + grid(5, 6, then="weights") + grid(7, dataset="bluemarble"))
    paths = {json.loads(path.read_text())["parameters"]["value"]: path for path in records(store)}
    paths[1].write_text(paths[1].read_text()[:50])
    paths[2].write_text(change(paths[2].read_text(), fingerprint="0" * 32))
    shutil.copy(paths[3], paths[3].with_name("another.json"))
    weights_path(store / "test_runs.work", "w5").unlink()
    before = {path: path.read_bytes() for path in records(store)}
    assert stored(store)["value"].tolist() == [7, 6, 3, 4]
    folder = tmp_path / "data" / "bluemarble"
    folder.mkdir(parents=True)
    assert stored(store, root=tmp_path / "data")["value"].tolist() == [6, 3, 4]  # those data are not here
    manifest = (scenes.DATA / "bluemarble" / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(manifest.replace("a", "b", 1))
    assert stored(store, root=tmp_path / "data")["value"].tolist() == [6, 3, 4]
    monkeypatch.setattr(runs, "source_hashes", lambda function: {"test_runs": "changed"})
    assert stored(store).empty
    assert {path: path.read_bytes() for path in records(store)} == before
    assert calls(store) == [1, 2, 3, 4, 5, 6, 7]
