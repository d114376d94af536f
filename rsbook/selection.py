"""Cross-modal sample selection: how far two networks that see the same ground believe a noisy label, and each other.

CromSS (Liu et al., arXiv 2405.01217). Probabilities are (B,K,H,W) after the softmax, maps (B,H,W) integers with −1 (or
any negative number) where there is no label, confidences and weights (B,H,W). Nothing here has a gradient: masks are
made of detached predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

RANKINGS = ("global", "per_class")
STEEPNESS = 5.0  # of the ramp


def label_confidence(probabilities: Tensor, maps: Tensor) -> Tensor:
    """F_l: the probability of the label that the map has at each pixel, 0 where it has none."""
    known = maps >= 0
    chosen = probabilities.detach().gather(1, maps.clamp(min=0).long()[:, None])[:, 0]
    return chosen * known


def entity_confidence(probabilities: Tensor) -> Tensor:
    """F_e: one less the entropy of each pixel's probabilities, in units of that of K equal ones; in 0 … 1."""
    entropy = torch.special.entr(probabilities.detach()).sum(dim=1)
    return (1 - entropy / math.log(probabilities.shape[1])).clamp(0, 1)


def enhance(own: Tensor, other: Tensor) -> Tensor:
    """F′ = (F + F · F of the other modality) / 2 (eq. 2): what both believe keeps its confidence, the rest loses up to
    half of it.
    """
    return (own + own * other) / 2


def ramp(epoch: int, length: int) -> float:
    """exp(−5 (1 − epoch/length)²): from near 0 in epoch 0 to 1 in epoch `length` and after; 1 for a length of 0."""
    missing = 1 - min(epoch, length) / length if length else 0.0
    return math.exp(-STEEPNESS * missing**2)


def selection_ratio(risen: float) -> float:
    """α = 1 − r/2: the share of the pixels that keep their full weight falls from all to half as the ramp r rises."""
    return 1 - risen / 2


def selection_weights(confidence: Tensor, maps: Tensor, ratio: float, ranking: str = "global") -> Tensor:
    """W_l (eq. 3): 1 for the share `ratio` of the labelled pixels with the highest confidence, less for the others.

    Each confidence is divided by the lowest of that share, and cut at 1; pixels without a label have weight 0. ranking:
    "global" ranks all pixels of the batch together (the paper), "per_class" those of each label apart (the authors'
    code). Where the share ends among confidences of zero, all weigh 1. Raises ValueError for a ratio outside 0 … 1 and
    another ranking.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio={ratio}: expected a share above 0, at most 1")
    if ranking not in RANKINGS:
        raise ValueError(f"ranking={ranking!r}: expected one of {', '.join(RANKINGS)}")
    known = maps >= 0
    groups = [known] if ranking == "global" else [maps == c for c in maps[known].unique().tolist()]
    weights = torch.zeros_like(confidence)
    for group in groups:
        weights[group] = _selected(confidence[group], ratio)
    return weights


def consistency_weights(confidence: Tensor, gamma: float) -> Tensor:
    """W_e = (1 − γ) + γ F′_e: from 1 everywhere to the confidence itself as γ rises from 0 to 1."""
    return (1 - gamma) + gamma * confidence


def masks(logits: Tensor, maps: Tensor, risen: float, ranking: str = "global") -> tuple[list[Tensor], list[Tensor]]:
    """W_l and W_e of each modality, (B,H,W) each, from logits (M,B,K,H,W) and noisy maps (B,H,W) (eqs. 2 and 3).

    risen: the ramp r, from 0 to 1. With one modality nothing is enhanced.
    """
    probabilities = logits.detach().float().softmax(dim=2)
    labels = enhanced([label_confidence(own, maps) for own in probabilities])
    entities = enhanced([entity_confidence(own) for own in probabilities])
    ratio = selection_ratio(risen)
    return (
        [selection_weights(one, maps, ratio, ranking) for one in labels],
        [consistency_weights(one, risen) for one in entities],
    )


def enhanced(confidences: Sequence[Tensor]) -> list[Tensor]:
    """Confidences (B,H,W) of two modalities, each enhanced by the other's; that of a single one as it is."""
    if len(confidences) == 1:
        return list(confidences)
    first, second = confidences
    return [enhance(first, second), enhance(second, first)]


def quality(
    logits: Tensor, maps: Tensor, wrong: Tensor, risen: float, ranking: str = "global"
) -> list[dict[str, float | None]]:
    """How well the masks of each modality find wrong pixels of the maps (B,H,W): logits (M,B,K,H,W), wrong (B,H,W).

    auroc: that a right pixel has a larger weight W_l than a wrong one (ties count half) · auroc_confidence: the same of
    F′_l, which has no ties · auroc_alone: of the modality's own F_l · precision, recall: of the pixels with a weight
    below 1, the share that is wrong; of the wrong ones, the share with a weight below 1; None where there are none.
    """
    known = maps >= 0
    right, found = ~wrong[known], []
    labels, _ = masks(logits, maps, risen, ranking)
    alone = [label_confidence(own.float().softmax(dim=1), maps) for own in logits]
    for weights, both, own in zip(labels, enhanced(alone), alone, strict=True):
        low = weights[known] < 1
        caught = (low & ~right).sum()
        found.append(
            {
                "auroc": _auroc(weights[known], right),
                "auroc_confidence": _auroc(both[known], right),
                "auroc_alone": _auroc(own[known], right),
                "precision": (caught / low.sum()).item() if low.any() else None,
                "recall": (caught / (~right).sum()).item() if not right.all() else None,
            }
        )
    return found


def selected_count(pixels: int, ratio: float) -> int:
    """How many of so many pixels a ratio selects: at least one."""
    return max(1, int(ratio * pixels + 1e-6))


def _selected(confidence: Tensor, ratio: float) -> Tensor:
    """The weights of one ranking, from its confidences (n,)."""
    if not len(confidence):
        return confidence
    count = selected_count(len(confidence), ratio)
    threshold = confidence.kthvalue(len(confidence) - count + 1).values
    return torch.where(threshold > 0, confidence / threshold, 1.0).clamp(max=1)


def _auroc(scores: Tensor, right: Tensor) -> float | None:
    if right.all() or not right.any():
        return None
    return binary_auroc(scores, right.long(), validate_args=False).item()
