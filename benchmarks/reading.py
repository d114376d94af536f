"""Reading scenes: a prepared archive beside torchgeo's reader of the publisher's files, and one too large for memory.

python benchmarks/reading.py --items 300 --scenes 250000 --rounds 30 --threads 1

Both read the same miniature BigEarthNet, from the memory of the file system. The large archive has the size of
BigEarthNet's: it is made of holes, but for the scenes of the first batch, which are on the disk and nowhere else; its
time begins after the imports. A training keeps scenes as integers until they are on the device, so that is what it
reads; torchgeo's reader converts to float32, and with this conversion, most of which is fresh memory, ours is slower.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring
import numpy as np
import torch
from torchgeo.datasets import BigEarthNetV2

from rsbook import preparing, scenes
from rsbook.archives import bigearthnet, prepared
from rsbook.scenes import take

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from make_archives_bigearthnet import make_v2

TORCHGEO = "torchgeo BigEarthNetV2, scene by scene"
BY_SCENE = "rsbook Scenes, scene by scene, as float32"
BY_BATCH = "rsbook Scenes, in one batch, as integers"
AS_FLOATS = "rsbook Scenes, in one batch, as float32"
COPY = "plain copy of the batch"
BATCH = 300
FIRST_BATCH = """
import json, sys, time, numpy, torch
from rsbook import provenance, scenes
begin = time.perf_counter()
data = scenes.load("bigearthnet", sys.argv[1])
rows = data.split("train")[torch.from_numpy(numpy.load(sys.argv[2]))]
images, labels = data.normalise(scenes.take(data.images, rows)), scenes.take(data.labels, rows)
bits = scenes.take(data.positions, rows)
seconds = time.perf_counter() - begin
assert bool(bits.any()) and len(images) == len(rows)
print(json.dumps([seconds, provenance.peak_memory("cpu")["process_megabytes"]]))
"""


def main() -> None:
    """Check, time, write."""
    parser = measuring.parser(__file__, __doc__, items=300, scenes=250_000)
    parser.set_defaults(threads=[1])
    arguments = parser.parse_args()
    table = measuring.Table(arguments, ("torchgeo", "rasterio"))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        item_rates(table, Path(folder), arguments)
    with tempfile.TemporaryDirectory() as folder:
        first_batches(table, Path(folder), arguments)
    table.write()


def item_rates(table: measuring.Table, root: Path, arguments) -> None:
    """Scenes of the miniature archive, read at random."""
    raw = root / "bigearthnet" / "raw"
    make_v2(raw, np.random.default_rng(0))
    for path in raw.rglob("*_B0[19].tif"):  # which only torchgeo would read
        path.unlink()
    (raw / "BigEarthNet-S1").mkdir()  # it wants to see the folder
    theirs = BigEarthNetV2(raw, split="train", bands="s2")
    preparing.prepare("bigearthnet", root, workers=1, progress=False)
    data = scenes.load("bigearthnet", root)
    rows = data.split("train")
    check(theirs, data, rows)
    order = torch.randint(len(rows), (arguments.items,), generator=torch.Generator().manual_seed(0))
    chosen = rows[order]

    def one(i: int) -> tuple:
        return data.images[i].float(), data.positions[i], data.labels[i]

    def batch(images=lambda: take(data.images, chosen)) -> tuple:
        return images(), take(data.positions, chosen), take(data.labels, chosen)

    images = batch()[0]
    part = order[: max(1, len(order) // 10)].tolist()  # enough of the slow one
    ways = {
        COPY: images.clone,
        BY_BATCH: batch,
        AS_FLOATS: lambda: batch(lambda: take(data.images, chosen).float()),
        BY_SCENE: lambda: [one(i) for i in chosen.tolist()],
        TORCHGEO: lambda: [theirs[i] for i in part],
    }
    seconds = measuring.turns(ways, max(5, arguments.rounds // 3), warm_up=1)
    seconds[TORCHGEO] = [len(order) / len(part) * took for took in seconds[TORCHGEO]]
    case = f"{arguments.items} scenes, {len(bigearthnet.BANDS)} bands, 120²"
    table.times(case, seconds, {COPY: "limit", TORCHGEO: "peer"}, items=arguments.items)
    for ours in (BY_BATCH, BY_SCENE, AS_FLOATS):
        table.ratio(case, seconds, TORCHGEO, ours, at_least=50)


def check(theirs: BigEarthNetV2, data: scenes.Scenes, rows: torch.Tensor) -> None:
    """Stop unless both give the same bands of 10 m and the same labels."""
    sharp = [i for i, band in enumerate(bigearthnet.BANDS) if bigearthnet.NATIVE[band] == bigearthnet.SIZE]
    order = sorted(bigearthnet.BANDS, key=lambda band: (int(band[1:].replace("8A", "08")), band))  # of torchgeo
    for i, row in enumerate(rows.tolist()):
        item = theirs[i]
        for band in sharp:
            if not torch.equal(item["image"][order.index(bigearthnet.BANDS[band])], data.images[row, band].float()):
                raise SystemExit(f"scene {i}: band {bigearthnet.BANDS[band]} differs from torchgeo's")
        if not torch.equal(item["label"].bool(), data.labels[row]):
            raise SystemExit(f"scene {i}: its label differs from torchgeo's")


def first_batches(table: measuring.Table, root: Path, arguments) -> None:
    """From nothing to the first batch of a training, each time in a new process."""
    folder, generator = root / "bigearthnet", np.random.default_rng(0)
    folder.mkdir()
    chosen = np.sort(generator.choice(arguments.scenes, BATCH, replace=False))
    np.save(root / "chosen.npy", chosen)
    make_large(folder, arguments.scenes, chosen, generator)
    found, bytes_alone = [], []
    for _ in range(5):
        forget(folder)
        bytes_alone.append(measuring.timed(lambda: read_bytes(folder / "images.npy", chosen)))
        forget(folder)
        command = [sys.executable, "-c", FIRST_BATCH, str(root), str(root / "chosen.npy")]
        found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
    seconds, megabytes = zip(*found, strict=True)
    size = sum(path.stat().st_size for path in folder.glob("*.npy")) / 1e9
    case = f"{arguments.scenes:,} scenes, {size:.0f} GB, batch of {BATCH}"
    table.add(case, "bytes of the images alone, from the disk", bytes_alone, role="limit")
    table.add(case, "rsbook, first batch, from the disk", seconds, at_most=2)
    table.add(case, "rsbook, first batch, most memory", megabytes, unit="MB", at_most=1000)


def read_bytes(path: Path, chosen: np.ndarray) -> None:
    """Read the images of these scenes, one after another."""
    size = 2 * len(bigearthnet.BANDS) * bigearthnet.SIZE**2
    start = path.stat().st_size % size  # of the first, after the header
    with path.open("rb", buffering=0) as file:
        for row in chosen.tolist():
            os.pread(file.fileno(), size, start + row * size)


def make_large(folder: Path, n: int, chosen: np.ndarray, generator: np.random.Generator) -> None:
    """An archive as `preparing` writes it, of which only some scenes take room on the disk."""
    bands, classes, side = len(bigearthnet.BANDS), len(bigearthnet.CLASSES), (bigearthnet.SIZE, bigearthnet.SIZE)
    arrays = {
        "images": ("uint16", (n, bands, *side)),
        "positions": ("int32", (n, *side)),
        "labels": ("bool", (n, classes)),
    }
    for name, (dtype, shape) in arrays.items():
        array = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        array[chosen] = generator.integers(1, 2, (len(chosen), *shape[1:])).astype(dtype)
        array.flush()
    manifest = {
        "name": "bigearthnet",
        "classes": bigearthnet.CLASSES,
        "rgb": [2, 1, 0],
        "mean": [1000.0] * bands,
        "std": [500.0] * bands,
        "min_pixels": 0,
        "has_positions": True,
        "scenes": {"train": n, "val": 0, "test": 0},
        "notes": {},
    }
    (folder / "manifest.json").write_text(prepared.to_json(manifest))
    (folder / "scenes.csv").write_text(prepared.to_csv(["scene", "split"], ((f"s{i}", "train") for i in range(n))))
    names = [*(f"{name}.npy" for name in arrays), "manifest.json", "scenes.csv"]
    # the sums of the large files are not looked at: they were whole when they were written
    sums = {
        name: scenes.sha256(folder / name) if (folder / name).stat().st_size < scenes.LARGE else "0" * 64
        for name in names
    }
    (folder / "SHA256SUMS").write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    scenes.remember(folder, scenes.checksum("bigearthnet", folder.parent))


def forget(folder: Path) -> None:
    """Leave nothing of the files in the memory of the file system."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
