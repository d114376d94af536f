"""Parameters, what is up to date, and execution with real kernels on a zoo of tiny notebooks."""

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from zoo import FIRST, FakePapermill, executed, leftovers, make_root, notebook, why_run, write

from rsbook import batch, execution, files, planning


@pytest.fixture
def papermill(monkeypatch):
    return FakePapermill().install(monkeypatch)


# Parameters


def test_a_value_goes_to_the_notebooks_that_declare_it(tmp_path):
    make_root(tmp_path, w__one=notebook("a = 1\nb = 2"), w__two=notebook("a = 5"), v__three=notebook("c = 'x'"))
    assert planning.plan(["w/*"], {"b": 7, "a": 3}, tmp_path) == {"w/one": {"a": 3, "b": 7}, "w/two": {"a": 3}}
    assert planning.plan((), {"c": "y"}, tmp_path)["v/three"] == {"c": "y"}
    with pytest.raises(planning.UsageError, match="unknown parameter 'c' of w/one and w/two; It takes: a, b"):
        planning.plan(["w/*"], {"c": "y"}, tmp_path)
    with pytest.raises(planning.UsageError, match="of the 3 notebooks"):
        planning.plan((), {"d": "y"}, tmp_path)
    with pytest.raises(planning.UsageError, match="of v/three is 1"):
        planning.plan((), {"c": 1}, tmp_path)


# Which notebooks


def test_patterns_choose_notebooks(tmp_path):
    one = notebook("a = 1")
    make_root(tmp_path, w__3_method=one, w__5a_maps=one, w__5b_shift=one, v__5a_maps=one)
    write(tmp_path, "w/.ipynb_checkpoints/5a_maps-checkpoint", one)
    write(tmp_path, ".hidden/5a_maps", one)
    assert planning.find((), tmp_path) == ["v/5a_maps", "w/3_method", "w/5a_maps", "w/5b_shift"]
    assert planning.find(["w/5*", "w/5a_maps"], tmp_path) == ["w/5a_maps", "w/5b_shift"]
    assert planning.find(["*/5a*"], tmp_path) == ["v/5a_maps", "w/5a_maps"]
    assert planning.find(["notebooks/w/3_method.ipynb"], tmp_path) == ["w/3_method"]
    with pytest.raises(planning.UsageError, match=r"'w/3_metod'; nearest: w/3_method"):
        planning.find(["w/3_metod"], tmp_path)
    with pytest.raises(planning.UsageError, match=r"'5a_map'; nearest: v/5a_maps, w/5a_maps"):
        planning.find(["w/*", "5a_map"], tmp_path)


def test_no_notebooks_at_all_is_an_error(tmp_path):
    with pytest.raises(planning.BatchError, match="there are no notebooks"):
        planning.find((), tmp_path)


@pytest.mark.parametrize("name", ["../secret", "w/../../secret", "/etc/passwd", "w/link"])
def test_a_name_cannot_leave_the_folder(tmp_path, name):
    make_root(tmp_path, w__n=notebook("a = 1"))
    (tmp_path / "secret.ipynb").write_text(json.dumps(notebook("a = 1")))
    (tmp_path / "notebooks/w/link.ipynb").symlink_to(tmp_path / "secret.ipynb")
    for call in (planning.read, lambda n, root: planning.fingerprint(n, {}, root)):
        with pytest.raises(planning.UsageError, match="lies outside notebooks/"):
            call(name, tmp_path)
    with pytest.raises(planning.UsageError):
        planning.plan([name], {}, tmp_path)
    assert not (tmp_path / "book").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"cells": 3}', '{"cells": [{"source": "a"}]}', '{"cells": [3]}']
)
def test_a_damaged_source_is_named(tmp_path, text):
    make_root(tmp_path, w__n=notebook("a = 1"))
    (tmp_path / "notebooks/w/n.ipynb").write_text(text)
    with pytest.raises(planning.BatchError, match="notebook 'w/n' cannot be read"):
        planning.plan((), {}, tmp_path)


@pytest.mark.parametrize("name", ["w/absent", "w/\0", "w/" + "x" * 500])
def test_a_source_that_is_not_there_is_named(tmp_path, name):
    make_root(tmp_path, w__n=notebook("a = 1"))
    with pytest.raises(planning.BatchError, match="cannot be read"):
        planning.read(name, tmp_path)


