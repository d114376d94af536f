"""Boxes by hand: an area range, the draws that Algorithm 1 keeps, and where and how large they are, against theory."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
import torch
import traitlets

from rsbook import drawings
from rsbook.figures import Html
from rsbook.mixing import sample_boxes
from rsbook.presets import TABLE_II_RANGES
from rsbook.widgets.explorer import Explorer

STEP = 0.05  # of the sliders
LARGEST = 256  # pixels a side: what is counted again within a frame
MAX_DRAWS = 200_000  # as many are looked at again within a frame
BINS = 20


class BoxSampler(Explorer):
    """Algorithm 1 draws boxes in an area range that the reader moves; coverage and areas, sampled and in theory.

    area_range: A_min, A_max in steps of 0.05 · seed, draws: the boxes shown are those that Algorithm 1 keeps of so many
    draws, two rows and two columns each, from this seed; another range keeps others of the same draws.
    """

    height = traitlets.Int().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    area_range = traitlets.List(traitlets.Float(), minlen=2, maxlen=2).tag(sync=True)
    area_ranges = traitlets.List().tag(sync=True)
    seed = traitlets.Int(1, min=0, max=2**31 - 1).tag(sync=True)
    draws = traitlets.Int(0, min=0, max=MAX_DRAWS).tag(sync=True)
    max_draws = traitlets.Int(MAX_DRAWS, read_only=True).tag(sync=True)
    bins = traitlets.Int(BINS, read_only=True).tag(sync=True)

    def __init__(
        self,
        height: int,
        width: int,
        area_range: Sequence[float] = (0.3, 0.7),
        area_ranges: Sequence[Sequence[float]] = TABLE_II_RANGES,
    ) -> None:
        """Sample boxes in an image of height × width pixels; area_ranges are offered beside the sliders.

        Raises ValueError for a side of less than 1 or more than 256 pixels, ranges that are not in steps of 0.05
        within (0, 1], or an area_range that no box of whole pixels meets.
        """
        if not (1 <= height <= LARGEST and 1 <= width <= LARGEST):
            raise ValueError(f"height={height}, width={width}: expected 1 to {LARGEST} pixels each")
        area_range = _check_range(area_range)
        sample_boxes(1, height, width, area_range, torch.Generator())  # says so when none fits
        colours = np.array(matplotlib.colormaps["viridis"].colors) * 255
        super().__init__(
            arrays={"colours": colours.round().astype(np.uint8)},
            caption="Algorithm 1 draws two rows and two columns and keeps the box between them if its area, as a share "
            "of the image, lies from A_min to A_max. Every box of a fitting area is equally likely, but not every "
            "pixel is equally often in the hole, and not every area is equally frequent.",
            height=height,
            width=width,
            area_range=area_range,
            area_ranges=[_check_range(pair) for pair in area_ranges],
        )
        self._initial = tuple(area_range)

    @functools.cached_property
    def fallback(self) -> Html:
        """Where boxes of the initial range fall, and their areas, as a figure; drawn when it is asked for."""
        boxes = sample_boxes(2000, self.height, self.width, self._initial, torch.Generator().manual_seed(42))
        return drawings.draw_boxes({self._initial: boxes}, self.height, self.width)

    @traitlets.validate("area_range")
    def _validate_range(self, proposal: dict) -> list[float]:
        return _check_range(proposal["value"])

    def read_out(self) -> pd.DataFrame:
        """What the state says, a row a quantity: number of boxes, mean area, share of draws kept, coverage; sampled
        and in theory.
        """
        sampled, fits, (covered, expected) = self.boxes(), self._places(), self.coverage()
        areas = (sampled[:, 2] - sampled[:, 0]) * (sampled[:, 3] - sampled[:, 1]) / (self.height * self.width)
        every = ((self.height + 1) * (self.width + 1)) ** 2  # draws of two rows and two columns, all equally likely
        centre = self.height // 2, self.width // 2
        return pd.DataFrame(
            {
                "boxes": (len(sampled), fits.sum()),
                "mean_area": (
                    areas.mean() if len(areas) else np.nan,
                    (fits * self._areas()).sum() / fits.sum() / fits.size if fits.any() else np.nan,
                ),
                "kept": (  # either row may be drawn first, either column too
                    len(sampled) / self.draws if self.draws else np.nan,
                    4 * fits.sum() / every,
                ),
                "centre": (covered[centre], expected[centre]),
                "corner": (covered[0, 0], expected[0, 0]),
            },
            index=["sampled", "theory"],
        ).T

    def boxes(self) -> np.ndarray:
        """The boxes (n,4) that were kept: top, left, bottom, right, half-open; the same as in the page."""
        drawn = _mulberry32(self.seed, 4 * self.draws).reshape(-1, 4)
        places = np.floor(drawn * [self.height + 1, self.height + 1, self.width + 1, self.width + 1]).astype(int)
        rows, columns = np.sort(places[:, :2]), np.sort(places[:, 2:])
        smallest, largest = self._limits()
        area = (rows[:, 1] - rows[:, 0]) * (columns[:, 1] - columns[:, 0])
        return np.column_stack((rows, columns))[(smallest <= area) & (area <= largest)][:, [0, 2, 1, 3]]

    def coverage(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each pixel (H,W) lies in a box, as a share of the boxes, sampled and in theory."""
        counts = np.zeros((self.height, self.width))
        for top, left, bottom, right in (boxes := self.boxes()):
            counts[top:bottom, left:right] += 1
        fits = self._places() > 0  # of each size
        expected = _covering(self.height).T @ fits @ _covering(self.width)
        with np.errstate(invalid="ignore"):  # no box at all
            return counts / np.float64(len(boxes)), expected / self._places().sum()

    def histogram(self) -> pd.DataFrame:
        """Shares of the boxes by area, a row a bin: areas in pixels from `first` to `last`, sampled and in theory."""
        smallest, largest = self._limits()
        span = largest - smallest + 1
        bins = max(0, min(BINS, span))
        edges = [smallest + -(-i * span // bins) for i in range(bins)] + [largest + 1]
        boxes, fits = self.boxes(), self._places()
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        with np.errstate(invalid="ignore"):
            sampled = np.histogram(area, edges)[0] / np.float64(len(area))
            expected = np.histogram(self._areas(), edges, weights=fits)[0] / fits.sum()
        last = np.array(edges[1:]) - 1
        return pd.DataFrame({"first": edges[:-1], "last": last, "sampled": sampled, "theory": expected})

    def _limits(self) -> tuple[int, int]:
        """The smallest and the largest area in pixels, as `mixing.sample_boxes` has them."""
        low, high = self.area_range
        pixels = self.height * self.width
        return math.ceil(low * pixels - 1e-6), math.floor(high * pixels + 1e-6)

    def _areas(self) -> np.ndarray:
        """Pixels of a box of each size (H,W): heights from 1, widths from 1."""
        return np.outer(np.arange(1, self.height + 1), np.arange(1, self.width + 1))

    def _places(self) -> np.ndarray:
        """In how many places (H,W) a box of each size lies in the image; none where its area does not fit."""
        smallest, largest = self._limits()
        places = np.outer(np.arange(self.height, 0, -1), np.arange(self.width, 0, -1))
        return places * ((smallest <= self._areas()) & (self._areas() <= largest))


def _check_range(area_range: Sequence[float]) -> list[float]:
    found = [round(float(edge), 9) for edge in area_range]
    if len(found) != 2 or not 0 < found[0] <= found[1] <= 1:
        raise ValueError(f"area_range={found}: expected 0 < A_min ≤ A_max ≤ 1, fractions of the image")
    if any(abs(edge / STEP - round(edge / STEP)) > 1e-6 for edge in found):
        raise ValueError(f"area_range={found}: expected steps of {STEP}, as the sliders have them")
    return found


def _covering(size: int) -> np.ndarray:
    """How many segments of each length (from 1) in `size` pixels cover each pixel: (size, size)."""
    lengths = range(1, size + 1)
    return np.stack([np.convolve(np.ones(size + 1 - length), np.ones(length)) for length in lengths])


def _mulberry32(seed: int, n: int) -> np.ndarray:
    """The first n uniform numbers in [0, 1) that `random(seed)` of common.mjs gives."""
    state = np.uint32(seed) + np.arange(1, n + 1, dtype=np.uint32) * np.uint32(0x6D2B79F5)
    t = (state ^ (state >> np.uint32(15))) * (state | np.uint32(1))
    t ^= t + (t ^ (t >> np.uint32(7))) * (t | np.uint32(61))
    return (t ^ (t >> np.uint32(14))) / 2**32
