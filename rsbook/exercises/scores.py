"""Exercises on what runs score: spread over seeds, costs, what a score of nothing looks like, and pairs of runs."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from torch import Tensor

from rsbook import metrics
from rsbook.comparisons import LP, PLAIN, with_range
from rsbook.exercises.answers import (
    as_name,
    exercise,
    judge_number,
    judge_per_cent,
    say_hint,
    say_right,
)
from rsbook.figures import Html


@exercise("a number of points")
def check_spread_of_gain(answer: Any, scores: pd.DataFrame) -> Html:
    """Standard deviation of the gain of label propagation, seed by seed, in points (5a_reliable_maps)."""
    if not {"cutmix", "cutmix_lp_map"} <= set(scores) or len(scores) < 2:
        return say_hint(
            "This page was run with one seed or without one of the two methods: there is no spread to find."
        )
    ours, plain = 100 * scores["cutmix_lp_map"], 100 * scores["cutmix"]
    gain = ours - plain
    return judge_number(
        answer,
        gain.std(),
        "The yardstick for a gain is the spread of the gain, since both methods share what a seed brings.",
        [
            (gain.std() / 100, "Scores lie between 0 and 1 here. A point is a hundredth."),
            (gain.mean(), "This is the mean gain. How much does it vary from seed to seed?"),
            (gain.std(ddof=0), "This divides by n. From a sample one divides by n − 1, as pandas does."),
            (math.hypot(ours.std(), plain.std()), "This treats the runs as unrelated. Pair them: one gain a seed."),
            (ours.std(), "This is the spread of one method. Take the difference first, seed by seed."),
            (plain.std(), "This is the spread of plain CutMix. Take the difference first, seed by seed."),
            (abs(ours.std() - plain.std()), "A difference of two spreads is not the spread of a difference."),
            (
                gain.std() / len(gain) ** 0.5,
                "This is the standard error of the mean. Asked is the spread of the gains.",
            ),
        ],
        tolerance=0.005,
        otherwise="Subtract one column of `scores` from the other, and look at how these differences vary.",
    )


@exercise("the name of a kind of noise, in quotes")
def check_costliest(answer: Any, cost: pd.DataFrame) -> Html:
    """Which kind of noise that leaves the labels alone costs most mAP micro (5b_summary)."""
    answer = as_name(answer)
    macro, micro = (cost.drop("class_swap")[column] for column in ("map_macro", "map_micro"))
    names = ", ".join(cost.index)
    if answer == micro.idxmax():
        return say_right("Costs this small deserve a look at their spread before anybody builds a theory on them.")
    if answer not in cost.index:
        return say_hint(f"There is no such kind. The kinds are {names}.")
    if answer == "class_swap":
        return say_hint("This kind changes the multi-labels too. Leave it out, and look again.")
    if answer == micro.idxmin():
        return say_hint("This kind costs least. A positive cost is a loss, so look for the largest.")
    if answer == macro.idxmax():
        return say_hint("This kind costs most in mAP macro. The exercise asks for micro.")
    return say_hint("Another kind costs more. Look at the column of mAP micro, and leave class swap out.")


@exercise("a number, in per cent")
def check_blind_network(answer: Any, share: Tensor, labels: Tensor) -> Html:
    """mAP micro in per cent of a network that gives every scene the same scores (5d_pretraining_quality)."""
    scores = share.expand(labels.shape).contiguous()
    own = labels.float().mean(dim=0)
    return judge_per_cent(
        answer,
        metrics.map_micro(scores, labels),
        "Without a look at any image. Keep it in mind when a micro score looks high.",
        [
            (metrics.map_macro(scores, labels), "This is mAP macro, or the mean share. Rank all pairs in one list."),
            (own.mean(), "This is the share of all pairs that are positive: scores drawn by chance. These are not."),
            (
                metrics.map_micro(own.expand(labels.shape).contiguous(), labels),
                "These are the shares of the test scenes, which no network may know. Use `share`.",
            ),
            ((share @ own) / share.sum(), "This weighs the classes. mAP micro ranks pairs: `metrics` has it."),
        ],
        otherwise="Give every test scene the scores `share`, so that they have the shape of `labels`, and score them.",
    )


@exercise("a number, in per cent")
def check_pairs_ahead(answer: Any, every: pd.DataFrame) -> Html:
    """Of all pairs of runs with the same seed and boxes, clean given maps, the share in which CutMix with LP_map is
    ahead of CutMix w/o LP in mAP macro, in per cent (7_all_runs).
    """
    every, same = with_range(every), ["range", "seed"]
    runs = every[every["method"].isin([LP, PLAIN]) & every["stop_after"].isna()]
    clean, given = runs["noise"].isna(), runs["maps"] == "given"
    asked = runs[clean & given]
    pairs = _pairs(asked, same)
    if pairs.empty:
        return say_hint("These runs hold no pair of the two methods, so there is no share to find.")
    lead = _lead(pairs)
    averaged = runs.groupby([*same, "method"])["map_macro"].mean().unstack().dropna()
    by_range = pairs.groupby("range")[["map_macro_lp", "map_macro_plain"]].mean()
    return judge_per_cent(
        answer,
        (lead > 0).mean(),
        "A table of means cannot say this. Set the same share for mAP micro beside it.",
        [
            ((lead > 0).sum(), "This is a number of pairs. Which share of all pairs is it?"),
            ((lead >= 0).mean(), "A tie is not ahead. Count the pairs in which the score is larger."),
            ((lead < 0).mean(), "In these pairs it is behind. Asked are those in which it is ahead."),
            ((_lead(pairs, "map_micro") > 0).mean(), "This is the share for mAP micro. The exercise asks for macro."),
            (lead.mean(), "This is the mean lead. Asked is how many pairs have one, however small."),
            ((_lead(by_range) > 0).mean(), "This compares means by area range. Compare the runs, seed by seed."),
            (_ahead(runs[given], same), "Runs with noisy maps are among yours. Leave them out."),
            (_ahead(runs[clean], same), "Runs that propagate from a thematic product are among yours. Leave them out."),
            (_ahead(runs, same), "Leave out the runs with noisy maps, and those with a thematic product."),
            (
                (averaged[LP] > averaged[PLAIN]).mean(),
                "You average over clean and noisy maps. Keep the clean ones only.",
            ),
            (
                _ahead(asked, ["range"]),
                "Runs with different seeds are no pair: the luck of a seed hides the difference.",
            ),
            (_ahead(asked, ["seed"]), "Both runs of a pair have the same area range."),
            ((lead > 0).sum() / (asked["method"] == LP).sum(), "A run without a partner is no pair: do not count it."),
            (
                (lead > 0).sum() / len(every[same].drop_duplicates()),
                "Rows without a score for both methods are no pairs: do not count them.",
            ),
        ],
        otherwise="Bring the scores of the two methods side by side, a row for each area range and seed.",
    )


def _pairs(runs: pd.DataFrame, same: list[str]) -> pd.DataFrame:
    """Runs of LP_map beside those of CutMix w/o LP, a row for each two that have the same."""
    ours, plain = (runs[runs["method"] == method] for method in (LP, PLAIN))
    return ours.merge(plain, on=same, suffixes=("_lp", "_plain"))


def _lead(pairs: pd.DataFrame, metric: str = "map_macro") -> pd.Series:
    return pairs[f"{metric}_lp"] - pairs[f"{metric}_plain"]


def _ahead(runs: pd.DataFrame, same: list[str]) -> float:
    return (_lead(_pairs(runs, same)) > 0).mean()
