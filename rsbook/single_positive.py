"""Part IV, single-positive multi-labels: what is observed, and how each method learns from it.

AdaGC (arXiv 2510.08269) is *reconstructed* here: of the paper only the abstract and the project's README were
available, so settings and the exact trigger are inferred, as the docstrings say. The other methods follow their papers
and released settings.

Every loss has one signature, (logits (B,L) float, observed (B,L) 0 or 1, known) → scalar, where `known` is what a
method may have learnt before. Losses of entries are summed and divided by B·L; regularisers are added to that mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from rsbook import positions

LARGEST = 1 - 1e-4  # of a stored target: the log of 1 − p·t stays finite


@dataclass(frozen=True)
class Known:
    """What a loss may use besides the batch: its rows of the state that a method keeps, and its settings.

    epoch: from 0, of `epochs` · targets (B,L) float: stored targets t of the scenes, or soft pseudo-labels · marked
    (B,L) bool: pseudo-negatives of EM+APL, entries that LL-Cp has flipped · estimates (B,L): logits of the labels that
    ROLE learns · positives: expected classes a scene, k · alpha, beta, rate, strength: see the losses that use them.
    """

    epoch: int = 0
    epochs: int = 1
    targets: Tensor | None = None
    marked: Tensor | None = None
    estimates: Tensor | None = None
    positives: float = 1.0
    alpha: float = 0.1
    beta: float = 0.2
    rate: float = 0.002
    strength: float = 1.0


Loss = Callable[[Tensor, Tensor, Known], Tensor]


def random_positive(labels: Tensor, generator: Generator) -> Tensor:
    """One class of each scene's label, uniformly drawn: observed (N,L) bool of labels (N,L) bool.

    A scene without a class stays without one. The caller draws once, with a generator of its own, for all epochs.
    """
    draws = torch.rand(labels.shape, generator=generator).masked_fill(~labels, -1.0)
    return _one_hot(draws, labels)


def dominant_positive(bits: Tensor, labels: Tensor) -> Tensor:
    """The class of each scene's label with most pixels in its reference map: observed (N,L) bool.

    bits: (N,H,W) int32 bit masks · labels (N,L) bool. Of two equally large ones the first. Raises ValueError for a
    class with no pixel that is alone in a label, as there is nothing to choose it by.
    """
    pixels = positions.count(bits, labels.shape[1])
    if (labels.any(dim=1) & ((pixels > 0) & labels).logical_not().all(dim=1)).any():
        raise ValueError("bits: a scene has no pixel of any class of its label; expected maps that fit the labels")
    return _one_hot(pixels.masked_fill(~labels, -1), labels)


def _one_hot(ranked: Tensor, labels: Tensor) -> Tensor:
    observed = torch.zeros_like(labels)
    observed[torch.arange(len(labels)), ranked.argmax(dim=1)] = True
    return observed & labels


def false_negative_rate(labels: Tensor, observed: Tensor) -> Tensor:
    """Which share (L,) of the scenes that hold a class do not have it observed, in 0 … 1; NaN where none holds it."""
    there = labels.sum(dim=0)
    return (labels & ~observed).sum(dim=0) / there.where(there > 0, torch.nan)


def tuned_threshold(scores: Tensor, observed: Tensor) -> float:
    """The threshold of scores (N,L), one for all classes, that is best by what is observed (N,L) bool.

    Where negatives are unknown F1 is as well; recall² over the share of entries that are named positive is
    proportional to precision times recall, and needs none (Lee and Liu, ICML 2003). Named is what is above.
    """
    ranked, order = scores.flatten().sort(descending=True, stable=True)
    hits = observed.flatten()[order].cumsum(0)
    last = torch.cat([ranked[1:] < ranked[:-1], torch.ones(1, dtype=torch.bool)])  # of equal scores
    worth = (hits.double() ** 2 / torch.arange(1, len(ranked) + 1)).masked_fill(~last, -1.0)
    best = int(worth.argmax())
    following = ranked[best + 1].item() if best + 1 < len(ranked) else 0.0
    return (ranked[best].item() + following) / 2


def assumed_negative(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """AN: binary cross-entropy with all that is not observed taken as absent."""
    return (observed * _present(logits) + (1 - observed) * _absent(logits)).mean()


def label_smoothing(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """AN-LS: a tenth of every entry's weight goes to the opposite label."""
    return assumed_negative(logits, observed + 0.1 * (1 - 2 * observed), known)


