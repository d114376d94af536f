"""How all benchmarks measure and what they leave behind: README.md says why."""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsbook import cluster, provenance
from rsbook.files import replacing

RESULTS = Path(__file__).parent / "results"
COLUMNS = (  # of every table: a row is a quantity that was measured `n` times
    *("case", "device", "threads", "what", "role", "unit", "median", "low", "high", "n"),
    *("per_second", "target", "met"),
)
ROLES = ("ours", "peer", "limit", "ratio")  # limit: what nothing can be faster than
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h
TOLD = ("title", "about", "output")  # arguments that are no settings
WARM_UP = 5  # rounds that are not counted
ONE_THREAD = ("cpu", 1)  # the machine that targets are stated for, unless they say another


class Table:
    """The rows of one benchmark, for the machine that is measured now.

    peers: distributions whose versions decide what was compared.
    """

    def __init__(self, arguments: argparse.Namespace, peers: Iterable[str] = ()) -> None:
        self.arguments, self.peers, self.rows = arguments, tuple(peers), []
        self.machine, self.began = ONE_THREAD, time.perf_counter()
        self.provenance = provenance.provenance("cuda" if torch.cuda.is_available() else "cpu")

    def machines(self) -> Iterator[str]:
        """The devices to measure on: the CPU with each number of threads that it has cores for, and CUDA if there."""
        for threads in self.arguments.threads:
            if threads <= cluster.cores():
                torch.set_num_threads(threads)
                self.machine = ("cpu", threads)
                yield "cpu"
        if torch.cuda.is_available():
            self.machine = ("cuda", torch.get_num_threads())
            yield "cuda"

    def add(
        self,
        case: str,
        what: str,
        values: Iterable[float],
        *,
        role: str = "ours",
        unit: str = "s",
        items: int | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
        on: tuple[str, int] | None = ONE_THREAD,
    ) -> None:
        """One row: a quantity as often as it was measured. items: how many images, maps, … a value in seconds is for.

        at_least, at_most: the target, which the worse quartile must meet, on the machine `on` alone; None: on all.
        """
        values = list(values)
        low, median, high = np.percentile(values, (25, 50, 75))
        device, threads = self.machine
        bound = at_least if at_least is not None else at_most
        has_target = bound is not None and on in (None, self.machine, (device, None))
        met = low >= bound if at_least is not None else at_most is not None and high <= bound
        row = {
            "case": case,
            "device": provenance.device_name(device),
            "threads": threads if device == "cpu" else "",
            "what": what,
            "role": role,
            "unit": unit,
            **{name: f"{value:.4g}" for name, value in (("median", median), ("low", low), ("high", high))},
            "n": len(values),
            "per_second": f"{items / median:.4g}" if items else "",
            "target": f"{'≥' if at_least is not None else '≤'} {bound:g}" if has_target else "",
            "met": ("yes" if met else "no") if has_target else "",
        }
        self.rows.append(row)
        spread = f"{row['low']} – {row['high']}"
        where = f"{threads} thread{'s' * (threads > 1)}" if device == "cpu" else device
        goal = f"  {row['target']}: {row['met']}" if has_target else ""
        print(f"{where:>9}  {case:<28} {row['median']:>9} {unit:<6} ({spread}){goal}  {what}", flush=True)

    def times(
        self, case: str, seconds: Mapping[str, list[float]], roles: Mapping[str, str], items: int | None = None
    ) -> None:
        """A row for each way that took turns, by its name; `roles` says which are not ours."""
        for what, values in seconds.items():
            self.add(case, what, values, role=roles.get(what, "ours"), items=items)

    def ratio(self, case: str, seconds: Mapping[str, list[float]], of: str, to: str, **target: Any) -> None:
        """How many times as long as `to` one way took, each call against that of the same round."""
        self.add(case, f"{of} / {to}", np.divide(seconds[of], seconds[to]), role="ratio", unit="times", **target)

    def write(self) -> None:
        """The table as CSV and what made it as JSON beside it."""
        settings = {name: value for name, value in vars(self.arguments).items() if name not in TOLD}
        receipt = {
            "title": self.arguments.title,
            "about": self.arguments.about,
            "command": f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip(),
            "settings": settings,
            "peers": {name: version(name) for name in self.peers},
            "provenance": self.provenance,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self.began, 1),
        }
        with replacing(self.arguments.output) as path, path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)
        with replacing(self.arguments.output.with_suffix(".json")) as path:
            path.write_text(json.dumps(receipt, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def parser(script: str, doc: str, **numbers: int) -> argparse.ArgumentParser:
    """The command line of a benchmark: its numbers with their defaults, threads, rounds, and where the table goes.

    Of its documentation the first sentence is the title, the paragraphs after the usage are what is said about it.
    """
    first, _, *rest = doc.strip().split("\n\n")
    made = argparse.ArgumentParser(description=first)
    made.set_defaults(title=first.rstrip("."), about=" ".join(" ".join(rest).split()))
    for name, default in ({"rounds": 30} | numbers).items():
        made.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default: {default}")
    made.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the CPU, one after another")
    made.add_argument("--output", type=Path, default=RESULTS / f"{Path(script).stem}.csv")
    return made


def turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu", warm_up: int = WARM_UP, best_of: int = 1
) -> dict[str, list[float]]:
    """Seconds of every call. All take turns, so that a slower moment of the machine meets all of them; on CUDA the
    clock stops when the device has finished. best_of: how many calls in a row the least is taken of, where ways differ
    by less than what else the machine does.
    """
    seconds = {name: [] for name in calls}
    for turn in range(warm_up + rounds):
        for name, call in calls.items():
            took = min(timed(call, device) for _ in range(best_of))
            if turn >= warm_up:
                seconds[name].append(took)
    return seconds


def set_memory(kept: bool, block: int = 2**25) -> bool:
    """Have all freed memory stay in the process, or that of blocks of so many bytes go back to the system at once;
    False where the C library cannot.

    Left alone, glibc does now the one and now the other, and a copy of a batch takes 3 or 25 ms.
    """
    c = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(c, "mallopt"):
        return False
    done = c.mallopt(M_MMAP_MAX, 0 if kept else 2**16) and c.mallopt(M_MMAP_THRESHOLD, block)
    done = done and c.mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if kept else 2 * block)  # as glibc's own rule has it
    c.malloc_trim(0)
    return bool(done)


def timed(call: Callable[[], Any], device: str = "cpu") -> float:
    """Seconds that one call takes."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start
