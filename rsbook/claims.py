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
        "training scenes": len(train),
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
            "training scenes": row.training_images,
            "classes": row.classes,
            "classes a scene": row.average_labels,
            "bands": row.bands,
            "train / val / test, %": f"{row.train_percent} / {row.validation_percent} / {row.test_percent}",
        }
        for row in published.table("label_propagation/table_i").itertuples()
    ]
    return pd.DataFrame([ours, *theirs])


def table_ii(runs: pd.DataFrame) -> pd.DataFrame:
    """Table II (section V-A) in per cent: ours on the embedded data, the paper's on DeepGlobe-ML, one row a method and
    area range.

    runs: the table of `label_propagation.train` runs. Gains are over CutMix w/o LP with the same boxes and seeds.
    """
    paper = published.table("label_propagation/table_ii")
    rows = []
    for (method, text), part in _with_range(runs).groupby(["method", "range"], sort=False):
        gains = _gains(runs, method, "cutmix", text) if method not in ("none", "cutmix") else pd.Series(dtype=float)
        rows.append(
            {
                "method": METHOD_NAMES[method],
                "box area": text.replace("-", "–") or "–",
                "mAP macro": mean_and_spread(part["map_macro"]),
                "mAP micro": mean_and_spread(part["map_micro"]),
                "gain over w/o LP": None if gains.empty else f"{100 * gains.mean():+.2f}",
                "n": len(part),
                "paper: macro": _published(paper, method, text),
                "paper: gain": _published_gain(paper, text) if method == "cutmix_lp_map" else None,
            }
        )
    return pd.DataFrame(rows)


def claims_of_table_ii(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The claims of section V-A that Table II carries, each with what was measured here, what the paper prints, and a
    verdict.

    A claim about a difference holds when the difference has the claimed sign for every seed, fails when it has the
    other sign on the mean, and is open in between, with a single seed, or in the smoke preset, whose numbers mean
    nothing.
    """
    runs, paper = _with_range(runs), published.table("label_propagation/table_ii")
    ranges = [text for text in dict.fromkeys(runs["range"]) if text]
    gains = {text: _gains(runs, "cutmix_lp_map", "cutmix", text) for text in ranges}
    baseline = runs[runs["method"] == "none"].set_index("seed")["map_macro"]
    scores = {text: _scores(runs, "cutmix_lp_map", text) for text in ranges}
    widest, smallest = "0.3-0.7", "0.1-0.3"

    rows = [
        {
            "claim": "Label propagation is above CutMix w/o LP for every box range",
            "here": "; ".join(f"{_points(gain)} at {text}" for text, gain in gains.items()),
            "paper": "; ".join(f"{_published_gain(paper, text)} at {text}" for text in ranges),
            "verdict": _worst(verdict(gain) for gain in gains.values()),
        },
        {
            "claim": "CutMix w/o LP is above no augmentation (boxes 0.3–0.7)",
            "here": _points(_scores(runs, "cutmix", widest) - baseline) if widest in ranges else "not run",
            "paper": f"{float(_published(paper, 'cutmix', widest)) - float(_published(paper, 'none', '')):+.2f}",
            "verdict": verdict(_scores(runs, "cutmix", widest) - baseline) if widest in ranges else OPEN,
        },
    ]
    if widest in ranges:
        micro = _scores(runs, "cutmix_lp_map", widest, "map_micro") - _scores(runs, "cutmix", widest, "map_micro")
        table_v = published.table("label_propagation/table_v").set_index("method")["map_micro"]
        rows.append(
            {
                "claim": "The same in mAP micro (boxes 0.3–0.7; the paper's numbers from its Table V)",
                "here": _points(micro),
                "paper": f"{table_v['cutmix_lp_map'] - table_v['cutmix']:+.2f}",
                "verdict": verdict(micro),
            }
        )
    if len(ranges) > 1 and widest in ranges:
        others = {text: scores[widest] - score for text, score in scores.items() if text != widest}
        rows.append(
            {
                "claim": "Label propagation scores best with boxes of 0.3–0.7",
                "here": "; ".join(f"{_points(difference)} over {text}" for text, difference in others.items()),
                "paper": f"{_published(paper, 'cutmix_lp_map', widest)}, the highest of five",
                "verdict": _worst(verdict(difference) for difference in others.values()),
            }
        )
    if widest in ranges and smallest in ranges:
        rows.append(
            {
                "claim": "The larger the boxes, the larger the gain (0.3–0.7 against 0.1–0.3)",
                "here": f"the gain changes by {_points(gains[widest] - gains[smallest])}",
                "paper": f"by {_change(paper, widest, smallest):+.2f}, but not steadily over the five ranges",
                "verdict": verdict(gains[widest] - gains[smallest]),
            }
        )
    frame = pd.DataFrame(rows).map(lambda text: text.replace("0.1-", "0.1–").replace("0.3-", "0.3–"))
    return frame.assign(verdict=OPEN) if preset == "smoke" else frame


def verdict(differences: pd.Series) -> str:
    """ "holds", "fails" or "open" for a difference that is claimed to be positive, one value a seed."""
    if differences.isna().any() or len(differences) < 2:
        return OPEN
    if (differences > 0).all():
        return HOLDS
    return FAILS if differences.mean() <= 0 else OPEN


def label_errors(
    data: Scenes, area_ranges: Sequence[tuple[float, float]], seed: int, repeats: int = 10
) -> pd.DataFrame:
    """How often area labels (eq. 6) disagree with what the mixtures of the training scenes hold, in per cent, one row
    an area range.

    Four columns: mixtures whose label names a class that is not there; named classes of x₁ that went with the hole;
    named classes of x₂ that never came with the patch; classes that are there, with a weight under one half. Raises
    ValueError for scenes without class positions.
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
                    min_pixels=data.min_pixels,
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
                "mixtures with a class that is not there": wrong / (repeats * len(index)),
                "named, but gone with the hole": lost / named,
                "named, but never pasted": absent / named,
                "there, with a weight under ½": weak / there,
            }
        )
    frame = pd.DataFrame(rows)
    return frame.assign(**{column: (100 * frame[column]).round(1) for column in frame.columns[1:]})


