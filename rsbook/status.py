"""Where everything stands: notebooks, sweeps and the records of training runs."""

import json
from collections import Counter
from datetime import datetime

from rsbook import planning, sweeps
from rsbook.locks import is_taken
from rsbook.parameters import BatchError
from rsbook.provenance import duration

STATES = ("done", "running", "stale", "failed", "missing")


def state(job, root=planning.ROOT):
    """The state of a notebook, one of STATES, and why: an executed one counts with the parameters that it has."""
    if is_taken(job.target):
        return "running", ""
    record, failed = planning.record_of(job.target), planning.record_of(job.failed)
    if failed is not None and planning.stale(job.name, failed, root) is None:
        return "failed", f"see {planning.shown(job.failed, root)}"
    if record is None:
        return "missing", ""
    why = planning.stale(job.name, record, root)
    return ("done", "") if why is None else ("stale", why)


def state_in_sweep(job, root=planning.ROOT):
    """The state of a point of a sweep, one of STATES: an executed one counts with the parameters that the sweep has."""
    if is_taken(job.target):
        return "running"
    try:
        why = planning.why_run(job, root)
    except BatchError:  # its notebook is gone
        why = "missing" if planning.record_of(job.target) is None else "stale"
    return {None: "done", "failed before": "failed", "missing": "missing"}.get(why, "stale")


def report(root=planning.ROOT):
    """Notebooks, sweeps and records, as text for a terminal; raises BatchError when there are no notebooks."""
    made = [planning.job(name, {}, root) for name in planning.find((), root)]
    rows = [(job.label, *state(job, root), *_when(planning.record_of(job.target))) for job in made]
    width = max(len(row[0]) for row in rows)
    lines = [
        f"{label:<{width}}  {now:<7}  {when:<16}  {took:>12}  {why}".rstrip() for label, now, why, when, took in rows
    ]
    lines += ["", f"{_many(len(rows), 'notebook')}: {_counted(row[1] for row in rows)}"]
    lines += [_sweep(name, root) for name in sweeps.begun(root)]
    return "\n".join([*lines, _records(planning.store(root), root)])


def _sweep(name, root):
    try:
        points = sweeps.declared(name, root)
    except BatchError as error:
        return f"sweep {name}: {error}"
    return f"sweep {name}, {_many(len(points), 'execution')}: {_counted(state_in_sweep(job, root) for job in points)}"


def _when(record):
    """When an executed notebook was begun, by the clock of this machine, and how long it took."""
    record = record or {}
    try:
        begun = datetime.fromisoformat(record["started"]).astimezone()
        return f"{begun:%Y-%m-%d %H:%M}", duration(record["seconds"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return "", ""


def _counted(states):
    counts = Counter(states)
    return ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name]) or "none"


def _many(count, noun):
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _records(store, root):
    """How many records and unfinished runs the store has; what a kill has left there counts for nothing."""
    where = planning.shown(store, root)
    try:
        found = sorted((path for path in store.glob("*/*.json") if not path.name.startswith(".")), key=str)
        ended = {(path.parent.name, path.stem) for path in found}  # a kill may have left the checkpoint of one
        begun = [path for path in store.glob("*/*.safetensors") if not path.name.startswith(".")]
        begun = [path for path in begun if (path.parent.name, path.stem) not in ended]
        damaged = [path for path in found if not _is_readable(path)]
    except Exception as error:  # whatever a library for some storage raises
        return f"records in {where}: cannot be counted ({type(error).__name__}); see python -m rsbook doctor"
    line = f"records in {where}: {len(found):,}, {_many(len(begun), 'run')} begun with a checkpoint"
    return line + "".join(
        f"\n  damaged: {planning.shown(path, root)}: delete it, and its run is done again" for path in damaged
    )


def _is_readable(path):
    try:
        return json.loads(path.read_text("utf-8"))["fingerprint"] == path.stem
    except FileNotFoundError:
        return True  # gone meanwhile
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
