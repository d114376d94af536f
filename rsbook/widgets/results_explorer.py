"""Results by hand: choose runs, group and compare them, look at every seed and class, take the selection along."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import traitlets
from matplotlib.colors import to_hex

from rsbook import figures
from rsbook.charts import METRIC_NAMES
from rsbook.figures import METHOD_COLOURS, csv_cell, csv_text, listed
from rsbook.widgets.explorer import Explorer
from rsbook.widgets.run_columns import columns_of, is_missing, made_by, origins, with_stage_one_epochs

DIGITS = 6  # of a score: per cent with four, as in the charts
PER_CLASS = {"average_precision": "average precision"}


class ResultsExplorer(Explorer):
    """Runs of a study: filter and group them, compare groups by seed and by class, download the selection as CSV.

    filters: setting → what it may be, as the CSV writes it; a setting that is not named may be anything · metric: the
    column of one of the metrics · group_by: the settings that make a group · order: "study" or "score" · reference: the
    group that others are compared with, its settings as the CSV writes them, [] for none · pair: the two groups whose
    classes are shown; a group that is not there gives way to the first or the last one.
    """

    columns = traitlets.List().tag(sync=True)  # as `columns_of` makes them
    codes = traitlets.List().tag(sync=True)  # level of each run, a list a column
    scores = traitlets.Dict().tag(sync=True)
    class_scores = traitlets.List().tag(sync=True)
    records = traitlets.List().tag(sync=True)  # ready for the CSV
    origins = traitlets.List().tag(sync=True)
    origin = traitlets.List().tag(sync=True)  # of each run
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    method_colours = traitlets.List().tag(sync=True)
    metrics = traitlets.List().tag(sync=True)  # column and name of each: a saved notebook sorts the keys of a Dict
    per_class = traitlets.List(traitlets.Unicode()).tag(sync=True)  # column and name
    head = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)

    filters = traitlets.Dict().tag(sync=True)
    metric = traitlets.Unicode().tag(sync=True)
    group_by = traitlets.List(traitlets.Unicode()).tag(sync=True)
    order = traitlets.Enum(("study", "score")).tag(sync=True)
    reference = traitlets.List(traitlets.Unicode()).tag(sync=True)
    pair = traitlets.List(traitlets.List(traitlets.Unicode()), minlen=2, maxlen=2).tag(sync=True)

    def __init__(
        self,
        runs: pd.DataFrame,
        classes: Sequence[str],
        *,
        name: str = "runs",
        metrics: Mapping[str, str] = METRIC_NAMES,
        per_class: Mapping[str, str] = PER_CLASS,
        method: str = "method",
        colours: Mapping[str, str] = METHOD_COLOURS,
        split: str = "test",
    ) -> None:
        """Offer the runs, a row each as `runs.table` or `results.load` has them; name: of the file to download.

        metrics: column → its name, the first is shown first · per_class: the one column with a list of scores, one for
        each of the classes, None where there is none → its name · method: the column whose levels have the colours ·
        colours: level → colour · split: what the scores are of. Raises ValueError for no runs at all, columns that are
        missing or not named, or lists of another length.
        """
        _check(runs, classes, method, metrics, per_class)
        [(by_class, class_score)] = per_class.items()
        runs = with_stage_one_epochs(runs).reset_index(drop=True)
        columns, codes = columns_of(runs, method)
        made = origins(runs)
        known = list(dict.fromkeys(made))
        self._split = split.capitalize()
        self._records = [Path(str(path)).stem for path in runs["record"]] if "record" in runs else []
        others = itertools.cycle(matplotlib.color_sequences["tab10"])
        methods = next(c for c in columns if c["name"] == method)["levels"]
        super().__init__(
            arrays={},
            caption="A row is a group of runs with the same settings: a point is a run, the bar their mean, the band "
            "one standard deviation to either side. With a reference, points are differences of runs with the same "
            f"seed. {self._split} scores.",
            columns=columns,
            codes=codes,
            scores={metric: _rounded(runs[metric]) for metric in metrics},
            class_scores=[_rounded(row) for row in runs[by_class]],
            records=[csv_cell(record) for record in self._records],
            origins=[dict(zip(("date", "device", "commit"), one, strict=True)) for one in known],
            origin=[known.index(one) for one in made],
            classes=list(classes),
            colours=figures.class_colours(classes),
            method=method,
            method_colours=[colours.get(one["cell"]) or to_hex(next(others)) for one in methods],
            metrics=[list(one) for one in metrics.items()],
            per_class=[by_class, class_score],
            name=name,
            filters={},
            metric=next(iter(metrics)),
            group_by=[c["name"] for c in columns if c["offered"] and c["name"] != "seed"] or [method],
            order="study",
            reference=[],
            pair=[[], []],
        )
        self.head = ",".join(map(csv_cell, self.selection().columns))

    @traitlets.validate("metric")
    def _known(self, proposal: Mapping[str, Any]) -> str:
        if proposal["value"] not in (known := [metric for metric, _ in self.metrics]):
            raise traitlets.TraitError(f"metric={proposal['value']!r}: expected one of {', '.join(known)}")
        return proposal["value"]

    @functools.cached_property
    def fallback(self) -> figures.Html:
        """The groups as a table, made when it is asked for: before the state is changed, that of all runs."""
        rows = [
            {"group": self._label(key), "runs": len(runs)}
            | {text: figures.mean_and_spread(runs[metric].dropna()) for metric, text in self.metrics}
            for key, runs in self._groups().items()
        ]
        return figures.draw_table(
            pd.DataFrame(rows),
            caption=f"{self._split} scores in per cent, mean ± standard deviation. {self.about()}",
            name=self.name,
            data=self.selection(),
        )

    def selection(self) -> pd.DataFrame:
        """The chosen runs: settings as the CSV writes them, scores in 0 … 1, those of each class after the others.

        Raises ValueError for a filter by what the runs do not have.
        """
        frame = pd.DataFrame(
            {
                column["name"]: [column["levels"][code]["cell"] for code in codes]
                for column, codes in zip(self.columns, self.codes, strict=True)
            }
            | {metric: pd.Series(self.scores[metric], dtype=float) for metric, _ in self.metrics}
        )
        by_class = pd.DataFrame(self.class_scores, dtype=float)
        by_class.columns = self._class_columns()
        frame = pd.concat([frame, by_class], axis=1)
        if self._records:
            frame["record"] = self._records
        return frame[self._chosen()]

    def read_out(self) -> pd.DataFrame:
        """A row a group, in its order: its settings, runs, mean and sd in 0 … 1; with a reference also the mean and sd
        of the differences by seed, their number, and how many are above zero.
        """
        groups = self._groups()
        reference = groups.get(tuple(self.reference)) if self.reference else None
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
        """A row a class: mean and sd of its score in both groups of the pair, and the difference of means."""
        groups = self._groups()
        ends = (next(iter(groups.values())), list(groups.values())[-1]) if groups else ()
        both = [groups.get(tuple(key), end) for key, end in zip(self.pair, ends, strict=False)]
        frame = pd.DataFrame({"class": list(self.classes)})
        for name, runs in zip(("first", "second"), both, strict=False):
            part = runs[self._class_columns()]
            frame[name], frame[f"{name}_sd"] = part.mean().to_numpy(), part.std().to_numpy()
        return frame.assign(difference=frame["second"] - frame["first"]) if both else frame

    def read_out_csv(self) -> str:
        """The selection as the page offers it for download."""
        return csv_text(self.selection().map(_score_text))

    def about(self) -> str:
        """How many runs are chosen, and what made them, in words."""
        chosen = self._chosen()
        found = [self.origins[self.origin[run]] for run in np.flatnonzero(chosen)]
        groups = len(self._groups())
        text = f"{len(found)} of {len(chosen)} runs chosen, in {groups} group{'' if groups == 1 else 's'}."
        return f"{text} {made_by(found)}" if found else text

    def _class_columns(self) -> list[str]:
        return [f"{self.per_class[0]}_{one}" for one in self.classes]

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
        levels = [
            level for column in self.columns for level in column["levels"] if cells.get(column["name"]) == level["cell"]
        ]
        telling = [level for level in levels if not level["silent"]] or levels[:1]
        return " · ".join(level["label"] for level in telling) or "all runs"


def _check(
    runs: pd.DataFrame, classes: Sequence[str], method: str, metrics: Mapping[str, str], per_class: Mapping[str, str]
) -> None:
    if not metrics or len(per_class) != 1:
        raise ValueError(f"metrics={metrics!r}, per_class={per_class!r}: expected one column or more, and exactly one")
    [by_class] = per_class
    needed = (method, "seed", *metrics, by_class)
    if missing := [column for column in needed if column not in runs]:
        raise ValueError(f"runs: have no {listed(missing)}")
    if runs.empty:
        raise ValueError("runs: there are none, so nothing can be compared")
    for i, row in enumerate(runs[by_class]):
        if not isinstance(row, list | tuple) or len(row) != len(classes):
            raise ValueError(f"runs: {by_class} of row {i} is {row!r}, expected {len(classes)} numbers")


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if is_missing(value) else round(float(value), DIGITS) for value in values]


def _score_text(value: Any) -> Any:
    """A score as the page writes it; whatever else is in the selection as it is."""
    return f"{value:.{DIGITS}f}" if isinstance(value, float) and not np.isnan(value) else value
