"""A recorded run once more, from its record alone, and what came out otherwise."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rsbook import runs, sources
from rsbook.checkpoints import weights_path
from rsbook.devices import resolve_device
from rsbook.files import fetched, location
from rsbook.parameters import short

MACHINE = ("device", "system", "python", "versions")  # of the provenance: what can change the last digits of a number


class ReplayError(RuntimeError):
    """The record is none, or cannot be done again here; the message says why."""


def replay(
    address: str | Path, root: str | Path | None = None, device: str = "auto", tolerance: float = 0.0
) -> tuple[list[str], list[str]]:
    """Do the run of a record again, in this process and beside the store; returns which of its facts are others here,
    and which results differ by more than the tolerance.

    address: of the record's JSON · root: of the data. With a tolerance, weights may be others: they are named by their
    bytes. Raises ReplayError for a file that is no record, a function that is not here or takes other parameters, data
    or weights of an earlier run that are gone, a device that is not there, and a run that fails.
    """
    try:
        path = location(address)
        record = runs.load_record(path.parent, path.stem)
    except (runs.RunError, OSError, ValueError) as error:
        raise ReplayError(f"{error}") from error
    if record is None:
        raise ReplayError(f"{address}: there is no such record, or the weights that it names are gone")
    again, here = _again(record, path, root, device)
    other = [
        f"{name}: {', '.join(_differ(record[name], here[name]))}" for name in runs.FACTS if record[name] != here[name]
    ]
    then, now = record.get("provenance") or {}, again["provenance"]
    other += [
        f"{name}: {', '.join(_differ(then.get(name), now[name]))}" for name in MACHINE if then.get(name) != now[name]
    ]
    results = [
        {name: value for name, value in one["results"].items() if not (tolerance and name == "weights")}
        for one in (record, again)
    ]
    return other, list(_differences(*results, tolerance))


def resolve(name: str) -> Callable[..., dict[str, Any]]:
    """The function that a record names; raises ReplayError when it is not here, or does no runs."""
    module, _, function = name.rpartition(".")
    # to import is to run: modules of rsbook, and what is imported already
    ours = [f"rsbook.{module}"] if module != "__main__" and sources.module_path(f"rsbook.{module}") else []
    for package in ours or [module] * (module in sys.modules):
        try:
            found = getattr(importlib.import_module(package), function)
            # a record may come from anybody: it is to call nothing else
            if set(runs.WHERE) <= inspect.signature(found).parameters.keys():
                return found
        except (ImportError, AttributeError, ValueError, TypeError):
            continue
    raise ReplayError(f"the record is of {name}, which this rsbook does not have: check out the commit of the record")


def _again(
    record: dict[str, Any], path: Path, root: str | Path | None, device: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The record of the same run here, and the facts that identify it."""
    function, parameters = resolve(record["function"]), record["parameters"]
    try:
        inspect.signature(function).bind(**parameters, root=None, device=None, checkpoint=None)
    except TypeError as error:
        why = f"{record['function']} takes other parameters here ({error}): check out the commit of the record"
        raise ReplayError(why) from error
    with tempfile.TemporaryDirectory() as store:
        folder = Path(store, record["function"])
        folder.mkdir()
        try:
            here = runs.facts(function, parameters, root)
            for own, weights in _weights(parameters, path.parent):  # of earlier runs, which this one begins with
                copy = weights_path(folder if own == path.parent else Path(store, own.name), weights)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with fetched(weights_path(own, weights)) as kept:
                    shutil.copyfile(kept, copy)
            runs.do(function, here, made := folder / path.name, root, resolve_device(device))
        except Exception as error:  # the function's own: whatever it raises
            why = " ".join(str(error).replace(str(folder), str(path.parent)).split())
            raise ReplayError(f"the run fails here: {type(error).__name__}: {why}") from error
        return json.loads(made.read_text("utf-8")), here


def _weights(parameters: dict[str, Any], folder: Path) -> Iterator[tuple[Path, str]]:
    """The names of weights among the parameters, and in which folder of the store each lies: the record's own first."""
    for value in parameters.values():
        if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value):
            others = sorted(path.parents[1] for path in folder.parent.glob(f"*.*/weights/{value}.safetensors"))
            found = [own for own in [folder, *others] if weights_path(own, value).is_file()]
            yield from ((own, value) for own in found[:1])


def _differ(then: Any, now: Any) -> list[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        return sorted(str(key) for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    return [f"{then!r} there, {now!r} here"]


def _differences(then: Any, now: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """Where two results differ; a number may by the tolerance."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            inside = f"{where}.{key}".lstrip(".")
            if key not in now or key not in then:
                yield f"{inside}: only {'in the record' if key in then else 'now'}"
            else:
                yield from _differences(then[key], now[key], tolerance, inside)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, pair in enumerate(zip(then, now, strict=True)):
            yield from _differences(*pair, tolerance, f"{where}[{i}]")
    elif not (_are_numbers(then, now) and abs(then - now) <= tolerance) and then != now:
        yield f"{where}: {short(then)} in the record, {short(now)} now"


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
