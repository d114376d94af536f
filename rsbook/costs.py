"""The page on what everything costs, made from the tables and receipts that benchmarks/ leaves in its results."""

from __future__ import annotations

import hashlib
import html
import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rsbook import figures, pages, receipts
from rsbook.figures import Html

FIRST = ("mixing", "explain", "noise", "training", "reading", "rebuilding", "scaling")  # the others follow by name
COLOURS = {"ours": "#3C8FD9", "peer": "#D55E00", "limit": "#8a8f98"}
WORDS = {"ours": "rsbook", "peer": "what else readers would use", "limit": "what nothing is faster than"}
SECONDS = {"s": 1.0, "ms": 1e-3}
GROWTH, FEW = "scaling", ("bands", "classes")  # amounts of less than an order of magnitude
COLUMNS = {"case", "device", "threads", "what", "role", "unit", "median", "low", "high", "n", "target", "met"}

TEXT = """\
# What it costs

An augmentation is kept when it costs nothing, and a book is read while it builds. Each section below times one thing
that this book does often, beside what readers would otherwise use for it, in one process and in turns. The grey line is
the *limit*: what nothing can be faster than, such as a copy of the batch or one forward pass. Targets are those that
the work began with, for one thread of a processor where nothing else is said. A target *holds* when the worse quartile
of all rounds meets it; those that fail are listed first. What is said of GPUs was not measured yet: none was at hand.

Every table can be made again with `make bench`, on your machine, in about a quarter of an hour. `benchmarks/NOTES.md`
in the repository says what was tried to get here, with the outcome that was expected.
"""


@dataclass(frozen=True)
class Benchmark:
    """A table of benchmarks/results, by its name, with its receipt."""

    name: str
    rows: pd.DataFrame
    receipt: Mapping[str, Any]


def load(folder: Path) -> tuple[list[Benchmark], list[str]]:
    """The tables in a folder, in the order of the page, and what is wrong with those that cannot be read."""
    found, damaged = [], []
    for path in sorted(folder.glob("[!.]*.csv"), key=lambda path: (_place(path.stem), path.stem)):
        try:
            found.append(_read(path))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            cure = f"make it again with python benchmarks/{path.stem}.py"
            damaged.append(f"{path.name} or its receipt cannot be shown ({type(error).__name__}: {error}): {cure}")
    return found, damaged


def page(found: Iterable[Benchmark], damaged: Iterable[str] = ()) -> str:
    """The page, as Markdown."""
    found, notes = list(found), [pages.block(f"<p>{html.escape(text)}</p>") for text in damaged]
    if not found:
        return "\n\n".join([TEXT, "No benchmark has left its results yet.", *notes]) + "\n"
    parts = [TEXT, *_summary(found), *notes]
    for one in found:
        title, _, beside = one.receipt["title"].partition(": ")
        about = " ".join(filter(None, (f"{beside[:1].upper()}{beside[1:]}.", one.receipt["about"])))
        parts += [f"## {title}", about]
        drawn, tables = (_growth(one), _exponents(one)) if one.name == GROWTH else (_times(one), [_table(one)])
        parts += [pages.block(figure.html) for figure in drawn] + [pages.wide(table) for table in tables]
        parts += [pages.block(f"<p>{_made(one)}</p>")]
    return "\n\n".join(parts) + "\n"


def write(book: Path, project: Path) -> None:
    """Make the page in book/_generated from the results of the project, unless it was made from the same."""
    results, path = Path(project, "benchmarks", "results"), Path(book, pages.FOLDER, "costs.md")
    files = [Path(__file__), Path(figures.__file__), *sorted(results.glob("[!.]*.*"))]
    made_from = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = f"<!-- made from {made_from} -->\n"  # it takes seconds to draw
    if not (path.is_file() and path.read_text("utf-8").endswith(stamp)):
        pages.put(path, f"{page(*load(results))}\n{stamp}")


def _read(path: Path) -> Benchmark:
    rows = pd.read_csv(path, keep_default_na=False, na_values=[""])
    if missing := COLUMNS - set(rows.columns):
        raise ValueError(f"it has no column {min(missing)}")
    one = Benchmark(path.stem, rows, json.loads(path.with_suffix(".json").read_text("utf-8")))
    _made(one)
    for name in ("title", "about"):
        if not isinstance(one.receipt[name], str):
            raise ValueError(f"{name} is {one.receipt[name]!r:.50}")
    return one


