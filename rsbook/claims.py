"""What the records say to the claims of the label-propagation paper (Burgert et al., arXiv 2405.13451).

Nothing here trains: this module may change without a run being done again. A claim about a difference holds when the
difference has the claimed sign for every seed, fails when it has it for none, and is open in between, with a single
seed, or in the smoke preset, whose numbers mean nothing.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from rsbook import figures, published

HOLDS, FAILS, OPEN = "holds", "fails", "open"
LP, XAI, PLAIN, NONE = "cutmix_lp_map", "cutmix_lp_xai", "cutmix", "none"
SMALL, LARGE = "0.1-0.3", "0.3-0.7"

Differences = Mapping[str, pd.Series]  # one value a seed, for each case that a claim speaks of


def scores(runs: pd.DataFrame, method: str, area_range: str = "", metric: str = "map_macro", **where: Any) -> pd.Series:
    """The metric by seed of the runs with a method and area range ("0.3-0.7", "" for none), without map noise.

    where: other columns and what they must hold, for example noise="mask_shift".
    """
    wanted = {"method": method, "range": area_range, "noise": None, "maps": "given"} | where
    runs = with_range(runs)
    for column, value in wanted.items():
        if column in runs:
            runs = runs[runs[column].map(lambda found, value=value: _same(found, value)).astype(bool)]
    return runs.set_index("seed")[metric]


def verdict(differences: pd.Series) -> str:
    """ "holds", "fails" or "open" for a difference that is claimed to be positive, one value a seed."""
    if differences.isna().any() or len(differences) < 2:
        return OPEN
    return HOLDS if (differences > 0).all() else FAILS if (differences <= 0).all() else OPEN


def verdict_within(points: float) -> Callable[[pd.Series], str]:
    """The verdict on a difference that is claimed to be at most so many points either way."""

    def judge(differences: pd.Series) -> str:
        if differences.isna().any() or len(differences) < 2:
            return OPEN
        inside = 100 * differences.abs() <= points
        return HOLDS if inside.all() else FAILS if not inside.any() else OPEN

    return judge


def claims_table(frame: pd.DataFrame, where: str) -> figures.Html:
    """The claims in the book's table style; each is also left for the part page, which shows them all."""
    for row in frame.itertuples():
        if row.number:
            said = f'{html.escape(row.here)} <span class="verdict-{row.verdict}">{row.verdict}</span>'
            figures.share(f"claim_{row.number}", figures.Html(said, text=f"{row.here}: {row.verdict}"))
    return figures.draw_table(
        frame.drop(columns="number"),
        name="claims",
        published=["paper"],
        caption=f"Claims: differences in points of mAP macro (micro where said), mean ± standard deviation over seeds; "
        f"{where}. A claim about several cases is as good as its worst.",
    )


