"""Every notebook, its source and its execution in the smoke preset."""

import ast
import json
import re
from pathlib import Path

import pytest

from rsbook import batch, planning

ROOT = Path(__file__).parents[1]
NAMES = planning.find([], ROOT)
SHARED = ["preset", "dataset", "data_root", "seeds", "device"]


def cells(name, folder=ROOT / "notebooks"):
    return json.loads((folder / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def test_there_are_notebooks():
    assert len(NAMES) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_source_is_stripped_and_tells_its_story_in_order(name):
    found = cells(name)
    code = [cell for cell in found if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    first = source(found[0])
    assert first.startswith("# ")
    parts = ("**Question.**", "**The paper's", "**What to expect.**", "**You will be able to**", "**You need**")
    assert sorted(parts, key=first.find) == list(parts)
    assert first.find(parts[0]) > 0
    headings = re.findall(r"^## (.+)$", "\n".join(source(c) for c in found if c["cell_type"] == "markdown"), re.M)
    assert headings[-2:] == ["Verdict", "Exercises"]
    assert "<summary>Solutions</summary>" in source(found[-2])
    assert "receipts.receipt(" in source(found[-1])


@pytest.mark.parametrize("name", NAMES)
def test_exercises_come_before_their_check_and_their_solutions(name):
    exercises, check, solutions = cells(name)[-4:-1]
    assert [cell["cell_type"] for cell in (exercises, check, solutions)] == ["markdown", "code", "markdown"]
    text = source(exercises)
    assert text.startswith("## Exercises\n")
    numbers = re.findall(r"^(\d)\. \*\*", text, re.M)
    assert numbers == [str(i) for i in range(1, len(numbers) + 1)]
    assert 3 <= len(numbers) <= 5
    assert re.findall(r"^(\d)\. ", source(solutions), re.M) == numbers
    assert re.search(r"explorer|noise laboratory|box sampler|annotation tool", text)
    assert "**In code.**" in text
    assert "exercises.check_" in source(check)


def test_titles_say_what_one_learns_and_fit_the_sidebar():
    titles = [source(cells(name)[0]).splitlines()[0].removeprefix("# ") for name in NAMES]
    assert len(set(titles)) == len(titles)
    for title in titles:
        assert re.match(r"(How|What|Why) ", title)
        assert len(title) <= 60


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere_from_the_source_too(name):
    folder = (ROOT / "notebooks" / name).parent
    text = "\n".join(source(cell) for cell in cells(name) if cell["cell_type"] == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert any("book/glossary.md#" in link for link in links)
    for link in links:
        path, _, anchor = link.partition("#")
        assert (folder / path).is_file(), link
        headings = re.findall(r"^#+ (.+)$", (folder / path).read_text("utf-8"), re.M) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, link


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short_and_define_nothing(name):
    for cell in cells(name):
        if cell["cell_type"] == "code":
            tree = ast.parse(source(cell))
            assert not any(isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda) for n in ast.walk(tree))
            assert len(source(cell).splitlines()) <= 16


@pytest.mark.parametrize("name", NAMES)
def test_shared_parameters_come_first(name):
    assert list(planning.declared(planning.read(name), name))[:5] == SHARED


@pytest.mark.parametrize("name", NAMES)
def test_executed_page_ends_with_a_receipt_and_names_no_folder(name, smoke_notebooks):
    executed = cells(name, smoke_notebooks)
    last = "".join(executed[-1]["outputs"][0]["data"]["text/html"])
    assert "rsbook-receipt" in last
    assert f"python -m rsbook run {name}" in last
    text = (smoke_notebooks / f"{name}.ipynb").read_text(encoding="utf-8")
    assert str(Path.home()) + "/" not in text
    assert str(ROOT) not in text


def test_a_second_run_executes_nothing(smoke_notebooks, smoke_store, monkeypatch, capsys):
    monkeypatch.setenv("RSBOOK_STORE", smoke_store)
    assert batch.run([], {"preset": "smoke"}, ROOT, smoke_notebooks) == []
    assert capsys.readouterr().out.count("up to date") == len(NAMES)


def test_smoke_results_are_not_shown_as_results(smoke_notebooks):
    outputs = [o for c in cells("label_propagation/5a_reliable_maps", smoke_notebooks) for o in c.get("outputs", [])]
    html = "".join("".join(o.get("data", {}).get("text/html", "")) for o in outputs)
    assert "verdict-open" in html
    assert "verdict-holds" not in html
    assert "verdict-fails" not in html
