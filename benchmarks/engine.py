"""What the engine adds to bare papermill, what a second worker brings, and how long it takes to see that all is done.

python benchmarks/engine.py --repeats 3 --notebooks 8 --runs 40
"""

import argparse
import csv
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from rsbook import cluster, provenance

RESULTS = Path(__file__).parent / "results" / "engine.csv"
ROOT = Path(__file__).parents[1]
PARAMETERS = "point: int = 0  # 0 …\ncount: int = 1"
TRAIN = """\
from rsbook import presets, runs
from rsbook.label_propagation import train
training = presets.load("label_propagation", "smoke")["training"] | {"epochs": 6, "train_scenes": 512}
grid = [{"seed": 100 * point + i} for i in range(count)]
len(runs.table(train, grid, dataset="bluemarble", method="none", area_range=None, device="cpu", **training))"""


def main() -> None:
    """Measure, print and write."""
    arguments = parse()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rows += overhead(Path(folder, "plain"), arguments)
        rows += workers(Path(folder, "sweep"), arguments)
        rows += deciding(arguments)
    about = {
        "processor": provenance.device_name("cpu"),
        "cores": cluster.cores(),
        "distributed": version("distributed"),
        "papermill": version("papermill"),
        "python": platform.python_version(),
        "date": f"{datetime.date.today()}",
    }
    with RESULTS.open("w", newline="") as file:
        table = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        table.writeheader()
        table.writerows(row | about for row in rows)


def parse() -> argparse.Namespace:
    """Parameters from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("repeats", 3), ("notebooks", 8), ("runs", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def overhead(folder: Path, arguments: argparse.Namespace) -> list[dict]:
    """Notebooks without runs: bare papermill in two processes, and the engine with two workers, in turn."""
    names = [f"n{i}" for i in range(arguments.notebooks)]
    make_project(folder, names, ["import numpy", "sum(range(10**6))"])
    bare, ours = [], []
    for repeat in range(arguments.repeats + 1):
        times = (timed(lambda: papermill(folder, names)), timed(lambda: rsbook(folder, "run", "--force")))
        if repeat:  # the first is for what the machine reads from its disk once
            bare.append(times[0])
            ours.append(times[1])
    added = [(mine - theirs) for mine, theirs in zip(ours, bare, strict=True)]
    n = len(names)
    return [
        row(f"bare papermill, {n} notebooks, 2 processes", bare),
        row(f"rsbook run, {n} notebooks, 2 workers", ours),
        row(f"added by the engine, {n} notebooks (target: at most {2 + 0.3 * n:.1f})", added),
    ]


def workers(folder: Path, arguments: argparse.Namespace) -> list[dict]:
    """A sweep of runs on one worker and on two, each with an empty store."""
    make_project(folder, ["n"], [TRAIN])
    points = arguments.runs // 4
    (folder / "s.yml").write_text(
        json.dumps({"notebook": "w/n", "parameters": {"count": 4}, "grid": {"point": list(range(points))}})
    )
    seconds = {1: [], 2: []}
    for repeat in range(arguments.repeats):
        for n in (1, 2) if repeat % 2 else (2, 1):
            store = folder / f"store-{repeat}-{n}"
            seconds[n].append(
                timed(
                    lambda n=n, store=store: rsbook(
                        folder, "sweep", folder / "s.yml", "--force", "--workers", str(n), "--store", store
                    )
                )
            )
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    name = f"sweep of {points} executions with {4 * points} runs"
    return [row(f"{name}, {n} worker{'s' * (n > 1)}", found) for n, found in seconds.items()] + [
        row("one worker's time in that of two (target: at least 1.8)", ratios, "times")
    ]


def deciding(arguments: argparse.Namespace) -> list[dict]:
    """The project's own notebooks: how long it takes to decide that each is up to date, and a batch of none."""
    code = (
        "import time, json; from rsbook import planning; found = []\n"
        "for job in planning.jobs():\n start = time.perf_counter(); planning.why_run(job); "
        "found.append(time.perf_counter() - start)\nprint(json.dumps(found))"
    )
    found = [
        json.loads(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        )
        for _ in range(10)
    ]
    whole = [timed(lambda: rsbook(ROOT, "run", "--dry-run")) for _ in range(10)]
    return [
        row("deciding on one notebook, the first of a batch", [times[0] for times in found]),
        row("deciding on one notebook, the others (target: below 0.05)", [t for times in found for t in times[1:]]),
        row("a batch with nothing to do, with its start (target: below 3)", whole),
    ]


def make_project(folder: Path, names: list[str], cells: list[str]) -> None:
    """Notebooks of these cells, and nothing else."""
    for name in names:
        sources = [PARAMETERS, *cells]
        made = [
            {
                "cell_type": "code",
                "id": f"c{i}",
                "metadata": {"tags": []},
                "source": s,
                "outputs": [],
                "execution_count": None,
            }
            for i, s in enumerate(sources)
        ]
        made[0]["metadata"]["tags"] = ["parameters"]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
        path = folder / "notebooks" / "w" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


def rsbook(root: Path, *arguments: str) -> None:
    """The command line, on another project than its own."""
    code = (
        "import sys; from pathlib import Path; from rsbook import cli\n"
        "if __name__ == '__main__': sys.exit(cli.main(sys.argv[2:], Path(sys.argv[1])))"
    )
    script = Path(tempfile.gettempdir(), "rsbook_engine.py")
    script.write_text(code)
    subprocess.run([sys.executable, script, root, *map(str, arguments)], check=True, capture_output=True)


def papermill(folder: Path, names: list[str]) -> None:
    """Bare papermill in two processes, as a reader would write it."""
    out = folder / "bare"
    out.mkdir(exist_ok=True)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(
            pool.map(
                execute, [(str(folder / "notebooks" / "w" / f"{n}.ipynb"), str(out / f"{n}.ipynb")) for n in names]
            )
        )


def execute(paths: tuple[str, str]) -> None:
    """One notebook."""
    import papermill

    papermill.execute_notebook(*paths, progress_bar=False)


def timed(function) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def row(what: str, values: list[float], unit: str = "seconds") -> dict:
    """One row: the median and the extremes."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    print(
        f"{what}: {found['median']:.3f} {unit} ({found['least']:.3f} to {found['most']:.3f}, n = {len(values)})",
        flush=True,
    )
    return {"what": what, "unit": unit, **{name: f"{value:.4f}" for name, value in found.items()}, "n": len(values)}


if __name__ == "__main__":
    main()
