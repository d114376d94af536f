"""What the records say to the claims of the label-propagation paper (Burgert et al., arXiv 2405.13451): ours beside
published.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Generator

from rsbook import mixing, published
from rsbook.figures import METHOD_NAMES, mean_and_spread
from rsbook.positions import AreaTables
from rsbook.scenes import Scenes

HOLDS, FAILS, OPEN = "holds", "fails", "open"


def table_i(data: Scenes) -> pd.DataFrame:
    """Table I (section IV-A): the embedded data set first, then the paper's, one row a data set."""
    train = data.split("train")
    ours = {
        "data set": f"{data.name} (ours)",
        "training scenes": f"{len(train):,}",
        "classes": len(data.classes),
        "classes a scene": round(data.labels[train].float().sum(dim=1).mean().item(), 2),
        "bands": data.images.shape[1],
        "train / val / test, %": " / ".join(
            f"{100 * len(index) / len(data.labels):.0f}" for index in data.splits.values()
        ),
    }
    theirs = [
        {
            "data set": f"{row.dataset} (paper)",
            "training scenes": f"{row.training_images:,}",
            "classes": row.classes,
            "classes a scene": row.average_labels,
            "bands": row.bands,
            "train / val / test, %": f"{row.train_percent} / {row.validation_percent} / {row.test_percent}",
        }
        for row in published.table("label_propagation/table_i").itertuples()
    ]
    return pd.DataFrame([ours, *theirs])


def table_ii(runs: pd.DataFrame) -> pd.DataFrame:
    """Table II (section V-A) in per cent: ours on the embedded data, the paper's on DeepGlobe-ML, a row a method and
    area range.

    runs: the table of `label_propagation.train` runs. Gains are over CutMix w/o LP with the same boxes and seeds.
    """
    rows = []
    for (method, text), part in _with_range(runs).groupby(["method", "range"], sort=False):
        compared = method not in ("none", "cutmix")
        gains = _gains(runs, method, "cutmix", text).dropna() if compared else pd.Series(dtype=float)
        rows.append(
            {
                "method": METHOD_NAMES[method],
                "box area": _dashed(text) or "–",
                "mAP macro": mean_and_spread(part["map_macro"]),
                "mAP micro": mean_and_spread(part["map_micro"]),
                "gain over w/o LP": None if gains.empty else _signed(100 * gains.mean()),
                "n": len(part),
                "paper: macro": None if (paper := _published(method, text)) is None else f"{paper:.2f}",
                "paper: gain": _printed(_published_gain(text)) if method == "cutmix_lp_map" else None,
            }
        )
    return pd.DataFrame(rows)


