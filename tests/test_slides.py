"""Slides of a small made-up chapter, as text and in a browser."""

import base64
import json
import re

import browser
import nbformat
import pytest

from rsbook import batch, report, slides

MARKDOWN, CODE = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
PIXEL = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' width='400' height='200'/>").decode()
FIGURE = "".join(
    f'<img class="only-{t}" alt="A {t} figure" src="data:image/svg+xml;base64,{PIXEL}">' for t in ("light", "dark")
)
EVIL = "<script>document.title = 'taken'</script>"


def shown(markup):
    return nbformat.v4.new_output("execute_result", {"text/html": markup, "text/plain": "plain"})


def code(source, *outputs, tags=()):
    return CODE(source, outputs=list(outputs), metadata={"tags": list(tags)})


CELLS = [
    MARKDOWN("# A *chapter* & more\n\nFirst words, {cite:t}`someone2020`, [a page](x.ipynb), [out](https://example.org/)."),
    MARKDOWN("Long. " * 150),
    code('preset = "quick"', tags=["parameters"]),
    code('preset = "smoke"', tags=["injected-parameters"]),
    code("import os\nsecret_setup = 1"),
    MARKDOWN("## Second\n\nWith $a < b$ and\n\n$$\nx = y\n$$"),
    code("figure_code()", shown(f'<figure class="rsbook-figure">{FIGURE}</figure>'), tags=["hide-input"]),
    code("print('seen')", nbformat.v4.new_output("stream", name="stdout", text=EVIL)),
    code("from rsbook import exercises\nanswer = ..."),
    code("", nbformat.v4.new_output("stream", name="stderr", text="progress bar")),
    MARKDOWN(f"### Third\n\n`{EVIL}`\n\n<details>\n<summary>Solution</summary>\n\nForty-two.\n\n</details>"),
    code("receipt()", shown('<details class="rsbook-receipt">made by</details>'), tags=["hide-input"]),
]  # fmt: skip


