"""Networks and tasks of Part IV: what `training.fit` trains on one positive a scene, and all that a method keeps."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from rsbook import metrics, single_positive, training
from rsbook.augmentations import turned
from rsbook.positions import AreaTables
from rsbook.scenes import Scenes
from rsbook.single_positive import Known


def _of(*names: str) -> dict[str, float]:
    return {name: getattr(Known(), name) for name in names}


# What may be set, by method, and its default: fields of `Known`; begin, the epoch (from 0) from which EM+APL marks or
# AdaGC calibrates, None for the trigger, which gives up waiting at half of the epochs; weights_memory, scores_memory:
# which share of the teacher's weights and of stored scores a new one leaves; mixup: whether AdaGC mixes once it
# calibrates.
OPTIONS: dict[str, dict[str, Any]] = {name: {} for name in single_positive.LOSSES} | {
    "epr": _of("positives"),
    "role": _of("positives"),
    "em": _of("alpha"),
    "em_apl": _of("alpha", "beta") | {"begin": 5},
    "ll_r": _of("rate"),
    "ll_ct": _of("rate"),
    "ll_cp": _of("rate"),
    "adagc": _of("strength") | {"begin": None, "weights_memory": 0.997, "scores_memory": 0.9, "mixup": True},
}
MEMORY = 0.7  # of ML-ELR
MARKED_IN_ALL = 0.9  # of the unobserved entries of a class, by EM+APL
FASTER = 10  # times the learning rate, for ROLE's labels
DRAWN = 0.4, 0.6  # ROLE's labels at first, uniformly between these; what is observed begins at SURE
SURE = 0.995


class Learner(nn.Module):
    """A network, and all that a method keeps of it and of the training scenes; so one checkpoint holds everything.

    targets (N,L) stored scores · latest (N,L) the last score of each entry, AdaGC's by the teacher · marked (N,L)
    pseudo-labels · visits (N,), how often a scene was in a batch, as full ones leave some out ·
    epoch, the last that has begun, and begun, from which calibration is on (−1: none yet, both from 0) · precision,
    unobserved (epochs,): what the trigger sees · teacher, an average of the network's weights, for AdaGC · estimates
    (N,L), ROLE's labels as logits divided by FASTER: AdamW's steps do not depend on a scale, so these are larger ones.
    """

    def __init__(self, network: nn.Module, method: str, observed: Tensor, epochs: int, generator: Generator) -> None:
        super().__init__()
        self.network = network
        self.teacher = deepcopy(network).requires_grad_(False) if method == "adagc" else None
        self.estimates = None
        if method == "role":
            low, high = DRAWN
            drawn = low + (high - low) * torch.rand(observed.shape, generator=generator)
            self.estimates = nn.Parameter(torch.where(observed, SURE, drawn).logit() / FASTER)
        self.register_buffer("targets", torch.zeros(observed.shape))
        self.register_buffer("latest", torch.zeros(observed.shape))
        self.register_buffer("marked", torch.zeros(observed.shape, dtype=torch.bool))
        self.register_buffer("visits", torch.zeros(len(observed), dtype=torch.long))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("epoch", torch.tensor(-1))
        self.register_buffer("begun", torch.tensor(-1))
        self.register_buffer("precision", torch.zeros(epochs))
        self.register_buffer("unobserved", torch.zeros(epochs))

    @property
    def reported(self) -> nn.Module:
        """The network whose scores count: the teacher where there is one."""
        return self.network if self.teacher is None else self.teacher

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,L) of images (B,C,H,W), by the network."""
        return self.network(images)

    @torch.no_grad()
    def teach(self, images: Tensor, memory: float) -> Tensor:
        """Move the teacher towards the network and return its scores (B,L) of images (B,C,H,W).

        The memory of the first steps is shorter, (1 + step)/(10 + step), as is usual: the network moves fast then.
        """
        step = int(self.steps)
        self.steps += 1
        share = 1 - min(memory, (1 + step) / (10 + step))
        own, new = self.teacher.state_dict(), self.network.state_dict()
        floats = [name for name, value in own.items() if value.is_floating_point()]
        torch._foreach_lerp_([own[name] for name in floats], [new[name] for name in floats], share)
        for name in own.keys() - set(floats):  # the counters of batch normalisation
            own[name].copy_(new[name])
        self.teacher.eval()
        return self.teacher(images).float().sigmoid()


