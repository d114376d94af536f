"""Training with label propagation: beside a DataLoader with the same augmentation per scene, and the network alone.

python benchmarks/training.py --rounds 2 --epochs 4 --threads 1 2

Seconds are those of whole epochs after the first, in trainings that take turns. The peers draw, mix and label every
scene in worker processes, one scene at a time, as is usual, and so have the other core to themselves where one thread
is named; the limit is forward pass, backward pass and optimiser on one batch that lies ready. Where the network takes
97 % of our time, as ResNet18 does, no loader can make a training 1.5 times as slow. With the small network of the
quick preset, a step takes 20 ms, and what is outside of it, some sixty small operations, 1.4 ms.
"""

import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import measuring
import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from rsbook import cluster, label_propagation, mixing, models, positions, presets, scenes, training

AREA_RANGE, PROBABILITY = (0.3, 0.7), 0.5
ALONE = "forward, backward, optimiser alone"
OURS = "rsbook fit"
USUAL = "DataLoader, as usually written"
TUNED = "DataLoader, channels last and fused AdamW"
ROLES = {ALONE: "limit", USUAL: "peer", TUNED: "peer"}


@dataclass
class Case:
    """A network, scenes and the size of a batch."""

    name: str
    data: scenes.Scenes
    index: Tensor
    maps: Tensor  # bit masks (n,H,W) of the scenes of the index
    network: str
    batch_size: int

    def model(self) -> torch.nn.Module:
        """The network as a training begins with it."""
        return models.classifier(self.network, self.data.images.shape[1], len(self.data.classes), seeded())

    @property
    def steps(self) -> int:
        """In an epoch."""
        return len(self.index) // self.batch_size


def main() -> None:
    """Check, time, write."""
    arguments = measuring.parser(__file__, __doc__, rounds=2, epochs=4).parse_args()
    table = measuring.Table(arguments)
    for device in table.machines():
        for case in (embedded(), made_up(120, 16)):
            check(case)
            ways = {ALONE: alone, OURS: ours, USUAL: usual, TUNED: tuned}
            seconds = {name: [] for name in ways}
            for _ in range(arguments.rounds):
                for name, way in ways.items():
                    seconds[name] += way(case, arguments.epochs, device)[1:]
            table.times(case.name, seconds, ROLES, items=case.steps * case.batch_size)
            outside = [1 - floor / whole for floor, whole in zip(seconds[ALONE], seconds[OURS], strict=True)]
            most = 0.05 if device == "cpu" else 0.1
            where = {"role": "ratio", "unit": "share", "at_most": most, "on": (device, 1 if device == "cpu" else None)}
            table.add(case.name, "outside of the network, of a step of rsbook fit", outside, **where)
            table.ratio(case.name, seconds, USUAL, OURS, at_least=1.5, on=(device, 1 if device == "cpu" else None))
            table.ratio(case.name, seconds, TUNED, OURS)
    table.write()


def embedded() -> Case:
    """The quick preset of Part I on the embedded scenes."""
    data, settings = scenes.load("bluemarble"), presets.load("label_propagation", "quick")["training"]
    index = data.split("train")[: settings["train_scenes"]]
    n, _, size, _ = data.images[index].shape
    name = f"{settings['network']}, {n} scenes of 3×{size}², batches of {settings['batch_size']}"
    return Case(name, data, index, data.positions[index], settings["network"], settings["batch_size"])


def made_up(size: int, batch_size: int, n: int = 32, classes: int = 6) -> Case:
    """The paper's network and size of scenes, in an epoch of few steps."""
    cells = torch.randint(classes, (n, 1, 3, 3), generator=seeded())
    maps = torch.nn.functional.interpolate(cells.float(), size=(size, size))[:, 0].long()
    bits, labels = scenes.from_maps(maps, classes, min_pixels=0)
    everything = torch.arange(n)
    data = scenes.Scenes(
        name="made up",
        images=torch.randint(256, (n, 3, size, size), generator=seeded(), dtype=torch.uint8),
        labels=labels,
        positions=bits,
        classes=tuple(map(str, range(classes))),
        splits={"train": everything, "val": everything, "test": everything},
        mean=torch.full((3,), 128.0),
        std=torch.full((3,), 64.0),
        min_pixels=0,
        checksum="0" * 64,
    )
    name = f"resnet18, {n} scenes of 3×{size}², batches of {batch_size}"
    return Case(name, data, everything, bits, "resnet18", batch_size)


def seeded() -> Generator:
    """A generator of the one seed."""
    return Generator().manual_seed(0)


# Ours


