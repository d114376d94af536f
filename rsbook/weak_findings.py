"""What the runs of Part V say: tables beside those of the report, and claims.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rsbook import claims, published
from rsbook.comparisons import points
from rsbook.figures import mean_and_spread

METHOD_NAMES = {
    "cam": "CAM",
    "sce": "Sub-category Exploration",
    "sct": "Sub-category Teaching",
    "mixup": "Mixup-CAM",
    "manifold": "Manifold Mixup-CAM",
    "fmix": "FMix-CAM",
}
SOURCE_NAMES = {"cam": "activation maps", "walk": "walked maps", "reference": "reference maps"}
MEASURE = "points of mean IoU"
FIRST, SECOND, THIRD = (f"weak_segmentation/table_{i}" for i in (1, 2, 3))


def by_method(runs: pd.DataFrame, metric: str = "miou") -> pd.DataFrame:
    """The metric of runs with a column `method`: a row a seed, a column a method in the order of METHOD_NAMES."""
    table = runs.pivot(index="seed", columns="method", values=metric)
    return table[[name for name in METHOD_NAMES if name in table]]


def with_method(runs: pd.DataFrame, classified: pd.DataFrame) -> pd.DataFrame:
    """Runs that began from the weights of others, with these others' method; None where they began from none."""
    method = dict(zip(classified["weights"], classified["method"], strict=True))
    return runs.assign(method=[method.get(name) for name in runs["stage_one"]])


