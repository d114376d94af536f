"""The random walk of AffinityNet on one scene, its parts, and the dense computation of the same walk.

python benchmarks/affinity.py --sizes 8 32 41 64 --classes 7 --channels 448 --threads 1

Sizes are those of the features of a scene of 64 × 64 pixels at strides 8, 2 and 1, and of VOC at stride 8 (41). Dense:
T to the power of 256 by eight squarings, as the authors' code does, then one product; T is given to it.
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
from torch.nn.functional import interpolate

from rsbook import affinity

RESULTS = Path(__file__).parent / "results" / "affinity.csv"
OFFSETS = affinity.neighbours(5)
STEPS = 2**8
TARGET = 50  # milliseconds for the walk of a scene of 64 × 64 pixels
LARGE = 2048  # nodes, from which a dense walk takes so long that a few rounds must do


def main() -> None:
    """Check, time in turn, print and write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    rows = []
    for size in arguments.sizes:
        calls, stored = walks(size, arguments.classes, arguments.channels, device)
        took = {name: [] for name in calls}
        for turn in range(arguments.rounds + 2):  # the first two warm up
            for name, call in calls.items():
                if name != "dense" or size**2 < LARGE or 2 <= turn < arguments.dense_rounds + 2:
                    spent = timed(call, device)
                    if turn >= 2:
                        took[name].append(spent)
        for name, seconds in took.items():
            ratios = [one / walk for (_, one), (_, walk) in zip(seconds, took["walk"], strict=False)]
            rows.append(
                {
                    "size": size,
                    "part": name,
                    **{key: getattr(arguments, key) for key in ("classes", "channels")},
                    "milliseconds": round_to_3(statistics.median(wall for wall, _ in seconds)),
                    "processor_milliseconds": round_to_3(statistics.median(processor for _, processor in seconds)),
                    "processor_times_walk": round_to_3(statistics.median(ratios)),
                    "values_of_the_matrix": size**4 if name == "dense" else stored,
                    "target_milliseconds": TARGET,
                    "rounds": len(seconds),
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
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32, 41, 64])
    for name, default in (("classes", 7), ("channels", 448), ("threads", 1), ("rounds", 11), ("dense-rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def walks(size: int, classes: int, channels: int, device: torch.device) -> tuple[dict, int]:
    """What is timed, by name, once it is known to agree; and how many values the sparse matrix has."""
    generator = Generator().manual_seed(0)
    coarse = torch.randn(1, channels, max(size // 8, 2), max(size // 8, 2), generator=generator)
    features = interpolate(coarse, (size, size), mode="bilinear").to(device)
    maps = torch.rand(1, classes, size, size, generator=generator).to(device)
    present = torch.ones(1, classes, dtype=torch.bool, device=device)
    near = affinity.affinities(features, OFFSETS)[0]
    matrix = affinity.transition(near, OFFSETS)
    scores = torch.cat([maps[0], (1 - maps[0].amax(dim=0, keepdim=True)) ** 16]).flatten(1)
    dense = matrix.to_dense()
    calls = {
        "random_walk": lambda: affinity.random_walk(maps, present, features, offsets=OFFSETS, steps=STEPS)[0].flatten(
            1
        ),
        "affinities": lambda: affinity.affinities(features, OFFSETS),
        "transition": lambda: affinity.transition(near, OFFSETS),
        "walk": lambda: affinity.walk(scores, matrix, STEPS),
        "256 sparse products": lambda: products(scores, matrix),
        "dense": lambda: scores @ torch.linalg.matrix_power(dense, STEPS),
    }
    expected = calls["dense"]()
    for name in ("random_walk", "walk", "256 sparse products"):
        torch.testing.assert_close(calls[name](), expected, rtol=0, atol=1e-4)
    return calls, matrix.values().numel()


def products(scores: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """The walk step by step."""
    now, step = scores.t().contiguous(), matrix.t()
    for _ in range(STEPS):
        now = step @ now
    return now.t()


def timed(call, device: torch.device) -> tuple[float, float]:
    """Milliseconds that a call takes, on the clock and of this process on the processor."""
    began, processor = time.perf_counter(), time.process_time()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - processor)


def round_to_3(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


if __name__ == "__main__":
    main()
