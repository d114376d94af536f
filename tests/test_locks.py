"""One process at a time: locks in a folder, leases in object storage, and what a dead holder leaves."""

import errno
import os
import signal
import threading
import time
import uuid
from contextlib import contextmanager

import buckets
import pytest

from rsbook import locks
from rsbook.files import location
from rsbook.locks import alone, is_taken

HOLD = """
from rsbook import locks
from rsbook.files import location
locks.RENEWED, locks.EXPIRES, locks.SETTLES = map(float, sys.argv[2:])
with locks.alone(location(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.readline()
"""
# For every line that comes in: take your turn, and say whether another was there, too. Lock files go slowly.
RACE = """
import os, random, time
from pathlib import Path
from rsbook.locks import alone
path, unlink = Path(sys.argv[1]), Path.unlink
witness = path.with_name("witness")
Path.unlink = lambda path, *given: [time.sleep(random.uniform(0, 0.003)), unlink(path, *given)]
for _ in sys.stdin:
    held = False
    while not held:
        with alone(path) as held:
            if held:
                try:
                    os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
                    time.sleep(random.uniform(0, 0.002))
                    unlink(witness)
                    told = "alone"
                except (FileExistsError, FileNotFoundError):
                    told = "not alone"
    print(told, flush=True)
"""


@contextmanager
def held_by_another(path, *seconds):
    """A process that is at the path for the length of the block, or until it is killed."""
    process = buckets.python(HOLD, path, *(seconds or (locks.RENEWED, locks.EXPIRES, locks.SETTLES)))
    try:
        assert process.stdout.readline() == "True\n", process.stderr.read()
        yield process
    finally:
        process.communicate("\n", timeout=60)


def mine(path):
    with alone(path) as first:
        return first


def fail_at(path):
    with alone(path) as first:
        raise LookupError(f"first: {first}")


def eventually(path, seconds=30):
    """Seconds until the path can be had."""
    begin = time.monotonic()
    while not mine(path):
        assert time.monotonic() - begin < seconds
        time.sleep(0.02)
    return time.monotonic() - begin


# In a folder


def test_one_process_at_a_time_and_nothing_is_left(tmp_path):
    path = tmp_path / "deeper" / "record.json"
    with held_by_another(path):
        assert not mine(path)
        assert is_taken(path)
        assert mine(path.with_name("another.json"))
    assert not is_taken(path)
    with alone(path) as first:
        assert first
        assert is_taken(path)
        assert not mine(path)  # this process itself is no exception
        with held_by_another(path.with_name("another.json")):
            pass
    assert list(path.parent.iterdir()) == []


def test_free_again_after_an_exception(tmp_path):
    path = tmp_path / "record.json"
    with pytest.raises(LookupError, match="first: True"):
        fail_at(path)
    assert list(tmp_path.iterdir()) == []
    assert mine(path)
    with alone(path):
        with pytest.raises(LookupError, match="first: False"):
            fail_at(path)
        assert is_taken(path)
    assert list(tmp_path.iterdir()) == []


