"""Results by hand: choose runs, group and compare them, look at every seed and class, take the selection along."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import traitlets
from matplotlib.colors import to_hex

from rsbook import figures
from rsbook.charts import METRIC_NAMES
from rsbook.figures import METHOD_COLOURS, METHOD_NAMES, listed
from rsbook.widgets.explorer import Explorer

# What can set runs apart, as `label_propagation.train` names it. Names of weights do not: each seed has its own.
SETTINGS = (
    *("method", "area_range", "maps", "noise", "noise_fraction", "noise_intensity", "stage_one_epochs", "explainer"),
    *("t_cam", "min_pixels", "stop_after", "dataset", "network", "output_stride", "epochs", "batch_size"),
    *("learning_rate", "weight_decay", "evaluate_every", "train_scenes", "probability", "seed"),
)
DIGITS = 6  # of a score: per cent with four, as in the charts
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what spreadsheets take for one (OWASP)
PATTERNS = {  # group labels without what a reader sees anyway
    "method": "{}",
    "area_range": "{}",
    "maps": "{} maps",
    "noise": "{}",
    "noise_fraction": "f = {}",
    "noise_intensity": "α = {}",
    "stop_after": "stopped after epoch {}",
    "stage_one_epochs": "masks of epoch {}",
}


class ResultsExplorer(Explorer):
    """Runs of a study: filter and group them, compare groups by seed and by class, download the selection as CSV.

    filters: setting → what it may be, as the CSV writes it; a setting that is not named may be anything · metric:
    "map_macro" or "map_micro" · group_by: the settings that make a group · order: "study" or "score" · reference: the
    group that others are compared with, its settings as the CSV writes them, [] for none · pair: the two groups whose
    classes are shown; a group that is not there gives way to the first or the last one.
    """

    columns = traitlets.List().tag(sync=True)  # name, words, whether it is offered; levels: cell, text, label, csv
    codes = traitlets.List().tag(sync=True)  # level of each run, a list a column
    scores = traitlets.Dict().tag(sync=True)
    precision = traitlets.List().tag(sync=True)
    records = traitlets.List().tag(sync=True)
    origins = traitlets.List().tag(sync=True)
    origin = traitlets.List().tag(sync=True)  # of each run
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    method_colours = traitlets.List().tag(sync=True)
    metrics = traitlets.Dict().tag(sync=True)
    head = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)

    filters = traitlets.Dict().tag(sync=True)
    metric = traitlets.Enum(tuple(METRIC_NAMES)).tag(sync=True)
    group_by = traitlets.List(traitlets.Unicode()).tag(sync=True)
    order = traitlets.Enum(("study", "score")).tag(sync=True)
    reference = traitlets.List(traitlets.Unicode()).tag(sync=True)
    pair = traitlets.List(traitlets.List(traitlets.Unicode()), minlen=2, maxlen=2).tag(sync=True)

    def __init__(self, runs: pd.DataFrame, classes: Sequence[str], *, name: str = "runs") -> None:
        """Offer the runs, a row each as `runs.table` or `results.load` has them; name: of the file to download.

        classes: those that the lists in `average_precision` are of. Raises ValueError for no runs at all, columns that
        are missing, or lists of another length.
        """
        needed = ("method", "seed", *METRIC_NAMES, "average_precision")
        if missing := [column for column in needed if column not in runs]:
            raise ValueError(f"runs: have no {listed(missing)}")
        if runs.empty:
            raise ValueError("runs: there are none, so nothing can be compared")
        for i, row in enumerate(runs["average_precision"]):
            if not isinstance(row, list | tuple) or len(row) != len(classes):
                raise ValueError(f"runs: average_precision of row {i} is {row!r}, expected {len(classes)} numbers")
        runs = _with_stage_one_epochs(runs).reset_index(drop=True)
        columns, codes = [], []
        for column in SETTINGS:
            if column in runs and not runs[column].map(_missing).all():
                levels, code = _levels(column, runs[column])
                columns.append({"name": column, "words": _words(column), "offered": len(levels) > 1, "levels": levels})
                codes.append(code)
        origins = _origins(runs)
        known = list(dict.fromkeys(origins))
        records = [Path(str(path)).stem for path in runs["record"]] if "record" in runs else []
        scores = [*METRIC_NAMES, *(f"average_precision_{one}" for one in classes)]
        head = [*(c["name"] for c in columns), *scores, *(["record"] if records else [])]
        others = itertools.cycle(matplotlib.color_sequences["tab10"])
        methods = next(c for c in columns if c["name"] == "method")["levels"]
        super().__init__(
            arrays={},
            caption="A row is a group of runs with the same settings: a point is a run, the bar their mean, the band "
            "one standard deviation to either side. With a reference, points are differences of runs with the same "
            "seed. Test scores.",
            columns=columns,
            codes=codes,
            scores={metric: _rounded(runs[metric]) for metric in METRIC_NAMES},
            precision=[_rounded(row) for row in runs["average_precision"]],
            records=records,
            origins=[dict(zip(("date", "device", "commit"), one, strict=True)) for one in known],
            origin=[known.index(one) for one in origins],
            classes=list(classes),
            colours=figures.class_colours(classes),
            method_colours=[METHOD_COLOURS.get(one["cell"]) or to_hex(next(others)) for one in methods],
            metrics=dict(METRIC_NAMES),
            head=",".join(_csv_text(text) for text in head),
            name=name,
            filters={},
            metric="map_macro",
            group_by=[c["name"] for c in columns if c["offered"] and c["name"] != "seed"] or ["method"],
            order="study",
            reference=[],
            pair=[[], []],
        )

    @functools.cached_property
    def fallback(self) -> figures.Html:
        """The groups as a table, made when it is asked for: before the state is changed, that of all runs."""
        rows = [
            {"group": self._label(key), "runs": len(runs)}
            | {METRIC_NAMES[m]: figures.mean_and_spread(runs[m].dropna()) for m in METRIC_NAMES}
            for key, runs in self._groups().items()
        ]
        return figures.draw_table(
            pd.DataFrame(rows),
            caption=f"Test scores in per cent, mean ± standard deviation. {self.about()}",
            name=self.name,
            data=self.selection(),
        )

    def selection(self) -> pd.DataFrame:
        """The chosen runs: settings as the CSV writes them, scores in 0 … 1, average precision by class.

        Raises ValueError for a filter by what the runs do not have.
        """
        frame = pd.DataFrame(
            {
                column["name"]: [column["levels"][code]["cell"] for code in codes]
                for column, codes in zip(self.columns, self.codes, strict=True)
            }
            | {metric: pd.Series(values, dtype=float) for metric, values in self.scores.items()}
        )
        precision = pd.DataFrame(self.precision, dtype=float)
        precision.columns = [f"average_precision_{one}" for one in self.classes]
        frame = pd.concat([frame, precision], axis=1)
        if self.records:
            frame["record"] = self.records
        return frame[self._chosen()]

    def read_out(self) -> pd.DataFrame:
        """A row a group, in its order: its settings, runs, mean and sd in 0 … 1; with a reference also the mean and sd
        of the differences by seed, their number, and how many are above zero.
        """
        groups = self._groups()
        reference = groups.get(tuple(self.reference))
        rows = []
        for key, runs in groups.items():
            values = runs[self.metric].dropna()
            row = dict(zip(self.group_by, key, strict=True)) | {"runs": len(runs)}
            row |= {"mean": values.mean(), "sd": values.std()}
            if reference is not None:
                differences = self._differences(runs, reference)
                row |= {"difference": differences.mean(), "difference_sd": differences.std()}
                row |= {"seeds": len(differences), "above": int((differences > 0).sum())}
            rows.append(row)
        by = "mean" if reference is None else "difference"
        frame = pd.DataFrame(rows, columns=None if rows else [*self.group_by, "runs", "mean", "sd"])
        if self.order == "score" and rows:
            frame = frame.sort_values(by, ascending=False, kind="stable", na_position="last", ignore_index=True)
        return frame

    def read_out_classes(self) -> pd.DataFrame:
        """A row a class: mean and sd of average precision in both groups of the pair, and the difference of means."""
        groups = self._groups()
        ends = (next(iter(groups.values())), list(groups.values())[-1]) if groups else ()
        both = [groups.get(tuple(key), end) for key, end in zip(self.pair, ends, strict=False)]
        frame = pd.DataFrame({"class": list(self.classes)})
        for name, runs in zip(("first", "second"), both, strict=False):
            part = runs[[f"average_precision_{one}" for one in self.classes]]
            frame[name], frame[f"{name}_sd"] = part.mean().to_numpy(), part.std().to_numpy()
        return frame.assign(difference=frame["second"] - frame["first"]) if both else frame

    def read_out_csv(self) -> str:
        """The selection as the page offers it for download; text that a spreadsheet would take for a formula is not
        one in it.
        """
        scores = np.column_stack([pd.Series(self.scores[metric], dtype=float) for metric in METRIC_NAMES])
        scores = np.column_stack([scores, np.array(self.precision, dtype=float)])
        lines = [self.head]
        for run in np.flatnonzero(self._chosen()):
            cells = [c["levels"][codes[run]]["csv"] for c, codes in zip(self.columns, self.codes, strict=True)]
            cells += ["" if np.isnan(score) else f"{score:.{DIGITS}f}" for score in scores[run]]
            cells += [_csv_text(self.records[run])] if self.records else []
            lines.append(",".join(cells))
        return "\n".join([*lines, ""])

    def about(self) -> str:
        """How many runs are chosen, and what made them, in words."""
        chosen = self._chosen()
        found = [self.origins[self.origin[run]] for run in np.flatnonzero(chosen)]
        groups = len(self._groups())
        text = f"{len(found)} of {len(chosen)} runs chosen, in {groups} group{'' if groups == 1 else 's'}."
        return f"{text} {_made(found)}" if found else text

    def _chosen(self) -> np.ndarray:
        """Which runs (n,) bool the filters leave."""
        names = [column["name"] for column in self.columns]
        if unknown := sorted(self.filters.keys() - set(names)):
            raise ValueError(f"filters: the runs have no {listed(unknown)}; they have {listed(names)}")
        chosen = np.ones(len(self.origin), dtype=bool)
        for column, codes in zip(self.columns, self.codes, strict=True):
            wanted = self.filters.get(column["name"])
            if wanted is not None:
                chosen &= [column["levels"][code]["cell"] in wanted for code in codes]
        return chosen

    def _groups(self) -> dict[tuple[str, ...], pd.DataFrame]:
        """The chosen runs by group, in the order of the study."""
        runs = self.selection()
        if unknown := sorted(set(self.group_by) - set(runs)):
            raise ValueError(f"group_by: the runs have no {listed(unknown)}")
        if not self.group_by:
            return {(): runs} if len(runs) else {}
        return dict(iter(runs.groupby(list(self.group_by), sort=False)))

    def _differences(self, runs: pd.DataFrame, reference: pd.DataFrame) -> pd.Series:
        """By seed, where both have it; several runs with a seed count as their mean."""
        ours, theirs = (group.groupby("seed", sort=False)[self.metric].mean() for group in (runs, reference))
        return (ours - theirs).dropna()

    def _label(self, key: Iterable[str]) -> str:
        """A group in words, as the page has it."""
        cells = dict(zip(self.group_by, key, strict=True))
        parts = [
            level["label"]
            for column in self.columns
            for level in column["levels"]
            if level["label"] and cells.get(column["name"]) == level["cell"]
        ]
        return " · ".join(parts) or "all others"


def _with_stage_one_epochs(runs: pd.DataFrame) -> pd.DataFrame:
    """The epochs of the networks that explained masks (blank: all), where the runs that trained them are there too."""
    if "stage_one" not in runs or not {"weights", "stop_after"} <= set(runs) or "stage_one_epochs" in runs:
        return runs
    trained = runs.dropna(subset="weights").drop_duplicates("weights").set_index("weights")["stop_after"]
    return runs.assign(stage_one_epochs=runs["stage_one"].map(trained.to_dict()))


def _levels(column: str, values: pd.Series) -> tuple[list[dict[str, str]], list[int]]:
    """What a setting is, each once, numbers in ascending order, and which of them each run has."""
    by_cell = {_cell(value): value for value in values}
    if not any(isinstance(value, str) for value in by_cell.values()):
        missing = [cell for cell, value in by_cell.items() if _missing(value)]
        by_cell = {cell: by_cell[cell] for cell in missing} | dict(
            sorted(((c, v) for c, v in by_cell.items() if c not in missing), key=lambda pair: pair[1])
        )
    at = {cell: i for i, cell in enumerate(by_cell)}
    return [_level(column, cell, value) for cell, value in by_cell.items()], [at[_cell(value)] for value in values]


def _level(column: str, cell: str, value: Any) -> dict[str, str]:
    """A level as the state has it: as data, in words, in the label of a group, and ready for a CSV."""
    none = {"area_range": "no box", "noise": "clean maps", "noise_fraction": "0 %"}
    if _missing(value):
        text = none.get(column, "not set")
    elif column == "method":
        text = METHOD_NAMES.get(cell, cell)
    elif column == "area_range":
        text = cell.replace("-", "–")
    elif column == "noise_fraction":
        text = f"{100 * value:g} %"
    else:
        text = cell.replace("_", " ") if column in ("noise", "maps") else cell
    says_nothing = _missing(value) or (column == "noise_fraction" and value == 0) or (column, cell) == ("maps", "given")
    label = "" if says_nothing else PATTERNS.get(column, f"{_words(column)} {{}}").replace("{}", text)
    return {"cell": cell, "text": text, "label": label, "csv": _csv_text(cell) if isinstance(value, str) else cell}


def _cell(value: Any) -> str:
    if _missing(value):
        return ""
    if isinstance(value, list | tuple):
        return "-".join(_cell(one) for one in value)
    if isinstance(value, np.generic):
        value = value.item()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _csv_text(text: str) -> str:
    """Text as a CSV cell, with an apostrophe in front where a spreadsheet would take it for a formula."""
    if text.startswith(FORMULA) or text.lstrip().startswith(FORMULA):
        text = f"'{text}"
    quoted = text.startswith("'") or any(sign in text for sign in ',;"\t\r\n')
    return '"' + text.replace('"', '""') + '"' if quoted else text


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _words(column: str) -> str:
    return {"noise": "map noise", "noise_fraction": "noisy share", "noise_intensity": "noise intensity"}.get(
        column, column.replace("_", " ")
    )


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if _missing(value) else round(float(value), DIGITS) for value in values]


def _origins(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Date, device and commit of each run, from its row or its record, "" where neither says."""
    found = []
    for row in runs.to_dict("records"):
        if "commit" not in row and "record" in row:
            try:
                record = json.loads(Path(row["record"]).read_text(encoding="utf-8"))
                row = {"started": record["started"], **record["provenance"]}
            except (OSError, ValueError, KeyError, TypeError):
                row = {}
        date, device, commit = ("" if _missing(row.get(k)) else str(row[k]) for k in ("started", "device", "commit"))
        changed = " with changes" if commit and row.get("uncommitted_changes") is True else ""
        found.append((date[:10], device, commit[:12] + changed))
    return found


def _made(origins: Iterable[dict[str, str]]) -> str:
    """What made the runs, in a sentence."""
    dates, devices, commits = ([o[k] for o in origins] for k in ("date", "device", "commit"))
    dates, devices, commits = (sorted(set(filter(None, found))) for found in (dates, devices, commits))
    if not dates and not devices and not commits:
        return "No record says what made them."
    when = f" {dates[0]}" if len(dates) == 1 else f" from {dates[0]} to {dates[-1]}" if dates else ""
    where = f" on {_some(devices)}" if devices else ""
    return f"Made{when}{where}; " + (f"commit {_some(commits)}." if commits else "the commit is unknown.")


def _some(names: Sequence[str]) -> str:
    return listed(names if len(names) <= 3 else [*names[:3], f"{len(names) - 3} others"])
