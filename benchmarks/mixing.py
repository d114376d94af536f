"""CutMix with label propagation: beside a plain copy of the batch and the CutMix of torchvision, timm and kornia.

python benchmarks/mixing.py --batch 300 --bands 3 --size 120 --classes 6 --rounds 30 --threads 1 2

Ours and timm mix half of the scenes (p = 0.5), each with a box of its own; torchvision has one box for the whole
batch, and mixes all of it, as kornia does. None of the peers propagates labels. With fresh memory, every block of over
32 MiB is one that the system has to map and to zero, page by page, which takes most of the time of a copy, and is what
a training on a CPU meets; with memory kept, blocks are used again, a copy takes 3 ms, and drawing and cutting 150
patches as long again: only mixing in place keeps up with it. timm mixes in place. Label propagation costs 0.1 ms a
batch, which is more than 3 % for small scenes; what it adds is the least of three calls, and where a quartile lies
above 1.03 with a median below, the rest of the machine decides.
"""

from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace

import measuring
import torch
from kornia.augmentation import RandomCutMixV2
from timm.data import Mixup
from torchvision.transforms import v2

from rsbook import mixing, positions
from rsbook.positions import AreaTables

BOX = {"area_range": (0.3, 0.7), "probability": 0.5}
BATCHES = 2  # in the data set whose tables are looked up
SURCHARGES = ((64, 6, 300), (120, 6, 300), (120, 19, 300), (256, 6, 64), (256, 19, 64), (512, 6, 16), (512, 19, 16))

COPY = "plain copy of the batch"
CUTMIX = "rsbook cutmix, area labels"
TABLES = "rsbook cutmix, label propagation"
INPLACE = "rsbook cutmix, label propagation, in place"
CUTMIX_INPLACE = "rsbook cutmix, area labels, in place"
BITS = "rsbook cutmix, label propagation, bit masks"
CUTOUT = "rsbook cutout"
TORCHVISION = "torchvision v2.CutMix (one box a batch, area labels)"
TIMM = "timm Mixup elem (in place, area labels)"
KORNIA = "kornia RandomCutMixV2 (area labels)"
ROLES = {COPY: "limit", TORCHVISION: "peer", TIMM: "peer", KORNIA: "peer"}


def main() -> None:
    """Check, time, write."""
    arguments = measuring.parser(__file__, __doc__, batch=300, bands=3, size=120, classes=6).parse_args()
    table = measuring.Table(arguments, ("torchvision", "timm", "kornia"))
    shape = f"{arguments.batch}×{arguments.bands}×{arguments.size}², {arguments.classes} classes"
    measuring.set_memory(kept=False)
    for device in table.machines():
        mix(table, f"{shape}, fresh memory" if device == "cpu" else shape, arguments, device)
        for size, classes, n in SURCHARGES if table.machine == measuring.ONE_THREAD else ():
            batch = make_batch(n, arguments.bands, size, classes, device)
            ways = (CUTMIX, TABLES, CUTMIX_INPLACE, INPLACE)
            peers = {name: call for name, call in make_peers(batch, device).items() if name in ways}
            seconds = measuring.turns(peers, arguments.rounds, device, best_of=3)
            case = f"{n}×{arguments.bands}×{size}², {classes} classes"
            table.ratio(case, seconds, TABLES, CUTMIX, at_most=1.03)
            table.ratio(case, seconds, INPLACE, CUTMIX_INPLACE)
    if measuring.set_memory(kept=True):  # last: what is kept is never fresh again
        torch.set_num_threads(1)
        table.machine = measuring.ONE_THREAD
        mix(table, f"{shape}, memory kept", arguments, "cpu")
    table.write()


