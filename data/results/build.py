"""Run the archived grids and write their tables and receipts; what has a record is not run again.

python data/results/build.py NAME [NAME ...] [--workers N]
"""

import argparse
from functools import partial

import pandas as pd

from rsbook import (
    crops,
    label_propagation,
    presets,
    results,
    runs,
    single_positive_runs,
    weak_findings,
    weak_runs,
    weak_studies,
    weak_tasks,
)

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


def table_ii():
    """Table II's 16 cells as the paper has them; one GPU, which several runs may share: --workers 4."""
    full = presets.load("label_propagation", "full", "bluemarble")
    about = "the paper's protocol on the embedded scenes: ResNet18 from scratch, 120 epochs, batch 300, five seeds."
    return METHODS, full["area_ranges"], full["seeds"], full["training"], about


def wide():
    """The quick preset's training with the paper's five area ranges and five seeds."""
    full = presets.load("label_propagation", "full", "bluemarble")
    settings = presets.load("label_propagation", "quick", "bluemarble")["training"]
    about = "the quick preset's training (narrow ResNet, 40 epochs, 1,000 scenes) with all five area ranges and seeds."
    return [*METHODS, "cutout"], full["area_ranges"], full["seeds"], settings, about


def label_propagation_runs(grid, workers):
    """The runs of one grid of Part I, stage one first, and what to say of them."""
    methods, area_ranges, seeds, settings, about = grid()
    options = {"dataset": "bluemarble", "workers": workers, **settings}
    first = runs.table(label_propagation.train, label_propagation.study(["none"], area_ranges, seeds), **options)
    grid = label_propagation.study(methods, area_ranges, seeds)
    masked = [row for row in grid if row["method"] == "cutmix_lp_xai"]
    plain = [row for row in grid if row["method"] != "cutmix_lp_xai"]
    grid = plain + label_propagation.with_masks(masked, first.to_dict("records"))
    second = runs.table(label_propagation.train, grid, **options)
    return pd.concat([first, second], ignore_index=True), about


def crops_runs(workers):
    """Part III with a longer pre-training, two configurations and more pixels to validate on, and what to say of it."""
    chosen = presets.load("crops", "quick", "crops")
    longer = chosen["pretraining"] | {"pairs": 144_000, "epochs": 6, "batch_size": 512}
    studies = crops.studies(["uni_modal", "bi_modal"], [0.2], chosen["seeds"])
    studies += crops.studies(["bi_modal"], [0.0], chosen["seeds"])
    pretrained = runs.table(crops.pretrain, studies, workers=workers, **longer)
    configurations = crops.configurations(2, chosen["spaces"])
    trials = crops.trials(configurations, pretrained.to_dict("records"), ["bands", "random"])
    tables = [
        runs.table(crops.classify, trials, workers=workers, **task | {"val_pixels": 100}, **chosen["training"])
        for task in chosen["tasks"].values()
    ]
    about = (
        "the quick preset with six times as much pre-training (144,000 simulated pairs, 6 epochs, batches of "
        "512), two configurations of each model and 100 validation pixels a class; corruption of 20 %, and none."
    )
    return pd.concat(tables, ignore_index=True), about


def single_positive_runs_of(part, workers):
    """Part IV with more scenes, epochs, seeds and candidates: a benchmark or the ablation, and what to say of it."""
    chosen = presets.load("single_positive", "quick", "bluemarble")
    settings = chosen["training"] | {"train_scenes": 1024, "epochs": 24, "evaluate_every": 2, "workers": workers}
    memories, seeds = {"weights_memory": 0.97, "scores_memory": 0.9}, (42, 43, 44, 45, 46)
    grids = presets.grids(4, chosen["learning_rate"], settings["epochs"], 2.6, memories)
    options = {"dataset": "bluemarble", **settings}
    about = (
        "narrow ResNet, 24 epochs, 1,024 scenes; four candidates a method, chosen with one seed on validation scenes."
    )
    if part == "ablation":
        variants = single_positive_runs.ablation(grids["adagc"][0], settings["epochs"] // 3, settings["epochs"])
        grid = [{"method": "adagc", "seed": seed, **one} for one in variants.values() for seed in seeds]
        found = runs.table(single_positive_runs.train, grid, setting="random", last=True, **options)
        about = (
            "narrow ResNet, 24 epochs, of which the last counts, 1,024 scenes with a random positive; the first "
            "candidate of AdaGC, reconstructed, and its variants."
        )
        return found, about
    tried = runs.table(single_positive_runs.train, single_positive_runs.candidates(part, grids, 42), **options)
    picked = single_positive_runs.tuned(tried, grids)
    return runs.table(single_positive_runs.train, single_positive_runs.study(part, picked, seeds), **options), about


def weak_segmentation_report(workers):
    """Part V's classifiers as the report's code trains them, and what to say of them."""
    chosen = presets.load("weak_segmentation", "quick", "bluemarble_64")
    options = {"dataset": "bluemarble_64", "workers": workers}
    found = weak_studies.classifiers(weak_tasks.METHODS, chosen["seeds"], chosen, "report", **options)
    about = (
        "the quick preset's classifiers trained as the report's code does it: SGD with a momentum of 0.0005, a "
        "constant rate of 0.1, no entropy, concentration across classes, sub-classes that count twice."
    )
    return with_all_columns(found.assign(step="classify")), about


def weak_segmentation_wide(workers):
    """Part V with all scenes, longer trainings and five seeds, from classifiers to networks, and what to say of it."""
    chosen = presets.load("weak_segmentation", "quick", "bluemarble_64")
    seeds = (42, 43, 44, 45, 46)
    chosen["epochs"] = dict.fromkeys(chosen["epochs"], 24) | {weak_runs.TEACHER: 12}
    options = {"dataset": "bluemarble_64", "workers": workers, **chosen["more"]}
    classified = weak_studies.classifiers(weak_tasks.METHODS, seeds, chosen, **options)
    walked = weak_studies.refined(classified, chosen, **options)
    plain = classified[classified["method"] == "cam"]
    segmented = weak_studies.segmented(walked, plain, seeds, chosen, **options)
    begun = [weak_findings.with_method(found, classified) for found in (segmented, walked)]
    steps = zip((*begun, classified), ("segment", "refine", "classify"), strict=True)
    about = "the quick preset with all 1,007 training scenes and classifiers trained for 24 epochs."
    return with_all_columns(pd.concat([found.assign(step=step) for found, step in steps], ignore_index=True)), about


def with_all_columns(found):
    """The runs with every column that is kept of this work, empty where a step does not have it."""
    missing = [name for name in results.KEPT["weak_segmentation"] if name not in found]
    return found.reindex(columns=[*found, *missing])


GRIDS = {
    "weak_segmentation/report": weak_segmentation_report,
    "weak_segmentation/wide": weak_segmentation_wide,
    **{
        f"single_positive/{part}": partial(single_positive_runs_of, part) for part in ("random", "dominant", "ablation")
    },
    "label_propagation/protocol": partial(label_propagation_runs, protocol),
    "label_propagation/table_ii": partial(label_propagation_runs, table_ii),
    "label_propagation/wide": partial(label_propagation_runs, wide),
    "crops/wide": crops_runs,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=GRIDS, metavar="NAME", help=", ".join(GRIDS))
    parser.add_argument("--workers", type=int, help="processes; default: one a core, or one a GPU")
    arguments = parser.parse_args()
    for name in arguments.names:
        table, about = GRIDS[name](workers=arguments.workers)
        results.archive(name, table, about, f"python data/results/build.py {name}")
