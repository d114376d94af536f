"""One record per training run: what was run, with which code and data, on what, how long, and what came out.

A run is a pure function of its parameters, the data's checksum, the sources and the locked versions of the libraries
that can change a number. These make its fingerprint; a run whose fingerprint has a record is never run again.
"""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from rsbook import cluster, provenance, scenes, sources
from rsbook.checkpoints import weights_path
from rsbook.devices import resolve_device
from rsbook.files import reached, reaching, replacing
from rsbook.locks import alone

ROOT = Path(__file__).parents[1]
STORE = ROOT / "_runs"

WHERE = ("root", "device", "checkpoint")  # what a function is called with that is no part of a run
ARRIVES = 10.0  # seconds until a record must be visible here
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk says that takes no more
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)  # what a folder says
FACTS = ("function", "parameters", "data", "sources", "libraries")  # what identifies a run

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
    scheduler: str | None = None,
    workers: int | None = None,
    store: str | Path | None = None,
    progress: bool = True,
    **fixed: Any,
) -> pd.DataFrame:
    """One row a run of `function` for each set of parameters in `grid`, joined with `fixed`; does only what is
    missing.

    function(**parameters, root, device, checkpoint) → dict of results that JSON can hold; importable from a module, so
    that worker processes find it. Where, how and how many at a time (root of the data, device, workers) are not part
    of a run's fingerprint. scheduler and workers are those of `cluster.connect`: without them the batch that this
    notebook belongs to, else a process a core or GPU, each with one thread. A run that another process is at, here or
    on another machine, is waited for. store: a folder or an address such as s3://bucket/folder; None: the
    environment's RSBOOK_STORE, else _runs in the project.
    A parameter that is given its default is as good as not given. Columns: the parameters, the results, `seconds`, and
    `record`, the path of the JSON. Raises ValueError for parameters that the function does not take or JSON cannot
    hold, OSError for a store that cannot be reached, and RunError when a run fails, after all others have ended.
    """
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
    hashes = source_hashes(function)
    prints = [fingerprint(function, parameters, hashes=hashes, root=root) for parameters in everything]
    missing = {p: row for p, row in zip(prints, everything, strict=True) if load_record(folder, p) is None}
    if missing:
        # by their paths: two stores on one scheduler are two runs
        jobs = {f"{folder / p}": (function, parameters, p, folder, root, device) for p, parameters in missing.items()}
        with cluster.connect(scheduler, workers, device, most=len(jobs)) as client:
            _run_all(client, jobs, progress)
    return pd.DataFrame([_row(_arrived(folder, p), folder, defaults) for p in prints])


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
    folder, hashes, defaults = _folder(function, store), source_hashes(function), _plain(_defaults(function))
    fixed = _plain(fixed)
    if unknown := sorted(fixed.keys() - (inspect.signature(function).parameters.keys() - set(WHERE))):
        raise ValueError(f"{_name(function)} takes no {', '.join(unknown)}")
    found = []
    for path in folder.glob("*.json"):
        try:
            record = load_record(folder, path.stem)
            current = record and path.stem == fingerprint(function, record["parameters"], hashes=hashes, root=root)
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
    hashes: Mapping[str, str] | None = None,
    root: str | Path | None = None,
) -> str:
    """What identifies a run: 32 hex digits of the sha256 over function, parameters, data checksum, sources (`hashes`,
    as `source_hashes` finds them) and libraries.

    A parameter named `dataset` brings the checksum of that archive and the sources of its reader. Raises DataError when
    the archive is missing and ValueError for parameters that JSON cannot hold.
    """
    return _digest(facts(function, _plain(parameters), root, hashes))


