"""Progress of a sweep: a bar on a terminal, else a line per simulation and at most one in 10 s."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

from linattn._progress import is_terminal, say
from linattn.experiments.simulation import Task
from linattn.experiments.worker import Outcome

if TYPE_CHECKING:
    from linattn.experiments.engine import Observer

PAUSE = 10.0
"""Seconds between two lines that say only how far a sweep is."""


@contextmanager
def reporter(
    tasks: Sequence[Task], reused: int, *, stream: TextIO | None = None
) -> Iterator[Observer]:
    """Yield a function that reports every finished run.

    Parameters
    ----------
    tasks : sequence of Task
        All runs.
    reused : int
        How many of them were stored before.
    stream : text file, optional
        Default standard error.
    """
    out = sys.stderr if stream is None else stream
    if is_terminal(out):
        with _bar(len(tasks), reused, out) as observer:
            yield observer
    else:
        yield _plain(tasks, reused, out)


def clock(seconds: float) -> str:
    """Return a duration as ``0:40`` or ``1:02:03``.

    Examples
    --------
    >>> clock(100.4)
    '1:40'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _plain(tasks: Sequence[Task], reused: int, out: TextIO | None) -> Observer:
    began = said = perf_counter()
    done, total = reused, len(tasks)
    asked = Counter(task.name for task in tasks)
    finished: Counter[str] = Counter()

    def report(task: Task, outcome: Outcome) -> None:
        nonlocal done, said
        done += 1
        finished[task.name] += 1
        rate = (done - reused) / max(perf_counter() - began, 1e-9)
        left = clock((total - done) / rate)
        if outcome.state != "stored":
            words = f"{task.name} {outcome.state}"
        elif finished[task.name] == asked[task.name]:
            words = f"{task.name}: all {asked[task.name]} runs"
        elif perf_counter() - said > PAUSE or done == total:
            words = task.name
        else:
            return
        said = perf_counter()
        say(f"[{done}/{total}] {words}, {left} left", out)

    return report


@contextmanager
def _bar(total: int, reused: int, out: TextIO) -> Iterator[Observer]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=Console(file=out), transient=False) as bar:
        line = bar.add_task("starting workers", total=total, completed=reused)

        def report(task: Task, outcome: Outcome) -> None:
            bar.update(line, advance=1, description=task.name)

        yield report
