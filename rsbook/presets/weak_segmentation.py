"""Part V: classifiers and their maps, how alike pixels are, segmentation networks, and label propagation with masks."""

from __future__ import annotations

from typing import Any

from rsbook.presets.label_propagation import LARGE_BOXES

METHODS = ("cam", "sce", "sct", "mixup", "manifold", "fmix")
TEACHER = "vit"

# The report's code, beside what is recommended: SGD's momentum gets the value of the weight decay, the schedule is so
# long that the rate hardly falls, the entropy is that of labels, from which nothing is learnt, and sub-classes count
# twice.
REPORT = {
    "fitting": {"learning_rate": 0.1, "momentum": 5e-4, "weight_decay": 5e-4, "schedule": "constant", "clip_norm": 1.0},
    "as_coded": True,
    "sub_weight": 2.0,
}

# background: the score of what is no class; the embedded scenes have none · walk: AffinityNet's crops of photographs
# have 56 places a side, the embedded scenes 16, so that a radius of 5 is one of 1.4 there (2 is the smallest with
# neighbours), and 256 steps, which lead as far as their root, are 21 · network_epochs: of `full`, 20,000 steps of 10
# images · photographs: how they are cut and enlarged; where there are any, networks begin with weights from ImageNet.
DATASETS: dict[str, dict[str, Any]] = {
    "bluemarble_64": {
        "background": None,
        "walk": {"radius": 2, "steps": 21, "beta": 8.0},
        "splits": {"fewer": ["train"], "more": ["train"]},
        "network_epochs": {"fewer": 200, "more": 200},
        "photographs": None,
    },
    "voc": {
        "background": 0.15,
        "walk": {"radius": 5, "steps": 256, "beta": 8.0},
        "splits": {"fewer": ["train"], "more": ["train", "extra"]},
        "network_epochs": {"fewer": 152, "more": 20},
        "photographs": {"classify": 300, "segment": 321, "zoom": (0.5, 1.5)},
    },
}

_SGD = {"momentum": 0.9, "weight_decay": 5e-4, "schedule": "poly", "clip_norm": 1.0}
_LAPTOP = {"batch_size": 32, "weight_decay": 0.01}

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "seeds": [42, 43],
        "scenes": {"fewer": 32, "more": 48},
        "training": {
            "network": "narrow_resnet",
            "output_stride": None,
            "epochs": 1,
            "fmix_epochs": 1,
            "fitting": {**_LAPTOP, "batch_size": 16, "learning_rate": 4e-3, "evaluate_every": 1},
        },
        "teacher": {"epochs": 1, "fitting": {**_LAPTOP, "batch_size": 16, "learning_rate": 1e-3, "evaluate_every": 1}},
        "refinement": {"fitting": {**_LAPTOP, "batch_size": 16, "epochs": 1, "learning_rate": 2e-3}},
        "segmentation": {
            "network": "narrow_resnet",
            "rates": (1, 2, 3, 4),
            "looks": (1.0,),
            "fitting": {**_LAPTOP, "batch_size": 16, "epochs": 1, "learning_rate": 4e-3},
        },
        "propagation": {
            "fitting": {**_LAPTOP, "batch_size": 16, "epochs": 1, "learning_rate": 4e-3, "evaluate_every": 1},
            "area_range": LARGE_BOXES,
        },
    },
    "quick": {
        "seeds": [42, 43, 44],
        "scenes": {"fewer": 320, "more": None},
        "training": {
            "network": "narrow_resnet",
            "output_stride": None,
            "epochs": 16,
            "fmix_epochs": 16,
            "fitting": {**_LAPTOP, "learning_rate": 4e-3, "evaluate_every": 2},
        },
        "teacher": {"epochs": 12, "fitting": {**_LAPTOP, "learning_rate": 1e-3, "evaluate_every": 2}},
        "refinement": {"fitting": {**_LAPTOP, "epochs": 4, "learning_rate": 2e-3}},
        "segmentation": {
            "network": "narrow_resnet",
            "rates": (1, 2, 3, 4),
            "looks": (1.0,),
            "fitting": {**_LAPTOP, "epochs": 12, "learning_rate": 4e-3},
        },
        "propagation": {
            "fitting": {**_LAPTOP, "epochs": 16, "learning_rate": 4e-3, "evaluate_every": 2},
            "area_range": LARGE_BOXES,
        },
    },
    "full": {  # recommended, see REPORT; the report has one seed, 2020, and the weights of a ResNet-38
        "seeds": [2020, 2021, 2022],
        "scenes": {"fewer": None, "more": None},
        "training": {
            "network": "resnet50",
            "output_stride": 8,
            "epochs": 15,
            "fmix_epochs": 25,
            "fitting": {**_SGD, "batch_size": 8, "learning_rate": 0.01, "evaluate_every": 1},
        },
        "teacher": {  # 1,000 steps of 8 images, half of them to warm up
            "epochs": 6,
            "fitting": {
                **_SGD,
                "batch_size": 8,
                "learning_rate": 0.1,
                "schedule": "cosine",
                "warm_up": 500,
                "evaluate_every": 1,
            },
        },
        "refinement": {"fitting": {**_SGD, "epochs": 8, "batch_size": 8, "learning_rate": 0.1}},
        "segmentation": {  # its epochs are those of the data set
            "network": "resnet101",
            "rates": (6, 12, 18, 24),
            "looks": (1.0, 0.75, 0.5),
            "fitting": {
                **_SGD,
                "batch_size": 10,
                "learning_rate": 2.5e-4,
                "factors": {"branches.*.weight": 10.0, "branches.*.bias": 20.0},
            },
        },
        "propagation": {
            "fitting": {
                "epochs": 120,
                "batch_size": 300,
                "learning_rate": 5e-4,
                "weight_decay": 0.01,
                "evaluate_every": 1,
            },
            "area_range": LARGE_BOXES,
        },
    },
}


