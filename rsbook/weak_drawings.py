"""Maps, masks, mixtures, clusters and scores of Part V, drawn through `figures.show`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor
from torch.nn.functional import interpolate

from rsbook import affinity, figures, segmentation
from rsbook.figures import Html
from rsbook.map_drawings import class_legend, show_map
from rsbook.scenes import Scenes
from rsbook.weak_findings import AREA, METHOD_NAMES
from rsbook.widgets.explorer import rgb

Theme = Mapping[str, str]

# Normal, protanope, deuteranope and tritanope eyes tell any two apart, on light and on dark pages (a test measures it).
COLOURS = {
    **{"cam": "#A89090", "sce": "#9000F0", "sct": "#A84848"},
    **{"mixup": "#3C8FD9", "manifold": "#486090", "fmix": "#D55E00"},
}
MARKERS = dict(zip(COLOURS, "osDv^P", strict=True))
NAMED_COLOURS = {METHOD_NAMES[name]: colour for name, colour in COLOURS.items()}
ONE = "#3C8FD9"  # of what is no method
SHOWN = 5  # clusters


def draw_maps(
    data: Scenes, index: Sequence[int] | Tensor, maps: Mapping[str, Tensor], name: str, caption: str, alt: str
) -> Html:
    """A row a scene: image, reference map, and each of the maps (n,h,w) int64 of the scenes `index`, enlarged to their
    size where they are smaller, above its share of right pixels; affinity.IGNORED is "not sure".
    """
    scenes, size = [int(i) for i in index], tuple(data.images.shape[2:])
    truth = segmentation.maps_of(data, torch.tensor(scenes))
    found = {key: _enlarged(one, size) for key, one in maps.items()}
    shares = {key: [_right(one[k], truth[k]) for k in range(len(scenes))] for key, one in found.items()}
    pixels = rgb(data, scenes).numpy()

    def draw(theme: Theme) -> Figure:
        figure, axes = _panels(theme, len(scenes), 2 + len(found), words=0.3, legend=0.55)
        letters, points = (40, 9) if len(found) < 4 else (13, 7.5)
        for ax, title in zip(axes[0], ("image", "reference map", *found), strict=True):
            ax.set_title(textwrap.fill(title, letters), fontsize=points, loc="center")
        for k, row in enumerate(axes):
            row[0].imshow(pixels[k], interpolation="nearest")
            show_map(row[1], data, truth[k])
            for ax, (key, one) in zip(row[2:], found.items(), strict=True):
                ax.set_facecolor(theme["muted"])
                show_map(ax, data, one[k])
                ax.set_xlabel(_share_text(*shares[key][k]), fontsize=8.5, labelpad=2)
        held = sorted({int(c) for one in (truth, *found.values()) for c in one.unique() if c >= 0})
        unsure = [Patch(facecolor=theme["muted"], edgecolor=theme["muted"], label="not sure")]
        class_legend(figure, data, theme, held, unsure if any((one < 0).any() for one in found.values()) else [])
        return figure

    columns = {
        key: {"right": [a for a, _ in pairs], "not_sure": [b for _, b in pairs]} for key, pairs in shares.items()
    }
    rows = [pd.DataFrame({"scene": scenes, "map": key} | values) for key, values in columns.items()]
    return figures.show(draw, alt=alt, caption=caption, data=pd.concat(rows).round(4), name=name, vector=False)


def draw_activations(data: Scenes, scene: int, class_index: int, activations: Mapping[str, Tensor]) -> Html:
    """A scene, and heat maps (h,w) of one class over it, each divided by its own maximum."""
    [pixels], class_name = rgb(data, [scene]).numpy(), data.classes[class_index]
    height, width = pixels.shape[:2]
    tops = {name: one.max().item() for name, one in activations.items()}
    heat = {name: one.clamp(min=0) / max(tops[name], 1e-12) for name, one in activations.items()}

    def draw(theme: Theme) -> Figure:
        figure, axes = _panels(theme, 1, 1 + len(heat))
        axes[0, 0].imshow(pixels, interpolation="nearest")
        axes[0, 0].set_title("image", fontsize=9, loc="center")
        for ax, (name, one) in zip(axes[0, 1:], heat.items(), strict=True):
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            ax.imshow(pixels, interpolation="nearest")
            style = {"cmap": "inferno", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
            shown = ax.imshow(one.numpy(), alpha=(0.9 * one.sqrt()).numpy(), extent=extent, **style)
            ax.set_title(name, fontsize=9, loc="center")
        bar = figure.colorbar(shown, ax=axes[0].tolist(), shrink=0.75)
        bar.set_ticks([0, 0.5, 1], labels=["0", "half", "maximum"], fontsize=8.5)
        return figure

    frame = pd.DataFrame(
        {"map": name, "maximum": tops[name], "over_half": (one > 0.5).float().mean().item()}
        for name, one in heat.items()
    )
    return figures.show(
        draw,
        alt=f"A scene, and over it {len(heat)} heat maps of what speaks for {class_name}.",
        caption=f"Activation maps of the class “{class_name}” over scene {scene}, each divided by its own maximum.",
        data=frame.round(4),
        name="activations",
        vector=False,
    )


def draw_thresholds(sweep: pd.DataFrame) -> Html:
    """Mean IoU in per cent by the threshold of the background: a line a seed, their mean bold, its best marked.

    sweep: columns seed, threshold and miou in 0 … 1.
    """
    frame = sweep[["seed", "threshold", "miou"]].sort_values(["seed", "threshold"])
    frame = frame.assign(miou=(100 * frame["miou"]).round(4))
    mean = frame.groupby("threshold")["miou"].mean()
    best = mean.idxmax()

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=3.2)
        for k, (_, one) in enumerate(frame.groupby("seed")):
            label = None if k else "a seed"
            ax.plot(one["threshold"], one["miou"], color=ONE, linewidth=0.9, alpha=0.55, label=label)
        ax.plot(mean, color=ONE, linewidth=2.4, label="mean")
        label = f"best: {mean[best]:.1f} % at {best:g}"
        ax.plot([best], [mean[best]], color=theme["ink"], marker="D", markersize=6, linestyle="none", label=label)
        ax.set(xlabel="threshold of the background, share of the maximum", ylabel="mean IoU of the maps, %")
        figure.legend(loc="outside lower center", ncols=3)
        return figure

    return figures.show(
        draw,
        alt="Curves of the mean IoU of activation maps by the threshold of the background, one a seed, and their mean.",
        caption="Mean IoU by the threshold below which a pixel is background: thin lines are seeds, the thick one "
        "their mean, the diamond its highest point. To choose it so takes reference maps, not labels alone.",
        data=frame,
        name="thresholds",
    )


def draw_fmix_masks(masks: Mapping[tuple[float, float], Tensor]) -> Html:
    """FMix's masks (H,W) bool by share and decay: a row a decay, a column a share, each above its share of ones."""
    shares, decays = (sorted({key[i] for key in masks}) for i in (0, 1))
    ones = {key: mask.float().mean().item() for key, mask in masks.items()}

    def draw(theme: Theme) -> Figure:
        figure, axes = _panels(theme, len(decays), len(shares), words=0.18)
        for row, decay in zip(axes, decays, strict=True):
            row[0].set_ylabel(f"decay {decay:g}", fontsize=9, color=theme["ink"])
            for ax, share in zip(row, shares, strict=True):
                if (share, decay) not in masks:
                    continue
                colours = ListedColormap([theme["grid"], ONE])
                ax.imshow(masks[share, decay].numpy(), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
                ax.set_xlabel(f"{100 * ones[share, decay]:.1f} %", fontsize=8.5, labelpad=2)
        for ax, share in zip(axes[0], shares, strict=True):
            ax.set_title(f"λ = {share:g}", fontsize=9, loc="center")
        return figure

    return figures.show(
        draw,
        alt=f"Masks of blobs in a grid: {len(shares)} shares from left to right, {len(decays)} decays from top to "
        "bottom.",
        caption="Masks of FMix: a scene keeps its own pixels where it is blue, and has its partner's elsewhere. Below "
        "each the share of its own. The larger the decay, the smoother the blobs.",
        data=pd.DataFrame({"share": s, "decay": d, "ones": round(one, 4)} for (s, d), one in ones.items()),
        name="fmix_masks",
        vector=False,
    )


def draw_mixtures(
    data: Scenes, first: Sequence[int] | Tensor, second: Sequence[int] | Tensor, mixtures: Mapping[str, Tensor]
) -> Html:
    """A row a pair: two scenes and each of their mixtures (n,C,H,W), normalised as a network sees them; values that no
    pixel of the archive can have are clipped.
    """
    pairs = [(int(i), int(j)) for i, j in zip(first, second, strict=True)]
    columns = {"x₁": rgb(data, [i for i, _ in pairs]), "x₂": rgb(data, [j for _, j in pairs])}
    columns |= {name: _pixels_of(data, one) for name, one in mixtures.items()}

    def draw(theme: Theme) -> Figure:
        figure, axes = _panels(theme, len(pairs), len(columns))
        for k, (name, images) in enumerate(columns.items()):
            axes[0, k].set_title(name, fontsize=9, loc="center")
            for ax, image in zip(axes[:, k], images.numpy(), strict=True):
                ax.imshow(image, interpolation="nearest")
        return figure

    names = [["; ".join(_names(data, scene)) for scene in pair] for pair in pairs]
    return figures.show(
        draw,
        alt=f"{len(pairs)} pairs of scenes, a row each, with {figures.listed(list(mixtures))} of both.",
        caption=f"Two training scenes and their mixtures: {figures.listed(list(mixtures))}.",
        data=pd.DataFrame(
            {"first": i, "second": j, "classes_first": a, "classes_second": b}
            for (i, j), (a, b) in zip(pairs, names, strict=True)
        ),
        name="mixtures",
        vector=False,
    )


def draw_stages(stages: pd.DataFrame) -> Html:
    """Where Manifold Mixup cuts in: boxes for the input and the stages of a network, with λ where it may mix.

    stages: columns name, channels, height, width, in order from the input, and where some cannot be mixed `mixed` bool.
    """
    rows = stages.to_dict("records")

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(7.2, 1.5), layout="constrained")
        ax = figure.subplots()
        for x, row in enumerate(rows):
            box = Rectangle((x, 0), 0.66, 1, facecolor="none", edgecolor=theme["ink"], linewidth=1.2)
            ax.add_patch(box)
            ax.text(x + 0.33, 0.72, row["name"], ha="center", va="center", fontsize=9.5, color=theme["ink"])
            text = f"{row['channels']} channels\n{row['height']} × {row['width']}"
            ax.text(x + 0.33, 0.34, text, ha="center", va="center", fontsize=8, color=theme["muted"])
            arrow = {"arrowstyle": "->", "color": theme["ink"], "linewidth": 1.2}
            ax.annotate("", (x + 1, 0.5), (x + 0.66, 0.5), arrowprops=arrow)
            if row.get("mixed", True):
                ax.text(x + 0.82, 0.66, "λ", ha="center", va="center", fontsize=13, color=ONE)
        ax.text(len(rows) + 0.03, 0.5, "labels", va="center", fontsize=9.5, color=theme["ink"])
        ax.set(xlim=(-0.05, len(rows) + 0.45), ylim=(-0.1, 1.1))
        ax.axis("off")
        return figure

    mixed = [row["name"] for row in rows if row.get("mixed", True)]
    return figures.show(
        draw,
        alt=f"Boxes in a row with arrows from {figures.listed([row['name'] for row in rows])} to the labels; λ after "
        f"{figures.listed(mixed) or 'none'}.",
        caption="Where Manifold Mixup may mix: for each batch one of the places marked λ is drawn. In a box: "
        "channels, and height × width.",
        data=stages,
        name="stages",
    )


