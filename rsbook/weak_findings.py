"""What the runs of Part V say: tables beside those of the report.

Nothing here trains: this module may change without a run being done again. Methods that were not run are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import pandas as pd

from rsbook import published
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
SCENES = ("fewer", "all")
BOUND, AREA = "upper bound", "labels by area"
METRICS = {  # of the results explorer, by what made the runs
    "classify": {"miou": "mean IoU, all scales", "miou_single": "mean IoU, one scale", "map_macro": "mAP of labels"},
    "segment": {"miou": "mean IoU", "oa": "overall accuracy", "aa": "average accuracy"},
}
PER_CLASS = {"iou": "IoU"}
FIRST, SECOND, THIRD = (f"weak_segmentation/table_{i}" for i in (1, 2, 3))


def by_method(runs: pd.DataFrame, metric: str = "miou") -> pd.DataFrame:
    """The metric of runs with a column `method`: a row a seed, a column a method in the order of METHOD_NAMES.

    Runs of what is no method, such as the teacher of Sub-category Teaching, are left out. Raises ValueError for two
    runs of a method with the same seed.
    """
    known = runs[runs["method"].isin(METHOD_NAMES)]
    table = known.pivot(index="seed", columns="method", values=metric).astype(float)
    return table[[name for name in METHOD_NAMES if name in table]]


def with_method(runs: pd.DataFrame, classified: pd.DataFrame) -> pd.DataFrame:
    """Runs that began from the weights of others, with these others' `method` and, as `miou_before`, the mean IoU of
    their maps; None and nan where they began from none.

    Raises ValueError for weights of no run of `classified`.
    """
    begun = runs["stage_one"] if "stage_one" in runs else pd.Series(None, index=runs.index, dtype=object)
    if missing := sorted(set(begun.dropna()) - set(classified["weights"])):
        raise ValueError(f"stage_one={missing[0]!r}: not among the weights of the runs that are given")
    first = classified.set_index("weights").reindex(begun)
    method = first["method"].astype(object).where(first["method"].notna(), None)
    return runs.assign(method=method.to_numpy(), miou_before=first["miou"].to_numpy(float))


def first_maps(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 1, first column: mean IoU of activation maps on the training scenes, at one scale and at all, per cent."""
    theirs = printed("cam")
    single, several, labels = (by_method(runs, name) for name in ("miou_single", "miou", "map_macro"))
    rows = []
    for name in several:
        rows.append(
            {
                "method": METHOD_NAMES[name],
                "one scale": _spread(single[name], 1),
                "all scales": _spread(several[name], 1),
                "over CAM": "–" if name == "cam" else points(lead(several, name)),
                "paper": f"{theirs[name]:.1f}",
                "paper: over CAM": "–" if name == "cam" else _signed(theirs[name] - theirs["cam"]),
                "mAP of labels": _spread(labels[name], 1),
                "n": int(several[name].count()),
            }
        )
    return pd.DataFrame(rows)


