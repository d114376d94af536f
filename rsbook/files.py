"""Files that are there whole or not at all, in a folder or in object storage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def location(address: str | Path) -> Path:
    """A path from a folder or an address that fsspec knows, such as s3://bucket/folder; one that is a path stays.

    Raises ValueError when no installed library knows the address.
    """
    if not isinstance(address, str) or "://" not in address:
        return Path(address) if isinstance(address, str) else address
    from upath import UPath

    try:
        # a listing that is remembered does not show what others have written since
        return UPath(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{address!r} cannot be reached ({error}); for s3:// install rsbook[cluster]") from error


def is_local(path: Path) -> bool:
    """Whether a path of `location` is in a file system of this machine, and not in object storage."""
    return isinstance(path, os.PathLike)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; at the end of the block it is flushed to the disk and renamed.

    When the block raises, the temporary file goes and the older file at `path`, if any, stays. In object storage the
    temporary file is on this machine, and is sent whole. Raises OSError when the folder cannot be made or the file
    cannot be written.
    """
    if not is_local(path):
        with tempfile.TemporaryDirectory() as folder:
            yield (temporary := Path(folder, path.name))
            path.fs.put_file(str(temporary), path.path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):  # it would hide the error that brought us here
            temporary.unlink()


@contextmanager
def fetched(path: Path) -> Iterator[Path]:
    """The file at `path` as one on this machine: itself in a folder, a copy from object storage."""
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        path.fs.get_file(path.path, copy := str(Path(folder, path.name)))
        yield Path(copy)
