"""Archives of data sets, unpacked: nothing outside the target is written, a bomb is stopped, all of it or nothing.

`rsbook.packed` says what may be written. It goes into a folder that is new, where no link can lead away from it, and
which is renamed to the target once it is whole.
"""

from __future__ import annotations

import errno
import filecmp
import json
import lzma
import os
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rsbook import packed
from rsbook.files import replacing
from rsbook.scenes import DataError

WORK = ".unpacking"  # in raw, as only there a finished folder can be renamed to its place
MARKS = ".unpacked.json"
RESERVE = 2**30  # bytes that stay free on the disk, for whatever else writes there
RATIO = 250  # times its own size is what an archive may hold,
SLACK = 2**28  # and these bytes, so that no small one is suspected
GIGABYTE = 1e9

Marks = dict[str, tuple[list[int], list[str]]]  # size and time of every unpacked archive, and what lies in raw for it

DAMAGES = (  # what the standard library raises for archives that are cut off, overwritten or made up
    *(OSError, EOFError, ValueError, LookupError, OverflowError, NotImplementedError),
    *(struct.error, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile),
)


def unpack(
    path: str | Path,
    target: str | Path,
    limit_bytes: int | None = None,
    advance: Callable[[int], Any] = lambda size: None,
) -> Path:
    """Unpack a .zip, .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst into the folder `target`, whole or not at all.

    limit_bytes: how much may come out, all headers of a tar included; None for what is free on the disk less a reserve.
    Whatever is given, 250 times the archive's own size is too much. An older folder at `target` is replaced at the end;
    one process at a time may unpack to a target. advance is called with the number of bytes of each piece that is
    written. Raises DataError for an archive that is missing, damaged, encrypted or too large, or holds anything but
    plain files and folders below it, each once: then everything around the target is as it was.
    """
    path, target = Path(path), Path(target).resolve()
    if not path.is_file():
        raise DataError(f"{path} is missing: expected an archive")
    made, older = (target.with_name(f".{target.name}.{end}") for end in ("unpacking", "older"))
    if older.is_dir() and not target.exists():
        older.replace(target)  # a kill came between the two renames below
    for folder in (made, older):
        shutil.rmtree(folder, ignore_errors=True)
    if target.exists() and not target.is_dir():
        raise DataError(f"{target} is in the way of what {path.name} holds: move it away")
    target.parent.mkdir(parents=True, exist_ok=True)
    made.mkdir()
    try:
        with _explained(path):
            with closing(packed.members(path, _room(path, made, limit_bytes))) as found:
                for member in found:
                    _write(member, made, path, advance)
            _put(made, target, older)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


def unpack_all(
    raw: Path, marks: Path, patterns: Sequence[str], advance: Callable[[int], Any] = lambda size: None
) -> None:
    """Unpack the archives in `raw` whose names match one of the patterns, as `tar -x` and `unzip` do there, each once.

    marks: the JSON file that keeps which are unpacked. What someone has unpacked by hand is left as it is, and what a
    kill has cut off is gone on with. Raises DataError as `unpack` does, and for a file that is there already and is
    another.
    """
    raw = raw.resolve()
    for path in sorted(raw.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in patterns) and packed.kind(path) and path.is_file():
            _unpack_once(path, raw, marks, advance)
    shutil.rmtree(raw / WORK, ignore_errors=True)


def _unpack_once(path: Path, raw: Path, marks: Path, advance: Callable[[int], Any]) -> None:
    state, every = [path.stat().st_size, path.stat().st_mtime_ns], _read_marks(marks)
    made = raw / WORK / ".".join(map(str, (path.name, *state)))  # another archive of its name has another
    then, names = every.get(path.name, (None, []))
    known = then == state
    if not made.is_dir():
        if known and all((raw / name).exists() for name in names):
            return
        there = _there(path, raw)
        if there is None:
            unpack(path, made, advance=advance)
    if not known:  # before anything is moved, while all names are in one place; with `made` there it does not count yet
        names = sorted(entry.name for entry in made.iterdir()) if made.is_dir() else there
        os.sync()  # a mark must not outlive a power cut that the files do not
        _write_marks(marks, every | {path.name: (state, names)})
    if made.is_dir():
        _move(made, raw, path)