def _place(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


# What the page shows


def _summary(found: list[Benchmark]) -> list[str]:
    """How many targets hold, and those that do not."""
    rows = pd.concat(
        [one.rows.assign(benchmark=one.receipt["title"].partition(":")[0], grows=one.name == GROWTH) for one in found]
    )
    rows = rows[rows["target"].notna()]
    if rows.empty:
        return []
    failed = rows[rows["met"] != "yes"]
    counts = [(len(part), sum(part["met"] == "yes")) for part in (rows[~rows["grows"]], rows[rows["grows"]])]
    counted = [
        f"Of {n} {what} {k} hold." for (n, k), what in zip(counts, ("targets", "exponents of growth"), strict=True) if n
    ]
    counted = f"<p><strong>{' '.join(counted)}</strong></p>"
    if failed.empty:
        return [pages.block(counted)]
    caption = "Targets that fail; the sections say why. A / B is how many times as long A takes as B."
    shown = _shown(failed).drop(columns="verdict")
    shown.insert(0, "section", list(failed["benchmark"]))
    table = figures.draw_table(shown, name="targets_that_fail", caption=caption, data=failed)
    return [pages.block(counted), pages.wide(table)]


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as readers see them."""
    given = rows.to_dict("records")
    frame = pd.DataFrame(
        {
            "what": rows["what"],
            "case": [f"{row['case']}{_machine(row)}" for row in given],
            "measured": [_measured(row) for row in given],
        },
        dtype=object,
    )
    if rows["target"].notna().any():
        frame["target"] = rows["target"]
        frame["verdict"] = rows["met"].map({"yes": "holds", "no": "fails"})
    return frame


def _table(one: Benchmark) -> Html:
    """What was compared on one thread, and what has a target; the rest is in the figure and in the CSV."""
    rows = one.rows[((one.rows["role"] == "ratio") & (one.rows["threads"] == 1)) | one.rows["target"].notna()]
    rows = one.rows if rows.empty else rows
    caption = (
        "A / B is how many times as long A takes as B. Medians over the rounds and quartiles, on one thread; the CSV "
        "has all that was measured."
    )
    return figures.draw_table(_shown(rows), name=one.name, caption=caption, data=one.rows)


def _exponents(one: Benchmark) -> list[Html]:
    """The exponents of time and of memory, a row a path, a column an amount."""
    rows = one.rows[(one.rows["role"] == "ratio") & (one.rows["threads"] == 1)]
    parts = rows["case"].str.extract(r"^(?P<path>.*) · (?P<amount>\w+)$")
    rows = rows.assign(path=parts["path"], amount=parts["amount"], value=rows["median"].map("{:.2f}".format))
    found = []
    for what, part in rows.groupby("what", sort=False):
        frame = part.pivot(index="path", columns="amount", values="value")
        frame = frame.loc[list(dict.fromkeys(part["path"])), list(dict.fromkeys(part["amount"]))]
        frame = frame.rename_axis(columns=None).reset_index()
        caption = f"The {what} in each amount; 1 is linear."
        found.append(figures.draw_table(frame, name=what.replace(" ", "_"), caption=caption, data=part))
    return found


def _times(one: Benchmark) -> list[Html]:
    """Seconds of every way, as points on a logarithmic axis, with the limit of each case as a line."""
    rows = one.rows[one.rows["unit"].isin(SECONDS) & (one.rows["role"] != "ratio")]
    if rows.empty:
        return []
    scale = rows["unit"].map(SECONDS)
    rows = rows.assign(**{name: rows[name] * scale for name in ("median", "low", "high")})
    lines, height = _lines(rows)

    def draw(theme: Mapping[str, str]) -> Figure:
        figure, ax = figures.axes(theme, height=1.0 + 0.17 * height)
        for line in lines:
            for row in line.rows.to_dict("records"):
                colour, filled = COLOURS[row["role"]], row["threads"] == 1
                ax.plot([row["low"], row["high"]], [line.y] * 2, color=colour, linewidth=1.4)
                ax.plot(row["median"], line.y, "o", color=colour, markersize=5, fillstyle="full" if filled else "none")
        limits = rows[(rows["role"] == "limit") & (rows["threads"] == 1)]
        for case, value in zip(limits["case"], limits["median"], strict=True):
            inside = [line.y for line in lines if case in set(line.rows["case"])]
            ax.plot([value] * 2, [min(inside) - 0.6, max(inside) + 0.6], color=COLOURS["limit"], linewidth=1)
        ax.set(xscale="log", xlabel="seconds", ylim=(height + 0.3, -0.3))
        ax.set_yticks([line.y for line in lines], [line.text for line in lines], fontsize=8)
        for label, line in zip(ax.get_yticklabels(), lines, strict=True):
            label.set_fontweight("bold" if line.rows.empty else "normal")
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.grid(axis="x", color=theme["grid"], linewidth=0.8)
        _legend(figure, ax, rows)
        return figure

    return [
        figures.show(
            draw,
            alt="Points for the seconds of each way, a row a way, on a logarithmic axis, and a line at the limit.",
            caption="Seconds of each way: the median and the quartiles of its rounds.",
            data=rows,
            name=f"{one.name}_seconds",
            vector=False,  # so many words and points are twice as heavy in SVG
        )
    ]


@dataclass(frozen=True)
class Line:
    """A line beside the axis: its middle, what it says, and what is drawn on it; nothing on the head of a case."""

    y: float
    text: str
    rows: pd.DataFrame


def _lines(rows: pd.DataFrame) -> tuple[list[Line], float]:
    """The lines of a figure, and the height of all: one a way under the head of its case, or one a case."""
    cases = rows.groupby("case", sort=False)
    one_each = cases["what"].nunique().max() == 1
    found = []
    for case, part in cases:
        if one_each:
            found.append((case, part))
        else:
            heads = [(case, part.iloc[:0])] if len(cases) > 1 else []
            found += [*heads, *part.groupby("what", sort=False)]
    lines, y = [], 0.0
    for text, part in found:
        text = "\n".join(textwrap.wrap(text, 44))
        height = text.count("\n") + 1.4
        lines.append(Line(y + height / 2, text, part))
        y += height
    return lines, y


def _legend(figure: Figure, ax: Any, rows: pd.DataFrame) -> None:
    roles = [role for role in COLOURS if role in set(rows["role"])]
    handles = [ax.plot([], [], "o", color=COLOURS[role], markersize=5.5)[0] for role in roles]
    words = [WORDS[role] for role in roles]
    if set(rows["threads"]) != {1}:
        handles.append(ax.plot([], [], "o", color=COLOURS["limit"], markersize=5.5, fillstyle="none")[0])
        words.append("hollow: more threads, or a GPU")
    figure.legend(handles, words, loc="outside upper center", ncols=4, fontsize=8)


def _growth(one: Benchmark) -> list[Html]:
    """Time and memory against each amount, a line a path, both axes logarithmic."""
    rows = one.rows[(one.rows["role"] != "ratio") & (one.rows["threads"] == 1)]
    parts = rows["case"].str.extract(r"^(?P<path>.*) · (?P<amount>\d+) (?P<axis>\w+)$")
    rows = rows.assign(path=parts["path"], amount=parts["amount"].astype(float), axis=parts["axis"])
    paths = {path: f"C{i}" for i, path in enumerate(dict.fromkeys(rows["path"]))}

    def drawn(what: str, label: str) -> Html:
        frame = rows[(rows["what"] == what) & (rows["median"] > 0)]
        axes_of = list(dict.fromkeys(frame["axis"]))

        def draw(theme: Mapping[str, str]) -> Figure:
            figure, panels = figures.axes(theme, height=4.6, nrows=2, ncols=3, sharey=True)
            for ax, axis in zip(panels.flat, axes_of, strict=False):
                for path, part in frame[frame["axis"] == axis].groupby("path", sort=False):
                    ax.plot(part["amount"], part["median"], "o-", color=paths[path], markersize=2.5, linewidth=1.2)
                ax.set(xscale="log", yscale="log", xlabel=axis)
                if axis in FEW:
                    amounts = sorted(set(frame[frame["axis"] == axis]["amount"]))
                    ax.set_xticks(amounts, [f"{amount:.0f}" for amount in amounts])
                    ax.minorticks_off()
            for ax in panels[:, 0]:
                ax.set_ylabel(label)
            for ax in panels.flat[len(axes_of) :]:
                ax.remove()
            handles = [panels.flat[0].plot([], [], color=colour, linewidth=2)[0] for colour in paths.values()]
            figure.legend(handles, list(paths), loc="outside lower center", ncols=3, fontsize=8)
            return figure

        return figures.show(
            draw,
            alt=f"Lines of {what} against pixels, bands, classes, scenes and records, a line a path, both logarithmic.",
            caption=f"{what.capitalize()} of one call as one amount grows and the others stay.",
            data=frame,
            name=f"{one.name}_{what}",
            vector=False,
        )

    return [drawn("time", "seconds"), drawn("memory", "megabytes")]


# Words


def _made(one: Benchmark) -> str:
    """What made a table, in a line of HTML."""
    receipt = one.receipt
    where = receipt["provenance"]
    versions = receipts.versions(where["python"], {"torch": where["versions"]["torch"]} | receipt["peers"])
    text = f"Made on {receipt['made'][:10]} in {receipt['seconds']:.0f} s on {where['device']}, with {versions}: "
    return f"{html.escape(text)}<code>{html.escape(receipt['command'])}</code>"


def _machine(row: Mapping[str, Any]) -> str:
    return ", GPU" if pd.isna(row["threads"]) else f", {row['threads']:.0f} threads" if row["threads"] > 1 else ""


def _measured(row: Mapping[str, Any]) -> str:
    """The median with its unit, and the quartiles where there was more than one round."""
    unit = "×" if row["unit"] == "times" else "" if pd.isna(row["unit"]) else row["unit"]
    quartiles = f" ({_number(row['low'])}–{_number(row['high'])})" if row["n"] > 1 else ""
    return f"{_number(row['median'])} {unit}".strip() + quartiles


def _number(value: float) -> str:
    """Three significant digits, in full."""
    return f"{float(f'{value:.3g}'):,.10g}"
