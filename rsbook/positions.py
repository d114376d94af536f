"""Class positions: where in an image each class is, as one bit mask a pixel, and the labels that follow from them.

A reference map (one class a pixel) and a set of explanation masks (any number of classes a pixel) take the same form:
an int32 (B,H,W) whose bit l says "class l is here". Burgert et al. (arXiv 2405.13451), section III, call both class
positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_CLASSES = 32
CACHED_PIXELS = 2**17  # counted at a time on a CPU: what stays in its cache is counted up to ten times faster


def from_reference_maps(maps: Tensor, num_classes: int, background: int | None = None) -> Tensor:
    """Bit masks (B,H,W) int32 of reference maps (B,H,W) of class indices 0 … num_classes − 1 (section III-C).

    Pixels that hold `background` carry no class. Raises ValueError for more than 32 classes, a wrong shape, a map
    that is not of integers, or an index outside the set.
    """
    _check_classes(num_classes)
    if maps.ndim != 3 or maps.is_floating_point() or maps.dtype == torch.bool:
        raise ValueError(f"maps: expected integers of shape (B,H,W), got {maps.dtype} of shape {tuple(maps.shape)}")
    indices = maps.to(torch.int64)
    known = torch.ones_like(indices, dtype=torch.bool) if background is None else indices != background
    outside = known & ((indices < 0) | (indices >= num_classes))
    if outside.any():
        raise ValueError(
            f"maps: class index {int(indices[outside][0])} is outside 0 … {num_classes - 1}; "
            "if it stands for unknown ground, pass it as `background`"
        )
    return known.to(torch.int32) << torch.where(known, indices, 0).to(torch.int32)  # class 31 is the sign bit


def from_explanation_masks(masks: Tensor) -> Tensor:
    """Bit masks (B,H,W) int32 of explanation masks (B,L,H,W) bool (section III-D).

    Raises ValueError for more than 32 classes, a wrong shape or a type other than bool.
    """
    if masks.ndim != 4 or masks.dtype != torch.bool:
        raise ValueError(f"masks: expected bool of shape (B,L,H,W), got {masks.dtype} of shape {tuple(masks.shape)}")
    _check_classes(masks.shape[1])
    bits = torch.zeros_like(masks[:, 0], dtype=torch.int32)
    for layer in range(masks.shape[1]):
        bits |= masks[:, layer].to(torch.int32) << layer
    return bits


def to_masks(bits: Tensor, num_classes: int) -> Tensor:
    """Masks (B,L,H,W) bool of bit masks (B,H,W): the inverse of `from_explanation_masks`."""
    check_bits(bits, num_classes)
    return torch.stack([(bits >> layer & 1).bool() for layer in range(num_classes)], dim=1)


def to_reference_maps(bits: Tensor, num_classes: int) -> Tensor:
    """Reference maps (B,H,W) int64 of bit masks (B,H,W) with at most one class a pixel; −1 where there is none.

    The inverse of `from_reference_maps` with −1 as background. Raises ValueError where a pixel carries two classes.
    """
    check_bits(bits, num_classes)
    maps = torch.full(bits.shape, -1, dtype=torch.int64, device=bits.device)
    for layer in range(num_classes):
        maps[bits == _bit(layer)] = layer
    if (bits[maps < 0] != 0).any():
        raise ValueError(
            "positions: a pixel carries several classes, so there is no reference map with these positions"
        )
    return maps


def count(bits: Tensor, num_classes: int) -> Tensor:
    """Pixels (B,L) int32 that carry each class in bit masks (B,H,W)."""
    check_bits(bits, num_classes)
    return torch.cat(
        [
            torch.stack([(part >> layer & 1).sum(dim=1, dtype=torch.int32) for layer in range(num_classes)], dim=1)
            for part in bits.flatten(1).split(_cached(bits))
        ]
    )


def to_labels(bits: Tensor, num_classes: int, min_pixels: int = 0) -> Tensor:
    """Labels (B,L) bool: class l is present when more than `min_pixels` pixels carry bit l.

    This is φ of eq. (9) with min_pixels = 0 and ψ of eq. (11) with min_pixels = t_map. Raises ValueError for a negative
    min_pixels or a wrong shape.
    """
    check_min_pixels(min_pixels)
    return count(bits, num_classes) > min_pixels


class AreaTables:
    """Summed-area tables of class positions: the pixels of each class in any box from four look-ups, whatever its size.

    bits (N,H,W) int32 and num_classes ≤ 32. Indexing with (B,) indices gives a view on these scenes that shares the
    tables, so a data set's tables are made once and each batch only looks up. Memory: N·(H+1)·(W+1)·L entries of 2
    bytes (4 where an image has more than 32,767 pixels). Raises ValueError for a wrong shape or too many classes.
    """

    def __init__(self, bits: Tensor, num_classes: int) -> None:
        check_bits(bits, num_classes)
        height, width = bits.shape[1:]
        dtype = torch.int16 if height * width < 2**15 else torch.int32
        tables = torch.zeros(len(bits), height + 1, width + 1, num_classes, dtype=dtype, device=bits.device)
        for part, table in zip(bits.split(_cached(bits)), tables.split(_cached(bits)), strict=True):
            for layer in range(num_classes):  # one at a time keeps the memory in between at that of the bit masks
                table[:, 1:, 1:, layer] = (part >> layer & 1).cumsum(2, dtype=dtype)
            for row in range(2, height + 1):  # `cumsum` down columns of large images misses the cache at every step
                table[:, row] += table[:, row - 1]
        self._bits, self.num_classes, self.shape = bits, num_classes, (height, width)
        self._rows = tables.view(-1, num_classes)  # classes last: one look-up reads all classes of a corner
        self._index = torch.arange(len(bits), device=bits.device)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Tensor) -> AreaTables:
        return self._with(_index=self._index[index.to(self.device)])

    def to(self, device: torch.device | str) -> AreaTables:
        """The same tables on another device."""
        return self._with(**{name: getattr(self, name).to(device) for name in ("_bits", "_rows", "_index")})

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self._rows.device

    @property
    def bits(self) -> Tensor:
        """Bit masks (B,H,W) int32 of these scenes."""
        return self._bits[self._index]

    def totals(self) -> Tensor:
        """Pixels (B,L) of each class in each whole image."""
        height, width = self.shape
        return self._rows.index_select(0, (self._index + 1) * ((height + 1) * (width + 1)) - 1)

    def counts(self, boxes: Tensor) -> Tensor:
        """Pixels (B,L) of each class inside boxes (B,4), half-open: top, left, bottom, right."""
        height, width = self.shape
        scene = self._index.view(-1, 1, 1) * (height + 1)
        corners = (scene + boxes[:, 0::2].unsqueeze(2)) * (width + 1) + boxes[:, 1::2].unsqueeze(1)
        above, below = self._rows.index_select(0, corners.flatten()).view(-1, 2, 2, self.num_classes).unbind(dim=1)
        left, right = (below - above).unbind(dim=1)
        return right - left

    def _with(self, **changes: Tensor) -> AreaTables:
        view = object.__new__(AreaTables)
        view.__dict__.update(self.__dict__, **changes)
        return view


def _cached(bits: Tensor) -> int:
    """How many of bit masks (B,H,W) to look at together."""
    return max(1, CACHED_PIXELS // max(1, bits[0].numel()) if bits.device.type == "cpu" and len(bits) else len(bits))


def _bit(layer: int) -> int:
    return 1 << layer if layer < MAX_CLASSES - 1 else -(1 << layer)  # class 31 is the sign bit


def _check_classes(num_classes: int) -> None:
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes={num_classes}: one bit a class in an int32 holds 1 to {MAX_CLASSES} classes")


def check_bits(bits: Tensor, num_classes: int) -> None:
    """Raise ValueError unless bits are bit masks (B,H,W) int32 of at most 32 classes."""
    _check_classes(num_classes)
    if bits.ndim != 3 or bits.dtype != torch.int32:
        raise ValueError(
            f"positions: expected int32 bit masks of shape (B,H,W), got {bits.dtype} of shape {tuple(bits.shape)}"
        )


def check_min_pixels(min_pixels: int) -> None:
    """Raise ValueError for a negative number of pixels."""
    if min_pixels < 0:
        raise ValueError(f"min_pixels={min_pixels}: expected a number of pixels ≥ 0")
