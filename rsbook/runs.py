"""One record per training run: what was run, with which code and data, on what, how long, and what came out.

A run is a pure function of its parameters, the data's checksum and the sources that can change a number. These three
make its fingerprint; a run whose fingerprint has a record is never run again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from rsbook import pool, scenes
from rsbook.checkpoints import weights_path
from rsbook.devices import resolve_device
from rsbook.files import replacing

ROOT = Path(__file__).parents[1]
STORE = ROOT / "_runs"
LIBRARIES = (
    *("torch", "torchvision", "timm", "torchmetrics", "lightning-fabric", "numpy", "rasterio"),
    *("scipy", "scikit-image", "scikit-learn", "kornia", "captum"),
)

WHERE = ("root", "device", "checkpoint")  # what a function is called with that is no part of a run
FACTS = ("function", "parameters", "data", "sources")  # what identifies a run

Parameters = dict[str, Any]
Job = tuple[Callable[..., dict[str, Any]], Parameters, str, Path, str | Path | None, str]  # the arguments of `run`


class RunError(RuntimeError):
    """One or more runs failed; the records of the others are kept."""


def table(
    function: Callable[..., dict[str, Any]],
    grid: Iterable[Mapping[str, Any]],
    *,
    root: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    store: str | Path | None = None,
    progress: bool = True,
    **fixed: Any,
) -> pd.DataFrame:
    """One row a run of `function` for each set of parameters in `grid`, joined with `fixed`; does only what is
    missing.

    function(**parameters, root, device, checkpoint) → dict of results that JSON can hold; importable from a module, so
    that worker processes find it. Where, how and how many at a time (root of the data, device, workers) are not part
    of a run's fingerprint. workers None: the environment's RSBOOK_WORKERS, else one process a core, or one a GPU, each
    with one thread; 0: in this process. store None: the environment's RSBOOK_STORE, else _runs in the project.
    A parameter that is given its default is as good as not given. Columns: the parameters, the results, `seconds`, and
    `record`, the path of the JSON. Raises ValueError for parameters that the function does not take or JSON cannot
    hold, and RunError when a run fails, after all others have ended.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers={workers}: expected a number of processes, 0 for this one, or None")
    if "<" in getattr(function, "__qualname__", "<") or function.__module__ == "__main__":
        raise ValueError(f"{function}: expected a function that worker processes can import from a module")
    grid = [dict(row) for row in grid]
    if twice := sorted(fixed.keys() & {name for row in grid for name in row}):
        raise ValueError(f"{', '.join(twice)}: given both in the grid and for all runs")
    folder = _folder(function, store)
    device = resolve_device(device)
    given = [_plain({**row, **fixed}) for row in grid]
    for parameters in given:
        _check_signature(function, parameters)
    defaults = _plain(_defaults(function))
    everything = [_without(parameters, defaults) for parameters in given]
    sources = source_hashes(function)
    prints = [fingerprint(function, parameters, sources=sources, root=root) for parameters in everything]
    missing = {p: row for p, row in zip(prints, everything, strict=True) if load_record(folder, p) is None}
    if missing:
        jobs = [(function, parameters, p, folder, root, device) for p, parameters in missing.items()]
        _run_all(jobs, _workers(device, len(jobs)) if workers is None else workers, progress)
    return pd.DataFrame([_row(load_record(folder, p), folder, defaults) for p in prints])


def stored(
    function: Callable[..., dict[str, Any]],
    *,
    root: str | Path | None = None,
    store: str | Path | None = None,
    **fixed: Any,
) -> pd.DataFrame:
    """One row for each record of `function` that `table` would take as it is, in the order of their parameters.

    Does no run, and leaves out what other code or data made, and what is damaged. Only runs whose parameters are as in
    `fixed` (defaults count as given). Columns are those of `table`; without any record, none. Raises ValueError for
    parameters that the function does not take.
    """
    folder, sources, defaults = _folder(function, store), source_hashes(function), _plain(_defaults(function))
    fixed = _plain(fixed)
    if unknown := sorted(fixed.keys() - (inspect.signature(function).parameters.keys() - set(WHERE))):
        raise ValueError(f"{_name(function)} takes no {', '.join(unknown)}")
    found = []
    for path in folder.glob("*.json"):
        try:
            record = load_record(folder, path.stem)
            current = record and path.stem == fingerprint(function, record["parameters"], sources=sources, root=root)
        except (RunError, scenes.DataError, ValueError):  # damaged, or of data that are not here
            continue
        whole = defaults | (record["parameters"] if current else {})
        if current and _digest(fixed) == _digest({name: whole[name] for name in fixed}):
            found.append(record)
    found.sort(key=lambda record: json.dumps(defaults | record["parameters"], sort_keys=True))
    return pd.DataFrame([_row(record, folder, defaults) for record in found])


