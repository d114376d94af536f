"""The random walk of AffinityNet: beside its parts, plain sparse products and the dense computation of the same walk.

python benchmarks/affinity.py --sizes 8 32 41 64 --classes 7 --channels 448 --rounds 11 --threads 1 2

Sizes are those of the features of a scene of 64 × 64 pixels at strides 8, 2 and 1, and of VOC at stride 8 (41). Dense:
T to the power of 256 by eight squarings, as the authors' code does, then one product; T is given to it.

The target of 50 ms is stated for 64 × 64 nodes; the pages' scenes have 16 × 16.
"""

from collections.abc import Callable

import measuring
import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from rsbook import affinity

OFFSETS = affinity.neighbours(5)
STEPS = 2**8
TARGETS = {64: 0.05}  # size → seconds for the whole walk
DENSE = {"largest": 41, "rounds": 5, "warm_up": 1}  # one dense walk on 64 × 64 nodes would take ten seconds

WHOLE = "rsbook random_walk: affinities, transition, walk"
AFFINITIES = "rsbook affinities"
TRANSITION = "rsbook transition"
WALK = "rsbook walk"
PRODUCTS = "256 sparse products"
SQUARINGS = "dense, eight squarings"
ROLES = {PRODUCTS: "peer", SQUARINGS: "peer"}


def main() -> None:
    """Check, time, write."""
    parser = measuring.parser(__file__, __doc__, rounds=11, classes=7, channels=448)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32, 41, 64], help="nodes a side")
    arguments = parser.parse_args()
    table = measuring.Table(arguments)
    for device in table.machines():
        for size in arguments.sizes:
            time_walks(table, size, device)
    table.write()


def time_walks(table: measuring.Table, size: int, device: str) -> None:
    """The rows of one size."""
    arguments = table.arguments
    case = f"{size}×{size} nodes, {arguments.classes} classes"
    calls = make_calls(size, arguments.classes, arguments.channels, device)
    check(calls)
    dense = {name: calls[name] for name in (WALK, SQUARINGS) if SQUARINGS in calls}
    calls.pop(SQUARINGS, None)
    seconds = measuring.turns(calls, arguments.rounds, device)
    table.add(case, WHOLE, seconds[WHOLE], at_most=TARGETS.get(size))
    table.times(case, {name: values for name, values in seconds.items() if name != WHOLE}, ROLES)
    table.ratio(case, seconds, PRODUCTS, WALK)
    if dense:
        seconds = measuring.turns(dense, DENSE["rounds"], device, DENSE["warm_up"])
        table.times(case, {SQUARINGS: seconds[SQUARINGS]}, ROLES)
        table.ratio(case, seconds, SQUARINGS, WALK)


def make_calls(size: int, classes: int, channels: int, device: str) -> dict[str, Callable]:
    """What is timed, on random maps and smooth random features."""
    generator = Generator().manual_seed(0)
    coarse = torch.randn(1, channels, max(size // 8, 2), max(size // 8, 2), generator=generator)
    features = interpolate(coarse, (size, size), mode="bilinear").to(device)
    maps = torch.rand(1, classes, size, size, generator=generator).to(device)
    present = torch.ones(1, classes, dtype=torch.bool, device=device)
    near = affinity.affinities(features, OFFSETS)[0]
    matrix = affinity.transition(near, OFFSETS)
    scores = torch.cat([maps[0], (1 - maps[0].amax(dim=0, keepdim=True)) ** 16]).flatten(1)
    calls = {
        WHOLE: lambda: affinity.random_walk(maps, present, features, offsets=OFFSETS, steps=STEPS)[0].flatten(1),
        AFFINITIES: lambda: affinity.affinities(features, OFFSETS),
        TRANSITION: lambda: affinity.transition(near, OFFSETS),
        WALK: lambda: affinity.walk(scores, matrix, STEPS),
        PRODUCTS: lambda: products(scores, matrix),
    }
    if size <= DENSE["largest"]:
        dense = matrix.to_dense()
        calls[SQUARINGS] = lambda: scores @ torch.linalg.matrix_power(dense, STEPS)
    return calls


def products(scores: Tensor, matrix: Tensor) -> Tensor:
    """The walk step by step."""
    now, step = scores.t().contiguous(), matrix.t()
    for _ in range(STEPS):
        now = step @ now
    return now.t()


def check(calls: dict[str, Callable]) -> None:
    """Stop unless all ways lead to the same scores."""
    expected = calls[PRODUCTS]()
    for name in {WHOLE, WALK, SQUARINGS} & set(calls):
        torch.testing.assert_close(calls[name](), expected, rtol=0, atol=1e-4)


if __name__ == "__main__":
    main()
