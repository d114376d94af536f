"""Preparing DeepGlobe-ML against only reading the same files, on as many processes: see README.md.

python benchmarks/preparing.py --tiles 12 --copies 16 --workers 2 --repeats 5
"""

import argparse
import csv
import datetime
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, features

from rsbook import preparing, scenes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from make_archives import make_deepglobe

RESULTS = Path(__file__).parent / "results" / "preparing.csv"
SEGMENT = 340  # pixels: about a quarter of the patches then have several classes, as the paper's means imply
PREPARE = "rsbook data prepare (reads, selects, writes, hashes)"
RASTERIO = "rasterio, reading only"
FASTEST = "Pillow for images and rasterio for masks, reading only"


def main() -> None:
    """Make an archive, check, time, print and write."""
    arguments = parse()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root = Path(folder)
        make_deepglobe(root / "deepglobe" / "raw", arguments.tiles, arguments.size, SEGMENT)
        copy_tiles(root / "deepglobe" / "raw", arguments.copies)
        files = sorted((root / "deepglobe" / "raw").iterdir())
        ways = {
            RASTERIO: lambda: read_all(files, with_rasterio, arguments.workers),
            FASTEST: lambda: read_all(files, with_both, arguments.workers),
            PREPARE: lambda: prepare(root, arguments.workers),
        }
        seconds = measure(ways, arguments.repeats)
        check(root)
        written = sum(path.stat().st_size for path in (root / "deepglobe").iterdir() if path.is_file())
        rows = summarise(seconds, files, written, arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        cpu = f"{row['cpu_seconds']} s of CPU, {row['cpu_ratio_to_rasterio']} of rasterio's"
        print(f"{row['median_seconds']:>8} s, {row['ratio_to_rasterio']} of rasterio's; {cpu}: {row['way']}")


def parse() -> argparse.Namespace:
    """Parameters from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("tiles", 12), ("copies", 16), ("size", 2448), ("workers", 2), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", help="where the archive is made and prepared; default: for temporary files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def copy_tiles(raw: Path, copies: int) -> None:
    """Each tile so many times under other names, so that starting processes does not decide the outcome."""
    for path in sorted(raw.iterdir()):
        tile, end = path.name.split("_")
        for copy in range(1, copies):
            shutil.copy(path, raw / f"{tile}{copy:03}_{end}")


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


def read_all(files: list[Path], read: Callable, workers: int) -> None:
    """Read every file once, in processes that are started for it, as preparing does."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        assert all(pool.map(read, files, chunksize=2))


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


def cpu_seconds() -> float:
    """What this process and those that it has seen end have used of all cores."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(ways: dict[str, Callable], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds and CPU seconds of every call; the ways take turns, after a round that only fills the file cache."""
    seconds = {name: [] for name in ways}
    for turn in range(1 + repeats):
        for name, way in ways.items():
            os.sync()  # what the one before has left to be written
            start, used = time.perf_counter(), cpu_seconds()
            way()
            if turn:
                seconds[name].append((time.perf_counter() - start, cpu_seconds() - used))
    return seconds


def summarise(
    seconds: dict[str, list[tuple[float, float]]], files: list[Path], written: int, arguments: argparse.Namespace
) -> list[dict]:
    """One row a way; ratios are medians over the rounds."""
    common = {
        "tiles": len(files) // 2,
        "size": arguments.size,
        "megabytes_read": round(sum(path.stat().st_size for path in files) / 1e6),
        "megabytes_written": round(written / 1e6),
        "workers": arguments.workers,
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "cores": len(os.sched_getaffinity(0)),
        "repeats": arguments.repeats,
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
        "libjpeg_turbo_of_pillow": features.version("libjpeg_turbo"),
        "date": datetime.date.today().isoformat(),
    }
    rows, every = [], {name: np.array(times).T for name, times in seconds.items()}
    for name, (times, used) in every.items():
        low, median, high = np.percentile(times, (25, 50, 75))
        rows.append(
            {
                "way": name,
                "median_seconds": f"{median:.2f}",
                "lower_quartile": f"{low:.2f}",
                "upper_quartile": f"{high:.2f}",
                "ratio_to_rasterio": f"{np.median(times / every[RASTERIO][0]):.2f}",
                "ratio_to_fastest": f"{np.median(times / every[FASTEST][0]):.2f}",
                "cpu_seconds": f"{np.median(used):.2f}",
                "cpu_ratio_to_rasterio": f"{np.median(used / every[RASTERIO][1]):.2f}",
                **common,
                "megabytes_written": common["megabytes_written"] if name == PREPARE else 0,
            }
        )
    return rows


if __name__ == "__main__":
    main()