def test_free_again_when_the_holder_is_killed_and_what_it_leaves_does_no_harm(tmp_path):
    path = tmp_path / "record.json"
    for _ in range(2):
        with held_by_another(path) as holder:
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
            assert [left.name for left in tmp_path.iterdir()] == [".record.json.lock"]
            assert not is_taken(path)
    assert mine(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_takes_no_lock_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        for path in (tmp_path / "record.json", tmp_path / "deeper" / "record.json"):
            with pytest.raises(OSError, match="Permission denied") as raised, alone(path):
                pass
            assert str(raised.value.filename).startswith(str(tmp_path))
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_lock_that_cannot_be_written_is_named(tmp_path, monkeypatch, code):
    working = os.open

    def forbidden(name, *given, **options):
        if str(name).endswith(".lock"):
            raise OSError(code, os.strerror(code), str(name))
        return working(name, *given, **options)

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(OSError, match=os.strerror(code)) as raised, alone(tmp_path / "record.json"):
        pass
    assert raised.value.filename == str(tmp_path / ".record.json.lock")


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|Not a directory") as raised, alone(tmp_path / "file" / "record.json"):
        pass
    assert raised.value.filename == str(tmp_path / "file")


def test_in_100_races_there_are_never_two(tmp_path):
    path = tmp_path / "record.json"
    racers = [buckets.python(RACE, path, bufsize=1) for _ in range(4)]
    told = []
    for i in range(100):
        running = racers[: 2 + i % 3]
        for racer in running:
            racer.stdin.write("go\n")
        told += [racer.stdout.readline() for racer in running]
    for racer in racers:
        racer.communicate(timeout=60)
    assert len(told) == 299
    assert set(told) == {"alone\n"}
    assert list(tmp_path.iterdir()) == []


# Leases: in the memory of this process, which is no folder either


@pytest.fixture
def path(monkeypatch):
    """Where no locks are, with leases that are short."""
    monkeypatch.setattr(locks, "RENEWED", 0.05)
    monkeypatch.setattr(locks, "EXPIRES", 0.4)
    monkeypatch.setattr(locks, "SETTLES", 0.2)
    return location(f"memory://{uuid.uuid4().hex}/record.json")


def lease_of(path):
    return path.with_name(".record.json.lease")


def test_a_lease_is_for_one_at_a_time_and_goes_with_the_block(path):
    with alone(path) as first:
        assert first
        assert is_taken(path)
        assert not mine(path)
    assert not is_taken(path)
    with pytest.raises(LookupError, match="first: True"):
        fail_at(path)
    assert not lease_of(path).exists()
    assert mine(path)


def test_a_lease_that_is_renewed_is_not_taken_over(path):
    with alone(path) as first:
        assert first
        begin = time.monotonic()
        while time.monotonic() - begin < 2.5 * locks.EXPIRES:
            assert not mine(path)
            time.sleep(0.02)
    assert mine(path)


def test_the_lease_of_a_dead_holder_is_taken_over_after_its_time(path):
    lease_of(path).write_bytes(b"dead 7")
    assert not mine(path)
    assert locks.EXPIRES - 0.05 < eventually(path) < locks.EXPIRES + locks.SETTLES + 2
    assert not lease_of(path).exists()


def test_what_one_holder_has_left_unrenewed_is_not_held_against_the_next(path):
    lease_of(path).write_bytes(b"dead 7")
    assert not mine(path)
    time.sleep(locks.EXPIRES)
    lease_of(path).write_bytes(b"alive 0")
    assert not mine(path)
    lease_of(path).write_bytes(b"alive 1")
    assert not mine(path)


@pytest.mark.parametrize("attempt", range(3))
def test_of_several_that_take_over_at_once_one_has_it(path, monkeypatch, attempt):
    lease_of(path).write_bytes(b"dead 7")
    assert not mine(path)
    time.sleep(locks.EXPIRES)
    found, together, working = [], threading.Barrier(4), path.fs.cat_file

    def reading(name):
        said = working(name)
        if said == b"dead 7":
            together.wait(10)  # all have read it before one of them writes
        return said

    def take():
        with alone(path) as first:
            found.append(first)
            if first:
                time.sleep(0.4)

    monkeypatch.setattr(path.fs, "cat_file", reading)
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, False, False, True]


class Unreachable(Exception):
    """What libraries of storage raise need be no OSError."""


@pytest.mark.parametrize(
    ("call", "error"),
    [("pipe_file", Unreachable("no route")), ("cat_file", Unreachable("no route")), ("cat_file", TimeoutError())],
)
def test_a_storage_that_is_out_of_reach_for_a_while_does_not_lose_the_lease(path, monkeypatch, call, error):
    working, failures = getattr(path.fs, call), [error] * 3
    holder = threading.current_thread()

    def failing(*given, **options):
        if failures and threading.current_thread() is not holder:
            raise failures.pop()
        return working(*given, **options)

    with alone(path) as first:
        assert first
        monkeypatch.setattr(path.fs, call, failing)
        begin = time.monotonic()
        while time.monotonic() - begin < 2.5 * locks.EXPIRES:
            assert not mine(path)
            time.sleep(0.02)
        assert failures == []
    assert mine(path)


