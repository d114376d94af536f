"""Files that are there whole or not at all, in a folder or in object storage."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# s3fs tries five times what botocore has tried so often: by their own settings a silent server is given up in 7 minutes
PATIENCE = {"read_timeout": 5, "retries": {"total_max_attempts": 3}}
CODES = {FileNotFoundError: errno.ENOENT, FileExistsError: errno.EEXIST, PermissionError: errno.EACCES}


def location(address: str | Path) -> Path:
    """A path from a folder or an address that fsspec knows, such as s3://bucket/folder; one that is a path stays.

    Raises ValueError when no installed library knows the address.
    """
    if not isinstance(address, str) or "://" not in address:
        return Path(address) if isinstance(address, str) else address
    from fsspec.config import conf
    from upath import UPath

    # a listing that is remembered does not show what others have written since
    options: dict[str, Any] = {"use_listings_cache": False}
    if address.startswith("s3://"):
        options["config_kwargs"] = PATIENCE | conf.get("s3", {}).get("config_kwargs", {})
    try:
        path = UPath(address, **options)
        path.fs  # noqa: B018  # what imports the library
    except (ImportError, ValueError) as error:
        raise ValueError(f"{address!r} cannot be reached ({error}); for s3:// install rsbook[cluster]") from error
    return path


def reached(address: str | Path) -> Path:
    """`location` of a store, after a look at whether it can be reached if it is in object storage.

    Raises ValueError as `location` does, and OSError where nothing answers, the bucket is missing, or the credentials
    are no good.
    """
    path = location(address)
    if is_local(path):
        return path
    try:
        with reaching(path):
            try:
                path.fs.ls(path.path)
            except FileNotFoundError:  # of the bucket, or of the folder in it, which need not be there yet
                with suppress(PermissionError):
                    path.fs.ls(path.drive)
    except OSError as error:
        cure = "are address, bucket, credentials and, for a server other than Amazon's, AWS_ENDPOINT_URL right?"
        raise OSError(error.errno, f"{error.strerror} ({cure})", str(path)) from error
    return path


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """A block that does no more than ask object storage for `path`: whatever its library raises is an OSError that
    names the path. In a folder, errors are so already.
    """
    try:
        yield
    except Exception as error:
        if is_local(path):
            raise
        code = getattr(error, "errno", None) or CODES.get(type(error), errno.EIO)
        raise OSError(code, getattr(error, "strerror", None) or str(error), str(path)) from error


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
            with reaching(path):
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
        with reaching(path):
            path.fs.get_file(path.path, copy := str(Path(folder, path.name)))
        yield Path(copy)
