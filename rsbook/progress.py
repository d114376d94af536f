"""What a batch tells while it goes on: a line for each notebook that ends, and how far the others are."""

import math
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass, field

from rsbook.provenance import duration

QUIET = 30.0  # seconds between two lines of a log; a terminal has one line that changes


@dataclass
class Running:
    """A notebook at work: since when, how long it should take, and how many of how many runs it has.

    runs_since: when these runs began, and how many there were then; latest: when the latest of them ended.
    """

    since: float
    expected: float | None
    runs: tuple[int, int] = (0, 0)
    runs_since: tuple[float, int] = (0.0, 0)
    latest: float = 0.0

    def left(self, now, guess=None):
        """Seconds that it should still take, None when nothing says; guess: how long it takes if nothing else does."""
        done, total = self.runs
        begun, before = self.runs_since
        if before < done < total:  # at the pace of its runs so far; what is late is about to end
            pace = (self.latest - begun) / (done - before)
            return pace * (total - done - 1) + max(pace - (now - self.latest), 0.0)
        whole = guess if self.expected is None else self.expected
        return None if whole is None else max(whole - (now - self.since), 0.0)


@dataclass
class Progress:
    """Of a batch: `expected` has the seconds that each notebook took before, None for one that never ran."""

    expected: dict[str, float | None]
    width: int = 1
    took: list[float] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    said: float = field(default_factory=lambda: time.monotonic())

    def __post_init__(self):
        # they are from executed notebooks, where anything may be
        self.expected = {label: _seconds(value) for label, value in self.expected.items()}

    def start(self, label):
        """A notebook has been given to a worker."""
        self.running[label] = Running(time.monotonic(), self.expected[label])

    def runs(self, label, done, total):
        """A notebook has so many of its training runs."""
        if one := self.running.get(label):
            now = time.monotonic()
            if one.runs[1] != total or done < one.runs[0]:
                one.runs_since = (now, done)
            if one.runs != (done, total):
                one.runs, one.latest = (done, total), now

    def end(self, label, line, seconds=None):
        """A notebook has ended: print its line."""
        self.running.pop(label, None)
        self.ended.add(label)
        self.took += [] if seconds is None else [seconds]
        self.clear()
        print(line, flush=True)

    def left(self):
        """Seconds that the whole batch should still take, None when nothing says."""
        now, known = time.monotonic(), [seconds for seconds in self.expected.values() if seconds is not None]
        guess = statistics.fmean(self.took or known) if self.took or known else None
        rest = [one.left(now, guess) for one in self.running.values()]
        rest += [seconds for label, seconds in self.expected.items() if label not in self.ended | self.running.keys()]
        rest = [guess if seconds is None else seconds for seconds in rest]
        if None in rest:
            return None
        return max(sum(rest) / self.width, max(rest, default=0.0))

    def line(self):
        """How far the batch is, in one line."""
        now, parts = time.monotonic(), []
        for label, one in self.running.items():
            runs = f" {one.runs[0]}/{one.runs[1]} runs" if one.runs[1] else ""
            left = one.left(now)
            parts.append(f"{label}{runs}" + (f", {duration(left)} left" if left else ""))
        left = self.left()
        whole = "time left unknown" if left is None else f"about {duration(left)} left"
        return f"{len(self.ended)} of {len(self.expected)} ended, {whole}; at work: {' · '.join(parts) or 'none'}"

    def tick(self, stream=None):
        """Show the line on stderr: at once on a terminal, every QUIET seconds in a log."""
        stream = stream or sys.stderr
        if stream.isatty():
            stream.write(f"\r\x1b[K{self.line()[: _columns(stream)]}")
            stream.flush()
        elif time.monotonic() - self.said > QUIET:
            self.said = time.monotonic()
            print(self.line(), file=stream, flush=True)

    def clear(self, stream=None):
        """Take the line from the terminal, so that another can be printed."""
        stream = stream or sys.stderr
        if stream.isatty():
            stream.write("\r\x1b[K")
            stream.flush()


def _columns(stream):
    """How long a line may be; the terminal is that of the stream, as stdout may go to a file."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = 0  # not known, as some terminals say it too
    return max((columns or shutil.get_terminal_size().columns) - 1, 1)


def _seconds(value):
    return value if type(value) in (int, float) and 0 <= value < math.inf else None