# Up to date


USES = "%matplotlib inline\nfrom rsbook import mixing, widgets\n!ls\na + 1"


def edit(path, text):
    def change(root):
        Path(root, path).parent.mkdir(parents=True, exist_ok=True)
        Path(root, path).write_text(text)

    change.__name__ = path
    return change


def edit_cell(cell, **keys):
    def change(root):
        content = planning.read("w/n", root)
        content["cells"][cell] |= keys
        write(root, "w/n", content)

    change.__name__ = f"cell {keys}"
    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit_cell(1, source=f"{USES} + 1"), "notebook changed"),
        (edit_cell(1, metadata={"tags": ["hide-input"]}), "notebook changed"),
        (edit_cell(1, cell_type="markdown"), "notebook, rsbook sources changed"),
        (edit_cell(0, source='a = 1  # one\ndataset = "bluemarble"'), "notebook changed"),
        (edit_cell(0, source='a = 2\ndataset = "bluemarble"'), "notebook, parameters changed"),
        (edit("rsbook/mixing.py", "a = 2\n"), "rsbook sources changed"),
        (edit("rsbook/positions.py", "b = 2\n"), "rsbook sources changed"),
        (edit("rsbook/archives/bluemarble.py", "c = 2\n"), "rsbook sources changed"),
        (edit("rsbook/widgets/map.mjs", "let b\n"), "rsbook sources changed"),
        (edit("rsbook/widgets/explorer.css", "p {}\n"), "rsbook sources changed"),
        (lambda root: Path(root, "rsbook/mixing.py").rename(root / "rsbook/mix.py"), "rsbook sources changed"),
        (edit("data/bluemarble/SHA256SUMS", "01  a.tif\n"), "data changed"),
        (edit("data/published/w/table_ii.csv", "a,b\n1,3\n"), "data changed"),
        (edit("data/results/w/wide.csv", "a,b\n1,3\n"), "data changed"),
        (edit("requirements.lock", "torch==3\n"), "lock file changed"),
        (lambda root: Path(root, "requirements.lock").unlink(), "lock file changed"),
        (lambda root: Path(root, "book/_executed/w/n.ipynb").unlink(), "missing"),
        (edit("book/_executed/w/n.ipynb", '{"cells": ['), "damaged"),
        (edit("book/_executed/w/n.ipynb", "[]"), "damaged"),
        (edit("book/_executed/w/n.ipynb", '{"metadata": {}}'), "damaged"),
    ],
)
def test_each_change_runs_the_notebook_again_and_says_why(tmp_path, papermill, change, reason):
    make_root(tmp_path, w__n=notebook('a = 1\ndataset = "bluemarble"', USES))
    assert why_run("w/n", {}, tmp_path) == "missing"
    batch.run(root=tmp_path)
    assert why_run("w/n", {}, tmp_path) is None
    change(tmp_path)
    assert why_run("w/n", {}, tmp_path) == reason
    batch.run(root=tmp_path)
    assert len(papermill.ran) == 2
    assert why_run("w/n", {}, tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        edit_cell(1, outputs=[{"output_type": "stream", "name": "stdout", "text": "x"}], execution_count=3),
        edit_cell(1, id="other"),
        edit_cell(1, source=USES.splitlines(keepends=True)),
        edit("rsbook/.#mixing.py", "an editor's lock"),
        edit("rsbook/mixing.py", '"""What it is for."""\n\nfrom rsbook import positions  # which it needs\n\na = 1\n'),
        edit("rsbook/training.py", "nobody = 'imports it'\n"),
        edit("rsbook/archives/deepglobe.py", "the_reader = 'of another data set'\n"),
        edit("data/deepglobe/SHA256SUMS", "01  a.tif\n"),
        edit("data/published/v/table_ii.csv", "a,b\n1,3\n"),
        edit("rsbook/__pycache__/mixing.pyc", "compiled"),
        edit("data/bluemarble/notes.txt", "x"),
        edit("README.md", "x"),
        edit("_runs/work.run/0123.json", "{}"),
    ],
)
def test_nothing_else_runs_it_again(tmp_path, papermill, change):
    make_root(tmp_path, w__n=notebook('a = 1\ndataset = "bluemarble"', USES))
    batch.run(root=tmp_path)
    change(tmp_path)
    assert why_run("w/n", {}, tmp_path) is None
    assert batch.run(root=tmp_path) == []
    assert len(papermill.ran) == 1


