"""The one training loop of the book, and multi-label classification as the first task that it trains."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.multiprocessing import ProcessRaisedException
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from rsbook import metrics
from rsbook.devices import resolve_device
from rsbook.files import replacing
from rsbook.positions import AreaTables
from rsbook.scenes import Scenes

WARM_UP_STEPS = ((10_000, 10_000), (100, 100), (0, 0))  # (with more steps than this, warm up for so many)
SECONDS_BETWEEN_CHECKPOINTS = 60.0
SLOWEST = 0.1  # the learning rate starts and ends at a tenth of its peak

Augment = Callable[[Tensor, Tensor, AreaTables | None, Generator], tuple[Tensor, Tensor]]
Trained = tuple[list[dict[str, Any]], dict[str, Tensor]]  # the history and the best weights


class Task(Protocol):
    """What differs between trainings: how a batch is made, what the objective is, what to watch."""

    size: int  # training samples
    watch: str  # the metric whose highest value marks the best epoch

    def to(self, device: torch.device) -> None:
        """Move the data to the device, once, before the first step."""

    def batch(self, index: Tensor, generator: Generator) -> Any:
        """A batch of the training samples `index` (B,) int64, with all its randomness from the generator."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The objective, a scalar to minimise."""

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
    device: str = "auto",
    devices: int = 1,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train the model in place, leave it with the weights of its best validation epoch, and return the history.

    AdamW with a schedule by step: linear warm-up from a tenth of the learning rate, then cosine back to a tenth
    (section IV-B, with the lengths that the authors use elsewhere). Every epoch shuffles and makes full batches; what
    is left over waits for another epoch. The best epoch is the first with the highest
    task.watch. The history has one dict an evaluated epoch: epoch (from 1), loss (mean over its steps), learning_rate,
    and what task.evaluate returns. The result depends on model, task and settings alone: every epoch draws from its own
    generator, seeded by (seed, epoch), so on a CPU a run resumed from `checkpoint` (a safetensors file, written about
    once a minute) ends with the same bytes as one that was never interrupted. device: "auto", "cpu" or "cuda"; with
    `devices` > 1 each takes its share of every batch. On CUDA the arithmetic is bf16 mixed precision. Raises ValueError
    for settings that cannot be run or that are not the checkpoint's, and RuntimeError when the loss or task.watch is
    not finite.
    """
    least = {"seed": 0, "epochs": 1, "batch_size": 1, "evaluate_every": 1, "devices": 1}
    for name, value in zip(least, (seed, epochs, batch_size, evaluate_every, devices), strict=True):
        if not isinstance(value, int) or value < least[name]:
            raise ValueError(f"{name}={value!r}: expected a whole number ≥ {least[name]}")
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
    }
    fabric = _fabric(device, devices)
    train = _loop if devices == 1 else _loop_in_processes
    history, best = train(fabric, model, task, settings, checkpoint, progress)
    model.load_state_dict(best)
    return history


def learning_rates(steps: int, peak: float) -> np.ndarray:
    """Learning rate (steps,) of each step: linear warm-up from peak/10, then cosine down to peak/10."""
    warm_up = next(length for more_than, length in WARM_UP_STEPS if steps > more_than or not more_than)
    step = np.arange(steps)
    rising = SLOWEST + (1 - SLOWEST) * step / max(warm_up, 1)
    falling = SLOWEST + (1 - SLOWEST) * 0.5 * (1 + np.cos(np.pi * (step - warm_up) / max(steps - warm_up, 1)))
    return peak * np.where(step < warm_up, rising, falling)


class Classification:
    """Multi-label scene classification: binary cross-entropy on the labels that `augment` returns; watches mAP macro.

    train, val: indices into the scenes. augment: images (B,C,H,W) float32, labels (B,L), positions or None, generator →
    images, labels (B,L) float32.
    """

    watch = "map_macro"

    def __init__(self, scenes: Scenes, train: Tensor, val: Tensor, augment: Augment) -> None:
        self.scenes, self.augment, self.size = scenes, augment, len(train)
        self.images, self.labels = scenes.images[train], scenes.labels[train]
        self.tables = None if scenes.positions is None else AreaTables(scenes.positions[train], len(scenes.classes))
        self.val_images, self.val_labels = scenes.images[val], scenes.labels[val]

    def to(self, device: torch.device) -> None:
        """Move images, labels and positions to the device."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        self.val_images = self.val_images.to(device)
        self.tables = None if self.tables is None else self.tables.to(device)

    def batch(self, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images (B,C,H,W) float32, normalised and augmented, and their labels (B,L) float32."""
        index = index.to(self.images.device)
        positions = None if self.tables is None else self.tables[index]
        return self.augment(self.scenes.normalise(self.images[index]), self.labels[index], positions, generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Binary cross-entropy, the mean over scenes and classes, with soft or hard labels."""
        images, labels = batch
        return binary_cross_entropy_with_logits(model(images.contiguous(memory_format=torch.channels_last)), labels)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """What `score` finds on the validation split."""
        return score(predict(model, self.scenes, self.val_images), self.val_labels)


def predict(model: nn.Module, scenes: Scenes, images: Tensor, batch_size: int = 256) -> Tensor:
    """Scores (N,L) float32 on the CPU, after the sigmoid, of integer images (N,C,H,W)."""
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = []
        for part in images.split(batch_size):
            batch = scenes.normalise(part.to(device)).contiguous(memory_format=torch.channels_last)
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
        return _read(path)


def _loop_to_file(fabric: Fabric, path: Path, *arguments: Any) -> None:
    history, best = _loop(fabric, *arguments)
    if fabric.global_rank == 0:
        _write(path, history, best)


def _loop(
    fabric: Fabric, model: nn.Module, task: Task, settings: dict[str, Any], checkpoint: Path | None, progress: bool
) -> Trained:
    rank, ranks, epochs, batch_size = fabric.global_rank, fabric.world_size, settings["epochs"], settings["batch_size"]
    task.to(fabric.device)
    model = model.to(memory_format=torch.channels_last)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings["learning_rate"], weight_decay=settings["weight_decay"], fused=True
    )
    steps = task.size // batch_size
    rates = learning_rates(steps * epochs, settings["learning_rate"])
    wrapped, stepper = fabric.setup(model, optimiser)
    state = _Checkpoint(checkpoint, settings, task.watch)
    first = state.restore(model, optimiser)  # once the weights are on their device, where the moments must follow them

    with tqdm(initial=first, total=epochs, unit="epoch", disable=not progress or rank > 0) as bar:
        for epoch in range(first, epochs):
            with _seeded(settings["seed"], epoch, rank, fabric.device) as generator:
                same_on_all_ranks = _generator(settings["seed"], epoch)
                order = torch.randperm(task.size, generator=same_on_all_ranks)
                wrapped.train()
                total = torch.zeros((), device=fabric.device)
                for step in range(steps):
                    index = order[step * batch_size : (step + 1) * batch_size][rank::ranks]
                    for group in optimiser.param_groups:
                        group["lr"] = rates[epoch * steps + step]
                    with fabric.autocast():
                        loss = task.loss(wrapped, task.batch(index, generator))
                    optimiser.zero_grad()
                    fabric.backward(loss)
                    stepper.step()
                    total += loss.detach()
            mean = _finite("the loss", fabric.all_reduce(total / steps, reduce_op="mean").item(), epoch, settings)
            if (epoch + 1) % settings["evaluate_every"] == 0 or epoch + 1 == epochs:
                with fabric.autocast():
                    found = task.evaluate(model)
                _finite(task.watch, found[task.watch], epoch, settings)
                rate = float(rates[(epoch + 1) * steps - 1])
                state.add({"epoch": epoch + 1, "loss": mean, "learning_rate": rate, **found}, model)
                bar.set_postfix({task.watch: f"{found[task.watch]:.4f}"}, refresh=False)
            if rank == 0:
                state.save(epoch + 1, model, optimiser)
            bar.update()
    return state.history, state.best


