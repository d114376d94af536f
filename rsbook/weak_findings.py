"""What the runs of Part V say: tables beside those of the report, and claims.

Nothing here trains: this module may change without a run being done again. Methods that were not run are left out of
tables and of claims about several methods; a claim about nothing that was run is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product

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
SCENES = ("fewer", "all")
BOUND, AREA = "upper bound", "labels by area"
METRICS = {  # of the results explorer, by what made the runs
    "classify": {"miou": "mean IoU, all scales", "miou_single": "mean IoU, one scale", "map_macro": "mAP of labels"},
    "refine": {"miou": "mean IoU of walked maps", "miou_before": "mean IoU before"},
    "segment": {"miou": "mean IoU", "oa": "overall accuracy", "aa": "average accuracy"},
}
PER_CLASS = {"iou": "IoU"}
MEASURE = "points of mean IoU (mAP macro where said)"
OURS = "not in the report"
FIRST, SECOND, THIRD = (f"weak_segmentation/table_{i}" for i in (1, 2, 3))

_state = partial(claims.state, metric="miou")
Cases = tuple[dict[str, pd.Series], dict[str, float]]  # differences by seed and what the report prints, by case


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
    theirs = _first("cam")
    single, several, labels = (by_method(runs, name) for name in ("miou_single", "miou", "map_macro"))
    rows = []
    for name in several:
        rows.append(
            {
                "method": METHOD_NAMES[name],
                "one scale": _spread(single[name]),
                "all scales": _spread(several[name]),
                "over CAM": "–" if name == "cam" else points(_lead(several, name)),
                "paper": f"{theirs[name]:.1f}",
                "paper: over CAM": "–" if name == "cam" else _signed(theirs[name] - theirs["cam"]),
                "mAP of labels": _spread(labels[name]),
                "n": int(several[name].count()),
            }
        )
    return pd.DataFrame(rows)


def refined_maps(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 1, second column: mean IoU before and after the walk, and how right what it learnt from was, per cent."""
    before, after = _first("cam"), _first("walk")
    rows = []
    for name in by_method(runs):
        part = runs[runs["method"] == name]
        rows.append(
            {
                "method": METHOD_NAMES[name],
                "before": _spread(part["miou_before"]),
                "walked": _spread(part["miou"]),
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
    theirs, images = _more_data()
    scores, rows = {label: by_method(runs[runs["scenes"] == label]) for label in SCENES}, []
    order = list(METHOD_NAMES)
    for label, method, part in sorted(_groups(runs, "scenes", SCENES), key=lambda group: order.index(group[1])):
        growth = _column(scores["all"], method) - _column(scores["fewer"], method)
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


def class_table(runs: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """IoU of each class in per cent, a column a method."""
    columns = {}
    for name in by_method(runs):
        scores = pd.DataFrame(runs[runs["method"] == name]["iou"].tolist(), columns=list(classes), dtype=float)
        columns[METHOD_NAMES[name]] = [_spread(scores[one], 1) for one in classes]
    return pd.DataFrame({"class": list(classes)} | columns)


def position_table(runs: pd.DataFrame) -> pd.DataFrame:
    """What label propagation of Part I makes of masks: mAP macro by whose masks they are, and how good these are; per
    cent. The masks of CAM are those of Part I.
    """
    kinds = {"none": AREA, "masks": "masks of {}", "reference": "reference maps"}
    plain, rows = _alone(runs, "none"), []
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


def first_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of Table 1, first column: methods above plain activation maps, FMix above all, scales."""
    scores, single, theirs = by_method(runs), by_method(runs, "miou_single"), _first("cam")
    cases = {
        "mixing_cam": ("Maps of classifiers that mix are above those of CAM", ("mixup", "manifold")),
        "fmix_cam": ("Maps of FMix-CAM are above those of CAM", ("fmix",)),
        "sub_cam": ("Maps of classifiers that tell sub-classes apart are above those of CAM", ("sce", "sct")),
    }
    rows = [_state(number, claim, *_over_cam(scores, theirs, names)) for number, (claim, names) in cases.items()]
    rows += [
        _state(
            "fmix_best",
            "FMix-CAM has the best maps: its lead over the best other method of each seed",
            *_best(scores, theirs),
        ),
        _state(
            "scales",
            "Maps of CAM at all scales and mirrored are above those at one",
            {"": _column(scores, "cam") - _column(single, "cam")},
            "about +3",
            {"": 3.0},
        ),
    ]
    return claims.collect(rows, preset)


def refinement_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of Table 1, second column: the walk improves all maps, and FMix-CAM stays the best."""
    before, after, printed = by_method(runs, "miou_before"), by_method(runs), _first("walk") - _first("cam")
    rows = [
        _state(
            "walk_gain",
            "The walk improves the maps of every method",
            {METHOD_NAMES[name]: after[name] - before[name] for name in after},
            {METHOD_NAMES[name]: float(printed[name]) for name in after},
        ),
        _state(
            "walk_fmix",
            "FMix-CAM has the best walked maps: its lead over the best other method of each seed",
            *_best(after, _first("walk")),
        ),
    ]
    return claims.collect(rows, preset)


def segmentation_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of Table 2: networks trained on walked maps, how the order of methods changes, what the truth adds."""
    theirs = published.table(SECOND).set_index("method")["miou"]
    walked, plain = (by_method(runs[runs["source"] == source]) for source in ("walk", "cam"))
    truth = runs[runs["source"] == "reference"].set_index("seed")["miou"]
    made = pd.concat([walked, plain], axis=1)
    rows = [
        _state(
            "network_cam",
            "Networks trained on walked maps of other methods are above the one trained on those of CAM",
            *_over_cam(walked, theirs, [name for name in METHOD_NAMES if name != "cam"]),
        ),
        _state(
            "network_mixup",
            "The order changes: walked maps of Mixup-CAM make a better network than those of FMix-CAM",
            {"": _lead(walked, "mixup", "fmix")},
            {"": float(theirs["mixup"] - theirs["fmix"])},
        ),
        _state(
            "network_walk",
            "Walked maps make a better network than activation maps as they are (CAM)",
            {"": _column(walked, "cam") - _column(plain, "cam")},
            OURS,
        ),
        _state(
            "network_truth",
            "Reference maps make a better network than any others: the lead over the best of each seed",
            {"": truth - made.max(axis=1, skipna=False)},
            OURS,
        ),
    ]
    return claims.collect(rows, preset)


def more_data_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claim of Table 3, that more scenes improve FMix-CAM, and ours for CAM where it was run; runs as for
    `more_data_table`.
    """
    theirs, _ = _more_data()
    fewer, every = (by_method(runs[runs["scenes"] == label]) for label in SCENES)
    cases = {"fmix": {"": theirs["fmix", "all"] - theirs["fmix", "fewer"]}}
    if "cam" in fewer or "cam" in every:
        cases["cam"] = OURS
    rows = [
        _state(
            f"more_scenes_{name}",
            f"More training scenes make the network on walked maps of {METHOD_NAMES[name]} better",
            {"": _column(every, name) - _column(fewer, name)},
            said,
        )
        for name, said in cases.items()
    ]
    return claims.collect(rows, preset)


def position_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Ours, not in the report: do better activation maps make better masks, and these a better label propagation?"""
    masks = runs[runs["maps"] == "masks"]
    ious, scores = by_method(masks, "mask_iou"), by_method(masks, "map_macro")
    # the best masks by their IoU on training scenes: by the test score, the lead would be that of the luckiest
    chosen = scores.where(ious.eq(ious.max(axis=1, skipna=False), axis=0)).max(axis=1)
    plain, truth = _alone(runs, "none"), _alone(runs, "reference")
    rows = [
        _state(
            "masks_fmix",
            "Masks of FMix-CAM agree better with reference maps than those of CAM",
            {"": _lead(ious, "fmix")},
            OURS,
            metric="mask_iou",
        ),
        claims.state(
            "propagated_fmix",
            "Label propagation through masks of FMix-CAM is above that through masks of CAM, in mAP macro",
            {"": _lead(scores, "fmix")},
            OURS,
        ),
        claims.state(
            "propagated_area",
            "Label propagation through masks, of each seed those with the highest IoU, is above labels by area, in "
            "mAP macro",
            {"": chosen - plain},
            OURS,
        ),
        claims.state(
            "propagated_truth",
            "Label propagation through reference maps is above that through any masks, in mAP macro: the lead over "
            "the best of each seed",
            {"": truth - scores.max(axis=1, skipna=False)},
            OURS,
        ),
    ]
    return claims.collect(rows, preset)


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


def _first(maps: str) -> pd.Series:
    """What the report's Table 1 prints for activation maps ("cam") or walked ones ("walk"), by method."""
    table = published.table(FIRST)
    return table[table["maps"] == maps].set_index("method")["miou"]


def _more_data() -> tuple[dict[tuple[str, str], float], dict[str, int]]:
    """What the report itself prints by method and one of SCENES, and from how many images each is."""
    third = published.table(THIRD).query("source == 'report'")
    fewer, every = published.table(SECOND).set_index("method")["miou"], third.set_index("method")["miou"]
    found = {(name, "fewer"): score for name, score in fewer.items()}
    found |= {(name, "all"): score for name, score in every.items()}
    images = {"fewer": published.table(FIRST)["images"], "all": third["training_images"]}
    return found, {label: int(counts.iloc[0]) for label, counts in images.items()}


def _alone(runs: pd.DataFrame, maps: str) -> pd.Series:
    return runs[runs["maps"] == maps].set_index("seed")["map_macro"]


def _column(scores: pd.DataFrame, name: str) -> pd.Series:
    """The scores of a method by seed, missing ones where it was not run."""
    return scores[name] if name in scores else pd.Series(float("nan"), index=scores.index)


def _lead(scores: pd.DataFrame, name: str, over: str = "cam") -> pd.Series:
    return _column(scores, name) - _column(scores, over)


def _over_cam(scores: pd.DataFrame, theirs: pd.Series, names: Sequence[str]) -> Cases:
    """The lead over CAM of those methods that were run; of all, missing, where none was."""
    there = [name for name in names if name in scores] or names
    leads = {METHOD_NAMES[name]: _lead(scores, name) for name in there}
    return leads, {METHOD_NAMES[name]: float(theirs[name] - theirs["cam"]) for name in there}


def _best(scores: pd.DataFrame, theirs: pd.Series, name: str = "fmix") -> Cases:
    """The lead of a method over the best other of each seed, and the printed one over the same others."""
    others = scores.drop(columns=name, errors="ignore")
    rivals = list(others) or [other for other in theirs.index if other != name]
    lead = {"": _column(scores, name) - others.max(axis=1, skipna=False)}
    return lead, {"": float(theirs[name] - theirs[rivals].max())}


def _spread(values: pd.Series, digits: int = 2) -> str:
    return mean_and_spread(values.dropna(), digits)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
