"""Calls on workers: failures and deaths stay with their own call, a GPU has one worker, and no worker outlives us."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

from rsbook import cluster
from rsbook.cluster import ClusterError, Failure


def note(folder, name, then=None):
    """Leave a line with process and GPU, then do what is asked."""
    with (Path(folder) / f"{name}.started").open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    lines = (Path(folder) / f"{name}.started").read_text().splitlines()
    if then == "raise":
        raise LookupError(f"no {name}")
    if then == "exit" or (then == "exit once" and len(lines) == 1):
        time.sleep(0.1)  # for the note that it was begun to leave
        os._exit(3)
    if then == "later" and len(lines) < 3:
        return cluster.LATER
    if then == "wait":
        time.sleep(600)
    if then == "meet":  # until the other has started as well
        while len(list(Path(folder).glob("*.started"))) < 2:
            time.sleep(0.01)
    return name


def started(folder, expected=0):
    """Processes and GPUs that the calls have noted, by name; waits for as many calls as expected."""
    until = time.monotonic() + 120
    while True:
        found = {path.stem: path.read_text().splitlines() for path in sorted(Path(folder).glob("*.started"))}
        if sum(map(bool, found.values())) >= expected:
            return {name: [(int(pid), gpu) for pid, gpu in map(str.split, lines)] for name, lines in found.items()}
        assert time.monotonic() < until, f"only {found} of {expected} have started"
        time.sleep(0.02)


def pids(folder, expected=0):
    return {pid for lines in started(folder, expected).values() for pid, _ in lines}


def wait_for_end(found):
    until = time.monotonic() + 60
    while alive := [p for p in found if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < until, f"{alive} still run"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in (cluster.ADDRESS, cluster.CHANNEL, "RSBOOK_WORKERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def two():
    """A client of two workers, and the address of their scheduler."""
    with cluster.connect(workers=2) as client:
        yield client


# In this process


def test_in_this_process_calls_go_in_order_and_failures_stay_their_own(tmp_path):
    calls = {name: (tmp_path, name, then) for name, then in (("a", None), ("b", "raise"), ("c", None))}
    outcomes = cluster.outcomes(None, note, calls)
    assert started(tmp_path) == {}
    assert next(outcomes) == ("a", "a")
    assert list(started(tmp_path)) == ["a"]
    (key, failure), last = outcomes
    assert (key, failure.reason, failure.died, last) == ("b", "LookupError: no b", False, ("c", "c"))
    assert 'in note\n    raise LookupError(f"no {name}")' in failure.traceback
    assert pids(tmp_path) == {os.getpid()}


def test_what_somebody_else_is_at_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PAUSE", 0.01)
    calls = {"a": (tmp_path, "a", "later"), "b": (tmp_path, "b")}
    assert list(cluster.outcomes(None, note, calls)) == [("b", "b"), ("a", "a")]
    assert len(started(tmp_path)["a"]) == 3


def test_no_workers_is_this_process():
    with cluster.connect(workers=0) as client:
        assert client is None
        assert cluster.width(client) == 1


# On workers


def test_failures_stay_with_their_own_call(two, tmp_path):
    calls = {name: (tmp_path, name, then) for name, then in (("a", "raise"), ("b", None), ("c", "later"))}
    found = dict(cluster.outcomes(two, note, calls))
    assert (found["b"], found["c"]) == ("b", "c")
    assert found["a"].reason == "LookupError: no a"
    assert "raise LookupError" in found["a"].traceback
    assert len(started(tmp_path)["c"]) == 3
    assert os.getpid() not in pids(tmp_path)


def test_two_that_ask_for_the_same_at_once_get_it_from_one_call(two, tmp_path):
    found = []

    def ask():
        found.extend(cluster.outcomes(two, note, {"same": (tmp_path, "same", "meet")}))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    started(tmp_path, 1)
    time.sleep(0.5)
    note(tmp_path, "other")
    for thread in threads:
        thread.join()
    assert found == [("same", "same")] * 2
    assert len(started(tmp_path)["same"]) == 1


def test_a_function_that_workers_cannot_import_is_a_failure(two, monkeypatch):
    module = types.ModuleType("only_here")
    exec("def work(i): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    found = dict(cluster.outcomes(two, module.work, {"x": (0,), "y": (1,)}))
    assert all("only_here" in failure.reason for failure in found.values())


@pytest.mark.parametrize("workers", [1, 2])
def test_who_kills_workers_is_given_up_and_who_waited_there_is_not(tmp_path, workers):
    calls = {name: (tmp_path, name, "exit" if name == "b" else None) for name in "abcdef"}
    calls["g"] = (tmp_path, "g", "exit once")
    with cluster.connect(workers=workers) as client:
        found = dict(cluster.outcomes(client, note, calls))
        again = dict(cluster.outcomes(client, note, {"b": calls["b"]}))
    assert {key: value for key, value in found.items() if key != "b"} == {key: key for key in "acdefg"}
    assert (found["b"].died, found["b"].reason) == (
        True,
        "a worker process died, 3 times of 3 (killed; out of memory?)",
    )
    counts = {name: len(lines) for name, lines in started(tmp_path).items()}
    assert counts == dict.fromkeys("acdef", 1) | {"b": 3, "g": 2}, "and another notebook does not kill three more"
    assert again == {"b": found["b"]}
    wait_for_end(pids(tmp_path))


def test_each_worker_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    calls = {name: (tmp_path, name, "meet") for name in "ab"}
    with cluster.connect(device="cuda") as client:
        assert cluster.width(client) == 2
        assert dict(cluster.outcomes(client, note, calls)) == {"a": "a", "b": "b"}
    assert sorted(gpu for [(_, gpu)] in started(tmp_path).values()) == ["5", "7"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"


def test_workers_compute_with_one_thread(two):
    found = dict(cluster.outcomes(two, os.getenv, {"threads": ("OMP_NUM_THREADS",)}))
    assert found == {"threads": "1"}


def test_gpus_are_all_there_are_unless_told(monkeypatch):
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert cluster._gpus() == ["0", "1", "2"]
    assert [cluster._count(workers, "cuda") for workers in (None, 2, 9, 0)] == [3, 2, 9, 0]
    monkeypatch.setenv("RSBOOK_WORKERS", "9")
    assert [cluster._count(workers, "cuda") for workers in (None, 9)] == [3, 9]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [cluster._count(workers, "cuda") for workers in (None, 2)] == [0, 0]


def test_more_workers_than_gpus_share_them(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cluster, "_gpus", lambda: ["4", "6"])
    for count, expected in ((1, ["4"]), (2, ["4", "6"]), (5, ["4", "6", "4", "6", "4"])):
        with ExitStack() as mine:
            assert cluster._free_gpus(count, mine) == expected
    with ExitStack() as others, ExitStack() as mine:
        assert cluster._free_gpus(1, others) == ["4"]
        assert cluster._free_gpus(2, mine) == ["6"]  # nobody asked to share


def test_the_environment_says_how_many_workers_there_are(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    assert [cluster._count(workers, "cpu") for workers in (None, 0, 5)] == [3, 0, 5]
    monkeypatch.setenv("RSBOOK_WORKERS", "7")
    assert [cluster._count(workers, "cpu") for workers in (None, 2)] == [7, 2]
    for wrong in ("two", "-1", "1.5", ""):
        monkeypatch.setenv("RSBOOK_WORKERS", wrong)
        with pytest.raises(ValueError, match=f"RSBOOK_WORKERS='{wrong}': expected a number of processes"):
            cluster._count(None, "cpu")
    with pytest.raises(ValueError, match="workers=-1: expected a number of processes"):
        cluster._count(-1, "cpu")


def test_interrupt_ends_the_workers(tmp_path):
    def interrupt():
        started(tmp_path, 1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    calls = {"a": (tmp_path, "a", "wait")}
    with (
        pytest.raises(KeyboardInterrupt),
        cluster.connect(workers=1) as client,
        closing(cluster.outcomes(client, note, calls)) as outcomes,
    ):
        next(outcomes)
    wait_for_end(pids(tmp_path))


def test_killed_parent_leaves_no_orphans(tmp_path):
    paths = [str(Path(__file__).parent), str(Path(cluster.__file__).parents[1])]
    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys\nsys.path[:0] = {paths!r}\nfrom rsbook import cluster\nfrom test_cluster import note\n"
        f"if __name__ == '__main__':\n    calls = {{n: ({str(tmp_path)!r}, n, 'wait') for n in 'ab'}}\n"
        f"    with cluster.connect(workers=2) as client:\n        list(cluster.outcomes(client, note, calls))\n"
    )
    with subprocess.Popen([sys.executable, script]) as parent:
        try:
            found = pids(tmp_path, 2)
            assert all(map(psutil.pid_exists, found))
        finally:
            parent.kill()
    wait_for_end(found)


# A scheduler elsewhere


def test_an_address_or_its_file_or_the_environment_leads_to_a_scheduler(two, tmp_path, monkeypatch):
    address = two.scheduler.address
    with cluster.connect(address) as client:
        assert dict(cluster.outcomes(client, note, {"a": (tmp_path, "a")})) == {"a": "a"}
    two.write_scheduler_file(tmp_path / "scheduler.json")
    with cluster.connect(str(tmp_path / "scheduler.json")) as client:
        assert client.scheduler.address == address
    monkeypatch.setenv(cluster.ADDRESS, address)
    with cluster.connect() as client:
        assert client.scheduler.address == address
        assert cluster.width(client) == 2
    assert cluster.width(two) == 2, "who only visits ends nothing"


def test_what_is_no_scheduler_is_said(tmp_path, monkeypatch):
    with pytest.raises(ClusterError, match=r"'nowhere' is neither an address such as tcp://host:8786 nor a file"):
        cluster.connect("nowhere").__enter__()
    monkeypatch.setattr(cluster, "ANSWER", 0.5)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        cluster.connect("tcp://127.0.0.1:9").__enter__()
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(ClusterError, match=r"s\.json is not what a Dask scheduler leaves"):
        cluster.connect(str(tmp_path / "s.json")).__enter__()


def test_a_scheduler_without_workers_or_with_wide_ones_is_refused(monkeypatch):
    from distributed import LocalCluster

    quiet = {"processes": False, "dashboard_address": None}
    monkeypatch.setattr(cluster, "ARRIVAL", 0.5)
    for workers, message in (
        ({"n_workers": 0}, r"no worker has come to .* in 0\.5 seconds"),
        (
            {"n_workers": 1, "threads_per_worker": 2},
            "1 workers have more than one thread: start them with",
        ),
    ):
        with LocalCluster(**workers, **quiet) as made, pytest.raises(ClusterError, match=message):
            cluster.connect(made.scheduler_address).__enter__()


GOOD = {"kind": "slurm", "workers": 2, "options": {"cores": 1}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "expected a YAML file with kind, workers and options"),
        ("- 1", "expected a YAML file with kind"),
        ("kind: [", "expected a YAML file with kind"),
        ("!!python/object/apply:os.system [true]", "expected a YAML file with kind"),
        (GOOD | {"kind": "os.system"}, "expected kind to be one of slurm, pbs"),
        (GOOD | {"kind": ["slurm"]}, "expected kind to be one of slurm, pbs"),
        (GOOD | {"workers": 0}, "workers a number above 0"),
        (GOOD | {"workers": -1}, "workers a number above 0"),
        (GOOD | {"workers": "many"}, "workers a number above 0"),
        (GOOD | {"workers": True}, "workers a number above 0"),
        (GOOD | {"workers": {"maximum": 2}}, "expected a number, or minimum and maximum"),
        (GOOD | {"options": 3}, "options"),
        (GOOD | {"queue": "gpu"}, "unknown queue; it takes kind, workers, options"),
        (
            GOOD | {"options": {"no_such_option": 1}},
            r"dask_jobqueue\.SLURMCluster cannot be made: ValueError: Got unexpected",
        ),
        (GOOD | {"options": {}}, r"dask_jobqueue\.SLURMCluster cannot be made: ValueError"),
    ],
)
def test_a_cluster_file_that_is_none_is_said(tmp_path, given, message):
    path = tmp_path / "cluster.yml"
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    with pytest.raises(ClusterError, match=message) as raised:
        cluster.connect(str(path)).__enter__()
    assert str(raised.value).startswith(str(path))


def test_the_examples_ask_for_what_their_pages_say(monkeypatch):
    """No Slurm is here, and nothing is started: what would be handed to it is looked at."""
    import dask_jobqueue

    monkeypatch.setattr(dask_jobqueue.SLURMCluster, "adapt", lambda self, **bounds: setattr(self, "bounds", bounds))
    made = cluster._cluster(str(Path(__file__).parents[1] / "book" / "clusters" / "slurm.yml"))
    try:
        script = made.job_script()
        assert "--gres=gpu:1" in script
        assert "--nthreads 1" in script
        assert "#SBATCH -p gpu" in script
        assert "#SBATCH --cpus-per-task=4" in script
        assert made.bounds == {"minimum": 0, "maximum": 8}
    finally:
        made.close()
    kind, workers, options = cluster._described(Path(__file__).parents[1] / "book" / "clusters" / "kubernetes.yml")
    assert (kind, workers) == ("kubernetes", 4)
    assert {"name", "image", "resources", "env"} <= options.keys()


# What a notebook tells its worker


def test_outside_of_a_batch_nothing_is_told():
    assert not cluster.tell("runs 0 1")
    with cluster.waiting():
        pass


def test_a_notebook_waits_until_its_worker_is_free_again(monkeypatch):
    import socket

    ours, theirs = socket.socketpair()
    monkeypatch.setenv(cluster.CHANNEL, str(theirs.fileno()))
    with ours, theirs:
        heard = []

        def answer():
            with ours.makefile() as lines:
                for line in lines:
                    heard.append(line)
                    if line == "ready\n":
                        time.sleep(0.2)
                        ours.send(b"\n")
                        return

        thread = threading.Thread(target=answer)
        thread.start()
        with cluster.waiting():
            cluster.tell("runs 0 1")
        thread.join()
        assert heard == ["wait\n", "runs 0 1\n", "ready\n"]


def test_a_gpu_is_looked_for_without_pytorch_where_there_is_no_driver(monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not cluster.has_gpu()


def test_a_failure_says_what_and_where():
    assert Failure("a", "b").died is False


def test_a_cluster_that_adapts_is_asked_for_its_first_worker(monkeypatch, tmp_path):
    from distributed import LocalCluster

    made = LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None)
    made.adapt(minimum=0, maximum=2)
    monkeypatch.setattr(cluster, "_cluster", lambda scheduler: made)
    with cluster.connect("cluster.yml") as client:
        assert dict(cluster.outcomes(client, note, {"a": (tmp_path, "a")})) == {"a": "a"}
    assert made.status.name == "closed", "it was made for us"


def test_a_scheduler_of_the_environment_is_looked_at_but_not_by_the_notebooks_of_a_batch(monkeypatch):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as wide:
        monkeypatch.setenv(cluster.ADDRESS, wide.scheduler_address)
        with pytest.raises(ClusterError, match="more than one thread"):
            cluster.connect().__enter__()
        monkeypatch.setenv(cluster.CHANNEL, "99")
        with cluster.connect() as client:
            assert cluster.width(client) == 1


def test_a_scheduler_that_goes_is_said(tmp_path):
    from distributed import LocalCluster

    made = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    calls = {"a": (tmp_path, "a", "wait")}
    with cluster.connect(made.scheduler_address) as client, closing(cluster.outcomes(client, note, calls)) as outcomes:
        threading.Thread(target=lambda: (started(tmp_path, 1), made.close()), daemon=True).start()
        with pytest.raises(ClusterError, match="the scheduler is gone"):
            print(next(outcomes))


def test_a_gpu_is_given_to_one_batch_of_a_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: str(tmp_path))
    with cluster.connect(workers=1, device="cuda") as first:
        assert cluster.width(first) == 1
        with cluster.connect(device="cuda") as second:
            calls = {"a": ("CUDA_VISIBLE_DEVICES",)}
            assert dict(cluster.outcomes(second, os.getenv, calls)) == {"a": "7"}
            with pytest.raises(ClusterError, match="every GPU is another batch's"):
                cluster.connect(device="cuda").__enter__()
    with cluster.connect(device="cuda") as client:
        assert cluster.width(client) == 2


def test_no_more_workers_than_are_needed():
    assert [cluster._count(workers, "cpu", most=1) for workers in (None, 5, 0)] == [1, 1, 0]
