"""Notebooks on workers: each that must run, three tries where a process dies, and what came out kept at once."""

import os
import sys
import time
from collections import deque
from contextlib import ExitStack

from rsbook import cluster, execution, planning
from rsbook.execution import Executed, NotebookFailed
from rsbook.locks import alone
from rsbook.parameters import BatchError
from rsbook.planning import ROOT
from rsbook.progress import Progress

TRIES = 3  # of a notebook whose kernel dies; a cell that raises would raise again
WORKERS = 10  # that may die with a notebook, by no fault of its own: a run of another may have taken all the memory
TICK = 1.0  # seconds between two looks


def run(patterns=(), given=None, root=ROOT, out=None, force=False, dry_run=False, **how):
    """Execute the chosen notebooks that are not up to date; returns the names of those that failed.

    Everything is checked before the first kernel starts: raises BatchError and UsageError as `planning.plan` does.
    how: as in `execute`.
    """
    return execute(planning.jobs(patterns, given, root, out), root, force, dry_run, **how)


def execute(jobs, root=ROOT, force=False, dry_run=False, scheduler=None, workers=None, timeout=None):
    """Execute those of the jobs that are not up to date, each on a worker; returns the labels of those that failed.

    scheduler, workers: as in `cluster.connect`. timeout: seconds for one notebook. Training runs go to the store of the
    environment's RSBOOK_STORE, on all workers. A notebook that another batch is at is waited for. Raises ClusterError
    when there are no workers.
    """
    due = {}
    for job in jobs:
        why = planning.why_run(job, root) or ("forced" if force else None)
        if why is None or dry_run:
            print(f"run {job.label} ({why})" if why else f"{job.label} … up to date", flush=True)
        else:
            due[job] = why
    if not due:
        return []
    device = _device(due)
    with cluster.connect(scheduler, workers, device) as client:
        return _Batch(due, root, force, client, timeout).run()


def _device(jobs):
    """Whether the workers are one a GPU: where any notebook may use one that is here."""
    if {job.parameters.get("device") for job in jobs} <= {"cpu", None}:
        return "cpu"
    return "cuda" if cluster.has_gpu() else "cpu"


class _Batch:
    """The state of one batch: what waits, what is at work, what has failed."""

    def __init__(self, due, root, force, client, timeout):
        self.due, self.root, self.force, self.client = due, root, force, client
        self.store, self.timeout = os.environ.get("RSBOOK_STORE"), timeout
        self.last = {job for job in due if planning.shows_records(job.name, root)}  # they show what the others leave
        self.pending, self.running, self.failed = deque(sorted(due, key=lambda job: job in self.last)), {}, []
        self.tries = dict.fromkeys(due, 0)
        self.prints = {}
        self.topic = f"rsbook-{time.time_ns()}"
        took = {job.label: (planning.record_of(job.target) or {}).get("seconds") for job in due}
        self.progress = Progress(took, cluster.width(client))

    def run(self):
        """Do all, and return the labels of those that failed."""
        if self.client is not None:
            self.client.subscribe_topic(self.topic, self._told)
        try:
            while self.pending or self.running:
                self._fill()
                self.progress.tick()
                for future in cluster.ended(self.running, TICK):
                    job, lock = self.running.pop(future)
                    with lock:
                        self._end(job, cluster.outcome(future))
                if self.pending and not self.running:
                    time.sleep(TICK)  # another batch is at them
        except BaseException:
            self.progress.clear()
            for job, _ in self.running.values():
                print(f"run {job.label} ({self.due[job]}) … interrupted", flush=True)
            raise
        finally:
            for _, lock in self.running.values():
                lock.close()
            if self.client is not None and self.client.status == "running":
                self.client.cancel([future for future in self.running if future is not None])
                self.client.unsubscribe_topic(self.topic)
        return sorted(self.failed)

    def _told(self, event):
        """What a notebook has said of its runs."""
        told = event[1]
        self.progress.runs(told["job"], *told["runs"])

    def _fill(self):
        """Give a notebook to every worker that has none."""
        self.progress.width = cluster.width(self.client)
        for _ in range(len(self.pending)):
            if len(self.running) >= self.progress.width:
                return
            job, lock = self.pending.popleft(), ExitStack()
            if job in self.last and (self.running or {*self.pending} - self.last):
                self.pending.append(job)
                continue
            try:
                if not lock.enter_context(alone(job.target)):
                    self.pending.append(job)
                elif not self.force and planning.why_run(job, self.root) is None:
                    self.progress.end(job.label, f"{job.label} … done by another batch")
                else:
                    self._start(job, lock.pop_all())
            except OSError as error:
                self._fail(job, f"{job.label}: cannot write beside {job.target}: {error.strerror or error}")
            except BatchError as error:  # its source was damaged meanwhile
                self._fail(job, f"{job.label}: {error}")
            finally:
                lock.close()

    def _start(self, job, lock):
        self.tries[job] += 1
        self.prints[job] = planning.fingerprint(job.name, job.parameters, self.root)
        expected = {part: value for part, value in self.prints[job]["components"].items() if part != "records"}
        self.progress.start(job.label)
        # a worker elsewhere has a checkout of its own
        root = None if self.root == ROOT else self.root
        call = (job, expected, root, self.store, self.timeout)
        if self.client is None:
            self.running[None] = (job, lock)  # for who interrupts it
            outcome = _attempt(call)
            with self.running.pop(None)[1]:
                self._end(job, outcome)
        else:
            key, now = f"notebook-{job.target}", time.monotonic()
            future = cluster.submit(self.client, execution.execute, (*call, self.topic), key, now, priority=1)
            self.running[future] = (job, lock)

    def _end(self, job, outcome):
        allowed = TRIES if isinstance(outcome, Executed) else WORKERS
        if outcome.died and self.tries[job] < allowed:
            self.progress.clear()
            why = outcome.failure if isinstance(outcome, Executed) else "its worker died"
            print(f"rsbook: {job.label}: {why}; trying again", file=sys.stderr, flush=True)
            self.progress.running.pop(job.label, None)
            self.pending.appendleft(job)
            return
        try:
            if isinstance(outcome, cluster.Failure):
                raise NotebookFailed(f"{job.label}: {outcome.reason}")
            execution.keep(job, outcome, self._record(job, outcome), self.root)
        except NotebookFailed as error:
            self._fail(job, f"{error} ({allowed} tries)" if outcome.died else str(error))
        else:
            line = f"run {job.label} ({self.due[job]}) … {outcome.seconds:.1f} s"
            self.progress.end(job.label, line, outcome.seconds)

    def _record(self, job, outcome):
        record = {"name": job.name, "parameters": job.parameters, "started": outcome.started}
        record |= self.prints[job] | {"seconds": outcome.seconds}
        if "records" in record["components"]:  # its own cells may have added some
            now = planning.fingerprint(job.name, job.parameters, self.root)["components"]["records"]
            record["components"]["records"] = now
            record["fingerprint"] = planning.digest(record["components"])
        return record

    def _fail(self, job, why):
        self.failed.append(job.label)
        self.progress.end(job.label, f"run {job.label} ({self.due[job]}) … failed")
        print(f"rsbook: {why}", file=sys.stderr, flush=True)


def _attempt(call):
    try:
        return execution.execute(*call)
    except (BatchError, OSError) as error:
        return cluster.Failure(str(error), "")
