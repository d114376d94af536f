"""What the runs of Part IV say: tables and claims. AdaGC is reconstructed, and its paper's numbers are not available.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from rsbook import claims, published, single_positive
from rsbook.comparisons import points
from rsbook.figures import mean_and_spread
from rsbook.single_positive_tasks import checked

METHOD_NAMES = {
    "full": "all labels",
    "an": "AN",
    "an_ls": "AN-LS",
    "wan": "WAN",
    "epr": "EPR",
    "role": "ROLE",
    "em": "EM",
    "em_apl": "EM+APL",
    "ll_r": "LL-R",
    "ll_ct": "LL-Ct",
    "ll_cp": "LL-Cp",
    "gr": "GR",
    "hill": "Hill",
    "asl": "ASL",
    "ml_elr": "ML-ELR",
    "adagc": "AdaGC, reconstructed",
}
WHOLE = METHOD_NAMES["adagc"]
UNAVAILABLE = "claimed; its numbers are not available to us"
PART = "part of the method; no claim of its own is known to us"
NEAR = 0.01  # what counts as near the best
METRICS = {"map_macro": "mAP macro", "f1_fixed": "F1 at 0.5", "f1_tuned": "F1, tuned"}  # of the results explorer
MEASURE = "points of mAP macro on the test scenes against all labels, F1 where said"
GENERAL = ("VOC", "COCO", "NUS", "CUB")
LARGE_LOSS = "single_positive/large_loss"


def by_method(runs: pd.DataFrame, metric: str = "map_macro") -> pd.DataFrame:
    """The metric of the runs of a benchmark: a row a seed, a column a method, in the order of METHOD_NAMES."""
    names = runs["method"].where(runs["setting"] != "all", "full")
    table = runs.assign(name=names).pivot(index="seed", columns="name", values=metric)
    return table[[name for name in METHOD_NAMES if name in table]]


def ranks(runs: pd.DataFrame) -> pd.DataFrame:
    """The rank by mAP macro of each method for each seed, 1 for the best; the upper bound is not ranked."""
    return by_method(runs).drop(columns="full", errors="ignore").rank(axis=1, ascending=False, method="min").astype(int)


def benchmark_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a method: mAP macro, its lead over AN, its rank over seeds, and F1 at 0.5 and at the tuned threshold."""
    scores, fixed, tuned = (by_method(runs, metric) for metric in ("map_macro", "f1_fixed", "f1_tuned"))
    placed, rows = ranks(runs), []
    for name in scores:
        row = {"method": METHOD_NAMES[name], "mAP": mean_and_spread(scores[name])}
        row["over AN"] = "–" if name == "an" else points(scores[name] - scores["an"])
        row["rank"] = "–" if name == "full" else _span(placed[name])
        row |= {"F1 at 0.5": mean_and_spread(fixed[name]), "F1, tuned": mean_and_spread(tuned[name])}
        rows.append(row | {"n": int(scores[name].count())})
    return pd.DataFrame(rows)


def setting_text(run: Mapping[str, Any]) -> str:
    """The learning rate and the options of a run in words, without those that are the same for all candidates."""
    shown = ("alpha", "beta", "rate", "strength")
    options = [f"{name} {value:.2g}" for name, value in (run["options"] or {}).items() if name in shown]
    return ", ".join([f"learning rate {run['learning_rate']:g}", *options])


