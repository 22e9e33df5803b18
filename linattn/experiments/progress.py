"""Progress of a sweep: a bar on a terminal, one plain line per finished run otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

from linattn.experiments.specs import Spec, digest, kind_of
from linattn.experiments.worker import Outcome

if TYPE_CHECKING:
    from linattn.experiments.runner import Observer


@contextmanager
def reporter(total: int, reused: int, *, stream: TextIO | None = None) -> Iterator[Observer]:
    """Yield a function that reports every finished run.

    Parameters
    ----------
    total, reused : int
        Runs in all and runs stored before.
    stream : text file, optional
        Default standard error.
    """
    out = sys.stderr if stream is None else stream
    if out.isatty():
        with _bar(total, reused, out) as observer:
            yield observer
    else:
        yield _plain(total, reused, out)


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


def _plain(total: int, reused: int, out: TextIO) -> Observer:
    began = perf_counter()
    done = reused

    def report(spec: Spec, outcome: Outcome) -> None:
        nonlocal done
        done += 1
        rate = (done - reused) / max(perf_counter() - began, 1e-9)
        left = clock((total - done) / rate)
        what = f"{kind_of(spec)} {digest(spec)[:4]}… {outcome.seconds:.2f} s"
        note = "" if outcome.state == "stored" else f" {outcome.state}"
        line = f"[{done}/{total}] {what}{note}, {rate:.1f} runs/s, {left} left"
        print(line, file=out, flush=True)

    return report


@contextmanager
def _bar(total: int, reused: int, out: TextIO) -> Iterator[Observer]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    began = perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=Console(file=out), transient=False) as bar:
        task = bar.add_task("starting workers", total=total, completed=reused)
        done = 0

        def report(spec: Spec, outcome: Outcome) -> None:
            nonlocal done
            done += 1
            rate = done / max(perf_counter() - began, 1e-9)
            bar.update(task, advance=1, description=f"{kind_of(spec)} {rate:.1f} runs/s")

        yield report
