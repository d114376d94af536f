"""A small project whose batches are killed: how they are started, which processes they have, and what must be whole."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from faulty_work import EPOCHS
from zoo import make_root, notebook, write

from rsbook import checkpoints, runs

TESTS = Path(__file__).parent
MARK = "FAULTY_BATCH"  # in the environment of a batch, and so of its workers and kernels
SHOWS = "import faulty_work\nfaulty_work.show(*faulty_work.execution(point))"


@dataclass
class Batch:
    """A batch at work, the mark of its processes, and the file that has what it wrote."""

    process: subprocess.Popen
    mark: str
    wrote: Path

    def wait(self, seconds=120):
        """Its exit code and what it wrote."""
        try:
            code = self.process.wait(seconds)
        finally:
            self.process.kill()
        return code, self.text()

    def text(self):
        return self.wrote.read_text("utf-8")

    def processes(self):
        """Those that live, each with what it is."""
        return [(process, _kind(process, self.process.pid)) for process in marked(self.mark)]

    def alive(self, kind):
        return [process for process, found in self.processes() if found == kind]


def marked(mark):
    """The living processes with this mark, whoever their parents are now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _kind(process, batch):
    with suppress(psutil.Error):
        command = " ".join(process.cmdline())
        if process.pid == batch:
            return "batch"
        return "kernel" if "ipykernel_launcher" in command else "worker" if "spawn_main" in command else "other"
    return "other"


class Project:
    """A project in a folder of its own, with a store and a log of what its runs did."""

    def __init__(self, folder, **notebooks):
        self.root, self.store, self.log = folder / "root", folder / "store", folder / "log"
        self.folder, self.batches = folder, []
        make_root(self.root, **notebooks)
        self.log.touch()

    def write(self, name, *cells):
        """Add a notebook."""
        write(self.root, name, notebook("point = 0", *cells))

    def sweep_file(self, points):
        """A sweep of the notebook that shows eight runs, with so many executions."""
        self.write("w/shows", SHOWS)
        path = self.folder / "fire.yml"
        path.write_text(f"notebook: w/shows\ngrid:\n  point: {list(range(points))}\n")
        return path

    def environment(self, mark=""):
        paths = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
        ours = {"FAULTY_LOG": str(self.log), "PYTHONPATH": paths, MARK: mark, "PYTHONUNBUFFERED": "1"}
        return {key: value for key, value in os.environ.items() if not key.startswith("RSBOOK_")} | ours

    def start(self, *command, workers=2):
        """A batch: `rsbook` with this command on this project."""
        mark = uuid.uuid4().hex
        wrote = self.folder / f"batch-{len(self.batches)}.txt"
        arguments = [sys.executable, TESTS / "faulty_batch.py", self.root, *command]
        arguments += ["--workers", str(workers), "--store", self.store]
        with wrote.open("w") as file:
            process = subprocess.Popen(
                arguments, stdout=file, stderr=subprocess.STDOUT, env=self.environment(mark), cwd=self.folder
            )
        self.batches.append(Batch(process, mark, wrote))
        return self.batches[-1]

    def close(self):
        """End what is still at work."""
        for batch in self.batches:
            batch.process.kill()

    def noted(self):
        """The lines of the log, as lists of words."""
        return [line.split() for line in self.log.read_text().splitlines()]

    def began(self, kind="run"):
        """How often each run was begun."""
        found = {}
        for line in self.noted():
            if line[:2] == ["begin", kind]:
                found[line[2]] = found.get(line[2], 0) + 1
        return found

    def records(self):
        """The records by fingerprint."""
        return {path.stem: path for path in self.store.glob("*/[!.]*.json")}

    def results(self):
        """What the runs gave, by fingerprint."""
        return {key: json.loads(path.read_text())["results"] for key, path in self.records().items()}

    def executed(self):
        """What the executed notebooks of the sweep show, by name."""
        found = {}
        for path in (self.root / "_build" / "sweeps" / "fire").glob("[!.]*.ipynb"):
            cells = json.loads(path.read_text("utf-8"))["cells"]
            found[path.name] = [output["data"] for cell in cells for output in cell["outputs"]]
        return found

    def damaged(self):
        """What is not whole of all that a reader may find in the store, the sweep and the executed notebooks."""
        found = []
        for place in (self.store, self.root / "_build", self.root / "book"):
            for path in sorted(path for path in place.rglob("*") if path.is_file()):
                if not any(part.startswith(".") for part in path.relative_to(place).parts):
                    with suppress(FileNotFoundError):  # a checkpoint whose run has ended meanwhile
                        if why := why_damaged(path):
                            found.append(f"{path}: {why}")
        return found


