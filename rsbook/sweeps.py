"""One notebook over a declared grid: separate executions that share the store of runs, and one table of these runs.

A sweep file says `notebook`, `preset` and other `parameters` that all have, and the `grid`: a list of values for each
parameter that varies. Executed notebooks, and what the sweep is made of (sweep.csv), lie in _build/sweeps/NAME.
"""

import csv
import io
import itertools
import json
import math
import re
import shlex
from collections import Counter
from pathlib import Path

from rsbook import planning
from rsbook.files import location, replacing
from rsbook.parameters import (
    BatchError,
    UsageError,
    check_parameters,
    read_yaml,
    refuse_unknown,
    short,
    whole_folders,
)

FOLDER = Path("_build", "sweeps")
KEYS = {
    "notebook": (str, "the name of one"),
    "preset": (str, "the name of one"),
    "parameters": (dict, "names with a value each"),
    "grid": (dict, "names with a list of values each"),
}
POINTS = 10_000  # of a grid: a few lists more would never end


def jobs(path, root=planning.ROOT):
    """The Job of each point of the grid of the sweep file at `path`, all parameters checked.

    Raises UsageError for a file that is none, an unknown notebook or parameter, or a grid without points.
    """
    try:
        return _points(_read(Path(path)), folder_of(path, root), root)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def folder_of(path, root=planning.ROOT):
    """The folder of a sweep, which is called as its file is."""
    return Path(root, FOLDER, Path(path).stem)


def declare(made):
    """Write sweep.csv, which says what the sweep is made of, and return its path."""
    rows = [
        {"executed": job.target.name, "notebook": job.name, "parameters": json.dumps(job.parameters)} for job in made
    ]
    return _write(made[0].target.parent / "sweep.csv", rows)


def begun(root=planning.ROOT):
    """The names of the sweeps that were begun."""
    return sorted(path.parent.name for path in Path(root, FOLDER).glob("*/sweep.csv"))


def declared(name, root=planning.ROOT):
    """The jobs of a sweep that was begun; raises BatchError when its sweep.csv cannot be read."""
    path = Path(root, FOLDER, name, "sweep.csv")
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
        return [_declared(row, path.parent) for row in rows or [{}]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error):
        cure = "run the sweep again, and it is written anew"
        raise BatchError(f"{planning.shown(path, root)} is damaged: {cure}") from None


def collect(made, store, failed=()):
    """Write runs.csv, every run behind the executed notebooks of a sweep, and return its path.

    One row a run, in an order that does not depend on who did it when: its function, fingerprint, parameters, and the
    results that are one number or text. No durations: the same sweep gives the same bytes. failed: the labels of jobs
    that count for nothing, whatever an earlier execution has left. Raises BatchError when a notebook or the record of
    a run behind it cannot be read.
    """
    behind = {run for job in made if job.label not in failed for run in _behind(job)}
    found = [_row(location(store) / function / f"{key}.json", function) for function, key in sorted(behind)]
    found.sort(key=lambda pair: pair[0])
    return _write(made[0].target.parent / "runs.csv", [row for _, row in found], ("function", "record"))


# The file


def _read(path):
    """What a sweep file says, checked as far as the file alone tells."""
    try:
        text = path.read_text("utf-8")
        given, twice = read_yaml(text), _given_twice(text)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror or error})") from None
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise UsageError(f"cannot be read as YAML ({short(str(error).splitlines()[0])[1:-1]})") from None
    if not isinstance(given, dict):
        raise UsageError(f"is {short(given)}, expected a sweep; for an example: python -m rsbook sweep --help")
    if twice is not None:
        raise UsageError(f"{twice} is there twice: leave one out, or give the grid a list of both values")
    for where in (given, given.get("parameters"), given.get("grid")):
        for name in where if isinstance(where, dict) else ():
            if not isinstance(name, str):
                raise UsageError(f"{name!r} is no name: expected text, such as preset or seeds")
    refuse_unknown(given, KEYS, "a sweep")
    if missing := [key for key in ("notebook", "grid") if key not in given]:
        raise UsageError(f"has no {' and no '.join(missing)}; for an example: python -m rsbook sweep --help")
    for key, value in given.items():
        kind, expected = KEYS[key]
        if not isinstance(value, kind):
            raise UsageError(f"{key} is {short(value)}, expected {expected}")
    if not given["grid"]:
        raise UsageError("the grid is empty: give it a list of values, such as seeds: [[42], [43]]")
    for name, values in given["grid"].items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"grid: {name} is {short(values)}, expected a list: write for example {name}: [1, 2]")
    # it names a folder: no part of a path, and not one of those that are hidden
    if not re.fullmatch(r"[\w-][\w.-]*", path.stem):
        raise UsageError("a sweep is called as its file: use letters, digits, - and _ for its name, as in seeds.yml")
    return given