def reliable_maps(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of section V-A: what was measured here, what the paper prints, and a verdict."""
    ranges = _ranges(runs)
    micro, paper_micro = "map_micro", published.table("label_propagation/table_v").set_index("method")["map_micro"]
    over_others = {t: scores(runs, LP, LARGE) - scores(runs, LP, t) for t in ranges if t != LARGE}
    growth = gains(runs, LP, PLAIN, LARGE) - gains(runs, LP, PLAIN, SMALL)
    return _frame(
        [
            _claim(
                "1",
                "Label propagation is above CutMix w/o LP for every box range",
                {text: gains(runs, LP, PLAIN, text) for text in ranges},
                {text: _printed(published_gain(text)) for text in ranges},
            ),
            _claim(
                "1_micro",
                "Label propagation is above CutMix w/o LP, in mAP micro",
                {LARGE: gains(runs, LP, PLAIN, LARGE, micro)},
                f"{paper_micro[LP] - paper_micro[PLAIN]:+.2f} (Table V)",
            ),
            _claim(
                "4",
                "CutMix w/o LP is above no augmentation",
                {LARGE: scores(runs, PLAIN, LARGE) - scores(runs, NONE)},
                _printed(published_score(PLAIN, LARGE) - published_score(NONE)),
            ),
            _claim(
                "4_micro",
                "CutMix w/o LP is above no augmentation, in mAP micro",
                {LARGE: scores(runs, PLAIN, LARGE, micro) - scores(runs, NONE, metric=micro)},
                f"{paper_micro[PLAIN] - paper_micro[NONE]:+.2f} (Table V)",
            ),
            _claim(
                "2",
                "Label propagation scores best with boxes of 0.3–0.7: its lead over the other ranges",
                over_others,
                f"{published_score(LP, LARGE):.2f}, the highest of five",
            ),
            _claim(
                "3",
                "The larger the boxes, the larger the gain: by how much it grows from 0.1–0.3 to 0.3–0.7",
                {"": growth},
                f"{published_gain(LARGE) - published_gain(SMALL):+.2f}, but not steadily over the five ranges",
            ),
        ],
        preset,
    )


def map_noise(runs: pd.DataFrame, kind: str, preset: str) -> pd.DataFrame:
    """The claims of section V-B on one kind of map noise, at its strongest level among the runs, and what it costs."""
    level = max(noise_levels(runs, kind), key=lambda f_i: (f_i[0], f_i[1] or 0))
    at = dict(zip(("noise", "noise_fraction", "noise_intensity"), (kind, *level), strict=True))
    plain = at if kind == "class_swap" else {}  # only there CutMix w/o LP has other labels and is trained again
    text, cases = level_text(level), {}
    for metric in ("map_macro", "map_micro"):
        noisy = scores(runs, LP, LARGE, metric, **at)
        cases[metric] = noisy - scores(runs, PLAIN, LARGE, metric, **plain), noisy - scores(runs, LP, LARGE, metric)
    said = published.table("label_propagation/figure_4").query("noise == @kind")
    above = "; ".join(dict.fromkeys(said["effect"]))
    printed = said[said["quantity"] == "gain_over_cutmix"]
    number = "; ".join(f"{row.relation} {row.value:+.1f}" for row in printed.itertuples()) or "no number"
    within = said[said["quantity"] == "change_to_clean_maps"]["value"].max()
    rows = [
        _claim(
            f"5_{kind}",
            f"With noise of {text}, label propagation stays above CutMix w/o LP",
            {"": cases["map_macro"][0]},
            f"{number} ({above})",
        ),
        _claim(
            f"5_{kind}_micro",
            f"With noise of {text}, label propagation stays above CutMix w/o LP, in mAP micro",
            {"": cases["map_micro"][0]},
            "not printed",
        ),
    ]
    if pd.notna(within):
        change = f"Noise of {text} changes the score of label propagation by at most {within} points"
        rows.append(_claim("", change, {"": cases["map_macro"][1]}, f"at most {within}", verdict_within(within)))
    else:
        cost = f"Noise of {text} costs label propagation something: clean maps minus noisy ones"
        rows.append(_claim("", cost, {"": -cases["map_macro"][1]}, above))
    return _frame(rows, preset)


def thematic_product(runs: pd.DataFrame, preset: str, maps: str) -> pd.DataFrame:
    """The claims of section V-C: from a thematic product, label propagation gains, and masks do at least as well."""
    ranges = _ranges(runs[runs["method"] == LP])
    table = "label_propagation/table_iii"
    rows = [
        _claim(
            "6",
            "Explanation masks do better than the thematic product as a map",
            {text: scores(runs, XAI, text) - scores(runs, LP, text, maps=maps) for text in ranges},
            {text: _printed(published_gain(text, XAI, LP, table)) for text in ranges},
        ),
        _claim(
            "6_micro",
            "Explanation masks do better than the thematic product as a map, in mAP micro",
            {
                text: scores(runs, XAI, text, "map_micro") - scores(runs, LP, text, "map_micro", maps=maps)
                for text in ranges
            },
            "not printed",
        ),
        _claim(
            "",
            "Label propagation from the thematic product is above CutMix w/o LP",
            {text: scores(runs, LP, text, maps=maps) - scores(runs, PLAIN, text) for text in ranges},
            {text: _printed(published_gain(text, LP, PLAIN, table)) for text in ranges},
        ),
    ]
    return _frame(rows, preset)


def explanation_masks(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of section V-D: label propagation from masks is above CutMix w/o LP, and below reliable maps."""
    ranges = _ranges(runs[runs["method"] == XAI])
    rows = [
        _claim(
            f"9{suffix}",
            f"Label propagation from explanation masks is above CutMix w/o LP{where}",
            {text: gains(runs, XAI, PLAIN, text, metric) for text in ranges},
            theirs,
        )
        for suffix, where, metric, theirs in (
            ("", "", "map_macro", {text: _printed(published_gain(text, XAI)) for text in ranges}),
            ("_micro", ", in mAP micro", "map_micro", "+3.23 at 0.3–0.7 (Table V)"),
        )
    ]
    reference = _claim(
        "",
        "Reliable maps do better than explanation masks",
        {text: gains(runs, LP, XAI, text) for text in ranges},
        {text: _printed(published_gain(text, LP, XAI)) for text in ranges},
    )
    return _frame([*rows, reference], preset)


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
    claim = "Masks of a network trained for a few epochs lift the second network above no augmentation"
    return _frame(
        [
            _claim("7", claim, cases, "already with masks of a network of about 30 % mAP"),
            _claim("7_micro", f"{claim}, in mAP micro", micro, "not printed"),
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
                figures.METHOD_NAMES[other]: scores(runs, method, LARGE, metric)
                - scores(runs, other, LARGE if other == "cutout" else "", metric)
                for other in others
            }
            theirs = {figures.METHOD_NAMES[o]: _printed(paper[metric][method] - paper[metric][o]) for o in others}
            text = f"{figures.METHOD_NAMES[method]} is above each other augmentation"
            number = {LP: "8", XAI: "8_xai"}[method] + ("_micro" if metric == "map_micro" else "")
            rows.append(_claim(number, text + (", in mAP micro" if "micro" in metric else ""), lead, theirs))
    return _frame(rows, preset)


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
    rows = [
        _claim(f"beyond_{key}", claim, {"": scores(runs, new, LARGE, metric) - scores(runs, old, LARGE, metric)}, "")
        for key, claim, new, old, metric in cases
    ]
    return _frame(rows, preset).drop(columns="paper")


def gains(runs: pd.DataFrame, method: str, over: str, area_range: str, metric: str = "map_macro") -> pd.Series:
    """By how much a method is above another with the same boxes, by seed."""
    return scores(runs, method, area_range, metric) - scores(runs, over, area_range, metric)


def published_score(method: str, area_range: str = "", table: str = "label_propagation/table_ii") -> float | None:
    """What the paper prints for a method and an area range, in per cent, None when it prints nothing."""
    paper = published.table(table)
    found = paper[(paper["method"] == method) & (paper["area_range"].fillna("") == area_range)]["map_macro"]
    return None if found.empty else float(found.iloc[0])


def published_gain(
    area_range: str, method: str = LP, over: str = PLAIN, table: str = "label_propagation/table_ii"
) -> float | None:
    """The difference of two scores that the paper prints, in points, None when it does not print both."""
    ours, theirs = (published_score(one, area_range, table) for one in (method, over))
    return None if ours is None or theirs is None else ours - theirs


def noise_levels(runs: pd.DataFrame, kind: str) -> list[tuple[float, float | None]]:
    """The levels (fraction, intensity) of one kind of map noise that the runs have, in their order."""
    found = runs[runs["noise"] == kind] if "noise" in runs else runs.head(0)
    pairs = zip(found["noise_fraction"], found["noise_intensity"], strict=True) if len(found) else []
    return list(dict.fromkeys((f, None if pd.isna(i) else float(i)) for f, i in pairs))


def level_text(level: tuple[float, float | None]) -> str:
    """A level of map noise in words: "f = 50 %, α = 12"."""
    fraction, intensity = level
    return f"f = {100 * fraction:.0f} %" + ("" if intensity is None else f", α = {intensity:g}")


def with_range(runs: pd.DataFrame) -> pd.DataFrame:
    """Area ranges as the published tables write them: "0.3-0.7", and "" for none."""
    text = runs["area_range"].map(lambda r: f"{r[0]}-{r[1]}" if isinstance(r, list | tuple) else "")
    return runs.assign(range=text)


def points(differences: pd.Series) -> str:
    """Fractions as points, mean and spread; "not run" where a seed of either side is missing."""
    if differences.empty or differences.isna().any():
        return "not run"
    spread = f"\u00a0±\u00a0{100 * differences.std():.2f}" if len(differences) > 1 else ""
    return signed(100 * differences.mean()) + spread


def signed(value: float) -> str:
    """A difference with its sign; "not run" for none."""
    return "not run" if pd.isna(value) else f"{value:+.2f}".replace("-", "−")


def dashed(text: str) -> str:
    """An area range as it is printed."""
    return text.replace("-", "–")


def _frame(rows: list[dict[str, str]], preset: str) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return frame.assign(verdict=OPEN) if preset == "smoke" else frame


def _claim(
    number: str,
    claim: str,
    differences: Differences,
    paper: str | Mapping[str, str],
    judge: Callable[[pd.Series], str] = verdict,
) -> dict[str, str]:
    found = {judge(values) for values in differences.values()}
    theirs = paper if isinstance(paper, str) else "; ".join(_at(value, text) for text, value in paper.items())
    return {
        "number": number,
        "claim": claim,
        "here": "; ".join(_at(points(values), text) for text, values in differences.items()) or "not run",
        "paper": theirs,
        "verdict": next((v for v in (FAILS, OPEN, HOLDS) if v in found), OPEN),
    }


def _ranges(runs: pd.DataFrame) -> list[str]:
    return [text for text in dict.fromkeys(with_range(runs)["range"]) if text]


def _same(found: Any, value: Any) -> bool:
    missing = found is None or (isinstance(found, float) and pd.isna(found))
    return missing if value is None else not missing and found == value


def _printed(gain: float | None) -> str:
    return "not printed" if gain is None else signed(gain)


def _percent(value: float) -> str:
    return f"{100 * value:.0f}\u00a0%"


def _at(value: str, text: str) -> str:
    return f"{value} at {dashed(text)}" if text else value