def test_other_parameters_run_it_again_and_the_same_ones_do_not(tmp_path, papermill):
    make_root(tmp_path, w__n=notebook("a = 1\nrate = 0.5"))
    batch.run(root=tmp_path)
    assert why_run("w/n", {"a": 1, "rate": 0.5}, tmp_path) is None, "given or default makes no difference"
    assert why_run("w/n", {"a": 2}, tmp_path) == "parameters changed"
    batch.run(given={"rate": 1}, root=tmp_path)
    assert why_run("w/n", {"rate": 1.0}, tmp_path) is None
    assert [parameters for _, parameters in papermill.ran] == [{"a": 1, "rate": 0.5}, {"a": 1, "rate": 1.0}]


def test_an_archive_elsewhere_runs_it_again_when_it_changes(tmp_path, papermill):
    root, elsewhere = make_root(tmp_path / "root", w__n=notebook(FIRST)), tmp_path / "archives"
    given = {"data_root": str(elsewhere)}
    manifest = elsewhere / "bluemarble" / "SHA256SUMS"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("00  a.tif")
    assert batch.run([], given, root) == []
    assert why_run("w/n", given, root) is None
    manifest.write_text("11  a.tif")
    assert why_run("w/n", given, root) == "data changed"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_page_of_all_records_runs_again_when_there_are_others(tmp_path, monkeypatch, elsewhere):
    root, store = make_root(tmp_path / "root", w__n=notebook("a = 1", "runs.stored(f)")), tmp_path / "root" / "_runs"
    monkeypatch.delenv("RSBOOK_STORE", raising=False)
    if elsewhere:
        store = tmp_path / "store"
        monkeypatch.setenv("RSBOOK_STORE", str(store))

    class AddsOne(FakePapermill):
        def __call__(self, *given):
            edit("f/own.json", "{}")(store)
            return super().__call__(*given)

    papermill = AddsOne().install(monkeypatch)
    for change in (
        lambda: None,
        lambda: edit("f/another.json", "{}")(store),
        lambda: edit("g/another.json", "{}")(store),
        lambda: (store / "f" / "another.json").unlink(),
    ):
        change()
        assert why_run("w/n", {}, root) == ("records changed" if papermill.ran else "missing")
        assert batch.run(root=root) == []
        assert why_run("w/n", {}, root) is None, "its own are there already"
    assert len(papermill.ran) == 4
    edit("f/another.safetensors", "x")(store)
    edit("f/.another.json.1.tmp", "x")(store)
    assert why_run("w/n", {}, root) is None


def test_a_page_of_all_records_comes_last(tmp_path, monkeypatch, papermill):
    make_root(tmp_path, w__a=notebook("a = 1", "runs.stored(f)"), w__b=notebook("a = 1"), w__c=notebook("a = 1"))
    batch.run(root=tmp_path)
    assert [name for name, _ in papermill.ran] == ["w/b", "w/c", "w/a"]


def test_records_of_others_between_planning_and_execution_are_no_other_machine(tmp_path, monkeypatch, papermill):
    make_root(tmp_path, w__a=notebook("a = 1", "runs.stored(f)"))
    monkeypatch.delenv("RSBOOK_STORE", raising=False)
    begin = execution.execute

    def late(*given):
        edit("_runs/f/another.json", "{}")(tmp_path)
        return begin(*given)

    monkeypatch.setattr(execution, "execute", late)
    assert batch.run(root=tmp_path) == []


def test_a_worker_with_other_sources_is_refused(tmp_path, monkeypatch, papermill, capsys):
    make_root(tmp_path, w__a=notebook("a = 1", "from rsbook import mixing"))
    begin = execution.execute

    def elsewhere(*given):
        edit("rsbook/mixing.py", "other = 1\n")(tmp_path)
        return begin(*given)

    monkeypatch.setattr(execution, "execute", elsewhere)
    assert batch.run(root=tmp_path) == ["w/a"]
    assert "are not those that it was planned with" in capsys.readouterr().err


