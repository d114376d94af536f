"""Pages made from executed notebooks, in a small project; the badge in a small book that Sphinx builds."""

import base64
import io
import json
import re

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from zoo import FIRST, make_root, notebook, why_run, write

from rsbook import pages, planning
from rsbook.figures import FACTS

PAYLOADS = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</table>\n\n# Heading")
CLAIM = {
    "number": "1",
    "claim": "A is above B",
    "here": "+1.00\u00a0±\u00a00.10 at 0.3–0.7",
    "n": 3,
    "paper": "+1.81",
    "difference": "−0.81",
    "verdict": "holds",
    "metric": "map_macro",
}


def facts_of(name, runs=True, **changes):
    if runs is True:
        runs = {"total": 2, "fresh": 1, "read": 1, "seconds": 3660.0, "records": {"r1": 3000.0, "r2": 660.0}}
    return {
        "rsbook": "receipt",
        "notebook": name,
        "preset": "quick",
        "dataset": "bluemarble",
        "made": "2026-11-21T13:00:05+00:00",
        "commit": "0123456789abcdef",
        "uncommitted_changes": False,
        "device": "A processor",
        "python": "3.11.7",
        "versions": {"torch": "2.15", "timm": None},
        "runs": runs or None,
    } | changes


def execute(root, name, receipt=None, claims=(), **record):
    """Write book/_executed/<name>.ipynb as it would be if it had just been made, with the facts that it left."""
    parameters = {"preset": "quick", "dataset": "bluemarble", "data_root": None, "seeds": [42], "device": "auto"}
    print_ = planning.fingerprint(name, parameters, root)
    made = {"name": name, "parameters": parameters, "started": "2026-11-20T23:59:00+00:00", "seconds": 61.0}
    facts = [{"rsbook": "claims", "where": "here", "rows": list(claims)}] * bool(claims) + [receipt] * bool(receipt)
    outputs = [
        {"output_type": "display_data", "metadata": {FACTS: one}, "data": {"text/html": ["<p>"]}} for one in facts
    ]
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": [f"# The {name.split('/')[1]} page\n", "Text"]},
        {"cell_type": "code", "metadata": {}, "source": "", "outputs": outputs, "execution_count": 1},
    ]
    path = root / "book" / "_executed" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": {"rsbook": made | print_ | record}, "nbformat": 4}))
    return path


def collect(root):
    return pages.collect(root / "book" / "_executed", root)


def states(root):
    return {page.name: (page.state, page.why) for page in collect(root)}


def rows_of(text):
    """The CSV behind each table of a page."""
    found = re.findall(r'href="data:text/csv;base64,([^"]+)"', text)
    return [pd.read_csv(io.StringIO(base64.b64decode(csv).decode())) for csv in found]


@pytest.fixture
def root(tmp_path):
    """A project of two works with three notebooks, two of them executed."""
    root = make_root(
        tmp_path / "root",
        cutmix__a=notebook(FIRST, "from rsbook import mixing"),
        cutmix__b=notebook(FIRST),
        other__c=notebook(FIRST, "from rsbook import mixing"),
    )
    (root / "book").mkdir()
    (root / "book" / "cutmix.md").write_text("# Mixing *scenes*\n")
    execute(root, "cutmix/a", facts_of("cutmix/a"), [CLAIM, CLAIM | {"verdict": "fails", "number": "2"}])
    execute(root, "other/c", facts_of("other/c", made="2026-11-22T09:00:00+00:00"), [CLAIM | {"verdict": "open"}])
    return root


def test_every_notebook_has_its_state(root):
    assert states(root) == {
        "cutmix/a": ("fresh", ""),
        "cutmix/b": ("missing", "was never executed"),
        "other/c": ("fresh", ""),
    }
    assert collect(root)[0].title == "The a page"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("rsbook/mixing.py", "rsbook sources changed"),
        ("requirements.lock", "lock file changed"),
        ("data/bluemarble/SHA256SUMS", "data changed"),
    ],
)
def test_a_page_is_stale_when_what_it_depends_on_changes(root, path, why):
    (root / path).write_text("changed\n")
    assert states(root)["cutmix/a"] == ("stale", why)
    assert why_run("cutmix/a", {"seeds": [42]}, root) == why


