"""Calls in worker processes, one at a time in each; a worker that dies fails its own call, and the others go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

Failure = tuple[str, str]  # what went wrong in one line, and the traceback


def outcomes(
    function: Callable[..., Any], calls: Sequence[tuple], workers: int, on_gpus: bool = False
) -> Iterator[tuple[int, Failure | None]]:
    """Call function(*call) for each of `calls` and yield its index and its failure, None for success, as they end.

    workers: how many processes, 0 for this one. on_gpus: each process sees one GPU only. What a call returns is lost.
    The processes end with the iterator (close it, or read it to its end), and with this process, even a killed one.
    """
    if workers == 0:
        return ((i, _attempt(function, call)) for i, call in enumerate(calls))
    return _in_processes(function, calls, min(workers, len(calls)), _gpus() if on_gpus else [None])


def _in_processes(
    function: Callable[..., Any], calls: Sequence[tuple], workers: int, gpus: Sequence[str | None]
) -> Iterator[tuple[int, Failure | None]]:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    processes: list[Any] = []
    pending, busy = deque(range(len(calls))), {}

    def start(slot: int) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, gpus[slot % len(gpus)]))
        process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        processes.append(process)
        assign(ours, slot, process)

    def assign(connection: Connection, slot: int, process: Any) -> None:
        busy[connection] = (slot, process, i := pending.popleft())
        with suppress(BrokenPipeError):  # dead already: the end of its pipe says so below
            connection.send((function, calls[i]))

    try:
        for slot in range(workers):
            start(slot)
        while busy:
            for connection in wait(list(busy)):
                slot, process, i = busy.pop(connection)
                try:
                    failure, alive = connection.recv(), True
                except (EOFError, ConnectionResetError):
                    failure, alive = _death(process), False
                if pending and alive:
                    assign(connection, slot, process)
                elif pending:
                    start(slot)
                yield i, failure
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _work(connection: Connection, gpu: str | None) -> None:
    """What a worker process does: one call after the other, until its parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers an interrupt, and ends its workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    while True:
        try:
            function, call = connection.recv()
        except EOFError:
            return
        except Exception as error:  # it cannot import what its parent could
            connection.send(_failure(error))
        else:
            connection.send(_attempt(function, call))


def _exit_with_parent() -> None:
    # A killed parent cannot stop its workers: they must notice, or they train on as orphans.
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _attempt(function: Callable[..., Any], call: tuple) -> Failure | None:
    try:
        function(*call)
    except Exception as error:
        return _failure(error)
    return None


def _failure(error: Exception) -> Failure:
    return f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))


def _death(process: Any) -> Failure:
    process.join()
    code = process.exitcode
    how = f"killed by {signal.Signals(-code).name}; out of memory?" if code < 0 else f"exit status {code}"
    return f"a worker process died ({how})", "It left no traceback; see what it wrote to stderr."


def _gpus() -> list[str]:
    import torch  # here, so that a worker has its GPU set before PyTorch is imported

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
