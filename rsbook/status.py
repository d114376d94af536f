"""Where everything stands: notebooks, sweeps and the records of training runs."""

import json
from collections import Counter
from datetime import datetime

from rsbook import planning, sweeps
from rsbook.locks import is_taken
from rsbook.provenance import duration

STATES = ("done", "running", "stale", "failed", "missing")


def state(job, root=planning.ROOT):
    """The state of a job, one of STATES, and why: an executed notebook counts with the parameters that it has."""
    if is_taken(job.target):
        return "running", ""
    record, failed = planning.record_of(job.target), planning.record_of(job.failed)
    if failed is not None and planning.stale(job.name, failed, root) is None:
        return "failed", f"see {planning.shown(job.failed, root)}"
    if record is None:
        return "missing", ""
    why = planning.stale(job.name, record, root)
    return ("done", "") if why is None else ("stale", why)


def report(root=planning.ROOT):
    """Notebooks, sweeps and records, as text for a terminal."""
    made = planning.jobs(root=root)
    rows = [(job.label, *state(job, root), *_when(planning.record_of(job.target))) for job in made]
    width = max(len(row[0]) for row in rows)
    lines = [
        f"{label:<{width}}  {now:<7}  {when:<16}  {took:>12}  {why}".rstrip() for label, now, why, when, took in rows
    ]
    lines += ["", f"{len(rows)} notebooks: {_counted(row[1] for row in rows)}"]
    for name, points in sweeps.declared(root).items():
        lines.append(f"sweep {name}, {len(points)} executions: {_counted(state(job, root)[0] for job in points)}")
    return "\n".join([*lines, _records(planning.store(root), root)])


def _when(record):
    record = record or {}
    try:
        made = f"{datetime.fromisoformat(record['started']):%Y-%m-%d %H:%M}"
        return made, duration(record["seconds"])
    except (KeyError, TypeError, ValueError):
        return "", ""


def _counted(states):
    counts = Counter(states)
    return ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name]) or "none"


def _records(store, root):
    """How many records and unfinished runs the store has; what a kill has left there counts for nothing."""
    found = [path for path in store.glob("*/*.json") if not path.name.startswith(".")]
    begun = [path for path in store.glob("*/*.safetensors") if not path.name.startswith(".")]
    damaged = [path for path in found if not _is_readable(path)]
    line = f"records in {planning.shown(store, root)}: {len(found)}, {len(begun)} runs begun with a checkpoint"
    return line + "".join(
        f"\n  damaged: {planning.shown(path, root)}: delete it, and its run is done again" for path in damaged
    )


def _is_readable(path):
    try:
        return json.loads(path.read_text("utf-8"))["fingerprint"] == path.stem
    except (OSError, ValueError, KeyError, TypeError):
        return False
