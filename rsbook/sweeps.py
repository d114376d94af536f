"""One notebook over a declared grid: separate executions that share the store of runs, and one table of these runs.

A sweep file says `notebook`, `preset` and other `parameters` that all have, and the `grid`: a list of values for each
parameter that varies. Executed notebooks, and what the sweep is made of (sweep.csv), lie in _build/sweeps/NAME.
"""

import csv
import io
import itertools
import json
import re
from pathlib import Path

from rsbook import planning
from rsbook.files import location, replacing
from rsbook.parameters import UsageError, check_parameters, read_yaml, short, whole_folders

FOLDER = Path("_build", "sweeps")
KEYS = ("notebook", "preset", "parameters", "grid")


def jobs(path, root=planning.ROOT):
    """The Job of each point of the grid of the sweep file at `path`, all parameters checked.

    Raises UsageError for a file that is none, an unknown notebook or parameter, or a grid without points.
    """
    given = _read(Path(path))
    [name, *others] = planning.find([given["notebook"]], root)
    if others:
        raise UsageError(f"{path}: notebook {given['notebook']!r} is {1 + len(others)} notebooks; a sweep has one")
    fixed = {"preset": given["preset"]} if given.get("preset") else {}
    fixed |= given.get("parameters") or {}
    if twice := sorted(fixed.keys() & given["grid"].keys()):
        raise UsageError(f"{path}: {', '.join(twice)}: given both for all and in the grid")
    notebook, folder = planning.read(name, root), folder_of(path, root)
    made = []
    for values in itertools.product(*given["grid"].values()):
        point = dict(zip(given["grid"], values, strict=True))
        checked = whole_folders(notebook, check_parameters(notebook, fixed | point, name), root, name)
        own = {key: checked[key] for key in point}
        file = f"{name.split('/')[1]}-{planning.digest(own)[:12]}.ipynb"
        told = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in own.items())
        made.append(planning.Job(f"{name} [{told}]", name, checked, folder / file, folder / "failed" / file))
    if len({job.target for job in made}) < len(made):
        raise UsageError(f"{path}: the grid has the same point twice")
    return made


def folder_of(path, root=planning.ROOT):
    """The folder of a sweep, which is called as its file is."""
    return Path(root, FOLDER, Path(path).stem)


def declare(made, root=planning.ROOT):
    """Write sweep.csv, which says what the sweep is made of, and return its path."""
    rows = [
        {"executed": job.target.name, "notebook": job.name, "parameters": json.dumps(job.parameters)} for job in made
    ]
    return _write(made[0].target.parent / "sweep.csv", rows)


def declared(root=planning.ROOT):
    """The jobs of each sweep that was begun, by the sweep's name."""
    found = {}
    for path in sorted(Path(root, FOLDER).glob("*/sweep.csv")):
        rows = csv.DictReader(io.StringIO(path.read_text("utf-8")))
        found[path.parent.name] = [
            planning.Job(
                row["executed"],
                row["notebook"],
                json.loads(row["parameters"]),
                path.with_name(row["executed"]),
                path.parent / "failed" / row["executed"],
            )
            for row in rows
        ]
    return found


def collect(made, store):
    """Write runs.csv, every run behind the executed notebooks of a sweep, and return its path.

    One row a run, in an order that does not depend on who did it when: its function, fingerprint, parameters, and the
    results that are one number or text. No durations: the same sweep gives the same bytes.
    """
    from rsbook.pages import facts_left  # not above: it loads what draws

    records = set()
    for job in made:
        for facts in facts_left(json.loads(job.target.read_text("utf-8"))) if job.target.is_file() else ():
            behind = facts.get("runs") if facts["rsbook"] == "receipt" else None
            records |= {(behind["function"], key) for key in behind["records"]} if behind else set()
    rows = []
    for function, key in sorted(records):
        record = json.loads((location(store) / function / f"{key}.json").read_text("utf-8"))
        parameters = {name: _cell(value) for name, value in record["parameters"].items()}
        results = {k: _cell(v) for k, v in record["results"].items() if not isinstance(v, list | dict)}
        rows.append({"function": function, "record": key, **parameters, **results})
    rows.sort(key=lambda row: json.dumps([row[name] for name in ("function", *sorted(row.keys() - {"record"}))]))
    return _write(made[0].target.parent / "runs.csv", rows)


def _read(path):
    try:
        given = read_yaml(path.read_text("utf-8"))
    except (OSError, ValueError, ArithmeticError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({short(str(error))})") from None
    if not isinstance(given, dict) or not {"notebook", "grid"} <= given.keys() <= set(KEYS):
        raise UsageError(f"{path}: expected {', '.join(KEYS)}, of which notebook and grid are needed")
    kinds = {"notebook": str, "preset": str, "parameters": dict, "grid": dict}
    for key, value in given.items():
        if not isinstance(value, kinds[key]):
            raise UsageError(f"{path}: {key} is {value!r}, expected {kinds[key].__name__}")
    for key, values in given["grid"].items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{path}: grid: {key} is {values!r}, expected a list of one value or more")
    if not given["grid"]:
        raise UsageError(f"{path}: the grid is empty")
    if not re.fullmatch(r"[\w.-]+", path.stem):
        raise UsageError(f"{path}: the sweep is called as its file: use letters, digits, - and _ alone")
    return given


def _cell(value):
    return json.dumps(value) if isinstance(value, list | dict | bool) else value


def _write(path, rows):
    names = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), "utf-8", newline="\n")
    return path
