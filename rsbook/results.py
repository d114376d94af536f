"""Archived results: tables of runs that a laptop does not repeat, kept as CSV with their receipts in data/results.

Each file is NAME.csv, one row a run, and NAME.json, what made it: command, settings, code, machine, versions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from rsbook.figures import Html, draw_table
from rsbook.files import location, replacing

FOLDER = Path(__file__).parents[1] / "data" / "results"
KEPT = {  # what is archived of a run, by work
    "label_propagation": (
        *("method", "area_range", "seed", "maps", "noise", "noise_fraction", "noise_intensity"),
        *("map_macro", "map_micro", "average_precision", "best_epoch"),
    ),
    "crops": ("region", "model", "configuration", "inputs", "rate", "seed", "accuracy", "recall"),
    "single_positive": (
        *("setting", "method", "learning_rate", "options", "seed", "map_macro", "map_micro", "average_precision"),
        *("f1_fixed", "f1_tuned", "threshold", "map_observed", "best_epoch", "student_map_macro", "begun"),
    ),
    "weak_segmentation": (  # step: the run's function; what it does not tell is empty
        *("step", "method", "source", "seed", "miou", "iou", "miou_single", "miou_before", "map_macro", "subclasses"),
        *("confident", "confident_right", "oa", "aa", "best_epoch"),
    ),
}
AS_JSON = (
    "area_range",
    "average_precision",
    "configuration",
    "history",
    "iou",
    "options",
    "recall",
)  # columns that hold lists or dicts


def archive(name: str, runs: pd.DataFrame, about: str, command: str, folder: Path = FOLDER) -> None:
    """Write the runs, a table of `runs.table`, and their receipt.

    name: WORK/NAME, with one of KEPT's works · about: in one line what was run, and how it departs from the paper's
    protocol · command: what makes it again.
    """
    records = [json.loads(location(path).read_text(encoding="utf-8")) for path in runs["record"]]
    frame = _written(runs[[*KEPT[name.partition("/")[0]], "seconds"]])
    frame["started"] = [record["started"] for record in records]
    frame["commit"] = [record["provenance"]["commit"] for record in records]
    frame["device"] = [record["provenance"]["device"] for record in records]
    frame["record"] = [record["fingerprint"] for record in records]
    given = [record["parameters"] for record in records]
    receipt = {
        "about": about,
        "command": command,
        "runs": len(records),
        "seeds": sorted({parameters["seed"] for parameters in given}),
        "settings": {k: v for k, v in given[0].items() if all(p.get(k) == v for p in given)},
        "data": records[0]["data"],
        "sources": records[0]["sources"],
        "provenance": [json.loads(text) for text in sorted({json.dumps(r["provenance"]) for r in records})],
        "seconds": round(sum(record["seconds"] for record in records)),
    }
    with replacing(folder / f"{name}.csv") as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
    with replacing(folder / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(receipt, indent=1) + "\n", encoding="utf-8")


def load(name: str, folder: Path = FOLDER) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The archived runs, in the form of `runs.table`, and their receipt.

    Raises ValueError for a name that is not archived, and for a damaged file.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.csv")))
        raise ValueError(f"{name!r} is not archived in {folder}; these are: {known or 'none'}")
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
        if missing := {"seed", "seconds", "record"} - set(frame.columns):
            raise ValueError(f"it has no column {min(missing)}")
        for column in frame.columns.intersection(AS_JSON):
            frame[column] = [json.loads(text) if isinstance(text, str) else None for text in frame[column]]
        receipt = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if not isinstance(receipt, dict):
            raise ValueError(f"the receipt is {receipt!r:.50}")
    except (OSError, ValueError, KeyError, RecursionError) as error:
        what = f"{path} or its receipt is damaged ({type(error).__name__}: {error})"
        raise ValueError(f"{what}: restore both with `git checkout -- {path.parent}`") from error
    return frame, receipt


def draw_archived(name: str, table: pd.DataFrame, published: tuple[str, ...] = ()) -> Html:
    """A table made of archived runs, its caption says what was run, on what, with how many seeds."""
    runs, receipt = load(name)
    devices = sorted({facts["device"] for facts in receipt["provenance"]})
    hours = receipt["seconds"] / 3600
    commits = sorted({"unknown" if pd.isna(commit) else commit[:12] for commit in runs["commit"]})
    caption = (
        f"Archived, not made for this page: {receipt['about']} Seeds {', '.join(map(str, receipt['seeds']))}; "
        f"{receipt['runs']} runs, {hours:.1f} hours on {'; '.join(devices)}; commit "
        f"{', '.join(commits)}. Scores in per cent, mean ± standard deviation."
    )
    return draw_table(table, caption=caption, published=published, name=name.replace("/", "_"), data=_written(runs))


def _written(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs as a CSV holds them, lists and dicts as JSON."""
    frame = runs.copy()
    for column in frame.columns.intersection(AS_JSON):
        frame[column] = [
            json.dumps(value) if isinstance(value, list | tuple | dict) else None for value in frame[column]
        ]
    return frame
