"""Six kinds of reference-map noise, as on DeepGlobe-ML by Burgert et al. (arXiv 2405.13451, section V-B).

Inside this module a map is an int64 (H,W) array in which −1 stands for background. A segment is an 8-connected
component of one class. Background is ground that nobody labelled: it is never a segment, and whatever a kind of noise
proposes, background stays where it is and no other pixel becomes background.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from numbers import Integral, Real

import numpy as np
import torch
from scipy import ndimage
from skimage import draw, measure
from torch import Generator, Tensor

from rsbook.positions import from_reference_maps, to_labels

KINDS = ("mask_shift", "dilation_erosion", "rectify_borders", "border_deformation", "segment_swap", "class_swap")

ATTEMPTS = 1000  # before a map is left as it is: a single box seldom meets the only odd pixel of a map
POLYGONS = 8  # drawn at most for a re-placed segment: the first near enough to its area, or else the nearest
NEAR_ENOUGH = 0.05  # of the area
MAPS_AT_ONCE = 64  # keeps the memory in between small

Proposals = Iterator[np.ndarray]


def simulate(
    kind: str,
    maps: Tensor,
    *,
    fraction: float,
    intensity: float | None = None,
    num_classes: int,
    background: int | None = None,
    generator: Generator,
) -> Tensor:
    """Reference maps (N,H,W) of class indices 0 … num_classes − 1 with one of six KINDS of noise, as new maps (V-B).

    - mask_shift: by up to `intensity` pixels in a uniform direction, border pixels repeated into what is vacated.
    - dilation_erosion: one random segment, `intensity` times with a 3×3 cross; a fair coin says which of the two.
      Eroded pixels get the majority class of the ring around the segment. Beyond the map a segment goes on.
    - rectify_borders: down by the factor `intensity` and up again; the middle pixel of each block stands for it.
    - border_deformation: `intensity` boxes with sides of 1/30 to 1/7.5 of the map's, at least 2 pixels; a box that
      holds several classes is filled with one of them.
    - segment_swap: one random segment gives way to the majority class of the ring around it, and its class returns
      elsewhere as a random polygon that takes about as many pixels from other classes. On random maps of 120×120
      with six classes half of the polygons come within 1 % of the area, and nine in ten within 9 % (within 5 % for
      segments below a tenth of the map). A segment of more than a third of the map is too large to return in full.
    - class_swap: random segments get one of the other classes, each equally likely.

    fraction is the share of maps that are chosen at random, exactly round(fraction·N); for class_swap it is the share
    of the segments of all maps. A chosen map is drawn again (up to 1,000 times) until some pixel differs, so a shift
    by less than half a pixel does not count. Where nothing can differ (a map of one class, borders that are rectified
    already, classes kept apart by background, class_swap with one class) the chosen map stays as it is.

    The same seed gives the same bytes, and the maps or segments chosen for a fraction are among those of any larger
    one. Except for class_swap, what happens to a chosen map depends on the seed, its index and the map alone.
    intensity is a number ≥ 1 for mask_shift and an integer otherwise, ≥ 2 for rectify_borders; but for the number of
    boxes it is at most the longer side of the map; neither kind of swap has one. Ties of majorities go to the lower
    index. Pixels equal to `background` never change, and no other pixel becomes background. The noise is made on the
    CPU and returned in the type and on the device of `maps`. Raises ValueError for anything out of range.
    """
    _check(kind, maps, fraction, intensity)
    for part in maps.split(MAPS_AT_ONCE):
        from_reference_maps(part, num_classes, background)  # raises for what is not a class
    # Two numbers, whatever follows: the next user of this generator does not depend on fraction or kind.
    seed = torch.randint(2**63 - 1, (2,), generator=generator, device=generator.device).tolist()
    noisy = maps.to("cpu", copy=True, memory_format=torch.contiguous_format).numpy()
    if kind == "class_swap":
        _swap_classes(noisy, fraction, [c for c in range(num_classes) if c != background], background, seed)
    else:
        for i in _random(seed).permutation(len(noisy))[: round(fraction * len(noisy))]:
            before = _as_map(noisy[i], background)
            after = _first_change(before, PROPOSALS[kind](before, intensity, _random(seed, i)))
            _write(after, noisy[i])
    return torch.from_numpy(noisy).to(maps.device)


def changes(
    before: Tensor, after: Tensor, num_classes: int, min_pixels: int = 0, background: int | None = None
) -> dict[str, float]:
    """How far maps (N,H,W) differ from what they were, as shares from 0 to 1 (what section V-B varies).

    maps_changed: of all maps, those with any pixel that differs · pixels_changed: of all pixels that carry a class
    before or after · mean_iou: intersections and unions are summed over all maps for each class, and the ratio is
    averaged over the classes present before or after · labels_lost, labels_gained: both as shares of all labels
    before (so more may be gained than 1), where a class is in a label when more than min_pixels pixels carry it.
    A share of nothing is nan. Raises ValueError for shapes that differ or values that are no class.
    """
    if before.shape != after.shape:
        raise ValueError(f"after: expected the shape of before {tuple(before.shape)}, got {tuple(after.shape)}")
    maps_changed = 0
    pairs = torch.zeros((num_classes + 1) ** 2, dtype=torch.int64)  # pixels by class before and after; last: none
    labels = torch.zeros(3, dtype=torch.int64)  # before, lost, gained
    for old, new in zip(before.cpu().split(MAPS_AT_ONCE), after.cpu().split(MAPS_AT_ONCE), strict=True):
        was, now = (
            to_labels(from_reference_maps(maps, num_classes, background), num_classes, min_pixels)
            for maps in (old, new)
        )
        labels += torch.stack([was.sum(), (was & ~now).sum(), (now & ~was).sum()])
        old, new = (maps.long() for maps in (old, new))
        if background is not None:
            old, new = (torch.where(maps == background, num_classes, maps) for maps in (old, new))
        maps_changed += (old != new).flatten(1).any(dim=1).sum()
        pairs += torch.bincount((old * (num_classes + 1) + new).flatten(), minlength=len(pairs))
    pairs = pairs.view(num_classes + 1, num_classes + 1)
    both = pairs.diagonal()
    either = pairs.sum(dim=0) + pairs.sum(dim=1) - both
    iou = (both.double() / either)[:-1]
    shares = {
        "maps_changed": (maps_changed, torch.tensor(len(before))),
        "pixels_changed": (pairs.sum() - both.sum(), pairs.sum() - pairs[-1, -1]),
        "mean_iou": (iou[either[:-1] > 0].sum(), (either[:-1] > 0).sum()),
        "labels_lost": (labels[1], labels[0]),
        "labels_gained": (labels[2], labels[0]),
    }
    return {name: (part.double() / whole).item() for name, (part, whole) in shares.items()}


def _mask_shift(before: np.ndarray, intensity: float, rng: np.random.Generator) -> Proposals:
    height, width = before.shape
    while True:
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0, intensity)
        down, right = round(distance * math.sin(angle)), round(distance * math.cos(angle))
        rows, columns = np.arange(height) - down, np.arange(width) - right
        yield before[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))]


def _dilation_erosion(before: np.ndarray, intensity: int, rng: np.random.Generator) -> Proposals:
    # As many iterations with a cross reach just as far in city blocks; one distance transform costs less than they do.
    for segments, number, box in _random_segments(before, rng):
        coin = rng.random() < 0.5
        for dilate in (coin, not coin):  # the other way only where this one changes nothing
            after = before.copy()
            if dilate:
                near = _grow(box, intensity, before.shape)
                distance = ndimage.distance_transform_cdt(segments[near] != number, "taxicab")
                after[near][distance <= intensity] = before[segments == number][0]
            elif (majority := _majority_around(before, segments, number, box)) is not None:
                near = _grow(box, 1, before.shape)
                inside = segments[near] == number
                after[near][inside & (ndimage.distance_transform_cdt(inside, "taxicab") <= intensity)] = majority
            yield after


def _rectify_borders(before: np.ndarray, intensity: int, rng: np.random.Generator) -> Proposals:
    def middles(side: int) -> np.ndarray:
        start = np.arange(side) // intensity * intensity
        return (start + np.minimum(start + intensity, side)) // 2  # the last block may be cut

    yield before[np.ix_(*map(middles, before.shape))]


def _border_deformation(before: np.ndarray, intensity: int, rng: np.random.Generator) -> Proposals:
    shape = np.array(before.shape)
    shortest, longest = (np.array([max(2, round(side / part)) for side in shape.tolist()]) for part in (30, 7.5))
    while True:
        after = before.copy()
        sizes = np.minimum(rng.integers(shortest, longest + 1, (intensity, 2)), shape)
        corners = rng.integers(0, shape - sizes + 1)
        for (top, left), (bottom, right) in zip(corners.tolist(), (corners + sizes).tolist(), strict=True):
            box = before[top:bottom, left:right]  # as given: boxes that overlap do not carry a class ever farther
            if box.min() != box.max():
                after[top:bottom, left:right] = rng.choice(np.unique(box[box >= 0]))
        yield after


def _segment_swap(before: np.ndarray, intensity: None, rng: np.random.Generator) -> Proposals:
    for segments, number, box in _random_segments(before, rng):
        majority = _majority_around(before, segments, number, box)
        if majority is None:
            continue
        removed = segments == number
        own = before[removed][0]
        takes_from = (before >= 0) & (before != own)  # elsewhere: neither where it was nor where its class is already
        after = before.copy()
        after[removed] = majority
        after[_polygon_that_takes(removed.sum(), takes_from, rng)] = own
        yield after


PROPOSALS = {
    "mask_shift": _mask_shift,
    "dilation_erosion": _dilation_erosion,
    "rectify_borders": _rectify_borders,
    "border_deformation": _border_deformation,
    "segment_swap": _segment_swap,
}


def _first_change(before: np.ndarray, proposals: Proposals) -> np.ndarray:
    """The first proposal that differs, once background has been put back."""
    known = before[before >= 0]
    if not known.size or known.min() == known.max():  # spares a thousand vain attempts
        return before
    for proposed in islice(proposals, ATTEMPTS):
        after = np.where((before < 0) | (proposed < 0), before, proposed)
        if not np.array_equal(after, before):
            return after
    return before


def _swap_classes(
    maps: np.ndarray, fraction: float, classes: list[int], background: int | None, seed: list[int]
) -> None:
    # Segments are found twice rather than kept: those of 18,000 maps of 120×120 would take 2 GB.
    counts = [_segments(_as_map(one, background)).max(initial=0) for one in maps]
    total = int(sum(counts))
    rng = _random(seed)
    chosen = np.zeros(total, dtype=bool)
    chosen[rng.permutation(total)[: round(fraction * total)]] = True
    if len(classes) < 2:
        return
    steps = rng.integers(1, len(classes), total)  # around the circle of classes, never back to the own one
    classes, ends = np.array(classes), np.cumsum(counts)
    for one, start, end in zip(maps, ends - counts, ends, strict=True):
        if chosen[start:end].any():
            before = _as_map(one, background)
            segments = _segments(before)
            own = np.empty(end - start + 1, dtype=np.int64)
            own[segments] = before
            others = classes[(np.searchsorted(classes, own[1:]) + steps[start:end]) % len(classes)]
            swapped = np.append(-1, np.where(chosen[start:end], others, own[1:]))
            _write(swapped[segments], one)


def _segments(before: np.ndarray) -> np.ndarray:
    """Segment numbers (H,W) from 1; 0 is background."""
    return measure.label(before, background=-1, connectivity=2)


def _random_segments(before: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, int, tuple]]:
    """Each segment once, in random order: all numbers (H,W), its number, and its bounding box as slices."""
    segments = _segments(before)
    boxes = ndimage.find_objects(segments)
    for k in rng.permutation(len(boxes)):
        yield segments, k + 1, boxes[k]


def _majority_around(before: np.ndarray, segments: np.ndarray, number: int, box: tuple) -> int | None:
    """The most frequent class among the pixels that touch a segment; None where none carries a class."""
    near = _grow(box, 1, before.shape)
    inside = segments[near] == number
    ring = before[near][ndimage.binary_dilation(inside, np.ones((3, 3))) & ~inside]
    ring = ring[ring >= 0]
    return int(np.bincount(ring).argmax()) if ring.size else None


def _grow(box: tuple, margin: int, shape: tuple[int, int]) -> tuple:
    """Slices of a box and `margin` pixels around it, cut at the map's borders."""
    return tuple(
        slice(max(0, side.start - margin), min(limit, side.stop + margin))
        for side, limit in zip(box, shape, strict=True)
    )