def facts(
    function: Callable[..., Any],
    parameters: Parameters,
    root: str | Path | None = None,
    hashes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What identifies a run with these parameters here and now; raises DataError when the archive is missing."""
    data, hashes = {}, dict(source_hashes(function) if hashes is None else hashes)
    if dataset := parameters.get("dataset"):
        data[dataset] = scenes.checksum(dataset, root)
        reader = f"rsbook.archives.{dataset}"  # scenes imports it by name
        hashes = sources.reachable(reader, sources.module_path(reader), hashes)
    values = (_name(function), parameters, data, hashes, provenance.locked_versions())
    return dict(zip(FACTS, values, strict=True))


def source_hashes(function: Callable[..., Any]) -> dict[str, str]:
    """The sha256 of each module of rsbook that `function` can reach through imports, and of its own."""
    path = sources.module_path(function.__module__) or Path(inspect.getsourcefile(function))
    return sources.reachable(function.__module__, path)


def load_record(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The record of a run, or None when there is none, or the weights that it names are gone.

    Raises RunError for a file that is no record of this fingerprint, naming it and the cure.
    """
    path = folder / f"{fingerprint}.json"
    try:
        with reaching(path):
            content = path.read_bytes()
        record = json.loads(content.decode())
        if not fingerprint == record["fingerprint"] == _digest({name: record[name] for name in FACTS}):
            raise ValueError("its fingerprint is not that of its name and contents")
        if not isinstance(record["results"], dict) or not isinstance(record["seconds"], int | float):
            raise ValueError("its results are not as they were written")
        kept = [record["results"].get(what) for what in ("weights", "networks")]
        names = [name for one in kept for name in (one.values() if isinstance(one, dict) else [one])]
        if not all(weights_path(folder, name).is_file() for name in names if isinstance(name, str)):
            return None
    except (FileNotFoundError, NotADirectoryError):  # a file in the place of the folder is told by who writes there
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RunError(f"{path} is damaged ({reason}): delete it, and the run is done again") from error
    return record


def run(
    function: Callable[..., dict[str, Any]],
    parameters: Parameters,
    fingerprint: str,
    folder: Path,
    root: str | Path | None,
    device: str,
) -> str | None:
    """Do one run on one thread, unless it was done meanwhile, and write its record, whole or not at all.

    Returns LATER while another process is at it. Raises RunError when sources, data or locked libraries are not those
    of the fingerprint, JSON cannot hold the results, or the record cannot be written.
    """
    planned = facts(function, parameters, root)
    if _digest(planned) != fingerprint:
        raise RunError("rsbook, its lock file or the data are not those that the run was planned with: start again")
    path = folder / f"{fingerprint}.json"
    try:
        with alone(path) as first:
            if not first:
                return cluster.LATER
            if load_record(folder, fingerprint) is None:
                do(function, planned, path, root, device)
    except OSError as error:
        where = str(error.filename or "")  # in the folder, or above it where it was to be made
        ours = where.startswith(str(folder)) or where in map(str, folder.parents)
        if error.errno in FULL or (ours and error.errno in FORBIDDEN):
            raise RunError(f"{path} cannot be written: {error.strerror}; make room or choose another store") from error
        raise
    return None


def do(
    function: Callable[..., dict[str, Any]], facts: dict[str, Any], path: Path, root: str | Path | None, device: str
) -> None:
    """Do the run with these facts, as `facts` finds them, on one thread, and write its record to `path`.

    Its checkpoint lies beside it until then. Raises RunError when JSON cannot hold the results.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums depend on how work is split: one thread gives the same bytes on any number of cores
    try:
        checkpoint = path.with_suffix(".safetensors")
        started, clock = datetime.now(UTC), time.monotonic()
        ran_on = provenance.provenance(device)
        provenance.forget_peak_memory(device)
        results = function(**facts["parameters"], root=root, device=device, checkpoint=checkpoint)
        if unfit := next(_unfit(results), None):
            raise RunError(f"JSON cannot hold what {facts['function']} returned: {unfit}")
        record = {
            "fingerprint": path.stem,
            **facts,
            "results": results,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "memory": provenance.peak_memory(device),
            "provenance": ran_on,
        }
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
        checkpoint.unlink(missing_ok=True)
    finally:
        torch.set_num_threads(threads)


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _arrived(folder: Path, fingerprint: str) -> dict[str, Any]:
    """The record of a run that has ended; a shared folder may show what another machine wrote a little later."""
    until = time.monotonic() + ARRIVES
    while (record := load_record(folder, fingerprint)) is None:
        if time.monotonic() > until:
            raise RunError(f"{folder / fingerprint}.json is not there though its run has ended: do all workers see it?")
        time.sleep(0.1)
    return record


def _row(record: Mapping[str, Any], folder: Path, defaults: Parameters) -> dict[str, Any]:
    path = str(folder / f"{record['fingerprint']}.json")
    return defaults | record["parameters"] | record["results"] | {"seconds": record["seconds"], "record": path}


def _folder(function: Callable[..., Any], store: str | Path | None) -> Path:
    return reached(store if store is not None else os.environ.get("RSBOOK_STORE") or STORE) / _name(function)


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


def _run_all(client: Any, jobs: dict[str, Job], progress: bool) -> None:
    failures: list[tuple[Parameters, cluster.Failure]] = []
    calls = cluster.outcomes(client, run, jobs)
    with (
        cluster.waiting(),
        closing(calls),
        tqdm(total=len(jobs), unit="run", disable=not progress, mininterval=1) as bar,
    ):
        cluster.tell(f"runs 0 {len(jobs)}")
        for key, outcome in calls:
            if isinstance(outcome, cluster.Failure):
                failures.append((jobs[key][1], outcome))
            bar.update()
            cluster.tell(f"runs {bar.n} {len(jobs)}")
    if failures:
        lines = [f"  {failure.reason} in the run with {parameters}" for parameters, failure in failures]
        error = RunError(f"{len(failures)} of {len(jobs)} runs failed, the others are kept:\n" + "\n".join(lines))
        error.add_note(f"The first of them:\n{failures[0][1].traceback}")
        raise error