def test_a_page_is_stale_when_its_notebook_changes_or_goes(root):
    write(root, "cutmix/a", notebook(FIRST, "from rsbook import mixing\n1 + 1"))
    assert states(root)["cutmix/a"] == ("stale", "notebook changed")
    write(root, "cutmix/a", notebook("other = 1\n"))
    assert states(root)["cutmix/a"] == ("stale", "its parameters changed")
    (root / "notebooks" / "cutmix" / "a.ipynb").unlink()
    assert states(root)["cutmix/a"] == ("stale", "its notebook is gone")


def test_other_parameters_than_usual_make_no_page_stale_and_are_in_its_command(root, monkeypatch):
    """The record of an executed notebook has "~" for this machine's home."""
    home = root.parent / "home"
    (home / "archives" / "deepglobe").mkdir(parents=True)
    (home / "archives" / "deepglobe" / "SHA256SUMS").write_text("00  a\n")
    monkeypatch.setenv("HOME", str(home))
    given = {"preset": "smoke", "dataset": "deepglobe", "seeds": [1], "device": "auto"}
    print_ = planning.fingerprint("cutmix/a", given | {"data_root": str(home / "archives")}, root)
    execute(root, "cutmix/a", facts_of("cutmix/a"), parameters=given | {"data_root": "~/archives"}, **print_)
    page = collect(root)[0]
    assert (page.state, page.why) == ("fresh", "")
    assert page.command == (
        "python -m rsbook run cutmix/a -p 'preset=\"smoke\"' -p 'dataset=\"deepglobe\"' -p 'seeds=[1]' "
        "-p 'data_root=\"~/archives\"'"
    )
    (home / "archives" / "deepglobe" / "SHA256SUMS").write_text("11  a\n")
    assert states(root)["cutmix/a"] == ("stale", "data changed")


def test_without_sources_the_state_is_unknown(root):
    for project in (None, root / "nowhere"):
        found = pages.collect(root / "book" / "_executed", project)
        assert {page.state for page in found} == {"unknown"}
        assert pages.badges(found) == {}
        assert "2 unknown" in pages.status(found)


def test_a_book_without_executed_notebooks_has_its_pages_all_the_same(tmp_path):
    pages.write(tmp_path / "book", tmp_path)
    assert "No notebook" in (tmp_path / "book" / "_generated" / "status.md").read_text()
    assert "No executed page" in (tmp_path / "book" / "_generated" / "claims.md").read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": 3}', '{"cells": [{}], "metadata": {}}'])
def test_a_damaged_notebook_is_said_to_be(root, text):
    (root / "book" / "_executed" / "cutmix" / "a.ipynb").write_text(text)
    assert states(root)["cutmix/a"] == ("stale", "damaged")
    assert "damaged" in pages.status(collect(root))


@pytest.mark.parametrize("rsbook", [None, 3, {"parameters": 3, "components": []}, {"started": 3, "seconds": "x"}])
def test_a_record_of_another_form_crashes_nothing(root, rsbook):
    path = root / "book" / "_executed" / "cutmix" / "a.ipynb"
    content = json.loads(path.read_text())
    content["metadata"]["rsbook"] = rsbook
    content["cells"][1]["outputs"][0]["metadata"][FACTS] = {
        "rsbook": "claims",
        "rows": [3, {"claim": ["x"], "n": None}],
    }
    content["cells"][1]["outputs"][1]["metadata"][FACTS] = {"rsbook": "receipt", "runs": 3, "versions": 3, "made": 3}
    path.write_text(json.dumps(content))
    assert states(root)["cutmix/a"][0] == "stale"
    assert pages.claims(collect(root))
    assert pages.status(collect(root))


