"""Runs in words: what sets them apart, level by level, and where and when they were made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rsbook.figures import ENCODER_NAMES, METHOD_NAMES, PROTOCOL_NAMES, csv_cell, listed
from rsbook.files import location

# What can set runs apart, as `label_propagation.train` and `cromss.transfer` name it. Names of weights do not: each
# seed has its own.
SETTINGS = (
    *("method", "encoder", "modality", "protocol", "area_range", "maps", "noise", "noise_fraction", "noise_intensity"),
    *("stage_one_epochs", "explainer", "t_cam", "min_pixels", "stop_after", "dataset", "network", "depth", "width"),
    *("output_stride", "epochs", "batch_size", "learning_rate", "schedule", "warm_up", "weight_decay"),
    *("evaluate_every", "train_split", "train_scenes", "fixed_statistics", "probability", "seed"),
)
NAMES = {"method": METHOD_NAMES, "encoder": ENCODER_NAMES, "protocol": PROTOCOL_NAMES}
PATTERNS = {  # group labels without what a reader sees anyway
    "method": "{}",
    "encoder": "{}",
    "modality": "{}",
    "protocol": "{}",
    "area_range": "{}",
    "maps": "{} maps",
    "noise": "{}",
    "noise_fraction": "f = {}",
    "noise_intensity": "α = {}",
    "stop_after": "stopped after epoch {}",
    "stage_one_epochs": "masks of epoch {}",
}


def with_stage_one_epochs(runs: pd.DataFrame) -> pd.DataFrame:
    """The epochs of the networks that explained masks (blank: all), where the runs that trained them are there too."""
    if "stage_one" not in runs or not {"weights", "stop_after"} <= set(runs) or "stage_one_epochs" in runs:
        return runs
    trained = runs.dropna(subset="weights").drop_duplicates("weights").set_index("weights")["stop_after"]
    return runs.assign(stage_one_epochs=runs["stage_one"].map(trained.to_dict()))


def columns_of(runs: pd.DataFrame, method: str) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """The settings of the runs, `method` and others that say anything, with their levels, and which level each run has.

    A column: name, words, whether it is offered as a choice, and its levels as `_level` has them.
    """
    columns, codes = [], []
    for name in dict.fromkeys((method, *SETTINGS)):
        if name in runs and not runs[name].map(is_missing).all():
            levels, code = _levels(name, runs[name])
            columns.append({"name": name, "words": _words(name), "offered": len(levels) > 1, "levels": levels})
            codes.append(code)
    return columns, codes


def is_missing(value: Any) -> bool:
    """Whether a cell of a table of runs holds nothing."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _levels(column: str, values: pd.Series) -> tuple[list[dict[str, Any]], list[int]]:
    """What a setting is, each once, numbers in ascending order, and which of them each run has."""
    by_cell = {_cell(value): value for value in values}
    if not any(isinstance(value, str) for value in by_cell.values()):
        missing = [cell for cell, value in by_cell.items() if is_missing(value)]
        by_cell = {cell: by_cell[cell] for cell in missing} | dict(
            sorted(((c, v) for c, v in by_cell.items() if c not in missing), key=lambda pair: pair[1])
        )
    at = {cell: i for i, cell in enumerate(by_cell)}
    return [_level(column, cell, value) for cell, value in by_cell.items()], [at[_cell(value)] for value in values]


def _level(column: str, cell: str, value: Any) -> dict[str, Any]:
    """A level as the state has it: as data, in words, in the label of a group, whether labels of several settings leave
    it out since it says nothing, and ready for a CSV.
    """
    without = {"area_range": "no box", "noise": "clean maps", "noise_fraction": "0 %"}
    pattern = PATTERNS.get(column, f"{_words(column)} {{}}")
    if is_missing(value):
        text = without.get(column, "not set")
        pattern = "{}" if column in without else f"{_words(column)} {{}}"
    elif column in NAMES:
        text = NAMES[column].get(cell, cell)
    elif column == "area_range":
        text = cell.replace("-", "–")
    elif column == "noise_fraction":
        text = f"{100 * value:g} %"
    else:
        text = cell.replace("_", " ") if column in ("noise", "maps") else cell
    silent = is_missing(value) or (column, cell) in (("noise_fraction", "0"), ("maps", "given"))
    label = pattern.replace("{}", text)
    return {"cell": cell, "text": text, "label": label, "silent": silent, "csv": csv_cell(cell)}


def _cell(value: Any) -> str:
    if is_missing(value):
        return ""
    if isinstance(value, list | tuple):
        return "-".join(_cell(one) for one in value)
    if isinstance(value, np.generic):
        value = value.item()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _words(column: str) -> str:
    return {"noise": "map noise", "noise_fraction": "noisy share", "noise_intensity": "noise intensity"}.get(
        column, column.replace("_", " ")
    )


def origins(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Date, device and commit of each run, from its row or its record, "" where neither says."""
    found = []
    for row in runs.to_dict("records"):
        if "commit" not in row and "record" in row:
            try:
                record = json.loads(location(row["record"]).read_text(encoding="utf-8"))
                row = {"started": record["started"], **record["provenance"]}
            except (OSError, ValueError, KeyError, TypeError):
                row = {}
        date, device, commit = ("" if is_missing(row.get(k)) else str(row[k]) for k in ("started", "device", "commit"))
        changed = " with changes" if commit and row.get("uncommitted_changes") is True else ""
        found.append((date[:10], device, commit[:12] + changed))
    return found


def made_by(origins: Iterable[dict[str, str]]) -> str:
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