def test_no_workers_means_none_for_the_runs_of_a_notebook_either(tmp_path):
    make_root(tmp_path, w__a=notebook("a = 1", "import os\nos.environ['RSBOOK_WORKERS']"))
    assert batch.run(root=tmp_path, workers=0) == []
    assert text_of(executed(tmp_path, "w/a")["cells"][2]) == "'0'"


def test_records_that_a_page_only_writes_of_do_not_run_it_again(tmp_path, papermill):
    page = notebook("a = 1", "'runs.stored(f)'")
    page["cells"][1] = {"cell_type": "markdown", "id": "c1", "metadata": {}, "source": "`runs.stored(f)`"}
    make_root(tmp_path, w__n=page)
    batch.run(root=tmp_path)
    edit("_runs/f/another.json", "{}")(tmp_path)
    assert why_run("w/n", {}, tmp_path) is None


def test_the_record_says_what_ran(tmp_path, papermill):
    make_root(tmp_path, w__n=notebook("a = 1\nb: str | None = None"))
    batch.run(given={"a": 4}, root=tmp_path)
    record = executed(tmp_path, "w/n")["metadata"]["rsbook"]
    assert record["name"] == "w/n"
    assert record["parameters"] == {"a": 4, "b": None}
    assert set(record["components"]) == {"notebook", "parameters", "sources", "data", "lock"}
    assert len(record["fingerprint"]) == 64
    assert record["started"].endswith("+00:00")
    assert record["seconds"] >= 0


def test_a_failure_keeps_the_old_page_runs_the_rest_and_is_tried_again(tmp_path, papermill, capsys):
    make_root(tmp_path, w__a=notebook("a = 1", "1"), w__b=notebook("a = 1", "2"))
    batch.run(root=tmp_path)
    old = (tmp_path / "book/_executed/w/a.ipynb").read_bytes()
    for name in "ab":
        write(tmp_path, f"w/{name}", notebook("a = 1", "1/0" if name == "a" else "3"))
    assert batch.run(root=tmp_path) == ["w/a"]
    assert (tmp_path / "book/_executed/w/a.ipynb").read_bytes() == old
    assert executed(tmp_path, "w/b")["cells"][1]["source"] == "3"
    said = capsys.readouterr()
    assert "run w/a (notebook changed) … failed" in said.out
    assert said.err == "rsbook: w/a: cell 2 raised E: m; partial notebook: _build/failed/w/a.ipynb\n"
    assert why_run("w/a", {}, tmp_path) == "failed before"
    assert why_run("w/b", {}, tmp_path) is None
    write(tmp_path, "w/a", notebook("a = 1", "1"))  # as it was when it ran
    assert why_run("w/a", {}, tmp_path) is None
    write(tmp_path, "w/a", notebook("a = 1", "4"))
    assert batch.run(root=tmp_path) == []
    assert not (tmp_path / "_build/failed/w/a.ipynb").exists(), "a success ends the failure"
    assert leftovers(tmp_path) == []


def test_a_forced_failure_makes_the_page_stale(tmp_path, papermill, monkeypatch):
    make_root(tmp_path, w__a=notebook("a = 1"))
    batch.run(root=tmp_path)
    monkeypatch.setattr(
        execution, "_papermill", lambda *given: (papermill(*given) and "cell 1 raised E: rarely", False)
    )
    assert batch.run(root=tmp_path, force=True) == ["w/a"]
    assert why_run("w/a", {}, tmp_path) == "failed before"


def test_a_dry_run_says_why_and_runs_nothing(tmp_path, papermill, capsys):
    make_root(tmp_path, w__a=notebook("a = 1"), w__b=notebook("b = 1"))
    batch.run(["w/a"], root=tmp_path)
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert batch.run(root=tmp_path, dry_run=True) == []
    assert capsys.readouterr().out == "w/a … up to date\nrun w/b (missing)\n"
    batch.run(root=tmp_path, dry_run=True, force=True)
    assert capsys.readouterr().out == "run w/a (forced)\nrun w/b (missing)\n"
    assert [name for name, _ in papermill.ran] == ["w/a"]
    assert sorted(tmp_path.rglob("*")) == before


