"""Part V, segmentation from image-level labels: class activation maps, their scores, and regularisers of a classifier.

After a student report on Mixup-, FMix- and Manifold-Mixup-CAM and its code (github.com/liuvince/mva-wsss). Maps are
(B,L,h,w) floats, one a class; present (B,L) bool is the label of each scene. Maps are normalised in two ways that must
not be confused: by their maximum to be scored (`normalised`), by their sum to be concentrated (`concentration_loss`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, softplus

from rsbook import explain, metrics

SCALES = (1, 0.5, 1.5, 2)
BACKGROUND = 0.15  # of the report's code
SMALLEST = 1e-5  # what a map's maximum is raised by, and the least sum that a map is divided by
RAISED = 1e-3  # what the report's code adds to each pixel before it concentrates


def normalised(maps: Tensor, present: Tensor) -> Tensor:
    """ReLU maps (B,L,h,w), each over its maximum + 1e-5, so in 0 … 1; zero for classes that are not present.

    Raises ValueError for shapes and types that do not fit.
    """
    _check(maps, present)
    positive = maps.relu()
    scaled = positive / (positive.amax(dim=(2, 3), keepdim=True) + SMALLEST)
    return scaled.where(present[:, :, None, None], 0)


def scale_maps(
    model: nn.Module, images: Tensor, scales: Sequence[float] = SCALES, flip: bool = True
) -> Iterator[Tensor]:
    """Of each scale the maps ReLU(w·f) (B,L,h,w) of images (B,C,H,W), those of the mirrored images added.

    One forward pass a scale and direction serves all classes, in evaluation mode. `explain.activation_maps` divides a
    map by the number of its pixels, as Grad-CAM does; that would make large scales count less, and is undone here.
    Through a head other than global average pooling and a linear layer w, the maps are those of Grad-CAM. Images are
    resized bilinearly. Raises ValueError for no scale or one not above 0, and as `activation_maps` does.
    """
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales={tuple(scales)}: expected at least one, all above 0")
    for scale in scales:
        resized = images
        if scale != 1:
            shape = [max(1, int(pixels * scale + 1e-6)) for pixels in images.shape[2:]]
            resized = interpolate(images, size=shape, mode="bilinear", align_corners=False)
        maps = explain.activation_maps(model, resized)
        if flip:  # mirrored back and added before they are enlarged, which comes to the same
            maps = maps + explain.activation_maps(model, resized.flip(3)).flip(3)
        yield maps * (maps.shape[2] * maps.shape[3])


def multi_scale_maps(
    model: nn.Module, images: Tensor, size: tuple[int, int], scales: Sequence[float] = SCALES, flip: bool = True
) -> Tensor:
    """Sum (B,L,H,W) of the `scale_maps` of images (B,C,H,W), each enlarged bilinearly to size; errors are theirs."""
    total = 0.0
    for maps in scale_maps(model, images, scales, flip):
        total = total + interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
    return total


def segment(maps: Tensor, present: Tensor, background: float | None = BACKGROUND) -> Tensor:
    """The class (B,h,w) int64 of each pixel: the present one with the highest of `normalised` maps (B,L,h,w).

    background: the score of one more class, with index L, which wins where no map is higher; so the predictions go with
    `metrics.confusion_matrix` for L + 1 classes, and maps in which background is L and only what is to be ignored is
    negative. None where every pixel has a class. Raises ValueError for shapes and types that do not fit, and, without
    background, for a scene without a class.
    """
    best, classes = _best(maps, present)
    if background is None:
        if not present.any(dim=1).all():
            raise ValueError("present: a scene has no class, and there is no background; expected at least one class")
        return classes
    return classes.where(best > background, maps.shape[1])


def background_confusions(maps: Tensor, present: Tensor, truth: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Confusion matrices (T,L+1,L+1) int64 of `segment` with each of the thresholds; those of batches add up.

    truth: (B,h,w) integers, 0 … L − 1, L for background, negative where nothing counts. Raises ValueError for shapes
    and types that do not fit, and for larger numbers in truth.
    """
    best, classes = _best(maps, present)
    count = maps.shape[1]
    if truth.numel() and truth.max() > count:
        raise ValueError(
            f"truth: holds {truth.max().item()}, expected at most {count}, the background; ignored: below 0"
        )
    found = [metrics.confusion_matrix(classes.where(best > t, count), truth, count + 1) for t in thresholds]
    return torch.stack(found)


