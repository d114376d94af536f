"""What `status` says of notebooks, sweeps and records."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from zoo import FakePapermill, executed, make_root, notebook, write

from rsbook import batch, cli, planning, status, sweeps

KEY = "0123456789abcdef" * 2


@pytest.fixture
def papermill(monkeypatch):
    return FakePapermill().install(monkeypatch)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project in a home folder, with a page in each state that needs no other process."""
    monkeypatch.delenv("RSBOOK_STORE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    page = notebook("a = 1", "1")
    return make_root(tmp_path / "project", w__done=page, w__failed=page, w__missing=page, w__stale=page)


@pytest.fixture
def mixed(root, papermill, capsys):
    batch.run(["w/[ds]*"], {"a": 2}, root)
    write(root, "w/stale", notebook("a = 1", "2"))
    write(root, "w/failed", notebook("a = 1", "1/0"))
    assert batch.run(["w/failed"], root=root) == ["w/failed"]
    capsys.readouterr()
    return root


@contextmanager
def taken(path):
    """Another process is at what `path` is to hold."""
    code = (
        "import sys; from pathlib import Path; from rsbook.locks import alone\n"
        "with alone(Path(sys.argv[1])) as first: print(first, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path], stdin=-1, stdout=-1, text=True)
    try:
        assert process.stdout.readline() == "True\n"
        yield
    finally:
        process.communicate()


def states(root):
    """The state and the reason of each notebook, as its line says them."""
    found = {}
    for line in status.report(root).split("\n\n")[0].splitlines():
        name, state, *rest = re.split(r" {2,}", line)
        found[name] = (state, rest[-1] if rest else "")
    return found


# Notebooks


def test_each_state_is_told_with_its_reason(mixed):
    found = states(mixed)
    assert {name: state for name, (state, _) in found.items()} == {
        "w/done": "done",
        "w/failed": "failed",
        "w/missing": "missing",
        "w/stale": "stale",
    }
    assert found["w/stale"][1] == "notebook changed"
    assert found["w/failed"][1] == "see _build/failed/w/failed.ipynb"
    text = status.report(mixed)
    assert "\n\n4 notebooks: 1 done, 1 stale, 1 failed, 1 missing\n" in text
    write(mixed, "w/failed", notebook("a = 1", "3"))
    assert states(mixed)["w/failed"] == ("missing", ""), "what failed was another notebook"


def test_a_page_that_another_process_makes_is_running_until_that_ends(mixed):
    for name in ("done", "missing"):
        target = mixed / "book" / "_executed" / "w" / f"{name}.ipynb"
        before = states(mixed)[f"w/{name}"]
        with taken(target):
            assert states(mixed)[f"w/{name}"][0] == "running"
            assert re.search(r"\n\n4 notebooks: .*1 running, ", status.report(mixed))
        assert states(mixed)[f"w/{name}"] == before


def test_what_a_killed_process_leaves_is_not_running(mixed):
    (mixed / "book" / "_executed" / "w" / ".missing.ipynb.lock").write_text("")
    assert states(mixed)["w/missing"] == ("missing", "")


def test_a_page_counts_with_the_parameters_that_it_has(root, papermill):
    batch.run(["w/done"], {"a": 5}, root)
    assert states(root)["w/done"][0] == "done"
    write(root, "w/done", notebook("a = 'text'", "1"))
    assert states(root)["w/done"] == ("stale", "its parameters changed")


@pytest.mark.parametrize(
    "record",
    [
        None,
        {"fingerprint": "0"},
        {"components": [1], "parameters": {}},
        {"components": {"lock": 1}, "parameters": [], "started": 3, "seconds": "x"},
    ],
)
def test_a_damaged_page_is_stale_and_made_again(mixed, papermill, capsys, record):
    page = executed(mixed, "w/done") | {"metadata": {"rsbook": record}}
    (mixed / "book/_executed/w/done.ipynb").write_text(json.dumps(page))
    assert states(mixed)["w/done"] == ("stale", "damaged")
    assert cli.main(["run", "w/done", "-p", "a=2"], mixed) == 0
    assert capsys.readouterr().err == ""
    assert states(mixed)["w/done"][0] == "done"


def test_one_notebook_that_is_not_in_order_does_not_hide_the_others(mixed):
    write(mixed, "w/missing", notebook("import os"))
    (mixed / "notebooks/w/done.ipynb").write_text("{")
    found = states(mixed)
    assert found["w/done"] == ("stale", "its notebook is gone")
    assert (found["w/missing"][0], found["w/stale"][0]) == ("missing", "stale")
    assert cli.main(["status"], mixed) == 0


def test_columns_are_aligned_and_no_line_ends_in_blanks(mixed):
    write(mixed, "w/a_very_long_name_of_a_notebook", notebook("a = 1"))
    page = executed(mixed, "w/done")
    page["metadata"]["rsbook"]["seconds"] = 83
    (mixed / "book/_executed/w/done.ipynb").write_text(json.dumps(page))
    lines = status.report(mixed).split("\n\n")[0].splitlines()
    places = [re.search(r" (done|stale|failed|missing)\b", line.removeprefix("w/")[7:]).start() for line in lines]
    assert len(set(places)) == 1
    assert len(lines) == 5
    whens = {match.span() for line in lines if (match := re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", line))}
    tooks = {match.end() for line in lines if (match := re.search(r"\d+ s\b", line))}
    assert len(whens) == len(tooks) == 1
    assert [line for line in lines if line != line.rstrip()] == []


def test_times_are_those_of_this_machine(root, papermill, monkeypatch):
    batch.run(["w/done"], root=root)
    path = root / "book/_executed/w/done.ipynb"
    page = executed(root, "w/done")
    page["metadata"]["rsbook"] |= {"started": "2026-01-31T23:30:00+00:00", "seconds": 3723.4}
    path.write_text(json.dumps(page))
    try:
        for zone, shown in (("UTC", "2026-01-31 23:30"), ("Asia/Kolkata", "2026-02-01 05:00")):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert re.search(rf"w/done +done +{shown} +1 h 2 min\n", status.report(root))
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "odd",
    [{"started": None}, {"started": "soon"}, {"seconds": "long"}, {"seconds": float("inf")}, {"started": "0001-01-01"}],
)
def test_a_time_that_is_none_is_left_out(root, papermill, odd):
    batch.run(["w/done"], root=root)
    page = executed(root, "w/done")
    page["metadata"]["rsbook"] |= odd
    (root / "book/_executed/w/done.ipynb").write_text(json.dumps(page))
    assert states(root)["w/done"][0] == "done"


def test_no_notebooks_is_one_line_and_1(tmp_path, capsys):
    assert cli.main(["status"], tmp_path) == 1
    assert capsys.readouterr() == ("", "rsbook: there are no notebooks in notebooks/<work>/\n")


# Sweeps


def swept(root, text, name="seeds", **how):
    file = root.parent / f"{name}.yml"
    file.write_text(text)
    made = sweeps.jobs(file, root)
    sweeps.declare(made)
    return made, batch.execute(made, root, **how)


def sweep_lines(root):
    return [line for line in status.report(root).splitlines() if line.startswith("sweep ")]


def test_a_sweep_is_counted_by_its_points(root, papermill):
    text = "notebook: w/done\ngrid: {a: [1, 2, 3, 4]}"
    assert sweep_lines(root) == []
    made, _ = swept(root, text)
    assert sweep_lines(root) == ["sweep seeds, 4 executions: 4 done"]
    for job in made[:2]:
        job.target.unlink()
    with taken(made[0].target):
        assert sweep_lines(root) == ["sweep seeds, 4 executions: 2 done, 1 running, 1 missing"]
    write(root, "w/done", notebook("a = 1", "1/0"))
    batch.execute(made[:1], root)
    assert sweep_lines(root) == ["sweep seeds, 4 executions: 2 stale, 1 failed, 1 missing"]
    (root / "notebooks/w/done.ipynb").unlink()
    assert sweep_lines(root) == ["sweep seeds, 4 executions: 2 stale, 2 missing"]
    swept(root, "notebook: w/stale\ngrid: {a: [1]}", "another")
    assert sweep_lines(root)[0] == "sweep another, 1 execution: 1 done"


def test_a_sweep_that_asks_for_more_now_is_not_done(root, papermill):
    page = notebook("a = 1\nb = 1", "1")
    write(root, "w/done", page)
    swept(root, "notebook: w/done\ngrid: {a: [1, 2]}")
    swept(root, "notebook: w/done\nparameters: {b: 2}\ngrid: {a: [1, 2, 3]}", dry_run=True)
    assert sweep_lines(root) == ["sweep seeds, 3 executions: 2 stale, 1 missing"]
    swept(root, "notebook: w/done\nparameters: {b: 2}\ngrid: {a: [1]}")
    assert sweep_lines(root) == ["sweep seeds, 1 execution: 1 done"]


def test_a_damaged_sweep_is_named_and_hides_nothing(mixed, capsys):
    swept(mixed, "notebook: w/done\ngrid: {a: [1]}")
    path, _ = mixed / "_build/sweeps/broken/sweep.csv", swept(mixed, "notebook: w/done\ngrid: {a: [2]}", "broken")
    path.write_text("executed\n1\n")
    why = "_build/sweeps/broken/sweep.csv is damaged: run the sweep again, and it is written anew"
    assert sweep_lines(mixed) == [f"sweep broken: {why}", "sweep seeds, 1 execution: 1 done"]
    assert cli.main(["status"], mixed) == 0


# Records


def put(store, name, text=None):
    path = Path(store, "work.train", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"fingerprint": path.stem}) if text is None else text)
    return path


def test_records_and_begun_runs_are_counted(root):
    store = root / "_runs"
    assert status.report(root).endswith("\nrecords in _runs: 0, 0 runs begun with a checkpoint")
    for i in range(3):
        put(store, f"{i}" * 32 + ".json")
    put(store, f"{KEY}.safetensors")
    put(store, f".{KEY}.json.12.tmp")
    put(store, f".{KEY}.json.lock")
    put(store, f".{KEY}.json")
    put(store, f".{KEY}.safetensors")
    put(store / "work.train", f"{KEY}.safetensors")  # weights of ended runs lie a folder deeper
    assert status.report(root).endswith("\nrecords in _runs: 3, 1 run begun with a checkpoint")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"fingerprint": "0"}', "[" * 100_000])