def fingerprint(
    function: Callable[..., Any],
    parameters: Mapping[str, Any],
    *,
    sources: Mapping[str, str] | None = None,
    root: str | Path | None = None,
) -> str:
    """What identifies a run: 32 hex digits of the sha256 over function, parameters, data checksum and sources.

    A parameter named `dataset` brings the checksum of that archive and the sources of its reader. Raises DataError when
    the archive is missing and ValueError for parameters that JSON cannot hold.
    """
    return _digest(_facts(function, _plain(parameters), source_hashes(function) if sources is None else sources, root))


def source_hashes(function: Callable[..., Any]) -> dict[str, str]:
    """The sha256 of each module of rsbook that `function` can reach through imports, and of its own.

    Comments, docstrings and layout do not count: they cannot change a number.
    """
    path = _module_path(function.__module__) or Path(inspect.getsourcefile(function))
    return _reachable(function.__module__, path, {})


def load_record(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The record of a run, or None when there is none, or the weights that it names are gone.

    Raises RunError for a file that is no record of this fingerprint, naming it and the cure.
    """
    path = folder / f"{fingerprint}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not fingerprint == record["fingerprint"] == _digest({name: record[name] for name in FACTS}):
            raise ValueError("its fingerprint is not that of its name and contents")
        if not isinstance(record["results"], dict) or not isinstance(record["seconds"], int | float):
            raise ValueError("its results are not as they were written")
        weights = record["results"].get("weights")
        if isinstance(weights, str) and not weights_path(folder, weights).is_file():
            return None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RunError(f"{path} is damaged ({reason}): delete it, and the run is done again") from error
    return record


def provenance(device: str) -> dict[str, Any]:
    """What ran and on what, without names of people, hosts or folders: commit, versions, device, system.

    uncommitted_changes: whether files of the project differ from the commit or are new; None without a git checkout.
    """
    top = _git("rev-parse", "--show-toplevel")
    ours = top is not None and Path(top).resolve() == ROOT.resolve()  # not one in which we are merely installed
    return {
        "commit": _git("rev-parse", "--verify", "HEAD") if ours else None,
        "uncommitted_changes": bool(_git("status", "--porcelain")) if ours else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def run(
    function: Callable[..., dict[str, Any]],
    parameters: Parameters,
    fingerprint: str,
    folder: Path,
    root: str | Path | None,
    device: str,
) -> None:
    """Do one run on one thread and write its record, whole or not at all.

    Raises RunError when sources or data are no longer those of the fingerprint, or JSON cannot hold the results.
    """
    facts = _facts(function, parameters, source_hashes(function), root)
    if _digest(facts) != fingerprint:
        raise RunError("rsbook or the data have changed since the runs were planned: start again")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums depend on how work is split: one thread gives the same bytes on any number of cores
    try:
        checkpoint = folder / f"{fingerprint}.safetensors"
        started, clock, ran_on = datetime.now(UTC), time.monotonic(), provenance(device)
        results = function(**parameters, root=root, device=device, checkpoint=checkpoint)
        if unfit := next(_unfit(results), None):
            raise RunError(f"JSON cannot hold what {_name(function)} returned: {unfit}")
        record = {
            "fingerprint": fingerprint,
            **facts,
            "results": results,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "provenance": ran_on,
        }
        with replacing(folder / f"{fingerprint}.json") as temporary:
            temporary.write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
        checkpoint.unlink(missing_ok=True)
    finally:
        torch.set_num_threads(threads)


def _facts(
    function: Callable[..., Any], parameters: Parameters, sources: Mapping[str, str], root: str | Path | None
) -> dict[str, Any]:
    data, sources = {}, dict(sources)
    if dataset := parameters.get("dataset"):
        data[dataset] = scenes.checksum(dataset, root)
        reader = f"rsbook.archives.{dataset}"  # scenes imports it by name
        sources = _reachable(reader, _module_path(reader), sources)
    return {"function": _name(function), "parameters": parameters, "data": data, "sources": sources}


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _row(record: Mapping[str, Any], folder: Path, defaults: Parameters) -> dict[str, Any]:
    path = str(folder / f"{record['fingerprint']}.json")
    return defaults | record["parameters"] | record["results"] | {"seconds": record["seconds"], "record": path}


def _folder(function: Callable[..., Any], store: str | Path | None) -> Path:
    return Path(store if store is not None else os.environ.get("RSBOOK_STORE", STORE)) / _name(function)


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__.removeprefix('rsbook.')}.{function.__qualname__}"


def _plain(parameters: Mapping[str, Any]) -> Parameters:
    """Parameters as JSON gives them back (a tuple is a list), sorted by name."""
    for name, value in parameters.items():
        try:
            json.dumps(value, allow_nan=False, sort_keys=True)
        except (TypeError, ValueError) as error:
            rule = f"a run's parameters must be plain data that JSON can hold ({error})"
            raise ValueError(f"{name}={value!r}: {rule}") from error
    return json.loads(json.dumps(parameters, sort_keys=True))


def _defaults(function: Callable[..., Any]) -> Parameters:
    """What the function's own parameters are when they are not given."""
    ours = inspect.signature(function).parameters.items()
    return {name: p.default for name, p in ours if p.default is not p.empty and name not in WHERE}


def _without(parameters: Parameters, defaults: Parameters) -> Parameters:
    """Parameters other than their defaults; True is not 1 here, and a data set is named in any case."""

    def counts(name: str, value: Any) -> bool:
        return name not in defaults or json.dumps(value) != json.dumps(defaults[name])

    return {name: value for name, value in parameters.items() if counts(name, value) or (name == "dataset" and value)}


def _check_signature(function: Callable[..., Any], parameters: Parameters) -> None:
    try:
        inspect.signature(function).bind(**parameters, root=None, device=None, checkpoint=None)
    except TypeError as error:
        raise ValueError(f"{_name(function)} cannot be called with {parameters}: {error}") from error


def _unfit(value: Any, where: str = "results") -> Iterator[str]:
    """What in `value` JSON cannot hold, and where."""
    if where == "results" and not isinstance(value, dict):
        yield f"{where} is {value!r}, expected a dict"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _unfit(inner, f"{where}[{key!r}]") if isinstance(key, str) else [f"{where} has the key {key!r}"]
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _unfit(inner, f"{where}[{i}]")
    elif not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        yield f"{where} is {value!r}"


def _reachable(module: str, path: Path, found: Mapping[str, str]) -> dict[str, str]:
    """`found` and the sha256 of the module and of all of rsbook that it imports, directly or not."""
    found, pending = dict(found), [(module, path)]
    while pending:
        module, path = pending.pop()
        if module not in found:
            found[module], imports = _understand(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
            pending += [(name, where) for name in imports if (where := _module_path(name)) is not None]
    return found


@functools.cache
def _understand(source: str, module: str, is_package: bool) -> tuple[str, tuple[str, ...]]:
    """The sha256 of a module's code without comments, docstrings and layout, and what it imports of rsbook."""
    tree, names = ast.parse(source), []
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    imports = tuple(name for name in names if name.startswith("rsbook."))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _module_path(name: str) -> Path | None:
    path = ROOT / Path(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _workers(device: str, jobs: int) -> int:
    if device == "cuda":
        return min(jobs, torch.cuda.device_count())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("RSBOOK_WORKERS", str(cores))
    if not asked.isdecimal():
        raise ValueError(f"RSBOOK_WORKERS={asked!r}: expected a number of processes, 0 for this one")
    return min(jobs, int(asked))


def _run_all(jobs: list[Job], workers: int, progress: bool) -> None:
    failures: list[tuple[Parameters, pool.Failure]] = []
    ended = pool.outcomes(run, jobs, workers, on_gpus=jobs[0][-1] == "cuda")
    with closing(ended), tqdm(total=len(jobs), unit="run", disable=not progress, mininterval=1) as bar:
        for i, failure in ended:
            if failure is not None:
                failures.append((jobs[i][1], failure))
            bar.update()
    if failures:
        lines = [f"  {reason} in the run with {parameters}" for parameters, (reason, _) in failures]
        error = RunError(f"{len(failures)} of {len(jobs)} runs failed, the others are kept:\n" + "\n".join(lines))
        error.add_note(f"The first of them:\n{failures[0][1][1]}")
        raise error


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # a downloaded copy has no history
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
