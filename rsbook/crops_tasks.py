"""Networks and tasks of Part III: what `training.fit` trains, views of pixels against each other, series by crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from rsbook import contrastive, metrics, series_models, training
from rsbook.series import SCALE, SENSORS, Pairs, Series

SENSORS_OF = {  # what the first and the second view of each method of pre-training are from
    "uni_modal": ("s2", "s2"),
    "bi_modal": ("s2", "planet"),
    "uni_modal_released": ("s2", "s2"),
}
METHODS = tuple(SENSORS_OF)
SCALINGS = ("deviation", "variance", "none")

WIDTH = 256  # features of an encoder
HELD_OUT = 2048  # pairs that are not trained on; that of the paper's batch, so that retrieval is as hard
TOGETHER = 2**15  # days through an encoder at a time where nothing is trained
CALIBRATING = 8192  # pairs that the statistics of an untrained network are of
FEATURES = 2**29  # values (2 GiB): features of a frozen encoder up to so many are computed once, others in each step


class Standardise(nn.Module):
    """Stored values (N,B) → float32, by the mean and the standard deviation of each band, in stored units.

    scaling: one of SCALINGS; "variance" divides reflectance by its variance, "none" gives reflectance.
    """

    def __init__(self, mean: Tensor, std: Tensor, scaling: str = "deviation"):
        super().__init__()
        shift, width = {
            "deviation": (mean, std),
            "variance": (mean, std**2 / SCALE),
            "none": (torch.zeros_like(mean), torch.full_like(std, SCALE)),
        }[scaling]
        self.register_buffer("shift", shift)
        self.register_buffer("width", width)

    def forward(self, values: Tensor) -> Tensor:
        """Standardised values, float32, in the same shape."""
        return (values - self.shift) / self.width


def encoder(mean: Tensor, std: Tensor, generator: Generator) -> nn.Module:
    """A randomly initialised encoder of single days: stored values (N,B) float32 → features (N,256).

    mean, std (B,): by which it standardises, in stored units.
    """
    return nn.Sequential(Standardise(mean, std), series_models.res_mlp(len(mean), generator))


class TwoViews(nn.Module):
    """Encoders and projectors of one or two sensors: two views (N,B) of the same pixels → their projections (N,256).

    moments: mean and std of each sensor's values, by name · sensors: of the first and the second view.
    """

    def __init__(self, moments: Mapping[str, tuple[Tensor, Tensor]], sensors: Sequence[str], generator: Generator):
        super().__init__()
        names = list(dict.fromkeys(sensors))
        self.sensors = tuple(sensors)
        self.encoders = nn.ModuleDict({name: encoder(*moments[name], generator) for name in names})
        self.projectors = nn.ModuleDict({name: series_models.projector(generator) for name in names})

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Projections (N,256) of both views."""
        a, b = (self.projectors[s](self.encoders[s](x)) for s, x in zip(self.sensors, (first, second), strict=True))
        return a, b