class SinglePositive(training.Classification):
    """Multi-label classification from one positive a scene, as the task of `training.fit`: one of `LOSSES`.

    index, observed (N,L) bool: training scenes and what is known of them · val, val_observed: the same of validation
    scenes; mAP against these few labels, of the network that counts, is watched · learner: of the same scenes ·
    options: see OPTIONS.
    """

    watch = "map_observed"

    def __init__(
        self,
        scenes: Scenes,
        index: Tensor,
        observed: Tensor,
        val: Tensor,
        val_observed: Tensor,
        learner: Learner,
        *,
        method: str,
        epochs: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(scenes, index, val, _turn, labels=observed)
        self.index, self.observed, self.val_observed, self.learner = index, observed, val_observed, learner
        self.method, self.epochs, self.options = method, epochs, checked(method, options or {})
        fields = {name: value for name, value in self.options.items() if name in Known.__dataclass_fields__}
        self.known = Known(epochs=epochs, **fields)

    def batch(self, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
        """Images (B,C,H,W) float32, flipped and turned by right angles, what is observed of them (B,L) float32, their
        rows (B,), and a partner (B,) and the own share, 0.5 … 1, for Mixup, else themselves.
        """
        images, observed = super().batch(index, generator)
        rows, partner, share = index.to(self.device), torch.arange(len(index)), 1.0
        if self.options.get("mixup"):
            partner, share = torch.randperm(len(index), generator=generator), torch.rand((), generator=generator).item()
        return images, observed, rows, partner.to(self.device), max(share, 1 - share)  # of Beta(1, 1)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor, float], epoch: int) -> Tensor:
        """The method's loss of the batch, once what it keeps of these scenes is up to date."""
        images, observed, rows, partner, share = batch
        if epoch != int(self.learner.epoch):
            self._begin(epoch)
        self.learner.visits[rows] += 1
        images = images.contiguous(memory_format=torch.channels_last)
        if self.method == "adagc":
            return self._calibrated(model, images, rows, observed, partner, share)
        logits = model(images)
        known = self._known(logits, rows, observed, epoch)
        return single_positive.LOSSES[self.method](logits, observed, known)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Against what is observed of validation scenes: `map_observed`, of the network that counts, and of the student
        where that is another. For the reader alone, no method sees them: mAP against all labels of these scenes, and
        the mean last score, on training scenes, of hidden positives and of what is really absent; for AdaGC what its
        trigger sees, and from which epoch (from 0) calibration is on, −1 as long as it is not.
        """
        learner = self.learner
        scores = training.predict(learner.reported, self.scenes, self.val)
        found = {
            "map_observed": metrics.map_macro(scores, self.val_observed),
            "map_true": metrics.map_macro(scores, self.scenes.labels[self.val]),
        }
        if learner.teacher is not None:
            student = training.predict(learner.network, self.scenes, self.val)
            found["student_map_observed"] = metrics.map_macro(student, self.val_observed)
            found["precision"], found["unobserved"] = self._seen()
            found["begun"] = int(learner.begun)
        seen = learner.visits.cpu() > 0
        labels, latest = self.scenes.labels[self.index][seen], learner.latest.cpu()[seen]
        hidden = labels & ~self.observed[seen]
        for name, entries in (("score_hidden", hidden), ("score_absent", ~labels)):
            found[name] = latest[entries].mean().item() if entries.any() else None
        return found

    def _begin(self, epoch: int) -> None:
        """What a method does between two epochs."""
        learner = self.learner
        learner.epoch.fill_(epoch)
        if self.method == "adagc":
            self._watch_teacher(epoch)
        elif self.method == "em_apl" and epoch >= self.options["begin"]:
            self._mark_negatives()

    def _watch_teacher(self, epoch: int) -> None:
        learner, begin = self.learner, self.options["begin"]
        if epoch:
            learner.precision[epoch - 1], learner.unobserved[epoch - 1] = self._seen()
        if int(learner.begun) >= 0:
            return
        if begin is None:
            seen = learner.precision[:epoch].tolist(), learner.unobserved[:epoch].tolist()
            start = single_positive.trigger(*seen) is not None or epoch >= self.epochs / 2
        else:
            start = epoch >= begin
        if start:
            learner.begun.fill_(epoch)

    def _seen(self) -> tuple[float, float]:
        """What the trigger sees: mAP of the last scores against what is observed, and their mean elsewhere."""
        seen = self.learner.visits.cpu() > 0
        latest, observed = self.learner.latest.cpu()[seen], self.observed[seen]
        return metrics.map_macro(latest, observed), latest[~observed].mean().item()

    def _mark_negatives(self) -> None:
        """Of each class, mark the unobserved entries with the lowest scores, and keep these as soft labels."""
        learner = self.learner
        free = ~self.labels & ~learner.marked
        share = MARKED_IN_ALL / max(self.epochs - self.options["begin"], 1)
        for c, unobserved in enumerate((~self.observed).sum(dim=0).tolist()):
            count = min(round(share * unobserved), int(free[:, c].sum()))
            ranked = learner.latest[:, c].masked_fill(~free[:, c], 2.0)
            rows = ranked.topk(count, largest=False).indices
            learner.marked[rows, c] = True
            learner.targets[rows, c] = learner.latest[rows, c]

    @torch.no_grad()
    def _known(self, logits: Tensor, rows: Tensor, observed: Tensor, epoch: int) -> Known:
        """What the loss may use of these scenes, (B,L) each, once their scores are kept."""
        learner = self.learner
        scores = logits.detach().float().sigmoid()
        learner.latest[rows] = scores
        known = replace(self.known, epoch=epoch)
        match self.method:
            case "ml_elr":
                learner.targets[rows] = single_positive.fused(learner.targets[rows], scores, MEMORY)
                return replace(known, targets=learner.targets[rows])
            case "em_apl":
                return replace(known, targets=learner.targets[rows], marked=learner.marked[rows])
            case "ll_cp":
                marked = learner.marked[rows]
                if epoch:
                    marked = marked | single_positive.largest_losses(logits, observed + marked, known.rate)
                    learner.marked[rows] = marked
                return replace(known, marked=marked)
            case "role":
                with torch.enable_grad():
                    return replace(known, estimates=FASTER * learner.estimates[rows])
        return known

    def _calibrated(
        self, model: nn.Module, images: Tensor, rows: Tensor, observed: Tensor, partner: Tensor, share: float
    ) -> Tensor:
        learner, options = self.learner, self.options
        scores = learner.teach(images, options["weights_memory"])
        learner.latest[rows] = scores
        learner.targets[rows] = single_positive.fused(learner.targets[rows], scores, options["scores_memory"])
        if int(learner.begun) < 0:
            return single_positive.assumed_negative(model(images), observed, self.known)
        targets = single_positive.unbiased(learner.targets[rows], options["scores_memory"], learner.visits[rows])
        if share < 1:
            images, observed, targets = (share * x + (1 - share) * x[partner] for x in (images, observed, targets))
        return single_positive.gradient_calibration(model(images), observed, replace(self.known, targets=targets))


class Mixing(training.Classification):
    """Classification of mixed scenes, turned once they are mixed, which leaves their labels as they are; it watches mAP
    against one positive a validation scene, val_observed (n,L). Other arguments are those of `Classification`.
    """

    watch = SinglePositive.watch

    def __init__(self, scenes: Scenes, *, val_observed: Tensor, **given: Any) -> None:
        super().__init__(scenes, **given)
        self.val_observed = val_observed

    def batch(self, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images (B,C,H,W) float32, normalised, mixed and turned, and their labels (B,L) float32."""
        images, labels = super().batch(index, generator)
        return turned(images, generator), labels

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """mAP against what is observed of the validation scenes."""
        return {self.watch: metrics.map_macro(training.predict(model, self.scenes, self.val), self.val_observed)}


def checked(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method, with the defaults of those not given; ValueError for a method or option that is none."""
    if method not in OPTIONS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(OPTIONS)}")
    if unknown := sorted(options.keys() - OPTIONS[method].keys()):
        known = ", ".join(OPTIONS[method]) or "none"
        raise ValueError(f"options: {method} takes no {', '.join(unknown)}; its options: {known}")
    return OPTIONS[method] | dict(options)


def _turn(
    images: Tensor, labels: Tensor, where: AreaTables | Tensor | None, generator: Generator
) -> tuple[Tensor, Tensor]:
    return turned(images, generator), labels.float()