def test_a_damaged_record_is_named_with_its_cure(root, capsys, text):
    put(root / "_runs", f"{'1' * 32}.json")
    put(root / "_runs", f"{KEY}.json", text)
    assert cli.main(["status"], root) == 0
    assert capsys.readouterr().out.endswith(
        "\nrecords in _runs: 2, 0 runs begun with a checkpoint\n"
        f"  damaged: _runs/work.train/{KEY}.json: delete it, and its run is done again\n"
    )


def test_the_store_may_lie_elsewhere(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RSBOOK_STORE", str(tmp_path / "at home"))
    put(tmp_path / "at home", f"{KEY}.json")
    assert status.report(root).splitlines()[-1].startswith("records in ~/at home: 1, ")
    put(tmp_path / "given", f"{KEY}.json", "")
    assert cli.main(["status", "--store", str(tmp_path / "given")], root) == 0
    assert f"damaged: ~/given/work.train/{KEY}.json" in capsys.readouterr().out


def test_a_store_out_of_reach_is_said_and_hides_nothing(mixed, monkeypatch, capsys):
    class OutOfReach:
        def glob(self, _):
            raise ConnectionError("no route")

        def __str__(self):
            return "s3://bucket/runs"

    monkeypatch.setattr(planning, "store", lambda root: OutOfReach())
    assert cli.main(["status"], mixed) == 0
    out = capsys.readouterr().out
    last = "records in s3://bucket/runs: cannot be counted (ConnectionError); see python -m rsbook doctor"
    assert out.splitlines()[-1] == last
    assert "4 notebooks: " in out


def test_an_address_that_nobody_knows_is_wrong_usage(mixed, monkeypatch, capsys):
    monkeypatch.setenv("RSBOOK_STORE", "")  # to be put back
    assert cli.main(["status", "--store", "nowhere://x"], mixed) == 2
    said = capsys.readouterr()
    assert said.err.startswith("rsbook: the store 'nowhere://x' cannot be reached")
    assert said.err.count("\n") == 1
    assert said.out == ""


# All of it


def test_a_report_names_no_folder_above_the_project_and_writes_nothing(mixed, tmp_path):
    swept(mixed, "notebook: w/done\ngrid: {a: [1, 2]}")
    put(mixed / "_runs", f"{KEY}.json", "")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    text = status.report(mixed)
    assert str(tmp_path) not in text
    assert "/tmp" not in text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_it_imports_nothing_heavy(mixed, tmp_path):
    code = (
        "import sys; from pathlib import Path; from rsbook import cli; code = cli.main(['status'], Path(sys.argv[1]))\n"
        "print(code, sorted({'torch', 'numpy', 'pandas', 'papermill', 'distributed'} & set(sys.modules)))"
    )
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(mixed)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stderr == ""
