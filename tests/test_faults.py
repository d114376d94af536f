"""Processes that are killed, disks that are full, kernels that die: nothing is lost, half-written, or done twice."""

import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import dask
import faulty_work
import psutil
import pytest
import soak
from failing_disk import each_failure
from faulty_project import Project, Watch, at_once, lost_epochs, marked, twice_at_once, until, why_damaged
from zoo import FakePapermill, executed, leftovers, make_root, notebook

from rsbook import checkpoints, cli, cluster, runs
from rsbook.runs import RunError

TRAINING = {"seed": 3, "wait": 0}


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """The folder that fails; the log of the runs lies elsewhere."""
    monkeypatch.setenv("FAULTY_LOG", str(tmp_path / "log"))
    (tmp_path / "log").touch()
    for name in (cluster.ADDRESS, cluster.CHANNEL, "RSBOOK_STORE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.fixture
def project(tmp_path):
    """A project whose batches end with the test."""
    with closing(Project(tmp_path)) as made:
        yield made


def noted(disk):
    return [line.split() for line in (disk.parent / "log").read_text().splitlines()]


def table(function, rows, store):
    found = runs.table(function, rows, store=store, device="cpu", workers=0, progress=False)
    return found.drop(columns=["seconds", "record"])


def failure(function, rows, store):
    """Why runs failed, "" if none did."""
    try:
        table(function, rows, store)
    except RunError as error:
        return str(error)
    return ""


def works(*values):
    return [{"value": value, "wait": 0} for value in values]


def record_of(function, row, store):
    return store / f"faulty_work.{function.__name__}" / f"{runs.fingerprint(function, row)}.json"


def cannot(path, code):
    return f"{path} cannot be written: {os.strerror(code)}; make room or choose another store"


# A disk that is full, a folder that is forbidden


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_record_that_cannot_be_written_is_said_and_the_next_run_goes_on(disk, monkeypatch, code, fresh):
    expected, hit = table(faulty_work.work, works(1, 2), disk / "calm"), set()
    for n, fault in enumerate(each_failure(monkeypatch, disk, code)):
        store = disk / f"{n}"
        with fault.lifted():
            before = {} if fresh else contents(table(faulty_work.work, works(1), store) is not None and store)
        record = record_of(faulty_work.work, works(2)[0], store)
        said = failure(faulty_work.work, works(1, 2), store)
        fault.lift()
        if fault.hit:
            assert cannot(record, code) in said
            assert not record.exists()
            hit.add(fault.hit.split()[0])
        assert contents(store).items() >= before.items()
        assert leftovers(store) == []
        assert table(faulty_work.work, works(1, 2), store).equals(expected)
        assert contents(store).items() >= before.items()
    assert hit == {"mkdir", "create", "open", "replace"} | ({"write", "fsync"} if code == errno.ENOSPC else set())


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_training_whose_checkpoint_or_weights_cannot_be_written_goes_on_from_the_last_one(disk, monkeypatch, code):
    expected, hit, behind = table(faulty_work.trained, [TRAINING], disk / "calm"), set(), set()
    for n, fault in enumerate(each_failure(monkeypatch, disk, code)):
        store = disk / f"{n}"
        (disk.parent / "log").write_text("")
        record = record_of(faulty_work.trained, TRAINING, store)
        checkpoint = record.with_suffix(".safetensors")
        said = failure(faulty_work.trained, [TRAINING], store)
        fault.lift()
        if fault.hit:
            assert cannot(record, code) in said
            hit.add(fault.hit.split()[0])
        assert leftovers(store) == []
        if checkpoint.exists():
            facts, tensors = checkpoints.read(checkpoint)
            behind.add(facts["epoch"])
            assert tensors
        assert table(faulty_work.trained, [TRAINING], store).equals(expected)
        assert not checkpoint.exists()
        assert lost_epochs(noted(disk)) == []
    assert hit == {"mkdir", "create", "open", "save", "replace"} | (
        {"write", "fsync"} if code == errno.ENOSPC else set()
    )
    assert behind == set(range(1, faulty_work.EPOCHS + 1))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("fails", [False, True])
def test_a_page_that_cannot_be_written_leaves_the_old_one_and_says_so(disk, monkeypatch, capsys, code, fails):
    FakePapermill().install(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(disk / "tmp"))
    monkeypatch.chdir(disk)
    (disk / "tmp").mkdir()
    hit = set()
    for n, fault in enumerate(each_failure(monkeypatch, disk, code)):
        root = disk / f"{n}"
        with fault.lifted():
            make_root(root, w__a=notebook("a = 1", "2"), w__b=notebook("a = 1", "1/0" if fails else "3"))
            assert cli.main(["run", "w/a"], root) == 0
        old = contents(root / "book")
        capsys.readouterr()
        code_of_exit = cli.main(["run", "--force", "w/*"], root)
        told = capsys.readouterr().err
        fault.lift()
        if fault.hit:
            assert code_of_exit == 1
            assert os.strerror(code) in told
            assert str(disk) in told or "_build/failed/w/b.ipynb" in told, "the place is named"
            hit.add(fault.hit.split()[0])
        assert "Traceback" not in told
        assert leftovers(disk) == list((disk / "tmp").iterdir()) == []
        assert all(json.loads(page) for page in contents(root / "book").values())
        assert contents(root / "book").keys() >= old.keys()
        assert cli.main(["run", "w/*"], root) == (1 if fails else 0)
        capsys.readouterr()
        assert executed(root, "w/a")["cells"][1]["source"] == "2"
        assert fails or executed(root, "w/b")["cells"][1]["source"] == "3"
    assert hit == {"mkdir", "create", "open", "replace"} | ({"write", "fsync"} if code == errno.ENOSPC else set())


def receipt_page(found):
    """A notebook whose receipt names the runs of this table, as FakePapermill executes nothing."""
    page = notebook("a = 1", "2")
    records = {Path(path).stem: 0.1 for path in found["record"]}
    facts = {"rsbook": "receipt", "runs": {"function": "faulty_work.work", "records": records}}
    shown = {"output_type": "display_data", "data": {}, "metadata": {"rsbook": facts}}
    page["cells"][1]["outputs"] = [shown]
    return page


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_the_tables_of_a_sweep_that_cannot_be_written_are_said_in_a_line(disk, monkeypatch, capsys, code):
    FakePapermill().install(monkeypatch)
    monkeypatch.setenv("RSBOOK_STORE", str(disk / "store"))
    page = receipt_page(runs.table(faulty_work.work, works(1, 2), device="cpu", workers=0, progress=False))
    sweep, hit = disk / "s.yml", set()
    for n, fault in enumerate(each_failure(monkeypatch, disk, code)):
        root, tables = disk / f"{n}", disk / f"{n}" / "_build" / "sweeps" / "s"
        with fault.lifted():
            make_root(root, w__a=page)
            sweep.write_text("notebook: w/a\ngrid:\n  a: [1]\n")
            assert cli.main(["sweep", str(sweep)], root) == 0
            old = contents(tables)
            sweep.write_text("notebook: w/a\ngrid:\n  a: [1, 2]\n")
        capsys.readouterr()
        exit_code = cli.main(["sweep", str(sweep)], root)
        told = capsys.readouterr().err
        fault.lift()
        if fault.hit:
            assert exit_code == 1
            assert all(line.startswith("rsbook: ") for line in told.splitlines()), told
            assert os.strerror(code) in told
            assert str(tables) in told
            hit.add(fault.hit.split()[0])
        now = contents(tables)
        assert now.keys() >= old.keys()
        assert all(now[path] == old[path] for path in old if path.suffix == ".ipynb")
        assert leftovers(disk) == []
        assert {now[path] for path in now if path.name == "runs.csv"} == {old[tables / "runs.csv"]}
        assert cli.main(["sweep", str(sweep)], root) == 0
        assert (tables / "runs.csv").read_bytes() == old[tables / "runs.csv"], "the same runs are behind both points"
        assert (tables / "sweep.csv").read_text().count("\n") == 3
    assert hit >= {"create", "open", "replace"}


# The same by the operating system


def test_what_a_limit_of_the_system_cuts_off_is_no_record(disk):
    expected = table(faulty_work.trained, [TRAINING], disk / "calm")
    record = record_of(faulty_work.trained, TRAINING, disk / "store")
    for size in (100, 1000, 2000):  # a record has more, and a checkpoint at first less
        with largest_file(size), pytest.raises(RunError) as raised:
            table(faulty_work.trained, [TRAINING], disk / "store")
        assert cannot(record, errno.EFBIG) in str(raised.value)
        assert not record.exists()
        assert [why_damaged(path) for path in contents(disk / "store")] in ([], [None], [None, None])
        assert leftovers(disk) == []
    assert table(faulty_work.trained, [TRAINING], disk / "store").equals(expected)


@contextmanager
def largest_file(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_device_that_is_full_leaves_the_older_record(disk):
    table(faulty_work.work, works(1), disk)
    (old,) = disk.glob("*/*.json")
    before, record = old.read_bytes(), record_of(faulty_work.work, works(2)[0], disk)
    record.with_name(f".{record.name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(RunError) as raised:
        table(faulty_work.work, works(1, 2), disk)
    assert cannot(record, errno.ENOSPC) in str(raised.value)
    assert {path.name for path in contents(disk)} == {old.name}
    assert old.read_bytes() == before
    assert len(table(faulty_work.work, works(1, 2), disk)) == 2


def test_a_file_in_the_place_of_the_store_or_of_a_folder_in_it_is_named(disk):
    for where in (disk / "store", disk / "store" / "faulty_work.work"):
        where.parent.mkdir(exist_ok=True)
        where.write_text("")
        with pytest.raises(RunError, match=f"{disk / 'store'}.*(Not a directory|File exists).*choose another store"):
            table(faulty_work.work, works(1), disk / "store")
        assert where.read_text() == ""
        where.unlink()
    assert len(table(faulty_work.work, works(1), disk / "store")) == 1


# What is damaged


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_a_truncated_checkpoint_is_said_and_the_training_begins_anew(disk, monkeypatch, keep):
    expected = table(faulty_work.trained, [TRAINING], disk / "calm")
    (disk.parent / "log").write_text("")
    record = record_of(faulty_work.trained, TRAINING, disk / "store")
    monkeypatch.setattr(faulty_work._Points, "evaluate", stops_at(3, faulty_work._Points.evaluate))
    with pytest.raises(RunError, match="stopped"):
        table(faulty_work.trained, [TRAINING], disk / "store")
    monkeypatch.undo()
    monkeypatch.setenv("FAULTY_LOG", str(disk.parent / "log"))
    checkpoint = record.with_suffix(".safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.warns(UserWarning, match=rf"{checkpoint.name} cannot be read .*: training starts from the beginning"):
        assert table(faulty_work.trained, [TRAINING], disk / "store").equals(expected)
    assert not checkpoint.exists()
    assert [line[2] for line in noted(disk) if line[0] == "epoch"] == ["1", "2", "3", "1", "2", "3", "4", "5"]


def stops_at(epoch, evaluate):
    def evaluate_or_stop(self, model):
        found = evaluate(self, model)
        if self.epoch == epoch:
            raise InterruptedError("stopped")
        return found

    return evaluate_or_stop


def test_a_damaged_record_is_said_and_the_next_run_goes_on_once_it_is_deleted(disk):
    expected = table(faulty_work.work, works(1, 2), disk)
    record = record_of(faulty_work.work, works(1)[0], disk)
    record.write_bytes(record.read_bytes()[:-20])
    with pytest.raises(RunError, match=rf"{record.name} is damaged .*: delete it, and the run is done again"):
        table(faulty_work.work, works(1, 2), disk)
    record.unlink()
    assert table(faulty_work.work, works(1, 2), disk).equals(expected)
    began = [line[2] for line in noted(disk) if line[:2] == ["begin", "run"]]
    assert began.count(record.stem) == 2
    assert len(began) == 3


HOLDS = """
import sys, time
from pathlib import Path
from rsbook.locks import alone
with alone(Path(sys.argv[1])) as first:
    print(first, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_held_is_free_and_its_run_is_done(disk):
    record = record_of(faulty_work.work, works(1)[0], disk)
    with subprocess.Popen([sys.executable, "-c", HOLDS, record], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "True\n"
            assert runs.run(faulty_work.work, works(1)[0], record.stem, record.parent, None, "cpu") == cluster.LATER
        finally:
            holder.kill()
    assert record.with_name(f".{record.name}.lock").exists()
    assert len(table(faulty_work.work, works(1), disk)) == 1
    assert [path.name for path in record.parent.iterdir()] == [record.name]


# Two at the same


RACE = """
import sys
import faulty_work
from rsbook import cluster, runs
cluster.PAUSE = 0.01
open(sys.argv[2], "w").close()
while not all(map(__import__("os").path.exists, sys.argv[2:])):
    pass
rows = [{"value": value, "wait": 0} for value in range(100)]
found = runs.table(faulty_work.work, rows, store=sys.argv[1], device="cpu", workers=0, progress=False)
assert found["score"].tolist() == [value / 8 for value in range(100)]
"""


def test_of_two_processes_that_race_for_a_run_exactly_one_does_it(project, tmp_path):
    begin = [tmp_path / "a", tmp_path / "b"]
    races = [
        subprocess.Popen([sys.executable, "-c", RACE, project.store, *order], env=project.environment())
        for order in (begin, begin[::-1])
    ]
    assert [race.wait(120) for race in races] == [0, 0]
    assert len(project.records()) == 100
    assert project.began() == dict.fromkeys(project.records(), 1)
    assert {line[3] for line in project.noted()} == {str(race.pid) for race in races}, "both did some"
    assert Watch(project).look() == []


def test_two_batches_on_one_store_do_each_run_once_and_end_with_the_same_table(project, tmp_path):
    (tmp_path / "other").mkdir()
    with closing(Project(tmp_path / "other")) as other:
        other.store, other.log = project.store, project.log
        batches = [one.start("sweep", one.sweep_file(1), workers=1) for one in (project, other)]
        for batch in batches:
            code, told = batch.wait(180)
            assert code == 0, told
            assert "Warning" not in told, "that the other has a port, for example"
    assert len(project.records()) == 8
    assert project.began() == dict.fromkeys(project.records(), 1)
    assert soak.table_of(project) == soak.table_of(other)
    assert soak.table_of(project).count(b"\n") == 9
    assert project.executed() == other.executed()
    assert Watch(project).look() == Watch(other).look() == []


# Workers


def later(log, times):
    """Somebody else is at it for so many calls."""
    with open(log, "a") as file:
        file.write("x")
    return cluster.LATER if os.path.getsize(log) <= times else "done"


def test_a_run_that_somebody_else_is_at_for_long_has_killed_no_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PAUSE", 0.02)
    calls = {"a": (str(tmp_path / "log"), 2 * cluster.DEATHS)}
    with cluster.connect(workers=1) as client:
        assert list(cluster.outcomes(client, later, calls)) == [("a", "done")]
        assert list(cluster.outcomes(client, later, calls)) == [("a", "done")], "for another notebook of the batch"
        lost = dask.config.get("distributed.deploy.lost-worker-timeout")
        assert dask.utils.parse_timedelta(lost) > 3600, "a machine that is busy begins a worker anew in its own time"


def test_a_worker_that_is_killed_as_it_begins_is_said(monkeypatch):
    def kill():
        (worker,) = until(workers_of_this_process)
        worker.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(cluster.ClusterError, match=r"a worker process ended as it began .*: run the same again"):
        cluster.connect(workers=1).__enter__()
    thread.join()
    until(lambda: not workers_of_this_process(), 10)


def workers_of_this_process():
    return children_with("spawn_main")


def children_with(word):
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            found += [process] if word in " ".join(process.cmdline()) else []
    return found


DEADLY = (
    "import faulty_work\nfaulty_work.show(faulty_work.work, [{'value': 1, 'deaths': 9}, {'value': 2}, {'value': 3}])"
)
INNOCENT = "import faulty_work\nfaulty_work.show(faulty_work.work, [{'value': 3}, {'value': 4}, {'value': 5}])"


@pytest.mark.parametrize("workers", [1, 2])
def test_who_always_kills_its_worker_is_given_up_and_who_is_beside_it_ends_well(project, workers):
    project.write("w/deadly", DEADLY)
    project.write("w/innocent", INNOCENT)
    batch = project.start("run", workers=workers)
    code, told = batch.wait(240)
    assert code == 1, told
    assert "Traceback" not in told
    reason = "a worker process died, 3 times of 3 (killed; out of memory?) in the run with {'deaths': 9, 'value': 1}"
    assert f"rsbook: w/deadly: cell 2 raised RunError:   {reason}; partial notebook: _build/failed/w/deadly" in told
    assert "run w/innocent (missing) … " in told
    assert "w/innocent (missing) … failed" not in told
    began, deaths = project.began(), [line for line in project.noted() if line[0] == "dies"]
    assert len(deaths) == 3
    assert began.pop(deaths[0][1]) == 3
    assert began == dict.fromkeys(project.records(), 1)
    assert len(began) == 4
    if workers == 1:  # all that waited there died with it
        assert "rsbook: w/deadly: its worker died; trying again" in told
    assert at_once(project.noted()) <= workers
    assert Watch(project).look() == []
    until(lambda: marked(batch.mark) == [], 10)


def test_a_notebook_whose_worker_dies_while_it_waits_goes_on_elsewhere(project):
    project.write(
        "w/waits",
        "import faulty_work\nrows = [{'value': v, 'wait': 1} for v in range(6)]",
        "faulty_work.show(faulty_work.work, rows)",
    )
    batch = project.start("run", workers=2)
    until(lambda: [line for line in project.noted() if line[0] == "end"], 120)
    watch = Watch(project)
    until(lambda: project.records(), 10)
    watch.look()
    (kernel,) = batch.alive("kernel")
    worker = kernel.parent()
    worker.kill()
    code, told = batch.wait(120)
    assert code == 0, told
    assert "rsbook: w/waits: its worker died; trying again" in told
    assert len(project.records()) == 6
    assert watch.look() == []
    assert sorted(project.began().values()) in ([1] * 6, [1] * 5 + [2]), "one at most was at work there"
    assert not kernel.is_running()


# Kernels


def test_what_ends_a_kernel_is_told_apart_and_the_other_notebooks_go_on(project, tmp_path):
    dies = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    project.write("w/killed", f"{count}\n{dies}")
    project.write("w/memory", "bytearray(1 << 60)")
    project.write("w/slow", "import time\ntime.sleep(300)")
    again = tmp_path / "again"
    project.write(
        "w/twice",
        f"from pathlib import Path\npath = Path({str(again)!r})\nwith path.open('a') as file:\n    "
        f"file.write('x')\nif path.stat().st_size < 3:\n    import os\n    os.kill(os.getpid(), 9)",
        "'well'",
    )
    project.write("w/well", "'well'")
    batch = project.start("run", "--timeout", "15")
    code, told = batch.wait(180)
    assert code == 1, told
    died = "the kernel died in cell 2 (killed, out of memory, or a crash in native code)"
    lines = told.splitlines()
    assert lines.count(f"rsbook: w/killed: {died}; trying again") == 2
    assert f"rsbook: w/killed: {died}; partial notebook: _build/failed/w/killed.ipynb (3 tries)" in lines
    assert (
        "rsbook: w/memory: cell 2 raised MemoryError: (no message); partial notebook: _build/failed/w/memory.ipynb"
        in lines
    )
    assert (
        "rsbook: w/slow: took longer than 15 seconds, and was ended in cell 2; its runs so far are kept; "
        "partial notebook: _build/failed/w/slow.ipynb" in lines
    )
    assert lines.count(f"rsbook: w/twice: {died}; trying again") == 2
    assert lines[-1] == "rsbook: 3 failed: w/killed, w/memory, w/slow"
    assert "Traceback" not in told
    assert (tmp_path / "count").read_text() == again.read_text() == "xxx"
    for name in ("twice", "well"):
        assert "'well'" in json.dumps(executed(project.root, f"w/{name}")["cells"][-1]["outputs"])
    assert marked(batch.mark) == []
    assert Watch(project).look() == []


def kernels_of_this_process():
    return children_with("ipykernel_launcher")


def test_a_kernel_that_is_killed_as_it_starts_is_started_again(tmp_path, capsys):
    root = make_root(tmp_path / "root", w__a=notebook("a = 1", "'well'"))
    thread = threading.Thread(target=lambda: until(kernels_of_this_process)[0].kill())
    thread.start()
    assert cli.main(["run", "--workers", "0"], root) == 0
    thread.join()
    why = "the kernel died in cell 1 (killed, out of memory, or a crash in native code)"
    assert capsys.readouterr().err == f"rsbook: w/a: {why}; trying again\n"
    assert kernels_of_this_process() == []


@pytest.mark.parametrize("seconds", ["0.001", "0.2"])
def test_a_time_that_is_over_before_the_kernel_has_started_ends_it_as_well(tmp_path, capsys, seconds):
    root = make_root(tmp_path / "root", w__a=notebook("a = 1", "import time\ntime.sleep(60)"))
    assert cli.main(["run", "--workers", "0", "--timeout", seconds], root) == 1
    said = f"rsbook: w/a: took longer than {seconds} seconds, and was ended in cell 1; its runs so far are kept; "
    assert capsys.readouterr().err.startswith(said)
    assert kernels_of_this_process() == []


# Never more at work than there are workers


@pytest.mark.parametrize("workers", [1, 2])
def test_never_do_more_processes_compute_than_there_are_workers(project, workers):
    for name, first in (("a", 0), ("b", 3)):
        runs_ = f"[{{'value': v}} for v in range({first}, {first + 3})]"
        busy = f"import faulty_work\nfaulty_work.busy({name!r}, 0.5)"
        project.write(
            f"w/{name}",
            busy,
            f"faulty_work.show(faulty_work.work, {runs_})",
            busy,
            f"faulty_work.show(faulty_work.work, [{{'value': v + 10}} for v in range({first}, {first + 3})])",
            busy,
        )
    code, told = project.start("run", workers=workers).wait(180)
    assert code == 0, told
    assert len(project.records()) == 12
    assert project.began() == dict.fromkeys(project.records(), 1)
    assert project.began("cell") == {"a": 3, "b": 3}
    assert at_once(project.noted()) == workers
    assert twice_at_once(project.noted()) == []


# All of it, at random


def test_a_sweep_under_fire_ends_as_an_undisturbed_one(tmp_path):
    """Three kinds of SIGKILL; `make soak` has 200 of them."""
    said = []
    fire = soak.soak(tmp_path, kills=10, points=2, seed=1, seconds=60, say=said.append)
    assert fire.violations == [], said
    assert sum(fire.hit.values()) == 10
    assert fire.hit.keys() == {"batch", "worker", "kernel"}
    assert fire.outlived, "some had a parent that was killed"