def claims_of_table_ii(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of section V-A that can be tested with these runs: what was measured here, what the paper prints, and
    a verdict.

    A claim about a difference holds when the difference has the claimed sign for every seed, fails when it has it for
    none, and is open in between, with a single seed, or in the smoke preset, whose numbers mean nothing.
    """
    runs = _with_range(runs)
    ranges = [text for text in dict.fromkeys(runs["range"]) if text]
    lp, plain, none = "cutmix_lp_map", "cutmix", "none"
    large, small = "0.3-0.7", "0.1-0.3"
    gains = {text: _gains(runs, lp, plain, text) for text in ranges}
    over_others = {t: _scores(runs, lp, large) - _scores(runs, lp, t) for t in ranges if t != large}
    growth = _gains(runs, lp, plain, large) - _gains(runs, lp, plain, small)
    micro, paper_micro = "map_micro", published.table("label_propagation/table_v").set_index("method")["map_micro"]

    rows = [
        _claim(
            "Label propagation is above CutMix w/o LP for every box range",
            gains,
            {text: _printed(_published_gain(text)) for text in ranges},
        ),
        _claim(
            "Label propagation is above CutMix w/o LP, in mAP micro",
            {large: _scores(runs, lp, large, micro) - _scores(runs, plain, large, micro)},
            f"{paper_micro[lp] - paper_micro[plain]:+.2f} (Table V)",
        ),
        _claim(
            "CutMix w/o LP is above no augmentation",
            {large: _scores(runs, plain, large) - _scores(runs, none, "")},
            _printed(_published(plain, large) - _published(none, "")),
        ),
        _claim(
            "CutMix w/o LP is above no augmentation, in mAP micro",
            {large: _scores(runs, plain, large, micro) - _scores(runs, none, "", micro)},
            f"{paper_micro[plain] - paper_micro[none]:+.2f} (Table V)",
        ),
        _claim(
            "Label propagation scores best with boxes of 0.3–0.7: its lead over the other ranges",
            over_others,
            f"{_published(lp, large):.2f}, the highest of five",
        ),
        _claim(
            "The larger the boxes, the larger the gain: by how much it grows from 0.1–0.3 to 0.3–0.7",
            {"": growth},
            f"{_published_gain(large) - _published_gain(small):+.2f}, but not steadily over the five ranges",
        ),
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(verdict=OPEN) if preset == "smoke" else frame


def verdict(differences: pd.Series) -> str:
    """ "holds", "fails" or "open" for a difference that is claimed to be positive, one value a seed."""
    if differences.isna().any() or len(differences) < 2:
        return OPEN
    return HOLDS if (differences > 0).all() else FAILS if (differences <= 0).all() else OPEN


def label_errors(
    data: Scenes, area_ranges: Sequence[tuple[float, float]], seed: int, min_pixels: int, repeats: int = 10
) -> pd.DataFrame:
    """How often area labels (eq. 6) disagree with what the mixtures of the training scenes hold, in per cent.

    A class is held by more than `min_pixels` pixels. One row an area range, four columns: mixtures whose label names a
    class that they do not hold; of all named classes, those of x₁ that went with the hole; those of x₂ that did not
    come with the patch; of all held classes, those with a weight under one half. Raises ValueError for scenes without
    class positions.
    """
    if data.positions is None:
        raise ValueError(f"{data.name} has no class positions to hold the labels against")
    index = data.split("train")
    images, labels = data.images[index], data.labels[index]
    tables = AreaTables(data.positions[index], len(data.classes))
    rows = []
    for area_range in area_ranges:
        counts = np.zeros(6)
        for repeat in range(repeats):
            # The same seed twice: the same mixtures, labelled in two ways.
            by_area, by_map = (
                mixing.cutmix(
                    images,
                    labels,
                    where,
                    area_range=area_range,
                    probability=1.0,
                    min_pixels=min_pixels,
                    generator=Generator().manual_seed(seed + repeat),
                )
                for where in (None, tables)
            )
            there, named = by_map.labels > 0, by_area.labels > 0
            lost, absent = labels & ~there, labels[by_area.partner] & ~labels & ~there
            weak = there & (by_area.labels < 0.5)
            counts += [(lost | absent).any(dim=1).sum(), lost.sum(), absent.sum(), weak.sum(), named.sum(), there.sum()]
        wrong, lost, absent, weak, named, there = counts
        rows.append(
            {
                "box area": f"{area_range[0]}–{area_range[1]}",
                "held by more than": f"{min_pixels} px",
                "mixtures with a named class not held": wrong / (repeats * len(index)),
                "named, gone with the hole": lost / named,
                "named, not pasted": absent / named,
                "held, with a weight under ½": weak / there,
            }
        )
    frame = pd.DataFrame(rows)
    return frame.assign(**{column: (100 * frame[column]).round(1) for column in frame.columns[2:]})


def _with_range(runs: pd.DataFrame) -> pd.DataFrame:
    """Area ranges as the published tables write them: "0.3-0.7", and "" for none."""
    text = runs["area_range"].map(lambda r: f"{r[0]}-{r[1]}" if isinstance(r, list | tuple) else "")
    return runs.assign(range=text)


def _scores(runs: pd.DataFrame, method: str, text: str, metric: str = "map_macro") -> pd.Series:
    runs = _with_range(runs)
    return runs[(runs["method"] == method) & (runs["range"] == text)].set_index("seed")[metric]


def _gains(runs: pd.DataFrame, method: str, over: str, text: str) -> pd.Series:
    return _scores(runs, method, text) - _scores(runs, over, text)


def _claim(claim: str, differences: dict[str, pd.Series], paper: str | dict[str, str]) -> dict[str, str]:
    """A row: differences by area range, one value a seed; a claim about several ranges is as good as its worst."""
    found = {verdict(values) for values in differences.values()}
    theirs = paper if isinstance(paper, str) else "; ".join(_at(value, text) for text, value in paper.items())
    return {
        "claim": claim,
        "here": "; ".join(_at(_points(values), text) for text, values in differences.items()) or "not run",
        "paper": theirs,
        "verdict": next((v for v in (FAILS, OPEN, HOLDS) if v in found), OPEN),
    }


def _published(method: str, text: str) -> float | None:
    paper = published.table("label_propagation/table_ii")
    found = paper[(paper["method"] == method) & (paper["area_range"].fillna("") == text)]["map_macro"]
    return None if found.empty else float(found.iloc[0])


def _published_gain(text: str) -> float | None:
    ours, over = (_published(method, text) for method in ("cutmix_lp_map", "cutmix"))
    return None if ours is None or over is None else ours - over


def _printed(gain: float | None) -> str:
    return "not printed" if gain is None else f"{gain:+.2f}"


def _points(differences: pd.Series) -> str:
    """Fractions as points, mean and spread; "not run" where a seed of either side is missing."""
    if differences.empty or differences.isna().any():
        return "not run"
    spread = f"\u00a0±\u00a0{100 * differences.std():.2f}" if len(differences) > 1 else ""
    return _signed(100 * differences.mean()) + spread


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")


def _at(value: str, text: str) -> str:
    return f"{value} at {_dashed(text)}" if text else value


def _dashed(text: str) -> str:
    return text.replace("-", "–")
