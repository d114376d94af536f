"""AffinityNet: how alike neighbouring pixels are, learnt from confident activations, and activations walked by it.

Ahn and Kwak (CVPR 2018, arXiv 1803.10464), with the settings of the authors' code. Activation maps are (B,L,h,w),
normalised to 0 … 1; features (B,F,h,w) of the same size; a map of classes has L where the ground is background. A pair
is a pixel (y, x) and its neighbour at (y + dy, x + dx), for an offset (dy, dx). Nothing here holds a value for every
two pixels: of N pixels each has a value for its neighbours alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import elu, interpolate, pad

from rsbook.models import drawn_from

IGNORED = -1
WIDTHS = (64, 128, 256)
EPSILON = 1e-5  # keeps the logarithm of 1 − a finite where a is 1
NEGLIGIBLE = 1e-10  # the weight, of 1 in all, of what a walk leaves out: far below the rounding of float32

Offset = tuple[int, int]


def neighbours(radius: int) -> list[Offset]:
    """Offsets (dy, dx) in pixels to the neighbours nearer than a radius in one half of the plane, each pair once.

    In the order of rows, then columns; a radius of 5 (the paper) gives 34. Raises ValueError for a radius below 2.
    """
    if radius < 2:
        raise ValueError(f"radius={radius}: expected 2 pixels or more, as a nearer pixel is the pixel itself")
    across = range(1 - radius, radius)
    return [(dy, dx) for dy in range(radius) for dx in across if (dy, dx) > (0, 0) and math.hypot(dy, dx) < radius]


def confident_labels(maps: Tensor, present: Tensor, low: float = 4.0, high: float = 32.0) -> Tensor:
    """Affinity labels (B,h,w) int64 of maps (B,L,h,w) in 0 … 1 and present classes (B,L) bool: class, L or −1.

    The background's score is (1 − max)^α, max taken over the present classes. `low` makes it large: the class that wins
    even so is confident foreground. `high` makes it small: where it wins even so, or ties, is confident background (L).
    All else is −1, of which nothing is learnt. The paper refines both scores by a dense CRF first; that is left out
    here, as no kept library offers one. Raises ValueError for maps and present that do not fit and `high` below `low`.
    """
    _check_maps(maps, present)
    if not 0 < low <= high:
        raise ValueError(f"low={low}, high={high}: expected exponents 0 < low ≤ high")
    best, winner = _kept(maps, present).max(dim=1)
    labels = torch.where(best > (1 - best) ** low, winner, IGNORED)
    return torch.where(best <= (1 - best) ** high, maps.shape[1], labels)


def affinities(features: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """a = exp(−mean |f_i − f_j|) of all pairs (B,P,h,w), at their first pixels; 0 where the second is outside.

    features (B,F,h,w) · P: the number of offsets, which `neighbours` gives. Raises ValueError for others.
    """
    return torch.exp(-_distances(features, offsets))


def affinity_loss(features: Tensor, labels: Tensor, background: int, offsets: Sequence[Offset]) -> Tensor:
    """¼ background alike + ¼ foreground alike + ½ different: means of −log a, of −log a and of −log(1 − a) over pairs.

    features (B,F,h,w), labels (B,h,w) int64 from `confident_labels`; `background` is the background's label, L. Of
    pairs with a pixel that is −1 nothing counts; a kind without any pair contributes 0. As in the authors' code, ε =
    1e-5 is added to 1 − a; other than there, pixels near the border count with the neighbours that they have. Raises
    ValueError for labels of another size and for offsets not from `neighbours`.
    """
    size = (len(features), *features.shape[2:])
    if labels.shape != size or labels.dtype != torch.int64:
        raise ValueError(f"labels: expected int64 of shape {size}, got {labels.dtype} of {tuple(labels.shape)}")
    distances = _distances(features, offsets)
    second = torch.stack([_moved(labels, offset, IGNORED) for offset in offsets], dim=1)
    first = labels[:, None].expand_as(second)
    known = (first >= 0) & (second >= 0)
    alike, ground = known & (first == second), first == background
    apart = -torch.log(EPSILON - torch.expm1(-distances))
    return (
        _mean(distances, alike & ground) / 4
        + _mean(distances, alike & ~ground) / 4
        + _mean(apart, known & (first != second)) / 2
    )


def transition(affinity: Tensor, offsets: Sequence[Offset], beta: float = 8.0) -> Tensor:
    """T (N,N) sparse (CSC) float32 of affinities (P,h,w) of one scene, N = h·w: a^β both ways, columns that sum to 1.

    A pixel's affinity to itself is 1. maps @ T makes of every pixel a weighted mean of its neighbours, as the paper's
    D⁻¹ A^β does from the left. Without a gradient. Raises ValueError for affinities of other offsets.
    """
    _check_offsets(offsets)
    if affinity.ndim != 3 or len(affinity) != len(offsets):
        raise ValueError(f"affinity: expected shape ({len(offsets)},h,w), got {tuple(affinity.shape)}")
    forth = affinity.detach().float() ** beta
    back = [_moved(one, (-dy, -dx), 0.0) for one, (dy, dx) in zip(forth, offsets, strict=True)]
    weights = torch.stack([*back[::-1], torch.ones_like(forth[0]), *forth])
    weights /= weights.sum(dim=0)
    ends, pixels, places = _pattern(*affinity.shape[1:], tuple(offsets), affinity.device)
    size = (len(ends) - 1,) * 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CS[CR] tensor support is in beta", category=UserWarning)
        values = weights.flatten().index_select(0, places)
        return torch.sparse_csc_tensor(ends, pixels, values, size, check_invariants=False)  # silent about them


def walk(maps: Tensor, matrix: Tensor, steps: int) -> Tensor:
    """maps @ T^steps for maps (K,N) float32 and T (N,N) from `transition`, by sparse products alone.

    T is similar to a symmetric matrix with eigenvalues in −1 … 1, so T^s = Σ_k P(|S| = k) C_k(T), with S the sum of s
    fair signs and C_k the Chebyshev polynomials (Sachdeva and Vishnoi, Faster Algorithms via Approximation Theory,
    chapters 3 and 8). A sum beyond about 6 √s has a probability below 1e-10 and is left out, less than float32 can
    tell: 256 steps take 102 products. Raises ValueError for steps below 0.
    """
    if steps < 0:
        raise ValueError(f"steps={steps}: expected 0 or more")
    weights, step = _walk_weights(steps), matrix.t()  # its rows sum to 1
    now = maps.t().clone(memory_format=torch.contiguous_format)
    before, total = torch.zeros_like(now), weights[0] * now
    for k, weight in enumerate(weights[1:]):
        before.addmm_(step, now, beta=-1, alpha=2 if k else 1)
        before, now = now, before
        total.add_(now, alpha=weight)
    return total.t()


@torch.no_grad()
def random_walk(
    maps: Tensor,
    present: Tensor,
    features: Tensor,
    *,
    offsets: Sequence[Offset],
    beta: float = 8.0,
    steps: int = 2**8,
    background_alpha: float = 16.0,
    inside: Tensor | None = None,
) -> Tensor:
    """Scores (B,L+1,h,w) of maps (B,L,h,w) in 0 … 1, and of background (1 − max)^α, last, after `steps` steps of T.

    present (B,L) bool: what is not present is 0 before and after, and costs nothing. features (B,F,h,w). inside (B,h,w)
    bool: what is not padding; nothing begins to walk outside, so that no background comes from there. A map of classes
    is the scores' argmax, after enlarging; L is background. Without a gradient. Raises ValueError for maps,
    present and features that do not fit, and offsets that are not from `neighbours`.
    """
    _check_maps(maps, present)
    if features.ndim != 4 or (len(features), *features.shape[2:]) != (len(maps), *maps.shape[2:]):
        raise ValueError(f"features: expected (B,F,h,w) to fit maps {tuple(maps.shape)}, got {tuple(features.shape)}")
    kept = _kept(maps, present).float()
    scores = torch.cat([kept, (1 - kept.amax(dim=1, keepdim=True)) ** background_alpha], dim=1)
    if inside is not None:
        scores = scores * inside[:, None]
    walked = torch.zeros_like(scores)
    for score, there, feature, out in zip(scores, pad(present, (0, 1), value=True), features, walked, strict=True):
        matrix = transition(affinities(feature[None], offsets)[0], offsets, beta)
        out[there] = walk(score[there].flatten(1), matrix, steps).reshape(-1, *maps.shape[2:])
    return walked.clamp_(0, 1)  # rounding


class AffinityNet(nn.Module):
    """Features (B,F,h,w), F = the sum of widths, of a backbone's maps [(B,C,h,w), …], fine to coarse (section 3.3).

    A 1 × 1 convolution and ELU for each of the maps, resized alike, concatenated, and once more for all. channels: C of
    each map; widths: what they become. The backbone is the caller's. Starts as the authors' code does: He normal, and
    Xavier uniform with gain 4 for the last. Raises ValueError for other numbers of channels, widths or maps.
    """

    def __init__(self, channels: Sequence[int], generator: Generator, widths: Sequence[int] = WIDTHS):
        super().__init__()
        if not channels or len(channels) != len(widths):
            raise ValueError(f"channels={channels!r}, widths={widths!r}: expected one width for each map's channels")
        total = sum(widths)
        with drawn_from(generator):
            self.stages = nn.ModuleList(nn.Conv2d(*pair, 1, bias=False) for pair in zip(channels, widths, strict=True))
            self.joint = nn.Conv2d(total, total, 1, bias=False)
            for stage in self.stages:
                nn.init.kaiming_normal_(stage.weight)
            nn.init.xavier_uniform_(self.joint.weight, gain=4)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """Features at a size (h,w), or at that of the last map but one: the coarsest but one."""
        if len(maps) != len(self.stages):
            raise ValueError(f"maps: expected {len(self.stages)}, got {len(maps)}")
        size = size or maps[-2:][0].shape[2:]
        reduced = [elu(stage(one)) for stage, one in zip(self.stages, maps, strict=True)]
        return elu(self.joint(torch.cat([interpolate(one, size, mode="bilinear") for one in reduced], dim=1)))


def _distances(features: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """mean |f_i − f_j| (B,P,h,w) of all pairs, at their first pixels; infinite where the second is outside."""
    _check_offsets(offsets)
    features = features.float()
    found = []
    for offset in offsets:
        first, second = _slices(features.shape[2:], offset)
        gaps = features.new_full(features[:, 0].shape, torch.inf)
        gaps[..., *first] = (features[..., *first] - features[..., *second]).abs_().mean(dim=1)
        found.append(gaps)
    return torch.stack(found, dim=1)


def _slices(size: Sequence[int], offset: Offset) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where in (h,w) the first and the second pixels of an offset's pairs are."""
    along = tuple(zip(size, offset, strict=True))
    first = tuple(slice(max(-by, 0), max(length - max(by, 0), 0)) for length, by in along)
    second = tuple(slice(max(by, 0), max(length + min(by, 0), 0)) for length, by in along)
    return first, second


