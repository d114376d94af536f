"""What of a gain is learned: the controls that Patnala et al. (2024) lack, from runs.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from rsbook import claims, comparisons, figures
from rsbook.crops_findings import COLOURS, INPUT_NAMES, MODEL_NAMES, by_model, paired
from rsbook.figures import Html

Theme = Mapping[str, str]
Tasks = Mapping[int, pd.DataFrame]  # runs of `crops.classify` by the number of their task

SCALING_NAMES = {
    "deviation": "by the standard deviation (supervised)",
    "variance": "by the variance (released code)",
    "none": "reflectance",
}


def draw_over_random(tasks: Tasks) -> Html:
    """What each input is above the random frozen encoder, in points, by task and model: a point a seed."""
    rows = []
    for task, runs in tasks.items():
        scores = paired(runs)
        for name in [name for name in INPUT_NAMES if name in scores.columns and name != "random"]:
            less = 100 * (scores[name] - scores["random"]).groupby(["model", "seed"]).mean()
            rows += [{"task": task, "input": name, "model": m, "seed": s, "points": v} for (m, s), v in less.items()]
    frame = pd.DataFrame(rows)
    names = [name for name in INPUT_NAMES if name in set(frame["input"])]
    models = [name for name in MODEL_NAMES if name in set(frame["model"])]

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=3.4, ncols=len(tasks), squeeze=False, sharey=True)
        for ax, task in zip(axes[0], tasks, strict=True):
            for k, (name, marker) in enumerate(zip(names, "osDv", strict=False)):
                for x, model in enumerate(models):
                    chosen = (frame["task"] == task) & (frame["input"] == name) & (frame["model"] == model)
                    part = frame[chosen]["points"]
                    place = x + 0.22 * (k - (len(names) - 1) / 2)
                    label = INPUT_NAMES[name] if task == min(tasks) and not x else None
                    ax.scatter([place] * len(part), part, s=18, marker=marker, color=COLOURS[name], label=label)
                    ax.plot([place - 0.09, place + 0.09], [part.mean()] * 2, color=COLOURS[name], linewidth=2)
            ax.axhline(0, color=theme["ink"], linewidth=0.8)
            ax.set_xticks(range(len(models)), [MODEL_NAMES[m] for m in models], rotation=20, ha="right")
            ax.set_title(f"task {task}")
        axes[0][0].set_ylabel("above random frozen, points")
        figure.legend(loc="outside lower center", ncols=len(names))
        return figure

    return figures.show(
        draw,
        alt="A panel a task: for each model, points of how far supervised, uni-modal and bi-modal lie above or below "
        "the random frozen encoder.",
        caption="Accuracy above that with a random frozen encoder: a point is a seed, mean over configurations and "
        "rates of corruption; a bar is the mean. What a pre-trained encoder has above the line is learned.",
        data=frame.round(4),
        name="over_random",
    )


def learned_table(tasks: Tasks) -> pd.DataFrame:
    """What bi-modal pre-training is above others, and what corruption adds to it, in points by task: mean ± standard
    deviation over seeds, each the mean over models and configurations.
    """
    rows = []
    for task, runs in tasks.items():
        scores = paired(runs)
        corrupted = scores[scores.index.get_level_values("rate") > 0]
        names = ("random", "bands", "uni_modal")
        leads = {f"over {INPUT_NAMES[name]}": corrupted["bi_modal"] - corrupted[name] for name in names}
        row = {text: comparisons.points(lead.groupby("seed").mean()) for text, lead in leads.items()}
        bi = runs[runs["inputs"] == "bi_modal"]
        added = _by_seed(bi[bi["rate"] > 0]) - _by_seed(bi[bi["rate"] == 0])
        rows.append({"task": task, **row, "corruption over none": comparisons.points(added), "n": len(added)})
    return pd.DataFrame(rows)


def column_table(runs: pd.DataFrame, column: str, names: Mapping[str, str]) -> pd.DataFrame:
    """Accuracy in per cent by the values of a column, a row a value and a column a model."""
    rows = []
    for value, text in names.items():
        rows.append({column: text, **by_model(runs[runs[column] == value])})
    return pd.DataFrame(rows)


def variant_table(runs: pd.DataFrame, variants: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in per cent by pre-training and rate of corruption, those of the controls included."""
    everything = pd.concat([runs[runs["inputs"] != "bands"], variants], ignore_index=True)
    rates = everything["rate"].fillna(-1.0)
    keys = dict.fromkeys(zip(everything["inputs"], rates, strict=True))
    order = sorted(keys, key=lambda key: (list(INPUT_NAMES).index(key[0]), key[1]))
    rows = []
    for name, rate in order:
        part = everything[(everything["inputs"] == name) & (rates == rate)]
        corruption = "–" if rate < 0 else f"{100 * rate:.0f}\u00a0%"
        rows.append({"pre-training": INPUT_NAMES[name], "corruption": corruption, **by_model(part)})
    return pd.DataFrame(rows)