def calibrate(model: TwoViews, task: Contrast) -> None:
    """Give batch normalisation of an untrained network the statistics of pairs, as one that is trained has them.

    Else a frozen random encoder would differ from a pre-trained one in more than what is learned.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    count = min(CALIBRATING, task.size)
    model.train()
    with torch.no_grad():
        for rows in task.train[torch.arange(count) * task.size // count].split(HELD_OUT):
            for name, encoder in model.encoders.items():  # once each, also where both views are of one sensor
                model.projectors[name](encoder(task.seen_by(name, rows)))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def held_out(count: int) -> Tensor:
    """Which of `count` pairs (2048,) are held out: spread over the dates, by which pairs are ordered."""
    return torch.arange(HELD_OUT) * count // HELD_OUT


class Contrast:
    """Contrastive pre-training on pairs, as the task of `training.fit`: arguments are those of `pretrain`."""

    watch = None

    def __init__(
        self,
        data: Pairs,
        method: str,
        rate: float,
        *,
        loss: str = "nt_xent",
        temperature: float = 0.07,
        released: bool = False,
    ) -> None:
        count = len(data.day)
        if count <= HELD_OUT:
            raise ValueError(f"pairs={count}: {HELD_OUT} of them are held out, expected more")
        self.method, self.rate, self.temperature = method, rate, temperature
        self.objective = contrastive.LOSSES[loss]
        self.corrupt = contrastive.corrupt_as_released if released else contrastive.corrupt
        self.sensors = SENSORS_OF[method]
        self.device = torch.device("cpu")
        self.values = {name: getattr(data, name) for name in dict.fromkeys(self.sensors)}
        self.held_out = held_out(count)
        kept = torch.ones(count, dtype=torch.bool)
        kept[self.held_out] = False
        self.train = kept.nonzero()[:, 0]
        self.size = len(self.train)

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation (B,) of the training pairs, in stored units, by sensor."""
        found = {}
        for name, values in self.values.items():
            sums = torch.zeros(2, values.shape[1], dtype=torch.float64)
            for part in self.train.split(2**20):  # all at once would be gigabytes
                chunk = values[part].double()
                sums += torch.stack([chunk.sum(dim=0), (chunk**2).sum(dim=0)])
            mean, square = sums / self.size
            found[name] = (mean.float(), (square - mean**2).clamp_min(1e-12).sqrt().float())
        return found

    def to(self, device: torch.device) -> None:
        """Move the values to the device, those that fit; others stream from their file."""
        self.device = device
        for name, values in self.values.items():
            if values.nbytes < training.room(device):
                self.values[name] = values.to(device)

    def batch(self, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Both views (B,12) and (B,12 or 36) float32 of the training pairs `index`, corrupted."""
        return self.views(self.train[index], generator, self.rate)

    def views(self, rows: Tensor, generator: Generator, rate: float) -> tuple[Tensor, Tensor]:
        """Both views of the pairs `rows` (B,): what corruption of which the method makes."""
        first, second = (self.seen_by(name, rows) for name in self.sensors)
        if not rate:
            return first, second
        first = self.corrupt(first, rate, generator)
        if self.method == "bi_modal":
            return first, self.corrupt(second, rate, generator)
        return first, first if self.method == "uni_modal_released" else second

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], epoch: int) -> Tensor:
        """The contrastive loss of the projections of both views."""
        return self.objective(*model(*batch), self.temperature)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """On held-out pairs: loss, retrieval, alignment and uniformity; of one sensor, with one view corrupted."""
        model.eval()
        rate = 0.0 if self.method == "bi_modal" else self.rate
        with torch.inference_mode():
            found = [p.float() for p in model(*self.views(self.held_out, Generator().manual_seed(0), rate))]
            return {
                "val_loss": self.objective(*found, self.temperature).item(),
                "retrieval": contrastive.retrieval(*found),
                "alignment": contrastive.alignment(*found),
                "uniformity": contrastive.uniformity(found[0]),
            }

    def seen_by(self, name: str, rows: Tensor) -> Tensor:
        """Values (B,12 or 36) float32 of the pairs `rows` (B,), as one sensor sees them."""
        values = self.values[name]
        return values[rows.to(values.device)].to(self.device).float()


class EachDay(nn.Module):
    """A front for single days and a base model for their series: stored values (B,T,12) float32 → logits (B,classes).

    frozen: the front's weights get no gradient; its statistics stay as they are too, unless `adapting_statistics`.
    """

    def __init__(self, front: nn.Module, base: nn.Module, frozen: bool, adapting_statistics: bool = False):
        super().__init__()
        self.front, self.base = front, base
        self.frozen, self.fixed = frozen, frozen and not adapting_statistics
        front.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> EachDay:
        """Training mode, in which a frozen front may stay as it is."""
        super().train(mode)
        if self.fixed:
            self.front.eval()
        return self

    def features(self, values: Tensor) -> Tensor:
        """Features (B,T,F) of values (B,T,12)."""
        return self.front(values.flatten(0, 1)).unflatten(0, values.shape[:2])

    def forward(self, values: Tensor) -> Tensor:
        """Logits (B,classes) of values (B,T,12), or of their features if there are that many."""
        return self.base(self.features(values) if values.shape[2] == SENSORS["s2"] else values)


class Classification:
    """Classification of series by cross-entropy, as the task of `training.fit`; the last epoch counts.

    network: an `EachDay`; if its front is fixed, and features fit, they are computed once · every: so manieth date.
    """

    watch = None

    def __init__(self, data: Series, network: EachDay, every: int = 1) -> None:
        self.network, self.classes = network, len(data.classes)
        used = torch.cat([data.split("train"), data.split("val")])
        self.size = len(data.split("train"))
        self.values, self.labels = data.values[used][:, ::every], data.labels[used]

    def to(self, device: torch.device) -> None:
        """Move the series to the device, or the features that a fixed front makes of them."""
        self.device, self.labels = device, self.labels.to(device)
        values, network = self.values, self.network.to(device)
        n, dates, _ = values.shape
        if network.fixed and n * dates * WIDTH <= FEATURES:
            network.eval()
            with torch.no_grad():  # not inference mode: training saves these for its gradient
                parts = [network.features(v.to(device).float()) for v in values.split(max(1, TOGETHER // dates))]
                self.values = torch.cat(parts)
        elif values.nbytes < training.room(device):
            self.values = values.to(device)

    def batch(self, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Values (B,T,12 or features) float32 and labels (B,) int64 of the training pixels `index`."""
        return self._at(index)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], epoch: int) -> Tensor:
        """Cross-entropy, the mean over pixels."""
        values, labels = batch
        return cross_entropy(model(values), labels)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Loss, accuracy and confusion matrix, rows the classes of the labels, over all validation pixels."""
        model.eval()
        with torch.inference_mode():
            parts = [
                (model(v).float(), labels)
                for v, labels in map(self._at, torch.arange(self.size, len(self.labels)).split(256))
            ]
            logits, labels = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        confusion = metrics.confusion_matrix(logits.argmax(dim=1), labels, self.classes)
        return {
            "val_loss": cross_entropy(logits, labels).item(),
            "accuracy": (confusion.diagonal().sum() / confusion.sum()).item(),
            "confusion": confusion.tolist(),
        }

    def _at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        values = self.values[rows.to(self.values.device)].to(self.device).float()
        return values, self.labels[rows.to(self.labels.device)]
