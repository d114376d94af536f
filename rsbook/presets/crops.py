"""Part III: regions, spaces of base models, pre-training and how many labelled pixels there are."""

from __future__ import annotations

from typing import Any

# Regions of the paper's three tasks; where the simulated archive stands for both of the paper's, its regions
# are named as theirs.
REGIONS = {1: "brandenburg_2018", 2: "brandenburg_2019", 3: "brittany_2018"}
PIXELS = ("train_pixels", "val_pixels")  # a class
# Base models that a CPU trains in seconds: narrower, and with larger rates for fewer steps.
TRIALS_ON_A_LAPTOP = {
    "lstm": {"hidden": [32, 64], "layers": [1, 2], "dropout": (0.0, 0.3), "learning_rate": (2e-3, 8e-3)},
    "inception_time": {"hidden": [16, 32], "layers": [2, 3], "kernel": [10, 20], "learning_rate": (3e-3, 8e-3)},
    "transformer": {"d": [32, 64], "heads": [2, 4], "layers": [1, 2], "learning_rate": (2e-3, 4e-3)},
}

DATASETS: dict[str, dict[str, Any]] = {
    "crops": {"tasks": {task: {"dataset": "crops", "region": region} for task, region in REGIONS.items()}},
    "denethor": {
        "tasks": {
            task: {"dataset": "breizhcrops" if task == 3 else "denethor", "region": region}
            for task, region in REGIONS.items()
        }
    },
}

# pixels: a class, to train and to validate on, by task; least_steps: those of all labels of task 1
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "seeds": [42, 43],
        "rates": [0.2],
        "pairs": 4320,
        "pretraining": {"epochs": 1, "batch_size": 256, "learning_rate": 1e-3, "weight_decay": 1e-5},
        "trials": 1,
        "spaces": TRIALS_ON_A_LAPTOP,
        "pixels": {1: (8, 4), 2: (8, 4), 3: (8, 4)},
        "training": {"epochs": 1, "batch_size": 32, "weight_decay": 1e-5, "every": 12},
        "controls": {"models": ["transformer"], "scarce": [2, 8], "end_to_end": 2, "least_steps": 2},
    },
    "quick": {
        "seeds": [42, 43, 44],
        "rates": [0.2],
        "pairs": 36_000,
        "pretraining": {"epochs": 4, "batch_size": 256, "learning_rate": 1e-3, "weight_decay": 1e-5},
        "trials": 1,
        "spaces": TRIALS_ON_A_LAPTOP,
        "pixels": {1: (60, 40), 2: (60, 40), 3: (60, 40)},
        "training": {"epochs": 12, "batch_size": 32, "weight_decay": 1e-5, "every": 4},
        "controls": {"models": ["transformer"], "scarce": [10, 30, 60], "end_to_end": 30, "least_steps": 192},
    },
    "full": {
        "seeds": [32, 33, 34],  # the paper has one, 32
        "rates": [0.2, 0.6],
        "pairs": 14_400_000,
        "pretraining": {"epochs": 100, "batch_size": 2048, "learning_rate": 1e-3, "weight_decay": 1e-5},
        "trials": 10,
        "spaces": None,
        "pixels": {1: (5000, 1000), 2: (5000, 1000), 3: (9000, 1000)},
        "training": {"epochs": 20, "batch_size": 256, "weight_decay": 1e-5, "every": 1},
        "controls": {
            "models": ["lstm", "inception_time", "transformer"],
            "scarce": [10, 50, 250, 1000, 5000],
            "end_to_end": 250,
            "least_steps": 3500,
        },
    },
}


def complete(chosen: dict[str, Any], own: dict[str, Any], preset: str) -> dict[str, Any]:
    """Settings with the data set, region and pixels of each task, and the pairs of task 1 to pre-train on."""
    tasks = own["tasks"]
    pairs, pixels = chosen.pop("pairs"), chosen.pop("pixels")
    chosen["pretraining"] |= {**tasks[1], "pairs": pairs}
    chosen["tasks"] = {k: where | dict(zip(PIXELS, pixels[k], strict=True)) for k, where in tasks.items()}
    names = {k: {"name": where["dataset"], "region": where["region"]} for k, where in tasks.items()}
    chosen["pairs"] = names[1] | {"count": pairs}
    chosen["series"] = {k: name | dict(zip(("train", "val"), pixels[k], strict=True)) for k, name in names.items()}
    return chosen
