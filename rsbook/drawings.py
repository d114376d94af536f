"""What goes in, drawn: scenes and their maps, mixtures, boxes and classes, each through `figures.show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import torch
from matplotlib.collections import PatchCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Generator, Tensor

from rsbook import figures
from rsbook.archives import bluemarble
from rsbook.figures import Html, listed
from rsbook.map_drawings import class_legend, show_map
from rsbook.mixing import Mixed, fmix
from rsbook.positions import count, to_reference_maps
from rsbook.scenes import Scenes

Theme = Mapping[str, str]


def draw_gallery(data: Scenes, indices: Sequence[int], columns: int = 6) -> Html:
    """Scenes of the data set above their reference maps, titled with their labels."""
    rows = -(-len(indices) // columns)

    def draw(theme: Theme) -> Figure:
        figure, axes = _grid(2 * rows, columns, 1.25, 1.4)
        for ax in axes.flat:
            ax.axis("off")
        for k, i in enumerate(indices):
            above, below = axes[2 * (k // columns), k % columns], axes[2 * (k // columns) + 1, k % columns]
            _show_image(above, data, i)
            show_map(below, data, _classes(data, data.positions[i]))
            below.set_title("\n".join(data.classes[c] for c in torch.nonzero(data.labels[i]).flatten()), fontsize=6.5)
        class_legend(figure, data, theme)
        return figure

    return figures.show(
        draw,
        alt=f"{len(indices)} satellite scenes in rows, each above its land-cover map in the colours of the legend.",
        caption="Training scenes (above) and their reference maps (below, titled with the labels of the scene).",
        data=_class_pixels(data, data.labels[list(indices)], data.positions[list(indices)]).assign(scene=list(indices)),
        name="gallery",
        vector=False,
    )


def draw_mixing(data: Scenes, scenes: Sequence[int], area: Mixed, propagated: Mixed, shown: int = 0) -> Html:
    """Figure 1 of the paper, from real scenes: the hole, the patch, the mixture, their maps, and both labels.

    scenes: indices of the batch that was mixed; area, propagated: the same mixtures with area labels and with label
    propagation; shown: which of them to draw.
    """
    j = int(area.partner[shown])
    first, second = scenes[shown], scenes[j]
    box, source = area.boxes[shown].tolist(), area.sources[shown].tolist()
    columns = [
        ("x₁ with its hole", data.images[first], data.positions[first], box),
        ("x₂ with its patch", data.images[second], data.positions[second], source),
        ("mixture x̃", area.images[shown], propagated.positions[shown], box),
    ]
    labels = {
        "y₁": data.labels[first].float(),
        "y₂": data.labels[second].float(),
        "ỹ area": area.labels[shown],
        "ỹ LP": propagated.labels[shown],
    }
    table = pd.DataFrame({"class": data.classes} | {k: v.numpy().round(3) for k, v in labels.items()})

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(7.4, 3.7), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
        axes = left.subplots(2, 3)
        for k, (title, image, bits, rectangle) in enumerate(columns):
            _show_image(axes[0, k], data, image)
            show_map(axes[1, k], data, _classes(data, bits))
            axes[0, k].set_title(title, fontsize=8.5)
            _draw_box(axes[0, k], rectangle, "white")
            _draw_box(axes[1, k], rectangle, "black")
        _show_labels(right.subplots(), data, labels, theme)
        return figure

    wrong = [
        c
        for c, a, p in zip(data.classes, area.labels[shown], propagated.labels[shown], strict=True)
        if a > 0 and p == 0
    ]
    return figures.show(
        draw,
        alt="Two satellite scenes with a box each, their mixture, the land-cover maps of all three, and a matrix of "
        "the labels before and after mixing.",
        caption="After Figure 1 of the paper, with real scenes. Above the images, below their reference maps: the box "
        "in x₁ is filled with the box from x₂. Right: the labels. "
        f"The area label names {listed(wrong) or 'no class'}, each with {data.min_pixels} pixels or fewer left.",
        data=table,
        name="mixing",
        vector=False,
    )


def draw_noise(data: Scenes, scenes: Sequence[int], clean: Tensor, noisy: Mapping[str, Tensor]) -> Html:
    """Figure 3 of the paper, from real scenes: images, their reference maps, and the maps with noise, a row each.

    scenes: indices (n,) of the scenes; clean and each of noisy, by its name: class positions (n,H,W).
    """
    rows = {"scene": None, "map": clean, **noisy}

    def draw(theme: Theme) -> Figure:
        figure, axes = _grid(len(rows), len(scenes), 1.15, 1.18)
        for k, (name, bits) in enumerate(rows.items()):
            axes[k, 0].set_ylabel(name, fontsize=8, color=theme["ink"])
            for j, i in enumerate(scenes):
                if bits is None:
                    _show_image(axes[k, j], data, i)
                else:
                    show_map(axes[k, j], data, _classes(data, bits[j]))
        class_legend(figure, data, theme)
        return figure

    changed = {
        name: [round(100 * (bits[j] != clean[j]).float().mean().item(), 1) for j in range(len(scenes))]
        for name, bits in noisy.items()
    }
    return figures.show(
        draw,
        alt=f"{len(scenes)} satellite scenes above their land-cover maps, clean and with noise of rising strength.",
        caption="After Figure 3 of the paper, with real scenes: image, reference map, and the map with noise. The data "
        "behind: per cent of the pixels that changed.",
        data=pd.DataFrame({"scene": list(scenes)} | changed),
        name="noise",
        vector=False,
    )


def draw_masks(data: Scenes, scenes: Sequence[int], activations: Tensor, masks: Tensor) -> Html:
    """Figure 5 of the paper, from real scenes: what a network looks at for each class of the label, and the masks.

    activations: (n,L,h,w) · masks: class positions (n,H,W), of the scenes (n,). Three classes of each label are drawn.
    """
    pairs = [(j, c) for j, i in enumerate(scenes) for c in torch.nonzero(data.labels[i]).flatten().tolist()[:3]]
    size = data.images.shape[2:]
    heat = torch.nn.functional.interpolate(activations, size=size, mode="bilinear", align_corners=False)
    low, high = heat.flatten(2).min(dim=2).values, heat.flatten(2).max(dim=2).values
    heat = (heat - low[..., None, None]) / (high - low).clamp(min=1e-12)[..., None, None]
    titles = ("scene", "activation", "mask", "map")

    def draw(theme: Theme) -> Figure:
        figure, axes = _grid(len(titles), len(pairs), 0.98, 1.12)
        for k, (j, c) in enumerate(pairs):
            _show_image(axes[0, k], data, scenes[j])
            axes[0, k].set_title("\n".join(data.classes[c].split(maxsplit=1)), fontsize=7)
            axes[1, k].imshow(heat[j, c].numpy(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
            colours = ListedColormap([theme["paper"], figures.class_colours(data.classes)[c]])
            for row, bits in ((2, masks[j]), (3, None if data.positions is None else data.positions[scenes[j]])):
                if bits is not None:
                    there = (bits >> c & 1).numpy()
                    axes[row, k].imshow(there, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
            for ax in axes[:, k]:
                ax.set(xticks=[], yticks=[])
        for ax, title in zip(axes[:, 0], titles, strict=True):
            ax.set_ylabel(title, fontsize=8, color=theme["ink"])
        return figure

    return figures.show(
        draw,
        alt="Satellite scenes, class by class: the scene, a heat map of what the network looks at, the mask cut from "
        "it, and where the reference map has the class.",
        caption="After Figure 5 of the paper, with real scenes. A column is a class of a scene's label: activation, "
        "explanation mask, and the reference map's pixels of that class, which the network never saw.",
        data=pd.DataFrame(
            {
                "scene": scenes[j],
                "class": data.classes[c],
                "mask_pixels": int((masks[j] >> c & 1).sum()),
                "map_pixels": None if data.positions is None else int((data.positions[scenes[j]] >> c & 1).sum()),
            }
            for j, c in pairs
        ),
        name="masks",
        vector=False,
    )


def draw_blobs(
    data: Scenes, scenes: Sequence[int], area_range: tuple[float, float], seed: int, columns: int = 6
) -> Html:
    """Mixtures of scenes with blobs in place of boxes (FMix): the image and its mixed map, with the label."""
    batch, generator = list(scenes), Generator().manual_seed(seed)
    mixed = fmix(
        data.images[batch],
        data.labels[batch],
        data.positions[batch],
        area_range=tuple(area_range),
        probability=1.0,
        min_pixels=data.min_pixels,
        generator=generator,
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = _grid(2, columns, 1.25, 1.4)
        for k in range(columns):
            _show_image(axes[0, k], data, mixed.images[k])
            show_map(axes[1, k], data, _classes(data, mixed.positions[k]))
            for ax, colour in zip(axes[:, k], ("white", "black"), strict=True):
                ax.contour(mixed.masks[k].numpy(), levels=[0.5], colors=colour, linewidths=1.2)
            names = [data.classes[c] for c in torch.nonzero(mixed.labels[k]).flatten()]
            axes[1, k].set_title("\n".join(names), fontsize=6.5)
        class_legend(figure, data, theme)
        return figure

    return figures.show(
        draw,
        alt=f"{columns} mixtures of two satellite scenes, with curved outlines, above their mixed land-cover maps.",
        caption="Mixtures with blobs: inside the outline is the partner. Below the mixed maps, titled with the "
        "propagated labels.",
        data=_class_pixels(data, mixed.labels[:columns], mixed.positions[:columns]),
        name="blobs",
        vector=False,
    )


def draw_boxes(boxes: Mapping[tuple[float, float], Tensor], height: int, width: int) -> Html:
    """Where boxes (n,4) of each area range fall in an image of height × width pixels, and how their areas are
    distributed.
    """
    pixels = height * width
    areas = {r: ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) / pixels).numpy() for r, b in boxes.items()}
    edges = np.linspace(0, 1, 41)
    shares = {r: np.histogram(a, edges)[0] / len(a) for r, a in areas.items()}
    cover = {r: _coverage(b, height, width) for r, b in boxes.items()}

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.subplots(2, len(boxes), squeeze=False, sharey="row", height_ratios=(1.2, 1))
        for k, r in enumerate(boxes):
            shown = axes[0, k].imshow(cover[r], vmin=0, vmax=1, cmap="viridis")
            axes[0, k].set(xticks=[], yticks=[])
            axes[0, k].set_title(f"areas {r[0]}–{r[1]}", fontsize=9)
            axes[1, k].stairs(100 * shares[r], edges, fill=True, color="#3C8FD9")
            axes[1, k].set(xlim=(0, 1), xlabel="area / image")
            axes[1, k].spines[["top", "right"]].set_visible(False)
        axes[1, 0].set_ylabel("boxes, %")
        bar = figure.colorbar(shown, ax=axes[0].tolist())
        bar.set_label("boxes that cover\nthe pixel (share)", color=theme["ink"], fontsize=8)
        return figure

    frame = pd.DataFrame(
        {"area_from": edges[:-1], "area_to": edges[1:]} | {f"share_{a}-{b}": s for (a, b), s in shares.items()}
    )
    return figures.show(
        draw,
        alt="For each area range a square coloured by how often its pixels lie in a box, brightest in the middle, "
        "above a histogram of box areas that falls from left to right.",
        caption=f"Boxes of Algorithm 1, {len(next(iter(boxes.values()))):,} for each range. Above: how often a pixel "
        "lies in a box; the middle is replaced far more often than the corners. Below: the areas; within a range, "
        "small boxes are the more frequent ones.",
        data=frame,
        name="boxes",
    )


def draw_class_frequencies(data: Scenes) -> Html:
    """How many per cent of the scenes of each split hold each class."""
    share = {name: 100 * data.labels[index].float().mean(dim=0).numpy() for name, index in data.splits.items()}

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=3.2)
        place = np.arange(len(data.classes))
        style = {"color": figures.class_colours(data.classes), "edgecolor": theme["ink"], "linewidth": 0.6}
        for k, values in enumerate(share.values()):
            ax.bar(place + 0.27 * (k - 1), values, 0.25, alpha=(1, 0.75, 0.5)[k], **style)
        ax.set_xticks(place, ["\n".join(c.split()) for c in data.classes], fontsize=8)
        ax.set_ylabel("scenes with the class, %")
        return figure

    return figures.show(
        draw,
        alt="Bars of the share of scenes that hold each class, three for each class.",
        caption="How many scenes hold each class, from left to right in the training, validation and test split.",
        data=pd.DataFrame({"class": data.classes} | {f"{k}_percent": v.round(3) for k, v in share.items()}),
        name="class_frequencies",
    )


def draw_world(folder: Path, step: int = 5) -> Html:
    """Where the Blue Marble scenes of `folder` lie: the image at one pixel in `step`, scenes coloured by split."""
    corners, splits = bluemarble.read_windows(folder / "scenes.csv")
    with rasterio.open(folder / "image.tif") as source:
        image = source.read(out_shape=(source.count, source.height // step, source.width // step))
    places, side = np.asarray(corners), bluemarble.WINDOW / step
    colours = {"train": "#F0E442", "val": "#56B4E9", "test": "#D55E00"}

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(7.4, 3.3), layout="constrained")
        ax = figure.subplots()
        ax.imshow(image.transpose(1, 2, 0))
        ax.set_ylim(places[:, 0].max() / step + 2 * side, places[:, 0].min() / step - side)
        ax.axis("off")
        squares = [Rectangle((column, row), side, side) for row, column in places / step]
        edges = [colours[split] for split in splits]
        ax.add_collection(PatchCollection(squares, facecolor="none", edgecolor=edges, linewidth=0.45))
        handles = [Patch(facecolor=c, label=name) for name, c in colours.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
        return figure

    return figures.show(
        draw,
        alt="A satellite image of the whole Earth with squares over land and coasts, in three colours, in blocks.",
        caption="Where the scenes lie. Each small square is a scene; whole blocks of four by four go to one split.",
        data=pd.DataFrame({"row": places[:, 0], "column": places[:, 1], "split": splits}),
        name="scenes",
        vector=False,
    )


def _grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _class_pixels(data: Scenes, labels: Tensor, bits: Tensor) -> pd.DataFrame:
    """Labels (n,L), and how many pixels of the class positions (n,H,W) hold each class, a row an image."""
    pixels = pd.DataFrame(count(bits, len(data.classes)).numpy(), columns=[f"{name}_pixels" for name in data.classes])
    return pd.DataFrame(labels.int().numpy(), columns=data.classes).join(pixels)


def _show_image(ax: Any, data: Scenes, image: int | Tensor) -> None:
    """A scene by its index, or an image (C,H,W) of the data set, in red, green and blue."""
    image = data.images[image] if isinstance(image, int) else image
    pixels = image[list(data.rgb)].movedim(0, -1).numpy()
    if pixels.dtype != np.uint8:  # reflectances: the training mean in the middle, three deviations to white
        bands = list(data.rgb)
        top = (data.mean[bands] + 3 * data.std[bands]).numpy()
        pixels = (pixels / top).clip(0, 1)
    ax.imshow(pixels, interpolation="nearest")
    ax.set(xticks=[], yticks=[])


def _classes(data: Scenes, bits: Tensor) -> Tensor:
    """The map (H,W) of class indices of class positions (H,W), −1 for none."""
    return to_reference_maps(bits[None], len(data.classes))[0]


def _show_labels(ax: Any, data: Scenes, columns: Mapping[str, Tensor], theme: Theme) -> None:
    """A matrix of classes by labels: a filled square a present class, its weight written when it is not 0 or 1."""
    colours = figures.class_colours(data.classes)
    for x, values in enumerate(columns.values()):
        for y, weight in enumerate(values.tolist()):
            ax.add_patch(
                Rectangle(
                    (x - 0.42, y - 0.42),
                    0.84,
                    0.84,
                    facecolor=colours[y] if weight else "none",
                    alpha=max(weight, 0.3) if weight else 1,
                    edgecolor=theme["muted"],
                    linewidth=0.7,
                )
            )
            if 0 < weight < 1:
                ax.text(x, y, f"{weight:.2f}", ha="center", va="center", fontsize=7, color=theme["ink"])
    ax.set(xlim=(-0.6, len(columns) - 0.4), ylim=(len(data.classes) - 0.4, -0.6), aspect="equal")
    ax.set_xticks(range(len(columns)), ["\n".join(c.split(maxsplit=1)) for c in columns], fontsize=7.5)
    ax.set_yticks(range(len(data.classes)), data.classes, fontsize=7)
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)


def _draw_box(ax: Any, box: Sequence[int], colour: str) -> None:
    top, left, bottom, right = box
    ax.add_patch(
        Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.8)
    )


def _coverage(boxes: Tensor, height: int, width: int) -> np.ndarray:
    edges = np.zeros((height + 1, width + 1))
    top, left, bottom, right = boxes.numpy().T
    for rows, columns, sign in ((top, left, 1), (bottom, right, 1), (top, right, -1), (bottom, left, -1)):
        np.add.at(edges, (rows, columns), sign)
    return edges.cumsum(0).cumsum(1)[:-1, :-1] / len(boxes)
