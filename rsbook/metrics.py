"""Average precision for multi-labels, through torchmetrics (exact, not binned)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision


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