def test_the_status_page_lists_when_how_long_and_on_what(root):
    execute(root, "cutmix/b", facts_of("cutmix/b", runs=False, commit=None))
    text = pages.status(collect(root))
    (table,) = rows_of(text)
    assert table["page"].tolist() == ["The a page", "The b page", "The c page"]
    assert table["state"].tolist() == ["fresh"] * 3
    assert table["made (UTC)"].tolist()[::2] == ["2026-11-21 13:00", "2026-11-22 09:00"]
    assert table["page took"].tolist() == ["1 min 1 s"] * 3
    assert table["training behind it"][0] == "1 h 1 min: 2 runs, 1 trained for this page"
    assert table["training behind it"].isna().tolist() == [False, True, False]
    assert table["commit"].tolist()[0] == "0123456789ab"
    assert table["device"].tolist() == ["A processor"] * 3
    assert '<a href="../_executed/cutmix/a.html">' in text
    assert "3 fresh" in text
    assert "Python 3.11.7, torch 2.15" in text
    # two pages read the same two runs: they were trained once
    assert "The pages took 3 min 3 s, the 2 training runs behind them 1 h 1 min." in text


@pytest.mark.parametrize(
    ("total", "fresh", "said"),
    [
        (1, 0, "1 run, from its record"),
        (1, 1, "1 run, trained for this page"),
        (21, 0, "21 runs, none trained for this page"),
        (21, 20, "21 runs, 20 trained for this page"),
        (21, 21, "21 runs, all trained for this page"),
    ],
)
def test_the_status_page_says_whether_runs_were_trained_for_a_page(root, total, fresh, said):
    behind = {"total": total, "fresh": fresh, "seconds": 4553.0, "records": {"r1": 61.0}}
    execute(root, "cutmix/a", facts_of("cutmix/a", runs=behind))
    execute(root, "other/c", facts_of("other/c", runs=False))
    text = pages.status(collect(root))
    assert rows_of(text)[0]["training behind it"][0] == f"1 h 15 min: {said}"
    assert "the training run behind them 1 min 1 s." in text


def test_a_page_of_all_records_is_stale_when_there_are_others(root, monkeypatch):
    monkeypatch.setenv("RSBOOK_STORE", str(root / "store"))
    write(root, "cutmix/a", notebook(FIRST, "runs.stored(f)"))
    execute(root, "cutmix/a")
    assert states(root)["cutmix/a"] == ("fresh", "")
    (root / "store" / "f").mkdir(parents=True)
    (root / "store" / "f" / "0123.json").touch()
    assert states(root)["cutmix/a"][1].startswith("records changed")
    assert states(root)["other/c"] == ("fresh", "")


def test_one_claim_is_counted_in_the_singular(root):
    execute(root, "cutmix/a", claims=[CLAIM])
    execute(root, "other/c")
    text = re.sub(r"<.*?>", "", pages.claims(collect(root)))
    assert "Of 1 claim 1 holds, 0 fail, 0 are open." in text


def test_pages_of_an_older_version_without_facts_are_listed_as_such(root):
    execute(root, "cutmix/a")
    (root / "requirements.lock").write_text("changed\n")
    table = rows_of(pages.status(collect(root)))[0].set_index("page")
    assert "made by an older version" in table["state"]["The a page"]
    assert table["preset"]["The a page"] == "quick"
    assert table["made (UTC)"]["The a page"] == "2026-11-20 23:59"


def test_claims_are_collected_by_work_with_their_counts(root):
    text = pages.claims(collect(root), {"cutmix": "Mixing *scenes*"})
    assert "Of 3 claims" in text
    assert re.findall(r'"verdict-(\w+)">(\d) ', text.split("##")[0]) == [("holds", "1"), ("fails", "1"), ("open", "1")]
    assert re.findall(r"^## (.*)$", text, re.M) == [r"Mixing \*scenes\*", "Other"]
    first, second = rows_of(text)
    assert first["number"].tolist() == [1, 2]
    assert first["verdict"].tolist() == ["holds", "fails"]
    assert first["paper"].tolist() == [1.81, 1.81]
    assert first["made with"].tolist() == ["quick preset on bluemarble"] * 2
    assert first["metric"].tolist() == ["mAP macro"] * 2
    assert first["notebook"].tolist() == ["cutmix/a"] * 2
    assert second["verdict"].tolist() == ["open"]
    assert '<td class="published">+1.81</td>' in text
    assert '<td class="verdict-fails">fails</td>' in text
    assert "+1.00\u00a0±\u00a00.10 at" in text
    assert '<a href="../_executed/cutmix/a.html">' in text
    assert "nobody edits" in " ".join(text.split())


