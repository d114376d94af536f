"""Run the archived grids and write their tables and receipts; what has a record is not run again.

python data/results/build.py [NAME ...] [--workers N]
"""

import argparse

import pandas as pd

from rsbook import crops, label_propagation, presets, results, runs

METHODS = ["cutmix", "cutmix_lp_map", "cutmix_lp_xai"]
LARGE = [(0.3, 0.7)]


def protocol(seeds=(42, 43), epochs=40):
    """The full preset, with fewer epochs and seeds than the paper's 120 and 5, as far as two CPU cores go."""
    settings = presets.load("label_propagation", "full", "bluemarble")["training"] | {"epochs": epochs}
    about = (
        f"the paper's protocol on the embedded scenes, with {epochs} of 120 epochs and {len(seeds)} of 5 seeds: "
        "ResNet18 from scratch (last feature map 4×4), batch 300, all training scenes, boxes of 0.3–0.7."
    )
    return METHODS, LARGE, seeds, settings, about


def wide():
    """The quick preset's training with the paper's five area ranges and five seeds."""
    full = presets.load("label_propagation", "full", "bluemarble")
    settings = presets.load("label_propagation", "quick", "bluemarble")["training"]
    about = "the quick preset's training (narrow ResNet, 40 epochs, 1,000 scenes) with all five area ranges and seeds."
    return [*METHODS, "cutout"], full["area_ranges"], full["seeds"], settings, about


GRIDS = {"label_propagation/protocol": protocol, "label_propagation/wide": wide}
NAMES = [*GRIDS, "crops/wide"]


def build_crops(name, workers):
    """Part III with a longer pre-training, three configurations and more pixels to validate on; archive it."""
    chosen = presets.load("crops", "quick", "crops")
    longer = chosen["pretraining"] | {"pairs": 144_000, "epochs": 8, "batch_size": 512}
    studies = crops.studies(["uni_modal", "bi_modal"], [0.2, 0.6], chosen["seeds"])
    pretrained = runs.table(crops.pretrain, studies, workers=workers, **longer)
    configurations = crops.configurations(3, chosen["spaces"])
    trials = crops.trials(configurations, pretrained.to_dict("records"), ["bands", "random"])
    tables = [
        runs.table(crops.classify, trials, workers=workers, **task | {"val_pixels": 100}, **chosen["training"])
        for task in chosen["tasks"].values()
    ]
    about = (
        "the quick preset's classification with three configurations of each model, 100 validation pixels a class, and "
        "a pre-training of 8 epochs on 144,000 simulated pairs in batches of 512, corruption 20 and 60 %."
    )
    results.archive(name, pd.concat(tables, ignore_index=True), about, f"python data/results/build.py {name}")


def build(name, workers):
    """Run one grid, stage one first, and archive it."""
    if name == "crops/wide":
        build_crops(name, workers)
        return
    methods, area_ranges, seeds, settings, about = GRIDS[name]()
    options = {"dataset": "bluemarble", "workers": workers, **settings}
    first = runs.table(label_propagation.train, label_propagation.study(["none"], area_ranges, seeds), **options)
    grid = label_propagation.study(methods, area_ranges, seeds)
    masked = [row for row in grid if row["method"] == "cutmix_lp_xai"]
    plain = [row for row in grid if row["method"] != "cutmix_lp_xai"]
    grid = plain + label_propagation.with_masks(masked, first.to_dict("records"))
    second = runs.table(label_propagation.train, grid, **options)
    table = pd.concat([first, second], ignore_index=True)
    results.archive(name, table, about, f"python data/results/build.py {name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--workers", type=int, help="processes; default: one a core, or one a GPU")
    arguments = parser.parse_args()
    for name in arguments.names:
        build(name, arguments.workers)
