"""What a batch tells while it goes on: time left, and lines that do not get into each other's way."""

import io
import os
import pty
import random
import re
import termios
from itertools import pairwise
from types import SimpleNamespace

import pytest
from zoo import FakePapermill, make_root, notebook

from rsbook import batch, cluster, progress
from rsbook.progress import Progress

CLEAR = "\r\x1b[K"


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

        def wait(self, seconds):
            self.now += seconds

    monkeypatch.setattr(progress.time, "monotonic", clock := Clock())
    return clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 60 columns for stderr."""
    monkeypatch.setenv("COLUMNS", "60")
    return stderr(monkeypatch, Terminal())


@pytest.fixture
def log(monkeypatch):
    """A file for stderr."""
    return stderr(monkeypatch, io.StringIO())


def stderr(monkeypatch, stream):
    """Let a batch write to this stream: pytest puts its own in the place of sys.stderr time and again."""
    for module in (progress, batch):
        monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=stream))
    return stream


# Time left


def test_a_notebook_takes_as_long_as_it_did(clock):
    told = Progress({"a": 100.0, "b": 50.0, "c": 10.0})
    assert told.left() == 160
    assert told.line() == "0 of 3 ended, about 2 min 40 s left; at work: none"
    told.start("a")
    clock.wait(30)
    assert told.left() == 130
    assert told.line() == "0 of 3 ended, about 2 min 10 s left; at work: a, 1 min 10 s left"
    told.end("a", "a … 60 s", 60.0)
    assert told.left() == 60
    told.start("b")
    clock.wait(60)
    assert told.left() == 10, "one that takes longer than it did has nothing left, and not less"
    assert told.line() == "1 of 3 ended, about 10 s left; at work: b"
    told.end("b", "b … 60 s", 60.0)
    told.end("c", "c … done by another batch")
    assert told.left() == 0
    assert told.line() == "3 of 3 ended, about 0 s left; at work: none"


def test_workers_share_what_is_left_and_the_longest_is_the_least(clock):
    took = {"a": 100.0, "b": 60.0, "c": 40.0}
    assert Progress(took, width=1).left() == 200
    assert Progress(took, width=2).left() == 100
    assert Progress(took, width=8).left() == 100
    told = Progress(took | {"d": 30.0}, width=2)
    told.start("a")
    told.start("b")
    clock.wait(20)
    assert told.left() == (80 + 40 + 40 + 30) / 2
    told.end("b", "b", 60.0)
    told.end("c", "c", 40.0)
    assert told.left() == 80
    assert told.line() == "2 of 4 ended, about 1 min 20 s left; at work: a, 1 min 20 s left"


def test_the_pace_of_its_runs_says_more_than_what_it_took(clock):
    told = Progress({"a": 1000.0})
    told.start("a")
    clock.wait(50)  # until its runs begin
    told.runs("a", 0, 4)
    assert told.line() == "0 of 1 ended, about 15 min 50 s left; at work: a 0/4 runs, 15 min 50 s left"
    clock.wait(20)
    told.runs("a", 1, 4)
    assert told.left() == 60
    assert told.line() == "0 of 1 ended, about 1 min 0 s left; at work: a 1/4 runs, 1 min 0 s left"
    clock.wait(10)
    assert told.left() == 50
    clock.wait(100)
    assert told.left() == 40, "a run that is late is about to end, and the others are not"
    told.runs("a", 2, 4)
    assert told.left() == (20 + 110) / 2 * 2
    told.runs("a", 4, 4)
    assert told.left() == 820, "what follows the runs is known from before alone"


def test_a_second_table_of_a_notebook_has_a_pace_of_its_own(clock):
    for total in (2, 5):
        told = Progress({"a": None})
        told.start("a")
        told.runs("a", 0, 2)
        clock.wait(100)
        told.runs("a", 2, 2)
        clock.wait(1)
        told.runs("a", 0, total)
        assert told.left() is None
        clock.wait(3)
        told.runs("a", 1, total)
        assert told.left() == 3 * (total - 1)


def test_runs_that_end_together_count_together(clock):
    told = Progress({"a": None})
    told.start("a")
    told.runs("a", 0, 6)
    clock.wait(10)
    told.runs("a", 1, 6)
    told.runs("a", 2, 6)
    assert told.left() == 20
    told.runs("a", 2, 6)  # told again
    clock.wait(1)
    told.runs("a", 2, 6)
    assert told.left() == 19


def test_nothing_says_how_long_what_never_ran_takes(clock):
    told = Progress({"a": None, "b": None})
    assert told.left() is None
    assert told.line() == "0 of 2 ended, time left unknown; at work: none"
    told.start("a")
    clock.wait(40)
    assert told.line() == "0 of 2 ended, time left unknown; at work: a"
    told.end("a", "a … failed")
    assert told.left() is None, "a failure says nothing of the others"
    told = Progress({"a": None, "b": None, "c": None})
    told.end("a", "a … 30 s", 30.0)
    assert told.left() == 60, "the others take as long as those before"
    told.start("b")
    clock.wait(10)
    assert told.left() == 50
    assert told.line() == "1 of 3 ended, about 50 s left; at work: b"
    clock.wait(100)
    assert told.left() == 30


def test_what_others_took_before_is_a_guess_too(clock):
    told = Progress({"a": 20.0, "b": 40.0, "new": None})
    assert told.left() == 90
    told.end("a", "a … 100 s", 100.0)
    assert told.left() == 140, "what they took just now is a better one"


@pytest.mark.parametrize("damaged", ["long", -3, float("nan"), float("inf"), True, [1], {}])
def test_what_a_damaged_page_says_counts_for_nothing(clock, damaged):
    told = Progress({"a": damaged, "b": 10.0})
    told.start("a")
    assert told.left() == 20
    assert "at work: a" in told.line()
    assert Progress({"a": damaged}).left() is None


def test_an_empty_batch_has_nothing_left(clock):
    assert Progress({}).left() in (0, None)
    assert Progress({}).line().startswith("0 of 0 ended")


@pytest.mark.parametrize("seed", range(20))
def test_time_left_is_never_negative_and_grows_only_when_something_happens(clock, seed):
    dice = random.Random(seed)
    told = Progress({name: dice.choice([None, dice.uniform(1, 50)]) for name in "abcdef"}, dice.randint(1, 3))
    waiting, counts = list(told.expected), {}
    while len(told.ended) < 6:
        match dice.choice(["wait", "wait", "start", "runs", "end"]):
            case "wait":
                before = told.left()
                clock.wait(dice.uniform(0, 20))
                after = told.left()
                assert (before is None) == (after is None)
                assert before is None or 0 <= after <= before
            case "start" if waiting and len(told.running) < told.width:
                told.start(name := waiting.pop())
                counts[name] = [0, dice.randint(0, 5)]
            case "runs" if told.running:
                name = dice.choice(list(told.running))
                told.runs(name, *counts[name])
                counts[name][0] = min(counts[name][0] + 1, counts[name][1])
            case "end" if told.running:
                name = dice.choice(list(told.running))
                told.end(name, name, dice.choice([None, 5.0]))
        assert all((one.left(clock.now) or 0) >= 0 for one in told.running.values())
    assert told.left() in (0, None)


# Lines


def test_a_terminal_has_one_line_that_changes_and_fits(clock, terminal):
    told = Progress({f"label_propagation/notebook_{i}": 100.0 for i in range(5)}, 5)
    for label in told.expected:
        told.start(label)
    told.tick()
    clock.wait(1)
    told.tick()
    first, second = terminal.getvalue().split(CLEAR)[1:]
    assert first == "0 of 5 ended, about 1 min 40 s left; at work: label_propaga"
    assert second.startswith("0 of 5 ended, about 1 min 39 s left; ")
    assert len(first) == len(second) == 59
    assert "\n" not in terminal.getvalue()


@pytest.mark.parametrize("columns", ["1", "2", "20", "500"])
def test_a_line_fits_any_terminal(clock, terminal, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    told = Progress({"a": None})
    told.tick()
    assert len(terminal.getvalue().removeprefix(CLEAR)) <= max(int(columns) - 1, 1)
    assert told.line().startswith(terminal.getvalue().removeprefix(CLEAR))


@pytest.mark.parametrize(("columns", "longest"), [(30, 29), (0, 79)])
def test_the_terminal_is_that_of_stderr_wherever_stdout_goes(clock, monkeypatch, columns, longest):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((80, 24)))  # of no terminal
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with os.fdopen(ours, "rb", buffering=0) as reader, os.fdopen(theirs, "w") as stream:
        told = Progress({f"notebook {i}": 5.0 for i in range(9)}, 9)
        for label in told.expected:
            told.start(label)
        told.tick(stream)
        shown = reader.read(1000).decode()
    assert len(shown.removeprefix(CLEAR)) == longest


def test_the_line_goes_before_another_is_printed(clock, terminal, capsys):
    told = Progress({"a": None, "b": None})
    told.start("a")
    told.tick()
    told.end("a", "run a (missing) … 3.0 s", 3.0)
    assert terminal.getvalue().endswith(f"at work: a{CLEAR}")
    assert capsys.readouterr().out == "run a (missing) … 3.0 s\n"
    told.tick()
    told.clear()
    assert terminal.getvalue().endswith(CLEAR)


def test_a_log_has_a_line_now_and_then(clock, log, capsys):
    told, times = Progress({"a": 600.0}), []
    told.start("a")
    for _ in range(200):
        before = log.getvalue()
        clock.wait(1)
        told.tick()
        times += [clock.now - 1000] if log.getvalue() != before else []
    assert len(times) == len(log.getvalue().splitlines()) == 6
    assert times[0] > progress.QUIET
    assert all(later - earlier >= progress.QUIET for earlier, later in pairwise(times))
    assert log.getvalue().splitlines()[0] == "0 of 1 ended, about 9 min 29 s left; at work: a, 9 min 29 s left"
    told.end("a", "a … 200 s")
    assert "\x1b" not in log.getvalue()
    assert capsys.readouterr().out == "a … 200 s\n"


def test_a_short_batch_leaves_no_line_in_a_log(clock, log):
    told = Progress({"a": None})
    told.start("a")
    for _ in range(30):
        clock.wait(1)
        told.tick()
    assert log.getvalue() == ""


# In a batch


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path, w__a=notebook("a = 1", "1"), w__b=notebook("a = 1", "1/0"))


def test_stdout_has_the_lines_of_notebooks_that_ended_and_nothing_else(root, monkeypatch, terminal, capsys):
    FakePapermill().install(monkeypatch)
    assert batch.run(root=root) == ["w/b"]
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d+\.\d s$", "… s", line) for line in lines] == [
        "run w/a (missing) … … s",
        "run w/b (missing) … failed",
    ]
    shown = terminal.getvalue()
    assert re.search(r"\rrsbook: |\x1b\[Krsbook: ", shown), "an error has a line of its own"
    for part in shown.split("rsbook: ")[:-1]:
        assert part.endswith((CLEAR, "\n"))


def test_what_notebooks_took_and_their_runs_reach_the_line(root, monkeypatch, clock):
    seen = []

    class Slow(FakePapermill):
        def __call__(self, *given):
            told = seen[-1]
            clock.wait(5)
            told.runs("w/a", 1, 4)
            clock.wait(7)
            told.runs("w/a", 2, 4)
            seen.append(told.line())
            return super().__call__(*given)

    class Seen(Progress):
        def start(self, label):
            super().start(label)
            seen.append(self)

    monkeypatch.setattr(batch, "Progress", Seen)
    Slow().install(monkeypatch)
    batch.run(["w/a"], root=root)
    batch.run(["w/a"], root=root, force=True)
    assert seen[1] == "0 of 1 ended, about 14 s left; at work: w/a 2/4 runs, 14 s left"
    assert type(seen[2].expected["w/a"]) is float, "of the page that there is"
    assert seen[2].width == cluster.width(None) == 1
