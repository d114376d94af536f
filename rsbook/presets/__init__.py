"""Presets: how much work a page asks for, as data, a module a work.

smoke: seconds, for tests; its results mean nothing · quick: minutes on two CPU cores · full: the protocol of the paper.
What depends on the data set, above all on the size of its images, is given for each.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from rsbook.presets import cromss, crops, label_propagation, single_positive, weak_segmentation
from rsbook.presets.label_propagation import LARGE_BOXES, TABLE_II_RANGES
from rsbook.presets.single_positive import grids

WORKS = {
    "label_propagation": label_propagation,
    "cromss": cromss,
    "crops": crops,
    "single_positive": single_positive,
    "weak_segmentation": weak_segmentation,
}
__all__ = ["LARGE_BOXES", "TABLE_II_RANGES", "WORKS", "grids", "load"]


def load(work: str, preset: str, dataset: str = "bluemarble") -> dict[str, Any]:
    """The preset of one of the book's works for a data set, for example load("label_propagation", "quick").

    `noise_levels` becomes a list of (fraction, intensity) for each kind of map noise. crops: `tasks` and `series` hold
    what `crops.classify` and `series.load` need to know of the data of each task, by its number; `pretraining` and
    `pairs` what `crops.pretrain` and `series.load_pairs` do. single_positive: `grids` holds for each method the
    settings to choose from, a learning rate and options each. weak_segmentation: see its `complete`. Raises ValueError
    for unknown works and presets, and where a work needs settings for a data set and has none; label_propagation takes
    those of images of 120 pixels.
    """
    if work not in WORKS:
        raise ValueError(f"work={work!r}: expected one of {', '.join(WORKS)}")
    of = WORKS[work]
    if preset not in of.PRESETS:
        raise ValueError(f"preset={preset!r}: expected one of {', '.join(of.PRESETS)}")
    own = of.DATASETS.get(dataset, getattr(of, "OTHERS", None))
    if own is None:
        raise ValueError(f"dataset={dataset!r}: {work} has settings for {', '.join(of.DATASETS)}")
    return of.complete(deepcopy(of.PRESETS[preset]), deepcopy(own), preset)  # what a notebook changes stays its own
