"""What is wrong in noisy maps, how well selection masks find it, and what that is worth: CromSS (Liu et al., arXiv
2405.01217), from runs and from maps.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from rsbook import claims, figures, metrics
from rsbook.comparisons import level_text, points
from rsbook.cromss_findings import COLOURS
from rsbook.figures import ENCODER_NAMES, Html, mean_and_spread

Theme = Mapping[str, str]

KINDS = {  # of map noise, with a marker each, as six colours and their overlaps are hard to tell apart
    "mask_shift": ("#3C8FD9", "o"),
    "dilation_erosion": ("#D55E00", "s"),
    "rectify_borders": ("#009E73", "^"),
    "border_deformation": ("#C2619D", "v"),
    "segment_swap": ("#B8860B", "D"),
    "class_swap": ("#7A6FD0", "P"),
}
QUALITY = ("auroc", "auroc_confidence", "auroc_alone", "precision", "recall")  # of `selection.quality`


def map_errors(clean: Tensor, noisy: Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """What noise has made of maps (n,H,W), in per cent: a row a class, and all of them.

    Share of all pixels in the clean maps and in the noisy ones; of the class's pixels, those that keep it; of the
    pixels that the noisy map gives to the class, those that belong to it; and where most of the others went. What has
    no pixels to be a share of is missing.
    """
    confusion = metrics.confusion_matrix(noisy, clean, len(classes)).double()
    true, named, right = confusion.sum(dim=1), confusion.sum(dim=0), confusion.diagonal()
    elsewhere = confusion.clone().fill_diagonal_(0)
    shares = {
        "share, clean": true / true.sum(),
        "share, noisy": named / named.sum(),
        "kept": right / true,
        "right where named": right / named,
    }
    frame = pd.DataFrame({"class": list(classes)} | {k: (100 * v).numpy().round(1) for k, v in shares.items()})
    lost = [classes[int(to)] if row.sum() else None for row, to in zip(elsewhere, elsewhere.argmax(dim=1), strict=True)]
    frame["most lost to"] = lost
    right_of_all = round(100 * (right.sum() / true.sum()).item(), 1)
    frame.loc[len(frame)] = ["all", 100.0, 100.0, right_of_all, right_of_all, None]
    return frame


def noise_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Pre-trainings with one kind of map noise each in long form: a row a run and modality.

    Columns: kind, level (in words), fraction, wrong (share of the training pixels), method, seed, modality, miou and oa
    against clean test maps, and what `selection.quality` found after the last epoch, NaN where it found nothing.
    """
    rows = []
    for run in runs.to_dict("records"):
        [[kind, fraction, intensity]] = run["noise"]
        for name, quality in zip(run["modalities"], run["history"][-1]["quality"], strict=True):
            rows.append(
                {
                    "kind": kind,
                    "level": level_text((fraction, intensity)),
                    "fraction": fraction,
                    "wrong": run["wrong"],
                    "method": run["method"],
                    "seed": run["seed"],
                    "modality": name,
                    **{score: run["test"][name][score] for score in ("miou", "oa")},
                    **quality,
                }
            )
    return pd.DataFrame(rows).astype(dict.fromkeys(QUALITY, float))


def noise_leads(frame: pd.DataFrame) -> pd.DataFrame:
    """By how much CromSS-midF is above midF, mean IoU of both modalities: a row a kind, level and seed.

    frame: of `noise_frame`. Columns: kind, level, fraction, seed, wrong, lead (fraction of 1).
    """
    keys = ["kind", "level", "fraction", "seed"]
    score = frame.groupby([*keys, "method"], sort=False)["miou"].mean().unstack("method")
    wrong = frame.groupby(keys, sort=False)["wrong"].first()
    return pd.DataFrame({"wrong": wrong, "lead": score["cromss_mid"] - score["mid_fusion"]}).reset_index()


