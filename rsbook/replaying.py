"""A recorded run once more, from its record alone, and what came out otherwise."""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rsbook import runs
from rsbook.checkpoints import weights_path
from rsbook.devices import resolve_device
from rsbook.files import fetched, location


class ReplayError(RuntimeError):
    """The record is none, or cannot be done again here; the message says why."""


def replay(
    address: str | Path, root: str | Path | None = None, device: str = "auto", tolerance: float = 0.0
) -> tuple[list[str], list[str]]:
    """Do the run of a record again, in this process and beside the store; returns which of its facts are others here,
    and which results differ by more than the tolerance.

    address: of the record's JSON · root: of the data. Raises ReplayError for a file that is no record, a function that
    is not here, or weights of an earlier run that are gone.
    """
    path = location(address)
    try:
        record = runs.load_record(path.parent, path.stem)
    except (runs.RunError, OSError) as error:
        raise ReplayError(str(error)) from error
    if record is None:
        raise ReplayError(f"{address}: there is no such record, or the weights that it names are gone")
    function, parameters = resolve(record["function"]), record["parameters"]
    here = runs.facts(function, parameters, root)
    other = [
        f"{name}: {', '.join(_differ(record[name], here[name]))}" for name in runs.FACTS if record[name] != here[name]
    ]
    with tempfile.TemporaryDirectory() as folder:
        for weights in _weights(parameters, path.parent):  # of earlier runs, which this one begins with
            copy = weights_path(Path(folder), weights)
            copy.parent.mkdir(exist_ok=True)
            with fetched(weights_path(path.parent, weights)) as kept:
                shutil.copyfile(kept, copy)
        runs.do(function, here, (again := Path(folder, path.name)), root, resolve_device(device))
        results = json.loads(again.read_text("utf-8"))["results"]
    return other, list(_differences(record["results"], results, tolerance))


def resolve(name: str) -> Callable[..., dict[str, Any]]:
    """The function that a record names; raises ReplayError when it is not here."""
    module, _, function = name.rpartition(".")
    for package in (f"rsbook.{module}", module):
        try:
            return getattr(importlib.import_module(package), function)
        except (ImportError, AttributeError, ValueError):
            continue
    raise ReplayError(f"the record is of {name}, which this rsbook does not have: check out the commit of the record")


def _weights(parameters: dict[str, Any], folder: Path) -> Iterator[str]:
    for value in parameters.values():
        if isinstance(value, str) and len(value) == 32 and weights_path(folder, value).is_file():
            yield value


def _differ(then: Any, now: Any) -> list[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        return sorted(str(key) for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    return [f"{then!r} there, {now!r} here"]


def _differences(then: Any, now: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """Where two results differ; a number may by the tolerance."""
    if isinstance(then, dict) and isinstance(now, dict) and then.keys() == now.keys():
        for key in then:
            yield from _differences(then[key], now[key], tolerance, f"{where}.{key}".lstrip("."))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, pair in enumerate(zip(then, now, strict=True)):
            yield from _differences(*pair, tolerance, f"{where}[{i}]")
    elif _is_number(then) and _is_number(now):
        if abs(then - now) > tolerance:
            yield f"{where}: {then!r} in the record, {now!r} now"
    elif then != now:
        yield f"{where}: {then!r} in the record, {now!r} now"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
