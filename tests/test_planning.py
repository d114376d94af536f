"""Which change makes which notebook run again, and what is said of it; for one notebook see test_batch.py."""

import json
import os
from pathlib import Path

import pytest
from zoo import FIRST, FakePapermill, make_root, notebook, write

from rsbook import batch, planning
from rsbook.parameters import UsageError

MIXES = "from rsbook import mixing"
SHOWS = "from rsbook import widgets"
ALL = {"v/other", "w/mixes", "w/plain", "w/shows"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project whose notebooks reach different sources, data and records."""
    monkeypatch.delenv("RSBOOK_STORE", raising=False)
    deepglobe = FIRST.replace('"bluemarble"', '"deepglobe"')
    return make_root(
        tmp_path / "project",
        w__mixes=notebook(FIRST, MIXES),
        w__plain=notebook(deepglobe, "1"),
        w__shows=notebook("a = 1", SHOWS, "runs.stored(f)"),
        v__other=notebook("a = 1", "1"),
    )


@pytest.fixture
def papermill(monkeypatch):
    return FakePapermill().install(monkeypatch)


def prints(root, given=None):
    return {job.name: planning.fingerprint(job.name, job.parameters, root) for job in planning.jobs((), given, root)}


def edit(path, text=""):
    def change(root):
        Path(root, path).parent.mkdir(parents=True, exist_ok=True)
        Path(root, path).write_text(text)

    change.__name__ = path
    return change


def touch_all(root):
    """New times, other line ends in notebooks, and the same bytes elsewhere."""
    for path in root.rglob("*"):
        if path.suffix == ".ipynb":
            path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
        os.utime(path, (1, 1))


# Fingerprints

CHANGES = [
    # sources: what a notebook can reach, and nothing else
    (edit("rsbook/mixing.py", "from rsbook import positions\na = 2\n"), {"w/mixes": {"sources"}}),
    (edit("rsbook/positions.py", "b = 2\n"), {"w/mixes": {"sources"}}),
    (edit("rsbook/archives/bluemarble.py", "c = 2\n"), {"w/mixes": {"sources"}}),
    (edit("rsbook/archives/deepglobe.py", "c = 2\n"), {"w/plain": {"sources"}}),
    (edit("rsbook/widgets/__init__.py", "from rsbook import positions\n"), {"w/shows": {"sources"}}),
    (edit("rsbook/widgets/map.mjs", "let b\n"), {"w/shows": {"sources"}}),
    (edit("rsbook/scenes.py", "d = 2\n"), {}),
    # data: of its data set, and of its work
    (edit("data/bluemarble/SHA256SUMS", "11  a.tif\n"), {"w/mixes": {"data"}}),
    (edit("data/deepglobe/SHA256SUMS", "11  a.tif\n"), {"w/plain": {"data"}}),
    (edit("data/published/w/table.csv", "1\n"), {name: {"data"} for name in ALL - {"v/other"}}),
    (edit("data/results/v/deep/table.csv", "1\n"), {"v/other": {"data"}}),
    (edit("data/results/v/.table.csv.12.tmp", "1\n"), {}),
    (edit("data/published/x/table.csv", "1\n"), {}),
    (edit("data/bluemarble/a.tif", "other pixels"), {}),
    # all that is locked
    (edit("requirements.lock", "torch==3\n"), {name: {"lock"} for name in ALL}),
    (lambda root: (root / "requirements.lock").unlink(), {name: {"lock"} for name in ALL}),
    # the notebook itself
    (lambda root: write(root, "v/other", notebook("a = 1", "2")), {"v/other": {"notebook"}}),
    (lambda root: write(root, "v/other", notebook("a = 2", "1")), {"v/other": {"notebook", "parameters"}}),
    (lambda root: write(root, "v/other", notebook("a = 1", MIXES)), {"v/other": {"notebook", "sources"}}),
    (lambda root: write(root, "v/other", notebook("a = 1", "runs.stored(f)")), {"v/other": {"notebook", "records"}}),
    # records
    (edit("_runs/f/0123.json"), {"w/shows": {"records"}}),
    (edit("_runs/f/0123.safetensors"), {}),
    (edit("_runs/f/.0123.json.lock"), {}),
    (edit("_runs/f/weights/0123.json"), {}),
    # how, and not what
    (edit("rsbook/locks.py", "e = 1\n"), {}),
    (edit("book/_executed/w/mixes.ipynb", "{}"), {}),
    (edit("_build/failed/w/mixes.ipynb", "{}"), {}),
    (touch_all, {}),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=[getattr(c, "__name__", None) for c, _ in CHANGES])
def test_a_change_counts_for_those_that_it_can_reach_and_in_that_part(root, change, expected):
    before = prints(root)
    assert before.keys() == ALL
    change(root)
    after = prints(root)
    found = {}
    for name in ALL:
        old, new = before[name]["components"], after[name]["components"]
        if changed := {part for part in old.keys() | new.keys() if old.get(part) != new.get(part)}:
            found[name] = changed
        assert (before[name]["fingerprint"] == after[name]["fingerprint"]) == (not changed)
    assert found == expected


def test_a_fingerprint_has_its_parts_and_follows_from_them(root):
    for name, found in prints(root).items():
        parts = {"notebook", "parameters", "sources", "data", "lock"} | ({"records"} if name == "w/shows" else set())
        assert found["components"].keys() == parts
        assert all(len(value) == 64 for value in found["components"].values())
        assert found["fingerprint"] == planning.digest(found["components"])
    assert prints(root) == prints(root)


def test_what_the_engine_is_made_of_changes_no_page(root):
    for module in ("cluster", "locks", "parameters"):
        edit(f"rsbook/{module}.py", "a = 1\n")(root)
    write(root, "v/other", notebook("a = 1", "from rsbook import cluster, locks, mixing, parameters"))
    before = prints(root)
    for module in ("cluster", "locks", "parameters"):
        edit(f"rsbook/{module}.py", "a = 2\n")(root)
        assert prints(root) == before


def test_the_data_set_and_its_folder_are_those_of_the_parameters(root, tmp_path):
    elsewhere = edit("deepglobe/SHA256SUMS", "00  a.tif\n")
    elsewhere(tmp_path / "big")
    given = {"dataset": "deepglobe", "data_root": str(tmp_path / "big")}
    before = prints(root, given)
    edit("data/deepglobe/SHA256SUMS", "11  a.tif\n")(root)
    edit("rsbook/archives/bluemarble.py", "c = 2\n")(root)
    assert prints(root, given) == before
    edit("deepglobe/SHA256SUMS", "11  a.tif\n")(tmp_path / "big")
    after = prints(root, given)
    assert {name for name in ALL if before[name] != after[name]} == {"w/mixes", "w/plain"}


def test_a_data_set_that_is_none_leads_nowhere(root):
    one = planning.fingerprint("w/mixes", {"dataset": None}, root)["components"]
    assert planning.fingerprint("w/mixes", {}, root)["components"]["data"] == one["data"]
    edit("secret/SHA256SUMS", "1")(root)
    odd = [planning.fingerprint("w/mixes", {"dataset": name}, root)["components"]["sources"] for name in (7, "../x")]
    assert odd == [one["sources"]] * 2


# The store


def test_the_store_is_that_of_the_environment_or_in_the_project(root, monkeypatch, tmp_path):
    assert planning.store(root) == root / "_runs"
    monkeypatch.setenv("RSBOOK_STORE", "")
    assert planning.store(root) == root / "_runs"
    monkeypatch.setenv("RSBOOK_STORE", str(tmp_path))
    assert planning.store(root) == tmp_path
    monkeypatch.setenv("RSBOOK_STORE", "nowhere://x")
    with pytest.raises(UsageError, match="the store 'nowhere://x' cannot be reached"):
        planning.store(root)


def test_records_are_told_by_function_and_name(root):
    seen = [planning.records(root)]
    for path in ("f/1.json", "f/2.json", "g/1.json"):
        edit(f"_runs/{path}")(root)
        seen.append(planning.records(root))
    assert len(set(seen)) == 4
    (root / "_runs/f/1.json").write_text("what is in it is in its name")
    assert planning.records(root) == seen[-1]
    (root / "_runs/g/1.json").unlink()
    assert planning.records(root) == seen[2]
    (root / "_runs/f/2.json").rename(root / "_runs/g/2.json")
    assert planning.records(root) not in seen


def test_the_order_in_which_files_are_found_does_not_matter(root, monkeypatch):
    for path in ("_runs/f/1.json", "_runs/g/1.json", "data/published/w/a.csv", "data/published/w/b/c.csv"):
        edit(path, path)(root)
    before = prints(root)
    for name in ("glob", "rglob"):
        find = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda self, pattern, find=find: reversed(list(find(self, pattern))))
    assert prints(root) == before


# What is said of it


@pytest.fixture
def record(root, papermill):
    batch.run(["w/mixes"], {"seeds": [1]}, root)
    return planning.record_of(root / "book/_executed/w/mixes.ipynb")


def test_a_page_is_compared_with_the_parameters_that_it_has(root, record):
    assert record["parameters"]["seeds"] == [1]
    assert planning.stale("w/mixes", record, root) is None
    batch.run(["v/other"], root=root)
    assert planning.stale("v/other", planning.record_of(root / "book/_executed/v/other.ipynb"), root) is None
    content = notebook(FIRST.replace("[42, 43, 44]", "[7]"), MIXES)
    write(root, "w/mixes", content)
    assert planning.stale("w/mixes", record, root) == "notebook changed"
    edit("rsbook/mixing.py", "a = 3\n")(root)
    edit("requirements.lock", "torch==3\n")(root)
    assert planning.stale("w/mixes", record, root) == "notebook, rsbook sources, lock file changed"


@pytest.mark.parametrize(
    "cell",
    [FIRST.replace("seeds: list[int]", "seeds: list[str]").replace("[42, 43, 44]", "['a']"), "a = 1", "import os"],
)
def test_a_page_whose_parameters_are_none_any_more_is_stale(root, record, cell):
    write(root, "w/mixes", notebook(cell, MIXES))
    assert planning.stale("w/mixes", record, root) == "its parameters changed"


def test_a_page_without_its_notebook_is_stale(root, record):
    (root / "notebooks/w/mixes.ipynb").unlink()
    assert planning.stale("w/mixes", record, root) == "its notebook is gone"


@pytest.mark.parametrize(
    "change",
    [
        {"components": None},
        {"components": {}},
        {"components": ["notebook"]},
        {"components": "notebook"},
        {"parameters": None},
        {"parameters": [1]},
    ],
)
def test_a_damaged_record_is_stale_and_runs_again(root, record, change):
    assert planning.stale("w/mixes", record | change, root) == "damaged"
    job = planning.job("w/mixes", record["parameters"], root)
    damaged = record | {"fingerprint": "0"} | change
    job.target.write_text(json.dumps({"cells": [], "metadata": {"rsbook": damaged}}))
    assert planning.why_run(job, root).endswith(("changed", "damaged"))
    assert planning.stale("w/mixes", {}, root) == "damaged"


def test_a_fingerprint_that_is_not_that_of_its_parts_is_damaged(root, record):
    job = planning.jobs(["w/mixes"], {"seeds": [1]}, root)[0]
    assert planning.why_run(job, root) is None
    job.target.write_text(json.dumps({"metadata": {"rsbook": record | {"fingerprint": "0" * 64}}}))
    assert planning.why_run(job, root) == "damaged"


@pytest.mark.parametrize("place", ["home", "project"])
def test_a_page_finds_its_data_again_without_the_folders_of_a_machine(root, papermill, monkeypatch, place):
    monkeypatch.setattr(Path, "home", lambda: root.parent / "home")
    data = root.parent / "home" / "data" if place == "home" else root / "elsewhere"
    edit("bluemarble/SHA256SUMS", "00")(data)
    batch.run(["w/mixes"], {"data_root": str(data)}, root)
    record = planning.record_of(root / "book/_executed/w/mixes.ipynb")
    assert record["parameters"]["data_root"] == ("~/data" if place == "home" else "./elsewhere")
    assert planning.stale("w/mixes", record, root) is None
    edit("bluemarble/SHA256SUMS", "11")(data)
    assert planning.stale("w/mixes", record, root) == "data changed"


def test_changes_are_told_in_words_and_in_order():
    old = {"notebook": "1", "sources": "1", "data": "1", "lock": "1"}
    assert planning.changes(old, old) == []
    assert planning.changes(old, dict.fromkeys(old, "2")) == ["notebook", "rsbook sources", "data", "lock file"]
    assert planning.changes(old, old | {"records": "1"}) == ["records"]
    assert planning.changes({}, {"lock": None}) == [], "there was none, and there is none"
    assert planning.changes(old | {"records": "1"}, old) == []


def test_paths_are_shown_from_the_project_or_from_home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "project" / "a").mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: home)
    for root in (home / "project", Path("home/project")):
        monkeypatch.chdir(tmp_path)
        assert planning.shown(home / "project" / "a" / "b.csv", root) == "a/b.csv"
        assert planning.shown(Path("home/project/a/../b.csv"), root) == "b.csv"
        assert planning.shown(home / "other" / "b.csv", root) == "~/other/b.csv"
        assert planning.shown(home / "project stead" / "b.csv", root) == "~/project stead/b.csv"
        assert planning.shown(tmp_path / "homestead" / "b.csv", root) == f"{tmp_path}/homestead/b.csv"
        assert planning.shown("s3://bucket/runs", root) == "s3://bucket/runs"


# Jobs


def test_a_job_says_where_its_pages_go(root, tmp_path):
    [job] = planning.jobs(["v/other"], {"a": 3}, root)
    assert (job.label, job.name, job.parameters) == ("v/other", "v/other", {"a": 3})
    assert job.target == root / "book" / "_executed" / "v" / "other.ipynb"
    assert job.failed == root / "_build" / "failed" / "v" / "other.ipynb"
    [job] = planning.jobs(["v/other"], {}, root, tmp_path / "smoke")
    assert job.target == tmp_path / "smoke" / "v" / "other.ipynb"
    assert job.failed == tmp_path / "smoke" / "failed" / "v" / "other.ipynb"
    same = planning.job("v/other", {"a": 1}, root, tmp_path / "smoke")
    assert vars(same) == vars(job)
    assert len({job, same}) == 2, "a job stands for itself in the tables of a batch"