def _room(path: Path, folder: Path, limit_bytes: int | None) -> packed.Room:
    bomb = f"over {RATIO} times its own size, as a bomb does: {packed.CURE}"
    limits = [(RATIO * path.stat().st_size + SLACK, bomb)]
    if limit_bytes is None:
        free = f"all that is free on the disk of {folder.parent} but for {RESERVE / GIGABYTE:.1f} GB: make room"
        limits.append((shutil.disk_usage(folder).free - RESERVE, free))
    else:
        limits.append((limit_bytes, "the limit that was given: give a higher one"))
    return packed.Room(path, *min(limits))


def _write(member: packed.Member, folder: Path, path: Path, advance: Callable[[int], Any]) -> None:
    place = folder.joinpath(*member.parts)
    try:
        (place if member.is_folder else place.parent).mkdir(parents=True, exist_ok=True)
        file = None if member.is_folder else place.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise packed.refusal(path, member.name, "is there twice, or as a file and a folder") from error
    if file is None:
        return
    with file, closing(member.open()) as source:
        written = 0
        while piece := source.read(packed.PIECE):
            file.write(piece)
            written += len(piece)
            advance(len(piece))
    if written != member.size:
        raise EOFError(f"{member.name!r} has {written} bytes, expected {member.size}")


def _put(made: Path, target: Path, older: Path) -> None:
    """Rename `made` to the target; what is there goes once that has worked, and stays where it has not."""
    if target.exists():
        target.replace(older)
    try:
        made.replace(target)
    except BaseException:
        if older.exists():
            older.replace(target)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _there(path: Path, raw: Path) -> list[str] | None:
    """The names in `raw` of what the archive holds, if every file of it is there with its size; None if not."""
    names = set()
    with _explained(path), closing(packed.members(path, _room(path, raw, sys.maxsize))) as found:
        for member in found:
            place = raw.joinpath(*member.parts)
            if not (place.is_dir() if member.is_folder else place.is_file() and place.stat().st_size == member.size):
                return None
            names |= set(member.parts[:1])
    return sorted(names)


def _move(made: Path, raw: Path, path: Path) -> None:
    """Move what is in `made` into `raw`, folder by folder, and remove `made`."""
    for entry in sorted(made.iterdir()):
        place = raw / entry.name
        if not os.path.lexists(place):
            entry.rename(place)
        elif entry.is_dir() and place.is_dir() and not place.is_symlink() and entry.name != WORK:
            _move(entry, place, path)
        elif entry.is_file() and place.is_file() and filecmp.cmp(entry, place, shallow=False):
            entry.unlink()
        else:
            raise DataError(f"{place} is there already and is not what {path.name} holds: move one of the two away")
    made.rmdir()


def _read_marks(marks: Path) -> Marks:
    try:
        found = json.loads(marks.read_text(encoding="utf-8"))
        return {archive: (list(state), list(map(str, names))) for archive, (state, names) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # then it is looked at again what is unpacked


def _write_marks(marks: Path, found: Marks) -> None:
    with replacing(marks) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """DataError for a full disk and for whatever a damaged archive makes the standard library raise."""
    try:
        yield
    except DAMAGES as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"the disk is full: make room for what {path} holds") from error
        if isinstance(error, OSError) and error.filename is not None:  # of a file that is written, not of the archive
            raise DataError(f"{path} cannot be unpacked ({error}): see to the folder that is named") from error
        what = f"{path} is damaged ({error or type(error).__name__})"
        raise DataError(f"{what}: download it again, or move it away if its files are here already") from error
