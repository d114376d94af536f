"""The receipt at the end of a page: what made it, with which code and data, on what, how long, and the line that makes
it again.
"""

from __future__ import annotations

import html
import json
import shlex
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil

from rsbook.figures import Html
from rsbook.files import location
from rsbook.parameters import declared
from rsbook.provenance import duration, peak_memory, provenance

if TYPE_CHECKING:  # rendering does without torch
    from rsbook.scenes import Scenes

ROOT = Path(__file__).parents[1]


def receipt(notebook: str, values: Mapping[str, Any], data: Scenes, runs: pd.DataFrame | None = None) -> Html:
    """The receipt of the notebook `notebook` ("label_propagation/3_method"), folded; its `data` are the same facts for
    programs (rsbook/pages.py).

    values: what its parameters are, by name, and anything else (`globals()` will do); None stands for the preset's and
    is left out. runs: the table that its results come from. Raises BatchError when the notebook declares no
    parameters.
    """
    source = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))
    parameters = {name: values[name] for name in declared(source, notebook) if values[name] is not None}
    facts = _facts(notebook, parameters, data, runs)
    told = _told(facts)
    lines = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in told.items())
    return Html(
        f'<details class="rsbook-receipt"><summary>Receipt: what made this page</summary><dl>{lines}</dl></details>',
        text="\n".join(f"{k}: {v}" for k, v in told.items()),
        data=facts,
    )


def notice(preset: str) -> Html | None:
    """What must stand at the top of a page whose numbers mean nothing: a warning in the smoke preset, else None."""
    if preset != "smoke":
        return None
    text = "Smoke preset: this page only shows that every cell runs. Its numbers mean nothing."
    return Html(f'<p class="rsbook-notice"><strong>{text}</strong></p>', text=text)


def command(notebook: str, parameters: Mapping[str, Any]) -> str:
    """The line that makes the page of a notebook with these parameters."""
    given = [
        f"-p {shlex.quote(f'{name}={json.dumps(value, ensure_ascii=False)}')}" for name, value in parameters.items()
    ]
    return " ".join(["python -m rsbook run", shlex.quote(notebook), *given])


def versions(python: str | None, libraries: Mapping[str, str | None]) -> str:
    """Python and libraries with their versions; what is not installed is left out."""
    found = {"Python": python, **libraries}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version is not None)


def _facts(notebook: str, parameters: dict[str, Any], data: Scenes, runs: pd.DataFrame | None) -> dict[str, Any]:
    from rsbook.devices import resolve_device

    device = resolve_device(parameters.get("device", "auto"))
    behind = None if runs is None or runs.empty else _runs(runs)
    return {
        "rsbook": "receipt",
        "notebook": notebook,
        "command": command(notebook, parameters),
        "preset": parameters.get("preset"),
        "parameters": parameters,
        "dataset": data.name,
        "checksum": data.checksum,
        "seeds": behind["seeds"] if behind else parameters.get("seeds"),
        **provenance(device),
        "memory": peak_memory(device),
        "made": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S+00:00}",
        "seconds": round(time.time() - _kernel_start(), 1),
        "runs": behind,
    }


def _runs(runs: pd.DataFrame) -> dict[str, Any]:
    """What the training runs behind a page were: records holds the seconds of each, as pages may share them."""
    paths = [location(path) for path in dict.fromkeys(runs["record"])]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    fresh = sum(datetime.fromisoformat(record["started"]).timestamp() >= int(_kernel_start()) for record in records)
    made_on = {json.dumps(record["provenance"], sort_keys=True) for record in records}
    return {
        "total": len(records),
        "fresh": fresh,
        "read": len(records) - fresh,
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "seeds": sorted({record["parameters"]["seed"] for record in records}),
        "provenance": [json.loads(text) for text in sorted(made_on)],
        "function": records[0]["function"],
        "records": {path.stem: record["seconds"] for path, record in zip(paths, records, strict=True)},
    }


def _told(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts as a reader sees them."""
    made = datetime.fromisoformat(facts["made"])
    told = {
        "Make it again": facts["command"],
        "Preset": facts["preset"] or "none",
        "Parameters": ", ".join(f"{k} = {v}" for k, v in facts["parameters"].items()),
        "Data set": f"{facts['dataset']}, sha256 {facts['checksum'][:16]}…",
        "Seeds": ", ".join(map(str, facts["seeds"] or [])) or "none of its own",
        "Code": _code(facts),
        "Lock file": f"sha256 {facts['lock'][:16]}…" if facts["lock"] else "none",
        "Machine": _machine(facts),
        "Versions": versions(facts["python"], facts["versions"]),
        "Made": f"{made:%Y-%m-%d %H:%M} UTC, {duration(facts['seconds'])} after the start",
    }
    return told | (_training(facts["runs"]) if facts["runs"] else {})


def _training(runs: Mapping[str, Any]) -> dict[str, str]:
    where = runs["provenance"]
    return {
        "Runs": f"{runs['total']}, of which {runs['fresh']} trained for this page and {runs['read']} read from records",
        "Training": f"{duration(runs['seconds'])} in all, on " + "; ".join(sorted({one["device"] for one in where})),
        "Code of the runs": "; ".join(sorted({_code(one) for one in where})),
        "Versions of the runs": "; ".join(sorted({versions(one["python"], one["versions"]) for one in where})),
    }


def _code(facts: Mapping[str, Any]) -> str:
    if facts["commit"] is None:
        return "no commit"
    return f"commit {facts['commit'][:12]}" + (" with uncommitted changes" if facts["uncommitted_changes"] else "")


def _machine(facts: Mapping[str, Any]) -> str:
    peak, on_gpu = facts["memory"]["process_megabytes"], facts["memory"]["gpu_megabytes"]
    driver = [f"driver {facts['driver']}"] if facts["driver"] else []
    memory = [f"at most {peak:,} MB of memory"] if peak else []
    memory += [f"{on_gpu:,} MB on the GPU"] if on_gpu else []
    return ", ".join([facts["device"], *driver, facts["system"], *memory])


def _kernel_start() -> float:
    return psutil.Process().create_time()
