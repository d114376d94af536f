"""Part I: boxes, levels of map noise, and how long networks are trained."""

from __future__ import annotations

from typing import Any

LARGE_BOXES = (0.3, 0.7)  # section V-B and all that compares methods at one range
TABLE_II_RANGES = [(0.1, 0.3), (0.1, 0.5), (0.1, 0.7), (0.3, 0.5), (0.3, 0.7)]

# Map noise (section V-B): its intensities α, from weak to strong, on the images of 120 pixels that the paper has (those
# of the two border kinds are not printed: ours), and on the scenes of 32 pixels, scaled; and its fractions f.
INTENSITIES = {
    "mask_shift": [12, 24, 36],
    "dilation_erosion": [12, 24, 36],
    "rectify_borders": [4, 8, 16],
    "border_deformation": [5, 10, 20],
    "segment_swap": [None],
    "class_swap": [None],
}
FRACTIONS = {kind: [0.1, 0.2, 0.3] if kind.endswith("swap") else [0.25, 0.5, 1.0] for kind in INTENSITIES}

# Scenes of 32 pixels need a ResNet18 that looks as closely, relative to the image, as that of the paper (a last feature
# map of 4×4), and have only one map, so that the thematic product is a classifier's. Others: images of 120 pixels.
DATASETS: dict[str, dict[str, Any]] = {
    "bluemarble": {
        "resnet18": {"output_stride": 8},
        "thematic_product": "product",
        "intensities": INTENSITIES
        | {"mask_shift": [3, 6, 10], "dilation_erosion": [3, 6, 10], "rectify_borders": [2, 4, 8]},
    },
}
OTHERS = {"resnet18": {}, "thematic_product": "given", "intensities": INTENSITIES}

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "seeds": [42, 43],
        "area_ranges": [(0.3, 0.7)],
        "noise_levels": "strongest",
        "stage_one_epochs": [1],
        "training": {
            "network": "narrow_resnet",
            "epochs": 2,
            "batch_size": 32,
            "learning_rate": 2e-3,
            "weight_decay": 0.01,
            "evaluate_every": 1,
            "probability": 0.5,
            "train_scenes": 64,
        },
    },
    "quick": {
        "seeds": [42, 43, 44],
        "area_ranges": [(0.1, 0.3), (0.1, 0.7), (0.3, 0.7)],
        "noise_levels": "cross",
        "stage_one_epochs": [1, 3, 8],
        "training": {
            "network": "narrow_resnet",
            "epochs": 40,
            "batch_size": 64,
            "learning_rate": 2e-3,
            "weight_decay": 0.01,
            "evaluate_every": 2,
            "probability": 0.5,
            "train_scenes": 1000,
        },
    },
    "full": {  # section IV-B; learning rate schedule and weight decay as the authors use elsewhere
        "seeds": [42, 43, 44, 45, 46],
        "area_ranges": TABLE_II_RANGES,
        "noise_levels": "all",
        "stage_one_epochs": [1, 3, 10, 30],
        "training": {
            "network": "resnet18",
            "epochs": 120,
            "batch_size": 300,
            "learning_rate": 5e-4,
            "weight_decay": 0.01,
            "evaluate_every": 1,
            "probability": 0.5,
            "train_scenes": None,
        },
    },
}


def complete(chosen: dict[str, Any], own: dict[str, Any], preset: str) -> dict[str, Any]:
    """Settings with what the data set has of its own, and `noise_levels` of each kind."""
    chosen["training"] |= own.get(chosen["training"]["network"], {})
    chosen["thematic_product"] = own["thematic_product"]
    chosen["noise_levels"] = noise_levels(chosen["noise_levels"], own["intensities"])
    return chosen


def noise_levels(which: str, intensities: dict[str, list[int | None]]) -> dict[str, list[tuple[float, int | None]]]:
    """(fraction, intensity) of each kind of map noise: "strongest" is one, "cross" all intensities at the highest
    fraction and all fractions at the highest intensity, "rates" only these, "all" every pair.
    """
    return {kind: _levels(which, FRACTIONS[kind], strengths) for kind, strengths in intensities.items()}


def _levels(which: str, fractions: list[float], intensities: list[int | None]) -> list[tuple[float, int | None]]:
    every = [(fraction, intensity) for intensity in intensities for fraction in fractions]
    if which == "strongest":
        return every[-1:]
    if which == "rates":
        return [level for level in every if level[1] == intensities[-1]]
    if which == "cross":
        return [level for level in every if level[0] == fractions[-1] or level[1] == intensities[-1]]
    return every
