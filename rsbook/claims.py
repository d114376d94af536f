"""What the records say to the claims of the label-propagation paper (Burgert et al., arXiv 2405.13451).

Nothing here trains: this module may change without a run being done again. A claim about a difference holds when the
difference has the claimed sign for every seed, fails when it has it for none, and is open in between, with a single
seed, or in the smoke preset, whose numbers mean nothing.
"""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from rsbook import figures, published
from rsbook.comparisons import (
    LARGE,
    LP,
    NONE,
    PLAIN,
    SMALL,
    XAI,
    dashed,
    gains,
    level_text,
    noise_cost,
    noise_lead,
    noise_levels,
    points,
    printed,
    published_gain,
    published_score,
    scores,
    signed,
    with_range,
)

HOLDS, FAILS, OPEN = "holds", "fails", "open"

Differences = Mapping[str, pd.Series]  # one value a seed, for each case that a claim speaks of
Numbers = Mapping[str, float | None]  # what the paper prints for each case, in points


def verdict(differences: pd.Series) -> str:
    """ "holds", "fails" or "open" for a difference that is claimed to be positive, one value a seed."""
    if differences.isna().any() or len(differences) < 2:
        return OPEN
    return HOLDS if (differences > 0).all() else FAILS if (differences <= 0).all() else OPEN


def verdict_within(bound: float) -> Callable[[pd.Series], str]:
    """The verdict on a mean difference that is claimed to be at most `bound` points either way: it holds when the mean
    with its standard error lies inside, fails when it lies outside, and is open in between.
    """

    def judge(differences: pd.Series) -> str:
        if differences.isna().any() or len(differences) < 2:
            return OPEN
        mean, error = 100 * abs(differences.mean()), 100 * differences.std() / len(differences) ** 0.5
        return HOLDS if mean + error <= bound else FAILS if mean - error > bound else OPEN

    return judge


def claims_table(
    frame: pd.DataFrame, where: str, measure: str = "points of mAP macro (micro where said)"
) -> figures.Html:
    """The claims in the book's table style; each is also left for the part page and, all of them with their facts, for
    the claims page (rsbook/pages.py).
    """
    for row in frame.itertuples():
        if row.number:
            said = f'{html.escape(row.here)} <span class="verdict-{row.verdict}">{row.verdict}</span>'
            figures.share(f"claim_{row.number}", figures.Html(said, text=f"{row.here}: {row.verdict}"))
    shown = frame.drop(columns=["number", "metric"], errors="ignore")
    table = figures.draw_table(
        shown,
        name="claims",
        published=["paper"],
        caption=f"Claims: {measure}, mean ± standard deviation over n seeds; {where}. A claim about several cases is "
        "as good as its worst." + (" The difference is ours less the paper's." if "difference" in shown else ""),
    )
    facts = {"rsbook": "claims", "where": where, "rows": json.loads(frame.to_json(orient="records"))}
    return dataclasses.replace(table, data=facts)


