"""A training step of every method of Part IV: beside one with assumed negatives.

python benchmarks/single_positive.py --network resnet18 --batch 8 --size 120 --classes 19 --rounds 5 --threads 1

AdaGC misses its target by design: its teacher scores every batch, a forward pass more.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

import measuring
import torch
from torch import Generator

from rsbook import models, scenes, single_positive, single_positive_tasks

EPOCHS = 10  # of which the last is timed: by then every method does all that it ever does
PLAIN = "an"  # assumed negatives
VARIANTS = {name: (name, {}) for name in single_positive.LOSSES} | {"adagc, no Mixup": ("adagc", {"mixup": False})}


def main() -> None:
    """Time, write."""
    parser = measuring.parser(__file__, __doc__, rounds=5, batch=8, size=120, classes=19)
    parser.add_argument("--network", default="resnet18", help="of timm; default: resnet18")
    parser.set_defaults(threads=[1])
    arguments = parser.parse_args()
    table = measuring.Table(arguments, ("timm",))
    data = random_scenes(4 * arguments.batch, arguments.size, arguments.classes)
    for device in table.machines():
        case = f"{arguments.batch}×3×{arguments.size}², {arguments.classes} classes"
        steps = {name: make_step(*variant, data, arguments, device) for name, variant in VARIANTS.items()}
        seconds = measuring.turns(steps, arguments.rounds, device, warm_up=2)
        table.times(case, seconds, {PLAIN: "limit"}, items=arguments.batch)
        for name in [name for name in seconds if name != PLAIN]:
            table.ratio(case, seconds, name, PLAIN, at_most=1.15)
    table.write()


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


def make_step(method: str, options: dict, data: scenes.Scenes, arguments: Namespace, device: str) -> Callable[[], None]:
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
    task.to(torch.device(device))
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


if __name__ == "__main__":
    main()