def weak_negative(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """WAN: negatives count 1/(L−1), so that in sum they are worth the one positive."""
    weight = 1 / max(logits.shape[1] - 1, 1)
    return (observed * _present(logits) + weight * (1 - observed) * _absent(logits)).mean()


def expected_positives(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """EPR: positives only, and a pull of the batch's mean number of classes a scene towards `known.positives`."""
    return (observed * _present(logits)).mean() + _surplus(logits, known.positives)


def estimated_labels(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """ROLE: the network and a table of learnt labels teach each other, each detached in the other's cross-entropy."""
    halves = []
    for own, other in ((logits, known.estimates), (known.estimates, logits)):
        soft = other.detach().float().sigmoid()
        cross = soft * _present(own) + (1 - soft) * _absent(own)
        halves.append((observed * _present(own) + cross).mean() + _surplus(own, known.positives))
    return sum(halves) / 2


def entropy_maximisation(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """EM: positives, and for all else the entropy of the score, to be made large, with weight `known.alpha`."""
    return (observed * _present(logits) - known.alpha * (1 - observed) * _entropy(logits)).mean()


def asymmetric_pseudo_labels(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """EM+APL: as EM, but what is marked has its stored score as a soft label, with weight `known.beta`."""
    marked = known.marked & (observed == 0)
    soft = known.targets * _present(logits) + (1 - known.targets) * _absent(logits)
    unknown = torch.where(marked, known.beta * soft, -known.alpha * _entropy(logits))
    return torch.where(observed > 0, _present(logits), unknown).mean()


def large_loss_rejected(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """LL-R: the largest losses of unobserved entries count nothing; `known.rate` more of them with every epoch."""
    large = largest_losses(logits, observed, known.rate * known.epoch)
    return (_assumed(logits, observed) * ~large).mean()


def large_loss_corrected(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """LL-Ct: the largest losses of unobserved entries are, in this step, those of a positive."""
    large = largest_losses(logits, observed, known.rate * known.epoch)
    return torch.where(large, _present(logits), _assumed(logits, observed)).mean()


def large_loss_permanent(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """LL-Cp: what is marked, now or by an earlier step, is a positive for good."""
    return assumed_negative(logits, torch.where(known.marked, 1.0, observed), known)


def largest_losses(logits: Tensor, observed: Tensor, share: float) -> Tensor:
    """Which entries (B,L) bool are the ⌈B·L·share⌉ unobserved ones with the largest assumed-negative losses."""
    k = min(math.ceil(logits.numel() * share - 1e-9), int((observed == 0).sum()))
    large = torch.zeros(logits.numel(), dtype=torch.bool, device=logits.device)
    losses = _absent(logits.detach()).masked_fill(observed > 0, -1.0).flatten()
    large[losses.topk(k).indices] = True
    return large.view_as(logits)


def generalised_robust(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """GR: an unobserved entry is as far a positive as its score says, and counts less the more its score is unusual.

    K = σ(wp + b) and V = exp(−((p − μ)/s)²/2) move linearly from the first epoch to the last. Both are weights, through
    which nothing is learnt: that they are detached is inferred.
    """
    done = known.epoch / max(known.epochs - 1, 1)
    p = logits.float().sigmoid()
    fixed = p.detach()
    positive = torch.sigmoid(2 * done * fixed - 2)
    weight = torch.exp(-(((fixed - (0.5 + 0.3 * done)) / (2 - 1.5 * done)) ** 2) / 2)
    present = (1 - torch.exp(-0.01 * _present(logits))) / 0.01  # (1 − p^q)/q with q = 0.01
    unobserved = weight * (positive * present + (1 - positive) * p)  # and (1 − (1 − p)^q)/q with q = 1
    return torch.where(observed > 0, _present(logits), unobserved).mean()


def hill(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """Hill: for what is not observed (1.5 − p)·p², whose slope falls again for high scores; plain positives."""
    p = logits.float().sigmoid()
    return (observed * _present(logits) + (1 - observed) * (1.5 - p) * p**2).mean()


def asymmetric(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """ASL with γ+ = 0, γ− = 4: negatives with a score below 0.05 count nothing, others by the fourth power of it."""
    p = (logits.float().sigmoid() - 0.05).clamp(min=0)
    return (observed * _present(logits) - (1 - observed) * p**4 * torch.log1p(-p)).mean()


def early_learning(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """ML-ELR: AN plus three times the mean of log(1 − p·t), over all entries, which holds scores to stored ones."""
    return assumed_negative(logits, observed, known) + 3 * _agreement(logits, known.targets).mean()


def gradient_calibration(logits: Tensor, observed: Tensor, known: Known) -> Tensor:
    """AdaGC, reconstructed, stage two: AN plus λ times the mean of log(1 − p·t) over what is not observed.

    λ is `known.strength`. With it the gradient of an unobserved logit is that of `calibrated_gradient`. The sign must
    be plus: log(1 − p·t) falls as p grows where t is high. observed may be soft, after Mixup.
    """
    calibration = ((1 - observed) * _agreement(logits, known.targets)).mean()
    return assumed_negative(logits, observed, known) + known.strength * calibration


def calibrated_gradient(p: Tensor, t: Tensor, strength: float) -> Tensor:
    """The gradient with respect to an unobserved logit of its entry in `gradient_calibration`, in closed form.

    p·[1 − λt(1 − p)/(1 − pt)] for scores p and targets t in [0, 1): an ordinary negative's p where t is 0; nothing is
    left of it where t nears 1 and λ is 1; beyond λ = 1 the entry is pushed up.
    """
    return p * (1 - strength * t * (1 - p) / (1 - p * t))


LOSSES: MappingProxyType[str, Loss] = MappingProxyType(
    {
        "an": assumed_negative,
        "an_ls": label_smoothing,
        "wan": weak_negative,
        "epr": expected_positives,
        "role": estimated_labels,
        "em": entropy_maximisation,
        "em_apl": asymmetric_pseudo_labels,
        "ll_r": large_loss_rejected,
        "ll_ct": large_loss_corrected,
        "ll_cp": large_loss_permanent,
        "gr": generalised_robust,
        "hill": hill,
        "asl": asymmetric,
        "ml_elr": early_learning,
        "adagc": gradient_calibration,
    }
)


def fused(targets: Tensor, scores: Tensor, memory: float) -> Tensor:
    """Temporal fusion: stored targets (B,L) moved towards new scores by 1 − memory, within what keeps logs finite."""
    return (memory * targets + (1 - memory) * scores).clamp(1 - LARGEST, LARGEST)


def unbiased(targets: Tensor, memory: float, visits: Tensor) -> Tensor:
    """Stored targets (B,L) as if they had not begun at zero: divided by 1 − memory^visits, with visits (B,) of each
    scene. Raises ValueError for a scene that was not visited.
    """
    if (visits < 1).any():
        raise ValueError(f"visits={visits.min().item()}: expected at least one; before it nothing is stored")
    return (targets / (1 - memory ** visits[:, None])).clamp(1 - LARGEST, LARGEST)


def trigger(precision: Sequence[float], unobserved: Sequence[float], earliest: int = 3) -> int | None:
    """The first epoch, from 1, after which calibration should begin; None as long as there is no sign of it.

    precision: the teacher's mAP on training scenes against what is observed, an epoch each · unobserved: its mean score
    of unobserved entries. Early learning raises both; what is then learnt by heart are false negatives. It fires, at
    `earliest` or later, where the slope of precision over three epochs is below a fifth of the steepest so far, or the
    mean score has risen and then been below its peak for two epochs; it does fall at first, from one half, as networks
    learn that most classes are absent. The authors' rule is not known: this one is inferred.
    """
    for epoch in range(earliest, len(precision) + 1):
        slopes = [(precision[e] - precision[e - 3]) / 3 for e in range(3, epoch)]
        flat = bool(slopes) and max(slopes) > 0 and slopes[-1] < 0.2 * max(slopes)
        rise = next((e for e in range(1, epoch) if unobserved[e] > unobserved[e - 1]), epoch)
        risen = unobserved[rise:epoch]
        if flat or (risen and len(risen) - 1 - risen.index(max(risen)) >= 2):
            return epoch
    return None


def _present(logits: Tensor) -> Tensor:
    """−log p."""
    return -logsigmoid(logits.float())


def _absent(logits: Tensor) -> Tensor:
    """−log(1 − p)."""
    return -logsigmoid(-logits.float())


def _assumed(logits: Tensor, observed: Tensor) -> Tensor:
    return torch.where(observed > 0, _present(logits), _absent(logits))


def _entropy(logits: Tensor) -> Tensor:
    p = logits.float().sigmoid()
    return p * _present(logits) + (1 - p) * _absent(logits)


def _surplus(logits: Tensor, positives: float) -> Tensor:
    return ((logits.float().sigmoid().sum(dim=1).mean() - positives) / logits.shape[1]) ** 2


def _agreement(logits: Tensor, targets: Tensor) -> Tensor:
    """log(1 − p·t), which is at most zero."""
    return torch.log1p(-logits.float().sigmoid() * targets)
