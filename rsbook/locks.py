"""Who is at a run or a page: one process at a time, on this machine or another, and nobody once it is dead."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rsbook.files import is_local, reaching

RENEWED = 10.0  # seconds between two renewals of a lease
EXPIRES = 60.0  # seconds without one after which its process is taken for dead
SETTLES = 2.0  # seconds in which two that take over the same lease find out who has it

_seen: dict[str, tuple[bytes, float]] = {}  # leases of others: what they said, and since when they have said it


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether this process is the only one at what `path` is to hold, for the length of the block.

    In a folder it is a lock of the operating system on a hidden file beside `path`: it ends with its process, however
    that ends, and on a shared folder it holds for all machines whose file system has locks. Object storage has no
    locks: there it is a lease, an object that its holder renews; a holder that is silent for EXPIRES is taken for
    dead. One that was only very slow works on beside its successor: both then write the same. Raises OSError when the
    lock cannot be written.
    """
    with _locked(path) if is_local(path) else _leased(path) as held:
        yield held


def is_taken(path: Path) -> bool:
    """Whether some process, this one included, is at what `path` is to hold."""
    if not is_local(path):
        return _read(_beside(path, "lease")) is not None
    hidden = _beside(path, "lock")
    if not hidden.exists():
        return False
    lock = FileLock(hidden, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):  # one that we may not open is somebody else's
        return True
    lock.release()
    return False


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{suffix}")


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = _beside(path, "lock")
    lock = FileLock(hidden, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):  # a lock file without a holder does no harm
            hidden.unlink()  # while it is held: who waits for it finds that it is gone, and begins anew
        lock.release()


@contextmanager
def _leased(path: Path) -> Iterator[bool]:
    lease, token = _beside(path, "lease"), uuid.uuid4().hex
    if not _take(lease, token):
        yield False
        return
    ended = threading.Event()
    keeper = threading.Thread(target=_renew, args=(lease, token, ended), daemon=True)
    keeper.start()
    try:
        yield True
    finally:
        ended.set()
        keeper.join()
        with suppress(OSError):  # it expires
            if _holder(lease) == token:
                with reaching(lease):
                    lease.fs.rm_file(lease.path)


def _take(lease: Path, token: str) -> bool:
    content = f"{token} 0".encode()
    said = _created(lease, content)
    if said == content:
        return True
    key, now = str(lease), time.monotonic()
    if said != _seen.get(key, (None, 0))[0]:
        _seen[key] = (said, now)
    if said is None or now - _seen[key][1] < EXPIRES:
        return False
    _write(lease, content)
    time.sleep(SETTLES)
    return _holder(lease) == token


def _created(lease: Path, content: bytes, attempts: int = 3) -> bytes | None:
    """What the lease says once we have tried to be the first to write it; the storage itself refuses the second."""
    try:
        _write(lease, content, mode="create")
    except OSError as refused:  # whatever the storage calls it, and it may be that the answer to our own was lost
        said = _read(lease)
        if said is not None or isinstance(refused, FileExistsError):
            return said
        if attempts == 1:
            raise
        return _created(lease, content, attempts - 1)
    return content


def _renew(lease: Path, token: str, ended: threading.Event) -> None:
    beat = 0
    while not ended.wait(RENEWED):
        beat += 1
        with suppress(OSError):  # the storage is out of reach for once: a later beat may come in time
            if _holder(lease) not in (token, None):
                return  # we were taken for dead
            _write(lease, f"{token} {beat}".encode())


def _read(lease: Path) -> bytes | None:
    try:
        with reaching(lease):
            return lease.fs.cat_file(lease.path)
    except FileNotFoundError:
        return None


def _write(lease: Path, content: bytes, mode: str = "overwrite") -> None:
    with reaching(lease):
        lease.fs.pipe_file(lease.path, content, mode=mode)


def _holder(lease: Path) -> str | None:
    said = _read(lease)
    return None if said is None else said.decode(errors="replace").split(" ")[0]
