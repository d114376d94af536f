"""What pre-training is worth to classifiers of series (Patnala et al., 2024, Figures 6 to 8 and Table 1): from runs.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rsbook import claims, figures, published
from rsbook.figures import Html, mean_and_spread

Theme = Mapping[str, str]

MODEL_NAMES = {"lstm": "Bi-LSTM", "inception_time": "InceptionTime", "transformer": "Transformer"}
COLOURS = {  # colour-blind-safe, as figures.METHOD_COLOURS
    "bands": "#8a8f98",
    "random": "#B8860B",
    "uni_modal": "#D55E00",
    "bi_modal": "#3C8FD9",
    "uni_modal_released": "#A05A2C",
}
INPUT_NAMES = {
    "bands": "supervised",
    "random": "random encoder",
    "uni_modal": "uni-modal",
    "bi_modal": "bi-modal",
    "uni_modal_released": "uni-modal, in place",
}
PAPER = ("bands", "uni_modal", "bi_modal")  # what the paper compares
PAIRED = ["model", "configuration", "seed", "rate"]  # what two scores must share to be compared
MEASURE = "points of accuracy"


def paired(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of runs of `crops.classify` that belong together: a row a model, configuration, seed and rate of
    corruption, a column each of the inputs. What knows no corruption stands beside every rate, as in the paper.
    """
    frame = runs.assign(configuration=[json.dumps(one, sort_keys=True) for one in runs["configuration"]])
    rates = frame["rate"].dropna().unique()
    everywhere = frame[frame["rate"].isna()].drop(columns="rate").merge(pd.DataFrame({"rate": rates}), how="cross")
    frame = pd.concat([frame[frame["rate"].notna()], everywhere], ignore_index=True)
    return frame.pivot(index=PAIRED, columns="inputs", values="accuracy")


def win_matrix(scores: pd.DataFrame, methods: Sequence[str] = PAPER) -> pd.DataFrame:
    """Eq. 2: how large a share of the paired scores (a row of `paired` each) a method, the row, is above another."""
    matrix = pd.DataFrame(index=list(methods), columns=list(methods), dtype=float)
    for a in methods:
        for b in methods:
            if a != b:
                both = scores[[a, b]].dropna()
                matrix.loc[a, b] = (both[a] > both[b]).mean() if len(both) else np.nan
    return matrix


def models_of(scores: pd.DataFrame) -> list[str]:
    """The models of `paired` scores, in the paper's order."""
    return [model for model in MODEL_NAMES if model in scores.index.unique("model")]


def gains(scores: pd.DataFrame, per_cent: bool = False) -> pd.DataFrame:
    """By how much each input of `paired` is above the bands alone: in points, or relatively, in per cent of them."""
    less = 100 * scores.drop(columns="bands").sub(scores["bands"], axis=0)
    return less.div(scores["bands"], axis=0) if per_cent else less


def table_1(runs: pd.DataFrame, task: int) -> pd.DataFrame:
    """Table 1 for one task, ours beside the paper's: accuracy in per cent, and by how much each pre-training is above
    the bands alone, mean (least, most) in points, and in per cent of them.
    """
    scores, theirs = paired(runs), published.table("crops/table_1").query("task == @task").set_index("model")
    rows = []
    for model in models_of(scores):
        part, printed = scores.loc[[model]], theirs.loc[model]
        points, relative = gains(part), gains(part, per_cent=True)
        for name in PAPER:
            found = runs[(runs["model"] == model) & (runs["inputs"] == name)]["accuracy"]
            row = {"model": MODEL_NAMES[model], "input": INPUT_NAMES[name], "accuracy": mean_and_spread(found)}
            if name == "bands":
                row["paper: accuracy"] = f"{printed['supervised']:.2f}\u00a0±\u00a0{printed['supervised_sd']:.2f}"
            else:
                columns = [f"{name.removesuffix('_modal')}_gain{end}" for end in ("", "_min", "_max")]
                row |= {"gain": _spanned(points[name]), "paper: gain": _range(*printed[columns])}
                row["gain, %"] = f"{relative[name].mean():+.1f}".replace("-", "−")
            rows.append(row)
    columns = ["model", "input", "accuracy", "paper: accuracy", "gain", "paper: gain", "gain, %"]
    return pd.DataFrame(rows, columns=columns)


