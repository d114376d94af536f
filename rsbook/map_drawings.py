"""Maps of classes on axes, and the legend of their colours, as all parts draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from rsbook import figures
from rsbook.scenes import Scenes


def show_map(ax: Axes, data: Scenes, classes: Tensor, wrong: Tensor | None = None) -> None:
    """A map (H,W) of class indices, −1 for none, on the axes; wrong (H,W) bool is hatched."""
    shown = np.ma.masked_less(classes.numpy(), 0)
    norm = BoundaryNorm(np.arange(len(data.classes) + 1) - 0.5, len(data.classes))
    ax.imshow(shown, cmap=ListedColormap(figures.class_colours(data.classes)), norm=norm, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    if wrong is not None and wrong.any():
        with matplotlib.rc_context({"hatch.linewidth": 0.5}):
            ax.contourf(wrong.numpy().astype(float), levels=[0.5, 1.5], colors="none", hatches=["/////"])


def class_legend(
    figure: Figure,
    data: Scenes,
    theme: Mapping[str, str],
    held: Sequence[int] | None = None,
    more: Sequence[Patch] = (),
) -> None:
    """The colours of the classes, or of those that some map held, and of what else there is, below the figure."""
    colours = figures.class_colours(data.classes)
    named = [(data.classes[c], colours[c]) for c in (range(len(data.classes)) if held is None else held)]
    handles = [Patch(facecolor=colour, edgecolor=theme["muted"], label=name) for name, colour in named]
    figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=4, fontsize=8)
