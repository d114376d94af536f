"""The front door: arguments, exit codes, messages; kernels are left to test_batch.py."""

import json
import subprocess
import sys

import pytest
from zoo import FIRST, FakePapermill, make_root, notebook, write

from rsbook import cli, dist, execution, planning, report, slides


@pytest.fixture
def papermill(monkeypatch):
    return FakePapermill().install(monkeypatch)


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path, w__a=notebook(FIRST, "1"), w__b=notebook(FIRST + "rate = 0.5\n", "2"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=text", "text"),
        ("a=3", 3),
        ("a=0.5", 0.5),
        ("a=1e-3", 1e-3),
        ("a=[-2E5, 1.e+2]", [-2e5, 100.0]),
        ("a='1e-3'", "1e-3"),
        ("a=1e-3x", "1e-3x"),
        ("a=true", True),
        ("a=null", None),
        ("a=", None),
        ("a='2020'", "2020"),
        ("a=[1, 2]", [1, 2]),
        ("a={b: [x, 0.5]}", {"b": ["x", 0.5]}),
        ("a=b=c", "b=c"),
        ("a=C:\\data", "C:\\data"),
        ("a=../data", "../data"),
    ],
)
def test_values_are_yaml(text, expected):
    assert repr(cli.parse_parameters([text])) == repr({"a": expected})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["preset"], "-p 'preset' is not name=value, as in -p preset=full"),
        (["=3"], "is not name=value"),
        (["a b=3"], "is not name=value"),
        (["3a=3"], "is not name=value"),
        (["--seeds=3"], "is not name=value"),
        (["a=1", "a=1"], "parameter 'a' is given twice"),
        (["a=[1, 2"], "the value of -p 'a=[1, 2' is not YAML ("),
        (["a={"], "is not YAML"),
        (["a=!!python/object/apply:os.system [echo]"], "is not YAML"),
        (["a=2020-13-45"], "is not YAML"),
        (["a=" + "[" * 5000], "is not YAML"),
        (["a=[&b [x, x], *b]"], "holds a YAML alias"),
    ],
)
def test_malformed_values_are_refused(texts, message):
    with pytest.raises(planning.UsageError) as error:
        cli.parse_parameters(texts)
    assert message in str(error.value)


def test_run_passes_parameters_and_skips_what_is_up_to_date(root, papermill, capsys):
    arguments = ["run", "w/*", "--preset", "smoke", "-p", "seeds=[1]", "-p", "rate=1e-1"]
    assert cli.main(arguments, root) == 0
    common = {"preset": "smoke", "dataset": "bluemarble", "data_root": None, "seeds": [1], "device": "auto"}
    assert papermill.ran == [("w/a", common), ("w/b", common | {"rate": 0.1})]
    capsys.readouterr()
    assert cli.main(arguments, root) == 0
    assert capsys.readouterr().out == "w/a … up to date\nw/b … up to date\n"
    assert cli.main([*arguments, "--dry-run", "--force"], root) == 0
    assert len(papermill.ran) == 2
    assert cli.main([*arguments, "--force"], root) == 0
    assert len(papermill.ran) == 4


def test_out_moves_the_pages(root, papermill, tmp_path):
    assert cli.main(["run", "w/a", "--out", str(tmp_path / "smoke")], root) == 0
    page = json.loads((tmp_path / "smoke/w/a.ipynb").read_text())
    assert page["metadata"]["rsbook"]["name"] == "w/a"
    assert not (root / "book").exists()


def test_a_failed_notebook_gives_1(root, papermill, capsys):
    write(root, "w/a", notebook(FIRST, "1/0"))
    assert cli.main(["run"], root) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "rsbook: 1 failed: w/a"
    assert "run w/b (missing) … " in said.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "w/c"], 2, "rsbook: no notebook matches 'w/c'; nearest: "),
        (["run", "../../etc/passwd"], 2, "rsbook: no notebook matches"),
        (["run", "-p", "sedes=[1]"], 2, "did you mean 'seeds'?"),
        (["run", "-p", "seeds=1"], 2, "rsbook: parameter 'seeds' of w/a is 1 (int), expected list[int]"),
        (["run", "-p", "preset=ful"], 2, "(did you mean full?)"),
        (["run", "-p", "preset"], 2, "rsbook: -p 'preset' is not name=value"),
        (["run", "--preset", "full", "-p", "preset=full"], 2, "rsbook: parameter 'preset' is given twice"),
    ],
)
def test_wrong_usage_gives_2_and_one_line(root, papermill, capsys, arguments, code, message):
    assert cli.main(arguments, root) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert papermill.ran == []


