"""How time and memory grow: with the size of images, bands, classes, scenes in a batch, and records of runs.

python benchmarks/scaling.py --threads 1 --milliseconds 30

One amount grows and the others stay. The exponent is the slope of the logarithm of the time against that of the amount
between the last two points, where fixed costs no longer hide it: 1 is linear, and up to 1.15 is taken for it, as what
no longer fits into a cache grows a little faster. It is one number, without quartiles. Memory is measured first, while
every block that is freed goes back to the system; then times, while freed memory stays in the process, so that curves
show what we do and not how the system hands out pages.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import measuring
import psutil
import torch
from torch import Generator

from rsbook import explain, label_propagation, mixing, models, noise, positions, presets, provenance, runs, training
from rsbook.scenes import Scenes, from_maps

SIZES = (32, 64, 128, 256, 512, 1024)
BANDS = (3, 5, 8, 13)
CLASSES = (6, 12, 19, 32)
BATCHES = (1, 4, 16, 64, 256, 1024)
RECORDS = (1, 10, 100, 300, 1000)
AXES = {"size": SIZES, "bands": BANDS, "classes": CLASSES, "batch": BATCHES}
USUAL = {"size": 120, "bands": 3, "classes": 6, "batch": 64}
OTHERWISE = {
    "size": {"batch": 8},
    "bands": {"batch": 256},
    "batch": {"size": 64},
}  # for what would be too small or large
UNITS = {"size": "pixels", "bands": "bands", "classes": "classes", "batch": "scenes", "records": "records"}
LINEAR = 1.15  # what no longer fits into a cache grows a little faster than it is read
ENOUGH = 20  # megabytes from which the growth of memory is looked at
SLOW = 1.0  # seconds from which one call must do


def main() -> None:
    """Measure every path along every axis, write."""
    parser = measuring.parser(__file__, __doc__, milliseconds=30)
    parser.set_defaults(threads=[1])
    arguments = parser.parse_args()
    table = measuring.Table(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for device in table.machines():
            stored = list(records(Path(folder))) if device == "cpu" else []
            if measuring.set_memory(kept=False, block=2**16) or device == "cuda":
                curves(table, device, stored, "memory", "MB", partial(megabytes, device=device))
            measuring.set_memory(kept=True)
            times = partial(seconds, device=device, budget=arguments.milliseconds / 1e3)
            curves(table, device, stored, "time", "s", times)
    table.write()


def curves(table: measuring.Table, device: str, stored: list, what: str, unit: str, measure: Callable) -> None:
    """Every path along every axis that it has; stored: tables of so many records."""
    for path, make in PATHS.items():
        for axis, amounts in AXES.items():
            if axis in APPLIES.get(path, AXES):
                usual = USUAL | OTHERWISE.get(axis, {})
                calls = ((amount, make(usual | {axis: amount}, device)) for amount in amounts)
                curve(table, path, axis, calls, what, unit, measure)
    if stored:
        curve(table, "reading records of runs", "records", stored, what, unit, measure)


def curve(table: measuring.Table, path: str, axis: str, calls: Iterable, what: str, unit: str, measure: Callable):
    """A row for each amount, and one for the exponent."""
    amounts, found = [], []
    for amount, call in calls:
        values = measure(call)
        amounts.append(amount**2 if axis == "size" else amount)
        found.append(min(values))
        table.add(f"{path} · {amounts[-1]} {UNITS[axis]}", what, values, unit=unit)
    if unit == "s" or found[-2] > ENOUGH:
        slope = math.log(found[-1] / found[-2]) / math.log(amounts[-1] / amounts[-2])
        case = f"{path} · {UNITS[axis]}"
        table.add(case, f"exponent of {what}", [slope], role="ratio", unit="", at_most=LINEAR, on=None)


def seconds(call: Callable, device: str, budget: float) -> list[float]:
    """Of at least three calls, and of as many as fit into the budget, after one to warm up; of one that is slow."""
    first = measuring.timed(call, device)
    times, until = [], time.perf_counter() + budget
    while first < SLOW and (len(times) < 3 or time.perf_counter() < until):
        times.append(measuring.timed(call, device))
    return times or [first]


def megabytes(call: Callable, device: str) -> list[float]:
    """Memory that one call needs at most, beside what is there before."""
    before = torch.cuda.memory_allocated() if device == "cuda" else psutil.Process().memory_info().rss
    provenance.forget_peak_memory(device)
    call()
    peak = provenance.peak_memory(device)["gpu_megabytes" if device == "cuda" else "process_megabytes"]
    return [max(0.0, peak - before / 1e6)]


# Paths: what is called, for sizes, bands, classes and scenes


def land(size: int, classes: int, batch: int) -> torch.Tensor:
    """Maps (B,H,W) of nine patches of land each."""
    cells = torch.randint(classes, (batch, 1, 3, 3), generator=seeded())
    return torch.nn.functional.interpolate(cells.float(), size=(size, size))[:, 0].long()


def seeded() -> Generator:
    """A generator of the one seed."""
    return Generator().manual_seed(0)


def mix(amounts: dict[str, int], device: str) -> Callable:
    """CutMix with label propagation."""
    bits = positions.from_reference_maps(
        land(amounts["size"], amounts["classes"], amounts["batch"]), amounts["classes"]
    )
    images = torch.rand(amounts["batch"], amounts["bands"], amounts["size"], amounts["size"], generator=seeded())
    images, bits = images.to(device), bits.to(device)
    labels, tables = positions.to_labels(bits, amounts["classes"]), positions.AreaTables(bits, amounts["classes"])
    generator = seeded()
    return lambda: mixing.cutmix(images, labels, tables, area_range=(0.3, 0.7), generator=generator)


def make_tables(amounts: dict[str, int], device: str) -> Callable:
    """The summed-area tables of a data set."""
    bits = positions.from_reference_maps(
        land(amounts["size"], amounts["classes"], amounts["batch"]), amounts["classes"]
    )
    bits = bits.to(device)
    return lambda: positions.AreaTables(bits, amounts["classes"])


def explained(amounts: dict[str, int], device: str) -> Callable:
    """Explanation masks of all classes, by the network of the quick presets."""
    images = torch.rand(amounts["batch"], amounts["bands"], amounts["size"], amounts["size"], generator=seeded())
    images = images.to(device, memory_format=torch.channels_last)
    network = models.classifier("narrow_resnet", amounts["bands"], amounts["classes"], seeded()).eval()
    network = network.to(device, memory_format=torch.channels_last)
    labels = torch.ones(amounts["batch"], amounts["classes"], dtype=torch.bool, device=device)
    size = (amounts["size"], amounts["size"])
    return lambda: explain.explanation_masks(explain.activation_maps(network, images), labels, size)


def simulated(kind: str) -> Callable:
    """Map noise of a kind, at a strength that grows with the image where it is in pixels."""

    def make(amounts: dict[str, int], device: str) -> Callable:
        maps = land(amounts["size"], amounts["classes"], amounts["batch"]).to(torch.uint8)
        strongest = presets.load("label_propagation", "full", "deepglobe")["noise_levels"][kind][-1][1]
        grows = kind in ("mask_shift", "dilation_erosion", "rectify_borders")
        strength = max(1, strongest * amounts["size"] // 120) if strongest and grows else strongest
        options = {"fraction": 1, "intensity": strength, "num_classes": amounts["classes"]}
        return lambda: noise.simulate(kind, maps, generator=seeded(), **options)

    return make


def prepared_batch(amounts: dict[str, int], device: str) -> Callable:
    """A batch of a training: read, normalised, mixed, labelled."""
    n, classes, size = amounts["batch"], amounts["classes"], amounts["size"]
    bits, labels = from_maps(land(size, classes, n), classes, min_pixels=0)
    everything = torch.arange(n)
    shape = (n, amounts["bands"], size, size)
    data = Scenes(
        name="made up",
        images=torch.randint(255, shape, generator=seeded(), dtype=torch.uint8),
        labels=labels,
        positions=bits,
        classes=tuple(map(str, range(classes))),
        splits={"train": everything},
        mean=torch.full(shape[1:2], 128.0),
        std=torch.full(shape[1:2], 64.0),
        min_pixels=0,
        checksum="",
    )
    augment = label_propagation.augmentation("cutmix_lp_map", (0.3, 0.7), 0.5, 0)
    task = training.Classification(data, everything, everything, augment, positions=bits)
    task.to(torch.device(device))
    generator = seeded()
    return lambda: task.batch(everything, generator)


def records(folder: Path) -> Iterator[tuple[int, Callable]]:
    """Tables of runs that have their records."""
    settings = presets.load("label_propagation", "quick")["training"]
    fixed = settings | {"dataset": "bluemarble", "method": "none", "area_range": None}
    store = folder / "label_propagation.train"
    store.mkdir()
    history = [{"epoch": epoch, "loss": 0.5, "map_macro": 0.5} for epoch in range(settings["epochs"] // 2)]
    made = 0
    for n in RECORDS:
        for seed in range(made, n):
            facts = runs.facts(label_propagation.train, fixed | {"seed": seed})
            name = runs.fingerprint(label_propagation.train, facts["parameters"])
            found = {"results": {"map_macro": 0.5, "history": history}, "seconds": 1.0}
            (store / f"{name}.json").write_text(json.dumps({"fingerprint": name, **facts, **found}))
        made = n
        grid = [{"seed": seed} for seed in range(n)]
        yield n, lambda grid=grid: runs.table(label_propagation.train, grid, store=folder, progress=False, **fixed)


PATHS = {
    "CutMix with label propagation": mix,
    "area tables": make_tables,
    "explanation masks": explained,
    **{kind.replace("_", " "): simulated(kind) for kind in noise.KINDS},
    "a batch of a training": prepared_batch,
}
APPLIES = {kind.replace("_", " "): ("size", "batch") for kind in noise.KINDS} | {  # classes change other segments
    "area tables": ("size", "classes", "batch")
}


if __name__ == "__main__":
    main()
