"""Weights and the state of a training on disk, as safetensors: whole or not at all, and nothing is unpickled."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor, nn

from rsbook.files import fetched, location, replacing

SECONDS_BETWEEN_CHECKPOINTS = 60.0


def save_weights(model: nn.Module, folder: Path) -> str:
    """Write the weights of the model under the folder and return their name: 32 hex digits of the file's sha256."""
    content = save(copy(model.state_dict()))
    name = _sha256(content)
    with replacing(weights_path(folder, name)) as temporary:
        temporary.write_bytes(content)
    return name


def load_weights(model: nn.Module, folder: Path, name: str) -> None:
    """Load the weights that `save_weights` called `name` into the model, their checksum verified.

    Raises ValueError when the file is missing, damaged or of another network.
    """
    path = weights_path(folder, name)
    if not path.is_file():
        raise ValueError(f"{path} is missing: run what wrote these weights again")
    content = path.read_bytes()
    if (found := _sha256(content)) != name:
        raise ValueError(f"{path} is damaged (its sha256 begins with {found}): delete it, and run what wrote it again")
    try:
        model.load_state_dict(load(content))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} holds the weights of another network: {error}") from error


def weights_path(folder: Path, name: str) -> Path:
    """Where in the folder the weights called `name` are."""
    return folder / "weights" / f"{name}.safetensors"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


class Checkpoint:
    """History, best weights and all that is needed to go on, in one safetensors file that is renamed into place.

    One file, so that a kill at any moment leaves the older state or the newer one, never a mixture.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any], watch: str | None) -> None:
        # anew, as a connection to object storage does not outlive the fork that made this process
        self.path = None if path is None else location(str(path))
        self.settings, self.watch = settings, watch
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.saved = time.monotonic()

    def add(self, row: dict[str, Any], model: nn.Module) -> None:
        """Append a row to the history and keep the weights if it is the best so far, or if nothing is watched."""
        self.history.append(row)
        if self.watch is None or all(row[self.watch] > earlier[self.watch] for earlier in self.history[:-1]):
            self.best = copy(model.state_dict())

    def save(self, epoch: int, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write the file, unless the last one is younger than SECONDS_BETWEEN_CHECKPOINTS."""
        if self.path is None or time.monotonic() - self.saved < SECONDS_BETWEEN_CHECKPOINTS:
            return
        moments = optimiser.state_dict()["state"]
        tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"optimiser/{i}/{name}": value for i, state in moments.items() for name, value in state.items()}
        write(self.path, {"epoch": epoch, "settings": self.settings, "history": self.history}, copy(tensors))
        self.saved = time.monotonic()

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Load the checkpoint, if there is one, and return the number of epochs that it has behind it."""
        if self.path is None or not self.path.exists():
            return 0
        try:
            facts, tensors = read(self.path)
            epoch, settings, history = int(facts["epoch"]), facts["settings"], facts["history"]
            parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
            for name, value in tensors.items():
                part, key = name.split("/", 1)
                parts[part][key] = value
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            warnings.warn(f"{self.path} cannot be read ({error}): training starts from the beginning", stacklevel=2)
            return 0
        if settings != self.settings:
            raise ValueError(f"{self.path} belongs to a run with other settings, {settings}; delete or move it")
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


def copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they can be written: on the CPU, contiguous, and no longer part of anything."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def write(path: Path, facts: Any, tensors: dict[str, Tensor]) -> None:
    """Write tensors, and facts that JSON can hold, as one safetensors file; raises OSError when that fails."""
    with replacing(path) as temporary:
        # under one name, as safetensors writes several in any order
        told = json.dumps({"facts": facts, "sha256": _sum(facts, tensors)})
        try:
            save_file(tensors, temporary, metadata={"rsbook": told})
        except SafetensorError as error:  # which is no OSError, whatever the disk has said
            code = re.search(r"os error (\d+)", str(error))
            said = (int(code[1]), os.strerror(int(code[1]))) if code else (errno.EIO, str(error))
            raise OSError(*said, str(path)) from error


def read(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """The facts and the tensors that `write` wrote; raises ValueError when they are not those."""
    with fetched(path) as local, safe_open(local, framework="pt") as file:
        names = file.keys()
        told, tensors = json.loads(file.metadata()["rsbook"]), {name: file.get_tensor(name) for name in names}
        if told["sha256"] != _sum(told["facts"], tensors):
            raise ValueError("its sha256 is not that of its contents")
        return told["facts"], tensors


def _sum(facts: Any, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name in sorted(tensors):
        digest.update(f"{name}\0".encode())
        digest.update(memoryview(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
