"""Each kind of map noise: on a training set of the size of DeepGlobe-ML's, 18,000 maps of 120 × 120, all changed.

python benchmarks/noise.py --maps 18000 --size 120 --classes 6 --rounds 5

On one core. Every round changes another part of the maps, so that all are changed once; its seconds are stated for
18,000 maps.
"""

from collections.abc import Callable

import measuring
import torch
from torch import Generator, Tensor

from rsbook import noise

TRAINING_SET = 18_000  # maps that the seconds are stated for
CHECKED = 200
INTENSITIES = {  # the strongest published; where none is printed, the strongest of ours
    "mask_shift": 36,
    "dilation_erosion": 36,
    "rectify_borders": 16,
    "border_deformation": 20,
    "segment_swap": None,
    "class_swap": None,
}


def main() -> None:
    """Check, time, write."""
    parser = measuring.parser(__file__, __doc__, rounds=5, maps=TRAINING_SET, size=120, classes=6)
    parser.set_defaults(threads=[1])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = measuring.Table(arguments, ("numpy", "scipy", "scikit-image"))
    case = f"{TRAINING_SET:,} maps of {arguments.size}², {arguments.classes} classes"
    maps = make_maps(arguments.maps, arguments.size, arguments.classes)
    check(maps[:CHECKED], arguments.classes)
    parts = [maps[start :: arguments.rounds] for start in range(arguments.rounds)]
    calls = {kind: make_call(kind, parts, arguments.classes) for kind in noise.KINDS}
    for kind, seconds in measuring.turns(calls, arguments.rounds, warm_up=0).items():
        scaled = [one * TRAINING_SET / len(part) for one, part in zip(seconds, parts, strict=True)]
        table.add(case, f"rsbook {kind}", scaled, items=TRAINING_SET, at_most=60)
    table.write()


def make_maps(n: int, size: int, classes: int) -> Tensor:
    """Maps (N,H,W) uint8 of patches of land: smooth random fields, cut into classes, coarser and finer ones in turn."""
    draw = Generator().manual_seed(0)
    levels = torch.linspace(-1, 1, classes + 1)[1:-1]
    parts = []
    for start in range(0, n, 500):
        cells = 3 + start // 500 % 4
        fields = torch.randn(min(500, n - start), 1, cells, cells, generator=draw)
        smooth = torch.nn.functional.interpolate(fields, size=(size, size), mode="bicubic")[:, 0]
        parts.append(torch.bucketize(smooth, levels).to(torch.uint8))
    return torch.cat(parts)


def make_call(kind: str, parts: list[Tensor], classes: int) -> Callable[[], Tensor]:
    """A function that changes the next part of the maps whenever it is called."""
    waiting = iter(parts)
    return lambda: simulate(kind, next(waiting), classes)


def simulate(kind: str, maps: Tensor, classes: int) -> Tensor:
    """Noise in all maps."""
    generator = Generator().manual_seed(0)
    return noise.simulate(kind, maps, fraction=1, intensity=INTENSITIES[kind], num_classes=classes, generator=generator)


def check(maps: Tensor, classes: int) -> None:
    """Stop unless every kind changes almost all of the maps: a few have nothing that could change."""
    for kind in noise.KINDS:
        changed = noise.changes(maps, simulate(kind, maps, classes), classes)["maps_changed"]
        if changed < 0.99:
            raise SystemExit(f"{kind}: only {changed:.1%} of the maps have changed")


if __name__ == "__main__":
    main()
