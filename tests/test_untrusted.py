"""Strings that come from elsewhere run nothing on a page: class names, parameters, cells of tables, what errors say."""

import json
import shutil

import pytest
from browser import offline_page
from zoo import notebook

from rsbook import batch, report

PAYLOAD = "</script></pre></table><script>window.__hit = 1</script><img src=x onerror='window.__hit = 2'>\"'$x$ `y`"
CELLS = [
    'word: str = ""\npreset: str = ""',
    """import sys
sys.path.append(TESTS)
import pandas
from matplotlib.figure import Figure
from test_explorers import random_scenes
from rsbook import exercises, figures, receipts, widgets
data = random_scenes(classes=("one", word, "two"))""",
    "widgets.CutMixExplorer(data, range(4))",
    'frame = pandas.DataFrame({word: [word, "=1+1"], "verdict": [word, "holds"]})\n'
    "figures.draw_table(frame, caption=word, name=word, published=[word])",
    'figures.show(lambda theme: Figure(), alt=word + " in four words", caption=word, data=frame, name=word)',
    'figures.share("shared", figures.draw_table(frame, caption=word))',
    "exercises.answers.say_hint(word)",
    "print(word)",
    "print(word, file=sys.stderr)",
    """values = dict.fromkeys(["preset", "dataset", "data_root", "seeds", "device"])
receipts.receipt("label_propagation/3_method", values | {"preset": word, "dataset": word}, data)""",
]


def write_notebook(root, name, cells):
    """A notebook of code cells under a title, the first of them its parameters."""
    made = notebook(*cells)
    made["cells"].insert(0, {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# A page"})
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(made))


@pytest.fixture(scope="module")
def page(html_folder, tmp_path_factory):
    """A book of one notebook that was given the payload as a parameter and shows it in every way the book has."""
    root, tests = tmp_path_factory.mktemp("untrusted"), repr(str(report.ROOT / "tests"))
    write_notebook(root, "part/evil", [source.replace("TESTS", tests) for source in CELLS])
    assert batch.run(["part/evil"], {"word": PAYLOAD, "preset": PAYLOAD}, root, workers=0) == []

    vendor = html_folder.parents[1] / "book" / "assets"
    shutil.copytree(vendor, root / "book" / "assets")
    for name in ("templates", "references.bib", "package.json", "package-lock.json"):
        source = report.ROOT / "book" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / "book" / name)
    shutil.copy(report.ROOT / "_config.yml", root)
    (root / "book" / "intro.md").write_text("# A book\n\n```{glue} shared\n:doc: _executed/part/evil.ipynb\n```\n")
    listed = ["_executed/part/evil", "_generated/claims", "_generated/status"]
    toc = "format: jb-book\nroot: intro\nchapters:\n" + "".join(f"  - file: {name}\n" for name in listed)
    (root / "book" / "_toc.yml").write_text(toc)
    return report.render(root)


@pytest.mark.parametrize("name", ["intro", "_executed/part/evil", "_generated/claims", "_generated/status"])
def test_payloads_are_shown_and_run_nothing(name, page, chromium):
    with offline_page(chromium) as (tab, problems):
        tab.goto((page / f"{name}.html").as_uri())
        if name.endswith("evil"):
            tab.wait_for_selector(".rsbook-explorer")
        tab.wait_for_timeout(300)
        assert tab.evaluate("window.__hit") is None
        assert tab.locator("img[src=x]").count() == 0
        assert problems == []
        if name != "_generated/claims":
            assert "window.__hit = 1" in tab.locator("body").inner_text()


def test_what_an_error_says_runs_nothing(chromium, tmp_path, capsys):
    """The notebook of a failure, as its reader sees it: papermill's banner and the error itself."""
    from nbconvert import HTMLExporter

    write_notebook(tmp_path, "part/fails", ['word: str = ""', "raise ValueError(word)"])
    assert batch.run(["part/fails"], {"word": PAYLOAD}, tmp_path, workers=0) == ["part/fails"]
    assert "raised ValueError" in capsys.readouterr().err
    text, _ = HTMLExporter().from_filename(tmp_path / "_build" / "failed" / "part" / "fails.ipynb")
    shown = tmp_path / "fails.html"
    shown.write_text(text, encoding="utf-8")
    with offline_page(chromium) as (tab, _):
        tab.goto(shown.as_uri(), wait_until="domcontentloaded")
        assert "ValueError" in tab.locator("body").inner_text()
        assert tab.evaluate("window.__hit") is None
