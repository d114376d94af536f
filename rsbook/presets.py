"""Presets: how much work a page asks for, as data in one place.

smoke: seconds, for tests; its results mean nothing · quick: minutes on two CPU cores · full: the protocol of the paper.
What depends on the size of the images is given for each data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
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

# CromSS on the embedded scenes: coarse borders and wrong classes leave about 72 % of the pixels right, as many as
# Dynamic World has right against experts (70 to 75 %).
MIXTURE = [["rectify_borders", 1.0, 4], ["class_swap", 0.2, None]]

# Part III: regions of the paper's three tasks; where the simulated archive stands for both of the paper's, its regions
# are named as theirs.
REGIONS = {1: "brandenburg_2018", 2: "brandenburg_2019", 3: "brittany_2018"}
PIXELS = ("train_pixels", "val_pixels")  # a class
# Base models that a CPU trains in seconds: narrower, and with larger rates for fewer steps.
TRIALS_ON_A_LAPTOP = {
    "lstm": {"hidden": [32, 64], "layers": [1, 2], "dropout": (0.0, 0.3), "learning_rate": (2e-3, 8e-3)},
    "inception_time": {"hidden": [16, 32], "layers": [2, 3], "kernel": [10, 20], "learning_rate": (3e-3, 8e-3)},
    "transformer": {"d": [32, 64], "heads": [2, 4], "layers": [1, 2], "learning_rate": (2e-3, 4e-3)},
}

# Part IV: what is tried for each method, as many for each: a factor of the learning rate, and options. The first two
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

# What differs for a data set, by work.
# label_propagation: scenes of 32 pixels need a ResNet18 that looks as closely, relative to the image, as that of the
# paper (a last feature map of 4×4), and have only one map, so that the thematic product is a classifier's.
# single_positive: how many classes a scene has in the mean, which EPR and ROLE are told.
# cromss: its modalities, and the published input that each stands beside; the noise of its maps, None where they are
# noisy themselves; and on what the encoders are tested: 118 clean scenes beside 612 to test on are as few as DFC2020's
# 986 beside 5,128.
DATASETS: dict[str, dict[str, dict[str, Any]]] = {
    "label_propagation": {
        "bluemarble": {
            "resnet18": {"output_stride": 8},
            "thematic_product": "product",
            "intensities": INTENSITIES
            | {"mask_shift": [3, 6, 10], "dilation_erosion": [3, 6, 10], "rectify_borders": [2, 4, 8]},
        },
    },
    "cromss": {
        "bluemarble_vegetation": {
            "modalities": {"vegetation": "S1", "optical": "S2"},
            "noise": MIXTURE,
            "transfer": {"dataset": "bluemarble_vegetation", "train_split": "val", "train_scenes": 118},
        },
        "ssl4eo": {
            "modalities": {"s1": "S1", "s2": "S2"},
            "noise": None,
            "transfer": {"dataset": "dfc2020", "train_split": "train", "train_scenes": None},
        },
    },
    "single_positive": {  # full: what the protocol has otherwise for it, at 32 pixels without weights from elsewhere
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
    },
    "crops": {
        "crops": {"tasks": {task: {"dataset": "crops", "region": region} for task, region in REGIONS.items()}},
        "denethor": {
            "tasks": {
                task: {"dataset": "breizhcrops" if task == 3 else "denethor", "region": region}
                for task, region in REGIONS.items()
            }
        },
    },
}
OTHERS = {"resnet18": {}, "thematic_product": "given", "intensities": INTENSITIES}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "label_propagation": {
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
    },
    "cromss": {
        "smoke": {
            "seeds": [42, 43],
            "training": {
                "network": "narrow_resnet",
                "epochs": 2,
                "batch_size": 16,
                "learning_rate": 3e-3,
                "weight_decay": 0.0,
                "evaluate_every": 1,
                "train_scenes": 32,
                "val_scenes": 16,
                "schedule": "cosine",
                "warm_up": None,
                "halve_after": None,
                "crop": None,
            },
            "transfer": {
                "network": "narrow_resnet",
                "depth": 2,
                "width": 16,
                "epochs": 1,
                "batch_size": 16,
                "learning_rate": 5e-3,
                "weight_decay": 0.0,
                "schedule": "cosine",
                "warm_up": None,
            },
            "noise_levels": "strongest",
            "noise_training": {},
        },
        "quick": {
            "seeds": [42, 43, 44],
            "training": {
                "network": "narrow_resnet",
                "epochs": 8,
                "batch_size": 16,
                "learning_rate": 3e-3,
                "weight_decay": 0.0,
                "evaluate_every": 2,
                "train_scenes": 640,
                "val_scenes": 100,
                "schedule": "cosine",
                "warm_up": None,
                "halve_after": None,
                "crop": None,
            },
            "transfer": {
                "network": "narrow_resnet",
                "depth": 2,
                "width": 64,
                "epochs": 20,
                "batch_size": 16,
                "learning_rate": 5e-3,
                "weight_decay": 0.0,
                "schedule": "cosine",
                "warm_up": None,
            },
            "noise_levels": "rates",
            "noise_training": {"train_scenes": 256, "epochs": 5, "evaluate_every": 5},
        },
        "full": {  # the workshop paper's values; of those that it does not print, batches and crops as in its code
            "seeds": [42, 43, 44],
            "training": {
                "network": "resnet50",
                "epochs": 100,
                "batch_size": 128,
                "learning_rate": 5e-4,
                "weight_decay": 0.0,
                "evaluate_every": 1,
                "train_scenes": None,
                "val_scenes": None,
                "schedule": "constant",
                "warm_up": None,
                "halve_after": 30,
                "crop": 256,
            },
            "transfer": {
                "network": "resnet50",
                "depth": 3,
                "width": 512,
                "epochs": 50,
                "batch_size": 32,
                "learning_rate": 5e-5,
                "weight_decay": 0.0,
                "schedule": "constant",
                "warm_up": None,
            },
            "noise_levels": "rates",
            "noise_training": {},
        },
    },
    "crops": {  # pixels: a class, to train and to validate on, by task; least_steps: those of all labels of task 1
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
    },
    "single_positive": {  # AdaGC's teacher averages over a tenth of the steps at most
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
    },
}


def load(work: str, preset: str, dataset: str = "bluemarble") -> dict[str, Any]:
    """The preset of one of the book's works for a data set, for example load("label_propagation", "quick").

    `noise_levels` becomes a list of (fraction, intensity) for each kind of map noise: "strongest" is one, "cross" all
    intensities at the highest fraction and all fractions at the highest intensity, "rates" only these, "all" every
    pair. Raises ValueError for unknown works and presets, and where a work needs settings for a data set and has none;
    label_propagation takes those of images of 120 pixels. crops: `tasks` and `series` hold what `crops.classify` and
    `series.load` need to know of the data of each task, by its number; `pretraining` and `pairs` what `crops.pretrain`
    and `series.load_pairs` do. single_positive: `grids` holds for each method the settings to choose from, a learning
    rate and options each.
    """
    for kind, name, known in (("work", work, PRESETS), ("preset", preset, PRESETS.get(work, {}))):
        if name not in known:
            raise ValueError(f"{kind}={name!r}: expected one of {', '.join(known)}")
    chosen = deepcopy(PRESETS[work][preset])  # what a notebook changes stays in that notebook
    own = deepcopy(DATASETS[work].get(dataset, OTHERS if work == "label_propagation" else None))
    if own is None:
        raise ValueError(f"dataset={dataset!r}: {work} has settings for {', '.join(DATASETS[work])}")
    if work == "crops":
        return _for_regions(chosen, own["tasks"])
    if work == "single_positive":
        return _with_candidates(chosen, own, preset)
    if work == "label_propagation":
        chosen["training"] |= own.get(chosen["training"]["network"], {})
        chosen["thematic_product"] = own["thematic_product"]
        intensities = own["intensities"]
    else:
        chosen |= {"modalities": own["modalities"], "noise": own["noise"]}
        chosen["transfer"] |= own["transfer"]
        intensities = DATASETS["label_propagation"]["bluemarble"][
            "intensities"
        ]  # noise is laid over embedded maps only
    chosen["noise_levels"] = {
        kind: _levels(chosen["noise_levels"], FRACTIONS[kind], strengths) for kind, strengths in intensities.items()
    }
    return chosen


def _for_regions(chosen: dict[str, Any], tasks: dict[int, dict[str, str]]) -> dict[str, Any]:
    """Settings of crops with the data set, region and pixels of each task, and the pairs of task 1 to pre-train on."""
    pairs, pixels = chosen.pop("pairs"), chosen.pop("pixels")
    chosen["pretraining"] |= {**tasks[1], "pairs": pairs}
    chosen["tasks"] = {k: where | dict(zip(PIXELS, pixels[k], strict=True)) for k, where in tasks.items()}
    names = {k: {"name": where["dataset"], "region": where["region"]} for k, where in tasks.items()}
    chosen["pairs"] = names[1] | {"count": pairs}
    chosen["series"] = {k: name | dict(zip(("train", "val"), pixels[k], strict=True)) for k, name in names.items()}
    return chosen


def _with_candidates(chosen: dict[str, Any], own: dict[str, Any], preset: str) -> dict[str, Any]:
    """Settings of single_positive with `grids` of candidates, whatever the protocol of the data set has otherwise."""
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
    """The first `count` CANDIDATES of each method of single_positive, a learning rate and options each.

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


def _levels(which: str, fractions: list[float], intensities: list[int | None]) -> list[tuple[float, int | None]]:
    every = [(fraction, intensity) for intensity in intensities for fraction in fractions]
    if which == "strongest":
        return every[-1:]
    if which == "rates":
        return [level for level in every if level[1] == intensities[-1]]
    if which == "cross":
        return [level for level in every if level[0] == fractions[-1] or level[1] == intensities[-1]]
    return every