def draw_scarce(runs: pd.DataFrame) -> Html:
    """Accuracy by labelled pixels a class, a panel a model and a line an input: means, and a point a seed."""
    frame = runs[["model", "inputs", "train_pixels", "seed", "accuracy"]].assign(accuracy=100 * runs["accuracy"])
    models = list(dict.fromkeys(frame["model"]))
    names = [name for name in INPUT_NAMES if name in set(frame["inputs"])]

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=3.3, ncols=len(models), squeeze=False, sharey=True)
        for ax, model in zip(axes[0], models, strict=True):
            for name, marker in zip(names, "osDv^", strict=False):
                part = frame[(frame["model"] == model) & (frame["inputs"] == name)]
                mean = part.groupby("train_pixels")["accuracy"].mean()
                ax.plot(mean.index, mean, color=COLOURS[name], linewidth=1.6, label=INPUT_NAMES[name])
                ax.scatter(part["train_pixels"], part["accuracy"], s=14, marker=marker, color=COLOURS[name], alpha=0.7)
            ax.set_xscale("log")
            ticks = sorted(frame["train_pixels"].unique())
            ax.set_xticks(ticks, ticks, minor=False)
            ax.minorticks_off()
            ax.set(title=MODEL_NAMES[model], xlabel="labelled pixels a class")
        axes[0][0].set_ylabel("accuracy, %")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(names))
        return figure

    return figures.show(
        draw,
        alt="Accuracy rising with the number of labelled pixels, a line for each input.",
        caption="Accuracy on task 1 by the number of labelled pixels a class: a point is a seed, a line the mean.",
        data=frame.round(4),
        name="scarce",
    )


def tuned_table(scarce: pd.DataFrame, tuned: pd.DataFrame) -> pd.DataFrame:
    """Frozen encoders beside the same that learn along, at the number of labels that both have."""
    frozen = scarce[scarce["train_pixels"].isin(tuned["train_pixels"].unique())]
    both = pd.concat([frozen.assign(encoder="frozen"), tuned.assign(encoder="learns along")], ignore_index=True)
    rows = []
    for name in [name for name in INPUT_NAMES if name in set(both["inputs"])]:
        for encoder, part in both[both["inputs"] == name].groupby("encoder", sort=False):
            shown = "–" if name == "bands" else encoder
            rows.append({"input": INPUT_NAMES[name], "encoder": shown, **by_model(part)})
    return pd.DataFrame(rows)


def control_claims(
    tasks: Tasks, variants: pd.DataFrame, scarce: pd.DataFrame, tuned: pd.DataFrame, preset: str
) -> pd.DataFrame:
    """The claims about what is learned; a difference is the mean over models and configurations, one for each seed.

    variants: runs with uni-modal encoders as released, and with bi-modal ones without corruption.
    """
    released, clean = (variants[variants["inputs"] == name] for name in ("uni_modal_released", "bi_modal"))
    least, most = min(scarce["train_pixels"]), max(scarce["train_pixels"])
    first = tasks[min(tasks)]
    bi = first[first["inputs"] == "bi_modal"]
    same_rate = first[(first["inputs"] == "uni_modal") & first["rate"].isin(released["rate"].unique())]
    few, many = (_lead_over_bands(scarce[scarce["train_pixels"] == n]) for n in (least, most))
    frozen = scarce[scarce["train_pixels"].isin(tuned["train_pixels"].unique()) & (scarce["inputs"] == "bi_modal")]
    rows = [
        _state(
            "random_frozen",
            "Bi-modal pre-training is above a random frozen encoder",
            {f"task {k}": _over_random(runs) for k, runs in tasks.items()},
        ),
        _state(
            "released_uni",
            "Uni-modal pre-training as meant is above that with the error of the released code",
            {"": _by_seed(same_rate) - _by_seed(released)},
        ),
        _state(
            "scarce",
            f"Bi-modal gains more over the bands with {least} labelled pixels a class than with {most}",
            {"": few - many},
        ),
        _state(
            "end_to_end",
            "A pre-trained encoder that learns along is above the same frozen",
            {"": _by_seed(tuned[tuned["inputs"] == "bi_modal"]) - _by_seed(frozen)},
        ),
        claims.state(
            "corruption",
            "Bi-modal pre-training with corruption is above that without",
            {f"{100 * r:.0f} %": _by_seed(bi[bi["rate"] == r]) - _by_seed(clean) for r in sorted(bi["rate"].unique())},
            "said, without numbers",
            metric="accuracy",
        ),
    ]
    return claims.collect(rows, preset)


def _state(number: str, claim: str, differences: Mapping[str, pd.Series]) -> dict:
    return claims.state(number, claim, differences, "not in the paper", metric="accuracy")


def _by_seed(runs: pd.DataFrame) -> pd.Series:
    """Mean accuracy of all runs of a seed; of each model as many, so that none counts more."""
    return runs.groupby("seed")["accuracy"].mean()


def _lead_over_bands(runs: pd.DataFrame) -> pd.Series:
    return _by_seed(runs[runs["inputs"] == "bi_modal"]) - _by_seed(runs[runs["inputs"] == "bands"])


def _over_random(runs: pd.DataFrame) -> pd.Series:
    scores = paired(runs)
    return (scores["bi_modal"] - scores["random"]).groupby("seed").mean()