def _polygon_that_takes(area: int, pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a random polygon that covers about `area` of the given pixels (H,W) bool."""
    polygons, errors = [], []
    while len(polygons) < POLYGONS and min(errors, default=area) > NEAR_ENOUGH * area:
        polygons.append(_polygon(area, pixels.shape, rng))
        errors.append(abs(pixels[polygons[-1]].sum() - area))
    return polygons[int(np.argmin(errors))]


def _polygon(area: int, shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a random polygon of about `area` pixels that lies within the map."""
    corners = rng.integers(4, 10)
    angles = (np.arange(corners) + rng.random(corners)) * (2 * math.pi / corners)  # in order: no side crosses another
    points = rng.uniform(0.5, 1, corners) * np.stack([np.sin(angles), np.cos(angles)])
    (rows, columns), (next_rows, next_columns) = points, np.roll(points, -1, axis=1)
    points *= math.sqrt(area / (abs(rows @ next_columns - columns @ next_rows) / 2))
    low, high = points.min(axis=1), points.max(axis=1)
    # A polygon that is longer than the map is squeezed there and widened across, as far as there is room.
    extent = np.minimum(high - low, shape)
    extent = np.minimum(extent * ((high - low).prod() / extent.prod()), shape)
    corner = rng.uniform(0, shape - extent)
    scaled = (points - low[:, None]) * (extent / (high - low))[:, None] + corner[:, None]
    return draw.polygon(*(scaled - 0.5), shape=shape)  # the first pixel reaches from 0 to 1, its middle is 0.5


def _random(seed: list[int], *index: int) -> np.random.Generator:
    """The stream of all maps, or that of one."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(map(int, index))))


def _as_map(pixels: np.ndarray, background: int | None) -> np.ndarray:
    before = pixels.astype(np.int64)
    return before if background is None else np.where(before == background, -1, before)


def _write(after: np.ndarray, pixels: np.ndarray) -> None:
    np.copyto(pixels, after, where=after >= 0, casting="unsafe")


def _check(kind: str, maps: Tensor, fraction: float, intensity: float | None) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"maps: expected (N,H,W) with at least one pixel a map, got shape {tuple(maps.shape)}")
    if not isinstance(fraction, Real) or not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction}: expected a number from 0 to 1")
    if kind in ("segment_swap", "class_swap"):
        if intensity is not None:
            raise ValueError(f"intensity={intensity}: {kind} has none, expected None")
        return
    lowest = 2 if kind == "rectify_borders" else 1
    highest = math.inf if kind == "border_deformation" else max(maps.shape[1:])
    number, name = (Real, "a number of pixels") if kind == "mask_shift" else (Integral, "an integer")
    fits = isinstance(intensity, number) and not isinstance(intensity, bool) and lowest <= intensity <= highest
    if not fits:
        upper = "" if highest == math.inf else f" and at most the longer side of the map, {highest}"
        raise ValueError(f"intensity={intensity}: for {kind} expected {name}, at least {lowest}{upper}")
