"""All benchmarks, or those named, one after another, and what came out against the targets.

python benchmarks/run.py
python benchmarks/run.py mixing explain
"""

import csv
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
PATHS = (
    *("mixing", "explain", "noise", "training", "reading", "rebuilding", "scaling", "engine", "preparing"),
    *("selection", "contrast", "single_positive", "affinity", "multi_scale", "explorers"),
)


def main(names: list[str]) -> int:
    """Run each script in a process of its own; 1 if one fails, 2 for a name that is none."""
    if unknown := sorted(set(names) - set(PATHS)):
        print(f"{unknown[0]!r}: expected some of {', '.join(PATHS)}")
        return 2
    failed = []
    for name in names or PATHS:
        start = time.perf_counter()
        print(f"\n{name}", flush=True)
        if subprocess.run([sys.executable, FOLDER / f"{name}.py"]).returncode:
            failed.append(name)
        print(f"{name} took {time.perf_counter() - start:.0f} s", flush=True)
    summarise([name for name in names or PATHS if name not in failed])
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


def summarise(names: list[str]) -> None:
    """Every target and what was measured."""
    rows = []
    for name in names:
        with (FOLDER / "results" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows += [row | {"name": name} for row in csv.DictReader(file) if row["target"]]
    print(f"\n{sum(row['met'] == 'yes' for row in rows)} of {len(rows)} targets are met")
    for row in rows:
        measured = f"{row['median']} {row['unit']} ({row['low']} – {row['high']})"
        print(f"{row['met']:>3}  {row['target']:>8}  {measured:<34} {row['name']}: {row['what']}, {row['case']}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