def win_table(runs: pd.DataFrame, task: int) -> pd.DataFrame:
    """How often bi-modal pre-training wins, ours beside the paper's: wins of pairs, by model."""
    scores = paired(runs)
    theirs = published.table("crops/wins").query("task == @task").set_index(["model", "a", "b"])
    rows = []
    for model in models_of(scores):
        row = {"model": MODEL_NAMES[model]}
        for b, name, text in (("bands", "supervised", "supervised"), ("uni_modal", "uni_modal", "uni-modal")):
            both = scores.loc[[model], ["bi_modal", b]].dropna()
            printed = theirs.loc[(model, "bi_modal", name)]
            row[f"over {text}"] = f"{int((both['bi_modal'] > both[b]).sum())} of {len(both)}"
            row[f"paper: over {text}"] = f"{printed['wins']} of {printed['of']}"
        rows.append(row)
    return pd.DataFrame(rows)


def input_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in per cent of each input, a row an input and a column a model, of n runs each."""
    rows = []
    for name in [name for name in INPUT_NAMES if name in set(runs["inputs"])]:
        rows.append({"input": INPUT_NAMES[name], **by_model(runs[runs["inputs"] == name])})
    return pd.DataFrame(rows)


def by_model(runs: pd.DataFrame) -> dict[str, str | int]:
    """Accuracy of runs in per cent by model, in the paper's order, and how many runs there are of each."""
    models = [model for model in MODEL_NAMES if model in set(runs["model"])]
    accuracy = {MODEL_NAMES[m]: mean_and_spread(runs[runs["model"] == m]["accuracy"]) for m in models}
    return accuracy | {"n": len(runs) // max(1, len(models))}


def draw_wins(runs: pd.DataFrame, methods: Sequence[str] = PAPER) -> Html:
    """Win matrices, one a model: the share of paired scores in which the row is above the column."""
    scores = paired(runs)
    models = models_of(scores)
    found = {model: win_matrix(scores.loc[[model]], methods) for model in models}
    frame = pd.concat({MODEL_NAMES[m]: matrix for m, matrix in found.items()}, names=["model", "above"]).reset_index()

    def draw(theme: Theme) -> Figure:
        names = [INPUT_NAMES[name] for name in methods]
        width, height = 1.0 + 2.2 * len(models), 1.0 + 0.62 * len(methods)
        figure, axes = figures.axes(theme, width, height, ncols=len(models), squeeze=False, sharey=True)
        for ax, model in zip(axes[0], models, strict=True):
            ax.imshow(found[model], cmap="RdYlBu", vmin=0, vmax=1)
            ax.grid(False)
            for y, x in np.argwhere(found[model].notna().to_numpy()):
                share = found[model].iloc[y, x]
                ink = "#ffffff" if abs(share - 0.5) > 0.37 else "#1f2328"
                ax.text(x, y, f"{100 * share:.0f}", ha="center", va="center", color=ink)
            ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
            ax.set_yticks(range(len(names)), names)
            ax.set_title(MODEL_NAMES[model])
        return figure

    count = min(len(part) for _, part in scores.groupby("model"))
    return figures.show(
        draw,
        alt="One matrix a model: how often, in per cent, the input of the row beats that of the column.",
        caption=f"Win matrices (eq. 2): in how many per cent of {count} paired scores the row is above the column. A "
        "pair has the same configuration, rate of corruption and seed.",
        data=frame.round(4),
        name="wins",
    )


def draw_gains(runs: pd.DataFrame, task: int) -> Html:
    """Box plots of the gains over the bands alone, in points, a panel a model; the paper's mean and range beside."""
    points = gains(paired(runs))
    names = [name for name in INPUT_NAMES if name in points.columns]
    models = models_of(points)
    theirs = published.table("crops/table_1").query("task == @task").set_index("model")

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=3.6, ncols=len(models), squeeze=False, sharey=True)
        for ax, model in zip(axes[0], models, strict=True):
            for x, name in enumerate(names):
                values, colour = points.loc[[model], name].dropna(), COLOURS[name]
                ink = {"color": colour, "linewidth": 1.5}
                ax.boxplot(
                    values, positions=[x], widths=0.5, whis=(0, 100), medianprops=ink, boxprops=ink, whiskerprops=ink,
                    capprops=ink,
                )  # fmt: skip
                ax.scatter([x] * len(values), values, s=10, color=colour, alpha=0.6, zorder=3)
                if (short := name.removesuffix("_modal")) in ("uni", "bi"):
                    mean, least, most = theirs.loc[model, [f"{short}_gain", f"{short}_gain_min", f"{short}_gain_max"]]
                    ax.plot([x + 0.4] * 2, [least, most], color=theme["muted"], linewidth=1)
                    ax.scatter([x + 0.4], [mean], marker="D", s=22, color=theme["muted"], zorder=4)
            ax.axhline(0, color=theme["ink"], linewidth=0.8)
            ax.grid(axis="y", color=theme["grid"], linewidth=0.8)
            ax.set_xticks(range(len(names)), [INPUT_NAMES[name] for name in names], rotation=30, ha="right")
            ax.set_xlim(-0.6, len(names) - 0.2)
            ax.set_title(MODEL_NAMES[model])
        axes[0][0].set_ylabel("gain over supervised, points")
        return figure

    return figures.show(
        draw,
        alt="A panel a model: boxes of what each pre-training gains over the supervised baseline, with a point a run.",
        caption="What pre-training adds to the accuracy of the same model on the bands: a point is a configuration, "
        "rate of corruption and seed; boxes hold the middle half, whiskers all. Grey diamonds and lines: mean and "
        "range that the paper prints, of other data.",
        data=points.reset_index().round(4),
        name="gains",
    )


