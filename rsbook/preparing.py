"""Preparing an archive: its raw files, read once by all cores, become the flat arrays of `rsbook.archives.prepared`,
or of `rsbook.archives.prepared_series`.

What lies in DIR/NAME/raw as zip or tar is unpacked there first. The rest is made in DIR/NAME/.preparing and moved to
its place when it is whole. A journal there has a line for every group of scenes that is on the disk, so a run that is
killed at any moment goes on where it was.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rsbook import filling, scenes, unpacking
from rsbook.archives import prepared, prepared_series
from rsbook.files import replacing
from rsbook.scenes import DataError

PREPARED = scenes.ARCHIVES[len(scenes.EMBEDDED) :]  # all but those that come with the repository
WORK = ".preparing"
JOURNAL = "journal.jsonl"
SLACK = 2**24  # bytes for what is not an array
LIBRARIES = ("numpy", "rasterio", "pillow")  # another version may decode to other pixels
GIGABYTE = 1e9

Source = prepared.Source | prepared_series.Source
Done = dict[int, tuple[list[int], list[int]]]  # sums and sums of squares of each band, by group


def prepare(name: str, root: str | Path | None = None, workers: int | None = None, progress: bool = True) -> Path:
    """Prepare the archive `name` in `root`/`name` (default: the project's data folder) and return that folder.

    workers: processes that read, 0 for this one; None for one a core. An archive that is there and whole is left alone;
    one that was begun is gone on with, except for what has changed since. What lies in raw/ as the publisher's zip or
    tar files is unpacked first, once. Raises ValueError for a name that cannot be prepared, and DataError for missing
    or damaged raw files, too little room on the disk, a worker that dies, or another process that is at it; what is
    done then is kept.
    """
    folder = scenes.location(name, root)
    if name not in PREPARED:
        raise ValueError(f"{name} needs no preparing: it comes with the repository")
    raw, work = folder / "raw", folder / WORK
    if not folder.is_dir():
        raise DataError(f"{raw} is missing: {_unpack(name)}")
    archive = importlib.import_module(f"rsbook.archives.{name}")
    with _alone(folder):
        if not (work / "SHA256SUMS").is_file():
            if _is_whole(folder, progress):
                shutil.rmtree(work, ignore_errors=True)
                return folder
            if not raw.is_dir():
                raise DataError(f"{raw} is missing: {_unpack(name)}")
            _unpack_archives(raw, archive.PACKED, progress)
            _make(archive.source(raw), work, _workers() if workers is None else workers, progress)
        _publish(work, folder)
    return folder


def summary(folder: Path) -> str:
    """What a prepared archive holds, and where its counts differ from the paper's."""
    series = hasattr(importlib.import_module(f"rsbook.archives.{folder.name}"), "REGIONS")
    manifest = (prepared_series if series else prepared).read_manifest(folder)
    counts = ", ".join(f"{n:,} {what}" for what, n in manifest["counts" if series else "scenes"].items())
    differ = [f"  counts differ from the paper's: {text}" for text in manifest["notes"].get("differ", ())]
    return "\n".join([f"{manifest['name']} is ready in {folder}: {counts}", *differ])


def catalogue() -> dict[str, dict[str, str]]:
    """What data/README.md says of each archive, by name: the columns of its table."""
    rows = [line.strip("|").split("|") for line in (scenes.DATA / "README.md").read_text("utf-8").splitlines()]
    table = [[cell.strip() for cell in row] for row in rows if len(row) > 1]
    entries = {row[0].partition("]")[0].strip("["): dict(zip(table[0], row, strict=True)) for row in table[2:]}
    return {name: entries[name] for name in scenes.ARCHIVES}


def state(folder: Path) -> str:
    """How far an archive is, in a few words: "ready", "begun", "to prepare" or "not here"; no file is read."""
    if (folder / "SHA256SUMS").is_file():
        return "ready"
    if (folder / WORK / JOURNAL).is_file():
        return "begun"
    return "to prepare" if (folder / "raw").is_dir() else "not here"


def damaged(folder: Path, hashed: bool) -> dict[str, str]:
    """The files of an archive that are missing or, where they are hashed, not what SHA256SUMS says; and in which
    archive's folder each lies.
    """
    try:
        sums = scenes.listed(folder)
    except (OSError, DataError):
        return {"SHA256SUMS": folder.name}
    paths = {file: scenes.place(folder, file) for file in sums}
    return {
        file: path.parent.name
        for file, path in paths.items()
        if not path.is_file() or (hashed and scenes.sha256(path) != sums[file])
    }


def check(folder: Path, progress: bool = True) -> tuple[int, int]:
    """Hash every file of an archive; how many there are and their bytes. Raises DataError for a damaged one."""
    scenes.checksum(folder.name, folder.parent)  # says how to get an archive that is not there
    paths = [path for name in scenes.listed(folder) if (path := scenes.place(folder, name)).is_file()]
    total = sum(path.stat().st_size for path in paths)
    with _bytes_bar("checking", total, progress) as bar:
        scenes.verify(folder, everything=True, advance=bar.update)
    return len(paths), total


def _unpack_archives(raw: Path, patterns: tuple[str, ...], progress: bool) -> None:
    # Nobody can say before how much it will be, and often there is nothing: then there is no bar.
    with tqdm(desc="unpacking", unit="B", unit_scale=True, mininterval=1, delay=1, disable=not progress) as bar:
        unpacking.unpack_all(raw, raw.parent / unpacking.MARKS, patterns, bar.update)


def _make(source: Source, work: Path, workers: int, progress: bool) -> None:
    """All files of the archive in `work`, SHA256SUMS the last."""
    if "train" not in source.splits:
        raise DataError(f"{source.name}: no training {source.unit} among the {len(source.splits)} that were found")
    plan = fingerprint(source)
    done = _resume(source, work, plan, progress)
    _fill(source, work, done, workers, progress)
    tables = _write_tables(source, work, done)
    _write_sums([*source.arrays(), *tables], work, progress)


def fingerprint(source: Source) -> str:
    """What identifies a preparation: what is planned, from which files, the code of the reader and its libraries."""
    plan = {f.name: getattr(source, f.name) for f in fields(source) if f.name not in ("read", "notes", "group_inputs")}
    reader = inspect.getsourcefile(getattr(source.read, "func", source.read))
    plan["reader"] = hashlib.sha256(Path(reader).read_bytes()).hexdigest()
    plan["libraries"] = {name: version(name) for name in LIBRARIES}
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _resume(source: Source, work: Path, plan: str, progress: bool) -> Done:
    """The groups that an earlier run of the same plan has finished; otherwise begin: room checked, arrays allocated."""
    journal = work / JOURNAL
    lines = _read_lines(journal)
    if lines and lines[0] == {"plan": plan} and _allocated(source, work):
        last = {line["group"]: line for line in lines[1:] if _is_noted(line, source)}
        same = [line for i, line in last.items() if line["inputs"] == _inputs(source, i)]
        _write_lines(journal, [lines[0], *same])  # without what is read again, and what a kill has cut off
        _say(f"{source.name}: going on, {len(same)} of {len(source.groups)} groups are there", progress)
        return {line["group"]: (line["sums"], line["squares"]) for line in same}
    if lines:
        _say(f"{source.name}: the raw files or their reader have changed since the last run; starting anew", progress)
    shutil.rmtree(work, ignore_errors=True)
    _check_room(source, work.parent)
    work.mkdir()
    for name, (dtype, shape) in source.arrays().items():
        np.lib.format.open_memmap(work / name, mode="w+", dtype=dtype, shape=shape).flush()
    _write_lines(journal, [{"plan": plan}])
    return {}


def _inputs(source: Source, group: int) -> str | None:
    return source.group_inputs[group] if source.group_inputs else None


def _read_lines(journal: Path) -> list[dict[str, Any]]:
    """The lines of a journal up to the first that a kill has cut off."""
    lines = []
    with suppress(FileNotFoundError, ValueError, RecursionError):
        for line in journal.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                lines.append(json.loads(line))
    return lines


def _is_noted(line: Any, source: Source) -> bool:
    """Whether a line of the journal is one that `_fill` writes."""
    if not isinstance(line, dict) or line.keys() != {"group", "inputs", "sums", "squares"}:
        return False
    sums = [line["sums"], line["squares"]]
    if not all(isinstance(part, list) and len(part) == len(source.bands) for part in sums):
        return False
    numbers = [line["group"], *line["sums"], *line["squares"]]
    return all(type(number) is int for number in numbers) and 0 <= line["group"] < len(source.groups)


def _write_lines(journal: Path, lines: list[dict[str, Any]]) -> None:
    with replacing(journal) as temporary:
        temporary.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def _allocated(source: Source, work: Path) -> bool:
    arrays = source.arrays()
    try:
        found = {name: prepared.open_array(work / name, [str(dtype)], "r") for name, (dtype, _) in arrays.items()}
    except DataError:
        return False
    return all(found[name].shape == shape for name, (_, shape) in arrays.items())


def _check_room(source: Source, folder: Path) -> None:
    needed = SLACK + sum(dtype.itemsize * math.prod(shape) for dtype, shape in source.arrays().values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        room = f"{needed / GIGABYTE:,.1f} GB in {folder}, where {free / GIGABYTE:,.1f} GB are free"
        raise DataError(f"{source.name} needs {room}: make room, or move it and give its new place with --root")


def _fill(source: Source, work: Path, done: Done, workers: int, progress: bool) -> None:
    """Read what is not done, and note each group in the journal once its bytes are on the disk."""
    training = np.array([split == "train" for split in source.splits])
    filler = filling.Filler(source.read, filling.places(work, source.arrays()), training, source.names)
    missing = [(i, group) for i, group in enumerate(source.groups) if i not in done]
    counts = {"total": sum(map(len, source.groups)), "initial": sum(len(source.groups[i]) for i in done)}
    bar = tqdm(**counts, unit=f" {source.unit}", desc=source.name, mininterval=1, disable=not progress)
    ended = filling.finished(filler, missing, workers)
    with bar, (work / JOURNAL).open("ab", buffering=0) as journal, closing(ended):
        for batch in ended:
            for place in filler.places.values():
                place.flush()
            for i, sums, squares in batch:
                line = {"group": i, "inputs": _inputs(source, i), "sums": sums, "squares": squares}
                journal.write(f"{json.dumps(line)}\n".encode())
            os.fsync(journal.fileno())
            done |= {i: (sums, squares) for i, sums, squares in batch}
            bar.update(sum(len(source.groups[i]) for i, _, _ in batch))


def _write_tables(source: Source, work: Path, done: Done) -> list[str]:
    """The tables of the archive, whose names are returned: the same bytes wherever and whenever it is prepared."""
    sums, squares = ([sum(band) for band in zip(*parts, strict=True)] for parts in zip(*done.values(), strict=True))
    tables = source.tables(work, sums, squares)
    for name, text in tables.items():
        with replacing(work / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    return list(tables)


def _write_sums(names: list[str], work: Path, progress: bool) -> None:
    total = sum((work / name).stat().st_size for name in names)
    with _bytes_bar("hashing", total, progress) as bar, ThreadPoolExecutor(_workers()) as threads:
        digests = list(threads.map(lambda name: scenes.sha256(work / name, bar.update), names))
    with replacing(work / "SHA256SUMS") as temporary:
        lines = [f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True)]
        temporary.write_text("".join(lines), encoding="utf-8")


def _publish(work: Path, folder: Path) -> None:
    """Move what is whole from `work` to its place; SHA256SUMS goes first and comes last, so a kill is no harm."""
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    for name in scenes.listed(work):
        if (work / name).exists():
            (work / name).replace(folder / name)
    _sync(folder)
    (work / "SHA256SUMS").replace(folder / "SHA256SUMS")
    _sync(folder)
    shutil.rmtree(work)
    scenes.remember(folder, scenes.checksum(folder.name, folder.parent))


def _is_whole(folder: Path, progress: bool) -> bool:
    if not (folder / "SHA256SUMS").is_file():
        return False
    try:
        scenes.verify(folder)
    except DataError as error:
        _say(f"{str(error).partition(';')[0]}; preparing it anew", progress)
        return False
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time prepares an archive; the system gives the lock back when that process ends."""
    import fcntl  # not on Windows, where the book can still be read and run

    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"{folder} is being prepared by another process: wait for its end") from None
    finally:
        os.close(lock)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _bytes_bar(what: str, total: int, progress: bool) -> tqdm:
    return tqdm(total=total, unit="B", unit_scale=True, desc=what, mininterval=1, disable=not progress)


def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _unpack(name: str) -> str:
    return f"`python -m rsbook data card {name}` says where to get the archive and what to put there"


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr)
