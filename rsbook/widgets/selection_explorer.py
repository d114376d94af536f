"""CromSS's sample selection by hand: epoch, α, γ and ranking; confidences, weights, and the wrong pixels they find."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import matplotlib
import numpy as np
import pandas as pd
import torch
import traitlets
from torch import Tensor

from rsbook import figures, modality_drawings, segmentation, selection
from rsbook.figures import Html
from rsbook.scenes import Scenes
from rsbook.widgets.explorer import Explorer, scene_names, various_scenes

LEAST, STEPS = 50, 51  # α = 0.50, 0.51, … 1.00
RATIOS = [(LEAST + step) / 100 for step in range(STEPS)]
FULL = 255  # confidences are saved in 8 bits


class SelectionExplorer(Explorer):
    """Masks of a training step at several moments of a training, for scenes of its batch (eqs. 2 and 3).

    scene: which of the offered ones · moment: index into `epochs`, which count from 1 · ratio: α, 0.50 … 1.00 in
    hundredths · gamma: γ, 0 … 1 in hundredths · follows: whether both are those of the ramp at this moment, until one
    is set to another value · ranking: as in `selection.selection_weights`. Confidences are those of the networks,
    rounded to 8 bits.
    """

    scene = traitlets.Int().tag(sync=True)
    moment = traitlets.Int().tag(sync=True)
    ratio = traitlets.Float().tag(sync=True)
    gamma = traitlets.Float().tag(sync=True)
    follows = traitlets.Bool().tag(sync=True)
    ranking = traitlets.Enum(selection.RANKINGS).tag(sync=True)
    epochs = traitlets.List(traitlets.Int()).tag(sync=True)
    ramp = traitlets.List().tag(sync=True)  # α and γ of each moment, in hundredths
    modalities = traitlets.List(traitlets.Unicode()).tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(
        self,
        data: Scenes,
        scenes: Sequence[int] | Tensor,
        maps: Tensor,
        logits: Tensor,
        epochs: Sequence[int],
        ramp_length: int,
        shown: int = 8,
    ) -> None:
        """Offer `shown` various ones of a batch of `scenes` (n,) of `data`, which has two modalities and clean maps.

        maps (n,H,W): their noisy maps, negative without a label · logits (E,2,n,K,H,W): of both modalities at each
        moment · epochs: of the moments, from 1 · ramp_length: epochs until selection is at full strength. Raises
        ValueError for shapes that do not fit, for data of other than two modalities or without maps, for classes that
        there are not, and for logits that are not finite.
        """
        scenes = [int(i) for i in scenes]
        _check(data, scenes, maps, logits, epochs, shown)
        maps = maps.clamp(min=-1)
        self.data, self.scenes = data, various_scenes(data, torch.tensor(scenes), shown)
        rows = [scenes.index(i) for i in self.scenes]
        self.maps, self.logits = maps[rows], logits[:, :, rows]
        self.clean = segmentation.maps_of(data, torch.tensor(self.scenes))
        probabilities = [[own.float().softmax(dim=1) for own in moment] for moment in logits]
        labels = _packed([[selection.label_confidence(q, maps) for q in moment] for moment in probabilities])
        self._labels = labels[:, :, rows]
        self._entities = _packed([[selection.entity_confidence(q[rows]) for q in moment] for moment in probabilities])
        self._thresholds = _find_thresholds(labels, maps, len(data.classes))
        risen = [selection.ramp(epoch - 1, ramp_length) for epoch in epochs]
        ramp = [[round(selection.selection_ratio(r), 2), round(r, 2)] for r in risen]
        pictures = [[modality_drawings.picture(data, i, name) for name in data.modalities] for i in self.scenes]
        heat = matplotlib.colormaps["viridis"](np.linspace(0, 1, FULL + 1), bytes=True)[:, :3]
        super().__init__(
            arrays={
                "pictures": np.array(pictures),
                "clean": self.clean.to(torch.int8),
                "noisy": self.maps.to(torch.int8),
                "labels": _differences(self._labels),
                "entities": _differences(self._entities),
                "predictions": self.logits.argmax(dim=3).to(torch.int8),
                "thresholds": self._thresholds.to(torch.int32),
                "heat": heat,
            },
            scene=0,
            moment=len(epochs) - 1,
            ratio=ramp[-1][0],
            gamma=ramp[-1][1],
            follows=True,
            ranking="global",
            epochs=list(epochs),
            ramp=ramp,
            modalities=list(data.modalities),
            classes=list(data.classes),
            colours=figures.class_colours(data.classes),
            names=scene_names(data, self.scenes),
            caption=f"What a training step on a batch of {len(scenes)} scenes makes of one of them. F_l: confidence in "
            "the label of the noisy map; F′_l: enhanced by the other modality (eq. 2); W_l: weight in the loss, 1 for "
            "the share α of the batch's pixels that are most believed (eq. 3); W_e: weight with which the modality "
            "teaches the other. Precision: the share of wrong pixels among those with a W_l below 1. Recall: the share "
            "of the wrong pixels that have one.",
        )

    @cached_property
    def fallback(self) -> Html:
        """The whole flow on the first scene at the last moment."""
        risen = self.ramp[-1][1]
        return modality_drawings.draw_selection(
            self.data, self.scenes[0], self.maps[0], self.logits[-1][:, 0], risen, self.ranking
        )

    @traitlets.observe("moment", "ratio", "gamma", "follows")
    def _follow(self, change: traitlets.Bunch) -> None:
        """α and γ go with the moment while they follow it; one that is set to another value follows no longer."""
        if not self.follows:
            return
        ramp = self.ramp[self.moment]
        if change.name in ("ratio", "gamma"):
            self.follows = [self.ratio, self.gamma] == ramp
        else:
            with self.hold_trait_notifications():  # or the first of them would seem to be set by hand
                self.ratio, self.gamma = ramp

    def read_out(self) -> pd.DataFrame:
        """What the masks do to right and wrong pixels of the scene, a row a modality; nan where there are none.

        precision: the share of wrong pixels among those with W_l < 1 · recall: of the wrong pixels, the share with
        W_l < 1 · right, wrong: mean W_l of both kinds · teaches: mean W_e of all pixels. Raises ValueError for α and γ
        that are not offered.
        """
        if self.ratio not in RATIOS or not 0 <= self.gamma <= 1:
            raise ValueError(f"ratio={self.ratio}, gamma={self.gamma}: expected one of 0.50, 0.51, … 1.00, and 0 … 1")
        maps, rows = self.maps[self.scene], []
        known = maps >= 0
        bad = (maps != self.clean[self.scene]) & known
        step = RATIOS.index(self.ratio)
        for m, name in enumerate(self.modalities):
            score = _scores(self._labels[self.moment, :, self.scene], m)
            threshold = self._thresholds[self.moment, m, :, step]
            own = threshold[0] if self.ranking == "global" else threshold[1:][maps.clamp(min=0)]
            low = (score < own) & known
            weights = torch.where(low, score / own, 1.0)
            entity = _scores(self._entities[self.moment, :, self.scene], m) / (2 * FULL**2)
            rows.append(
                {
                    "modality": name,
                    "precision": (low & bad).sum().item() / low.sum().item() if low.any() else float("nan"),
                    "recall": (low & bad).sum().item() / bad.sum().item() if bad.any() else float("nan"),
                    "right": weights[known & ~bad].mean().item(),
                    "wrong": weights[bad].mean().item(),
                    "teaches": selection.consistency_weights(entity, self.gamma).mean().item(),
                }
            )
        return pd.DataFrame(rows)


def _check(
    data: Scenes, scenes: Sequence[int], maps: Tensor, logits: Tensor, epochs: Sequence[int], shown: int
) -> None:
    size = tuple(data.images.shape[2:])
    expected = (len(scenes), *size), (len(epochs), 2, len(scenes), len(data.classes), *size)
    given = tuple(maps.shape), tuple(logits.shape)
    if len(data.modalities) != 2 or not scenes or shown < 1 or not epochs or given != expected:
        raise ValueError(
            f"{data.name}: expected 2 modalities, maps {expected[0]} and logits {expected[1]} with no size of 0, got "
            f"{len(data.modalities)} modalities, maps {given[0]} and logits {given[1]}, to show {shown}"
        )
    if data.positions is None:
        raise ValueError(f"{data.name}: the explorer needs reference maps")
    if maps.max() >= len(data.classes) or not logits.isfinite().all():
        raise ValueError(f"{data.name}: expected classes below {len(data.classes)} in maps, and logits that are finite")


def _find_thresholds(labels: Tensor, maps: Tensor, num_classes: int) -> Tensor:
    """The lowest selected score (E,2,1+K,STEPS) int64 of all pixels of the batch, and of those of each label.

    labels: confidences (E,2,n,H,W) uint8 · maps (n,H,W). 0, and so selecting all, where there is no such label.
    """
    groups = [maps >= 0, *(maps == c for c in range(num_classes))]
    found = torch.zeros(*labels.shape[:2], len(groups), STEPS, dtype=torch.int64)
    for e, moment in enumerate(labels):
        for m in range(2):
            score = _scores(moment, m)
            for g, group in enumerate(groups):
                ordered = score[group].sort(descending=True).values
                for step in range(STEPS if len(ordered) else 0):
                    count = selection.selected_count(len(ordered), RATIOS[step])
                    found[e, m, g, step] = ordered[count - 1]
    return found


def _packed(confidences: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(list(moment)) for moment in confidences]).mul(FULL).round().to(torch.uint8)


def _differences(confidences: Tensor) -> np.ndarray:
    """(…,H,W) uint8 as what is new from column to column and row to row, modulo 256, which packs into a third less."""
    values = confidences.numpy()
    for axis in (-1, -2):
        values = np.diff(values, axis=axis, prepend=np.uint8(0))
    return values


def _scores(confidences: Tensor, modality: int) -> Tensor:
    """F′ of one of two modalities (2,…) uint8, as an integer: 2 · 255² · F′, so that no page rounds otherwise."""
    own, other = confidences[modality].long(), confidences[1 - modality].long()
    return own * (FULL + other)
