"""The one training loop of the book, and multi-label classification as the first task that it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from lightning_fabric import Fabric
from torch import Generator, Tensor, nn
from torch.multiprocessing import ProcessRaisedException
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from rsbook import metrics
from rsbook.checkpoints import Checkpoint, read, write
from rsbook.devices import resolve_device
from rsbook.positions import AreaTables
from rsbook.scenes import Scenes, take

SCHEDULES = ("cosine", "linear", "poly", "constant")
WARM_UP_STEPS = ((10_000, 10_000), (100, 100), (0, 0))  # (with more steps than this, warm up for so many)
POWER = 0.9  # of the poly schedule
SLOWEST = 0.1  # the learning rate starts and ends at a tenth of its peak

Augment = Callable[[Tensor, Tensor, AreaTables | None, Generator], tuple[Tensor, Tensor]]
Trained = tuple[list[dict[str, Any]], dict[str, Tensor]]  # the history and the best weights


class Task(Protocol):
    """What differs between trainings: how a batch is made, what the objective is, what to watch."""

    size: int  # training samples
    watch: str | None  # the metric whose highest value marks the best epoch; None: the last epoch counts

    def to(self, device: torch.device) -> None:
        """Move the data to the device, once, before the first step."""

    def batch(self, index: Tensor, generator: Generator) -> Any:
        """A batch of the training samples `index` (B,) int64, with all its randomness from the generator."""

    def loss(self, model: nn.Module, batch: Any, epoch: int) -> Tensor:
        """The objective, a scalar to minimise; epochs count from 0."""

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Metrics on the validation split, as JSON holds them, under names other than epoch, loss and learning_rate."""


