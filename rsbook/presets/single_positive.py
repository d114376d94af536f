"""Part IV: what is tried for each method, and how long networks are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsbook.presets.label_propagation import LARGE_BOXES

# What is tried for each method, as many for each: a factor of the learning rate, and options. The first two
# are the same rates for all; then methods without options get other rates, those with options other values of these.
# Shares are of all entries, in the last epoch: there are about as many hidden positives.
RATES = [(1.0, {}), (2.0, {}), (0.5, {}), (4.0, {})]


def _with(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    return [(factor, options) for options in (first, second) for factor in (1.0, 2.0)]


CANDIDATES: dict[str, list[tuple[float, dict[str, Any]]]] = {
    **dict.fromkeys(("full", "an", "an_ls", "wan", "epr", "role"), RATES),
    "em": _with({"alpha": 0.1}, {"alpha": 0.2}),
    "em_apl": _with({"alpha": 0.1, "beta": 0.9}, {"alpha": 0.2, "beta": 0.02}),
    **dict.fromkeys(("ll_r", "ll_ct", "ll_cp"), _with({"share": 0.1}, {"share": 0.2})),
    **dict.fromkeys(("gr", "hill", "asl", "ml_elr"), RATES),
    "adagc": _with({"strength": 1.0}, {"strength": 2.0}),
}

# positives: how many classes a scene has in the mean, which EPR and ROLE are told · full: what the protocol has
# otherwise for it, at 32 pixels without weights from elsewhere.
DATASETS: dict[str, dict[str, Any]] = {
    "bluemarble": {
        "positives": 2.6,
        "full": {"training": {"batch_size": 128, "pretrained": False, "output_stride": 8}, "learning_rate": 1e-3},
    },
    "aid": {"positives": 5.2, "full": {"training": {}}},
    "bigearthnet": {
        "positives": 2.9,
        "full": {
            "training": {"epochs": 30, "batch_size": 256},
            "learning_rate": 1e-3,
            "memories": {"weights_memory": 0.997, "scores_memory": 0.9},
        },
    },
}

# AdaGC's teacher averages over a tenth of the steps at most
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "seeds": [42, 43],
        "candidates": 1,
        "annotated": {"scenes": 32, "training": {"epochs": 2, "evaluate_every": 1}},
        "learning_rate": 2e-3,
        "memories": {"weights_memory": 0.9, "scores_memory": 0.7},
        "training": {
            "network": "narrow_resnet",
            "pretrained": False,
            "epochs": 3,
            "batch_size": 32,
            "weight_decay": 0.01,
            "evaluate_every": 1,
            "train_scenes": 64,
        },
    },
    "quick": {
        "seeds": [42, 43, 44],
        "candidates": 2,
        "annotated": {"scenes": 128, "training": {"epochs": 60, "evaluate_every": 12}},
        "learning_rate": 2e-3,
        "memories": {"weights_memory": 0.9, "scores_memory": 0.7},
        "training": {
            "network": "narrow_resnet",
            "pretrained": False,
            "epochs": 15,
            "batch_size": 64,
            "weight_decay": 0.01,
            "evaluate_every": 3,
            "train_scenes": 512,
        },
    },
    "full": {  # all inferred; for AID nearly as an earlier study of single positives in remote sensing: that had
        # batches of 128 images of 256 pixels, and a tenth of the rate for all but the last layer
        "seeds": [42, 43, 44],
        "candidates": 4,
        "annotated": {"scenes": 400, "training": {"epochs": 300, "evaluate_every": 5}},
        "learning_rate": 1e-4,
        "memories": {"weights_memory": 0.99, "scores_memory": 0.9},
        "training": {
            "network": "resnet50",
            "pretrained": True,
            "epochs": 100,
            "batch_size": 64,
            "weight_decay": 0.01,
            "evaluate_every": 1,
            "train_scenes": None,
        },
    },
}


def complete(chosen: dict[str, Any], own: dict[str, Any], preset: str) -> dict[str, Any]:
    """Settings with `grids` of candidates, whatever the protocol of the data set has otherwise."""
    if preset == "full":
        chosen["training"] |= own["full"].pop("training")
        chosen |= own["full"]
    count, epochs = chosen.pop("candidates"), chosen["training"]["epochs"]
    chosen["mixing"] = {"learning_rate": chosen["learning_rate"], "area_range": LARGE_BOXES}
    chosen["grids"] = grids(count, chosen["learning_rate"], epochs, own["positives"], chosen["memories"])
    return chosen


def grids(
    count: int, learning_rate: float, epochs: int, positives: float, memories: Mapping[str, float]
) -> dict[str, list[dict[str, Any]]]:
    """The first `count` CANDIDATES of each method, a learning rate and options each.

    positives: classes a scene, which EPR and ROLE are told · memories: of AdaGC, the same for all candidates.
    """
    told = {"positives": positives}
    always = {"epr": told, "role": told, "adagc": memories}

    def options(method: str, tried: dict[str, Any]) -> dict[str, Any]:
        by_epoch = {"rate": tried["share"] / epochs} if "share" in tried else tried
        return {**always.get(method, {}), **by_epoch}

    return {
        method: [
            {"learning_rate": learning_rate * factor, "options": options(method, tried)}
            for factor, tried in candidates[:count]
        ]
        for method, candidates in CANDIDATES.items()
    }
