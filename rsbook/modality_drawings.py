"""Scenes of several modalities, drawn: each as a picture, with clean and noisy maps, through `figures.show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from rsbook import figures, segmentation, selection
from rsbook.figures import Html
from rsbook.map_drawings import class_legend, show_map
from rsbook.scenes import Scenes

Theme = Mapping[str, str]
NO_VALUE = 150  # the grey of pixels that are 0 in all bands of a picture in two colours


def picture(data: Scenes, scene: int, modality: str) -> np.ndarray:
    """A scene as one modality shows it: (H,W,3) uint8.

    A modality with the red, green and blue bands is seen in them. Another one has its first band in green and its
    second in red and, half as strong, in blue; where all its bands are 0, the pixel is grey.
    """
    image, bands = data.images[scene], data.bands(modality)
    if set(data.rgb) <= set(bands):
        return _scaled(data, image, data.rgb)
    two = (bands[0], bands[min(1, len(bands) - 1)])
    first, second = _scaled(data, image, two).transpose(2, 0, 1)
    colours = np.stack([second, first, second // 2], axis=-1)
    colours[(image[list(bands)] == 0).all(dim=0).numpy()] = NO_VALUE
    return colours


def draw_pairs(data: Scenes, scenes: Sequence[int] | Tensor, noisy: Tensor) -> Html:
    """After Figure 1 of CromSS: scenes in each modality, their reference maps and their noisy maps (n,H,W)."""
    scenes = [int(i) for i in scenes]
    clean = segmentation.maps_of(data, torch.tensor(scenes))
    wrong = noisy != clean
    rows = [*data.modalities, "clean map", "noisy map"]

    def draw(theme: Theme) -> Figure:
        size = (1.35 * len(scenes) + 0.4, 1.35 * len(rows) + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(rows), len(scenes), squeeze=False)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
        for row, name in zip(axes, rows, strict=True):
            row[0].set_ylabel(name, fontsize=8.5, color=theme["ink"])
        for k, scene in enumerate(scenes):
            for ax, modality in zip(axes[:, k], data.modalities, strict=False):
                ax.imshow(picture(data, scene, modality), interpolation="nearest")
            show_map(axes[-2, k], data, clean[k])
            show_map(axes[-1, k], data, noisy[k], wrong[k])
        hatched = Patch(facecolor="none", edgecolor=theme["ink"], hatch="/////", label="wrong")
        class_legend(figure, data, theme, more=[hatched])
        return figure

    shares = [round(100 * one.float().mean().item(), 1) for one in wrong]
    return figures.show(
        draw,
        alt=f"{len(scenes)} scenes in columns: {figures.listed(list(data.modalities))}, the clean land-cover map, and "
        "the noisy one with wrong pixels hatched.",
        caption="After Figure 1 of the paper, with the scenes of this book: each modality, the reference map, and the "
        "noisy map that networks are pre-trained on; hatched where its class is wrong. A modality without red, green "
        "and blue has its first band in green and its second in magenta; grey is no value.",
        data=pd.DataFrame({"scene": scenes, "wrong_per_cent": shares}),
        name="pairs",
        vector=False,
    )


def draw_selection(
    data: Scenes, scene: int, noisy: Tensor, logits: Tensor, risen: float, ranking: str = "global"
) -> Html:
    """After Figure 2 of CromSS, on one real scene: from what two networks predict to the weights of the losses.

    noisy (H,W): its noisy map · logits (M,K,H,W): of each modality · risen: the ramp, 0 to 1 · ranking: as in
    `selection.selection_weights`, of the pixels of this scene alone.
    """
    maps, batch = noisy[None], logits[:, None].float()
    probabilities = batch.softmax(dim=2)
    labels = [selection.label_confidence(own, maps) for own in probabilities]
    entities = [selection.entity_confidence(own) for own in probabilities]
    weights = selection.masks(batch, maps, risen, ranking)
    columns = {
        "F_l": labels,
        "F′_l": selection.enhanced(labels),
        "W_l": weights[0],
        "F_e": entities,
        "F′_e": selection.enhanced(entities),
        "W_e": weights[1],
    }
    clean = segmentation.maps_of(data, torch.tensor([scene]))[0]
    wrong = (noisy != clean) & (noisy >= 0)
    means = [
        {"modality": name, "what": what, "right": _mean(found[m][0], ~wrong), "wrong": _mean(found[m][0], wrong)}
        for m, name in enumerate(data.modalities)
        for what, found in columns.items()
    ]

    def draw(theme: Theme) -> Figure:
        count = len(data.modalities)
        figure = Figure(figsize=(8.6, 1.15 * (count + 1) + 0.4), layout="constrained")
        axes = figure.subplots(count + 1, 2 + len(columns), squeeze=False)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
        for ax in axes[0, 2:]:
            ax.axis("off")
        for ax, title, shown in zip(axes[0], ("clean map", "noisy map"), (clean, noisy), strict=False):
            show_map(ax, data, shown, wrong if shown is noisy else None)
            ax.set_title(title, fontsize=8.5, loc="center")
        for row, (m, name) in zip(axes[1:], enumerate(data.modalities), strict=True):
            row[0].imshow(picture(data, scene, name), interpolation="nearest")
            row[0].set_ylabel(name, fontsize=8.5, color=theme["ink"])
            show_map(row[1], data, batch[m, 0].argmax(dim=0))
            for ax, found in zip(row[2:], columns.values(), strict=True):
                heat = ax.imshow(found[m][0].numpy(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        for ax, title in zip(axes[1], ("image", "prediction", *columns), strict=True):
            ax.set_title(title, fontsize=8.5, loc="center")
        bar = figure.colorbar(heat, ax=axes[:, -1], shrink=0.7, aspect=30)
        bar.ax.tick_params(labelsize=7)
        return figure

    return figures.show(
        draw,
        alt="The clean and the noisy map of a scene, and below them for each modality its image, its prediction, and "
        "six heat maps from 0 to 1: confidences in the label, with and without the other modality, and the weights.",
        caption="After Figure 2 of the paper, with a scene of this book. Wrong pixels of the noisy map are hatched. "
        "F_l: confidence in the label, F_e: in anything at all; with a stroke: enhanced by the other modality; W: "
        "weights.",
        data=pd.DataFrame(means),
        name="selection",
        vector=False,
    )


def _scaled(data: Scenes, image: Tensor, bands: Sequence[int]) -> np.ndarray:
    """Bands of an image as (H,W,n) uint8; other types than uint8 from 0 to the training mean and three deviations."""
    chosen = image[list(bands)].movedim(0, -1)
    if chosen.dtype.itemsize == 1:
        return chosen.numpy()
    top = data.mean[list(bands)] + 3 * data.std[list(bands)]
    return (chosen.float() / top * 255).clamp(0, 255).byte().numpy()


def _mean(values: Tensor, where: Tensor) -> float | None:
    return round(values[where].mean().item(), 4) if where.any() else None
