"""Ours beside published: the tables of the label-propagation paper (Burgert et al., arXiv 2405.13451), from records.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from rsbook import published
from rsbook.comparisons import (
    LARGE,
    LP,
    PLAIN,
    XAI,
    at_level,
    dashed,
    level_text,
    noise_levels,
    printed,
    published_gain,
    published_score,
    scores,
    signed,
    with_range,
)
from rsbook.figures import METHOD_NAMES, mean_and_spread
from rsbook.scenes import Scenes


def table_i(data: Scenes) -> pd.DataFrame:
    """Table I (section IV-A): the data set at hand first, then the paper's, one row a data set."""
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


def by_area_range(runs: pd.DataFrame, table: str = "table_ii", maps: str = "given") -> pd.DataFrame:
    """Tables II, III and IV in per cent: ours on the data set at hand, the paper's on its own, a row a method and area
    range.

    runs: of `label_propagation.train`. maps: which of ours are what the paper's LP_map reads in that table. Gains are
    over CutMix w/o LP with the same boxes and seeds.
    """
    name, rows = f"label_propagation/{table}", []
    for (method, text, read), part in with_range(runs).groupby(["method", "range", "maps"], sort=False):
        comparable = method != LP or read == maps
        compared = method not in ("none", "cutmix")
        gain = scores(runs, method, text, maps=read) - scores(runs, PLAIN, text) if compared else None
        ours = None if gain is None or gain.dropna().empty else 100 * gain.mean()
        theirs = published_gain(text, method, PLAIN, name) if compared and comparable else None
        rows.append(
            {
                "method": METHOD_NAMES[method] + (", thematic product" if read == "product" else ""),
                "box area": dashed(text) or "–",
                "mAP macro": mean_and_spread(part["map_macro"]),
                "mAP micro": mean_and_spread(part["map_micro"]),
                "gain over w/o LP": None if ours is None else signed(ours),
                "n": len(part),
                "paper: macro": _number(published_score(method, text, name)) if comparable else None,
                "paper: gain": printed(theirs) if compared and comparable else None,
                "difference of gains": None if ours is None or theirs is None else signed(ours - theirs),
            }
        )
    return pd.DataFrame(rows)


def table_v(runs: pd.DataFrame) -> pd.DataFrame:
    """Table V (section V-E) in per cent: ours beside the paper's, a row a method, boxes of 0.3–0.7."""
    paper = published.table("label_propagation/table_v").set_index("method")
    found = with_range(runs)
    found = found[found["range"].isin(["", LARGE])]
    return pd.DataFrame(
        {
            "method": METHOD_NAMES[method],
            "mAP macro": mean_and_spread(part["map_macro"]),
            "mAP micro": mean_and_spread(part["map_micro"]),
            "n": len(part),
            "paper: macro": _number(paper["map_macro"].get(method)),
            "paper: micro": _number(paper["map_micro"].get(method)),
        }
        for method, part in found.groupby("method", sort=False)
    )


def figure_4(runs: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Figure 4 as a table: label propagation from maps with one kind of noise, a row a level, in per cent and points.

    Gains are over CutMix w/o LP, which class_swap trains again with the noisy labels; changes are to clean maps.
    """
    rows = []
    for level in [None, *noise_levels(runs, kind)]:
        at = {} if level is None else at_level(kind, level)
        plain = at if kind == "class_swap" else {}
        row: dict[str, Any] = {"noise": "clean maps" if level is None else level_text(level)}
        for metric, name in (("map_macro", "macro"), ("map_micro", "micro")):
            found, clean = scores(runs, LP, LARGE, metric, **at), scores(runs, LP, LARGE, metric)
            row |= {
                f"mAP {name}": mean_and_spread(found),
                f"change, {name}": None if level is None else signed(100 * (found - clean).mean()),
                f"gain over w/o LP, {name}": signed(100 * (found - scores(runs, PLAIN, LARGE, metric, **plain)).mean()),
            }
        rows.append(row | {"n": len(found)})
    return pd.DataFrame(rows)


def figure_4_whole(runs: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
    """Figure 4 as one table, all kinds of map noise below each other."""
    parts = [figure_4(runs, kind) for kind in kinds]
    named = [part.assign(noise=f"{kind}, " + part["noise"]) for kind, part in zip(kinds, parts, strict=True)]
    return pd.concat(named, ignore_index=True)


def figure_6(first: pd.DataFrame, second: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """The runs of Figure 6 in one table: those of stage two know their stage one by its score and its epochs.

    first: runs without augmentation, some stopped early; second: those whose masks they explain, in the same order;
    others: to compare. Adds `stage_one_map` and `stage_one_epochs` (0: the whole training). Raises ValueError when
    first and second are not in the same order.
    """
    if first["weights"].tolist() != second["stage_one"].tolist():
        raise ValueError("second: expected one run for each of first, in its order")
    second = second.assign(
        stage_one_map=first["map_macro"].to_numpy(),
        stage_one_epochs=first["stop_after"].fillna(0).astype(int).to_numpy(),
    )
    return pd.concat([others, second], ignore_index=True)


def stage_one_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Figure 6 as a table: what stage one scored, and what the network trained with its masks scored, in per cent."""
    rows = []
    baseline = scores(runs, "none")
    masks = runs[runs["method"] == XAI].assign(order=lambda r: r["stage_one_epochs"].replace(0, 10**6))
    for n, part in masks.groupby("order"):
        ours = part.set_index("seed")["map_macro"]
        rows.append(
            {
                "stage one": "whole training" if n == 10**6 else f"{n:g} epoch" + ("s" if n > 1 else ""),
                "its mAP macro": mean_and_spread(part["stage_one_map"]),
                "LP_XAI, mAP macro": mean_and_spread(ours),
                "LP_XAI, mAP micro": mean_and_spread(part["map_micro"]),
                "gain over no augmentation": signed(100 * (ours - baseline).mean()),
                "gain over w/o LP": signed(100 * (ours - scores(runs, PLAIN, LARGE)).mean()),
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def rare_classes(runs: pd.DataFrame, classes: tuple[str, ...], share: Sequence[float]) -> pd.DataFrame:
    """Average precision of each class in per cent, the rarest first, a column a method.

    share: how many of the training scenes hold each class.
    """
    columns = {}
    for method, part in runs.groupby("method", sort=False):
        precision = pd.DataFrame(part["average_precision"].tolist(), columns=classes, dtype=float)
        columns[METHOD_NAMES[method]] = [mean_and_spread(precision[c].dropna(), 1) for c in classes]
    frame = pd.DataFrame({"class": classes, "training scenes, %": [round(100 * s, 1) for s in share]} | columns)
    return frame.sort_values("training scenes, %", ignore_index=True)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
