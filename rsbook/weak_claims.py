"""The claims of the report of Part V, and ours, by what the runs say.

Nothing here trains. Methods that were not run are left out of claims about several methods; a claim about nothing that
was run is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from rsbook import claims, published
from rsbook.weak_findings import (
    METHOD_NAMES,
    SCENES,
    SECOND,
    by_method,
    column,
    lead,
    printed,
    printed_with_more,
    scores_of,
)

MEASURE = "points of mean IoU (mAP macro where said)"
OURS = "not in the report"

_state = partial(claims.state, metric="miou")
Cases = tuple[dict[str, pd.Series], dict[str, float]]  # differences by seed and what the report prints, by case


def scale_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claim that maps at several scales are better than at one."""
    gain = column(by_method(runs), "cam") - column(by_method(runs, "miou_single"), "cam")
    claim = "Maps of CAM at all scales and mirrored are above those at one"
    return claims.collect([_state("scales", claim, {"": gain}, "about +3", {"": 3.0})], preset)


def regulariser_claims(runs: pd.DataFrame, without: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Ours: whether entropy and concentration improve the maps of a method; without: runs of it without either."""
    method = without["method"].iloc[0]
    gain = column(by_method(runs), method) - column(by_method(without), method)
    claim = f"Entropy and concentration losses improve the maps of {METHOD_NAMES[method]}"
    return claims.collect([_state("regularisers", claim, {"": gain}, OURS)], preset)


def cluster_claims(runs: pd.DataFrame, with_kmeans: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Sub-categories against none, and ours: FINCH, as in the report, against k-means, as in the original."""
    scores, theirs = by_method(runs), printed("cam")
    gain = column(scores, "sce") - column(by_method(with_kmeans), "sce")
    rows = [
        _state(
            "sub_cam",
            "Maps of classifiers that tell sub-classes apart are above those of CAM",
            *_over_cam(scores, theirs, ("sce", "sct")),
        ),
        _state(
            "sub_kmeans",
            "Maps of Sub-category Exploration with ten clusters by k-means are above those of CAM",
            {"": column(by_method(with_kmeans), "sce") - column(scores, "cam")},
            OURS,
        ),
        _state("finch", "Sub-classes by FINCH make better maps than ten by k-means", {"": gain}, OURS),
    ]
    return claims.collect(rows, preset)


def first_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of Table 1, first column: methods that mix above plain activation maps, FMix above all."""
    scores, theirs = by_method(runs), printed("cam")
    cases = {
        "mixing_cam": ("Maps of classifiers that mix are above those of CAM", ("mixup", "manifold")),
        "fmix_cam": ("Maps of FMix-CAM are above those of CAM", ("fmix",)),
    }
    rows = [_state(number, claim, *_over_cam(scores, theirs, names)) for number, (claim, names) in cases.items()]
    rows += [
        _state(
            "fmix_best",
            "FMix-CAM has the best maps: its lead over the best other method of each seed",
            *_best(scores, theirs),
        ),
    ]
    return claims.collect(rows, preset)


def refinement_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of Table 1, second column: the walk improves all maps, and FMix-CAM stays best."""
    before, after, theirs = by_method(runs, "miou_before"), by_method(runs), printed("walk") - printed("cam")
    rows = [
        _state(
            "walk_gain",
            "The walk improves the maps of every method",
            {METHOD_NAMES[name]: after[name] - before[name] for name in after},
            {METHOD_NAMES[name]: float(theirs[name]) for name in after},
        ),
        _state(
            "walk_fmix",
            "FMix-CAM has the best walked maps: its lead over the best other method of each seed",
            *_best(after, printed("walk")),
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
            {"": lead(walked, "mixup", "fmix")},
            {"": float(theirs["mixup"] - theirs["fmix"])},
        ),
        _state(
            "network_walk",
            "Walked maps make a better network than activation maps as they are (CAM)",
            {"": column(walked, "cam") - column(plain, "cam")},
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
    theirs, _ = printed_with_more()
    fewer, every = (by_method(runs[runs["scenes"] == label]) for label in SCENES)
    cases = {"fmix": {"": theirs["fmix", "all"] - theirs["fmix", "fewer"]}}
    if "cam" in fewer or "cam" in every:
        cases["cam"] = OURS
    rows = [
        _state(
            f"more_scenes_{name}",
            f"More training scenes make the network on walked maps of {METHOD_NAMES[name]} better",
            {"": column(every, name) - column(fewer, name)},
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
    plain, truth = scores_of(runs, "none"), scores_of(runs, "reference")
    rows = [
        _state(
            "masks_fmix",
            "Masks of FMix-CAM agree better with reference maps than those of CAM",
            {"": lead(ious, "fmix")},
            OURS,
            metric="mask_iou",
        ),
        claims.state(
            "propagated_fmix",
            "Label propagation through masks of FMix-CAM is above that through masks of CAM, in mAP macro",
            {"": lead(scores, "fmix")},
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


def _over_cam(scores: pd.DataFrame, theirs: pd.Series, names: Sequence[str]) -> Cases:
    """The lead over CAM of those methods that were run; of all, missing, where none was."""
    there = [name for name in names if name in scores] or names
    leads = {METHOD_NAMES[name]: lead(scores, name) for name in there}
    return leads, {METHOD_NAMES[name]: float(theirs[name] - theirs["cam"]) for name in there}


def _best(scores: pd.DataFrame, theirs: pd.Series, name: str = "fmix") -> Cases:
    """The lead of a method over the best other of each seed, and the printed one over the same others."""
    others = scores.drop(columns=name, errors="ignore")
    rivals = list(others) or [other for other in theirs.index if other != name]
    lead = {"": column(scores, name) - others.max(axis=1, skipna=False)}
    return lead, {"": float(theirs[name] - theirs[rivals].max())}
