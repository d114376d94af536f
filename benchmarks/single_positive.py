"""A training step of every method of Part IV beside one with assumed negatives: what a method adds.

python benchmarks/single_positive.py --network resnet18 --batch 32 --size 120 --classes 19 --threads 1
"""

import argparse
import csv
import datetime
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator

from rsbook import models, scenes, single_positive, single_positive_tasks

RESULTS = Path(__file__).parent / "results" / "single_positive.csv"
EPOCHS = 10  # of which the last is timed: by then every method does all that it ever does
TARGET = 15  # per cent; ROLE and what mixes are excepted


def main() -> None:
    """Time one step of each method in turn, print and write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    data = random_scenes(4 * arguments.batch, arguments.size, arguments.classes)
    steps = {name: stepper(name, {}, data, arguments, device) for name in single_positive.LOSSES}
    steps["adagc, no Mixup"] = stepper("adagc", {"mixup": False}, data, arguments, device)
    took = {name: [] for name in steps}
    for _ in range(arguments.rounds + 2):
        for name, step in steps.items():
            took[name].append(timed(step, device))
    rows = []
    for name, seconds in took.items():
        seconds, plain = seconds[2:], took["an"][2:]  # the first rounds warm up
        added = [100 * (own / other - 1) for own, other in zip(seconds, plain, strict=True)]
        rows.append(
            {
                "method": name,
                **{key: getattr(arguments, key) for key in ("network", "batch", "size", "classes")},
                "milliseconds": round(1000 * statistics.median(seconds), 1),
                "added_per_cent": round(statistics.median(added), 1),
                "target_per_cent": TARGET,
                "rounds": arguments.rounds,
                "threads": arguments.threads,
                "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
                "torch": torch.__version__,
                "date": datetime.date.today().isoformat(),
            }
        )
        print(rows[-1])
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def parse() -> argparse.Namespace:
    """Parameters from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet18")
    for name, default in (("batch", 32), ("size", 120), ("classes", 19), ("threads", 1), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def random_scenes(n: int, size: int, classes: int) -> scenes.Scenes:
    """Scenes of noise, with about three classes each."""
    generator = Generator().manual_seed(0)
    labels = torch.rand(n, classes, generator=generator) < 3 / classes
    labels[torch.arange(n), torch.arange(n) % classes] = True
    return scenes.Scenes(
        name="random",
        images=torch.randint(256, (n, 3, size, size), generator=generator, dtype=torch.uint8),
        labels=labels,
        positions=None,
        classes=tuple(f"class {c}" for c in range(classes)),
        splits={"train": torch.arange(n), "val": torch.arange(0), "test": torch.arange(0)},
        mean=torch.full((3,), 128.0),
        std=torch.full((3,), 64.0),
        min_pixels=0,
        checksum="0" * 64,
    )


def stepper(method: str, options: dict, data: scenes.Scenes, arguments: argparse.Namespace, device: torch.device):
    """A function that does one training step of a method, in the last epoch."""
    index, generator = torch.arange(len(data.images)), Generator().manual_seed(0)
    observed = single_positive.random_positive(data.labels, generator)
    network = models.classifier(arguments.network, 3, arguments.classes, generator)
    learner = single_positive_tasks.Learner(network, method, observed, EPOCHS, generator)
    learner = learner.to(device, memory_format=torch.channels_last)
    nothing = index[:0], observed[:0]
    task = single_positive_tasks.SinglePositive(
        data, index, observed, *nothing, learner, method=method, epochs=EPOCHS, options=options
    )
    task.to(device)
    learner.epoch.fill_(EPOCHS - 1)
    learner.begun.fill_(0)
    task.known = replace(task.known, positives=3.0)
    optimiser = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-4, fused=True)
    rows = index[: arguments.batch]

    def step() -> None:
        learner.train()
        loss = task.loss(learner, task.batch(rows, generator), EPOCHS - 1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def timed(call, device: torch.device) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
