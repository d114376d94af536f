"""Pages that are made from executed notebooks: what state each of them is in, and the claims of the whole book.

What executed notebooks say is read as data and escaped: none of it becomes markup.
"""

import html
import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from rsbook import figures, planning, receipts
from rsbook.charts import METRIC_NAMES
from rsbook.files import replacing
from rsbook.parameters import BatchError, declared
from rsbook.provenance import duration

FRESH, STALE, MISSING, UNKNOWN = "fresh", "stale", "missing", "unknown"
FOLDER = "_generated"  # of book/
BADGES = "badges.json"  # for rsbook/sphinx_pages.py
METRICS = METRIC_NAMES | {"rare": "mean AP of the rare classes", "miou": "mean IoU", "auroc": "AUROC"}

STATUS = """\
# What is up to date

Every page that a notebook made, from the receipts at their ends. A page is *stale* when its notebook, the sources of
rsbook, the data or the lock file are no longer what they were when it was made; it then says so under its title, and
`python -m rsbook run` makes it again.
"""
CLAIMS = """\
# What was claimed, and what came out

A claim *holds* when the difference has the claimed sign for every seed, *fails* when it has it for none, and is *open*
in between, with a single seed, or in the smoke preset, whose numbers mean nothing. Verdicts are computed from the
records of the training runs on the page that a row leads to, and collected here when the book is rendered: nobody edits
them.
"""


@dataclass(frozen=True)
class Page:
    """An executed notebook, by its name `<work>/<name>`: its record and facts, and whether it is up to date.

    state: fresh, stale, missing or unknown, `why` if not fresh; command: what makes it again.
    """

    name: str
    title: str
    state: str
    why: str
    command: str
    record: dict = field(default_factory=dict)
    receipt: dict = field(default_factory=dict)
    claims: list = field(default_factory=list)


def collect(executed, project=None):
    """Every notebook of the project and every executed one in a folder, as Pages, by name.

    project: whose notebooks, sources and data they are compared with; where there are none, their state is unknown.
    What cannot be read is a Page that says so.
    """
    executed = Path(executed)
    names = {path.relative_to(executed).with_suffix("").as_posix() for path in executed.glob("[!.]*/[!.]*.ipynb")}
    try:
        names |= set(planning.find([], project)) if project is not None else set()
    except BatchError:  # it has no notebooks
        project = None
    return [_page(name, executed, project) for name in sorted(names)]


def status(pages):
    """The status page, as Markdown."""
    counts = {state: sum(page.state == state for page in pages) for state in (FRESH, STALE, MISSING, UNKNOWN)}
    rows = [_status_row(page) for page in pages]
    if not rows:
        return f"{STATUS}\nNo notebook was executed yet.\n"
    counted = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    lines = [f"<p><strong>{counted}</strong> of {len(pages)} notebooks. {_times(pages)}</p>"]
    versions = dict.fromkeys(filter(None, map(_versions, pages)))
    lines += [f"<p>Made with {html.escape('; or with '.join(versions))}.</p>"] if versions else []
    frame = pd.DataFrame(rows, dtype=object)
    table = figures.draw_table(frame, name="status", caption="Every notebook, and what made its page.")
    return "\n\n".join([STATUS, *map(block, lines), wide(table)]) + "\n"


def claims(pages, titles=None):
    """The claims page, as Markdown: what the pages' claims tables hold, work by work.

    titles: of the works, by the folder of their notebooks; default: the folder.
    """
    found = [(page, row) for page in pages for row in page.claims]
    if not found:
        return f"{CLAIMS}\nNo executed page has left its claims yet.\n"
    parts = [CLAIMS, f"<p><strong>{_counted([row for _, row in found])}</strong></p>"]
    works = list(dict.fromkeys(page.name.split("/")[0] for page, _ in found))
    for work in works:
        own = [(page, row) for page, row in found if page.name.startswith(f"{work}/")]
        title = (titles or {}).get(work) or work.replace("_", " ").capitalize()
        counted = [f"<p>{_counted([row for _, row in own])}</p>"] if len(works) > 1 else []
        parts += [f"## {_markdown(title)}", *counted, _claims_table(work, own)]
    return "\n\n".join(parts) + "\n"


def badges(pages):
    """What stale pages carry under their titles: HTML, by the page's name in the book."""
    return {f"_executed/{page.name}": _badge(page) for page in pages if page.state == STALE}