def reliable_maps(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of section V-A: what was measured here, what the paper prints, and a verdict."""
    ranges = _ranges(runs)
    micro, paper_micro = "map_micro", published.table("label_propagation/table_v").set_index("method")["map_micro"]
    over_others = {t: scores(runs, LP, LARGE) - scores(runs, LP, t) for t in ranges if t != LARGE}
    growth = gains(runs, LP, PLAIN, LARGE) - gains(runs, LP, PLAIN, SMALL)
    return collect(
        [
            state(
                "1",
                "Label propagation is above CutMix w/o LP for every box range",
                {text: gains(runs, LP, PLAIN, text) for text in ranges},
                {text: published_gain(text) for text in ranges},
            ),
            state(
                "1_micro",
                "Label propagation is above CutMix w/o LP, in mAP micro",
                {LARGE: gains(runs, LP, PLAIN, LARGE, micro)},
                "{} (Table V)",
                {LARGE: paper_micro[LP] - paper_micro[PLAIN]},
                metric=micro,
            ),
            state(
                "4",
                "CutMix w/o LP is above no augmentation",
                {LARGE: scores(runs, PLAIN, LARGE) - scores(runs, NONE)},
                "{}",
                {LARGE: published_score(PLAIN, LARGE) - published_score(NONE)},
            ),
            state(
                "4_micro",
                "CutMix w/o LP is above no augmentation, in mAP micro",
                {LARGE: scores(runs, PLAIN, LARGE, micro) - scores(runs, NONE, metric=micro)},
                "{} (Table V)",
                {LARGE: paper_micro[PLAIN] - paper_micro[NONE]},
                metric=micro,
            ),
            state(
                "2",
                "Label propagation scores best with boxes of 0.3–0.7: its lead over the other ranges",
                over_others,
                f"{published_score(LP, LARGE):.2f}, the highest of five",
            ),
            state(
                "3",
                "The larger the boxes, the larger the gain: by how much it grows from 0.1–0.3 to 0.3–0.7",
                {"": growth},
                "{}, but not steadily over the five ranges",
                {"": published_gain(LARGE) - published_gain(SMALL)},
            ),
        ],
        preset,
    )


def map_noise(runs: pd.DataFrame, kind: str, preset: str) -> pd.DataFrame:
    """The claims of section V-B on one kind of map noise: at its strongest level among the runs, and at the others."""
    levels = sorted(noise_levels(runs, kind), key=lambda level: (level[0], level[1] or 0))
    if not levels:
        raise ValueError(f"kind={kind!r}: these runs have no such noise")
    *weaker, strongest = levels
    lead = {level: noise_lead(runs, kind, level) for level in levels}
    cost = {level: noise_cost(runs, kind, level) for level in levels}
    said = published.table("label_propagation/figure_4").query("noise == @kind")
    numbers = {row.quantity: (row.relation, row.value) for row in said.itertuples() if pd.notna(row.value)}
    words = "; ".join(dict.fromkeys(said["effect"]))
    known = {}
    if "gain_over_cutmix" in numbers:
        relation, value = numbers["gain_over_cutmix"]
        theirs = f"{relation} {value:+.1f}"
        known = {} if relation.startswith("at ") else {"": value}  # a bound is no number to subtract
    elif "map_macro" in numbers:  # of the worst level
        theirs, known = "{} at the worst", {"": numbers["map_macro"][1] - published_score(PLAIN, LARGE)}
    else:
        theirs = f"no number; {words}"
    above = "label propagation stays above CutMix w/o LP"
    rows = [
        state(f"5_{kind}", f"With noise of {level_text(strongest)}, {above}", {"": lead[strongest]}, theirs, known),
        state(
            f"5_{kind}_micro",
            f"With noise of {level_text(strongest)}, {above}, in mAP micro",
            {"": noise_lead(runs, kind, strongest, "map_micro")},
            "not printed",
            metric="map_micro",
        ),
    ]
    if weaker:
        rows.append(
            state("", f"So it does with weaker noise: {above}", {level_text(x): lead[x] for x in weaker}, words)
        )
        first = next((x for x in levels if x[0] == strongest[0]), levels[0])
        first = first if first != strongest else levels[0]
        growth = f"Noise of {level_text(strongest)} costs more than {level_text(first)}"
        rows.append(state("", growth, {"": cost[strongest] - cost[first]}, words))
    if "change_to_clean_maps" in numbers:
        bound = numbers["change_to_clean_maps"][1]
        change = f"Noise of {level_text(strongest)} changes the score by at most {bound} points (mean ± standard error)"
        rows.append(state("", change, {"": -cost[strongest]}, f"at most {bound}", judge=verdict_within(bound)))
    return collect(rows, preset)


def costliest_noise(runs: pd.DataFrame, kinds: Sequence[str], preset: str) -> pd.DataFrame:
    """The claim of section V-B that dilation and erosion cost most, of the kinds that leave the labels as they are."""
    costs = {}
    for kind in kinds:
        if kind != "class_swap" and (levels := noise_levels(runs, kind)):
            costs[kind] = noise_cost(runs, kind, max(levels, key=lambda level: (level[0], level[1] or 0)))
    others = pd.concat([cost for kind, cost in costs.items() if kind != "dilation_erosion"], axis=1)
    others = others.max(axis=1, skipna=False)
    claim = "Segments too large or too small cost most, of the five kinds that leave the labels as they are"
    return collect([state("5_order", claim, {"": costs["dilation_erosion"] - others}, "the lowest curve")], preset)


def thematic_product(runs: pd.DataFrame, preset: str, maps: str) -> pd.DataFrame:
    """The claims of section V-C: from a thematic product, label propagation gains, and masks do at least as well."""
    ranges = _ranges(runs[runs["method"] == LP])
    table = "label_propagation/table_iii"
    rows = [
        state(
            "6",
            "Explanation masks do better than the thematic product as a map",
            {text: scores(runs, XAI, text) - scores(runs, LP, text, maps=maps) for text in ranges},
            {text: published_gain(text, XAI, LP, table) for text in ranges},
        ),
        state(
            "6_micro",
            "Explanation masks do better than the thematic product as a map, in mAP micro",
            {
                text: scores(runs, XAI, text, "map_micro") - scores(runs, LP, text, "map_micro", maps=maps)
                for text in ranges
            },
            "not printed",
            metric="map_micro",
        ),
        state(
            "",
            "Label propagation from the thematic product is above CutMix w/o LP",
            {text: scores(runs, LP, text, maps=maps) - scores(runs, PLAIN, text) for text in ranges},
            {text: published_gain(text, LP, PLAIN, table) for text in ranges},
        ),
    ]
    return collect(rows, preset)


def explanation_masks(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of section V-D: label propagation from masks is above CutMix w/o LP, and below reliable maps."""
    ranges = _ranges(runs[runs["method"] == XAI])
    micro = published.table("label_propagation/table_v").set_index("method")["map_micro"]
    rows = [
        state(
            f"9{suffix}",
            f"Label propagation from explanation masks is above CutMix w/o LP{where}",
            {text: gains(runs, XAI, PLAIN, text, metric) for text in ranges},
            *theirs,
            metric=metric,
        )
        for suffix, where, metric, theirs in (
            ("", "", "map_macro", [{text: published_gain(text, XAI) for text in ranges}]),
            (
                "_micro",
                ", in mAP micro",
                "map_micro",
                ["{} at 0.3–0.7 (Table V)", {LARGE: micro[XAI] - micro[PLAIN]}],
            ),
        )
    ]
    reference = state(
        "10",
        "Reliable maps do better than explanation masks",
        {text: gains(runs, LP, XAI, text) for text in ranges},
        {text: published_gain(text, LP, XAI) for text in ranges},
    )
    return collect([*rows, reference] if LP in set(runs["method"]) else rows, preset)


def pretraining_quality(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claim of Figure 6: masks of a weak network already lift the second network above no augmentation.

    runs: those of `tables.figure_6`, with the epochs of stage one in `stage_one_epochs` (0 for the whole training).
    """
    epochs = sorted(set(runs[runs["method"] == XAI]["stage_one_epochs"]) - {0})
    cases = {
        f"{n:g} epoch{'s' if n > 1 else ''}, mAP {_percent(first.mean())}": scores(runs, XAI, LARGE, stage_one_epochs=n)
        - scores(runs, NONE)
        for n in epochs
        if len(first := scores(runs, XAI, LARGE, "stage_one_map", stage_one_epochs=n))
    }
    micro = {
        f"{n:g} epoch{'s' if n > 1 else ''}": scores(runs, XAI, LARGE, "map_micro", stage_one_epochs=n)
        - scores(runs, NONE, metric="map_micro")
        for n in epochs
    }
    best = scores(runs, XAI, LARGE, stage_one_epochs=0)
    claim = "Masks of a network trained for a few epochs lift the second network above no augmentation"
    return collect(
        [
            state("7", claim, cases, "already with masks of a network of about 30 % mAP"),
            state("7_micro", f"{claim}, in mAP micro", micro, "not printed", metric="map_micro"),
            state(
                "",
                "The better the first network, the better the second: the whole training against the shortest",
                {"": best - scores(runs, XAI, LARGE, stage_one_epochs=epochs[0])},
                "a rising curve",
            ),
        ],
        preset,
    )


def other_augmentations(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claim of section V-E: label propagation is above each of the other augmentations (Table V)."""
    paper = published.table("label_propagation/table_v").set_index("method")
    others = [m for m in ("cutout", "random_resized_crop", "random_rotate") if m in set(runs["method"])]
    rows = []
    for method in (LP, XAI):
        for metric in ("map_macro", "map_micro"):
            lead = {
                f"over {figures.METHOD_NAMES[other]}": scores(runs, method, LARGE, metric)
                - scores(runs, other, LARGE if other == "cutout" else "", metric)
                for other in others
            }
            theirs = {f"over {figures.METHOD_NAMES[o]}": paper[metric][method] - paper[metric][o] for o in others}
            text = f"{figures.METHOD_NAMES[method]} is above each other augmentation"
            number = {LP: "8", XAI: "8_xai"}[method] + ("_micro" if metric == "map_micro" else "")
            text += ", in mAP micro" if "micro" in metric else ""
            rows.append(state(number, text, lead, theirs, metric=metric))
    return collect(rows, preset)


def beyond_the_paper(runs: pd.DataFrame, rare: Sequence[int], preset: str) -> pd.DataFrame:
    """Our own questions, stated before the runs: does CutMix that looks help rare classes, do blobs beat boxes?

    rare: indices of the classes that count as rare.
    """
    runs = runs.assign(rare=[pd.Series([ap[i] for i in rare], dtype=float).mean() for ap in runs["average_precision"]])
    chosen, blobs = "cutmix_lp_map_rare", "fmix_lp_map"
    cases = (
        (
            "a_rare",
            "Choosing patches by rarity lifts the rare classes (mean of their AP)",
            chosen,
            LP,
            "rare",
        ),
        ("a", "Choosing patches by rarity lifts mAP macro", chosen, LP, "map_macro"),
        ("a_micro", "Choosing patches by rarity lifts mAP micro", chosen, LP, "map_micro"),
        ("b", "Blobs (FMix) with label propagation are above boxes with label propagation", blobs, LP, "map_macro"),
        ("b_gain", "Label propagation lifts FMix as well", blobs, "fmix", "map_macro"),
        ("b_gain_micro", "Label propagation lifts FMix as well, in mAP micro", blobs, "fmix", "map_micro"),
    )
    rows = []
    for key, claim, new, old, metric in cases:
        lead = scores(runs, new, LARGE, metric) - scores(runs, old, LARGE, metric)
        rows.append(state(f"beyond_{key}", claim, {"": lead}, "", metric=metric))
    return collect(rows, preset).drop(columns=["paper", "difference"])


def collect(rows: list[dict[str, str]], preset: str) -> pd.DataFrame:
    """Claims, rows of `state`, as a table; in the smoke preset, whose numbers mean nothing, all are open."""
    frame = pd.DataFrame(rows)
    return frame.assign(verdict=OPEN) if preset == "smoke" else frame


def state(
    number: str,
    claim: str,
    differences: Differences,
    paper: str | Numbers,
    known: Numbers | None = None,
    *,
    judge: Callable[[pd.Series], str] = verdict,
    metric: str = "map_macro",
) -> dict[str, Any]:
    """A row of claims. paper: the paper's numbers by case; or what to say, {} standing for the one number `known`."""
    if isinstance(paper, str):
        known = known or {}
        theirs = paper.format(*map(printed, known.values()))
    else:
        known = paper
        theirs = "; ".join(_at(printed(value), text) for text, value in paper.items())
    judged = {judge(values) for values in differences.values()}
    return {
        "number": number,
        "claim": claim,
        "here": "; ".join(_at(points(values), text) for text, values in differences.items()) or "not run",
        "n": min((int(values.count()) for values in differences.values()), default=0),
        "paper": theirs,
        "difference": _less(differences, known),
        "verdict": next((v for v in (FAILS, OPEN, HOLDS) if v in judged), OPEN),
        "metric": metric,
    }


def _less(differences: Differences, known: Numbers) -> str:
    """Ours less the paper's, by case; "–" where one of them is missing."""
    found = {text: 100 * differences[text].mean() - value for text, value in known.items() if value is not None}
    return "; ".join(_at(signed(value), text) for text, value in found.items() if pd.notna(value)) or "–"


def _ranges(runs: pd.DataFrame) -> list[str]:
    return [text for text in dict.fromkeys(with_range(runs)["range"]) if text]


def _percent(value: float) -> str:
    return f"{100 * value:.0f}\u00a0%"


def _at(value: str, text: str) -> str:
    if not text or text.startswith("over "):
        return f"{value} {text}".strip()
    return f"{value} at {dashed(text)}"