def fit(
    model: nn.Module,
    task: Task,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    evaluate_every: int = 1,
    stop_after: int | None = None,
    schedule: str = "cosine",
    warm_up: int | None = None,
    halve_after: int | None = None,
    momentum: float | None = None,
    clip_norm: float | None = None,
    factors: Mapping[str, float] | None = None,
    device: str = "auto",
    devices: int = 1,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train the model in place, leave it with the weights of its best validation epoch, and return the history.

    AdamW, or SGD where a momentum is given. schedule: "cosine" is one by step, a linear warm-up from a tenth of the
    learning rate, then cosine back to a tenth; warm_up is its length in steps, None for the rule of section IV-B, with
    the lengths that the authors use elsewhere. "linear" falls by step from the learning rate to nothing, and "poly"
    with a power. "constant" is a constant rate; with `halve_after` it is halved after more than so many evaluations in
    which task.evaluate's `val_loss` has not fallen. clip_norm: the largest norm of all gradients together. factors: of
    the learning rate, by patterns of the names of parameters, as {"head.*": 10}; the first that fits decides.
    Every epoch shuffles and makes full batches; what is left over waits for another epoch. The best epoch is the first
    with the highest task.watch, or the last when that is None. The history has one dict an evaluated epoch: epoch (from
    1), loss (mean over its steps), learning_rate, and what task.evaluate returns. The result depends on model, task and
    settings alone: every epoch draws from its own generator, seeded by (seed, epoch), so on a CPU a run resumed from
    `checkpoint` (a safetensors file, written about once a minute) ends with the same bytes as one that was never
    interrupted. stop_after: end after so many of the epochs, with the schedule of all. device: "auto", "cpu" or "cuda";
    with `devices` > 1 each takes its share of every batch. On CUDA the arithmetic is bf16 mixed precision. Raises
    ValueError for settings that cannot be run or that are not the checkpoint's, and RuntimeError when the loss or
    task.watch is not finite.
    """
    stop_after = epochs if stop_after is None else stop_after
    least = {"seed": 0, "epochs": 1, "batch_size": 1, "evaluate_every": 1, "stop_after": 1, "devices": 1}
    given = (seed, epochs, batch_size, evaluate_every, stop_after, devices)
    for name, value in (("halve_after", halve_after), ("warm_up", warm_up)):
        if value is not None:
            least[name], given = 1, (*given, value)
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r}: expected one of {', '.join(SCHEDULES)}")
    if (schedule != "constant" and halve_after is not None) or (schedule != "cosine" and warm_up is not None):
        rule = "halve_after goes with a constant schedule, warm_up with a cosine"
        raise ValueError(f"schedule={schedule!r}, halve_after={halve_after}, warm_up={warm_up}: {rule}")
    for (name, lowest), value in zip(least.items(), given, strict=True):
        if not isinstance(value, int) or value < lowest:
            raise ValueError(f"{name}={value!r}: expected a whole number ≥ {lowest}")
    if stop_after > epochs:
        raise ValueError(f"stop_after={stop_after}: expected at most epochs={epochs}")
    for name, value in (("momentum", momentum), ("clip_norm", clip_norm)):
        if value is not None and not 0 <= value < (1 if name == "momentum" else math.inf):
            raise ValueError(f"{name}={value!r}: expected a number ≥ 0{', below 1' if name == 'momentum' else ''}")
    if task.size < batch_size:
        raise ValueError(
            f"batch_size={batch_size}: only {task.size} training samples; choose a batch no larger than that"
        )
    if batch_size % devices:
        raise ValueError(f"batch_size={batch_size}: not a multiple of devices={devices}")
    settings = {
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "evaluate_every": evaluate_every,
        "stop_after": stop_after,
        "schedule": schedule,
        "warm_up": warm_up,
        "halve_after": halve_after,
        "momentum": momentum,
        "clip_norm": clip_norm,
        "factors": dict(factors or {}),
    }
    fabric = _fabric(device, devices)
    train = _loop if devices == 1 else _loop_in_processes
    history, best = train(fabric, model, task, settings, checkpoint, progress)
    model.load_state_dict(best)
    return history


def halvings(losses: Iterable[float], patience: int) -> int:
    """How often a learning rate was halved after these losses: each time more than `patience` in a row brought none
    that was lower than the lowest by a ten-thousandth of it (as PyTorch's ReduceLROnPlateau).
    """
    lowest, waited, halved = math.inf, 0, 0
    for loss in losses:
        lowest, waited = (loss, 0) if loss < lowest * (1 - 1e-4) else (lowest, waited + 1)
        if waited > patience:
            halved, waited = halved + 1, 0
    return halved


def learning_rates(steps: int, peak: float, warm_up: int | None = None, schedule: str = "cosine") -> np.ndarray:
    """Learning rate (steps,) of each step, by one of SCHEDULES.

    "cosine": linear warm-up from peak/10, then cosine down to peak/10 · "linear": from peak down, to peak/steps in the
    last step · "poly": the same to the power of 0.9 (DeepLab, arXiv 1606.00915, section 4.1) · "constant": peak.
    """
    if schedule != "cosine":
        power = {"constant": 0.0, "poly": POWER, "linear": 1.0}[schedule]
        return peak * (1 - np.arange(steps) / steps) ** power
    if warm_up is None:
        warm_up = next(length for more_than, length in WARM_UP_STEPS if steps > more_than or not more_than)
    step = np.arange(steps)
    rising = SLOWEST + (1 - SLOWEST) * step / max(warm_up, 1)
    falling = SLOWEST + (1 - SLOWEST) * 0.5 * (1 + np.cos(np.pi * (step - warm_up) / max(steps - warm_up, 1)))
    return peak * np.where(step < warm_up, rising, falling)


class Classification:
    """Multi-label scene classification: binary cross-entropy on the labels that `augment` returns; watches mAP macro.

    train, val: indices into the scenes. augment: images (B,C,H,W) float32, labels (B,L), positions or None, generator →
    images, labels (B,L) float32; it may overwrite the images. positions (n,H,W) int32 of the training scenes, for an
    augmentation that wants them; labels (n,L) bool stand in for the data set's own. Raises ValueError when their shapes
    do not fit.
    """

    watch = "map_macro"

    def __init__(
        self,
        scenes: Scenes,
        train: Tensor,
        val: Tensor,
        augment: Augment,
        labels: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> None:
        self.scenes, self.augment, self.size, self.val = scenes, augment, len(train), val
        self.images, self.rows = scenes.images, train
        self.labels = scenes.labels[train] if labels is None else labels
        self.positions = positions
        for name, value, shape in (
            ("labels", self.labels, (len(train), len(scenes.classes))),
            ("positions", positions, (len(train), *scenes.images.shape[2:])),
        ):
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name}: has shape {tuple(value.shape)}, expected {shape}, one row a training scene")

    def to(self, device: torch.device) -> None:
        """Move images, labels and positions to the device, those that fit; larger ones stream from their file."""
        self.device, self.labels = device, self.labels.to(device)
        height, width = self.images.shape[2:]
        if self.images[:1].nbytes * self.size < room(device):
            self.images, self.rows = self.images[self.rows].to(device), torch.arange(self.size)
        self.where = self.positions
        if self.positions is not None:
            tables = self.size * (height + 1) * (width + 1) * len(self.scenes.classes) * 2  # bytes, for most images
            if tables < room(device):
                self.where = AreaTables(self.positions.to(device), len(self.scenes.classes))

    def batch(self, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images (B,C,H,W) float32, normalised and augmented, and their labels (B,L) float32."""
        rows = self.rows[index].to(self.images.device)
        images = self.scenes.normalise(take(self.images, rows).to(self.device))
        index = index.to(self.device)
        positions = self.where
        if positions is not None:
            positions = (
                positions[index] if isinstance(positions, AreaTables) else positions[index.cpu()].to(self.device)
            )
        return self.augment(images, self.labels[index], positions, generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], epoch: int) -> Tensor:
        """Binary cross-entropy, the mean over scenes and classes, with soft or hard labels."""
        images, labels = batch
        return binary_cross_entropy_with_logits(model(images.contiguous(memory_format=torch.channels_last)), labels)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """What `score` finds on the validation split."""
        return score(predict(model, self.scenes, self.val), self.scenes.labels[self.val])


def predict(model: nn.Module, scenes: Scenes, index: Tensor, batch_size: int = 256) -> Tensor:
    """Scores (n,L) float32 on the CPU, after the sigmoid, of the scenes `index` (n,)."""
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = []
        for part in index.split(batch_size):
            batch = scenes.normalise(take(scenes.images, part).to(device)).contiguous(memory_format=torch.channels_last)
            parts.append(model(batch).float().sigmoid())
        return torch.cat(parts).cpu()


def score(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """mAP macro and micro and each class's average precision, in 0 … 1, of scores (N,L) against labels (N,L) bool.

    The average precision of a class without positives is None: it is left out of mAP macro.
    """
    precision = metrics.average_precision(scores, labels).tolist()
    return {
        "map_macro": metrics.map_macro(scores, labels),
        "map_micro": metrics.map_micro(scores, labels),
        "average_precision": [None if math.isnan(value) else value for value in precision],
    }


def room(device: torch.device) -> int:
    """Bytes that a part of the data may take on the device: a quarter of what is free, for others need some as well."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return free // 4


def _fabric(device: str, devices: int) -> Fabric:
    accelerator = resolve_device(device)
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(f"devices={devices}: PyTorch finds {torch.cuda.device_count()} here")
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_notebook",  # starts its processes from a notebook as well
        precision="bf16-mixed" if accelerator == "cuda" else "32-true",
    )


def _loop_in_processes(fabric: Fabric, *arguments: Any) -> Trained:
    # Through a file: Fabric's own queue ends with the process that holds the weights, and blocks on more than 64 KiB.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trained.safetensors"
        try:
            fabric.launch(_loop_to_file, path, *arguments)
        except ProcessRaisedException as error:
            raise RuntimeError(f"training failed in one of {fabric.world_size} processes: {error}") from error
        return read(path)


def _loop_to_file(fabric: Fabric, path: Path, *arguments: Any) -> None:
    history, best = _loop(fabric, *arguments)
    if fabric.global_rank == 0:
        write(path, history, best)


def _loop(
    fabric: Fabric, model: nn.Module, task: Task, settings: dict[str, Any], checkpoint: Path | None, progress: bool
) -> Trained:
    rank, ranks, batch_size, last = (
        fabric.global_rank,
        fabric.world_size,
        settings["batch_size"],
        settings["stop_after"],
    )
    task.to(fabric.device)
    model = model.to(memory_format=torch.channels_last)
    optimiser = _optimiser(model, settings)
    steps = task.size // batch_size
    peak, patience = settings["learning_rate"], settings["halve_after"]
    rates = learning_rates(steps * settings["epochs"], peak, settings["warm_up"], settings["schedule"])
    wrapped, stepper = fabric.setup(model, optimiser)
    state = Checkpoint(checkpoint, settings, task.watch)
    first = state.restore(model, optimiser)  # once the weights are on their device, where the moments must follow them

    with tqdm(initial=first, total=last, unit="epoch", disable=not progress or rank > 0) as bar:
        for epoch in range(first, last):
            with _seeded_globally(settings["seed"], epoch, rank, fabric.device) as generator:
                if patience is not None:
                    rates[epoch * steps :] = peak / 2 ** halvings((r["val_loss"] for r in state.history), patience)
                same_on_all_ranks = seeded(settings["seed"], epoch)
                order = torch.randperm(task.size, generator=same_on_all_ranks)
                wrapped.train()
                total = torch.zeros((), device=fabric.device)
                for step in range(steps):
                    index = order[step * batch_size : (step + 1) * batch_size][rank::ranks]
                    for group in optimiser.param_groups:
                        group["lr"] = rates[epoch * steps + step] * group["factor"]
                    batch = task.batch(index, generator)  # in full precision: bf16 would move pixels in a rotation
                    with fabric.autocast():
                        loss = task.loss(wrapped, batch, epoch)
                    optimiser.zero_grad()
                    fabric.backward(loss)
                    if settings["clip_norm"] is not None:
                        fabric.clip_gradients(
                            wrapped, stepper, max_norm=settings["clip_norm"], error_if_nonfinite=False
                        )
                    stepper.step()
                    total += loss.detach()
            mean = _finite("the loss", fabric.all_reduce(total / steps, reduce_op="mean").item(), epoch, settings)
            if (epoch + 1) % settings["evaluate_every"] == 0 or epoch + 1 == last:
                with fabric.autocast():
                    found = task.evaluate(model)
                if "val_loss" in found:
                    _finite("val_loss", found["val_loss"], epoch, settings)
                if task.watch is not None:
                    _finite(task.watch, found[task.watch], epoch, settings)
                    bar.set_postfix({task.watch: f"{found[task.watch]:.4f}"}, refresh=False)
                rate = float(rates[(epoch + 1) * steps - 1])
                state.add({"epoch": epoch + 1, "loss": mean, "learning_rate": rate, **found}, model)
            if rank == 0:
                state.save(epoch + 1, model, optimiser)
            bar.update()
    return state.history, state.best


def _optimiser(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """One group of parameters for each factor of the learning rate, the first pattern that fits deciding."""
    factors, groups = settings["factors"], {}
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    for pattern in factors:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"factors={factors}: no parameter is called {pattern!r}; expected some of {names[-4:]}")
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            factor = next((factors[pattern] for pattern in factors if fnmatchcase(name, pattern)), 1.0)
            groups.setdefault(factor, []).append(weight)
    given = [{"params": weights, "factor": factor} for factor, weights in groups.items()]
    common = {"lr": settings["learning_rate"], "weight_decay": settings["weight_decay"], "fused": True}
    if settings["momentum"] is None:
        return torch.optim.AdamW(given, **common)
    return torch.optim.SGD(given, momentum=settings["momentum"], **common)


def _finite(name: str, value: float, epoch: int, settings: dict[str, Any]) -> float:
    if not math.isfinite(value):
        raise RuntimeError(f"{name} is {value} in epoch {epoch + 1}: lower learning_rate={settings['learning_rate']}")
    return value


def seeded(*entropy: int) -> Generator:
    """A generator on the CPU, independent of those with other numbers; zeros at the end do not count."""
    return Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


@contextmanager
def _seeded_globally(seed: int, epoch: int, rank: int, device: torch.device) -> Iterator[Generator]:
    """The generator of one epoch and rank; the global state, from which dropout draws, is seeded and then put back."""
    generator = seeded(seed, epoch, rank, 1)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        fresh = int(torch.randint(2**62, (), generator=generator))
        torch.default_generator.manual_seed(fresh)
        if device.type == "cuda":
            torch.cuda.manual_seed(fresh)
        yield generator
