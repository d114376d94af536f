"""Notebooks and small projects that tests make."""

import json
from pathlib import Path

from rsbook import execution, planning

FIRST = """\
preset: str = "quick"  # smoke · quick · full
dataset: str = "bluemarble"
data_root: str | None = None
seeds: list[int] = [42, 43, 44]
device = "auto"
"""


def notebook(*sources, parameters=0, kind="code"):
    """A notebook of code cells; the cell at `parameters` carries the tag."""
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": []}, "source": source}
        for i, source in enumerate(sources)
    ]
    for index in [parameters] if isinstance(parameters, int) else parameters:
        cells[index] |= {"cell_type": kind, "metadata": {"tags": ["parameters"]}}
    for cell in cells:
        cell |= {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
    kernel = {"name": "elsewhere", "display_name": "Another kernel", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def make_root(folder, **notebooks):
    """A small project: sources, data, lock file, and notebooks by name, `work__name`."""
    for path, text in {
        "rsbook/mixing.py": "from rsbook import positions\na = 1\n",
        "rsbook/positions.py": "b = 1\n",
        "rsbook/archives/bluemarble.py": "c = 1\n",
        "rsbook/widgets/__init__.py": "",
        "rsbook/widgets/map.mjs": "let a\n",
        "data/bluemarble/SHA256SUMS": "00  a.tif\n",
        "data/bluemarble/a.tif": "pixels",
        "data/published/label_propagation/table_ii.csv": "a,b\n1,2\n",
        "requirements.lock": "torch==2\n",
    }.items():
        Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, path).write_text(text)
    for name, content in notebooks.items():
        write(folder, name.replace("__", "/"), content)
    return folder


def write(root, name, content):
    path = Path(root, "notebooks", f"{name}.ipynb")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def executed(root, name, out="book/_executed"):
    return json.loads(Path(root, out, f"{name}.ipynb").read_text("utf-8"))


def leftovers(root):
    return [path for path in Path(root).rglob("*") if ".tmp" in path.name]


class FakePapermill:
    """Stands in for kernels where only the decisions around them are tested; a cell with `1/0` fails."""

    def __init__(self):
        self.ran = []

    def __call__(self, source, temporary, job, environment, timeout=None):
        content = json.loads(source.read_text())
        for cell in content["cells"]:
            cell["metadata"]["papermill"] = {"start_time": "now"}
        content["metadata"]["papermill"] = {"exception": None}
        temporary.write_text(json.dumps(content))
        self.ran.append((f"{source.parent.name}/{source.stem}", job.parameters))
        failed = any("1/0" in cell["source"] for cell in content["cells"])
        return "cell 2 raised E: m" if failed else None, False

    def install(self, monkeypatch):
        """Let every notebook go through this one, in this process; returns it."""
        monkeypatch.setenv("RSBOOK_WORKERS", "0")
        monkeypatch.delenv("RSBOOK_SCHEDULER", raising=False)
        monkeypatch.setattr(execution, "_papermill", self)
        return self


def why_run(name, given, root, out=None):
    """Why a notebook must run with these parameters, None when it is up to date."""
    return planning.why_run(planning.jobs([name], given, root, out)[0], root)
