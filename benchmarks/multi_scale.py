"""Activation maps at several scales, mirrored too, beside the forward passes that they need.

python benchmarks/multi_scale.py --network resnet18 --batch 4 --size 120 --classes 19 --threads 1
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

from rsbook import models, weak_segmentation

RESULTS = Path(__file__).parent / "results" / "multi_scale.csv"
TARGET = 1.2  # times the forward passes


def main() -> None:
    """Time forward passes and maps in turn, print and write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    generator = Generator().manual_seed(0)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, generator=generator)
    images = images.to(device, memory_format=torch.channels_last)
    network = models.classifier(arguments.network, 3, arguments.classes, generator, arguments.stride).eval()
    network = network.to(device, memory_format=torch.channels_last)
    ready = resized(images)
    size = (arguments.size, arguments.size)
    passes, maps = [], []
    for _ in range(arguments.rounds + 1):
        passes.append(timed(lambda: forward(network, ready), device))
        maps.append(timed(lambda: weak_segmentation.multi_scale_maps(network, images, size), device))
    passes, maps = passes[1:], maps[1:]  # the first round warms up
    ratios = [own / floor for own, floor in zip(maps, passes, strict=True)]
    row = {
        **{name: getattr(arguments, name) for name in ("network", "stride", "batch", "size", "classes")},
        "forward_passes": len(ready),
        "passes_seconds": round(statistics.median(passes), 4),
        "maps_seconds": round(statistics.median(maps), 4),
        "times_the_passes": round(statistics.median(ratios), 3),
        "target_times": TARGET,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }
    print(row)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, row, lineterminator="\n")
        table.writeheader()
        table.writerow(row)


def parse() -> argparse.Namespace:
    """Parameters from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--stride", type=int, default=32, help="pixels of an image for one of the last feature map")
    for name, default in (("batch", 4), ("size", 120), ("classes", 19), ("threads", 1), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def resized(images: torch.Tensor) -> list[torch.Tensor]:
    """What the network sees, made beforehand: the images at every scale, each also mirrored."""
    found = []
    for scale in weak_segmentation.SCALES:
        shape = [int(pixels * scale) for pixels in images.shape[2:]]
        one = interpolate(images, size=shape, mode="bilinear", align_corners=False)
        found += [one, one.flip(3).contiguous(memory_format=torch.channels_last)]
    return found


@torch.inference_mode()
def forward(network: torch.nn.Module, batches: list[torch.Tensor]) -> None:
    """The forward passes alone."""
    for batch in batches:
        network(batch)


def timed(call, device: torch.device) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