def _given_twice(text):
    """A key that a mapping of a YAML text has twice, and of which reading takes the last; None where there is none."""
    import yaml

    left = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while left:
        node = left.pop()
        if isinstance(node, yaml.MappingNode):
            counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if twice := [name for name, count in counts.items() if count > 1]:
                return twice[0]
            left += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            left += node.value
    return None


# Its points


def _points(given, folder, root):
    names = planning.find([given["notebook"]], root)
    if len(names) > 1:
        several = f"notebook {given['notebook']!r} is {len(names)} notebooks, and a sweep has one"
        raise UsageError(f"{several}: take {' or '.join(names)}")
    [name], grid, fixed = names, given["grid"], given.get("parameters", {})
    preset = {"preset": given["preset"]} if "preset" in given else {}
    if twice := [key for key, count in Counter([*preset, *fixed, *grid]).items() if count > 1]:
        raise UsageError(f"{', '.join(twice)}: given twice, for all points or in the grid; leave one out")
    if (count := math.prod(map(len, grid.values()))) > POINTS:
        raise UsageError(f"the grid has {count:,} points, expected at most {POINTS:,}: make several sweeps of it")
    notebook, made = planning.read(name, root), {}
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        checked = _checked(notebook, preset | fixed, point, root, name)
        own = {key: checked[key] for key in point}
        file = f"{name.split('/')[1]}-{planning.digest(own)[:12]}.ipynb"
        told = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in own.items())
        if file in made:
            raise UsageError(f"the grid has the point {short(told)[1:-1]} twice: leave one out")
        made[file] = planning.Job(f"{name} [{told}]", name, checked, folder / file, folder / "failed" / file)
    return list(made.values())


def _checked(notebook, fixed, point, root, name):
    """All parameters of a point; what is wrong with one is said as a sweep file writes it."""
    try:
        return whole_folders(notebook, check_parameters(notebook, fixed | point, name), root, name)
    except UsageError as error:
        told, written, example = str(error).rpartition("write for example -p ")
        if not written:
            raise
        key, _, value = shlex.split(example)[0].partition("=")
        raise UsageError(f"{told}write for example {key}: {f'[{value}]' if key in point else value}") from None


# What it is made of, and what came out


def _declared(row, folder):
    file, name, parameters = row["executed"], row["notebook"], json.loads(row["parameters"])
    if not re.fullmatch(r"[^/\\\0]+\.ipynb", file) or not isinstance(name, str) or not isinstance(parameters, dict):
        raise ValueError(row)
    return planning.Job(f"{folder.name}/{file}", name, parameters, folder / file, folder / "failed" / file)


def _behind(job):
    """Function and fingerprint of each run that the receipts of an executed notebook name."""
    from rsbook.pages import facts_left  # not above: it loads what draws

    try:
        notebook = json.loads(job.target.read_text("utf-8")) if job.target.is_file() else {"cells": []}
        receipts = [facts["runs"] for facts in facts_left(notebook) if facts["rsbook"] == "receipt"]
        return [(runs["function"], str(key)) for runs in receipts if runs for key in runs["records"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BatchError(f"{job.target} is damaged ({type(error).__name__}): run the sweep with --force") from None


def _row(path, function):
    """What puts the row of a record in its place, and the row."""
    try:
        record = json.loads(path.read_text("utf-8"))
        if record["fingerprint"] != path.stem:
            raise ValueError(path.stem)
        parameters = {name: _cell(value) for name, value in record["parameters"].items()}
        results = {k: _cell(v) for k, v in record["results"].items() if not isinstance(v, list | dict)}
    except FileNotFoundError:
        cure = "name the store that the sweep was run with (--store), or run it with --force"
        raise BatchError(f"{path} is missing, a run behind the sweep: {cure}") from None
    except OSError as error:
        raise BatchError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = type(error).__name__
        raise BatchError(f"{path} is damaged ({why}): delete it, and run the sweep with --force") from None
    place = json.dumps([function, record["parameters"], results], sort_keys=True)
    return place, {"function": function, "record": path.stem, **parameters, **results}


def _cell(value):
    return json.dumps(value) if isinstance(value, list | dict | bool) else value


def _write(path, rows, first=()):
    names = dict.fromkeys([*first, *(name for row in rows for name in row)])
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    try:
        with replacing(path) as temporary:
            temporary.write_text(text.getvalue(), "utf-8", newline="\n")
    except OSError as error:
        raise BatchError(
            f"{path} cannot be written: {error.strerror or error}; make room, or mend its folder"
        ) from error
    return path