@pytest.mark.parametrize(
    "arguments", [[], ["rum"], ["run", "--presets", "full"], ["run", "--preset", "ful"], ["run", "-p"]]
)
def test_what_the_parser_does_not_know_gives_2(root, capsys, arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments, root)
    assert left.value.code == 2
    assert "usage: python -m rsbook" in capsys.readouterr().err


def test_a_notebook_that_is_not_in_order_gives_1(root, papermill, capsys):
    write(root, "w/a", notebook("import os"))
    assert cli.main(["run"], root) == 1
    assert capsys.readouterr().err.startswith("rsbook: the parameters cell of w/a: `import os`")


def test_an_interruption_gives_130(root, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setenv("RSBOOK_WORKERS", "0")
    monkeypatch.setattr(execution, "_papermill", interrupted)
    assert cli.main(["run"], root) == 130
    said = capsys.readouterr()
    assert said.out == "run w/a (missing) … interrupted\n"
    assert said.err.startswith("rsbook: interrupted")


def test_report_renders(root, monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(report, "render", lambda root, out=None: asked.append((root, out)) or tmp_path / "html")
    assert cli.main(["report"], root) == 0
    assert cli.main(["report", "--out", "pages"], root) == 0
    assert asked == [(root, None), (root, "pages")]
    assert capsys.readouterr().out == f"{tmp_path / 'html'}\n" * 2


def test_a_report_that_fails_gives_1(root, monkeypatch, capsys):
    def fails(root, out=None):
        raise report.ReportError("a page is missing")

    monkeypatch.setattr(report, "render", fails)
    assert cli.main(["report"], root) == 1
    assert capsys.readouterr().err == "rsbook: a page is missing\n"


def test_slides_and_zip_are_made(root, monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(slides, "build", lambda *arguments: asked.append(arguments) or [tmp_path / "a", tmp_path / "b"])
    monkeypatch.setattr(dist, "pack", lambda root: asked.append(root) or tmp_path / "c.zip")
    assert cli.main(["slides"], root) == 0
    assert cli.main(["slides", "w/a", "--out", "there"], root) == 0
    assert cli.main(["dist"], root) == 0
    assert asked == [([], root, None), (["w/a"], root, "there"), root]
    both = f"{tmp_path / 'a'}\n{tmp_path / 'b'}\n"
    assert capsys.readouterr().out == f"{both}{both}{tmp_path / 'c.zip'}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["slides", "w/a"], 1, "w/a.ipynb is missing; make it with: python -m rsbook run w/a"),
        (["slides", "w/c"], 2, "no notebook matches 'w/c'"),
        (["dist"], 1, "make them with: python -m rsbook report"),
    ],
)
def test_what_slides_and_zip_lack_is_told(root, capsys, arguments, code, message):
    assert cli.main(arguments, root) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_help_shows_examples():
    done = subprocess.run([sys.executable, "-m", "rsbook", "run", "--help"], capture_output=True, text=True, check=True)
    assert "python -m rsbook run --dry-run" in done.stdout
    assert "exit codes: 0" in done.stdout
    assert done.stderr == ""


def test_a_batch_with_nothing_to_do_imports_nothing_heavy(root, papermill):
    assert cli.main(["run"], root) == 0
    code = (
        "import sys; from pathlib import Path; from rsbook import cli\n"
        "code = cli.main(['run', '--preset', 'quick'], Path(sys.argv[1]))\n"
        "heavy = {'torch', 'numpy', 'papermill', 'nbformat', 'nbclient', 'matplotlib', 'sphinx'} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout == "w/a … up to date\nw/b … up to date\n0 []\n"
