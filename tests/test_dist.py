"""The book as a zip file."""

import importlib.metadata
import os
import zipfile

import pytest

from rsbook import dist
from rsbook.report import ReportError

NAME = f"rsbook-{importlib.metadata.version('rsbook')}-html"


@pytest.fixture
def root(tmp_path):
    html = tmp_path / "_build" / "html"
    (html / "_static").mkdir(parents=True)
    (html / ".doctrees").mkdir()
    for name in ("index.html", "_static/a.css", "_static/ä.js", "STAMP", ".doctrees/x"):
        (html / name).write_text(f"{name} " * 100)
    return tmp_path


def test_what_comes_out_is_what_went_in(root, tmp_path):
    path = dist.pack(root)
    assert path == root / "_build" / f"{NAME}.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    found = {p.relative_to(tmp_path / "out" / NAME).as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert set(found) == {"index.html", "_static/a.css", "_static/ä.js"}
    for name, path in found.items():
        assert path.read_bytes() == (root / "_build" / "html" / name).read_bytes()


def test_the_same_pages_are_the_same_bytes(root):
    first = dist.pack(root).read_bytes()
    os.utime(root / "_build" / "html" / "index.html", (1e9, 1e9))
    (root / "_build" / "html" / "index.html").chmod(0o600)
    assert dist.pack(root).read_bytes() == first
    assert [path.name for path in (root / "_build").iterdir() if path.is_file()] == [f"{NAME}.zip"]


def test_without_pages_the_cure_is_named(tmp_path):
    with pytest.raises(ReportError, match="python -m rsbook report"):
        dist.pack(tmp_path)
    assert not list(tmp_path.rglob("*.zip"))