def candidate_table(runs: pd.DataFrame, grids: Mapping[str, Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """A row a method: the settings chosen of those tried, the mAP against one positive a validation scene that they
    reached, and that of all trials in their order; per cent.
    """
    scores, rows = iter(runs.to_dict("records")), []
    for method, grid in grids.items():
        tried = [next(scores) for _ in grid]
        best = max(tried, key=lambda run: run["map_observed"])  # of equals the first
        rows.append(
            {
                "method": METHOD_NAMES[method],
                "chosen": setting_text(best),
                "mAP, observed": f"{100 * best['map_observed']:.2f}",
                "of": ", ".join(f"{100 * run['map_observed']:.2f}" for run in tried),
            }
        )
    return pd.DataFrame(rows)


def general_table(runs: pd.DataFrame) -> pd.DataFrame:
    """By how much methods are above AN: here, and in the Large-Loss paper on four data sets of other photographs."""
    theirs = published.table(LARGE_LOSS).query("training == 'end_to_end'")
    theirs = theirs.pivot(index="method", columns="dataset", values="map_macro")
    scores, rows = by_method(runs), []
    for name in [name for name in scores if name in theirs.index and name != "an"]:
        leads = {f"paper: {x}": f"{theirs.loc[name, x] - theirs.loc['an', x]:+.1f}".replace("-", "−") for x in GENERAL}
        rows.append({"method": METHOD_NAMES[name], "over AN, here": points(scores[name] - scores["an"])} | leads)
    return pd.DataFrame(rows)


def rate_table(labels: Tensor, observed: Mapping[str, Tensor], classes: Sequence[str]) -> pd.DataFrame:
    """Of each class, in per cent: the share of scenes (N,L) that hold it, and of these the share that does not say so,
    by setting; the last row is over all classes.
    """
    share, rows = labels.float().mean(dim=0), []
    rates = {name: single_positive.false_negative_rate(labels, one) for name, one in observed.items()}
    for c, name in enumerate(classes):
        row = {"class": name, "holds it": f"{100 * share[c]:.1f}"}
        rows.append(row | {setting: per_cent(rate[c].item()) for setting, rate in rates.items()})
    hidden = {name: (labels & ~one).sum() / labels.sum() for name, one in observed.items()}
    mean = f"{labels.sum(dim=1).float().mean():.2f} classes a scene"
    rows.append({"class": "all", "holds it": mean} | {name: per_cent(rate.item()) for name, rate in hidden.items()})
    return pd.DataFrame(rows)


def problem_claims(labels: Tensor, draws: Sequence[Tensor], dominant: Tensor, preset: str) -> pd.DataFrame:
    """What is expected of the two settings before anything is trained: labels (N,L), several draws of random positives
    and the dominant ones, (N,L) each.
    """
    spread = [_spread(labels, one) for one in (dominant, *draws)]
    row = claims.state(
        "dominant_uneven",
        "Dominant positives hide classes more unevenly than random ones: difference of the standard deviations of the "
        "false-negative rates over classes",
        {"": pd.Series(spread[1:]).rsub(spread[0])},
        "not in the paper",
        metric="rate",
    )
    return claims.collect([row], preset)


def _spread(labels: Tensor, observed: Tensor) -> float:
    rates = single_positive.false_negative_rate(labels, observed)
    return rates[~rates.isnan()].std(correction=0).item()


def random_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims on random positives: AdaGC's, those of the Large-Loss table, and ours on thresholds."""
    scores, fixed, tuned = (by_method(runs, metric) for metric in ("map_macro", "f1_fixed", "f1_tuned"))
    theirs = published.table(LARGE_LOSS).query("training == 'end_to_end' and dataset == 'VOC'")
    theirs = theirs.set_index("method")["map_macro"]

    def over_an(names: Sequence[str]) -> tuple[dict[str, pd.Series], dict[str, float]]:
        gains = {METHOD_NAMES[name]: scores[name] - scores["an"] for name in names}
        return gains, {METHOD_NAMES[name]: float(theirs[name] - theirs["an"]) for name in names}

    rows = [
        *_adagc_claims(scores, "random"),
        claims.state(
            "large_loss_an",
            "Methods that distrust large losses are above AN (Large-Loss paper: photographs of VOC)",
            *over_an(["ll_r", "ll_ct", "ll_cp"]),
        ),
        claims.state("role_an", "ROLE is above AN (as printed there, VOC)", *over_an(["role"])),
        claims.state(
            "an_threshold",
            "AN names too few classes: its F1 is higher at the tuned threshold than at 0.5",
            {"": tuned["an"] - fixed["an"]},
            "not printed",
            metric="f1",
        ),
    ]
    return claims.collect(rows, preset)


def dominant_claims(runs: pd.DataFrame, random: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims on dominant positives, some of them against runs with random ones."""
    scores, others = by_method(runs), by_method(random)
    gain, other = scores["adagc"] - scores["an"], others["adagc"] - others["an"]
    rows = [
        *_adagc_claims(scores, "dominant"),
        claims.state(
            "dominant_gain",
            "AdaGC, reconstructed, gains less over AN with dominant positives than with random ones: difference of the "
            "gains",
            {"": other - gain},
            "said by a summary that is not the authors'",
        ),
        claims.state(
            "dominant_harder",
            "AN learns less from dominant positives than from random ones",
            {"": others["an"] - scores["an"]},
            "not available",
        ),
    ]
    return claims.collect(rows, preset)


def ablation_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a variant: mAP macro of teacher and student, F1 at 0.5, by how much it is above the whole method, after
    how many epochs calibration began, and which epoch counts (medians).
    """
    whole, rows = _variant(runs, WHOLE), []
    for name in dict.fromkeys(map(variant, runs.to_dict("records"))):
        part = _variant(runs, name)
        begun = part["begun"][part["begun"] >= 0].median()
        rows.append(
            {
                "variant": name,
                "mAP": mean_and_spread(part["map_macro"]),
                "over the whole": "–" if name == WHOLE else points(part["map_macro"] - whole["map_macro"]),
                "mAP of the student": mean_and_spread(part["student_map_macro"].dropna()),
                "F1 at 0.5": mean_and_spread(part["f1_fixed"]),
                "calibrates after": "never" if pd.isna(begun) else f"{begun:g}",
                "epoch that counts": f"{part['best_epoch'].median():g}",
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def variant(run: Mapping[str, Any]) -> str:
    """What `single_positive_runs.ablation` calls a run of AdaGC, by its options."""
    options = checked("adagc", run["options"] or {})
    if options["begin"] is not None:
        return {-1: "no second stage", 0: "no warm-up"}.get(int(run["begun"]), "fixed warm-up")
    changed = {
        "no calibration": options["strength"] == 0,
        "no EMA of weights": options["weights_memory"] == 0,
        "no EMA of scores": options["scores_memory"] == 0,
        "no Mixup": not options["mixup"],
    }
    return next((name for name, is_so in changed.items() if is_so), WHOLE)


def ablation_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Each part of AdaGC is worth something: the whole method less the one without it."""
    whole = _variant(runs, WHOLE)["map_macro"]
    parts = {
        "calibration": ("no calibration", "Gradient calibration"),
        "trigger": ("fixed warm-up", "The trigger, against a warm-up of a third of the epochs,"),
        "warm_up": ("no warm-up", "A warm-up, against none,"),
        "second": ("no second stage", "The second stage as a whole"),
        "weights": ("no EMA of weights", "The average of weights"),
        "scores": ("no EMA of scores", "The average of scores"),
        "mixup": ("no Mixup", "Mixup"),
    }
    rows = [
        claims.state(
            f"part_{number}",
            f"{text} adds to AdaGC, reconstructed",
            {"": whole - _variant(runs, name)["map_macro"]},
            UNAVAILABLE if number in ("calibration", "second") else PART,
        )
        for number, (name, text) in parts.items()
    ]
    return claims.collect(rows, preset)


def method_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a method: mAP macro and F1 of the network that counts, and mAP macro of AdaGC's student, per cent."""
    rows = []
    for name, part in runs.groupby("method", sort=False):
        row = {"method": METHOD_NAMES[name], "mAP": mean_and_spread(part["map_macro"])}
        row["mAP of the student"] = mean_and_spread(part["student_map_macro"].dropna())
        row |= {"F1 at 0.5": mean_and_spread(part["f1_fixed"]), "F1, tuned": mean_and_spread(part["f1_tuned"])}
        rows.append(row | {"n": len(part)})
    return pd.DataFrame(rows)


def class_table(dominant: pd.DataFrame, random: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Average precision of each class in per cent: AN with dominant and with random positives, and AdaGC."""
    shown = {
        "AN, random": (random, "an"),
        "AN, dominant": (dominant, "an"),
        f"{METHOD_NAMES['adagc']}, dominant": (dominant, "adagc"),
    }
    columns = {}
    for name, (runs, method) in shown.items():
        part = runs[(runs["method"] == method) & (runs["setting"] != "all")]
        scores = pd.DataFrame(part["average_precision"].tolist(), columns=list(classes), dtype=float)
        columns[name] = [mean_and_spread(scores[one].dropna(), 1) for one in classes]
    return pd.DataFrame({"class": list(classes)} | columns)


def method_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """What gradient calibration needs to be true, that stored targets tell hidden positives from absences; and what it
    does, that it leaves hidden positives less of an assumed negative's gradient. runs: of AdaGC, with `keep`.
    """
    made = runs[runs["method"] == "adagc"].set_index("seed")
    entries = {seed: pd.DataFrame(one) for seed, one in made["entries"].items()}
    told = pd.Series({seed: roc_auc_score(one["hidden"], one["t"]) - 0.5 for seed, one in entries.items()})
    left = pd.Series({seed: _left(one, ~one["hidden"]) - _left(one, one["hidden"]) for seed, one in entries.items()})
    rows = [
        claims.state(
            "targets_tell",
            "Stored targets tell hidden positives from true absences: their AUROC less one half",
            {"": told},
            "assumed",
            metric="auroc",
        ),
        claims.state(
            "gradient_left",
            "Calibration leaves true absences a larger share of the gradient than hidden positives",
            {"": left},
            "assumed",
            metric="share",
        ),
    ]
    return claims.collect(rows, preset)


def _left(entries: pd.DataFrame, chosen: pd.Series, strength: float = 1.0) -> float:
    """What is left of the summed gradients of the chosen entries, of 1."""
    p, t = (torch.tensor(entries[chosen][name].to_numpy()) for name in ("p", "t"))
    return (single_positive.calibrated_gradient(p, t, strength).sum() / p.sum()).item()


def explorable(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with methods as they are printed and settings in words, without what no one filters by."""
    hidden = [name for name in ("options", "history", "answers", "dataset", "entries", "weights") if name in runs]
    settings = [setting_text(run) for run in runs.to_dict("records")]
    names = runs["method"].where(runs["setting"] != "all", "full").map(METHOD_NAMES)
    return runs.drop(columns=hidden).assign(settings=settings, method=names).reset_index(drop=True)


def _adagc_claims(scores: pd.DataFrame, setting: str) -> list[dict[str, Any]]:
    best = scores.drop(columns=["full", "adagc"], errors="ignore").max(axis=1)
    return [
        claims.state(
            f"adagc_an_{setting}",
            f"AdaGC, reconstructed, is above AN with {setting} positives",
            {"": scores["adagc"] - scores["an"]},
            UNAVAILABLE,
        ),
        claims.state(
            f"adagc_best_{setting}",
            "AdaGC, reconstructed, is the best method or within 1 point of it: its lead over the best other of each "
            "seed",
            {"": scores["adagc"] - best},
            UNAVAILABLE,
            judge=_nearly,
        ),
    ]


def _nearly(differences: pd.Series) -> str:
    return claims.verdict(differences + NEAR)


def _variant(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    return runs[[variant(run) == name for run in runs.to_dict("records")]].set_index("seed")


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low}\u00a0to\u00a0{high}"


def per_cent(value: float) -> str:
    """A share as per cent, a dash for none."""
    return "–" if pd.isna(value) else f"{100 * value:.1f}"