def noise_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What selection is worth and what its masks find, a row a kind and level of map noise; per cent and points.

    frame: of `noise_frame`. Both modalities are averaged; masks are those of CromSS-midF after the last epoch.
    """
    leads, rows = noise_leads(frame), []
    for (kind, level), part in frame.groupby(["kind", "level"], sort=False):
        own, mean = leads[(leads["kind"] == kind) & (leads["level"] == level)], {}
        for method, group in part.groupby("method", sort=False):
            mean[method] = group.groupby("seed")[["miou", "auroc", "precision", "recall"]].mean()
        masks = mean["cromss_mid"]
        rows.append(
            {
                "noise": f"{kind.replace('_', ' ')}, {level}",
                "wrong pixels": f"{100 * own['wrong'].mean():.1f}",
                "midF, mIoU": mean_and_spread(mean["mid_fusion"]["miou"]),
                "CromSS-midF, mIoU": mean_and_spread(masks["miou"]),
                "lead": points(own["lead"]),
                "AUROC": _found(masks["auroc"]),
                "precision": _found(masks["precision"]),
                "recall": _found(masks["recall"]),
                "n": len(own),
            }
        )
    return pd.DataFrame(rows)


def noise_claims(frame: pd.DataFrame, preset: str) -> pd.DataFrame:
    """What the paper leaves to later work: where selection helps, and whether its masks find wrong pixels.

    frame: of `noise_frame`. The paper prints nothing on it. A seed without a wrong pixel says nothing about masks, and
    a kind of noise at a single rate nothing about higher ones.
    """
    leads, masks = noise_leads(frame), frame[frame["method"] == "cromss_mid"]
    strongest = leads.groupby("kind", sort=False)["fraction"].transform("max") == leads["fraction"]
    weakest = leads.groupby("kind", sort=False)["fraction"].transform("min") == leads["fraction"]
    words = {kind: kind.replace("_", " ") for kind in dict.fromkeys(frame["kind"])}
    several = {words[kind] for kind, rates in leads.groupby("kind")["fraction"] if rates.nunique() > 1}

    def by_seed(part: pd.DataFrame, column: str) -> dict[str, pd.Series]:
        return {word: part[part["kind"] == kind].groupby("seed")[column].mean() for kind, word in words.items()}

    most = masks[masks.groupby("kind")["fraction"].transform("max") == masks["fraction"]].dropna(subset="auroc")
    found = most.assign(above=most["auroc"] - 0.5, gained=most["auroc_confidence"] - most["auroc_alone"])
    high, low = by_seed(leads[strongest], "lead"), by_seed(leads[weakest], "lead")
    growth = {word: high[word] - low[word] for word in high if word in several}
    rows = [
        claims.state(
            "7",
            "At the highest rate, masks find wrong pixels better than chance: AUROC less one half",
            by_seed(found, "above"),
            "not printed",
            metric="auroc",
        ),
        claims.state(
            "8",
            "The higher the rate, the more selection is worth: the highest less the lowest",
            growth,
            "",
            metric="miou",
        ),
        claims.state("9", "At the highest rate, selection helps: CromSS-midF above midF", high, "", metric="miou"),
        claims.state(
            "10",
            "The other modality makes wrong pixels easier to find: AUROC of F′ less that of F",
            by_seed(found, "gained"),
            "",
            metric="auroc",
        ),
    ]
    return claims.collect(rows, preset).drop(columns=["paper", "difference"])


def quality_table(runs: pd.DataFrame) -> pd.DataFrame:
    """How well masks find the wrong pixels after the last epoch, a row a method and modality; per cent.

    runs: of `cromss.pretrain` with known noise. What a method without selection would select is shown as well.
    """
    rows = []
    for method, part in runs.groupby("method", sort=False):
        for name in dict.fromkeys(n for names in part["modalities"] for n in names):
            own = [
                run["history"][-1]["quality"][run["modalities"].index(name)]
                for run in part.to_dict("records")
                if name in run["modalities"]
            ]
            columns = {
                "AUROC of W_l": "auroc",
                "of F′_l": "auroc_confidence",
                "of F_l alone": "auroc_alone",
                "precision": "precision",
                "recall": "recall",
            }
            found = {title: _found(q[key] for q in own) for title, key in columns.items()}
            rows.append({"method": ENCODER_NAMES[method], "modality": name, **found, "n": len(own)})
    return pd.DataFrame(rows)


def draw_quality(runs: pd.DataFrame, modalities: Sequence[str]) -> Html:
    """The AUROC with which W_l tells wrong from right pixels through the training, a panel a modality."""
    rows = [
        {"method": run["method"], "seed": run["seed"], "modality": name, "epoch": row["epoch"], "auroc": q["auroc"]}
        for run in runs.to_dict("records")
        for row in run["history"]
        for name, q in zip(run["modalities"], row["quality"], strict=True)
    ]
    frame = pd.DataFrame(rows).astype({"auroc": float})

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, ncols=2, sharey=True, squeeze=False)
        for ax, name in zip(axes.flat, modalities, strict=True):
            for method, part in frame[frame["modality"] == name].groupby("method", sort=False):
                style = {"color": COLOURS[method], "label": ENCODER_NAMES[method]}
                mean = part.groupby("epoch")["auroc"].mean()
                ax.plot(mean.index, mean, linewidth=1.6, **style)
                ax.scatter(part["epoch"], part["auroc"], s=9, color=style["color"], alpha=0.6)
            ax.axhline(0.5, color=theme["muted"], linestyle=":", linewidth=1.2)
            ax.set(title=name, xlabel="epoch")
        axes[0, 0].set_ylabel("AUROC of W_l")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8.5)
        return figure

    return figures.show(
        draw,
        alt="Lines of the area under the curve with which selection masks tell wrong from right pixels, by epoch, one "
        "for each method, in a panel for each modality.",
        caption="AUROC with which the weight W_l tells right from wrong pixels of the noisy training maps: a point is "
        "a run, a line joins the means over seeds; dotted: chance. For methods that do not select, the masks that they "
        "would have.",
        data=frame,
        name="auroc",
    )


def draw_noise(frame: pd.DataFrame) -> Html:
    """What selection is worth against how many pixels are wrong, and how well its masks find them, by kind of noise.

    frame: of `noise_frame`.
    """
    leads = noise_leads(frame)
    masks = frame[frame["method"] == "cromss_mid"]
    auroc = masks.groupby(["kind", "level", "seed"], sort=False)["auroc"].mean().rename("auroc").reset_index()
    data = leads.merge(auroc, on=["kind", "level", "seed"])
    data = data.assign(wrong=(100 * data["wrong"]).round(2), lead=(100 * data["lead"]).round(4))

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=3.9, ncols=2)
        for ax, column, level in zip(axes, ("lead", "auroc"), (0.0, 0.5), strict=True):
            ax.axhline(level, color=theme["muted"], linestyle=":", linewidth=1.2)
            for kind, part in data.groupby("kind", sort=False):
                colour, marker = KINDS[kind]
                mean = part.groupby("level", sort=False)[["wrong", column]].mean()
                ax.plot(mean["wrong"], mean[column], color=colour, marker=marker, label=kind.replace("_", " "))
                ax.scatter(part["wrong"], part[column], s=8, color=colour, alpha=0.5)
            ax.set_xlabel("wrong pixels, %")
        axes[0].set_ylabel("lead of CromSS-midF, points of mIoU")
        axes[1].set_ylabel("AUROC of W_l")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8.5)
        return figure

    return figures.show(
        draw,
        alt="Two panels against the share of wrong pixels, one line for each kind of map noise: the lead of selection "
        "in mean IoU, and the area under the curve of its masks.",
        caption="Left: by how much CromSS-midF is above midF on clean test maps, the mean of both modalities. Right: "
        "the AUROC with which W_l tells wrong from right training pixels after the last epoch. Large markers are means "
        "over seeds, small ones single runs; dotted: no lead, and chance.",
        data=data,
        name="noise_rates",
    )


def _found(values: Iterable[float | None]) -> str:
    """Mean and spread in per cent of what there is; "–" where there is nothing."""
    return mean_and_spread(pd.Series(list(values), dtype=float).dropna(), 1)