def mix(table: measuring.Table, case: str, arguments: Namespace, device: str) -> None:
    """All ways on one batch, checked and timed, and the ratios that have targets."""
    batch = make_batch(arguments.batch, arguments.bands, arguments.size, arguments.classes, device)
    peers = make_peers(batch, device)
    check(batch, peers)
    seconds = measuring.turns(peers, arguments.rounds, device)
    table.times(case, seconds, ROLES, items=arguments.batch)
    table.ratio(case, seconds, TORCHVISION, TABLES, at_least=1.5)
    table.ratio(case, seconds, KORNIA, TABLES, at_least=12)
    table.ratio(case, seconds, TIMM, TABLES, at_least=1.8)
    if INPLACE in seconds:  # as timm is
        table.ratio(case, seconds, TIMM, INPLACE, at_least=1.8)
    if device == "cuda":
        table.ratio(case, seconds, TABLES, COPY, at_most=1.3, on=("cuda", None))
        return
    for ours in (TABLES, INPLACE):
        table.ratio(case, seconds, COPY, ours, at_least=0.8)


def make_batch(n: int, bands: int, size: int, classes: int, device: str) -> SimpleNamespace:
    """A random batch and the tables of the larger data set from which it is taken."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(n, bands, size, size, generator=draw).to(device)
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


def make_peers(batch: SimpleNamespace, device: str) -> dict[str, Callable]:
    """What is timed: every peer mixes the same batch and returns it with its labels."""
    images, labels, one_hot = batch.images, batch.labels, batch.labels.float()
    ours = BOX | {"generator": batch.generator}
    # Each peer in its own best mode. Who mixes in place has a batch of its own and need not be given a fresh copy.
    batch_for_us, batch_for_timm = images.clone(), images.clone()
    one_box = v2.CutMix(num_classes=labels.shape[1])
    element = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, prob=BOX["probability"], mode="elem")
    one_class = labels.float().argmax(dim=1)  # all that kornia takes
    in_kornia = RandomCutMixV2(p=1.0, use_correct_lambda=True, data_keys=["input", "class"])  # all of a batch or none

    def with_timm():
        share = element._mix_elem(batch_for_timm)
        return batch_for_timm, share * one_hot + (1 - share) * one_hot.flip(0)

    peers = {
        COPY: lambda: (images.clone(), labels.clone()),
        CUTMIX: lambda: mixing.cutmix(images, labels, **ours),
        TABLES: lambda: mixing.cutmix(images, labels, batch.tables[batch.index], **ours),
        BITS: lambda: mixing.cutmix(images, labels, batch.bits, **ours),
        CUTOUT: lambda: mixing.cutout(images, labels, **ours),
        TORCHVISION: lambda: one_box(images, one_hot),
        TIMM: with_timm,
        KORNIA: lambda: in_kornia(images, one_class),
    }
    if device == "cpu":  # elsewhere nothing is done in place
        again = ours | {"inplace": True}
        peers[INPLACE] = lambda: mixing.cutmix(batch_for_us, labels, batch.tables[batch.index], **again)
        peers[CUTMIX_INPLACE] = lambda: mixing.cutmix(batch_for_us, labels, **again)
    return peers


def check(batch: SimpleNamespace, peers: dict[str, Callable]) -> None:
    """Stop unless the mixtures are what their boxes say, and the propagated labels what the mixed positions say."""
    state = batch.generator.get_state()
    results = []
    for name in (CUTMIX, TABLES, BITS, *({INPLACE} & peers.keys())):
        batch.generator.set_state(state)
        results.append(peers[name]())
    area, tables, *others = results
    scenes = batch.images.clone()
    for i in tables.applied.nonzero().flatten().tolist():
        top, left, bottom, right = tables.boxes[i].tolist()
        from_top, from_left, to_bottom, to_right = tables.sources[i].tolist()
        patch = batch.images[tables.partner[i], :, from_top:to_bottom, from_left:to_right]
        scenes[i, :, top:bottom, left:right] = patch
    labels = positions.to_labels(tables.positions, batch.labels.shape[1]).float()
    if not all(torch.equal(way.images, scenes) for way in results):
        raise SystemExit("images: not mixed as the boxes say")
    if not all(torch.equal(way.labels, labels) for way in (tables, *others)):
        raise SystemExit("labels: not those of the mixed positions")
    if torch.equal(area.labels, labels):
        raise SystemExit("labels: area labels and propagated labels should differ on this batch")


if __name__ == "__main__":
    main()
