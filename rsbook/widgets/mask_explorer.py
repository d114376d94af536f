"""Explanation masks by hand: class, t_cam and t_map; heat map, mask, read-out, and how well mask and map agree."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import matplotlib
import numpy as np
import pandas as pd
import torch
import traitlets
from torch import Tensor

from rsbook import drawings, explain, positions
from rsbook.figures import Html
from rsbook.label_propagation import T_MAP
from rsbook.positions import AreaTables
from rsbook.scenes import Scenes
from rsbook.widgets.explorer import SceneExplorer, check_box

STEPS = 100  # of t_cam: 0.00, 0.01, … 0.99


class MaskExplorer(SceneExplorer):
    """Masks cut from what a network looks at, a hole to drag, and what is left for ψ (eq. 11) and for φ (eq. 9).

    scene: which of the offered ones · class_index: a class of its label, the first when it is none · box: the hole,
    top, left, bottom, right, half-open · t_cam: in hundredths, 0 … 0.99 · t_map: pixels that ψ wants to see exceeded.
    """

    scene = traitlets.Int().tag(sync=True)
    class_index = traitlets.Int().tag(sync=True)
    t_cam = traitlets.Float().tag(sync=True)
    t_map = traitlets.Int().tag(sync=True)

    def __init__(
        self, data: Scenes, scenes: Sequence[int], activations: Tensor, *, t_cam: float = 0.1, t_map: int = T_MAP
    ) -> None:
        """Offer the `scenes` of `data` with activations (n,L,h,w) ≥ 0 of every class, as `analyses.activations` makes.

        Raises ValueError for no scene, a scene without a class, and activations or thresholds that masks cannot be
        made of.
        """
        scenes = [int(i) for i in scenes]
        labels = data.labels[scenes]
        if not scenes or not labels.any(dim=1).all():
            raise ValueError(f"{data.name}: the explorer needs one scene or more, each with a class in its label")
        if activations.ndim != 4 or activations.shape[:2] != labels.shape:
            expected = ",".join(map(str, labels.shape))
            raise ValueError(f"activations: have shape {tuple(activations.shape)}, expected ({expected},h,w)")
        self.data, self.activations, self.labels = data, activations, labels
        _check_thresholds(t_cam, t_map)
        height, width = data.images.shape[2:]
        maps = {} if data.positions is None else {"maps": data.positions[scenes]}
        heat = matplotlib.colormaps["viridis"](np.linspace(0, 1, STEPS + 1), bytes=True)[:, :3]
        super().__init__(
            data,
            scenes,
            arrays={"labels": labels.to(torch.uint8), "heat": heat, **maps, "passed": self._passed()},
            scene=0,
            class_index=int(labels[0].int().argmax()),
            box=[height // 8, width // 8, height - height // 3, width - width // 3],
            t_cam=t_cam,
            t_map=t_map,
            caption="What a network looks at for a class of the scene's label, and the mask of what exceeds t_cam on "
            "the scale from the map's minimum to its maximum. CutMix cuts a hole: drag the box or its corners, or move "
            "it with the arrow keys. The class stays in the label when more than t_map pixels of the mask are left."
            + (f" The reference map says so when more than {data.min_pixels} of its own are." if maps else ""),
        )

    @cached_property
    def fallback(self) -> Html:
        """Activations and masks of the first three scenes, class by class."""
        masks = positions.from_explanation_masks(self._masks(self.t_cam))
        return drawings.draw_masks(self.data, self.scenes[:3], self.activations[:3], masks[:3])

    def read_out(self) -> pd.DataFrame:
        """What mask and map say of the scene with its hole, a row a class of its label.

        mask_pixels, map_pixels: of the whole scene · mask_left, map_left: outside the hole · psi, phi: whether that is
        enough · iou: of mask and map in the whole scene, nan where neither is. Without maps only what masks say.
        Raises ValueError for a box that leaves the scene, and for thresholds that cannot be.
        """
        _check_thresholds(self.t_cam, self.t_map)
        count = len(self.data.classes)
        present = self.labels[self.scene]
        box = torch.tensor([check_box(self.box, *self.data.images.shape[2:])])
        mask = positions.from_explanation_masks(self._masks(self.t_cam)[self.scene : self.scene + 1])
        found = {"class": self.data.classes, **_counted("mask", AreaTables(mask, count), box)}
        found["psi"] = found["mask_left"] > self.t_map
        if self.data.positions is not None:
            truth = self.data.positions[self.scenes[self.scene]][None]
            found |= _counted("map", AreaTables(truth, count), box)
            found["phi"] = found["map_left"] > self.min_pixels
            found["iou"] = explain.agreement(mask, truth, present[None], count)
        return pd.DataFrame(found)[present.numpy()].reset_index(drop=True)

    def _masks(self, t_cam: float) -> Tensor:
        return explain.explanation_masks(self.activations, self.labels, tuple(self.data.images.shape[2:]), t_cam)

    def _passed(self) -> Tensor:
        """How many of the thresholds 0.00 … 0.99 each pixel exceeds, (n,L,H,W) uint8: the masks of all of them.

        The higher the threshold, the smaller the mask. So a page need not upsample, which rounds in other ways on other
        processors: its masks are those of `explain`, to the pixel.
        """
        passed = torch.zeros(*self.labels.shape, *self.data.images.shape[2:], dtype=torch.uint8)
        for step in range(STEPS):
            passed += self._masks(step / STEPS)
        return passed


def _counted(name: str, tables: AreaTables, box: Tensor) -> dict[str, Tensor]:
    whole = tables.totals()[0]
    return {f"{name}_pixels": whole, f"{name}_left": whole - tables.counts(box)[0]}


def _check_thresholds(t_cam: float, t_map: int) -> None:
    if t_cam not in [step / STEPS for step in range(STEPS)]:
        raise ValueError(f"t_cam={t_cam}: expected one of 0.00, 0.01, … {1 - 1 / STEPS}")
    positions.check_min_pixels(t_map)