def _moved(values: Tensor, offset: Offset, fill: float) -> Tensor:
    """The values (…,h,w) of each pixel's neighbour at an offset, `fill` where that is outside."""
    first, second = _slices(values.shape[-2:], offset)
    moved = torch.full_like(values, fill)
    moved[..., *first] = values[..., *second]
    return moved


@lru_cache(maxsize=8)
def _pattern(height: int, width: int, offsets: tuple[Offset, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Of T's columns, pixel by pixel: their ends (N+1,) int32, the neighbours in them and these' places in (2P+1,N)."""
    both = [*((-dy, -dx) for dy, dx in reversed(offsets)), (0, 0), *offsets]
    dy, dx = torch.tensor(both, device=device).T
    rows = torch.arange(height, device=device)[:, None, None] + dy
    columns = torch.arange(width, device=device)[:, None] + dx
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (h,w,2P+1)
    ends = pad(inside.sum(dim=-1).flatten().cumsum(0), (1, 0))
    places = torch.arange(inside.numel(), device=device).reshape(len(both), height, width).movedim(0, -1)
    return ends.int(), (rows * width + columns)[inside].int(), places[inside]


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values, 0 without any."""
    return values.where(chosen, 0.0).sum() / chosen.sum().clamp(min=1)


def _walk_weights(steps: int) -> list[float]:
    """P(|S| = k) from k = 0 on, S the sum of `steps` fair signs, until what is left is negligible."""
    weights, left = [], 1.0
    while left > NEGLIGIBLE:
        k = len(weights)
        ways = 0 if (steps - k) % 2 else math.comb(steps, (steps - k) // 2) * (2 if k else 1)
        weights.append(ways / 2**steps)
        left -= weights[-1]
    return weights


def _kept(maps: Tensor, present: Tensor) -> Tensor:
    return maps.masked_fill(~present[:, :, None, None], 0.0)


def _check_maps(maps: Tensor, present: Tensor) -> None:
    if maps.ndim != 4 or not maps.is_floating_point():
        raise ValueError(f"maps: expected float of shape (B,L,h,w), got {maps.dtype} of {tuple(maps.shape)}")
    if present.dtype != torch.bool or present.shape != maps.shape[:2]:
        shape = tuple(maps.shape[:2])
        raise ValueError(f"present: expected bool of shape {shape}, got {present.dtype} of {tuple(present.shape)}")
    if maps.numel() and not ((maps >= 0) & (maps <= 1)).all():
        low, high = maps.min().item(), maps.max().item()
        raise ValueError(f"maps: expected values in 0 … 1, got {low:.3g} … {high:.3g}; divide each by its maximum")


def _check_offsets(offsets: Sequence[Offset]) -> None:
    if not offsets or list(offsets) != sorted(set(offsets)) or offsets[0] <= (0, 0):
        raise ValueError(f"offsets={list(offsets)}: expected sorted ones of half a plane, as `neighbours` gives")
