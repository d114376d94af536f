"""Runs compared with runs and with what the paper prints (Burgert et al., arXiv 2405.13451): scores by seed, gains, and
how they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from rsbook import published
from rsbook.figures import METHOD_NAMES

METRICS = ("map_macro", "map_micro")
LP, XAI, PLAIN, NONE = "cutmix_lp_map", "cutmix_lp_xai", "cutmix", "none"
SMALL, LARGE = "0.1-0.3", "0.3-0.7"


def scores(runs: pd.DataFrame, method: str, area_range: str = "", metric: str = "map_macro", **where: Any) -> pd.Series:
    """The metric by seed of the runs with a method and area range ("0.3-0.7", "" for none), without map noise.

    where: other columns and what they must hold, for example noise="mask_shift".
    """
    wanted = {"method": method, "range": area_range, "noise": None, "maps": "given"} | where
    runs = with_range(runs)
    for column, value in wanted.items():
        if column in runs:
            runs = runs[runs[column].map(lambda found, value=value: _same(found, value)).astype(bool)]
    if runs["seed"].duplicated().any():
        raise ValueError(
            f"{method}, {area_range or 'no box'}, {where}: several runs with the same seed; name what differs"
        )
    return runs.set_index("seed")[metric]


def gains(runs: pd.DataFrame, method: str, over: str, area_range: str, metric: str = "map_macro") -> pd.Series:
    """By how much a method is above another with the same boxes, by seed."""
    return scores(runs, method, area_range, metric) - scores(runs, over, area_range, metric)


def pairs(runs: pd.DataFrame, method: str, over: str) -> pd.DataFrame:
    """Scores of two methods in pairs of runs on clean maps with the same seed and, where both have one, area range.

    A row a pair, the columns of a metric for `method` and, ending in "_over", for `over`.
    """
    whole = with_range(runs[runs["noise"].isna() & (runs["maps"] == "given") & runs["stop_after"].isna()])
    ours, theirs = (whole[whole["method"] == name] for name in (method, over))
    same = ["seed"] + ["range"] * bool((ours["range"] != "").all() and (theirs["range"] != "").all())
    return ours[[*same, *METRICS]].merge(theirs[[*same, *METRICS]], on=same, suffixes=("", "_over"))


def pairs_table(runs: pd.DataFrame, compared: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """How many pairs are ahead, by how much, and whether single runs overlap: a row a comparison and metric."""
    rows = []
    for method, over in compared:
        found = pairs(runs, method, over)
        for metric in METRICS:
            ours, theirs = found[metric], found[f"{metric}_over"]
            rows.append(
                {
                    "comparison": f"{METHOD_NAMES[method]} over {METHOD_NAMES[over]}",
                    "mAP": metric.removeprefix("map_"),
                    "pairs": len(found),
                    "ahead": int((ours > theirs).sum()),
                    "points": points(ours - theirs),
                    "lowest, with": f"{100 * ours.min():.2f}",
                    "highest, without": f"{100 * theirs.max():.2f}",
                }
            )
    return pd.DataFrame(rows)


def noise_lead(
    runs: pd.DataFrame, kind: str, level: tuple[float, float | None], metric: str = "map_macro"
) -> pd.Series:
    """By how much label propagation from noisy maps is above CutMix w/o LP, which class_swap trains again, by seed."""
    at = at_level(kind, level)
    plain = at if kind == "class_swap" else {}  # only there CutMix w/o LP has other labels
    return scores(runs, LP, LARGE, metric, **at) - scores(runs, PLAIN, LARGE, metric, **plain)


def noise_cost(
    runs: pd.DataFrame, kind: str, level: tuple[float, float | None], metric: str = "map_macro"
) -> pd.Series:
    """By how much label propagation from noisy maps is below that from clean maps, by seed."""
    return scores(runs, LP, LARGE, metric) - scores(runs, LP, LARGE, metric, **at_level(kind, level))


def noise_levels(runs: pd.DataFrame, kind: str) -> list[tuple[float, float | None]]:
    """The levels (fraction, intensity) of one kind of map noise that the runs have, in their order."""
    found = runs[runs["noise"] == kind] if "noise" in runs else runs.head(0)
    pairs = zip(found["noise_fraction"], found["noise_intensity"], strict=True) if len(found) else []
    return list(dict.fromkeys((f, None if pd.isna(i) else float(i)) for f, i in pairs))


def at_level(kind: str, level: tuple[float, float | None]) -> dict[str, Any]:
    """The columns of runs with one kind of noise at a level (fraction, intensity)."""
    return dict(zip(("noise", "noise_fraction", "noise_intensity"), (kind, *level), strict=True))


def level_text(level: tuple[float, float | None]) -> str:
    """A level of map noise in words: "f = 50 %, α = 12"."""
    fraction, intensity = level
    return f"f = {100 * fraction:.0f} %" + ("" if intensity is None else f", α = {intensity:g}")


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


def printed(gain: float | None) -> str:
    """A difference that a paper prints, or that it does not."""
    return "not printed" if gain is None else signed(gain)


def dashed(text: str) -> str:
    """An area range as it is printed: a hyphen between digits becomes a dash."""
    return re.sub(r"(?<=\d)-(?=\d)", "–", text)


def _same(found: Any, value: Any) -> bool:
    missing = found is None or (isinstance(found, float) and pd.isna(found))
    return missing if value is None else not missing and found == value
