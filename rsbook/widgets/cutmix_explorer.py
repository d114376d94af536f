"""CutMix and label propagation by hand: two scenes, a box to drag, and three labels of the mixture side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
import traitlets
from torch import Tensor

from rsbook import drawings
from rsbook.figures import Html
from rsbook.mixing import Mixed
from rsbook.presets import TABLE_II_RANGES
from rsbook.scenes import Scenes
from rsbook.widgets.explorer import PairExplorer, pair_of, patch_of


class CutMixExplorer(PairExplorer):
    """Two scenes are mixed with a box that the reader drags; labels by area (eq. 6), map (eqs. 7–9), mask (10–11).

    first, second: which of the offered scenes are x₁ and x₂ · box: the hole in x₁, top, left, bottom, right, half-open
    · source: top, left of the patch in x₂, as large as the hole · area_range: what the box's area is held against.
    """

    area_range = traitlets.List(traitlets.Float(), minlen=2, maxlen=2).tag(sync=True)
    area_ranges = traitlets.List().tag(sync=True)
    t_map = traitlets.Int().tag(sync=True)

    def __init__(
        self,
        data: Scenes,
        scenes: Sequence[int],
        masks: Tensor | None = None,
        *,
        t_map: int = 10,
        area_ranges: Sequence[Sequence[float]] = TABLE_II_RANGES,
    ) -> None:
        """Offer the `scenes` of `data`, which has positions, with explanation masks (n,H,W) int32 or without.

        Raises ValueError for fewer than two scenes, scenes without reference maps, or masks of another shape.
        """
        scenes = pair_of(data, scenes)
        maps = data.positions[scenes]
        if masks is not None and masks.shape != maps.shape:
            raise ValueError(f"masks: have shape {tuple(masks.shape)}, expected {tuple(maps.shape)}")
        self.maps, self.masks = maps, masks
        super().__init__(
            data,
            scenes,
            arrays={"maps": maps, "labels": data.labels[scenes].to(torch.uint8)}
            | ({} if masks is None else {"masks": masks}),
            area_range=list(area_ranges[-1]),
            caption="Two scenes, and their mixture by CutMix. Drag the box or its corners, in the first scene or the "
            "second, or move it with the arrow keys. A class that a label names though the mixture holds "
            f"{data.min_pixels} pixels of it or fewer is wrongly added; one that it holds and the label leaves out is "
            "wrongly removed.",
            area_ranges=[list(pair) for pair in area_ranges],
            t_map=t_map,
        )

    def read_out(self) -> pd.DataFrame:
        """The labels of the mixture as it stands, a row a class: pixels left, weight by area, presence by map and mask.

        Raises ValueError for a box or source that leaves its scene.
        """
        pixels = self.mixed_pixels(self.maps)
        top, left, bottom, right = self.box
        share = (bottom - top) * (right - left) / self.maps[0].numel()
        y1, y2 = (self.data.labels[self.scenes[k]].double() for k in (self.first, self.second))
        found = {
            "class": self.data.classes,
            "pixels": pixels,
            "area": (1 - share) * y1 + share * y2,
            "reference_map": pixels > self.min_pixels,
        }
        if self.masks is not None:
            found["explanation_mask"] = self.mixed_pixels(self.masks) > self.t_map
        return pd.DataFrame(found)

    @property
    def fallback(self) -> Html:
        """The mixture as a figure, for readers without scripts."""
        box, patch = self.box, patch_of(self.box, self.source)
        top, left, bottom, right = box
        chosen = [self.first, self.second]
        pair = [self.scenes[k] for k in chosen]
        hole = (..., slice(top, bottom), slice(left, right))
        images = self.data.images[pair].clone()
        images[0][hole] = images[1][..., patch[0] : patch[2], patch[1] : patch[3]].clone()
        share = (bottom - top) * (right - left) / self.maps[0].numel()
        y1, y2 = self.data.labels[pair].float()
        present = self.mixed_pixels(self.maps) > self.min_pixels
        where = {
            "images": images,
            "boxes": torch.tensor([box, box]),
            "sources": torch.tensor([patch, patch]),
            "partner": torch.tensor([1, 0]),
            "applied": torch.tensor([True, False]),
            "_given": self.maps[chosen],
        }
        area, propagated = (
            Mixed(labels=torch.stack((label, y2)), **where)
            for label in ((1 - share) * y1 + share * y2, present.float())
        )
        return drawings.draw_mixing(self.data, pair, area, propagated)
