"""Progress of a sweep: a bar on a terminal, else a line per simulation and at most one in 10 s."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING

from linattn._progress import is_terminal, say
from linattn.experiments.simulation import Task
from linattn.experiments.worker import Outcome

if TYPE_CHECKING:
    from linattn.experiments.engine import Observer

PAUSE = 10.0
"""Seconds between two lines that say only how far a sweep is."""
POWER = 0.5
"""Of a task's cost in its share of the time: the dear come first, and costs are rough."""


def reporter(tasks: Sequence[Task], missing: Sequence[Task]) -> AbstractContextManager[Observer]:
    """Return a context with a function that reports every finished run on standard error.

    Parameters
    ----------
    tasks : sequence of Task
        All runs.
    missing : sequence of Task
        Those that are not stored yet.
    """
    if is_terminal(sys.stderr):
        return _bar(tasks, missing)
    return nullcontext(_plain(tasks, missing))


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


def _share(task: Task) -> float:
    """A task's share of the time, in units of its own."""
    return float(max(task.cost, 1.0) ** POWER)


def _plain(tasks: Sequence[Task], missing: Sequence[Task]) -> Observer:
    began = said = perf_counter()
    done, total = len(tasks) - len(missing), len(tasks)
    spent, everything = 0.0, sum(map(_share, missing))
    every, open_ = (Counter(task.name for task in some) for some in (tasks, missing))

    def report(task: Task, outcome: Outcome) -> None:
        nonlocal done, said, spent
        done += 1
        open_[task.name] -= 1
        spent += _share(task)
        left = clock((perf_counter() - began) * max(everything / spent - 1.0, 0.0))
        if outcome.state != "stored":
            words = f"{task.name} {outcome.state}"
        elif not open_[task.name]:
            words = f"{task.name}: all {every[task.name]} runs"
        elif perf_counter() - said > PAUSE or done == total:
            words = task.name
        else:
            return
        said = perf_counter()
        say(f"[{done}/{total}] {words}, {left} left")

    return report


@contextmanager
def _bar(tasks: Sequence[Task], missing: Sequence[Task]) -> Iterator[Observer]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    done, total = len(tasks) - len(missing), len(tasks)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[runs]}"),
               TimeLeft(elapsed_when_finished=True))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        line = bar.add_task(
            "starting workers", total=sum(map(_share, missing)), runs=f"{done}/{total}"
        )

        def report(task: Task, outcome: Outcome) -> None:
            nonlocal done
            done += 1
            bar.update(line, advance=_share(task), description=task.name, runs=f"{done}/{total}")

        yield report
