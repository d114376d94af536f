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
from typing import Any

import pandas as pd
import psutil

from rsbook.devices import resolve_device
from rsbook.figures import Html
from rsbook.parameters import declared
from rsbook.runs import provenance
from rsbook.scenes import Scenes

ROOT = Path(__file__).parents[1]


def receipt(notebook: str, values: Mapping[str, Any], data: Scenes, runs: pd.DataFrame | None = None) -> Html:
    """The receipt of the notebook `notebook` ("label_propagation/3_method"), folded.

    values: what its parameters are, by name, and anything else (`globals()` will do); None stands for the preset's and
    is left out. runs: the table that its results come from. Raises BatchError when the notebook declares no
    parameters.
    """
    source = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))
    parameters = {name: values[name] for name in declared(source, notebook) if values[name] is not None}
    facts = _facts(notebook, parameters, data, runs)
    lines = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in facts.items())
    return Html(
        f'<details class="rsbook-receipt"><summary>Receipt: what made this page</summary><dl>{lines}</dl></details>',
        text="\n".join(f"{k}: {v}" for k, v in facts.items()),
    )


def notice(preset: str) -> Html | None:
    """What must stand at the top of a page whose numbers mean nothing: a warning in the smoke preset, else None."""
    if preset != "smoke":
        return None
    text = "Smoke preset: this page only shows that every cell runs. Its numbers mean nothing."
    return Html(f'<p class="rsbook-notice"><strong>{text}</strong></p>', text=text)


def _facts(notebook: str, parameters: dict[str, Any], data: Scenes, runs: pd.DataFrame | None) -> dict[str, Any]:
    here = provenance(resolve_device(parameters.get("device", "auto")))
    given = " ".join(f"-p {shlex.quote(f'{k}={json.dumps(v)}')}" for k, v in parameters.items())
    facts = {
        "Make it again": f"python -m rsbook run {notebook} {given}",
        "Parameters": ", ".join(f"{k} = {v}" for k, v in parameters.items()),
        "Data set": f"{data.name}, sha256 {data.checksum[:16]}…",
        "Code": _code(here),
        "Machine": f"{here['device']}, {here['system']}",
        "Versions": _versions(here),
        "Made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_duration(time.time() - _kernel_start())} after the start",
    }
    return facts if runs is None or runs.empty else facts | _training(runs)


def _training(runs: pd.DataFrame) -> dict[str, str]:
    records = [json.loads(Path(path).read_text(encoding="utf-8")) for path in dict.fromkeys(runs["record"])]
    fresh = sum(datetime.fromisoformat(record["started"]).timestamp() >= int(_kernel_start()) for record in records)
    return {
        "Runs": f"{len(records)}, of which {fresh} trained for this page and {len(records) - fresh} read from records",
        "Seeds": ", ".join(str(seed) for seed in sorted({record["parameters"]["seed"] for record in records})),
        "Training": f"{_duration(sum(record['seconds'] for record in records))} in all, on "
        + "; ".join(sorted({record["provenance"]["device"] for record in records})),
        "Code of the runs": "; ".join(sorted({_code(record["provenance"]) for record in records})),
        "Versions of the runs": "; ".join(sorted({_versions(record["provenance"]) for record in records})),
    }


def _code(facts: Mapping[str, Any]) -> str:
    if facts["commit"] is None:
        return "no commit"
    return f"commit {facts['commit'][:12]}" + (" with uncommitted changes" if facts["uncommitted_changes"] else "")


def _versions(facts: Mapping[str, Any]) -> str:
    found = {"Python": facts["python"], **facts["versions"]}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version is not None)


def _kernel_start() -> float:
    return psutil.Process().create_time()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