def draw_recall(runs: pd.DataFrame, classes: Sequence[str]) -> Html:
    """Recall of each class, a point an input: the mean over models, configurations, rates and seeds."""
    names = [name for name in INPUT_NAMES if name in set(runs["inputs"])]
    recalls = pd.DataFrame(runs["recall"].tolist(), columns=list(classes), dtype=float)
    frame = 100 * recalls.groupby(runs["inputs"].to_numpy()).mean().loc[names]

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=0.9 + 0.3 * len(classes))
        for name, marker in zip(names, "osDv^", strict=False):
            ax.scatter(
                frame.loc[name], range(len(classes)), color=COLOURS[name], marker=marker, label=INPUT_NAMES[name]
            )
        ax.set_yticks(range(len(classes)), classes)
        ax.invert_yaxis()
        ax.grid(axis="x", color=theme["grid"], linewidth=0.8)
        ax.set(xlabel="recall, %", xlim=(0, 100))
        figure.legend(loc="outside lower center", ncols=len(names))
        return figure

    return figures.show(
        draw,
        alt="Recall by crop, a row a crop and a mark an input, on a scale from 0 to 100 per cent.",
        caption="Recall of each crop: the share of its validation pixels that go by its name, mean over all runs.",
        data=frame.round(3).reset_index(names="inputs"),
        name="recall",
    )


def explorable(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with configurations in words, and without what no one filters by."""
    hidden = ["configuration", "confusion", "history", "mean", "std", "weights", "dataset"]
    words = [
        ", ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in one.items())
        for one in runs["configuration"]
    ]
    return runs.drop(columns=hidden).assign(settings=words).reset_index(drop=True)


def task_claims(runs: pd.DataFrame, task: int, preset: str) -> pd.DataFrame:
    """The claims of one task: bi-modal over uni-modal and over the bands alone, and the paper's exceptions.

    A difference is the mean over configurations and rates of corruption, one for each seed.
    """
    scores = paired(runs)
    theirs = published.table("crops/table_1").query("task == @task").set_index("model")
    models = models_of(scores)

    def lead(a: str, b: str, chosen: Sequence[str]) -> dict[str, pd.Series]:
        return {MODEL_NAMES[m]: _by_seed(scores.loc[[m]], a, b) for m in chosen}

    over_uni = {MODEL_NAMES[m]: float(theirs.loc[m, "bi_gain"] - theirs.loc[m, "uni_gain"]) for m in models}
    over_bands = {MODEL_NAMES[m]: float(theirs.loc[m, "bi_gain"]) for m in models}
    exception = {2: "transformer", 3: "inception_time"}.get(task)
    gaining = [m for m in models if m != exception]
    rows = [
        claims.state(
            f"bi_uni_{task}",
            "Bi-modal pre-training is above uni-modal",
            lead("bi_modal", "uni_modal", models),
            over_uni,
            metric="accuracy",
        ),
        claims.state(
            f"bi_supervised_{task}",
            "Bi-modal pre-training is above the bands alone",
            lead("bi_modal", "bands", gaining),
            {MODEL_NAMES[m]: over_bands[MODEL_NAMES[m]] for m in gaining},
            metric="accuracy",
        ),
    ]
    if exception in models:
        name = MODEL_NAMES[exception]
        rows.append(
            claims.state(
                {2: "transformer_2", 3: "inception_3"}[task],
                f"{name} is the exception: it gains next to nothing, at most 1 point (mean ± standard error)",
                lead("bi_modal", "bands", [exception]),
                {name: over_bands[name]},
                judge=claims.verdict_within(1.0),
                metric="accuracy",
            )
        )
    return claims.collect(rows, preset)


def _by_seed(scores: pd.DataFrame, a: str, b: str) -> pd.Series:
    """The mean difference of two inputs over configurations and rates, one for each seed."""
    return (scores[a] - scores[b]).groupby("seed").mean()


def _spanned(values: pd.Series) -> str:
    return _range(values.mean(), values.min(), values.max())


def _range(mean: float, least: float, most: float) -> str:
    return f"{mean:+.2f} ({least:+.2f}, {most:+.2f})".replace("-", "−")