def test_another_folder_has_its_own_pages(tmp_path, papermill):
    make_root(tmp_path, w__a=notebook("a = 1"))
    batch.run(root=tmp_path, out=tmp_path / "smoke")
    assert why_run("w/a", {}, tmp_path, tmp_path / "smoke") is None
    assert why_run("w/a", {}, tmp_path) == "missing"
    assert executed(tmp_path, "w/a", "smoke")["metadata"]["papermill"]["output_path"] == "smoke/w/a.ipynb"
    batch.run(root=tmp_path, out=tmp_path.parent / "elsewhere")
    outside = executed(tmp_path.parent, "w/a", "elsewhere")["metadata"]["papermill"]
    assert outside == {"exception": None, "input_path": "notebooks/w/a.ipynb", "output_path": "w/a.ipynb"}


def test_one_unknown_parameter_stops_the_batch_before_anything_runs(tmp_path, papermill):
    make_root(tmp_path, w__a=notebook("a = 1"), w__b=notebook("import os"))
    for pattern, given in (("w/a", {"b": 1}), ("w/a", {"a": "x"}), ("w/*", {})):
        with pytest.raises(planning.BatchError):
            batch.run([pattern], given, tmp_path)
    assert papermill.ran == []


def test_a_full_disk_leaves_the_old_page_and_says_so(tmp_path, papermill, monkeypatch, capsys):
    make_root(tmp_path, w__a=notebook("a = 1"), w__b=notebook("a = 1", "1/0"))
    batch.run(["w/a"], root=tmp_path)
    old = (tmp_path / "book/_executed/w/a.ipynb").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert batch.run(root=tmp_path, force=True) == ["w/a", "w/b"]
    said = capsys.readouterr().err
    assert "w/a: cannot write the executed notebook" in said
    assert ".ipynb: No space left on device" in said
    assert "w/b: cell 2 raised E: m; its partial notebook could not be kept" in said
    assert (tmp_path / "book/_executed/w/a.ipynb").read_bytes() == old
    assert leftovers(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path, papermill, capsys):
    make_root(tmp_path, w__a=notebook("a = 1"))
    (tmp_path / "out").write_text("")
    assert batch.run(["w/a"], {}, tmp_path, tmp_path / "out") == ["w/a"]
    assert "w/a: cannot write" in capsys.readouterr().err


def test_a_page_names_neither_home_nor_project_and_keeps_its_pictures(tmp_path, monkeypatch):
    home = tmp_path / "home"
    root = home / "project"
    make_root(root, w__n=notebook("a = 1"))
    monkeypatch.setattr(Path, "home", lambda: home)
    picture = f"AAAA{home}/{root}BBBB"
    page = notebook("a = 1", "b")
    page["metadata"] |= {"papermill": {"input_path": str(root / "x")}, "widgets": {"state": picture}}
    page["cells"][1]["outputs"] = [
        {"output_type": "stream", "text": f"{root}/rsbook/a.py:3: warning\n({root}) {home}/data '{home}' {home}stead"},
        {"output_type": "display_data", "data": {"image/png": picture, "text/html": f"<img src='base64,{picture}'>"}},
    ]
    record = {"name": "w/n", "parameters": {"data_root": f"{home}/data"}}
    stamped = execution.stamp(json.dumps(page), root / "book/_executed/w/n.ipynb", record, root)
    stream, display = stamped["cells"][1]["outputs"]
    assert stream["text"] == f"./rsbook/a.py:3: warning\n(.) ~/data '~' {home}stead"
    assert display["data"]["image/png"] == picture
    assert stamped["metadata"]["widgets"] == {"state": picture}
    assert stamped["metadata"]["rsbook"]["parameters"] == {"data_root": "~/data"}
    assert stamped["metadata"]["papermill"]["input_path"] == "notebooks/w/n.ipynb"
    assert stamped["metadata"]["papermill"]["output_path"] == "book/_executed/w/n.ipynb"


def test_a_home_at_the_top_of_the_disk_leaves_paths_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    page = notebook("a = 1") | {"metadata": {"papermill": {}}}
    page["cells"][0]["outputs"] = [{"output_type": "stream", "text": "1 / 2 of / and /"}]
    stamped = execution.stamp(json.dumps(page), tmp_path / "n.ipynb", {"name": "w/n"}, tmp_path)
    assert stamped["cells"][0]["outputs"][0]["text"] == "1 / 2 of / and /"


