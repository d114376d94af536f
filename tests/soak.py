"""A sweep under fire: SIGKILL of the batch, of its workers and kernels at random moments; what is left must be whole.

    python tests/soak.py --kills 200 --runs 40 --seed 0 --minutes 19

Does the sweep once undisturbed, then again and again under fire, each time with a fresh store, until the kills are
spent. Exit code 1 when a finished run was done again, a file was not whole, a process outlived its batch, a batch hung
or ended with a traceback, or a table differs from the undisturbed one.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from faulty_project import Project, Watch, until

KINDS = ("batch", "worker", "worker", "kernel", "kernel")  # in each round, in any order
LAST = 100  # seconds for the sweep that goes on when the last kill is spent
HANGS = 150  # seconds after the last kill in which a batch must end
OUTLIVES = 10  # seconds after which a process must be gone whose parent is: a kernel looks once a second
SIZE = 8  # runs of an execution
TICK = 0.05


@dataclass
class Fire:
    """The kills that are left, when the next one falls, what they hit, and what went wrong."""

    kinds: list
    moments: random.Random
    ends: float
    next: float = 0.0
    hit: Counter = field(default_factory=Counter)
    sweeps: int = 0
    batches: int = 0
    said: Counter = field(default_factory=Counter)
    outlived: list = field(default_factory=list)
    violations: list = field(default_factory=list)

    def pause(self):
        """Set the next moment: random, and such that all kills fall before the end."""
        mean = max(0.2, (self.ends - time.monotonic()) / max(1, len(self.kinds)))
        self.next = time.monotonic() + min(self.moments.expovariate(1 / mean), 4 * mean)

    def shoot(self, batch):
        """Kill one process of the batch, if there is one of the kind that is next; returns those that must end too."""
        kind = self.kinds[-1]
        victims = batch.alive(kind)
        if not victims:
            self.next = time.monotonic() + self.moments.uniform(0.05, 1)
            return None
        victim = self.moments.choice(victims)
        with suppress(psutil.NoSuchProcess):
            below = victim.children(recursive=True)
            victim.kill()
            self.hit[self.kinds.pop()] += 1
            self.pause()
            return below
        return None


def rounds(kills, moments):
    """So many kinds of kills, the same number of each in every round."""
    kinds = []
    while len(kinds) < kills:
        kinds += moments.sample(KINDS, len(KINDS))
    return kinds[:kills]


def undisturbed(folder, points):
    """The sweep as it is when nothing happens; returns its project and its table."""
    project = Project(folder)
    code, told = project.start("sweep", project.sweep_file(points)).wait(600)
    assert code == 0, told
    assert len(project.records()) == SIZE * points, told
    return project, table_of(project)


def table_of(project):
    return (project.root / "_build" / "sweeps" / "fire" / "runs.csv").read_bytes()


def under_fire(folder, points, fire, say):
    """One sweep with a fresh store, started again whenever its batch ends by a kill, until it has ended well; returns
    its project.
    """
    project = Project(folder)
    sweep, watch, below = project.sweep_file(points), Watch(project), {}
    code = None
    while code != 0 and not watch.violations:
        batch, before = project.start("sweep", sweep), sum(fire.hit.values())
        fire.batches += 1
        try:
            one_batch(batch, fire, watch, below)
        finally:
            batch.process.kill()
        code = batch.process.returncode
        judge(batch, code, fire, watch)
        watch.look()
        if code != 0 and sum(fire.hit.values()) == before:
            watch.violations.append(f"a batch failed that nothing was done to: {batch.text()[-3000:]}")
    below |= {process: time.monotonic() for one in project.batches for process, _ in one.processes()}
    until(lambda: outlived(below, fire, watch) or not below, OUTLIVES + 5)
    fire.violations += watch.violations
    fire.sweeps += 1
    for problem in watch.violations:
        say(f"VIOLATION: {problem}")
    return project


def one_batch(batch, fire, watch, below):
    """Shoot at a batch until it ends; adds to `below` the processes whose parent was killed, and when."""
    quiet = time.monotonic()
    while batch.process.poll() is None:
        if fire.kinds and time.monotonic() >= fire.next and (orphans := fire.shoot(batch)) is not None:
            quiet = time.monotonic()
            below |= dict.fromkeys(orphans, quiet)
            watch.look()
        if time.monotonic() - quiet > HANGS:
            watch.violations.append(f"a batch hung: {batch.text()[-2000:]}")
            batch.process.kill()
        outlived(below, fire, watch)
        time.sleep(TICK)


def outlived(below, fire, watch):
    """Forget those that have ended since their parent was killed, and complain of those that have not in time."""
    for process, since in list(below.items()):
        seconds = time.monotonic() - since
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                if seconds > OUTLIVES:
                    watch.violations.append(f"process {process.pid} outlived its parent: {' '.join(process.cmdline())}")
                    process.kill()
                continue
        fire.outlived.append(seconds)
        del below[process]


def judge(batch, code, fire, watch):
    """What a batch has said: no traceback, and a reason where it failed."""
    told = batch.text()
    reasons = [line for line in told.splitlines() if line.startswith("rsbook: ")]
    fire.said.update(re.sub(r"w/shows \[.*?\]|[\d.]+", "…", line)[:150] for line in reasons)
    if "Traceback" in told or code not in (0, 1, -9) or (code == 1 and not reasons):
        watch.violations.append(f"a batch ended with code {code} and said: {told[-3000:]}")


def compare(project, calm, table):
    """How a sweep under fire differs from the undisturbed one."""
    found = [] if table_of(project) == table else ["runs.csv differs"]
    found += [] if project.results() == calm.results() else ["the results in the records differ"]
    return found + ([] if project.executed() == calm.executed() else ["the executed notebooks differ"])


def soak(folder, kills, points, seed, seconds, say=print):
    """Spend so many kills in about so many seconds; returns the Fire."""
    started = time.monotonic()
    calm, table = undisturbed(folder / "calm", points)
    took = time.monotonic() - started
    say(f"undisturbed: {len(calm.records())} runs in {points} executions, {took:.0f} s")
    moments = random.Random(seed)
    fire = Fire(rounds(kills, moments), moments, ends=started + seconds - min(LAST, 2.5 * took))
    fire.pause()
    while fire.kinds and not fire.violations:
        project = under_fire(folder / f"fire-{fire.sweeps}", points, fire, say)
        fire.violations += [] if fire.violations else compare(project, calm, table)
        begun = project.began().values()
        say(
            f"sweep {fire.sweeps}: {len(project.batches)} batches, {len(begun)} runs begun {sum(begun)} times; "
            f"{sum(fire.hit.values())} kills so far, {time.monotonic() - started:.0f} s"
        )
    return fire


def main(arguments=None):
    """Soak, print what came of it, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--runs", type=int, default=40, help=f"of the sweep, {SIZE} an execution")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=19)
    parser.add_argument("--folder", type=Path, help="where to work; kept afterwards")
    given = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        fire = soak(folder, given.kills, max(1, given.runs // SIZE), given.seed, 60 * given.minutes, say)
    say(
        f"{sum(fire.hit.values())} kills ({', '.join(f'{n} {kind}' for kind, n in sorted(fire.hit.items()))}) in "
        f"{fire.sweeps} sweeps and {fire.batches} batches, {time.monotonic() - started:.0f} s"
    )
    again = sum("began again" in problem for problem in fire.violations)
    slowest = max(fire.outlived, default=0)
    say(f"finished runs done again: {again}; {len(fire.outlived)} orphans, gone within {slowest:.1f} s")
    for line, count in fire.said.most_common():
        say(f"  {count} × {line}")
    say(f"{len(fire.violations)} violations")
    return 1 if fire.violations else 0


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
