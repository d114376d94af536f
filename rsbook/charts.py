"""What came out, drawn: scores, learning curves and class scores of runs, each through `figures.show`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rsbook import figures
from rsbook.figures import METHOD_COLOURS, METHOD_NAMES, Html, listed

Theme = Mapping[str, str]
METRIC_NAMES = {"map_macro": "mAP macro", "map_micro": "mAP micro"}


def draw_scores(runs: pd.DataFrame, metric: str = "map_macro") -> Html:
    """The metric of every run by method and area range, in per cent: a point a seed, a bar at the mean."""
    frame = runs[["method", "area_range", "seed"]].assign(**{metric: (100 * runs[metric]).round(4)})
    baseline = frame[frame["method"] == "none"][metric]
    others = frame[frame["method"] != "none"]
    others = others.assign(area_range=[_range_text(r) for r in others["area_range"]])

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=3.8)
        if not baseline.empty:
            style = {"color": METHOD_COLOURS["none"], "linewidth": 1.2, "linestyle": "--"}
            ax.axhline(baseline.mean(), label=METHOD_NAMES["none"], **style)
        _draw_groups(ax, others, "area_range", metric)
        ax.set(xlabel="box area, share of the image", ylabel=f"{METRIC_NAMES[metric]}, test, %")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8.5)
        return figure

    return figures.show(
        draw,
        alt=f"Points for the {METRIC_NAMES[metric]} of every run, in groups by area range, coloured by method, with a "
        "bar at each mean.",
        caption=f"{METRIC_NAMES[metric]} on the test scenes: a point is a run, that is a seed; a bar is their mean.",
        data=frame,
        name=metric,
    )


def draw_learning_curves(runs: pd.DataFrame) -> Html:
    """Validation mAP macro and training loss by epoch, a line a method: mean and extremes over seeds."""
    curves = pd.concat(
        pd.DataFrame(row["history"])[["epoch", "loss", "map_macro"]].assign(method=row["method"], seed=row["seed"])
        for _, row in runs.iterrows()
    )

    def draw(theme: Theme) -> Figure:
        figure, (left, right) = figures.axes(theme, height=3.3, ncols=2)
        for method, part in curves.groupby("method", sort=False):
            for ax, column, scale in ((left, "map_macro", 100), (right, "loss", 1)):
                by_epoch = scale * part.groupby("epoch")[column].agg(["mean", "min", "max"])
                ax.fill_between(
                    by_epoch.index,
                    by_epoch["min"],
                    by_epoch["max"],
                    color=METHOD_COLOURS[method],
                    alpha=0.2,
                    linewidth=0,
                )
                ax.plot(
                    by_epoch.index,
                    by_epoch["mean"],
                    color=METHOD_COLOURS[method],
                    label=METHOD_NAMES[method],
                    linewidth=1.6,
                )
        left.set(xlabel="epoch", ylabel="mAP macro, validation, %")
        right.set(xlabel="epoch", ylabel="training loss")
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8.5)
        return figure

    return figures.show(
        draw,
        alt="Two panels of lines by epoch, one line a method: validation mAP macro, and training loss.",
        caption=f"Learning curves{_boxes_of(runs)}: the mean over seeds, and the band between lowest and highest "
        "seed. Losses of different methods are not comparable: their targets differ.",
        data=curves,
        name="learning_curves",
    )


def draw_class_scores(runs: pd.DataFrame, classes: Sequence[str]) -> Html:
    """Average precision of each class in per cent by method: a point a seed, a bar at the mean."""
    precision = "average_precision"
    frame = pd.DataFrame(
        {"method": row["method"], "seed": row["seed"], "class": name, precision: None if ap is None else 100 * ap}
        for _, row in runs.iterrows()
        for name, ap in zip(classes, row[precision], strict=True)
    ).round(4)

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=3.9)
        _draw_groups(ax, frame, "class", precision)
        ax.set_ylabel("average precision, test, %")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8.5)
        return figure

    return figures.show(
        draw,
        alt="Points for the average precision of each class, one a seed, coloured by method, with a bar at each mean.",
        caption=f"Average precision of each class on the test scenes{_boxes_of(runs)}: a point is a run, a bar "
        f"the mean over seeds. {_absent(frame[frame[precision].isna()]['class'])}",
        data=frame,
        name="class_scores",
    )


def _draw_groups(ax: Any, frame: pd.DataFrame, group: str, value: str) -> None:
    """Points and a bar at their mean for each method, side by side in each group."""
    groups, methods = list(dict.fromkeys(frame[group])), list(dict.fromkeys(frame["method"]))
    width = 0.8 / max(len(methods), 1)
    for k, method in enumerate(methods):
        style = {"color": METHOD_COLOURS[method], "label": METHOD_NAMES[method]}
        for i, name in enumerate(groups):
            values = frame[(frame["method"] == method) & (frame[group] == name)][value].dropna()
            at = i + width * (k - (len(methods) - 1) / 2)
            ax.plot([at - width / 3, at + width / 3], [values.mean()] * 2, linewidth=2.5, **style)
            ax.scatter([at] * len(values), values, s=16, color=style["color"], alpha=0.75, zorder=3)
            style.pop("label", None)  # one entry a method in the legend
    ax.set_xticks(range(len(groups)), ["\n".join(name.split()) for name in groups], fontsize=8)


def _boxes_of(runs: pd.DataFrame) -> str:
    ranges = dict.fromkeys(_range_text(r) for r in runs["area_range"] if r is not None)
    return f", boxes of {listed(list(ranges))}" if ranges else ""


def _absent(classes: Iterable[str]) -> str:
    names = list(dict.fromkeys(classes))
    return f"No test scene holds {listed(names)}: left out of mAP macro." if names else ""


def _range_text(area_range: Sequence[float]) -> str:
    return f"{area_range[0]}–{area_range[1]}"