def test_links_to_the_book_lead_there_from_the_source_and_from_the_page(tmp_path, papermill):
    text = "[a](../../book/glossary.md#a), [b](../../book/b.md), [c](c.ipynb), `../../book/`"
    page = notebook("a = 1", text, "'](../../book/x'")
    page["cells"][1] = {"cell_type": "markdown", "id": "c1", "metadata": {}, "source": text.splitlines(keepends=True)}
    make_root(tmp_path, w__a=page)
    batch.run(root=tmp_path)
    _, prose, code = executed(tmp_path, "w/a")["cells"]
    assert "".join(prose["source"]) == "[a](../../glossary.md#a), [b](../../b.md), [c](c.ipynb), `../../book/`"
    assert "".join(code["source"]) == "'](../../book/x'"
    assert why_run("w/a", {}, tmp_path) is None


def test_who_reads_a_page_while_it_is_replaced_reads_the_old_one(tmp_path, papermill):
    make_root(tmp_path, w__a=notebook("a = 1", "1"))
    batch.run(root=tmp_path)
    with (tmp_path / "book/_executed/w/a.ipynb").open() as reader:
        write(tmp_path, "w/a", notebook("a = 1", "2"))
        batch.run(root=tmp_path)
        assert json.load(reader)["cells"][1]["source"] == "1"
    assert executed(tmp_path, "w/a")["cells"][1]["source"] == "2"


# Kernels

ODD = {"text": "a \"b\" 'c' \\n {d} é\n; import os", "number": 1e-7, "flag": True, "nested": [[1, 2], []], "none": None}
GOOD = [
    "text = 'x'\nnumber = 0.5\nflag = False\nnested: list[list[int]] = []\nnone: str | None = 'x'\nkept = {'a': [1]}",
    "import json, os, sys\njson.dumps([text, number, flag, nested, none, kept])",
    "print(json.dumps([sys.executable, os.getpid()]))",
    "print('training 40 %', end='\\r', file=sys.stderr)",
]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """One batch over notebooks that do well, raise, die and stop; a decoy "python3" kernel lies in the way."""
    root = make_root(
        tmp_path_factory.mktemp("zoo") / "{braces} and blank",
        w__good=notebook(*GOOD),
        w__raises=notebook("before = 1", "a = 1", "print('kept')", "raise KeyError('one\\ntwo')", "5", parameters=1),
        w__dies=notebook("a = 1", "print('kept')", "import os\nos._exit(1)", "5"),
        w__stops=notebook("a = 1", "import sys\nsys.exit(0)", "5"),
        w__zebra=notebook("a = 1", "a"),
    )
    decoy = root / "jupyter" / "kernels" / "python3"
    decoy.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "decoy", "language": "python"}
    (decoy / "kernel.json").write_text(json.dumps(spec))
    (root / "book/_executed/w").mkdir(parents=True)
    (root / "book/_executed/w/raises.ipynb").write_text("old")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("JUPYTER_PATH", str(root / "jupyter"))
        failed = batch.run(given=ODD, root=root)
    return root, failed, out.getvalue(), err.getvalue()


def output(cell):
    return [part.get("text") or part.get("data", {}).get("text/plain") or part.get("ename") for part in cell["outputs"]]


def text_of(cell):
    return "".join("".join(part) for part in output(cell))


def test_every_parameter_reaches_the_notebook_unchanged(zoo):
    cells = executed(zoo[0], "w/good")["cells"]
    assert cells[1]["metadata"]["tags"] == ["injected-parameters"]
    assert all(f"{name} = " in "".join(cells[1]["source"]) for name in (*ODD, "kept"))
    assert json.loads(eval(text_of(cells[2]))) == [*ODD.values(), {"a": [1]}]


def test_the_kernel_is_this_interpreter_and_ends(zoo):
    _, failed, *_ = zoo
    executable, pid = json.loads(text_of(executed(zoo[0], "w/good")["cells"][3]).replace("~", str(Path.home())))
    assert os.path.realpath(executable) == os.path.realpath(sys.executable)
    assert "w/good" not in failed
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_failures_are_told_apart(zoo):
    _, failed, out, err = zoo
    assert failed == ["w/dies", "w/raises", "w/stops"]
    assert (
        "rsbook: w/raises: cell 4 raised KeyError: 'one\\ntwo'; partial notebook: _build/failed/w/raises.ipynb\n" in err
    )
    assert "rsbook: w/dies: the kernel died in cell 3 (" in err
    assert "rsbook: w/stops: cell 2 ended the notebook early (SystemExit); partial" in err
    assert "w/raises (damaged) … failed\n" in out
    assert "Traceback" not in err