def draw_subcategories(
    data: Scenes, index: Sequence[int] | Tensor, clusters: Tensor, class_index: int, per_cluster: int = 6
) -> Html:
    """A row a cluster of the scenes `index`, which hold a class: how many it has, and the first of them.

    clusters (n,) int64: of each of these scenes; of many clusters the five largest are drawn.
    """
    scenes, class_name = torch.as_tensor(index), data.classes[class_index]
    members = {int(c): scenes[clusters == c].tolist() for c in clusters.unique()}
    largest = sorted(members.values(), key=len, reverse=True)
    shown = largest[:SHOWN]

    def draw(theme: Theme) -> Figure:
        figure, axes = _panels(theme, len(shown), per_cluster)
        for row, found in zip(axes, shown, strict=True):
            row[0].set_ylabel(f"{len(found)} scenes" if len(found) > 1 else "1 scene", fontsize=9, color=theme["ink"])
            for ax, image in zip(row, rgb(data, found[:per_cluster]).numpy(), strict=False):
                ax.imshow(image, interpolation="nearest")
        return figure

    which = f"the {SHOWN} largest of {len(largest)} clusters" if len(largest) > SHOWN else "all clusters"
    return figures.show(
        draw,
        alt=f"Satellite scenes that hold {class_name}, a row for each of {len(shown)} clusters, largest first.",
        caption=f"Sub-classes of “{class_name}”, {which}: a row a cluster, with the first of its training scenes.",
        data=pd.DataFrame(
            {"cluster": k, "scene": scene} for k, found in enumerate(largest, start=1) for scene in found
        ),
        name=f"subcategories_{class_index}",
        vector=False,
    )


