"""`python -m rsbook data`: list, card, prepare, check; exit codes and messages, on a miniature DeepGlobe."""

import re
import shutil
import subprocess
import sys

import pytest
from make_archives import make_deepglobe

from rsbook import cli, preparing, scenes


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A root with a prepared archive."""
    root = tmp_path_factory.mktemp("archives")
    make_deepglobe(root / "deepglobe" / "raw", tiles=5)
    preparing.prepare("deepglobe", root, workers=0, progress=False)
    return root


@pytest.fixture
def root(ready, tmp_path):
    return shutil.copytree(ready, tmp_path / "archives")


def data(*arguments, root=None):
    return cli.main(["data", *arguments, *([] if root is None else ["--root", str(root)])])


def test_list_has_a_line_for_every_archive(root, capsys):
    assert data("list", root=root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(scenes.ARCHIVES)
    of = {line.split()[0]: line for line in lines}
    assert re.match("deepglobe +ready ", of["deepglobe"])
    assert "non-commercial research" in of["deepglobe"]
    assert of["deepglobe"].endswith(str(root / "deepglobe"))
    assert re.match("bigearthnet +not here ", of["bigearthnet"])
    assert len({re.match(r"\w+ +", line).end() for line in lines}) == 1  # states stand below each other
    (root / "deepglobe" / "SHA256SUMS").unlink()
    data("list", root=root)
    assert re.search("^deepglobe +to prepare ", capsys.readouterr().out, re.MULTILINE)
    data("list")
    said = capsys.readouterr().out
    for name in scenes.EMBEDDED:
        assert re.search(f"^{name} +ready ", said, re.MULTILINE)


def test_card_prints_the_card(capsys):
    assert data("card", "deepglobe") == 0
    said = capsys.readouterr().out
    assert said == (scenes.DATA / "deepglobe" / "README.md").read_text("utf-8")
    for needed in ("deepglobe/raw/", "30,443", "Demir", "non-commercial research", "data prepare deepglobe"):
        assert needed in said


def test_prepare_and_check_from_the_shell(root):
    (root / "deepglobe" / "SHA256SUMS").unlink()
    for action in ("prepare", "check"):
        command = [sys.executable, "-m", "rsbook", "data", action, "deepglobe", "--root", str(root)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if action == "prepare":
            assert f"deepglobe is ready in {root / 'deepglobe'}: " in done.stdout
            assert "counts differ from the paper's: tiles 5, paper 1,949" in done.stdout
            assert "scenes/s" in done.stderr
        else:
            assert done.stdout.startswith("deepglobe: 5 files, ")


def test_check_counts_the_files_that_an_archive_builds_on(capsys):
    assert data("check", "bluemarble_vegetation") == 0
    assert capsys.readouterr().out.startswith("bluemarble_vegetation: 4 files, ")


def test_what_is_ready_is_not_prepared_again(root, monkeypatch, capsys):
    monkeypatch.setattr("rsbook.archives.deepglobe.source", None)
    assert data("prepare", "deepglobe", root=root) == 0
    assert "is ready in" in capsys.readouterr().out


def test_a_flipped_byte_gives_1_and_is_named(root, capsys):
    path = root / "deepglobe" / "positions.npy"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert data("check", "deepglobe", root=root) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"rsbook: {path} is damaged: sha256 ")
    assert f"data prepare deepglobe --root {root}" in said


def test_missing_data_gives_1_and_the_cure(tmp_path, capsys):
    for action in ("prepare", "check"):
        assert data(action, "deepglobe", root=tmp_path) == 1
        assert "`python -m rsbook data card deepglobe` says where" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "deepglob"], "rsbook: no archive 'deepglob'; did you mean 'deepglobe'? There are bluemarble, "),
        (["card", "../deepglobe"], "rsbook: no archive '../deepglobe'; did you mean 'deepglobe'?"),
        (["check", "zzz"], "rsbook: no archive 'zzz'; There are bluemarble, "),
        (["prepare", "bluemarble"], "rsbook: bluemarble needs no preparing: it comes with the repository"),
        (["prepare", "bluemarble_vegetation"], "rsbook: bluemarble_vegetation needs no preparing: it comes with"),
    ],
)
def test_wrong_usage_gives_2_and_one_line(capsys, arguments, message):
    assert data(*arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(message)
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("arguments", [[], ["prepare"], ["list", "deepglobe"], ["fetch", "deepglobe"]])
def test_what_the_parser_does_not_know_gives_2(capsys, arguments):
    with pytest.raises(SystemExit) as left:
        data(*arguments)
    assert left.value.code == 2


def test_an_interruption_gives_130(root, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    (root / "deepglobe" / "SHA256SUMS").unlink()
    monkeypatch.setattr(preparing, "_fill", interrupted)
    assert data("prepare", "deepglobe", root=root) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("rsbook: interrupted; the next run goes on")
    assert preparing.state(root / "deepglobe") == "begun"
    monkeypatch.undo()
    assert data("prepare", "deepglobe", root=root) == 0


def test_listing_and_preparing_import_no_torch():
    code = (
        "import sys; from rsbook import cli, preparing, filling; from rsbook.archives import deepglobe\n"
        "cli.main(['data', 'list']); print(sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
