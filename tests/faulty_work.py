"""What notebooks of the fault tests call: cheap runs that note in a log, outside the store, when they begin and end.

Workers and kernels find it through PYTHONPATH (faulty_project.py); it imports what trains only where it trains.
"""

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from IPython.display import display

from rsbook import runs

EPOCHS = 5


def note(*words):
    """Append a line to the log, in one write: words, process, seconds since the machine's start."""
    line = " ".join(map(str, (*words, os.getpid(), f"{time.monotonic():.4f}")))
    with open(os.environ["FAULTY_LOG"], "ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def times(*words):
    """How often such a line is in the log."""
    return f"\n{Path(os.environ['FAULTY_LOG']).read_text()}".count("\n" + " ".join(map(str, words)) + " ")


@contextmanager
def noted(kind, who):
    note("begin", kind, who)
    yield
    note("end", kind, who)


def busy(who, seconds):
    """A cell that computes."""
    with noted("cell", who):
        time.sleep(seconds)


def die(who, deaths=None):
    """Kill this process, or do nothing when that many have died already."""
    if deaths is None or times("dies", who) < deaths:
        note("dies", who)
        os.kill(os.getpid(), signal.SIGKILL)


def work(*, value, wait=0.2, deaths=0, root, device, checkpoint):
    """A run that only waits, and kills its worker `deaths` times."""
    with noted("run", checkpoint.stem):
        time.sleep(wait)
        die(checkpoint.stem, deaths)
    return {"score": value / 8, "curve": [value, value / 2]}


def trained(*, seed, epochs=EPOCHS, wait=0.1, root, device, checkpoint):
    """A small training with a checkpoint after every epoch; its weights lie beside the record."""
    from rsbook import checkpoints, training

    with noted("run", checkpoint.stem), mock.patch.object(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0):
        behind = _epochs_behind(checkpoint)
        note("resume", checkpoint.stem, behind)
        model, task = _plane(seed), _Points(checkpoint.stem, behind, wait)
        how = {"batch_size": 8, "learning_rate": 0.01, "device": device, "checkpoint": checkpoint, "progress": False}
        history = training.fit(model, task, seed=seed, epochs=epochs, **how)
        name = checkpoints.save_weights(model, checkpoint.parent)
    return {"fit": history[-1]["fit"], "weights": name, "history": history}


def _epochs_behind(checkpoint):
    """How many epochs the checkpoint has; none where there is none that can be read."""
    from safetensors import SafetensorError

    from rsbook import checkpoints

    try:
        return checkpoints.read(checkpoint)[0]["epoch"]
    except (FileNotFoundError, SafetensorError, ValueError):
        return 0


def _plane(seed):
    from torch import nn

    from rsbook.training import seeded

    model = nn.Linear(16, 1)
    for weight in model.parameters():
        nn.init.uniform_(weight, generator=seeded(seed))
    return model


class _Points:
    """Thirty-two points on a plane; notes every epoch, counted on from those behind the checkpoint."""

    size, watch = 32, "fit"

    def __init__(self, who, behind, wait):
        import torch

        self.who, self.epoch, self.wait = who, behind, wait
        self.inputs = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
        self.targets = self.inputs.sum(dim=1, keepdim=True)

    def to(self, device):
        self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)

    def batch(self, index, generator):
        import torch

        inputs = self.inputs[index]
        return inputs + 0.1 * torch.randn(inputs.shape, generator=generator), self.targets[index]

    def loss(self, model, batch, epoch=0):
        return (model(batch[0]) - batch[1]).square().mean()

    def evaluate(self, model):
        self.epoch += 1
        note("epoch", self.who, self.epoch)
        time.sleep(self.wait)
        return {"fit": -self.loss(model, (self.inputs, self.targets)).item()}


def execution(point, size=8):
    """The function and the runs of one execution of the sweep: every fifth one trains."""
    values = range(point * size, (point + 1) * size)
    if point % 5 == 1:
        return trained, [{"seed": value} for value in values]
    return work, [{"value": value, "wait": 0.5} for value in values]


def show(function, rows, **fixed):
    """Show the table of these runs, with what `sweeps.collect` looks for in an executed notebook."""
    table = runs.table(function, rows, device="cpu", progress=False, **fixed)
    records = dict(zip((Path(path).stem for path in table["record"]), table["seconds"], strict=True))
    facts = {"rsbook": "receipt", "runs": {"function": f"faulty_work.{function.__name__}", "records": records}}
    told = table.drop(columns=["seconds", "record"]).to_string()
    display({"text/plain": told}, metadata={"rsbook": facts}, raw=True)  # as figures.Html, without Matplotlib