def mixed_loss(logits: Tensor, first: Tensor, second: Tensor, share: float | Tensor) -> Tensor:
    """λ·L(y_a) + (1 − λ)·L(y_b), L the mean sigmoid cross-entropy of logits (B,L): a scalar.

    first, second: labels (B,L) of the scenes and of their partners, 0 or 1 (the multi-label soft margin loss is linear
    in the label, so that of the mixed label is the same).
    """
    targets = torch.lerp(second.float(), first.float(), share)
    return binary_cross_entropy_with_logits(logits.float(), targets)


def entropy_loss(logits: Tensor) -> Tensor:
    """Mean entropy, in nats, of the scores σ(logits) (B,L), each one of two outcomes: a scalar.

    The report's code for mixed batches gives it the *labels* in place of logits: a constant, from which nothing is
    learnt. To reproduce that, leave it out.
    """
    logits = logits.float()
    scores = logits.sigmoid()
    return (scores * softplus(-logits) + (1 - scores) * softplus(logits)).mean()


def concentration_loss(maps: Tensor, present: Tensor) -> Tensor:
    """How far ReLU maps (B,L,h,w) spread: the variances of present classes, summed over them, a mean over B: a scalar.

    Each map, over its sum, is a distribution of places with coordinates −1 … 1, whose variance around its centre is
    taken, vertical and horizontal (report, L_con; after SCOPS, arXiv 1905.01298). A map of zeros has none. Raises
    ValueError for shapes and types that do not fit.
    """
    _check(maps, present)
    positive = maps.float().relu()
    return _spread(positive / positive.sum(dim=(2, 3), keepdim=True).clamp(min=SMALLEST), present)


def concentration_loss_as_coded(maps: Tensor, present: Tensor) -> Tensor:
    """`concentration_loss` as the report's code has it: of the softmax across classes of ReLU maps, raised by 1e-3.

    A pixel without any class has 1/L of each, so that empty ground counts. Raises ValueError as `concentration_loss`
    does.
    """
    _check(maps, present)
    shared = maps.float().relu().softmax(dim=1) + RAISED
    return _spread(shared / shared.sum(dim=(2, 3), keepdim=True), present)


def _spread(places: Tensor, present: Tensor) -> Tensor:
    """Sum over present classes, mean over B, of the variances of distributions (B,L,h,w) of places."""
    variance = 0.0
    for marginal in (places.sum(dim=3), places.sum(dim=2)):
        pixels = marginal.shape[2]
        at = (2 * torch.arange(pixels, device=places.device) + 1) / pixels - 1  # the middles of pixels
        centre = (marginal * at).sum(dim=2, keepdim=True)
        variance = variance + (marginal * (at - centre) ** 2).sum(dim=2)
    return variance.where(present, 0).sum() / len(places)


def _best(maps: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The highest score (B,h,w) of a present class, and the class, of equal ones the first."""
    _check(maps, present)
    scores = maps.masked_fill(~present[:, :, None, None], -torch.inf)
    return scores.amax(dim=1), scores.argmax(dim=1)


def _check(maps: Tensor, present: Tensor) -> None:
    if maps.ndim != 4 or not maps.is_floating_point():
        raise ValueError(f"maps: expected floats of shape (B,L,h,w), got {maps.dtype} of {tuple(maps.shape)}")
    if present.dtype != torch.bool or present.shape != maps.shape[:2]:
        raise ValueError(
            f"present: expected bool of shape {tuple(maps.shape[:2])}, got {present.dtype} of {tuple(present.shape)}"
        )
