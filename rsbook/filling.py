"""Worker processes that read groups of scenes, or of series, and write them to their places in the prepared arrays."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path

import numpy as np

from rsbook.scenes import DataError

AHEAD = 4  # groups for each worker that wait for it, so that it never waits for the journal
BLOCK = 2**15  # values summed at once: they stay in the processor's cache

Finished = tuple[int, list[int], list[int]]  # a group, sums and sums of squares of each band over its training scenes


@dataclass(frozen=True)
class Place:
    """Where the scenes of one array lie: in which file, after how many bytes, of what type and shape each, how many."""

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    count: int

    def write(self, members: list[int], array: np.ndarray) -> None:
        """Write array[i] to the place of scene members[i], neighbours in one go; not through a map of the file, where
        a full disk would kill the process.
        """
        size, start = self.dtype.itemsize * int(np.prod(self.shape)), 0
        content = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        handle = os.open(self.path, os.O_RDWR)
        try:
            for stop in range(1, len(members) + 1):
                if stop == len(members) or members[stop] != members[stop - 1] + 1:
                    piece, at = content[start * size : stop * size], self.offset + members[start] * size
                    while piece:  # the system may write less than it is given
                        written = os.pwrite(handle, piece, at)
                        piece, at = piece[written:], at + written
                    start = stop
        finally:
            os.close(handle)

    def flush(self) -> None:
        """Wait until everything that any process has written to the file is on the disk."""
        handle = os.open(self.path, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def places(folder: Path, arrays: dict[str, tuple[np.dtype, tuple[int, ...]]]) -> dict[str, Place]:
    """The place of each allocated array in `folder`, by its name, as images."""
    found = {}
    for name, (dtype, shape) in arrays.items():
        offset = np.load(folder / name, mmap_mode="r", allow_pickle=False).offset
        found[name.removesuffix(".npy")] = Place(folder / name, offset, dtype, shape[1:], shape[0])
    return found


@dataclass(frozen=True)
class Filler:
    """Reads groups of scenes and writes them to their places. training (N,) bool: whom the statistics are of.

    names: of what `read` gives, in its order. An array that has no row for a group gets nothing of it.
    """

    read: Callable[[list[int]], tuple[np.ndarray | None, ...]]
    places: dict[str, Place]
    training: np.ndarray
    names: tuple[str, ...]

    def __call__(self, group: int, members: list[int]) -> Finished:
        """Read and write one group. Raises ValueError when the reader does not give what its Source promises."""
        given = dict(zip(self.names, self.read(members), strict=True))
        wanted = {name: place for name, place in self.places.items() if max(members) < place.count}
        for name, place in wanted.items():
            if name == "positions" and given[name] is not None:
                given[name] = _stored(given[name], place.dtype, group)
            array, expected = given[name], (place.dtype, (len(members), *place.shape))
            found = None if array is None else (array.dtype, array.shape)
            if found != expected:
                raise ValueError(f"group {group}: the reader gave {name} of {found}, expected {expected}")
        for name, place in wanted.items():
            place.write(members, given[name])
        return (group, *(moments(given["images"][self.training[members]]) if "images" in given else ([], [])))


def _stored(bits: np.ndarray, dtype: np.dtype, group: int) -> np.ndarray:
    """Bit masks int32 in the type they are stored in; others as they are. Raises ValueError when a bit has no place."""
    if bits.dtype != np.int32 or dtype == np.int32:
        return bits
    if bits.size and not 0 <= bits.min() <= bits.max() <= np.iinfo(dtype).max:
        raise ValueError(f"group {group}: the reader gave positions with a bit above class {8 * dtype.itemsize - 1}")
    return bits.astype(dtype)


def moments(images: np.ndarray) -> tuple[list[int], list[int]]:
    """Sums and sums of squares of each band of images (n,C,H,W) uint8 or uint16: exact, as Python integers."""
    # Nothing overflows: 2^15 squares of uint8 are below 2^31, those of uint16 below 2^47.
    dtype = np.uint32 if images.dtype == np.uint8 else np.uint64
    sums, squares = [0] * images.shape[1], [0] * images.shape[1]
    for band in range(images.shape[1]):
        values = np.ascontiguousarray(images[:, band]).reshape(-1)
        for start in range(0, values.size, BLOCK):
            block = values[start : start + BLOCK].astype(dtype)
            sums[band] += int(block.sum(dtype=dtype))
            block *= block
            squares[band] += int(block.sum(dtype=dtype))
    return sums, squares


def finished(filler: Filler, groups: Sequence[tuple[int, list[int]]], workers: int) -> Iterator[list[Finished]]:
    """Call filler(number, members) for every group, in `workers` processes (0: in this one); yield what has ended.

    After a failure no group is begun, those at work are yielded, and then it is raised: as the reader raised it, or as
    DataError for a full disk or a worker that died. The processes end with the iterator and with this process.
    """
    if not workers:
        try:
            yield from ([filler(*group)] for group in groups)
        except OSError as error:
            raise _explained(error) from error
        return
    # Spawned, as everywhere in rsbook: a fork would copy locks that other threads hold.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=(filler,))
    waiting, running, failure = deque(groups), set[Future](), None
    try:
        while running or (waiting and failure is None):
            while waiting and failure is None and len(running) < AHEAD * workers:
                running.add(pool.submit(_call, *waiting.popleft()))
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            if good := [future.result() for future in ended if future.exception() is None]:
                yield good
            failure = failure or next((e for future in ended if (e := future.exception()) is not None), None)
            if failure is not None:
                running = {future for future in running if not future.cancel()}
    except BrokenProcessPool as error:  # it has died between two calls
        failure = error
    finally:
        pool.shutdown(cancel_futures=True)
    if failure is not None:
        raise _explained(failure)


def _explained(error: BaseException) -> BaseException:
    """DataError with the cure for what the machine lacks; any other error as it is."""
    if isinstance(error, BrokenProcessPool):
        return DataError("a worker process died; out of memory? What it had finished is kept, the next run goes on")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError("the disk is full: make room; the next run goes on with what is missing")
    return error


_filler: Filler | None = None  # of this worker process: it comes once, and not with every group


def _begin(filler: Filler) -> None:
    global _filler
    _filler = filler
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers an interrupt, and ends its workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    wait_for_end([multiprocessing.parent_process().sentinel])  # a killed parent cannot stop its workers
    os._exit(1)


def _call(group: int, members: list[int]) -> Finished:
    return _filler(group, members)