@pytest.mark.parametrize("error", [Unreachable("no route"), PermissionError("Access Denied")])
def test_a_storage_that_cannot_be_used_is_named(path, monkeypatch, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(path.fs, "pipe_file", failing)
    with pytest.raises(OSError, match=str(error)) as raised, alone(path):
        pass
    assert raised.value.filename == str(lease_of(path))


def test_an_error_in_the_block_is_not_hidden_by_a_storage_that_has_gone(path, monkeypatch):
    def failing(*_, **__):
        raise Unreachable

    monkeypatch.setattr(path.fs, "cat_file", failing)
    with pytest.raises(LookupError, match="first: True"):
        fail_at(path)


@pytest.mark.parametrize("word", [FileExistsError("did not hold"), OSError(errno.EINVAL, "412"), Unreachable("409")])
def test_however_a_storage_refuses_a_second_lease_it_is_taken(path, monkeypatch, word):
    working = path.fs.pipe_file

    def refusing(name, content, mode):
        if mode == "create" and path.fs.exists(name):
            raise word
        working(name, content, mode=mode)

    monkeypatch.setattr(path.fs, "pipe_file", refusing)
    with alone(path) as first:
        assert first
        assert not mine(path)
    assert mine(path)


def test_a_conflict_with_one_that_has_gone_meanwhile_is_settled_by_another_attempt(path, monkeypatch):
    working, conflicts = path.fs.pipe_file, [OSError(errno.EIO, "409 ConditionalRequestConflict")]

    def conflicting(name, content, mode):
        if conflicts:
            raise conflicts.pop()
        working(name, content, mode=mode)

    monkeypatch.setattr(path.fs, "pipe_file", conflicting)
    assert mine(path)


def test_a_lease_that_was_written_although_the_answer_was_lost_is_ours(path, monkeypatch):
    working = path.fs.pipe_file

    def deaf(name, content, mode):
        working(name, content, mode=mode)
        if mode == "create":
            raise FileExistsError("to the second attempt")

    monkeypatch.setattr(path.fs, "pipe_file", deaf)
    assert mine(path)
    assert not lease_of(path).exists()


def test_who_was_taken_for_dead_leaves_the_lease_of_its_successor(path):
    with alone(path) as first:
        assert first
        lease_of(path).write_bytes(b"successor 0")
        time.sleep(6 * locks.RENEWED)
        assert lease_of(path).read_bytes() == b"successor 0"
    assert lease_of(path).read_bytes() == b"successor 0"


# Leases in S3, between processes


@pytest.fixture
def stored(monkeypatch):
    """As `path`, in a bucket of its own."""
    monkeypatch.setattr(locks, "RENEWED", 0.3)
    monkeypatch.setattr(locks, "EXPIRES", 1.5)
    monkeypatch.setattr(locks, "SETTLES", 0.7)
    with buckets.environment():
        yield location(buckets.new()) / "store" / "record.json"


def test_in_s3_one_process_at_a_time_for_as_long_as_it_renews(stored):
    with held_by_another(stored):
        begin = time.monotonic()
        while time.monotonic() - begin < 1.5 * locks.EXPIRES:
            assert not mine(stored)
            time.sleep(0.1)
        assert is_taken(stored)
        assert buckets.objects(stored.parent) == [".record.json.lease"]
    assert mine(stored)
    assert buckets.objects(stored.parent) == []


def test_in_s3_what_a_killed_holder_had_is_taken_over_by_one(stored, tmp_path):
    waiting = """
import os, time
from pathlib import Path
from rsbook import locks
from rsbook.files import location
locks.RENEWED, locks.EXPIRES, locks.SETTLES = map(float, sys.argv[3:])
folder, first = Path(sys.argv[2]), False
while not first and not (folder / "over").exists():
    with locks.alone(location(sys.argv[1])) as first:
        if first:
            (folder / f"first {os.getpid()}").touch()
        while first and not (folder / "over").exists():
            time.sleep(0.05)
"""
    with held_by_another(stored) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    seconds = (locks.RENEWED, locks.EXPIRES, locks.SETTLES)
    heirs = [buckets.python(waiting, stored, tmp_path, *seconds) for _ in range(2)]
    while not list(tmp_path.iterdir()):
        assert [heir.poll() for heir in heirs] == [None, None]
        time.sleep(0.05)
    time.sleep(2 * locks.SETTLES)  # for the other, which may have come just after it
    first = list(tmp_path.iterdir())
    (tmp_path / "over").touch()
    for heir in heirs:
        buckets.said(heir)
    assert len(first) == 1
    assert buckets.objects(stored.parent) == []