class Timed(training.Classification):
    """Training scenes alone: evaluation only looks at the clock."""

    watch = None

    def __init__(self, case: Case, clock: list[float]) -> None:
        augment = label_propagation.augmentation("cutmix_lp_map", AREA_RANGE, PROBABILITY, case.data.min_pixels)
        super().__init__(case.data, case.index, case.index[:0], augment, positions=case.maps)
        self.clock = clock

    def evaluate(self, model: torch.nn.Module) -> dict:
        """Note when an epoch has ended."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.clock.append(time.perf_counter())
        return {}


def ours(case: Case, epochs: int, device: str) -> list[float]:
    """Seconds of every epoch of `training.fit`."""
    clock = [time.perf_counter()]
    settings = {"seed": 0, "epochs": epochs, "batch_size": case.batch_size, "learning_rate": 1e-3}
    training.fit(case.model(), Timed(case, clock), **settings, device=device, progress=False)
    return between(clock)


def alone(case: Case, epochs: int, device: str) -> list[float]:
    """Seconds of as many steps on one batch, made beforehand, in the same layout and with the same optimiser."""
    task = Timed(case, [])
    task.to(torch.device(device))
    images, labels = task.batch(torch.arange(case.batch_size), seeded())
    images = images.contiguous(memory_format=torch.channels_last)
    batches = [(images, labels)] * case.steps
    return train(case, epochs, device, batches, torch.channels_last, fused=True)


# Peers


def mix_one(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], box: list[int], source: list[int]):
    """One scene (C,H,W) and its map (H,W), with a box of another one pasted into both."""
    (image, bits), (top, left, bottom, right), (y, x, end, last) = map(list, (first, box, source))
    image, bits = image.clone(), bits.clone()
    image[:, top:bottom, left:right] = second[0][:, y:end, x:last]
    bits[top:bottom, left:right] = second[1][y:end, x:last]
    return image, bits


class Mixed(Dataset):
    """Scenes that are normalised, mixed with another one, and labelled, one at a time."""

    def __init__(self, case: Case) -> None:
        data = case.data
        self.images, self.maps, self.labels = data.images[case.index], case.maps, data.labels[case.index].float()
        self.mean, self.std = data.mean.view(-1, 1, 1), data.std.view(-1, 1, 1)
        self.classes, self.min_pixels = len(data.classes), data.min_pixels

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, i: int) -> tuple[Tensor, Tensor]:
        """The image, normalised, and its map."""
        return (self.images[i].float() - self.mean) / self.std, self.maps[i]

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if torch.rand(()) >= PROBABILITY:
            return self.scene(i)[0], self.labels[i]
        height, width = self.images.shape[2:]
        while True:  # Algorithm 1
            top, bottom = sorted(torch.randint(height + 1, (2,)).tolist())
            left, right = sorted(torch.randint(width + 1, (2,)).tolist())
            if AREA_RANGE[0] <= (bottom - top) * (right - left) / (height * width) <= AREA_RANGE[1]:
                break
        y, x = (int(torch.randint(room + 1, ())) for room in (height - (bottom - top), width - (right - left)))
        source = [y, x, y + bottom - top, x + right - left]
        other = self.scene(int(torch.randint(len(self), ())))
        image, bits = mix_one(self.scene(i), other, [top, left, bottom, right], source)
        return image, self.read_out(bits)

    def read_out(self, bits: Tensor) -> Tensor:
        """The label (L,) of a map (H,W)."""
        return positions.to_labels(bits.unsqueeze(0), self.classes, self.min_pixels)[0].float()


def usual(case: Case, epochs: int, device: str) -> list[float]:
    """Seconds of every epoch, as most repositories write it."""
    return train(case, epochs, device, loader(case, device), torch.contiguous_format, fused=False)


def tuned(case: Case, epochs: int, device: str) -> list[float]:
    """The same with all that helps the network."""
    return train(case, epochs, device, loader(case, device), torch.channels_last, fused=True)


def loader(case: Case, device: str) -> DataLoader:
    """Batches in a new order each epoch, from workers that stay, a core each."""
    options = {"shuffle": True, "drop_last": True, "pin_memory": device == "cuda"}
    return DataLoader(Mixed(case), case.batch_size, num_workers=cluster.cores(), persistent_workers=True, **options)


def train(case: Case, epochs: int, device: str, batches, layout: torch.memory_format, fused: bool) -> list[float]:
    """Seconds of every epoch of a plain loop over batches."""
    model = case.model().to(device, memory_format=layout).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused or None)
    rates = training.learning_rates(epochs * case.steps, 1e-3)
    clock, step = [time.perf_counter()], 0
    precision = partial(torch.autocast, "cuda", torch.bfloat16, enabled=device == "cuda")
    for _ in range(epochs):
        total = 0.0
        for images, labels in batches:
            optimiser.param_groups[0]["lr"] = rates[step]
            images = images.to(device, memory_format=layout, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            with precision():
                loss = binary_cross_entropy_with_logits(model(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total, step = total + loss.detach(), step + 1
        float(total)
        clock.append(time.perf_counter())
    return between(clock)


def between(clock: list[float]) -> list[float]:
    """Seconds from each time to the next."""
    return [later - earlier for earlier, later in pairwise(clock)]


def check(case: Case) -> None:
    """Stop unless the peers' scenes and labels are what ours are, given the same boxes."""
    data, one_at_a_time = case.data, Mixed(case)
    index = torch.arange(case.batch_size)
    tables = positions.AreaTables(case.maps[index], len(data.classes))
    images, labels = data.normalise(data.images[case.index[index]]), data.labels[case.index[index]]
    options = {"area_range": AREA_RANGE, "probability": 1.0, "min_pixels": data.min_pixels, "generator": seeded()}
    mixed = mixing.cutmix(images, labels, tables, **options)
    for i in range(case.batch_size):
        pair, boxes = (i, int(mixed.partner[i])), (mixed.boxes[i].tolist(), mixed.sources[i].tolist())
        image, bits = mix_one(*map(one_at_a_time.scene, pair), *boxes)
        if not (torch.equal(image, mixed.images[i]) and torch.equal(one_at_a_time.read_out(bits), mixed.labels[i])):
            raise SystemExit(f"scene {i}: not mixed or not labelled as ours")


if __name__ == "__main__":
    main()
