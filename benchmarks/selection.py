"""The selection masks of CromSS: beside a training step of its two U-Nets.

python benchmarks/selection.py --network resnet50 --batch 2 --size 128 --classes 9 --rounds 5 --threads 1 2

Both grow with the batch; with 32 scenes of 256 × 256 pixels a step takes five minutes on a CPU core.
"""

from argparse import Namespace
from types import SimpleNamespace

import measuring
import torch
from torch import Generator, Tensor

from rsbook import cromss, models, selection

BANDS = (range(2), range(2, 15))  # Sentinel-1 and Sentinel-2
RISEN = 0.8  # the ramp: the share that keeps its full weight is 0.6

STEP = "training step without selection"
MASKS = {ranking: f"rsbook masks, {ranking}" for ranking in selection.RANKINGS}


def main() -> None:
    """Check, time, write."""
    parser = measuring.parser(__file__, __doc__, rounds=5, batch=2, size=128, classes=9)
    parser.add_argument("--network", default="resnet50", help="the encoders; default: resnet50")
    arguments = parser.parse_args()
    table = measuring.Table(arguments)
    for device in table.machines():
        case = f"{arguments.batch}×15×{arguments.size}², {arguments.network}"
        setup = make_case(device, arguments)
        calls = {
            name: lambda setup=setup, ranking=ranking: selection.masks(setup.logits, setup.maps, RISEN, ranking)
            for ranking, name in MASKS.items()
        }
        check(setup, {ranking: calls[name]() for ranking, name in MASKS.items()})
        calls[STEP] = lambda setup=setup: step(setup)
        seconds = measuring.turns(calls, arguments.rounds, device, warm_up=1)
        table.times(case, seconds, {}, items=arguments.batch)
        for name in MASKS.values():
            table.ratio(case, seconds, name, STEP, at_most=0.15)
    table.write()


def make_case(device: str, arguments: Namespace) -> SimpleNamespace:
    """Random images and maps, the networks, and what these predict."""
    generator = Generator().manual_seed(0)
    shape = arguments.batch, arguments.size, arguments.size
    images = torch.randn(arguments.batch, 15, *shape[1:], generator=generator)
    images = images.to(device, memory_format=torch.channels_last)
    maps = torch.randint(arguments.classes, shape, generator=generator).to(device)
    network = models.unets(arguments.network, BANDS, arguments.classes, generator, "mid")
    network = network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    logits = network(images).detach()
    return SimpleNamespace(images=images, maps=maps, network=network, optimiser=optimiser, logits=logits)


def step(setup: SimpleNamespace) -> None:
    """One training step of midF: losses and consistency, without selection."""
    loss = cromss.objective(setup.network(setup.images), setup.maps, consistent=True)
    setup.optimiser.zero_grad()
    loss.backward()
    setup.optimiser.step()


def check(setup: SimpleNamespace, found: dict[str, tuple[list[Tensor], list[Tensor]]]) -> None:
    """Stop unless the first modality's weights of labels are those of sorted confidences (eqs. 2 and 3)."""
    own, other = setup.logits.softmax(dim=2).gather(2, setup.maps[None, :, None].expand(2, -1, -1, -1, -1))[:, :, 0]
    confidence = (own + own * other) / 2
    groups = [setup.maps == label for label in setup.maps.unique()]
    for ranking, masks in (("global", [setup.maps >= 0]), ("per_class", groups)):
        for group in masks:
            ranked = confidence[group].sort(descending=True).values
            lowest = ranked[int(selection.selection_ratio(RISEN) * len(ranked) + 1e-6) - 1]
            torch.testing.assert_close(found[ranking][0][0][group], (confidence[group] / lowest).clamp(max=1))


if __name__ == "__main__":
    main()
