"""Object storage of the tests' own, on 127.0.0.1, and runs to put there that other processes can import."""

import functools
import logging
import os
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
IMPORTS = f"import sys; sys.path[:0] = {[str(TESTS), str(TESTS.parent)]!r}\n"


@functools.cache
def address():
    """Of a server that speaks S3, of this process: one for all tests, as s3fs remembers to whom it is connected."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    return "http://{}:{}".format(*server.get_host_and_port())


@contextmanager
def environment(**others):
    """All that a user must set, here and for the processes that are started in the block."""
    given = {"AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": address(), **others}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_", "RSBOOK_"))]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # botocore would ask other machines for credentials
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        for name, value in given.items():
            patch.setenv(name, value) if value else patch.delenv(name, raising=False)
        forget()
        try:
            yield
        finally:
            forget()


def forget():
    """Let s3fs forget to whom it is connected, and as whom."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


def new():
    """The address of a new bucket."""
    from rsbook.files import location

    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    location(f"s3://{bucket}").fs.mkdir(bucket)
    return f"s3://{bucket}"


def objects(store):
    """The names of all objects under an address, without it."""
    from rsbook.files import location

    path = location(store)
    return sorted(name.removeprefix(f"{path.path}/") for name in path.fs.find(path.path))


def python(code, *arguments, **options):
    """A process that executes the code; it finds rsbook and this module."""
    command = [sys.executable, "-c", IMPORTS + code, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes, **options)


def said(process):
    """What a process has printed, once it has ended well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def work(*, value, seconds=0.0, calls, fails=False, root, device, checkpoint):
    """A run that notes in the folder `calls` that it was called, and by which process."""
    import time

    Path(calls, f"{value} {os.getpid()} {uuid.uuid4().hex}").touch()
    time.sleep(seconds)
    if fails:
        raise LookupError(f"no {value}")
    return {"score": value / 8, "curve": [value, None]}


def called(calls):
    """The value of each run that was begun."""
    return sorted(int(path.name.split()[0]) for path in Path(calls).iterdir())


class Points:
    """A task of 16 points on a plane; the evaluation `stop_at` raises."""

    size, watch = 16, "fit"

    def __init__(self, stop_at=None):
        from rsbook.training import seeded, torch

        self.inputs = torch.randn(16, 8, generator=seeded(0))
        self.targets, self.stop_at, self.evaluated = self.inputs.sum(dim=1, keepdim=True), stop_at, 0

    def to(self, device):
        pass

    def batch(self, index, generator):
        inputs = self.inputs[index]
        return inputs + 0.1 * inputs.clone().normal_(generator=generator), self.targets[index]

    def loss(self, model, batch, epoch=0):
        return (model(batch[0]) - batch[1]).square().mean()

    def evaluate(self, model):
        self.evaluated += 1
        if self.evaluated == self.stop_at:
            raise InterruptedError(f"interrupted at {self.stop_at}")
        return {"fit": -self.loss(model, (self.inputs, self.targets)).item()}


def trained(*, seed, calls, root, device, checkpoint):
    """A run that trains and keeps its weights; interrupted in its third epoch while `calls` has a file named stop."""
    from torch import nn

    from rsbook import checkpoints, training

    model, task = nn.Linear(8, 1), Points(stop_at=3 if Path(calls, "stop").exists() else None)
    for weight in model.parameters():
        nn.init.uniform_(weight, generator=training.seeded(seed))
    how = {"epochs": 5, "batch_size": 4, "learning_rate": 0.01, "device": device, "checkpoint": checkpoint}
    history = training.fit(model, task, seed=seed, progress=False, **how)
    weights = checkpoints.save_weights(model, checkpoint.parent)
    return {"history": history, "weights": weights, "evaluated": task.evaluated}
