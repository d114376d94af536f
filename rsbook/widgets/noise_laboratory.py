"""Map noise by hand: kind, intensity and fraction; clean and noisy maps, and the labels that both propagate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pandas as pd
import torch
import traitlets
from torch import Tensor

from rsbook import drawings, label_propagation, noise, presets
from rsbook.comparisons import level_text
from rsbook.figures import Html
from rsbook.positions import to_reference_maps
from rsbook.scenes import Scenes
from rsbook.widgets.explorer import PairExplorer, pair_of

Levels = Mapping[str, Iterable[Sequence[float | None]]]


class NoiseLaboratory(PairExplorer):
    """Map noise (section V-B) at levels that the reader chooses, and the label of a mixture by clean and noisy maps.

    level: kind, fraction and intensity (None for the swaps), one of `levels` · first, second: which of the offered
    scenes are x₁ and x₂ · box: the hole in x₁, top, left, bottom, right, half-open · source: top, left of the patch in
    x₂, as large as the hole.
    """

    level = traitlets.List(minlen=3, maxlen=3).tag(sync=True)
    levels = traitlets.List().tag(sync=True)

    def __init__(
        self,
        data: Scenes,
        scenes: Sequence[int],
        *,
        kinds: Iterable[str] = noise.KINDS,
        levels: Levels | None = None,
        seed: int = 42,
    ) -> None:
        """Offer the `scenes` of `data`, which has reference maps, with each of the kinds of noise at its levels.

        levels: for each kind pairs of fraction and intensity, by default those of the full preset. Raises ValueError
        for fewer than two scenes, scenes without reference maps, and for kinds and levels that there are not.
        """
        scenes = pair_of(data, scenes)
        offered = _offered(list(kinds), levels, data.name)
        self.data, self.seed, self.maps = data, seed, data.positions[scenes]
        super().__init__(
            data,
            scenes,
            arrays={
                "clean": self._indices(self.maps),
                # scene by scene: levels of one map are alike, and what is alike packs well when it is near
                "noisy": torch.stack([self._indices(self._noisy(level)) for level in offered], dim=1),
            },
            level=[level for level in offered if level[0] == offered[0][0]][-1],  # the strongest of the first kind
            levels=offered,
            caption="Map noise, and the label that label propagation then reads from the mixture. Choose the noise, "
            "and drag the box or its corners in either scene, or move it with the arrow keys. A class is in the label "
            f"when more than {data.min_pixels} pixels of it are left; one that only the noisy map names is wrongly "
            f"added, one that only the clean map names is wrongly removed. The noise is drawn with seed {seed}.",
        )

    @cached_property
    def fallback(self) -> Html:
        """The maps of the offered scenes, clean and with the noise of `level`."""
        kind, *level = self.level
        drawn = {f"{kind.replace('_', ' ')}\n{level_text(level)}": self._noisy_now()}
        return drawings.draw_noise(self.data, self.scenes, self.maps, drawn)

    def read_out(self) -> pd.DataFrame:
        """The labels of the mixture as it stands, a row a class: pixels in, and presence by, the clean and noisy map.

        Raises ValueError for a box or source that leaves its scene, and for a level that is not offered.
        """
        clean, noisy = (self.mixed_pixels(bits) for bits in (self.maps, self._noisy_now()))
        return pd.DataFrame(
            {
                "class": self.data.classes,
                "clean_pixels": clean,
                "noisy_pixels": noisy,
                "clean_label": clean > self.min_pixels,
                "noisy_label": noisy > self.min_pixels,
            }
        )

    def changed(self) -> Tensor:
        """Share (n,) of the pixels of each offered scene's map that the noise changed, in 0 … 1."""
        return (self._noisy_now() != self.maps).flatten(1).double().mean(dim=1)

    def _noisy_now(self) -> Tensor:
        if self.level not in self.levels:
            raise ValueError(f"level={self.level}: expected one of `levels`")
        return self._noisy(self.level)

    def _noisy(self, level: Sequence[Any]) -> Tensor:
        """Class positions (n,H,W) of the offered scenes with noise."""
        return label_propagation.noisy(self.maps, len(self.data.classes), *level, self.seed)

    def _indices(self, bits: Tensor) -> Tensor:
        """Class indices (n,H,W) in a byte each, −1 for background."""
        return to_reference_maps(bits, len(self.data.classes)).to(torch.int8)


def _offered(kinds: list[str], levels: Levels | None, dataset: str) -> list[list[Any]]:
    """Every kind, fraction and intensity; raises ValueError unless each kind is known, there once, and has levels."""
    if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(noise.KINDS):
        raise ValueError(f"kinds={kinds}: expected some of {', '.join(noise.KINDS)}, none twice")
    if levels is None:
        levels = presets.load("label_propagation", "full", dataset)["noise_levels"]
    offered = [[kind, *level] for kind in kinds for level in levels.get(kind, ())]
    for kind in kinds:
        own = [level for level in offered if level[0] == kind]
        if not own or any(len(level) != 3 or own.count(level) > 1 for level in own):
            raise ValueError(f"levels: expected pairs (fraction, intensity) for {kind}, at least one and none twice")
    return offered