def write(book, project=None):
    """Make the pages of book/_generated from book/_executed; a file that is as it should be is left alone."""
    book = Path(book)
    pages = collect(book / "_executed", project)
    titles = {name: _first_heading(book / f"{name}.md") for name in {page.name.split("/")[0] for page in pages}}
    for name, text in {
        "status.md": status(pages),
        "claims.md": claims(pages, titles),
        BADGES: json.dumps(badges(pages), indent=1),
    }.items():
        put(book / FOLDER / name, text)


def put(path, text):
    """Write a page, unless it is there as it should be."""
    if not path.is_file() or path.read_text("utf-8") != text:
        with replacing(path) as temporary:
            temporary.write_text(text, "utf-8")


# Reading executed notebooks


def _page(name, executed, project):
    title = name.split("/")[1].replace("_", " ")
    try:
        notebook = json.loads(Path(executed, f"{name}.ipynb").read_text("utf-8"))
        sources = ["".join(cell.get("source", "")) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        record = notebook["metadata"].get("rsbook")
        facts = list(facts_left(notebook))
    except FileNotFoundError:
        return Page(name, _title_of_source(name, project) or title, MISSING, "was never executed", _command(name, {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Page(name, title, STALE, "damaged", _command(name, {}))
    record = record if isinstance(record, dict) else {}
    state, why = _freshness(name, record, project)
    receipts = [one for one in facts if one["rsbook"] == "receipt"]
    if state == STALE and not receipts:
        why += "; made by an older version"
    rows = [row for one in facts if one["rsbook"] == "claims" for row in one.get("rows", []) if isinstance(row, dict)]
    return Page(
        name,
        _heading("\n".join(sources)) or title,
        state,
        why,
        _command(name, _dict(record, "parameters"), project),
        record,
        receipts[-1] if receipts else {},
        rows,
    )


def facts_left(notebook):
    """The facts that `figures.Html` left beside what it shows."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            facts = output.get("metadata", {}).get(figures.FACTS)
            if isinstance(facts, dict) and "rsbook" in facts:
                yield facts


def _freshness(name, record, project):
    """The state of an executed notebook, and why it is not fresh."""
    if project is None:
        return UNKNOWN, "no sources to compare with"
    why = planning.stale(name, record, project)
    return (FRESH, "") if why is None else (STALE, why)


def _command(name, parameters, project=None):
    """What makes a page again with these parameters; those that are the notebook's own are left out."""
    try:
        own = {key: one.default for key, one in declared(planning.read(name, project), name).items()} if project else {}
    except BatchError:
        own = {}
    return receipts.command(name, {key: value for key, value in parameters.items() if value != own.get(key)})


def _title_of_source(name, project):
    try:
        cells = planning.read(name, project)["cells"] if project else []
    except BatchError:
        return None
    return _heading("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"))


def _first_heading(path):
    return _heading(path.read_text("utf-8")) if path.is_file() else None


def _heading(text):
    found = re.search(r"^#\s+(.+)$", text, re.M)
    return found and found[1].strip()


def _dict(facts, key):
    return facts[key] if isinstance(facts.get(key), dict) else {}


# Writing


def _status_row(page):
    facts, parameters = page.receipt, _dict(page.record, "parameters")
    runs = _dict(facts, "runs")
    commit = str(facts["commit"])[:12] if facts.get("commit") else None
    return {
        "page": _link(page) if page.state != MISSING else page.title,
        "state": figures.Html(
            f'<span class="rsbook-{page.state}">{page.state}</span>{html.escape(": " * bool(page.why) + page.why)}',
            text=": ".join(filter(None, (page.state, page.why))),
        ),
        "preset": facts.get("preset") or parameters.get("preset"),
        "data set": facts.get("dataset") or parameters.get("dataset"),
        "made (UTC)": _when(facts.get("made") or page.record.get("started")),
        "page took": _duration(page.record.get("seconds")),
        "training behind it": _training(runs) if runs else None,
        "device": facts.get("device"),
        "commit": f"{commit} + changes" if commit and facts.get("uncommitted_changes") else commit,
    }


def _claims_table(work, found):
    rows = []
    settings = {page.name: _settings(page) for page, _ in found}
    for page, row in found:
        told = {
            "claim": _link(page, " (stale)" * (page.state == STALE), str(row.get("claim") or "")),
            "ours": row.get("here"),
            "n": row.get("n"),
            "paper": row.get("paper"),
            "difference": row.get("difference"),
            "verdict": row.get("verdict"),
            "metric": METRICS.get(str(row.get("metric")), row.get("metric")),
            "made with": settings[page.name],
        }
        rows.append({name: value if isinstance(value, figures.Html) else _cell(value) for name, value in told.items()})
    frame = pd.DataFrame(rows, dtype=object)
    data = frame.assign(number=[str(row.get("number") or "") for _, row in found], notebook=[p.name for p, _ in found])
    frame = frame.drop(columns=["metric"] + ["made with"] * (len(set(settings.values())) == 1))  # claims name micro
    table = figures.draw_table(
        frame,
        name=f"claims_{work}",
        published=["paper"],
        caption="Points, mean ± standard deviation over n seeds, "
        f"{'; '.join(dict.fromkeys(settings.values()))}; the difference is ours less the paper's.",
        data=data,
    )
    return wide(table)


def _badge(page):
    when = _when(page.record.get("started"))
    why = f"before {page.why}" if page.why.split(";")[0].endswith("changed") else f"but {page.why}"
    made = f"made on {when[:10]}, {why}" if when else f"made {why}"
    return block(
        f'<p class="rsbook-badge" role="note"><strong>Stale:</strong> {html.escape(made)}. '
        f"Make it again with <code>{html.escape(page.command)}</code></p>"
    )


def _link(page, note="", text=""):
    href, text = html.escape(f"../_executed/{page.name}.html"), text or page.title
    return figures.Html(f'<a href="{href}">{html.escape(text)}</a>{html.escape(note)}', text=text + note)


def _counted(rows):
    said = [row.get("verdict") for row in rows]
    words = {"holds": ("hold", "holds"), "fails": ("fail", "fails"), "open": ("are open", "is open")}
    counts = {kind: said.count(kind) for kind in figures.VERDICTS}
    parts = [f'<span class="verdict-{kind}">{n} {words[kind][n == 1]}</span>' for kind, n in counts.items()]
    return f"Of {len(rows)} {'claim' if len(rows) == 1 else 'claims'} {', '.join(parts)}."


def _times(pages):
    """How long all pages took, and all training runs behind them, each counted once."""
    took = sum(_seconds(page.record.get("seconds")) for page in pages)
    runs = {
        key: _seconds(value) for page in pages for key, value in _dict(_dict(page.receipt, "runs"), "records").items()
    }
    behind = "training run" if len(runs) == 1 else f"{len(runs)} training runs"
    trained = f", the {behind} behind them {_duration(sum(runs.values()))}" if runs else ""
    return f"The pages took {_duration(took)}{trained}."


def _training(runs):
    total, fresh = runs.get("total"), runs.get("fresh")
    if total == 1:
        whence = "1 run, trained for this page" if fresh else "1 run, from its record"
    else:
        whence = f"{total} runs, {'none' if not fresh else 'all' if fresh == total else fresh} trained for this page"
    return f"{_duration(runs.get('seconds')) or '–'}: {whence}"


def _settings(page):
    parameters = _dict(page.record, "parameters")
    preset, data = (
        page.receipt.get(own) or parameters.get(name) for own, name in (("preset", "preset"), ("dataset", "dataset"))
    )
    return f"{preset or 'unknown'} preset on {data or 'unknown data'}"


def _versions(page):
    return receipts.versions(page.receipt.get("python"), _dict(page.receipt, "versions"))


def _when(text):
    """A date in ISO format as "2026-11-21 13:05", None where there is none."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M}"
    except (TypeError, ValueError):
        return None


def _seconds(value):
    return value if isinstance(value, int | float) and math.isfinite(value) else 0


def _duration(seconds):
    return duration(_seconds(seconds)) if isinstance(seconds, int | float) else None


def _cell(value):
    return value if isinstance(value, str | int | float) or value is None else json.dumps(value)


def _markdown(text):
    """Text in which Markdown finds nothing to read."""
    return re.sub(r"([^\w\s])", r"\\\1", re.sub(r"\s+", " ", text))


def wide(table):
    """A table in the width of the page and its margin."""
    return block(f'<div class="rsbook-wide">{table.html}</div>')


def block(text):
    """HTML as one block of Markdown, which an empty line would end; spaces that do not break stay."""
    return re.sub(r"\s+", " ", text, flags=re.ASCII)