def complete(chosen: dict[str, Any], own: dict[str, Any], preset: str) -> dict[str, Any]:
    """Settings with all that each step needs to know of the data set.

    `epochs` of each method; `recommended` and `report`, of `weak_runs.classify` as recommended and as the report's code
    has it; `teacher`, of its vision transformer; `refinement`, of `weak_runs.refine`; `segmentation` and `propagation`,
    of `weak_uses`; `more`, what differs where all scenes are taken, and `more_network` for `segmentation` alone.
    """
    photographs = own["photographs"] if preset == "full" else None
    pretrained = photographs is not None
    where, splits = {"background": own["background"]}, own["splits"]
    first = {name: chosen["training"][name] for name in ("network", "output_stride")}
    common = {"train_scenes": chosen["scenes"]["fewer"], "splits": splits["fewer"]}
    classified = {**common, **where, "pretrained": pretrained, "crop": photographs and photographs["classify"]}
    epochs = dict.fromkeys(METHODS, chosen["training"]["epochs"]) | {TEACHER: chosen["teacher"].pop("epochs")}
    epochs["fmix"] = chosen["training"].pop("fmix_epochs")
    del chosen["training"]["epochs"]
    cut = {"crop": photographs and photographs["segment"], "zoom": photographs and photographs["zoom"]}
    fitting, network = chosen["training"]["fitting"], chosen["segmentation"]["fitting"]
    longer = own["network_epochs"] if preset == "full" else dict.fromkeys(("fewer", "more"), network.get("epochs"))
    chosen["segmentation"]["fitting"] = network | {"epochs": longer["fewer"]}
    return {
        "seeds": chosen["seeds"],
        "epochs": epochs,
        "recommended": chosen["training"] | classified,
        "report": chosen["training"] | classified | REPORT | {"fitting": fitting | REPORT["fitting"]},
        "teacher": chosen["teacher"] | first | classified,
        "refinement": chosen["refinement"] | first | common | where | own["walk"],
        "segmentation": chosen["segmentation"]
        | {**common, **where, **own["walk"], "classifier": first["network"], "output_stride": first["output_stride"]}
        | {**cut, "pretrained": pretrained},
        "propagation": chosen["propagation"] | first | common,
        "more_network": {"fitting": network | {"epochs": longer["more"]}},
        "more": {"train_scenes": chosen["scenes"]["more"], "splits": splits["more"]},
    }
