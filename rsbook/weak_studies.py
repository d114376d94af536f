"""Part V: the runs that a page asks for, done in the order in which they need each other's weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from rsbook import runs, weak_runs, weak_uses
from rsbook.weak_tasks import METHODS, SUBCATEGORIES

RECIPES = (
    "recommended",
    "report",
)  # of presets.load("weak_segmentation", …): what is recommended, and the report's code
CLUSTERED = {"sce": "cam", "sct": weak_runs.TEACHER}  # whose features are clustered for a method

Chosen = Mapping[str, Any]  # what presets.load("weak_segmentation", …) gives


def classifiers(
    methods: Sequence[str],
    seeds: Iterable[int],
    chosen: Chosen,
    recipe: str = "recommended",
    clustering: str = "finch",
    **where: Any,
) -> pd.DataFrame:
    """Runs of `weak_runs.classify`: each method with each seed, after those whose features others cluster.

    recipe: one of RECIPES · clustering: of subcategories.METHODS · where: dataset, root, device, workers, and settings
    that differ for all.
    Raises ValueError for an unknown method or recipe, and as `runs.table` does.
    """
    for name, value, known in (("recipe", recipe, RECIPES), *(("methods", one, METHODS) for one in methods)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    seeds, settings, found = list(seeds), {**chosen[recipe], **where}, {}

    def run(names: Sequence[str], settings: Mapping[str, Any], features: pd.DataFrame | None = None) -> None:
        grid = weak_runs.study(names, seeds, chosen["epochs"])
        if features is not None:
            grid = weak_runs.with_features(grid, features.to_dict("records"))
        table = runs.table(weak_runs.classify, grid, **settings) if grid else pd.DataFrame(columns=["method"])
        found.update({name: table[table["method"] == name] for name in names})

    first = [name for name in METHODS if name in methods and name not in SUBCATEGORIES]
    run([*first, "cam"] if "sce" in methods and "cam" not in first else first, settings)
    if "sct" in methods:
        run([weak_runs.TEACHER], {**chosen["teacher"], **where})
    for name in methods:
        if name in SUBCATEGORIES:
            run([name], settings | {"clustering": clustering}, found[CLUSTERED[name]])
    return pd.concat([found[name] for name in methods], ignore_index=True)


def refined(classified: pd.DataFrame, chosen: Chosen, **where: Any) -> pd.DataFrame:
    """Runs of `weak_runs.refine`: one for each of `classified`."""
    grid = weak_runs.refinements(classified.to_dict("records"))
    return runs.table(weak_runs.refine, grid, **{**chosen["refinement"], **where})


def segmented(
    walked: pd.DataFrame, plain: pd.DataFrame | None, seeds: Iterable[int], chosen: Chosen, **where: Any
) -> pd.DataFrame:
    """Runs of `weak_uses.segment`: on the maps of each run of `refined`, as they are on those of each of `plain`, runs
    of `classifiers`, and on reference maps with each of the seeds.
    """
    grid = weak_uses.segmentations(walked.to_dict("records"), "walk")
    grid += weak_uses.segmentations([] if plain is None else plain.to_dict("records"), "cam")
    grid += weak_uses.segmentations([], "reference", seeds)
    return runs.table(weak_uses.segment, grid, **{**chosen["segmentation"], **where})