def test_claims_of_a_stale_page_say_so(root):
    (root / "rsbook" / "mixing.py").write_text("a = 2\n")
    assert "</a> (stale)" in pages.claims(collect(root))


def test_settings_have_a_column_where_they_differ(root):
    assert ">made with<" not in pages.claims(collect(root))
    execute(root, "cutmix/b", facts_of("cutmix/b", preset="full", dataset="deepglobe"), [CLAIM])
    text = pages.claims(collect(root))
    assert ">made with<" in text
    assert "full preset on deepglobe" in text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_untrusted_text_cannot_become_markup(root, payload):
    path = execute(
        root,
        "cutmix/a",
        facts_of(
            "cutmix/a", preset=payload, dataset=payload, device=payload, commit=payload, versions={payload: payload}
        ),
        [dict.fromkeys(CLAIM, payload)],
        parameters={"preset": payload, payload: payload},
        started=payload,
        components={"lock": payload},
    )
    content = json.loads(path.read_text())
    content["cells"][0]["source"] = f"# {payload}"
    path.write_text(json.dumps(content))
    found = collect(root)
    badge = pages.badges(found)["_executed/cutmix/a"]
    markdown = MarkdownIt("commonmark")
    for text in (
        markdown.render(pages.status(found)),
        markdown.render(pages.claims(found, {"cutmix": payload})),
        badge,
    ):
        assert "<script" not in text
        assert "<img" not in text
        assert "<h1>Heading" not in text
        assert not re.search(r"</table>(?!</div>)", text)


def test_only_stale_pages_have_a_badge_which_says_why_and_how_to_make_them_again(root):
    assert pages.badges(collect(root)) == {}
    (root / "rsbook" / "mixing.py").write_text("a = 2\n")
    found = pages.badges(collect(root))
    assert set(found) == {"_executed/cutmix/a", "_executed/other/c"}
    badge = found["_executed/cutmix/a"]
    assert "made on 2026-11-20, before rsbook sources changed" in badge
    assert "<code>python -m rsbook run cutmix/a -p &#x27;seeds=[42]&#x27;</code>" in badge


def test_what_has_not_changed_is_not_written_again(root):
    pages.write(root / "book", root)
    made = {path: path.stat().st_mtime_ns for path in (root / "book" / "_generated").iterdir()}
    assert {path.name for path in made} == {"status.md", "claims.md", "badges.json"}
    pages.write(root / "book", root)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    (root / "rsbook" / "mixing.py").write_text("a = 2\n")
    pages.write(root / "book", root)
    changed = {path.name for path, when in made.items() if path.stat().st_mtime_ns != when}
    assert changed == set(map(str, ("status.md", "claims.md", "badges.json")))


def test_a_stale_page_carries_its_badge_under_its_title(root):
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    pages.write(root / "book", root)
    book, built = root / "book", root / "_build"
    for path in (book / "_executed").rglob("*.ipynb"):  # plain text stands for the notebooks here
        path.with_suffix(".md").write_text("# A title\n\nText.\n")
    (book / "index.md").write_text("# Index\n\n```{toctree}\n:glob:\n_generated/*\n_executed/*/*\ncutmix\n```\n")
    settings = {"extensions": ["myst_parser", "rsbook.sphinx_pages"], "html_theme": "basic"}

    def build():
        warnings = io.StringIO()
        with docutils_namespace():
            Sphinx(book, None, built, root / "doctrees", "html", settings, None, warnings, freshenv=True).build(True)
        assert warnings.getvalue() == ""
        return (built / "_executed" / "cutmix" / "a.html").read_text()

    assert "rsbook-badge" not in build()
    (root / "rsbook" / "mixing.py").write_text("a = 2\n")
    pages.write(book, root)
    assert re.search(r"<h1>A title.*?</h1>\s*<p class=\"rsbook-badge\".*?</p>\s*<p>Text", build(), re.S)
    status, claims = ((built / "_generated" / f"{name}.html").read_text() for name in ("status", "claims"))
    assert "before" not in status
    assert "rsbook sources changed" in status
    assert "<h2>Mixing *scenes*" in claims
    assert "rsbook-table" in claims
