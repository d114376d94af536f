"""CutMix with label propagation against its peers, in one run: see README.md for how it is measured.

python benchmarks/mixing.py --threads 1 --repeats 30 --batch 300 --bands 3 --size 120 --classes 6 --device cpu
"""

import argparse
import csv
import datetime
import platform
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import timm
import torch
import torchvision
from timm.data import Mixup
from torchvision.transforms import v2

from rsbook import mixing, positions
from rsbook.positions import AreaTables

RESULTS = Path(__file__).parent / "results" / "mixing.csv"
WARM_UP = 5  # rounds that are not counted
BOX = {"area_range": (0.3, 0.7), "probability": 0.5}
BATCHES = 2  # in the data set whose tables are looked up

COPY = "plain copy of the batch"
CUTMIX = "rsbook cutmix, area labels"
TABLES = "rsbook cutmix, label propagation (tables of the data set)"
BITS = "rsbook cutmix, label propagation (bit masks)"
CUTOUT = "rsbook cutout"
TORCHVISION = "torchvision v2.CutMix (one box a batch, area labels)"
TIMM = "timm Mixup elem (CutMix, one box a scene, area labels)"


def main() -> None:
    """Check, time, print and write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    batch = make_batch(arguments)
    peers = make_peers(batch)
    check(batch, peers)
    seconds = measure(peers, arguments.repeats, synchronise(arguments.device))
    rows = summarise(seconds, arguments)
    report(rows)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def parse() -> argparse.Namespace:
    """Parameters from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("threads", 1), ("repeats", 30), ("batch", 300), ("bands", 3), ("size", 120), ("classes", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def make_batch(arguments: argparse.Namespace) -> SimpleNamespace:
    """A random batch and the tables of the larger data set from which it is taken."""
    draw = torch.Generator().manual_seed(0)
    n, size, classes, device = arguments.batch, arguments.size, arguments.classes, arguments.device
    images = torch.rand(n, arguments.bands, size, size, generator=draw).to(device)
    cells = torch.randint(classes, (BATCHES * n, 1, 3, 3), generator=draw)  # patches of land, as in a map
    maps = torch.nn.functional.interpolate(cells.float(), size=(size, size))[:, 0].long()
    bits = positions.from_reference_maps(maps, classes).to(device)
    index = torch.randperm(len(bits), generator=draw)[:n].to(device)
    return SimpleNamespace(
        images=images,
        labels=positions.to_labels(bits[index], classes),
        bits=bits[index],
        tables=AreaTables(bits, classes),
        index=index,
        generator=draw,
    )


def make_peers(batch: SimpleNamespace) -> dict[str, Callable]:
    """What is timed: every peer mixes the same batch and returns it with its labels."""
    images, labels, one_hot = batch.images, batch.labels, batch.labels.float()
    ours = BOX | {"generator": batch.generator}
    # Each peer in its own best mode. timm mixes in place: it has a batch of its own and need not be given a fresh copy.
    batch_for_timm = images.clone()
    one_box = v2.CutMix(num_classes=labels.shape[1])
    element = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, prob=BOX["probability"], mode="elem")

    def with_timm():
        share = element._mix_elem(batch_for_timm)
        return batch_for_timm, share * one_hot + (1 - share) * one_hot.flip(0)

    return {
        COPY: lambda: (images.clone(), labels.clone()),
        CUTMIX: lambda: mixing.cutmix(images, labels, **ours),
        TABLES: lambda: mixing.cutmix(images, labels, batch.tables[batch.index], **ours),
        BITS: lambda: mixing.cutmix(images, labels, batch.bits, **ours),
        CUTOUT: lambda: mixing.cutout(images, labels, **ours),
        TORCHVISION: lambda: one_box(images, one_hot),
        TIMM: with_timm,
    }


def check(batch: SimpleNamespace, peers: dict[str, Callable]) -> None:
    """Stop unless the mixtures are what their boxes say, and the propagated labels what the mixed positions say."""
    state = batch.generator.get_state()
    results = []
    for name in (CUTMIX, TABLES, BITS):
        batch.generator.set_state(state)
        results.append(peers[name]())
    area, tables, direct = results
    scenes = batch.images.clone()
    for i in tables.applied.nonzero().flatten().tolist():
        top, left, bottom, right = tables.boxes[i].tolist()
        from_top, from_left, to_bottom, to_right = tables.sources[i].tolist()
        patch = batch.images[tables.partner[i], :, from_top:to_bottom, from_left:to_right]
        scenes[i, :, top:bottom, left:right] = patch
    labels = positions.to_labels(tables.positions, batch.labels.shape[1]).float()
    if not all(torch.equal(way.images, scenes) for way in results):
        raise SystemExit("images: not mixed as the boxes say")
    if not (torch.equal(tables.labels, labels) and torch.equal(direct.labels, labels)):
        raise SystemExit("labels: not those of the mixed positions")
    if torch.equal(area.labels, labels):
        raise SystemExit("labels: area labels and propagated labels should differ on this batch")


def synchronise(device: str) -> Callable[[], None]:
    """A function that waits until the device has done its work."""
    return torch.cuda.synchronize if torch.device(device).type == "cuda" else (lambda: None)


def measure(peers: dict[str, Callable], repeats: int, wait: Callable) -> dict[str, list[float]]:
    """Seconds of every call. All peers take turns, so that a slower moment of the machine meets all of them."""
    seconds = {name: [] for name in peers}
    for turn in range(WARM_UP + repeats):
        for name, function in peers.items():
            wait()
            start = time.perf_counter()
            function()
            wait()
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summarise(seconds: dict[str, list[float]], arguments: argparse.Namespace) -> list[dict]:
    """One row a peer: median, quartiles, images a second; ratios are medians over the rounds."""
    rows = []
    for name, times in seconds.items():
        low, median, high = np.percentile(times, (25, 50, 75))
        to_copy = np.median(np.divide(seconds[COPY], times))
        surcharge = 100 * (np.median(np.divide(times, seconds[CUTMIX])) - 1)
        rows.append(
            {
                "peer": name,
                "median_milliseconds": f"{1e3 * median:.2f}",
                "lower_quartile": f"{1e3 * low:.2f}",
                "upper_quartile": f"{1e3 * high:.2f}",
                "images_per_second": f"{arguments.batch / median:.0f}",
                "ratio_to_copy": f"{to_copy:.2f}",
                "surcharge_over_cutmix_percent": f"{surcharge:+.1f}" if name in (TABLES, BITS) else "",
                "batch": arguments.batch,
                "bands": arguments.bands,
                "size": arguments.size,
                "classes": arguments.classes,
                "repeats": arguments.repeats,
                "threads": arguments.threads,
                "device": device_name(arguments.device),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "timm": timm.__version__,
                "date": datetime.date.today().isoformat(),
            }
        )
    return rows


def device_name(device: str) -> str:
    """The processor or accelerator in words."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def report(rows: list[dict]) -> None:
    """The table on the screen."""
    print(f"{'ms':>8} {'quartiles':>17} {'images/s':>9} {'of copy':>8} {'over CutMix':>12}")
    for row in rows:
        quartiles = f"{row['lower_quartile']} – {row['upper_quartile']}"
        surcharge = f"{row['surcharge_over_cutmix_percent']} %" if row["surcharge_over_cutmix_percent"] else ""
        print(
            f"{row['median_milliseconds']:>8} {quartiles:>17} {row['images_per_second']:>9} {row['ratio_to_copy']:>8} "
            f"{surcharge:>12}  {row['peer']}"
        )


if __name__ == "__main__":
    main()