def _with_range(runs: pd.DataFrame) -> pd.DataFrame:
    """Area ranges as the published tables write them: "0.3-0.7", and "" for none."""
    text = runs["area_range"].map(lambda r: f"{r[0]}-{r[1]}" if isinstance(r, list | tuple) else "")
    return runs.assign(range=text)


def _scores(runs: pd.DataFrame, method: str, text: str, metric: str = "map_macro") -> pd.Series:
    runs = _with_range(runs)
    return runs[(runs["method"] == method) & (runs["range"] == text)].set_index("seed")[metric]


def _gains(runs: pd.DataFrame, method: str, over: str, text: str) -> pd.Series:
    return _scores(runs, method, text) - _scores(runs, over, text)


def _published(paper: pd.DataFrame, method: str, text: str) -> float | None:
    found = paper[(paper["method"] == method) & (paper["area_range"].fillna("") == text)]["map_macro"]
    return None if found.empty else f"{found.iloc[0]:.2f}"


def _published_gain(paper: pd.DataFrame, text: str) -> str | None:
    ours, over = (_published(paper, method, text) for method in ("cutmix_lp_map", "cutmix"))
    return None if ours is None or over is None else f"{float(ours) - float(over):+.2f}"


def _change(paper: pd.DataFrame, text: str, against: str) -> float:
    return float(_published_gain(paper, text)) - float(_published_gain(paper, against))


def _points(differences: pd.Series) -> str:
    spread = f"\u00a0±\u00a0{100 * differences.std():.2f}" if len(differences) > 1 else ""
    return f"{100 * differences.mean():+.2f}{spread}"


def _worst(verdicts) -> str:
    found = set(verdicts)
    return next((v for v in (FAILS, OPEN, HOLDS) if v in found), OPEN)
