"""CutMix and label propagation by hand: two scenes, a box to drag, and three labels of the mixture side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
import traitlets
from torch import Tensor

from rsbook import drawings, figures
from rsbook.figures import Html
from rsbook.mixing import Mixed
from rsbook.positions import AreaTables
from rsbook.presets import TABLE_II_RANGES
from rsbook.scenes import Scenes
from rsbook.widgets.explorer import Explorer, check_box, rgb, scene_names


class CutMixExplorer(Explorer):
    """Two scenes are mixed with a box that the reader drags; labels by area (eq. 6), map (eqs. 7–9), mask (10–11).

    first, second: which of the offered scenes are x₁ and x₂ · box: the hole in x₁, top, left, bottom, right, half-open
    · source: top, left of the patch in x₂, as large as the hole · area_range: what the box's area is held against.
    """

    first = traitlets.Int().tag(sync=True)
    second = traitlets.Int().tag(sync=True)
    box = traitlets.List(traitlets.Int(), minlen=4, maxlen=4).tag(sync=True)
    source = traitlets.List(traitlets.Int(), minlen=2, maxlen=2).tag(sync=True)
    area_range = traitlets.List(traitlets.Float(), minlen=2, maxlen=2).tag(sync=True)
    area_ranges = traitlets.List().tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    min_pixels = traitlets.Int().tag(sync=True)
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
        scenes = [int(i) for i in scenes]
        if len(scenes) < 2 or data.positions is None:
            raise ValueError(f"{data.name}: the explorer needs two scenes or more, with reference maps")
        maps = data.positions[scenes]
        if masks is not None and masks.shape != maps.shape:
            raise ValueError(f"masks: have shape {tuple(masks.shape)}, expected {tuple(maps.shape)}")
        height, width = maps.shape[1:]
        super().__init__(
            arrays={"images": rgb(data, scenes), "maps": maps, "labels": data.labels[scenes].to(torch.uint8)}
            | ({} if masks is None else {"masks": masks}),
            first=0,
            second=1,
            box=[height // 4, width // 8, height - height // 8, width - width // 4],
            source=[height // 8, width // 4],
            area_range=list(area_ranges[-1]),
            caption="Two scenes, and their mixture by CutMix. Drag the box or its corners, in the first scene or the "
            "second, or move it with the arrow keys. A class that a label names though the mixture holds "
            f"{data.min_pixels} pixels of it or fewer is wrongly added; one that it holds and the label leaves out is "
            "wrongly removed.",
            area_ranges=[list(pair) for pair in area_ranges],
            classes=list(data.classes),
            colours=figures.class_colours(data.classes),
            names=scene_names(data, scenes),
            min_pixels=data.min_pixels,
            t_map=t_map,
        )
        self.data, self.scenes, self.maps, self.masks = data, scenes, maps, masks

    def read_out(self) -> pd.DataFrame:
        """The labels of the mixture as it stands, a row a class: pixels left, weight by area, presence by map and mask.

        Raises ValueError for a box or source that leaves its scene.
        """
        height, width = self.maps.shape[1:]
        box = check_box(self.box, height, width)
        top, left = self.source
        patch = check_box((top, left, top + box[2] - box[0], left + box[3] - box[1]), height, width, "source")
        share = (box[2] - box[0]) * (box[3] - box[1]) / (height * width)
        y1, y2 = (self.data.labels[self.scenes[k]].double() for k in (self.first, self.second))
        pixels = self._mixed_pixels(self.maps, box, patch)
        found = {
            "class": self.data.classes,
            "pixels": pixels,
            "area": (1 - share) * y1 + share * y2,
            "reference_map": pixels > self.min_pixels,
        }
        if self.masks is not None:
            found["explanation_mask"] = self._mixed_pixels(self.masks, box, patch) > self.t_map
        return pd.DataFrame(found)

    def _mixed_pixels(self, bits: Tensor, box: tuple[int, ...], patch: tuple[int, ...]) -> Tensor:
        """Pixels (L,) of each class in the mixture of these class positions."""
        tables = AreaTables(bits[[self.first, self.second]], len(self.data.classes))
        first, second = tables[torch.tensor([0])], tables[torch.tensor([1])]
        hole, patch = (torch.tensor([corners]) for corners in (box, patch))
        return (first.totals() - first.counts(hole) + second.counts(patch))[0]

    @property
    def fallback(self) -> Html:
        """The mixture as a figure, for readers without scripts."""
        box = self.box
        (top, left, bottom, right), (row, column) = box, self.source
        chosen = [self.first, self.second]
        pair = [self.scenes[k] for k in chosen]
        hole = (..., slice(top, bottom), slice(left, right))
        patch = (row, column, row + bottom - top, column + right - left)
        images = self.data.images[pair].clone()
        images[0][hole] = images[1][..., patch[0] : patch[2], patch[1] : patch[3]].clone()
        share = (bottom - top) * (right - left) / self.maps[0].numel()
        y1, y2 = self.data.labels[pair].float()
        present = self._mixed_pixels(self.maps, box, patch) > self.data.min_pixels
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