def why_damaged(path):
    """What is wrong with a file, None if nothing is."""
    try:
        if path.suffix == ".json":
            return None if runs.load_record(path.parent, path.stem) else "its weights are gone"
        if path.suffix == ".safetensors" and path.parent.name == "weights":
            return None if hashlib.sha256(path.read_bytes()).hexdigest()[:32] == path.stem else "its checksum differs"
        if path.suffix == ".safetensors":
            facts, tensors = checkpoints.read(path)
            return None if 0 < facts["epoch"] <= EPOCHS and tensors else "it has no epoch"
        if path.suffix == ".ipynb":
            return nbformat.validate(json.loads(path.read_text("utf-8")))
        if path.suffix == ".csv":
            widths = {len(row) for row in csv.reader(io.StringIO(path.read_text("utf-8")))}
            return None if len(widths) == 1 else f"its rows have {widths} cells"
        return "no such file was meant to be here"
    except FileNotFoundError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"


class Watch:
    """What must never happen, looked for again and again: `violations` has what did."""

    def __init__(self, project):
        self.project, self.violations, self.finished = project, [], {}

    def look(self):
        """Look at the files and at the log; returns all violations so far."""
        found = self.project.damaged()
        records = self.project.records()
        found += [f"the record {key} is gone" for key in self.finished if key not in records]
        lines = self.project.noted()  # after the records: what begins later than these lines finds them
        for i, (what, kind, who, *_) in enumerate(lines):
            if (what, kind) == ("begin", "run") and i >= self.finished.get(who, len(lines)):
                found.append(f"the run {who} has a record and began again (line {i + 1} of the log)")
        for key in records:
            self.finished.setdefault(key, len(lines))
        found += lost_epochs(lines) + [f"the run {who} was done twice at once" for who in twice_at_once(lines)]
        self.violations = list(dict.fromkeys(self.violations + found))
        return self.violations


def at_once(lines, kinds=("run", "cell")):
    """The largest number of these sections that were open at the same moment; those of the dead do not count."""
    open_, moments = {}, []
    for what, kind, who, pid, moment in (line for line in lines if len(line) == 5):
        if kind in kinds and what == "begin":
            open_[who, pid] = float(moment)
        elif kind in kinds and what == "end" and (who, pid) in open_:
            moments += [(open_.pop((who, pid)), 1), (float(moment), -1)]
    count = most = 0
    for _, change in sorted(moments):
        count += change
        most = max(most, count)
    return most


def twice_at_once(lines):
    """The runs that two living processes did at the same time."""
    by_run = {}
    for line in lines:
        if line[1] == "run":
            by_run.setdefault(line[2], []).append(line)
    return [who for who, own in by_run.items() if at_once(own, ["run"]) > 1]


def lost_epochs(lines):
    """The trainings that began again further back than the epoch before the last, or did an epoch too many."""
    last, found = {}, []
    for line in lines:
        if line[0] == "resume":
            who, behind = line[1], int(line[2])
            if behind < last.get(who, 0) - 1:
                found.append(f"the training {who} went on after epoch {behind}, and had done {last[who]}")
            last[who] = behind
        elif line[0] == "epoch":
            if int(line[2]) != last[line[1]] + 1 or int(line[2]) > EPOCHS:
                found.append(f"the training {line[1]} did epoch {line[2]} after {last[line[1]]}")
            last[line[1]] = int(line[2])
    return found


def until(condition, seconds=60):
    """What the condition returns, once that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found