def make(root, cells=CELLS, widgets=None):
    done = {"papermill": {"exception": None, "end_time": "2026-01-01"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=done | ({"widgets": widgets} if widgets else {}))
    for folder in ("notebooks", "book/_executed"):
        (root / folder / "w").mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, root / folder / "w" / "x.ipynb")
    return notebook


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of one executed chapter, with the page assets of this one."""
    make(tmp_path)
    (tmp_path / "book" / "assets").mkdir()
    (tmp_path / "book" / "assets" / "rsbook.css").write_text(".rsbook-figure { margin: 0 }")
    (tmp_path / "book" / "references.bib").write_text(
        "@misc{someone2020, author={One, A and Two, B and Ö, C}, year={2020}}"
    )
    vendor = report.fetch_assets()
    monkeypatch.setattr(slides.report, "fetch_assets", lambda root: vendor)
    return tmp_path


def text_of(root):
    return slides.build(["w/x"], root)[0].read_text(encoding="utf-8")


def test_headings_start_slides_and_the_rest_follows_as_it_fits(root):
    text = text_of(root)
    parts = re.split(r"<section\s*>\s*<section\s*>", text)[1:]
    assert len(parts) == 2
    assert [len(re.findall(r"<section\s*>", part)) + 1 for part in parts] == [2, 4]
    assert 'class="running">A <em>chapter</em> &amp; more<' in parts[0]  # long prose goes on under its heading
    assert "<title>A chapter &amp; more</title>" in text


def test_what_a_listener_need_not_see_stays_out(root):
    text = text_of(root)
    for hidden in ("preset", "secret_setup", "figure_code", "receipt()", "made by", "progress bar"):
        assert hidden not in text
    assert "seen" in text
    assert "exercises" in text  # imports, but no set-up
    assert "<summary>Solution</summary>" in text


def test_markdown_is_read_as_in_the_book(root):
    text = text_of(root)
    assert "One et al. (2020), a page, <a href=" in text
    assert "x.ipynb" not in text
    assert r"\(a &lt; b\)" in text
    assert re.search(r"\\\[x = y\\\]", text)


def test_text_is_escaped(root):
    text = text_of(root)
    assert EVIL not in text
    assert "&lt;script&gt;document.title" in text


def test_widget_state_cannot_end_its_script(root):
    state = {"version_major": 2, "version_minor": 0, "state": {"a": {"state": {"x": f"</script>{EVIL}"}}}}
    make(root, widgets={"application/vnd.jupyter.widget-state+json": state})
    text = text_of(root)
    assert EVIL not in text
    assert "embed-amd.js" in text


def test_nothing_is_loaded_from_elsewhere(root):
    slides.build(["w/x"], root)
    folder = root / "_build" / "slides"
    assert report.external_requests(folder) == []
    assert not (folder / "assets" / "tools" / "axe.min.js").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["assets", "w"]


def test_newer_assets_replace_older_ones(root):
    slides.build(["w/x"], root)
    assets = root / "_build" / "slides" / "assets"
    (assets / "STAMP").write_text("old")
    (assets / "old.js").touch()
    slides.build(["w/x"], root)
    assert not (assets / "old.js").exists()


def test_a_chapter_that_was_not_executed_names_the_cure(root):
    (root / "book" / "_executed" / "w" / "x.ipynb").unlink()
    with pytest.raises(report.ReportError, match=r"x\.ipynb is missing; make it with: python -m rsbook run w/x"):
        slides.build([], root)
    assert not (root / "_build").exists()


def test_slides_work_from_disk(root):
    path = slides.build([], root)[0]
    with browser.launch() as running, browser.offline_page(running, viewport={"width": 1280, "height": 720}) as opened:
        page, problems = opened
        page.goto(path.as_uri())
        page.wait_for_function("window.Reveal && Reveal.isReady() && document.querySelector('mjx-container')")
        assert page.evaluate("Reveal.getTotalSlides()") == 6
        assert page.title() == "A chapter & more"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert page.locator("section.present .only-light").first.is_visible()
        assert not page.locator(".only-dark").first.is_visible()
        for _ in range(6):
            sizes = page.evaluate(
                "(({scrollWidth, clientWidth}) => [scrollWidth, clientWidth])(Reveal.getCurrentSlide())"
            )
            assert sizes[0] <= sizes[1]
            page.evaluate("Reveal.prev()")
    assert problems == []


EXPLORER = f"""import sys
sys.path.append({str(report.ROOT / "tests")!r})
from test_explorers import random_scenes
from rsbook import widgets
data = random_scenes()"""


def test_an_explorer_is_on_the_slide_of_its_heading_and_works_from_disk(root):
    cells = [
        code("nothing = 0", tags=["parameters"]),
        MARKDOWN("# A chapter\n\n## By hand"),
        code(EXPLORER, tags=["remove-cell"]),
        code("widgets.CutMixExplorer(data, range(4))", tags=["hide-input"]),
        MARKDOWN("## Again\n\nMove the box."),
        code("widgets.CutMixExplorer(data, range(4))", tags=["hide-input"]),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    source = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    (root / "notebooks" / "w" / "x.ipynb").write_text(json.dumps(source))
    assert batch.run(["w/x"], root=root, workers=0) == []
    path = slides.build([], root)[0]
    with browser.launch() as running, browser.offline_page(running, viewport={"width": 1280, "height": 720}) as opened:
        page, problems = opened
        page.goto(path.as_uri())
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        page.wait_for_function("document.querySelectorAll('.rsbook-explorer').length === 2")
        assert page.evaluate("Reveal.getTotalSlides()") == 4
        said = []
        for _ in range(4):
            here = page.locator("section.present:not(.stack)")
            said.append((here.locator("h1, h2, p").first.inner_text(), here.locator(".rsbook-explorer").count()))
            assert here.locator(".rsbook-explorer").count() == 0 or here.locator(".rsbook-explorer").is_visible()
            page.evaluate("Reveal.next()")
        assert said == [("A chapter", 0), ("By hand", 1), ("Again", 0), ("Again", 1)]
        assert problems == []