def refined_maps(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 1, second column: mean IoU before and after the walk, and how right what it learnt from was, per cent."""
    before, after = printed("cam"), printed("walk")
    rows = []
    for name in by_method(runs):
        part = runs[runs["method"] == name]
        rows.append(
            {
                "method": METHOD_NAMES[name],
                "before": _spread(part["miou_before"], 1),
                "walked": _spread(part["miou"], 1),
                "gain": points(part["miou"] - part["miou_before"]),
                "paper: walked": f"{after[name]:.1f}",
                "paper: gain": _signed(after[name] - before[name]),
                "confident": _spread(part["confident"], 1),
                "of these right": _spread(part["confident_right"], 1),
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def segmented(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 2: mean IoU on scenes of which nothing is given, by what DeepLab-v2 was trained on, per cent."""
    theirs = published.table(SECOND).set_index("method")["miou"]
    rows = []
    for source, method, part in _groups(runs, "source", SOURCE_NAMES):
        rows.append(
            {
                "method": METHOD_NAMES.get(method, BOUND),
                "trained on": SOURCE_NAMES[source],
                "mIoU": _spread(part["miou"]),
                "overall accuracy": _spread(part["oa"]),
                "paper": f"{theirs[method]:.1f}" if source == "walk" and method in theirs else "–",
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def more_data_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 3: mean IoU of networks trained on walked maps of fewer and of all scenes, per cent; last what the report
    quotes from the papers of others, whose protocol is another.

    runs: of `weak_uses.segment`, with `method`, `scenes`, one of SCENES, and how many these are, `n_scenes`.
    """
    theirs, images = printed_with_more()
    scores, rows = {label: by_method(runs[runs["scenes"] == label]) for label in SCENES}, []
    order = list(METHOD_NAMES)
    for label, method, part in sorted(_groups(runs, "scenes", SCENES), key=lambda group: order.index(group[1])):
        growth = column(scores["all"], method) - column(scores["fewer"], method)
        printed = theirs.get((method, label))
        rows.append(
            {
                "method": METHOD_NAMES[method],
                "scenes": f"{label} ({int(part['n_scenes'].iloc[0]):,})",
                "mIoU": _spread(part["miou"]),
                "over fewer": points(growth) if label == "all" else "–",
                "paper": "–" if printed is None else f"{printed:.1f}",
                "paper: images": "–" if printed is None else f"{images[label]:,}",
                "quoted there": "–",
                "n": str(len(part)),
            }
        )
    for row in published.table(THIRD).query("source == 'quoted'").itertuples():
        quoted = {"method": f"{METHOD_NAMES.get(row.method, 'AffinityNet')}, by its authors"}
        quoted |= {"paper: images": f"{row.training_images:,}", "quoted there": f"{row.miou:.1f}"}
        rows.append(dict.fromkeys(rows[0] if rows else quoted, "–") | quoted)
    return pd.DataFrame(rows)


def chain_table(fewer: Sequence[pd.DataFrame], every: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """What each step reaches from fewer scenes and from all, per cent, and the difference in points, paired by seed.

    fewer, every: runs of one method of `classify`, `refine` and `segment`, one a seed.
    """
    steps = ((0, "map_macro", "labels, mAP"), (0, "miou", "activation maps"), (1, "miou", "walked maps"))
    rows = []
    for k, metric, name in (*steps, (2, "miou", "network on test scenes")):
        less, more = (one[k].set_index("seed")[metric] for one in (fewer, every))
        rows.append({"step": name, "fewer": _spread(less), "all": _spread(more), "gain": points(more - less)})
    return pd.DataFrame(rows)


def class_table(runs: pd.DataFrame, classes: Sequence[str], by: str = "method") -> pd.DataFrame:
    """IoU of each class in per cent, a column a method, or a value of another column of the runs."""
    columns = {}
    for name in by_method(runs) if by == "method" else runs[by].unique():
        scores = pd.DataFrame(runs[runs[by] == name]["iou"].tolist(), columns=list(classes), dtype=float)
        columns[METHOD_NAMES.get(name, name)] = [_spread(scores[one], 1) for one in classes]
    return pd.DataFrame({"class": list(classes)} | columns)


def position_table(runs: pd.DataFrame) -> pd.DataFrame:
    """What label propagation of Part I makes of masks: mAP macro by whose masks they are, and how good these are; per
    cent. The masks of CAM are those of Part I.
    """
    kinds = {"none": AREA, "masks": "masks of {}", "reference": "reference maps"}
    plain, rows = scores_of(runs, "none"), []
    for maps, method, part in _groups(runs, "maps", kinds):
        scores = part.set_index("seed")["map_macro"]
        rows.append(
            {
                "labels from": kinds[maps].format(METHOD_NAMES.get(method)),
                "mAP": _spread(scores),
                "over labels by area": "–" if maps == "none" else points(scores - plain),
                "IoU of the masks": _spread(part["mask_iou"]) if maps == "masks" else "–",
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def explorable(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of one function as `widgets.ResultsExplorer` takes them, with METRICS of this function and PER_CLASS:
    methods as they are printed, what a network was trained on as `maps`, and nothing that has no maps.
    """
    known = runs[runs["method"].isna() | runs["method"].isin(METHOD_NAMES)]
    found = known.assign(method=[METHOD_NAMES.get(name, BOUND) for name in known["method"]])
    if "source" in found:
        words = {name: text.removesuffix(" maps") for name, text in SOURCE_NAMES.items()}  # the explorer says "maps"
        found["maps"] = found["source"].map(words)
    hidden = ["history", "dataset", "weights", "stage_one", "refined", "source"]
    return found.drop(columns=hidden, errors="ignore").reset_index(drop=True)


def _groups(
    runs: pd.DataFrame, column: str, values: Sequence[str] | Mapping[str, str]
) -> Iterator[tuple[str, str | None, pd.DataFrame]]:
    """The runs of each value of a column and each method, None for those without, that there are."""
    for value, method in product(values, (*METHOD_NAMES, None)):
        is_so = runs["method"].isna() if method is None else runs["method"] == method
        part = runs[(runs[column] == value) & is_so]
        if not part.empty:
            yield value, method, part


def printed(maps: str) -> pd.Series:
    """What the report's Table 1 prints for activation maps ("cam") or walked ones ("walk"), by method."""
    table = published.table(FIRST)
    return table[table["maps"] == maps].set_index("method")["miou"]


def printed_with_more() -> tuple[dict[tuple[str, str], float], dict[str, int]]:
    """What the report itself prints by method and one of SCENES, and from how many images each is."""
    third = published.table(THIRD).query("source == 'report'")
    fewer, every = published.table(SECOND).set_index("method")["miou"], third.set_index("method")["miou"]
    found = {(name, "fewer"): score for name, score in fewer.items()}
    found |= {(name, "all"): score for name, score in every.items()}
    images = {"fewer": published.table(FIRST)["images"], "all": third["training_images"]}
    return found, {label: int(counts.iloc[0]) for label, counts in images.items()}


def scores_of(runs: pd.DataFrame, maps: str) -> pd.Series:
    """mAP macro by seed of the runs of `propagate` with these maps."""
    return runs[runs["maps"] == maps].set_index("seed")["map_macro"]


def column(scores: pd.DataFrame, name: str) -> pd.Series:
    """The scores of a method by seed, missing ones where it was not run."""
    return scores[name] if name in scores else pd.Series(float("nan"), index=scores.index)


def lead(scores: pd.DataFrame, name: str, over: str = "cam") -> pd.Series:
    """By how much a method is above another, by seed; missing where one was not run."""
    return column(scores, name) - column(scores, over)


def _spread(values: pd.Series, digits: int = 2) -> str:
    return mean_and_spread(values.dropna(), digits)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
