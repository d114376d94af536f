"""Calls on Dask workers, of this machine or of many: one call at a time in each, and one worker a core or GPU.

Notebooks and the training runs inside them share the workers. A notebook that waits for its runs tells its worker so,
through a channel, and the worker does something else meanwhile: never do more processes compute than there are workers.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsbook.locks import alone
from rsbook.parameters import read_yaml

if TYPE_CHECKING:
    from distributed import Client, Future

LATER = "later"  # what a call returns while another process is at the same thing: it is called again
PAUSE = 1.0  # seconds between such calls
DEATHS = 3  # a call that was begun so often, and never ended as its worker died, is given up
BEGUN = "rsbook-begun-"  # with its key: the topic under which the scheduler keeps that a call was begun and has ended
REMEMBERED = 24 * 3600  # seconds: what has killed a worker longer ago than that may try again
ANSWER, ARRIVAL = 30.0, 60.0  # seconds for a scheduler to answer, and for its first worker to come
ADDRESS, CHANNEL = "RSBOOK_SCHEDULER", "RSBOOK_CHANNEL"  # what a notebook of a batch finds in its environment

KINDS = {  # what a cluster file can ask for
    "slurm": "dask_jobqueue.SLURMCluster",
    "pbs": "dask_jobqueue.PBSCluster",
    "lsf": "dask_jobqueue.LSFCluster",
    "sge": "dask_jobqueue.SGECluster",
    "oar": "dask_jobqueue.OARCluster",
    "htcondor": "dask_jobqueue.HTCondorCluster",
    "kubernetes": "dask_kubernetes.operator.KubeCluster",
}


class ClusterError(RuntimeError):
    """There are no workers, or not such as we need; the message says why and what to do."""


@dataclass(frozen=True)
class Failure:
    """What went wrong with a call: in one line, and the traceback; died: the worker did, the call did not fail."""

    reason: str
    traceback: str
    died: bool = False


DIED = Failure("a worker process died (killed; out of memory?)", "See what it wrote to stderr.", died=True)
GIVEN_UP = replace(DIED, reason=f"a worker process died, {DEATHS} times of {DEATHS} (killed; out of memory?)")


# Workers


@contextmanager
def connect(
    scheduler: str | None = None, workers: int | None = None, device: str = "cpu", most: int | None = None
) -> Iterator[Client | None]:
    """A client of workers, for the length of the block; None where calls are to be made in this process.

    scheduler: the address of a Dask scheduler, the JSON file in which one has left its address, or a cluster file in
    YAML; None: the batch that this notebook belongs to, if any, else workers of this machine that end with the block,
    and with this process. workers: how many of these, 0 for this process, None for the environment's RSBOOK_WORKERS,
    else one a core; one a GPU where device is "cuda", unless `workers` is more than there are: then several share one;
    never more than `most`. Raises ClusterError when no worker answers or one has more than one thread, or all GPUs are
    others', and ValueError for a setting that cannot be.
    """
    scheduler = scheduler or os.environ.get(ADDRESS)
    if scheduler is None and (count := _count(workers, device, most)) == 0:
        yield None
        return
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.ERROR)
    with ExitStack() as mine:
        if scheduler is None:
            cluster = _local(_free_gpus(count, mine) if device == "cuda" else [None] * count)
        else:
            cluster = _cluster(scheduler)
        if not isinstance(cluster, str):
            mine.callback(cluster.close)
        client = mine.enter_context(_client(Client, cluster))
        if scheduler is not None and CHANNEL not in os.environ:
            _check(client, scheduler)
        yield client


def width(client: Client | None) -> int:
    """How many calls go on at once."""
    return 1 if client is None else max(1, len(client.nthreads()))


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether there is a GPU that PyTorch can use; imports PyTorch only where there is a driver of one."""
    if not any(map(os.path.exists, ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg"))):
        return False
    import torch

    return torch.cuda.is_available()


def _count(workers: int | None, device: str, most: int | None = None) -> int:
    asked, is_given = os.environ.get("RSBOOK_WORKERS"), workers is not None
    if workers is None and asked is not None:
        if not asked.isdecimal():
            raise ValueError(f"RSBOOK_WORKERS={asked!r}: expected a number of processes, 0 for this one")
        workers = int(asked)
    if workers is not None and (not isinstance(workers, int) or workers < 0):
        raise ValueError(f"workers={workers!r}: expected a number of processes, 0 for this one, or None")
    if workers == 0:
        return 0
    there = len(_gpus()) if device == "cuda" else cores()
    if workers is None:
        workers = there
    elif device == "cuda" and not (is_given and there):  # only who gives a number for this batch has runs share a GPU
        workers = min(workers, there)
    return workers if most is None else min(workers, most)


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return visible.split(",")
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def _free_gpus(count: int, mine: ExitStack) -> list[str]:
    """As many GPUs that no other batch has, ours until the stack is closed; each several times if there are fewer."""
    free: list[str] = []
    for gpu in _gpus():
        if len(free) < count and mine.enter_context(alone(Path(tempfile.gettempdir(), f"rsbook-gpu-{gpu}"))):
            free.append(gpu)
    if not free:
        raise ClusterError("every GPU is another batch's: wait for its end, or use device=cpu")
    return list(islice(cycle(free), count)) if count > len(_gpus()) else free


def _local(gpus: Sequence[str | None]) -> Any:
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    quiet = {"silence_logs": logging.CRITICAL + 1}  # a client that leaves while others wait for the same is no news
    # a thread each: sums depend on how work is split; the memory is PyTorch's, and Dask would count it wrongly
    only_here = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    options = {"nthreads": 1, "memory_limit": 0, **only_here, **quiet}
    workers = {
        i: {"cls": Nanny, "options": {**options, "env": {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}}}
        for i, gpu in enumerate(gpus)
    }
    # Dask would count the death of a worker for all calls that wait there: we count for those that were begun
    scheduler = {**only_here, "allowed_failures": 0}
    # it would also give up for good a worker that takes 15 seconds to begin anew, and leave us without any
    # and have glibc give back what is freed at once: with PyTorch's tensors half of the time went to page faults
    environment = dask.config.get("distributed.nanny.pre-spawn-environ")
    kept = {name: value for name, value in environment.items() if name != "MALLOC_TRIM_THRESHOLD_"}
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day", "distributed.nanny.pre-spawn-environ": kept})
    try:
        return SpecCluster(workers, {"cls": Scheduler, "options": scheduler}, **quiet)
    except RuntimeError as error:
        reason = "a worker process ended as it began (killed; out of memory?)"
        raise ClusterError(f"{reason}: run the same again, or with fewer --workers") from error


def _cluster(scheduler: str) -> Any:
    """An address, given or in a scheduler's JSON file, or the cluster that a YAML file describes."""
    if "://" in scheduler:
        return scheduler
    path = Path(scheduler)
    if not path.is_file():
        raise ClusterError(f"scheduler {scheduler!r} is neither an address such as tcp://host:8786 nor a file here")
    if path.suffix == ".json":
        try:
            return json.loads(path.read_text("utf-8"))["address"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ClusterError(f"{path} is not what a Dask scheduler leaves with --scheduler-file ({error})") from error
    kind, workers, options = _described(path)
    module, name = KINDS[kind].rsplit(".", 1)
    try:
        cluster = getattr(importlib.import_module(module), name)(**options)
    except ImportError as error:
        raise ClusterError(f"{path}: kind {kind!r} needs {module}: install rsbook[cluster] ({error})") from None
    except Exception as error:  # of another library, of which we know nothing; it says what it lacks
        raise ClusterError(f"{path}: {KINDS[kind]} cannot be made: {type(error).__name__}: {error}") from error
    cluster.adapt(**workers) if isinstance(workers, dict) else cluster.scale(workers)
    return cluster


def _described(path: Path) -> tuple[str, int | dict[str, int], dict[str, Any]]:
    try:
        given = read_yaml(path.read_text("utf-8"))
        kind, workers, options = given["kind"], given["workers"], given.get("options", {})
    except (OSError, ValueError, ArithmeticError, RecursionError, TypeError, KeyError) as error:
        raise ClusterError(f"{path}: expected a YAML file with kind, workers and options ({error})") from None
    bounds = workers.values() if isinstance(workers, dict) else [workers]
    if isinstance(workers, dict) and workers.keys() != {"minimum", "maximum"}:
        raise ClusterError(f"{path}: workers={workers!r}: expected a number, or minimum and maximum")
    if not isinstance(options, dict):
        raise ClusterError(f"{path}: options={options!r}: expected what {KINDS.get(str(kind), 'the cluster')} takes")
    if (
        not isinstance(kind, str)
        or kind not in KINDS
        or not all(type(bound) is int and bound >= 0 for bound in bounds)
        or not max(bounds)
    ):
        raise ClusterError(f"{path}: expected kind to be one of {', '.join(KINDS)}, and workers a number above 0")
    if unknown := given.keys() - {"kind", "workers", "options"}:
        raise ClusterError(f"{path}: unknown {', '.join(sorted(map(str, unknown)))}; it takes kind, workers, options")
    return kind, workers, options


def _client(make: type[Client], cluster: Any) -> Client:
    try:
        return make(cluster, set_as_default=False, timeout=ANSWER)
    except (OSError, ValueError) as error:
        raise ClusterError(f"no Dask scheduler answers at {cluster}: {error}") from error


def _check(client: Client, scheduler: str) -> None:
    from distributed import TimeoutError as NoneCame
    from distributed import wait

    # by a call: a cluster that adapts has no workers before there is something to do
    call = client.submit(importlib.import_module, __name__, pure=False)
    try:
        with client.as_current():  # jobs of a cluster file may wait in their queue for long
            wait(call, timeout=None if scheduler.endswith((".yml", ".yaml")) else ARRIVAL)
        if call.status == "error":
            raise call.exception()
    except NoneCame as error:
        raise ClusterError(f"no worker has come to {client.scheduler.address} in {ARRIVAL:g} seconds") from error
    except ImportError as error:
        raise ClusterError(f"the workers do not have rsbook as it is here ({error}): install it there") from error
    if wide := [address for address, threads in client.nthreads().items() if threads != 1]:
        raise ClusterError(
            f"{len(wide)} workers have more than one thread: start them with --nthreads 1 (in a cluster file: cores "
            "equal to processes), one worker a core or GPU"
        )


# Calls


def outcomes(
    client: Client | None, function: Callable[..., Any], calls: Mapping[str, tuple]
) -> Iterator[tuple[str, Any | Failure]]:
    """Call function(*call) for each of `calls` on the workers and yield its key and what it returned, or its Failure,
    as they end.

    A key names what is computed: two that ask for the same at the same time get it from one call. A call that returns
    LATER is called again, and so is one whose worker died, unless that has happened DEATHS times. Calls that have not
    begun end with the iterator.
    """
    if client is None:
        yield from _here(function, calls)
        return
    given_up = {key for key in calls if _deaths(client, key) >= DEATHS}  # by another notebook of the batch
    yield from ((key, GIVEN_UP) for key in given_up)
    running = {submit(client, function, calls[key], key): key for key in calls if key not in given_up}
    later: list[str] = []
    again = 0.0
    try:
        while running or later:
            for future in ended(running, PAUSE if later else None):
                key, value = running.pop(future), outcome(future)
                died = isinstance(value, Failure) and value.died
                if value == LATER or (died and _deaths(client, key) < DEATHS):
                    later.append(key)
                else:
                    yield key, GIVEN_UP if died else value
            if later and not running:
                time.sleep(PAUSE)
            if later and (not running or time.monotonic() - again > PAUSE):
                again = time.monotonic()
                running |= {submit(client, function, calls[key], key, again): key for key in later}
                later = []
    finally:
        client.cancel(list(running))


def submit(
    client: Client, function: Callable[..., Any], call: tuple, key: str, again: float | None = None, priority: int = 0
) -> Future:
    """Submit one call; of higher priorities first. again: sets it apart from one that has ended under the same key."""
    name = key if again is None else f"{key}-{again}"
    # as bytes: a worker that cannot import what they name would leave Dask waiting for ever
    return client.submit(_noted, key, pickle.dumps((function, call)), key=name, priority=priority, pure=False)


def _noted(key: str, pickled: bytes) -> Any:
    from distributed import get_worker

    function, call = pickle.loads(pickled)
    worker = get_worker()
    worker.log_event(BEGUN + key, 1)
    try:
        return function(*call)
    finally:  # where no worker comes that dies
        worker.log_event(BEGUN + key, -1)


def _deaths(client: Client, key: str) -> int:
    """How often a call was begun and has not ended: one that only finds another process at its run has."""
    since = time.time() - REMEMBERED
    return sum(change for when, change in client.get_events(BEGUN + key) if when > since)


def ended(running: Mapping[Future, Any], seconds: float | None) -> list[Future]:
    """Those that have ended; waits for one, but no longer than that. Raises ClusterError when the scheduler is gone."""
    from distributed import TimeoutError as NoneEnded
    from distributed import wait

    futures = list(running)
    if not futures:
        return []
    try:
        with futures[0].client.as_current(), suppress(NoneEnded):
            return list(wait(futures, timeout=seconds, return_when="FIRST_COMPLETED").done)
    except CancelledError as error:
        raise ClusterError("the scheduler is gone; what has ended is kept, and the next run goes on") from error
    return []


def outcome(future: Future) -> Any | Failure:
    """What an ended call returned, or its Failure."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return DIED
    except Exception as error:
        return _failure(error)
    finally:
        future.release()  # or an error would be what the next call of this name gets


def _here(function: Callable[..., Any], calls: Mapping[str, tuple]) -> Iterator[tuple[str, Any | Failure]]:
    pending = dict(calls)
    while pending:
        for key, call in list(pending.items()):
            try:
                value = function(*call)
            except Exception as error:
                value = _failure(error)
            if value != LATER:
                del pending[key]
                yield key, value
        if pending:
            time.sleep(PAUSE)


def _failure(error: Exception) -> Failure:
    return Failure(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


# What a notebook of a batch tells its worker


@contextmanager
def waiting() -> Iterator[None]:
    """A block in which this process only waits: if it is a notebook of a batch, its worker does something else."""
    tell("wait")
    try:
        yield
    finally:
        if tell("ready"):
            os.read(int(os.environ[CHANNEL]), 1)  # comes when the worker has nothing else to do


def tell(line: str) -> bool:
    """Tell the worker of this notebook a line; False where there is none."""
    channel = os.environ.get(CHANNEL)
    if channel is None:
        return False
    os.write(int(channel), f"{line}\n".encode())
    return True