def test_the_rest_of_the_batch_ran_and_each_has_its_line(zoo):
    root, _, out, err = zoo
    assert text_of(executed(root, "w/zebra")["cells"][2]) == "1"
    lines = out.splitlines()
    assert len(lines) == 5
    assert [line for line in lines if line.startswith("run w/zebra (missing) … ") and line.endswith(" s")]
    assert [line for line in lines if line.startswith("run w/good (missing) … ") and line.endswith(" s")]
    assert all(line.startswith("run ") for line in lines)
    assert "training 40 %" not in out + err, "what notebooks write is in them"


def test_a_partial_notebook_is_kept_with_its_banner_and_the_old_page_stays(zoo):
    root, *_ = zoo
    assert (root / "book/_executed/w/raises.ipynb").read_text() == "old"
    for name, ran in (
        ("raises", "An Exception was encountered"),
        ("dies", "stopped in cell 3"),
        ("stops", "in cell 2"),
    ):
        partial = executed(root, f"w/{name}", "_build/failed")
        assert ran in "".join(partial["cells"][0]["source"])
        assert partial["metadata"]["papermill"]["exception"] is True
        assert partial["metadata"]["rsbook"]["name"] == f"w/{name}"
        assert text_of(partial["cells"][-1]) == "", "nothing ran after the failure"
    assert "kept" in "".join(text_of(c) for c in executed(root, "w/dies", "_build/failed")["cells"] if "outputs" in c)
    assert sorted(path.name for path in (root / "book/_executed/w").iterdir()) == [
        "good.ipynb",
        "raises.ipynb",
        "zebra.ipynb",
    ]


def test_the_finished_notebooks_are_up_to_date_and_the_others_are_not(zoo):
    root, *_ = zoo
    assert why_run("w/good", ODD, root) is None
    assert why_run("w/zebra", {}, root) is None
    for name in ("dies", "raises", "stops"):
        assert why_run(f"w/{name}", {}, root) == "failed before"


def test_executed_notebooks_hold_no_path_of_this_machine_and_no_temporary_file_is_left(zoo):
    root, *_ = zoo
    pages = [*root.glob("book/_executed/*/[gz]*.ipynb"), *root.glob("_build/failed/*/*.ipynb")]
    assert len(pages) == 5
    for path in pages:
        page = json.loads(path.read_text("utf-8"))
        metadata = json.dumps([page["metadata"], [cell["metadata"] for cell in page["cells"]]])
        assert str(root) not in metadata
        assert f"{Path.home()}/" not in metadata
        assert str(root.parent) not in metadata
        assert ".tmp" not in metadata
        assert page["metadata"]["papermill"]["input_path"] == f"notebooks/w/{path.stem}.ipynb"
        assert page["metadata"]["papermill"]["output_path"] == path.relative_to(root).as_posix()
    assert leftovers(root) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_interrupted_batch_ends_its_kernel_and_leaves_nothing_half_written(tmp_path, how, workers):
    wait = f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(100)"
    root = make_root(tmp_path / "root", w__waits=notebook("a = 1", wait))
    code = (
        "import sys; from pathlib import Path; from rsbook import cli; root = Path(sys.argv.pop())\n"
        "if __name__ == '__main__': sys.exit(cli.main(root=root))"
    )
    script = tmp_path / "batch.py"
    script.write_text(code)
    command = [sys.executable, script, "run", "--workers", workers, root]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        pid = int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()))
        process.send_signal(how)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == "run w/waits (missing) … interrupted\n"
    assert err == "rsbook: interrupted; the next run goes on with what is missing\n"
    wait_for(lambda: not psutil.pid_exists(pid), 10)  # a kernel looks once a second whether its parent lives
    assert leftovers(tmp_path) == []
    assert not list(root.glob("book/_executed/w/[!.]*"))
    assert not (root / "_build").exists()


def wait_for(condition, seconds=60):
    """What the condition returns, once that is true."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
    return found
