"""Buttons that lead into a repository: to files that are there, and none without a repository."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from rsbook import sphinx_launch

ROOT = Path(__file__).parents[1]
HOSTS = r'href="(https://(?:mybinder|colab|github|gitlab|hub)\.[^"]+)"'


def build(root, repository):
    """A book of a prose page, an executed notebook and a generated page, with this book's settings."""
    book = root / "book"
    (book / "_executed" / "w").mkdir(parents=True)
    (book / "_made").mkdir()
    shutil.copytree(ROOT / "book" / "assets", book / "assets", ignore=shutil.ignore_patterns("vendor"))
    (book / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n- file: _executed/w/x\n- file: _made/y\n")
    (book / "intro.md").write_text("# Intro\n")
    (book / "references.bib").write_text("")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A chapter")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name in ("_executed/w/x", "_made/y"):
        nbformat.write(notebook, book / f"{name}.ipynb")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    options = config["sphinx"]["config"]["html_theme_options"]
    assert options["repository_url"] is None
    options["repository_url"] = repository
    options["launch_buttons"]["jupyterhub_url"] = "https://hub.example.org"
    (root / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book", "-W", "-q"]
    command += ["--config", "_config.yml", "--path-output", str(root)]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    html = root / "_build" / "html"
    return [(html / f"{page}.html").read_text("utf-8") for page in ("_executed/w/x", "intro", "_made/y", "search")]


@pytest.fixture(scope="module")
def on_github(tmp_path_factory):
    return build(tmp_path_factory.mktemp("github"), "https://github.com/someone/rsbook")


def test_a_notebook_page_launches_its_source(on_github):
    assert set(re.findall(HOSTS, on_github[0].replace("&amp;", "&"))) == {
        "https://mybinder.org/v2/gh/someone/rsbook/main?urlpath=lab/tree/notebooks/w/x.ipynb",
        "https://colab.research.google.com/github/someone/rsbook/blob/main/notebooks/w/x.ipynb",
        "https://hub.example.org/hub/user-redirect/git-pull?repo=https%3A//github.com/someone/rsbook"
        "&urlpath=lab/tree/rsbook/notebooks/w/x.ipynb&branch=main",
        "https://github.com/someone/rsbook",
        "https://github.com/someone/rsbook/edit/main/notebooks/w/x.ipynb",
    }


def test_a_page_of_prose_has_a_source_and_nothing_to_launch(on_github):
    assert set(re.findall(HOSTS, on_github[1])) == {
        "https://github.com/someone/rsbook",
        "https://github.com/someone/rsbook/edit/main/book/intro.md",
    }


def test_pages_made_at_build_time_lead_to_no_file(on_github):
    for page in on_github[2:]:
        assert set(re.findall(HOSTS, page)) == {"https://github.com/someone/rsbook"}


def test_without_a_repository_there_is_no_button(tmp_path):
    for page in build(tmp_path, None):
        assert re.findall(HOSTS, page) == []
        assert "launch-buttons" not in page
        assert "source-repository-button" not in page


def test_colab_is_offered_for_github_only():
    class Config:
        html_theme_options = {  # noqa: RUF012
            "repository_url": "https://gitlab.com/someone/rsbook",
            "launch_buttons": {"colab_url": "https://c", "binderhub_url": "https://b"},
        }

    sphinx_launch.prepare(None, Config)
    assert Config.html_theme_options["launch_buttons"] == {"binderhub_url": "https://b"}
