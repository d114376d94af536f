"""The engine that runs notebooks: beside bare papermill, one worker beside two, and a batch with nothing to do.

python benchmarks/engine.py --rounds 1 --notebooks 4 --runs 6 --batches 3

A sweep of few runs, as here, pays for the start of the second worker; forty runs are 1.8 times as fast on two.
"""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring
import numpy as np

ROOT = Path(__file__).parents[1]
AT_ONCE = 2  # runs that one notebook of the sweep asks for
PARAMETERS = "point: int = 0  # 0 …\ncount: int = 1"
SMALL = ["import numpy", "sum(range(10**6))"]
TRAIN = """\
from rsbook import presets, runs
from rsbook.label_propagation import train
training = presets.load("label_propagation", "smoke")["training"] | {"epochs": 6, "train_scenes": 512}
grid = [{"seed": 100 * point + i} for i in range(count)]
len(runs.table(train, grid, dataset="bluemarble", method="none", area_range=None, device="cpu", **training))"""
# Bare papermill in two processes, as a reader would write it.
BARE = """\
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from papermill import execute_notebook
paths = sys.argv[1:]
with ProcessPoolExecutor(2) as pool:
    list(pool.map(partial(execute_notebook, progress_bar=False), paths, [f"{path}.out" for path in paths]))"""
# The command line, on another project than its own.
COMMAND = """\
import sys
from pathlib import Path
from rsbook import cli
sys.exit(cli.main(sys.argv[2:], Path(sys.argv[1])))"""
# How long it takes to decide on each of the project's own notebooks.
DECIDE = """\
import json, time
from rsbook import planning
seconds = []
for job in planning.jobs():
    start = time.perf_counter()
    planning.why_run(job)
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))"""

PAPERMILL = "bare papermill, 2 processes"
ENGINE = "rsbook run, 2 workers"
ONE, TWO = "rsbook sweep, 1 worker", "rsbook sweep, 2 workers"


def main() -> None:
    """Time, write."""
    parser = measuring.parser(__file__, __doc__, rounds=1, notebooks=4, runs=6, batches=3)
    parser.set_defaults(threads=[1])
    table = measuring.Table(parser.parse_args(), ("papermill", "distributed"))
    with tempfile.TemporaryDirectory() as folder:
        time_overhead(table, Path(folder, "plain"))
        time_workers(table, Path(folder, "sweep"))
    time_deciding(table)
    table.write()


def time_overhead(table: measuring.Table, folder: Path) -> None:
    """Notebooks without runs: bare papermill in two processes, and the engine with two workers, in turn."""
    n = table.arguments.notebooks
    paths = make_project(folder, [f"n{i}" for i in range(n)], SMALL)
    calls = {PAPERMILL: lambda: python("-c", BARE, *paths), ENGINE: lambda: rsbook(folder, "run", "--force")}
    seconds = measuring.turns(calls, table.arguments.rounds, warm_up=1)
    case = f"{n} small notebooks"
    table.times(case, seconds, {PAPERMILL: "peer"}, items=n)
    added = np.subtract(seconds[ENGINE], seconds[PAPERMILL])
    table.add(case, "added by the engine", added, at_most=2 + 0.3 * n)


def time_workers(table: measuring.Table, folder: Path) -> None:
    """A sweep of runs on one worker and on two, each with an empty store."""
    points = table.arguments.runs // AT_ONCE
    make_project(folder, ["n"], [TRAIN])
    sweep, stores = folder / "s.yml", (folder / f"store-{i}" for i in itertools.count())
    plan = {"notebook": "w/n", "parameters": {"count": AT_ONCE}, "grid": {"point": list(range(points))}}
    sweep.write_text(json.dumps(plan))

    def run(workers: int) -> None:
        rsbook(folder, "sweep", sweep, "--force", "--workers", workers, "--store", next(stores))

    seconds = measuring.turns({ONE: lambda: run(1), TWO: lambda: run(2)}, table.arguments.rounds, warm_up=0)
    case = f"{points} notebooks with {AT_ONCE * points} runs"
    table.times(case, seconds, {}, items=AT_ONCE * points)
    table.ratio(case, seconds, ONE, TWO, at_least=1.8)


def time_deciding(table: measuring.Table) -> None:
    """The project's own notebooks: how long it takes to decide on each, and a batch in which nothing is run."""
    case = "this project's notebooks"
    found = [json.loads(python("-c", DECIDE)) for _ in range(table.arguments.batches)]
    table.add(case, "deciding on the first notebook of a batch", [seconds[0] for seconds in found])
    table.add(case, "deciding on another notebook", [one for seconds in found for one in seconds[1:]], at_most=0.05)
    nothing = "a batch with nothing to do, with its start"
    seconds = measuring.turns({nothing: lambda: rsbook(ROOT, "run", "--dry-run")}, table.arguments.batches, warm_up=1)
    table.add(case, nothing, seconds[nothing], at_most=3)


def make_project(folder: Path, names: list[str], cells: list[str]) -> list[Path]:
    """Notebooks of these cells, and nothing else."""
    empty = {"cell_type": "code", "metadata": {"tags": []}, "outputs": [], "execution_count": None}
    made = [empty | {"id": f"c{i}", "source": source} for i, source in enumerate([PARAMETERS, *cells])]
    made[0] |= {"metadata": {"tags": ["parameters"]}}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    paths = [folder / "notebooks" / "w" / f"{name}.ipynb" for name in names]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        path.write_text(json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return paths


def rsbook(root: Path, *arguments: object) -> None:
    """The command line, in a process of its own."""
    python("-c", COMMAND, root, *arguments)


def python(*arguments: object) -> str:
    """What a new Python prints. Stops if it fails."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
