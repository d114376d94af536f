"""Labels, training curves and scores of Part IV, drawn through `figures.show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from rsbook import figures, single_positive
from rsbook.figures import Html
from rsbook.scenes import Scenes
from rsbook.single_positive_findings import METHOD_NAMES, by_method
from rsbook.widgets.explorer import rgb

Theme = Mapping[str, str]

SETTING_COLOURS = {"random": "#3C8FD9", "dominant": "#D55E00"}
HIDDEN, ABSENT = "#D55E00", "#3C8FD9"  # as in the gradient explorer
COLOURS = {  # colour-blind-safe families: bound, AN and its kin, those that estimate, those that distrust, robust, ours
    **{"full": "#8a8f98", "an": "#6b6f76", "an_ls": "#6b6f76", "wan": "#6b6f76"},
    **dict.fromkeys(("epr", "role", "em", "em_apl"), "#B8860B"),
    **dict.fromkeys(("ll_r", "ll_ct", "ll_cp"), "#C2619D"),
    **dict.fromkeys(("gr", "hill", "asl"), "#2A9BA8"),
    **{"ml_elr": "#3C8FD9", "adagc": "#D55E00"},
}
NAMED_COLOURS = {METHOD_NAMES[name]: colour for name, colour in COLOURS.items()}


def draw_labels(data: Scenes, index: Sequence[int], observed: Mapping[str, Tensor]) -> Html:
    """Scenes with all their classes, and which of them is known in each setting; observed (n,L) of the scenes."""
    pixels = rgb(data, index).numpy()
    rows = [
        {
            "scene": scene,
            "classes": "; ".join(_names(data, data.labels[scene])),
            **{name: "; ".join(_names(data, one[k])) for name, one in observed.items()},
        }
        for k, scene in enumerate(index)
    ]

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, 1.45 * len(index), 2.9, ncols=len(index), squeeze=False)
        for ax, image, row, scene in zip(axes[0], pixels, rows, index, strict=True):
            ax.imshow(image)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            names = _names(data, data.labels[scene])
            marks = ["".join(name[0].upper() for name in observed if row[name] == label) for label in names]
            text = [f"{label} ({', '.join(mark)})" if mark else label for label, mark in zip(names, marks, strict=True)]
            ax.set_xlabel("\n".join(text), fontsize=7.5)
        return figure

    letters = ", ".join(f"{name[0].upper()}: known with {name} positives" for name in observed)
    return figures.show(
        draw,
        alt=f"{len(index)} satellite scenes in a row, each above its classes; letters mark those that are known.",
        caption=f"All classes of each scene. {letters}. What has no letter is hidden in both settings.",
        data=pd.DataFrame(rows),
        name="labels",
        vector=False,
    )


def draw_rates(labels: Tensor, observed: Mapping[str, Tensor], classes: Sequence[str]) -> Html:
    """The false-negative rate of each class in each setting, beside the share of scenes that hold it."""
    frame = pd.DataFrame({"class": list(classes), "holds it": labels.float().mean(dim=0).tolist()})
    for name, one in observed.items():
        frame[name] = single_positive.false_negative_rate(labels, one).tolist()

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=0.9 + 0.36 * len(classes))
        for (name, colour), marker in zip(SETTING_COLOURS.items(), "os", strict=True):
            if name in frame:
                ax.scatter(100 * frame[name], range(len(frame)), color=colour, marker=marker, label=name, zorder=3)
        ax.scatter(100 * frame["holds it"], range(len(frame)), color=theme["muted"], marker="|", s=80, label="holds it")
        ax.set_yticks(range(len(frame)), frame["class"])
        ax.invert_yaxis()
        ax.grid(axis="x", color=theme["grid"], linewidth=0.8)
        ax.set(xlabel="per cent", xlim=(0, 100))
        figure.legend(loc="outside lower center", ncols=3)
        return figure

    return figures.show(
        draw,
        alt="A row a class: how often it is hidden with random and with dominant positives, from 0 to 100 per cent.",
        caption="False-negative rate: of the training scenes that hold a class, the share that does not say so. "
        "The grey bar is the share of scenes that hold it.",
        data=frame.round(4),
        name="false_negative_rates",
    )


def draw_learning(runs: pd.DataFrame) -> Html:
    """Mean scores of hidden positives and of true absences on the training scenes by epoch, a panel a method, with the
    epoch after which calibration begins.
    """
    frame = _histories(runs, ("score_hidden", "score_absent", "begun"))
    names = [name for name in METHOD_NAMES if name in set(frame["method"])]

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=3.2, ncols=len(names), sharey=True, squeeze=False)
        for ax, name in zip(axes[0], names, strict=True):
            part = frame[frame["method"] == name]
            for column, colour, label in (
                ("score_hidden", HIDDEN, "hidden positives"),
                ("score_absent", ABSENT, "true absences"),
            ):
                for _, one in part.groupby("seed"):
                    ax.plot(one["epoch"], one[column], color=colour, linewidth=0.8, alpha=0.5)
                ax.plot(part.groupby("epoch")[column].mean(), color=colour, linewidth=2, label=label)
            _mark_begin(ax, part, theme)
            ax.set(title=METHOD_NAMES[name], xlabel="epoch")
        axes[0][0].set_ylabel("mean score")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure

    return figures.show(
        draw,
        alt="Curves by epoch, a panel a method: mean scores of hidden positives and of true absences.",
        caption="Mean score of unobserved classes of the training scenes, by whether they are there: thin lines are "
        "seeds, thick ones their mean, dotted ones where calibration begins. Of AdaGC it is the teacher's score. "
        "No method knows which is which.",
        data=frame.round(4),
        name="learning",
    )


def draw_trigger(runs: pd.DataFrame) -> Html:
    """What the trigger sees of each seed by epoch: the teacher's mAP against what is observed, and its mean score of
    what is not.
    """
    frame = _histories(runs[runs["method"] == "adagc"], ("precision", "unobserved", "begun"))

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=3.0, ncols=2)
        for ax, column, label in (
            (axes[0], "precision", "mAP against what is observed"),
            (axes[1], "unobserved", "mean score of what is not"),
        ):
            for seed, one in frame.groupby("seed"):
                ax.plot(one["epoch"], one[column], marker="o", markersize=3, label=f"seed {seed}")
            _mark_begin(ax, frame, theme)
            ax.set(xlabel="epoch", ylabel=label)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return figure

    return figures.show(
        draw,
        alt="Two panels with a curve a seed: what the trigger of AdaGC sees by epoch, with the epoch where it fires.",
        caption="What the trigger sees, on the training scenes, by the teacher's last score of each. Dotted: "
        "calibration begins after this epoch.",
        data=frame.round(4),
        name="trigger",
    )


def draw_benchmark(runs: pd.DataFrame, metric: str = "map_macro", label: str = "mAP macro on the test scenes") -> Html:
    """A row a method, a point a seed and a bar for the mean; AN is the dashed line, the upper bound the solid one."""
    scores = 100 * by_method(runs, metric)
    names = [name for name in scores if name != "full"]

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=0.9 + 0.28 * len(names))
        for y, name in enumerate(names):
            ax.scatter(scores[name], [y] * len(scores), s=16, color=COLOURS[name], alpha=0.7, zorder=3)
            ax.scatter(scores[name].mean(), y, marker="|", s=160, linewidth=2.5, color=COLOURS[name], zorder=4)
        ax.axvline(scores["an"].mean(), color=theme["muted"], linestyle="--", linewidth=1)
        if "full" in scores:
            ax.axvline(scores["full"].mean(), color=theme["muted"], linewidth=1)
        ax.set_yticks(range(len(names)), [METHOD_NAMES[name] for name in names])
        ax.invert_yaxis()
        ax.grid(axis="x", color=theme["grid"], linewidth=0.8)
        ax.set_xlabel(f"{label}, %")
        return figure

    return figures.show(
        draw,
        alt=f"A row a method: {label} of each seed and their mean, beside a line for AN and one for all labels.",
        caption=f"{label}, against all labels: a point a seed, a bar their mean. Dashed: AN; solid: all labels known.",
        data=scores.reset_index().round(3),
        name=f"benchmark_{metric}",
    )


def _mark_begin(ax: Axes, frame: pd.DataFrame, theme: Theme) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for begun in frame["begun"].dropna().unique():
        if begun >= 0:
            ax.axvline(begun, color=theme["ink"], linestyle=":", linewidth=1)


def _histories(runs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of all histories with method and seed; `begun` is that of a run's end."""
    rows = []
    for run in runs.to_dict("records"):
        end = run["history"][-1].get("begun", -1)
        for row in run["history"]:
            shown = {name: row.get(name) for name in columns} | {"begun": end}
            rows.append({"method": run["method"], "seed": run["seed"], "epoch": row["epoch"], **shown})
    return pd.DataFrame(rows)


def _names(data: Scenes, label: Tensor) -> list[str]:
    return [data.classes[c] for c in label.nonzero()[:, 0].tolist()]
