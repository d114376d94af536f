"""What pre-training is worth after transfer, CromSS's Table 1 (Liu et al., arXiv 2405.01217): from runs.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rsbook import claims, cromss, figures, published
from rsbook.figures import ENCODER_NAMES, PROTOCOL_NAMES, Html, mean_and_spread

Theme = Mapping[str, str]
Modalities = Mapping[str, str]  # the published input ("S1", "S2") that each stands beside

COLOURS = {  # colour-blind-safe, as figures.METHOD_COLOURS
    "random": "#8a8f98",
    "single_modal": "#B8860B",
    "mid_fusion": "#D55E00",
    "late_fusion": "#C2619D",
    "cromss_mid": "#3C8FD9",
    "cromss_late": "#2A9BA8",
}
SCORES = ("oa", "aa", "miou")
SCORE_NAMES = {"oa": "OA", "aa": "AA", "miou": "mIoU"}
TABLE = "cromss/table_1"


def table_1(runs: pd.DataFrame, modalities: Modalities, protocol: str) -> pd.DataFrame:
    """Table 1 of the workshop paper for one protocol in per cent: ours, and the paper's for the input beside which each
    modality stands; encoders that only the paper has come with its numbers alone.

    runs: of `cromss.transfer`.
    """
    paper = published.table(TABLE).query("protocol == @protocol").set_index(["input", "encoder"])
    rows = []
    for modality, beside in modalities.items():
        theirs = paper.loc[beside]
        for encoder in [name for name in ENCODER_NAMES if name in theirs.index]:
            part = runs[(runs["modality"] == modality) & (runs["encoder"] == encoder) & (runs["protocol"] == protocol)]
            printed = theirs.loc[encoder]
            rows.append(
                {
                    "modality": f"{modality} (paper: {beside})",
                    "encoder": ENCODER_NAMES[encoder],
                    **{SCORE_NAMES[s]: mean_and_spread(part[s]) for s in SCORES},
                    "n": len(part),
                    **{f"paper: {SCORE_NAMES[s]}": _printed(printed[s], printed[f"{s}_sd"]) for s in SCORES},
                }
            )
    return pd.DataFrame(rows)


def class_table(runs: pd.DataFrame, classes: Sequence[str], modality: str, protocol: str) -> pd.DataFrame:
    """IoU of each class in per cent on the test scenes, a column an encoder, of one modality and protocol."""
    found = runs[(runs["modality"] == modality) & (runs["protocol"] == protocol)]
    columns = {}
    for encoder, part in found.groupby("encoder", sort=False):
        iou = pd.DataFrame(part["iou"].tolist(), columns=list(classes), dtype=float)
        columns[ENCODER_NAMES[encoder]] = [mean_and_spread(iou[c].dropna(), 1) for c in classes]
    return pd.DataFrame({"class": list(classes)} | columns)


def transfer_claims(runs: pd.DataFrame, modalities: Modalities, preset: str) -> pd.DataFrame:
    """The claims of Table 1: what selection, fusion and noisy labels are worth after transfer, in mean IoU."""
    names = {beside: modality for modality, beside in modalities.items()}
    first, second = names["S1"], names["S2"]

    def lead(encoder: str, over: str, beside: str, protocol: str) -> pd.Series:
        return _scores(runs, encoder, names[beside], protocol) - _scores(runs, over, names[beside], protocol)

    paper = published.table(TABLE).set_index(["input", "encoder", "protocol"])["miou"]

    def state(
        number: str, claim: str, compared: Mapping[str, tuple[str, str, str, str]], **more: Any
    ) -> dict[str, Any]:
        ours = {text: lead(*four) for text, four in compared.items()}
        theirs = {t: float(paper[beside, e, p] - paper[beside, o, p]) for t, (e, o, beside, p) in compared.items()}
        return claims.state(number, claim, ours, theirs, metric="miou", **more)

    weakest, printed = {}, {}
    for beside in ("S1", "S2"):
        for p in cromss.PROTOCOLS:
            text = f"{names[beside]}, {PROTOCOL_NAMES[p]}"
            scores = [_scores(runs, method, names[beside], p) for method in cromss.METHODS]
            lowest = pd.concat(scores, axis=1).min(axis=1, skipna=False)
            weakest[text] = lowest - _scores(runs, "random", names[beside], p)
            printed[text] = float(min(paper[beside, m, p] for m in cromss.METHODS) - paper[beside, "random", p])
    both = {PROTOCOL_NAMES[p]: p for p in cromss.PROTOCOLS}
    rows = [
        state(
            "1", f"CromSS-midF is above midF on {second}, frozen", {"": ("cromss_mid", "mid_fusion", "S2", "frozen")}
        ),
        state("2", f"The same, fine-tuned ({second})", {"": ("cromss_mid", "mid_fusion", "S2", "fine_tuned")}),
        state(
            "3",
            f"CromSS-lateF is above lateF on {second}, fine-tuned",
            {"": ("cromss_late", "late_fusion", "S2", "fine_tuned")},
        ),
        state(
            "4",
            f"On {first} selection changes little: CromSS-midF less midF is at most 1.5 points (mean ± standard error)",
            {t: ("cromss_mid", "mid_fusion", "S1", p) for t, p in both.items()},
            judge=claims.verdict_within(1.5),
        ),
        claims.state(
            "5",
            "Pre-training on noisy labels is above a random encoder: the weakest of the five methods",
            weakest,
            printed,
            metric="miou",
        ),
        state(
            "6",
            f"Fusion is above single-modal pre-training on {second} (midF)",
            {t: ("mid_fusion", "single_modal", "S2", p) for t, p in both.items()},
        ),
    ]
    return claims.collect(rows, preset)


def draw_transfer(runs: pd.DataFrame, modalities: Iterable[str]) -> Html:
    """Mean IoU after transfer, a panel a modality and protocol: a point a seed, a bar at the mean."""
    names = [name for name in COLOURS if name in set(runs["encoder"])]
    columns = ["modality", "protocol", "encoder", "seed"]
    frame = runs[columns].assign(**{score: (100 * runs[score]).round(4) for score in SCORES})

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=4.6, nrows=2, ncols=2, sharey=True, sharex="row", squeeze=False)
        for row, modality in zip(axes, modalities, strict=True):
            for ax, (protocol, title) in zip(row, PROTOCOL_NAMES.items(), strict=True):
                part = frame[(frame["modality"] == modality) & (frame["protocol"] == protocol)]
                for y, encoder in enumerate(names[::-1]):
                    values, colour = part[part["encoder"] == encoder]["miou"], COLOURS[encoder]
                    ax.plot([values.mean()] * 2, [y - 0.32, y + 0.32], color=colour, linewidth=2.5)
                    ax.scatter(values, [y] * len(values), s=16, color=colour, alpha=0.75, zorder=3)
                ax.set_title(f"{modality}, {title}")
                ax.set_yticks(range(len(names)), [ENCODER_NAMES[name] for name in names[::-1]])
                ax.grid(axis="x", color=theme["grid"], linewidth=0.8)
            for ax in row:
                ax.set_xlabel("mIoU, test, %")
        return figure

    return figures.show(
        draw,
        alt="Four panels, one for each modality and protocol: points for the mean IoU of every run by encoder, with a "
        "bar at each mean.",
        caption="Mean IoU on the test scenes after transfer: a point is a run, that is a seed; a bar is their mean.",
        data=frame,
        name="transfer",
    )


def _scores(runs: pd.DataFrame, encoder: str, modality: str, protocol: str, score: str = "miou") -> pd.Series:
    """A score by seed of the transfers of one encoder, modality and protocol."""
    found = runs[(runs["encoder"] == encoder) & (runs["modality"] == modality) & (runs["protocol"] == protocol)]
    return found.set_index("seed")[score]


def _printed(mean: float, spread: float) -> str:
    return f"{mean:.2f}\u00a0±\u00a0{spread:.2f}"