def draw_by_method(runs: pd.DataFrame, metric: str, label: str, theirs: Mapping[str, float] | None = None) -> Html:
    """A row a method: a point a seed, a bar for the mean, and an outlined diamond for what the report prints.

    theirs: method → per cent.
    """
    known = runs[runs["method"].isin(METHOD_NAMES)]
    names = [name for name in METHOD_NAMES if name in set(known["method"])]
    printed = {name: value for name, value in (theirs or {}).items() if name in names}
    frame = known[["method", "seed"]].assign(**{metric: (100 * known[metric].astype(float)).round(4)})

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=1.1 + 0.34 * len(names))
        for y, name in enumerate(names):
            values, colour = frame[frame["method"] == name][metric], COLOURS[name]
            ax.scatter(values, [y] * len(values), s=16, color=colour, alpha=0.7, zorder=3)
            ax.scatter(values.mean(), y, marker="|", s=200, linewidth=2.5, color=colour, zorder=4)
        if printed:
            ys, style = [names.index(name) for name in printed], {"facecolor": "none", "edgecolor": theme["ink"]}
            ax.scatter(
                list(printed.values()), ys, marker="D", s=30, linewidth=1.2, label="the report", zorder=3, **style
            )
            figure.legend(loc="outside lower center")
        ax.set_yticks(range(len(names)), [METHOD_NAMES[name] for name in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.grid(axis="x", color=theme["grid"], linewidth=0.8)
        ax.set_xlabel(f"{label}, %")
        return figure

    beside = " Diamonds: the report, on photographs of Pascal VOC, by its own protocol." if printed else ""
    return figures.show(
        draw,
        alt=f"A row a method: {label} of each seed and their mean" + (", beside the report's." if printed else "."),
        caption=f"{label}: a point a seed, a bar their mean.{beside}",
        data=frame.assign(paper=frame["method"].map(printed)) if printed else frame,
        name=f"by_method_{metric}",
    )


def draw_masks_and_scores(runs: pd.DataFrame) -> Html:
    """mAP macro after label propagation against the mean IoU of the masks: a colour a method, a point a seed, and
    dashed the mean of labels by area; runs of `weak_uses.propagate` with the `method` whose masks they use.
    """
    frame = runs[["maps", "method", "seed"]].copy()
    for column in ("mask_iou", "map_macro"):
        frame[column] = (100 * runs[column].astype(float)).round(4)
    masks, area = frame[frame["maps"] == "masks"], frame[frame["maps"] == "none"]["map_macro"]

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=3.6)
        for name in METHOD_NAMES:
            part = masks[masks["method"] == name]
            if not part.empty:
                style = {"color": COLOURS[name], "marker": MARKERS[name], "label": METHOD_NAMES[name]}
                ax.scatter(part["mask_iou"], part["map_macro"], s=30, zorder=3, **style)
        if not area.empty:
            ax.axhline(area.mean(), color=theme["muted"], linestyle="--", linewidth=1.2, label=AREA)
        ax.set(xlabel="mean IoU of masks with reference maps, training scenes, %", ylabel="mAP macro, test, %")
        figure.legend(loc="outside lower center", ncols=4, fontsize=8.5)
        return figure

    return figures.show(
        draw,
        alt="Points for mAP macro after label propagation against the IoU of the masks, coloured by method, beside a "
        "line for labels by area.",
        caption="CutMix with labels propagated through masks: a point is a run, its colour says whose activation maps "
        "the masks are from. Dashed: labels by area, the mean over seeds.",
        data=frame,
        name="masks_and_scores",
    )


def _panels(theme: Theme, rows: int, columns: int, words: float = 0.0, legend: float = 0.0) -> tuple[Figure, Any]:
    """Square panels without ticks or frames on the width of a page; words, legend: inches below each row, and all."""
    side = min(7.2 / columns, 2.3)
    height = (side + words) * rows + legend + 0.35
    figure, axes = figures.axes(theme, height=height, nrows=rows, ncols=columns, squeeze=False)
    figure.set_layout_engine("compressed")  # the other cuts titles off where panels keep their shape
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
    return figure, axes


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (n,h,w) of classes at another size, each pixel repeated."""
    return interpolate(maps[:, None].float(), size=size, mode="nearest")[:, 0].long()


def _right(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """The shares of right pixels and of those that are not sure, of pixels whose class is known, in per cent."""
    known = truth >= 0
    unsure, right = (found == affinity.IGNORED)[known], (found == truth)[known]
    return 100 * right.float().mean().item(), 100 * unsure.float().mean().item()


def _share_text(right: float, unsure: float) -> str:
    if right != right:  # no pixel has a class
        return "–"
    return f"{right:.0f} % right" + (f"\n{unsure:.0f} % not sure" if unsure else "")


def _pixels_of(data: Scenes, images: Tensor) -> Tensor:
    """Normalised images (n,C,H,W) as a person sees them: (n,H,W,3) uint8."""
    raw = images.float().cpu() * data.std.view(-1, 1, 1) + data.mean.view(-1, 1, 1)
    limits = torch.iinfo(data.images.dtype)
    raw = raw.round().clamp(limits.min, limits.max).to(data.images.dtype)
    nothing = torch.zeros(len(raw), len(data.classes), dtype=torch.bool)
    return rgb(replace(data, images=raw, labels=nothing, positions=None, splits={}), range(len(raw)))


def _names(data: Scenes, scene: int) -> list[str]:
    return [data.classes[c] for c in data.labels[scene].nonzero()[:, 0].tolist()]
