"""Calls in worker processes: failures and deaths stay with their own call, and no worker outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
import types
from contextlib import closing
from pathlib import Path

import pytest

from rsbook import pool


def note(folder, name, then=None):
    """Leave a file with process and GPU, then do what is asked."""
    (Path(folder) / f"{name}.started").write_text(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    if then == "raise":
        raise LookupError(f"no {name}")
    if then == "exit":
        os._exit(3)
    if then == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "wait":
        time.sleep(600)
    if then == "meet":  # until the other has started as well
        while len(list(Path(folder).glob("*.started"))) < 2:
            time.sleep(0.01)


def started(folder, expected=0):
    """Process and GPU that the calls have noted, by name; waits for as many as expected."""
    until = time.monotonic() + 120
    while True:
        found = {path.stem: path.read_text().split() for path in sorted(Path(folder).glob("*.started"))}
        if sum(map(bool, found.values())) >= expected:
            return {name: (int(pid), gpu) for name, (pid, gpu) in found.items()}
        assert time.monotonic() < until, f"only {found} of {expected} have started"
        time.sleep(0.02)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"  # a zombie has ended


def wait_for_end(pids):
    until = time.monotonic() + 60
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < until, f"{alive} still run"
        time.sleep(0.02)


def test_in_this_process_calls_go_in_order_and_failures_stay_their_own(tmp_path):
    calls = [(tmp_path, "a"), (tmp_path, "b", "raise"), (tmp_path, "c")]
    outcomes = pool.outcomes(note, calls, workers=0)
    assert started(tmp_path) == {}
    assert next(outcomes) == (0, None)
    assert list(started(tmp_path)) == ["a"]
    (i, (reason, traceback)), last = outcomes
    assert (i, reason, last) == (1, "LookupError: no b", (2, None))
    assert 'in note\n    raise LookupError(f"no {name}")' in traceback
    assert {pid for pid, _ in started(tmp_path).values()} == {os.getpid()}


def test_failures_and_deaths_stay_with_their_own_call(tmp_path):
    calls = [
        (tmp_path, "a", "raise"),
        (tmp_path, "b", "kill"),
        (tmp_path, "c"),
        (tmp_path, "d", "exit"),
        (tmp_path, "e"),
    ]
    outcomes = dict(pool.outcomes(note, calls, workers=1))
    assert list(outcomes) == [0, 1, 2, 3, 4]
    assert {i: failure and failure[0] for i, failure in outcomes.items()} == {
        0: "LookupError: no a",
        1: "a worker process died (killed by SIGKILL; out of memory?)",
        2: None,
        3: "a worker process died (exit status 3)",
        4: None,
    }
    assert "raise LookupError" in outcomes[0][1]
    pids = {name: pid for name, (pid, _) in started(tmp_path).items()}
    assert pids["a"] == pids["b"] != pids["c"] == pids["d"] != pids["e"]  # replaced only when dead
    assert os.getpid() not in pids.values()
    wait_for_end(pids.values())


def test_a_function_that_workers_cannot_import_is_a_failure(monkeypatch):
    module = types.ModuleType("only_here")
    exec("def work(i): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    outcomes = dict(pool.outcomes(module.work, [(0,), (1,)], workers=1))
    assert [reason for reason, _ in outcomes.values()] == ["ModuleNotFoundError: No module named 'only_here'"] * 2


def test_two_workers_work_at_once_each_on_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert sorted(pool.outcomes(note, [(tmp_path, n, "meet") for n in "ab"], workers=9, on_gpus=True)) == [
        (0, None),
        (1, None),
    ]
    found = started(tmp_path)
    assert found["a"][0] != found["b"][0]
    assert sorted(gpu for _, gpu in found.values()) == ["5", "7"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"


def test_gpus_are_all_there_are_unless_told(monkeypatch):
    import torch  # not at the top: every worker of this file would import it

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert pool._gpus() == ["0", "1", "2"]


def test_interrupt_ends_the_workers(tmp_path):
    def interrupt():
        started(tmp_path, 1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with (
        pytest.raises(KeyboardInterrupt),
        closing(pool.outcomes(note, [(tmp_path, "a", "wait")], workers=1)) as outcomes,
    ):
        next(outcomes)
    wait_for_end([pid for pid, _ in started(tmp_path).values()])


def test_killed_parent_leaves_no_orphans(tmp_path):
    paths = [str(Path(__file__).parent), str(Path(pool.__file__).parents[1])]
    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys\nsys.path[:0] = {paths!r}\nfrom rsbook import pool\nfrom test_pool import note\n"
        f"if __name__ == '__main__':\n"
        f"    list(pool.outcomes(note, [({str(tmp_path)!r}, n, 'wait') for n in 'ab'], workers=2))\n"
    )
    with subprocess.Popen([sys.executable, script]) as parent:
        try:
            pids = [pid for pid, _ in started(tmp_path, 2).values()]
            assert all(is_alive(pid) for pid in pids)
        finally:
            parent.kill()
    wait_for_end(pids)
