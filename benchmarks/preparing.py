"""Preparing DeepGlobe-ML: beside only reading the same files, on as many processes.

python benchmarks/preparing.py --tiles 3 --copies 12 --size 2448 --workers 2 --rounds 5
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

from rsbook import preparing, scenes

SEGMENT = 340  # pixels: about a quarter of the patches then have several classes, as the paper's means imply

PREPARE = "rsbook data prepare (reads, selects, writes, hashes)"
RASTERIO = "rasterio, reading only"
FASTEST = "Pillow for images and rasterio for masks, reading only"
FLUSH = "what preparing has left for the system to write to the disk"
ROLES = {RASTERIO: "peer", FASTEST: "limit"}


def main() -> None:
    """Make an archive, check, time, write."""
    parser = measuring.parser(__file__, __doc__, rounds=5, tiles=3, copies=12, size=2448, workers=2)
    parser.add_argument("--folder", help="where the archive is made and prepared; default: for temporary files")
    parser.set_defaults(threads=[1])
    arguments = parser.parse_args()
    table = measuring.Table(arguments, ("rasterio", "pillow"))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root = Path(folder)
        raw = root / "deepglobe" / "raw"
        make_deepglobe(raw, arguments.tiles, arguments.size, SEGMENT)
        copy_tiles(raw, arguments.copies)
        prepare(root, arguments.workers)
        check(root)
        time_ways(table, root, sorted(raw.iterdir()))
    table.write()


def time_ways(table: measuring.Table, root: Path, files: list[Path]) -> None:
    """The rows: seconds, and what the same calls have used of all cores."""
    workers, rounds = table.arguments.workers, table.arguments.rounds
    case = f"{len(files) // 2} tiles, {workers} processes"
    used = {RASTERIO: [], FASTEST: [], PREPARE: []}
    calls = {
        RASTERIO: noting(used[RASTERIO], lambda: read_all(files, with_rasterio, workers)),
        FASTEST: noting(used[FASTEST], lambda: read_all(files, with_both, workers)),
        PREPARE: noting(used[PREPARE], lambda: prepare(root, workers)),
        FLUSH: os.sync,  # or reading would be slowed down by it
    }
    seconds = measuring.turns(calls, rounds, warm_up=1)  # which fills the file cache
    table.times(case, seconds, ROLES, items=len(files) // 2)
    table.ratio(case, seconds, PREPARE, RASTERIO)
    table.ratio(case, seconds, PREPARE, FASTEST)
    counted = {name: values[-rounds:] for name, values in used.items()}
    table.ratio(f"{case}, processor time", counted, PREPARE, RASTERIO)


def copy_tiles(raw: Path, copies: int) -> None:
    """Each tile so many times under other names, so that starting processes does not decide the outcome."""
    for path in sorted(raw.iterdir()):
        tile, end = path.name.split("_")
        for copy in range(1, copies):
            shutil.copy(path, raw / f"{tile}{copy:03}_{end}")


def prepare(root: Path, workers: int) -> None:
    """Prepare the archive from nothing."""
    (root / "deepglobe" / "SHA256SUMS").unlink(missing_ok=True)
    preparing.prepare("deepglobe", root, workers, progress=False)


def check(root: Path) -> None:
    """Stop unless some prepared scenes are what their tiles hold."""
    data = scenes.load("deepglobe", root)
    with (root / "deepglobe" / "scenes.csv").open(newline="") as file:
        names = [row["scene"] for row in csv.DictReader(file)]
    for i in range(0, len(names), len(names) // 10):
        tile, row, column = names[i].split("_")
        with Image.open(root / "deepglobe" / "raw" / f"{tile}_sat.jpg") as image:
            whole = np.asarray(image)
        window = whole[120 * int(row) : 120 * int(row) + 120, 120 * int(column) : 120 * int(column) + 120]
        if not np.array_equal(data.images[i].numpy(), window.transpose(2, 0, 1)):
            raise SystemExit(f"{names[i]}: not what its tile holds")


def read_all(files: list[Path], read: Callable, workers: int) -> None:
    """Read every file once, in processes that are started for it, as preparing does."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        assert all(pool.map(read, files, chunksize=2))


def with_rasterio(path: Path) -> int:
    """Bytes of the image, as its reader would get it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as file:
            return file.read().nbytes


def with_both(path: Path) -> int:
    """Bytes of the image, with the faster decoder of each format."""
    if path.suffix == ".png":
        return with_rasterio(path)
    with Image.open(path) as image:
        image.load()
        return image.width * image.height * 3


def noting(used: list[float], call: Callable) -> Callable:
    """The call, which also notes the seconds that it has used of all cores."""

    def noted() -> None:
        before = processor_seconds()
        call()
        used.append(processor_seconds() - before)

    return noted


def processor_seconds() -> float:
    """What this process and those that it has seen end have used of all cores."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    # Not at the top: the processes that read would load all this too, which takes as long as reading.
    import measuring

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from make_archives import make_deepglobe

    main()
