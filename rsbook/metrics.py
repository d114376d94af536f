"""What is scored, through torchmetrics: average precision for multi-labels (exact, not binned), accuracies of maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision, multiclass_confusion_matrix


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision (L,), in 0 … 1, of scores (N,L) in 0 … 1 against labels (N,L) bool; NaN without positives.

    Equal to scikit-learn's average_precision_score, ties included. Raises ValueError when the shapes differ, there is
    no scene or no class, the labels are not bool, or a score is not a number from 0 to 1.
    """
    _check(scores, labels)
    precision = torch.full((labels.shape[1],), torch.nan)
    for i in torch.nonzero(labels.any(dim=0)).flatten().tolist():
        precision[i] = binary_average_precision(scores[:, i], labels[:, i].long())
    return precision


def map_macro(scores: Tensor, labels: Tensor) -> float:
    """Mean over the classes, unweighted, of the average precision of scores (N,L); in 0 … 1.

    Classes without positives in labels (N,L) are left out of the mean; `average_precision` reports them as NaN. Raises
    ValueError as `average_precision` does, and when no class has a positive.
    """
    precision = average_precision(scores, labels)
    if precision.isnan().all():
        raise ValueError("labels: no class has a positive, so the mean average precision is not defined")
    return precision.nanmean().item()


def map_micro(scores: Tensor, labels: Tensor) -> float:
    """Average precision in 0 … 1 of all (scene, class) pairs of scores (N,L) and labels (N,L) taken as one list.

    Classes without positives count with all their negatives. Raises ValueError as `map_macro` does.
    """
    _check(scores, labels)
    if not labels.any():
        raise ValueError("labels: no class has a positive, so the mean average precision is not defined")
    return binary_average_precision(scores.flatten(), labels.flatten().long()).item()


def f1_macro(scores: Tensor, labels: Tensor, threshold: float = 0.5) -> float:
    """Mean over the classes, unweighted, of the F1 of scores (N,L) that are above the threshold; in 0 … 1.

    Classes without positives in labels (N,L) bool are left out of the mean, as in `map_macro`. Raises ValueError as
    `map_macro` does.
    """
    _check(scores, labels)
    there = labels.any(dim=0)
    if not there.any():
        raise ValueError("labels: no class has a positive, so the mean F1 is not defined")
    named, true = (scores > threshold)[:, there], labels[:, there]
    both = (named & true).sum(dim=0, dtype=torch.float64)
    return (2 * both / (named.sum(dim=0) + true.sum(dim=0))).mean().item()


def confusion_matrix(predictions: Tensor, maps: Tensor, num_classes: int) -> Tensor:
    """Pixels (L,L) int64 by their class in the maps (row) and in the predictions (column), both of one shape.

    Classes are integers 0 … num_classes − 1; what a map holds below zero is no class and not counted. Matrices of the
    parts of a data set add up to that of the whole. Raises ValueError when shapes differ.
    """
    if predictions.shape != maps.shape:
        raise ValueError(f"predictions {tuple(predictions.shape)} and maps {tuple(maps.shape)} differ in shape")
    known = torch.where(maps < 0, -1, maps)
    return multiclass_confusion_matrix(predictions, known, num_classes, ignore_index=-1, validate_args=False)


def accuracies(confusion: Tensor) -> dict[str, float]:
    """Overall accuracy `oa`, mean recall of the classes `aa`, mean IoU `miou` and mean F1 `f1`, in 0 … 1.

    confusion: (L,L) as `confusion_matrix` counts. A class without a pixel in the maps is left out of all means, as its
    recall is not defined. Raises ValueError for a matrix without a pixel.
    """
    pixels = confusion.double()
    if not pixels.sum():
        raise ValueError("confusion: no pixel was counted, so there is no accuracy")
    right, in_map, named = pixels.diagonal(), pixels.sum(dim=1), pixels.sum(dim=0)
    there = in_map > 0
    means = {"aa": right / in_map, "miou": right / (in_map + named - right), "f1": 2 * right / (in_map + named)}
    return {"oa": (right.sum() / pixels.sum()).item()} | {name: v[there].mean().item() for name, v in means.items()}


def class_iou(confusion: Tensor) -> list[float | None]:
    """The IoU of each class, in 0 … 1, of pixels (L,L) as `confusion_matrix` counts; None for one without a
    pixel in the maps, which `accuracies` leaves out as well.
    """
    both, in_map = confusion.diagonal(), confusion.sum(dim=1)
    either = (confusion.sum(dim=0) + in_map - both).tolist()
    return [i / u if there else None for i, u, there in zip(both.tolist(), either, in_map.tolist(), strict=True)]


def _check(scores: Tensor, labels: Tensor) -> None:
    fits = scores.ndim == 2 and scores.is_floating_point() and labels.dtype == torch.bool
    if not fits or scores.shape != labels.shape or not scores.numel():
        raise ValueError(
            f"expected scores (N,L) of floats and labels (N,L) bool, got {scores.dtype} of shape {tuple(scores.shape)} "
            f"and {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if not scores.isfinite().all():
        raise ValueError("scores: not all are finite; the network has diverged")
    if scores.min() < 0 or scores.max() > 1:  # torchmetrics would squash them, which makes ties of large ones
        raise ValueError("scores: expected numbers from 0 to 1; pass logits through the sigmoid first")
