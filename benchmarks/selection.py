"""CromSS's selection masks beside a training step of its two U-Nets: what selection adds to a step.

python benchmarks/selection.py --network resnet50 --batch 4 --size 256 --classes 9 --threads 1

Both grow with the batch; at 32 a step takes five minutes on a CPU core.
"""

import argparse
import csv
import datetime
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Generator

from rsbook import cromss, models, selection

RESULTS = Path(__file__).parent / "results" / "selection.csv"
BANDS = (range(2), range(2, 15))  # Sentinel-1 and Sentinel-2


def main() -> None:
    """Time masks and steps in turn, print and write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    generator = Generator().manual_seed(0)
    shape = arguments.batch, arguments.size, arguments.size
    images = torch.randn(arguments.batch, 15, *shape[1:], generator=generator).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    maps = torch.randint(arguments.classes, shape, generator=generator).to(device)
    network = models.unets(arguments.network, BANDS, arguments.classes, generator, "mid")
    network = network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    logits = network(images).detach()
    rows = []
    for ranking in selection.RANKINGS:
        masks, steps = [], []
        for _ in range(arguments.rounds + 1):
            masks.append(timed(lambda ranking=ranking: selection.masks(logits, maps, 0.8, ranking), device))
            steps.append(timed(lambda: step(network, optimiser, images, maps), device))
        masks, steps = masks[1:], steps[1:]  # the first round warms up
        shares = [100 * mask / whole for mask, whole in zip(masks, steps, strict=True)]
        rows.append(
            {
                "ranking": ranking,
                **{name: getattr(arguments, name) for name in ("network", "batch", "size", "classes")},
                "masks_seconds": round(statistics.median(masks), 4),
                "step_seconds": round(statistics.median(steps), 4),
                "per_cent_of_a_step": round(statistics.median(shares), 2),
                "target_per_cent": 15,
                "rounds": arguments.rounds,
                "threads": arguments.threads,
                "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
                "torch": torch.__version__,
                "date": datetime.date.today().isoformat(),
            }
        )
        print(rows[-1])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def parse() -> argparse.Namespace:
    """Parameters from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet50")
    for name, default in (("batch", 4), ("size", 256), ("classes", 9), ("threads", 1), ("rounds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def step(network, optimiser, images, maps) -> None:
    """One training step of midF: losses and consistency, without selection."""
    loss = cromss.objective(network(images), maps, consistent=True)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def timed(call, device: torch.device) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