def _finite(name: str, value: float, epoch: int, settings: dict[str, Any]) -> float:
    if not math.isfinite(value):
        raise RuntimeError(f"{name} is {value} in epoch {epoch + 1}: lower learning_rate={settings['learning_rate']}")
    return value


def _generator(*entropy: int) -> Generator:
    return Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


@contextmanager
def _seeded(seed: int, epoch: int, rank: int, device: torch.device) -> Iterator[Generator]:
    """The generator of one epoch and rank; the global state, from which dropout draws, is seeded and then put back."""
    generator = _generator(seed, epoch, rank, 1)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        fresh = int(torch.randint(2**62, (), generator=generator))
        torch.default_generator.manual_seed(fresh)
        if device.type == "cuda":
            torch.cuda.manual_seed(fresh)
        yield generator


class _Checkpoint:
    """History, best weights and all that is needed to go on, in one safetensors file that is renamed into place.

    One file, so that a kill at any moment leaves the older state or the newer one, never a mixture.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any], watch: str) -> None:
        self.path, self.settings, self.watch = path, settings, watch
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.saved = time.monotonic()

    def add(self, row: dict[str, Any], model: nn.Module) -> None:
        """Append a row to the history and keep the weights if it is the best so far."""
        self.history.append(row)
        if all(row[self.watch] > earlier[self.watch] for earlier in self.history[:-1]):
            self.best = _copy(model.state_dict())

    def save(self, epoch: int, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write the file, unless the last one is younger than SECONDS_BETWEEN_CHECKPOINTS."""
        if self.path is None or time.monotonic() - self.saved < SECONDS_BETWEEN_CHECKPOINTS:
            return
        moments = optimiser.state_dict()["state"]
        tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"optimiser/{i}/{name}": value for i, state in moments.items() for name, value in state.items()}
        _write(self.path, {"epoch": epoch, "settings": self.settings, "history": self.history}, _copy(tensors))
        self.saved = time.monotonic()

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Load the checkpoint, if there is one, and return the number of epochs that it has behind it."""
        if self.path is None or not self.path.exists():
            return 0
        try:
            facts, tensors = _read(self.path)
            epoch, settings, history = facts["epoch"], facts["settings"], facts["history"]
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            warnings.warn(f"{self.path} cannot be read ({error}): training starts from the beginning", stacklevel=2)
            return 0
        if settings != self.settings:
            raise ValueError(f"{self.path} belongs to a run with other settings, {settings}; delete or move it")
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
        for name, value in tensors.items():
            part, key = name.split("/", 1)
            parts[part][key] = value
        try:
            model.load_state_dict(parts["model"])
        except RuntimeError as error:
            raise ValueError(f"{self.path} belongs to a run with another network; delete or move it") from error
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimiser"].items():
            i, name = key.split("/")
            moments.setdefault(int(i), {})[name] = _in_layout_of(weights[int(i)], value)
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        self.history, self.best = history, parts["best"]
        return epoch


def _in_layout_of(weight: Tensor, moment: Tensor) -> Tensor:
    # The fused optimiser walks both in memory order: moments in another order would go to the wrong weights, silently.
    return torch.empty_like(weight).copy_(moment) if moment.shape == weight.shape else moment


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def _write(path: Path, facts: Any, tensors: dict[str, Tensor]) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"rsbook": json.dumps(facts)})


def _read(path: Path) -> tuple[Any, dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return json.loads(file.metadata()["rsbook"]), {name: file.get_tensor(name) for name in names}
