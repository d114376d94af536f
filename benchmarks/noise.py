"""Each kind of map noise on a training set of the size of DeepGlobe-ML's: 18,000 maps of 120 × 120 pixels, all changed.

python benchmarks/noise.py --threads 1 --maps 18000 --size 120 --classes 6
"""

import argparse
import csv
import datetime
import platform
import time
from pathlib import Path

import numpy as np
import scipy
import skimage
import torch
from torch import Tensor

from rsbook import noise

RESULTS = Path(__file__).parent / "results" / "noise.csv"
TRAINING_SET = 18_000  # maps that the seconds are stated for
INTENSITIES = {  # the strongest published; where none is printed, the strongest of ours
    "mask_shift": 36,
    "dilation_erosion": 36,
    "rectify_borders": 16,
    "border_deformation": 20,
    "segment_swap": None,
    "class_swap": None,
}


def main() -> None:
    """Make the maps, time each kind, check, print and write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    maps = make_maps(arguments.maps, arguments.size, arguments.classes)
    segments = [int(noise._segments(one).max()) for one in maps[:1_000].long().numpy()]
    print(f"segments in a map: {', '.join(f'{n:.0f}' for n in np.percentile(segments, (0, 25, 50, 75, 100)))}")
    rows = [measure(kind, maps, arguments) | {"median_segments": f"{np.median(segments):.0f}"} for kind in noise.KINDS]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def parse() -> argparse.Namespace:
    """Parameters from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("threads", 1), ("maps", TRAINING_SET), ("size", 120), ("classes", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def make_maps(n: int, size: int, classes: int) -> Tensor:
    """Maps (N,H,W) uint8 of patches of land: smooth random fields, cut into classes, coarser and finer ones in turn."""
    draw = torch.Generator().manual_seed(0)
    levels = torch.linspace(-1, 1, classes + 1)[1:-1]
    parts = []
    for start in range(0, n, 500):
        cells = 3 + start // 500 % 4
        fields = torch.randn(min(500, n - start), 1, cells, cells, generator=draw)
        smooth = torch.nn.functional.interpolate(fields, size=(size, size), mode="bicubic")[:, 0]
        parts.append(torch.bucketize(smooth, levels).to(torch.uint8))
    return torch.cat(parts)


def measure(kind: str, maps: Tensor, arguments: argparse.Namespace) -> dict:
    """One row: seconds of one call on all maps, and what it changed. Too few changed maps stop the script."""
    options = {"intensity": INTENSITIES[kind], "num_classes": arguments.classes}
    noise.simulate(kind, maps[:100], fraction=1, generator=torch.Generator().manual_seed(1), **options)  # warm-up
    start, start_of_work = time.perf_counter(), time.process_time()
    noisy = noise.simulate(kind, maps, fraction=1, generator=torch.Generator().manual_seed(0), **options)
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - start_of_work
    found = noise.changes(maps, noisy, arguments.classes)
    if found["maps_changed"] < 0.99:
        raise SystemExit(f"{kind}: only {found['maps_changed']:.1%} of the maps have changed")
    scale = TRAINING_SET / len(maps)
    how = "measured" if scale == 1 else f"from {len(maps):,}"
    print(
        f"{kind:>18} {scale * seconds:6.1f} s for {TRAINING_SET:,} maps ({how}), "
        f"{scale * processor_seconds:6.1f} s of a processor; mean IoU {found['mean_iou']:.3f}"
    )
    return {
        "kind": kind,
        "intensity": INTENSITIES[kind],
        "fraction": 1,
        f"seconds_for_{TRAINING_SET}": f"{scale * seconds:.1f}",
        f"processor_seconds_for_{TRAINING_SET}": f"{scale * processor_seconds:.1f}",  # without waiting for a shared one
        "maps": len(maps),
        "size": arguments.size,
        "classes": arguments.classes,
        **{name: f"{share:.4f}" for name, share in found.items()},
        "threads": arguments.threads,
        "device": processor(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "skimage": skimage.__version__,
        "date": datetime.date.today().isoformat(),
    }


def processor() -> str:
    """The processor in words."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
