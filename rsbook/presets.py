"""Presets: how much work a page asks for, as data in one place.

smoke: seconds, for tests; its results mean nothing · quick: minutes on two CPU cores · full: the protocol of the paper.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

TABLE_II_RANGES = [(0.1, 0.3), (0.1, 0.5), (0.1, 0.7), (0.3, 0.5), (0.3, 0.7)]

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "label_propagation": {
        "smoke": {
            "seeds": [42, 43],
            "area_ranges": [(0.3, 0.7)],
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
            "training": {
                "network": "narrow_resnet",
                "epochs": 60,
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
    },
}


def load(work: str, preset: str) -> dict[str, Any]:
    """The preset of one of the book's works, for example load("label_propagation", "quick"); raises ValueError for
    unknown names.
    """
    for kind, name, known in (("work", work, PRESETS), ("preset", preset, PRESETS.get(work, {}))):
        if name not in known:
            raise ValueError(f"{kind}={name!r}: expected one of {', '.join(known)}")
    return deepcopy(PRESETS[work][preset])  # what a notebook changes stays in that notebook