def first_maps(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 1, first column: mean IoU of activation maps on the training scenes, at one scale and at all, per cent."""
    theirs = published.table(FIRST).query("maps == 'cam'").set_index("method")["miou"]
    single, several, labels = (by_method(runs, name) for name in ("miou_single", "miou", "map_macro"))
    rows = []
    for name in several:
        rows.append(
            {
                "method": METHOD_NAMES[name],
                "one scale": mean_and_spread(single[name]),
                "all scales": mean_and_spread(several[name]),
                "over CAM": "–" if name == "cam" else points(several[name] - several["cam"]),
                "paper": f"{theirs[name]:.1f}",
                "paper: over CAM": "–" if name == "cam" else _signed(theirs[name] - theirs["cam"]),
                "mAP of labels": mean_and_spread(labels[name]),
                "n": int(several[name].count()),
            }
        )
    return pd.DataFrame(rows)


def refined_maps(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 1, second column: mean IoU before and after the walk, and how right what it learnt from was, per cent."""
    theirs = published.table(FIRST).pivot(index="method", columns="maps", values="miou")
    rows = []
    for name in by_method(runs):
        part = runs[runs["method"] == name]
        rows.append(
            {
                "method": METHOD_NAMES[name],
                "before": mean_and_spread(part["miou_before"]),
                "walked": mean_and_spread(part["miou"]),
                "gain": points(part["miou"] - part["miou_before"]),
                "paper: walked": f"{theirs.loc[name, 'walk']:.1f}",
                "paper: gain": _signed(theirs.loc[name, "walk"] - theirs.loc[name, "cam"]),
                "confident": mean_and_spread(part["confident"], 1),
                "of these right": mean_and_spread(part["confident_right"].dropna(), 1),
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def segmented(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 2: mean IoU on scenes of which nothing is given, by what DeepLab-v2 was trained on, per cent."""
    theirs = published.table(SECOND).set_index("method")["miou"]
    rows = []
    for (method, source), part in runs.groupby(["method", "source"], sort=False, dropna=False):
        printed = theirs.get(method) if source == "walk" else None
        rows.append(
            {
                "method": METHOD_NAMES.get(method, "upper bound"),
                "trained on": SOURCE_NAMES[source],
                "mIoU": mean_and_spread(part["miou"]),
                "overall accuracy": mean_and_spread(part["oa"]),
                "paper": "–" if printed is None else f"{printed:.1f}",
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def class_table(runs: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """IoU of each class in per cent, a column a method."""
    columns = {}
    for name in by_method(runs):
        part = runs[runs["method"] == name]
        scores = pd.DataFrame(part["iou"].tolist(), columns=list(classes), dtype=float)
        columns[METHOD_NAMES[name]] = [mean_and_spread(scores[one].dropna(), 1) for one in classes]
    return pd.DataFrame({"class": list(classes)} | columns)


def first_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of Table 1, first column: methods above plain activation maps, FMix above all, scales."""
    scores, single = by_method(runs), by_method(runs, "miou_single")
    theirs = published.table(FIRST).query("maps == 'cam'").set_index("method")["miou"]

    def over(names: Sequence[str]) -> tuple[dict[str, pd.Series], dict[str, float]]:
        gains = {METHOD_NAMES[name]: scores[name] - scores["cam"] for name in names}
        return gains, {METHOD_NAMES[name]: float(theirs[name] - theirs["cam"]) for name in names}

    others = scores.drop(columns="fmix")
    rows = [
        _state("mixing_cam", "Maps of classifiers that mix are above those of CAM", *over(["mixup", "manifold"])),
        _state("fmix_cam", "Maps of FMix-CAM are above those of CAM", *over(["fmix"])),
        _state(
            "fmix_best",
            "FMix-CAM has the best maps: its lead over the best other method of each seed",
            {"": scores["fmix"] - others.max(axis=1)},
            {"": float(theirs["fmix"] - theirs.drop("fmix").max())},
        ),
        _state("sub_cam", "Maps of classifiers that tell sub-classes are above those of CAM", *over(["sce", "sct"])),
        _state(
            "scales",
            "Maps at all scales are above those at one (CAM)",
            {"": scores["cam"] - single["cam"]},
            {"": 3.0},
        ),
    ]
    return claims.collect(rows, preset)


def refinement_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of Table 1, second column: the walk improves all maps, and FMix-CAM stays the best."""
    theirs = published.table(FIRST).pivot(index="method", columns="maps", values="miou")
    after, before = by_method(runs), by_method(runs, "miou_before")
    gains = {METHOD_NAMES[name]: after[name] - before[name] for name in after}
    printed = {METHOD_NAMES[name]: float(theirs.loc[name, "walk"] - theirs.loc[name, "cam"]) for name in after}
    walked = theirs["walk"]
    rows = [
        _state("walk_gain", "The walk improves the maps of every method", gains, printed),
        _state(
            "walk_fmix",
            "FMix-CAM has the best walked maps: its lead over the best other method of each seed",
            {"": after["fmix"] - after.drop(columns="fmix").max(axis=1)},
            {"": float(walked["fmix"] - walked.drop("fmix").max())},
        ),
    ]
    return claims.collect(rows, preset)


def segmentation_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of Table 2: networks trained on walked maps; the order of methods changes; and what the truth adds."""
    theirs = published.table(SECOND).set_index("method")["miou"]
    walked = by_method(runs[runs["source"] == "walk"])
    plain = by_method(runs[runs["source"] == "cam"])
    truth = runs[runs["source"] == "reference"].set_index("seed")["miou"]
    names = [name for name in walked if name != "cam"]
    rows = [
        _state(
            "network_cam",
            "Networks trained on walked maps of other methods are above the one trained on those of CAM",
            {METHOD_NAMES[name]: walked[name] - walked["cam"] for name in names},
            {METHOD_NAMES[name]: float(theirs[name] - theirs["cam"]) for name in names},
        ),
        _state(
            "network_mixup",
            "Mixup-CAM gives the best network, not FMix-CAM",
            {"": walked["mixup"] - walked["fmix"]},
            {"": float(theirs["mixup"] - theirs["fmix"])},
        ),
        _state("network_walk", "Training on walked maps is better than on maps as they are (CAM)",
               {"": walked["cam"] - plain["cam"]}, "not in the report"),
        _state("network_truth", "Training on reference maps is better than on any",
               {"": truth - walked.max(axis=1)}, "not in the report"),
    ]  # fmt: skip
    return claims.collect(rows, preset)


def position_table(runs: pd.DataFrame) -> pd.DataFrame:
    """What label propagation of Part I makes of masks: mAP macro by whose masks they are, and how good these are."""
    plain = runs[runs["maps"] == "none"].set_index("seed")["map_macro"]
    rows = []
    for (maps, method), part in runs.groupby(["maps", "method"], sort=False, dropna=False):
        name = {"none": "labels by area", "reference": "reference maps"}.get(maps, METHOD_NAMES.get(method))
        scores = part.set_index("seed")["map_macro"]
        rows.append(
            {
                "labels from": name,
                "mAP": mean_and_spread(scores),
                "over labels by area": "–" if maps == "none" else points(scores - plain),
                "IoU of the masks": mean_and_spread(part["mask_iou"].dropna()),
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def _state(
    number: str,
    claim: str,
    differences: Mapping[str, pd.Series],
    paper: Mapping[str, float] | str,
    known: Mapping[str, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    return claims.state(number, claim, differences, paper, known, metric="miou", **more)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
