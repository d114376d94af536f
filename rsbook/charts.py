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


def draw_table_v(runs: pd.DataFrame, area_range: Sequence[float] = (0.3, 0.7)) -> Html:
    """Table V of the paper as points: both metrics of every method, boxes of one range, in per cent."""
    found = runs[[r is None or list(r) == list(area_range) for r in runs["area_range"]]]
    metrics = list(METRIC_NAMES)
    frame = found[["method", "seed"]].assign(**{m: (100 * found[m]).round(4) for m in metrics})

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=3.6, ncols=2, sharey=True)
        methods = list(dict.fromkeys(frame["method"]))[::-1]
        for ax, metric in zip(axes, metrics, strict=True):
            for y, method in enumerate(methods):
                values, colour = frame[frame["method"] == method][metric], METHOD_COLOURS[method]
                ax.plot([values.mean()] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2.5)
                ax.scatter(values, [y] * len(values), s=16, color=colour, alpha=0.75, zorder=3)
            ax.set(xlabel=f"{METRIC_NAMES[metric]}, test, %")
            ax.grid(axis="y", visible=False)
            ax.grid(axis="x", color=theme["grid"], linewidth=0.8)
        axes[0].set_yticks(range(len(methods)), [METHOD_NAMES[m] for m in methods], fontsize=8.5)
        return figure

    return figures.show(
        draw,
        alt="Two panels of points, mAP macro and mAP micro, a row a method, with a bar at each mean.",
        caption="Test scores of every run by method: a point is a seed, a bar the mean.",
        data=frame,
        name="table_v_points",
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


def draw_noise_sweep(runs: pd.DataFrame, kinds: Sequence[str], metric: str = "map_macro") -> Html:
    """Figure 4 of the paper: the metric against the fraction of noisy maps, a panel a kind, a line an intensity.

    Beside them CutMix w/o LP, which class_swap trains again; a point is a seed.
    """
    frame = pd.concat([_sweep(runs, kind, metric) for kind in kinds], ignore_index=True)
    columns = min(len(kinds), 3)

    def draw(theme: Theme) -> Figure:
        rows = -(-len(kinds) // columns)
        size = {"width": 7.2, "height": 3.6 if rows == columns == 1 else 0.6 + 2.3 * rows}
        figure, axes = figures.axes(theme, **size, nrows=rows, ncols=columns, sharey=True, squeeze=False)
        for ax, kind in zip(axes.flat, kinds, strict=False):
            _draw_sweep(ax, frame[frame["kind"] == kind])
            ax.set(xlabel="noisy maps, %" if kind != "class_swap" else "swapped segments, %")
            if len(kinds) > 1:
                ax.set_title(kind.replace("_", " "))
                ax.legend(fontsize=7.5, loc="best")
        if len(kinds) == 1:
            figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8.5)
        for ax in axes[:, 0]:
            ax.set_ylabel(f"{METRIC_NAMES[metric]}, test, %")
        for ax in axes.flat[len(kinds) :]:
            ax.remove()
        return figure

    return figures.show(
        draw,
        alt=f"{METRIC_NAMES[metric]} against the share of noisy maps, one line for each intensity of the noise, beside "
        "the level of CutMix without label propagation.",
        caption=f"{METRIC_NAMES[metric]} of CutMix with LP_map against the share of noisy maps (blue: the darker, the "
        "stronger) and of CutMix w/o LP (orange). A point is a run, a line joins the means over seeds of the levels "
        "that were run.",
        data=frame,
        name=f"figure_4_{metric}",
    )


def draw_stage_one(runs: pd.DataFrame, chance: float) -> Html:
    """Figure 6 of the paper: mAP macro of the second network against that of the network that explained its masks.

    chance: what scores without any knowledge reach, in 0 … 1: the mean share of the scenes that hold a class.
    """
    masks = runs[runs["method"] == "cutmix_lp_xai"]
    frame = masks[["seed", "stage_one_epochs", "stage_one_map", "map_macro"]].copy()
    frame[["stage_one_map", "map_macro"]] = (100 * frame[["stage_one_map", "map_macro"]]).round(4)
    levels = {m: 100 * runs[runs["method"] == m]["map_macro"].mean() for m in ("none", "cutmix", "cutmix_lp_map")}
    levels = {method: level for method, level in levels.items() if pd.notna(level)}

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=3.8)
        for method, level in levels.items():
            ax.axhline(level, color=METHOD_COLOURS[method], linestyle="--", linewidth=1.2, label=METHOD_NAMES[method])
        colour = METHOD_COLOURS["cutmix_lp_xai"]
        ax.scatter(frame["stage_one_map"], frame["map_macro"], s=22, color=colour, zorder=3)
        mean = frame.groupby("stage_one_epochs")[["stage_one_map", "map_macro"]].mean().sort_values("stage_one_map")
        ax.plot(mean["stage_one_map"], mean["map_macro"], color=colour, label=METHOD_NAMES["cutmix_lp_xai"])
        ax.axvline(100 * chance, color=theme["muted"], linestyle=":", linewidth=1.2, label="stage one by chance")
        ax.set(xlabel="mAP macro of stage one, test, %", ylabel="mAP macro of stage two, test, %")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8.5)
        return figure

    return figures.show(
        draw,
        alt="Points for the score of the second network against the score of the first, with a line through their "
        "means, beside level lines of three methods.",
        caption="A point is a run: its masks come from a network of the score on the horizontal axis. The line joins "
        "the means over seeds; dashed: other methods.",
        data=frame,
        name="figure_6",
    )


def _sweep(runs: pd.DataFrame, kind: str, metric: str) -> pd.DataFrame:
    """Points of one panel: kind, method, intensity, fraction, seed and the metric in per cent; clean maps at zero."""
    methods = ("cutmix_lp_map", "cutmix")
    found = runs[runs["method"].isin(methods) & ((runs["noise"] == kind) | runs["noise"].isna())]
    columns = ["method", "noise_fraction", "noise_intensity", "seed"]
    values = (100 * found[metric]).round(4)
    return found[columns].assign(kind=kind, **{metric: values}).sort_values(columns)


def _draw_sweep(ax: Any, frame: pd.DataFrame) -> None:
    metric = frame.columns[-1]
    for method in ("cutmix_lp_map", "cutmix"):
        part, colour = frame[frame["method"] == method], METHOD_COLOURS[method]
        clean = part[part["noise_fraction"] == 0]
        noisy = part[part["noise_fraction"] > 0]
        if noisy.empty:
            ax.axhline(clean[metric].mean(), color=colour, linewidth=1.2, linestyle="--", label=METHOD_NAMES[method])
            continue
        intensities = sorted(noisy["noise_intensity"].dropna().unique()) or [None]
        for k, intensity in enumerate(intensities):
            level = noisy if intensity is None else noisy[noisy["noise_intensity"] == intensity]
            joined = pd.concat([clean, level])
            mean = joined.groupby("noise_fraction")[metric].mean()
            style = {"color": colour, "alpha": (k + 1) / len(intensities)}
            label = METHOD_NAMES[method] if intensity is None else f"LP_map, α = {intensity:g}"
            ax.plot(100 * mean.index, mean, linewidth=1.6, label=label, **style)
            ax.scatter(100 * joined["noise_fraction"], joined[metric], s=12, **style)


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
