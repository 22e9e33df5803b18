"""Run a sweep: compute what is missing, in spawned workers, and lose nothing on the way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from linattn.experiments.files import open_folder
from linattn.experiments.pool import Pool
from linattn.experiments.specs import Spec, spec_json
from linattn.experiments.store import inspect_file, record_time, result_path, set_aside
from linattn.experiments.sweep import distinct
from linattn.experiments.validation import normalised
from linattn.experiments.worker import Outcome

Observer = Callable[[Spec, Outcome], None]


class Failure(NamedTuple):
    """A run that is not stored: its spec, one sentence, and the traceback if there is one."""

    spec: Spec
    sentence: str
    trace: str


@dataclass
class SweepReport:
    """What `run_sweep` did.

    Attributes
    ----------
    output : Path
        The store.
    total, reused, computed : int
        Distinct runs asked for, stored before, and computed now.
    failures : list of Failure
        Crashed runs; they are not cached, so the same command tries them again.
    damaged : list of str
        One sentence for every damaged file that was set aside.
    interrupted : bool
        Whether Ctrl-C ended the sweep early.
    seconds, startup_seconds : float
        Wall time in all, and until the first worker was ready.
    run_seconds : dict of str to float
        Working time by kind, summed over runs.
    """

    output: Path
    total: int = 0
    reused: int = 0
    computed: int = 0
    failures: list[Failure] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0
    startup_seconds: float = 0.0
    run_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every run asked for is stored."""
        return self.reused + self.computed == self.total

    def __str__(self) -> str:
        done = f"{self.reused + self.computed} of {self.total} runs stored in {self.output}"
        parts = [f"{self.computed} computed", f"{self.reused} there before"]
        parts += [f"{len(self.failures)} crashed"] if self.failures else []
        times = f"{self.seconds:.1f} s, of which start-up {self.startup_seconds:.1f} s"
        end = "; interrupted, the same command computes the rest" if self.interrupted else ""
        return f"{done} ({', '.join(parts)}) in {times}{end}."


def run_sweep(
    specs: Iterable[Spec],
    output: str | os.PathLike[str] = "results",
    *,
    workers: int | None = None,
    force: bool = False,
    observe: Callable[[int, int], AbstractContextManager[Observer]] | None = None,
) -> SweepReport:
    """Compute and store every spec that is not stored yet.

    The stored bytes do not depend on the number of workers or the order. Files appear whole, so
    a killed sweep loses only the runs in flight and the same call computes what is missing; two
    processes may share one store.

    Parameters
    ----------
    specs : iterable of Spec
        Runs to make; repeated ones are computed once.
    output : path
        The store.
    workers : int, optional
        Number of processes; default one per available processor.
    force : bool
        Compute stored runs again too.
    observe : callable, optional
        Called with the number of runs in all and of those stored already; gives a context with a
        function that is called with every finished spec and its outcome (`progress.reporter`).

    Raises
    ------
    ValueError
        If a spec or `workers` is not valid.
    OSError
        If the output cannot be written; what is stored stays.
    RuntimeError
        If worker processes cannot start.
    """
    began = perf_counter()
    count = available_workers() if workers is None else workers
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"workers must be an integer >= 1, got {workers!r}.")
    wanted = distinct(normalised(spec) for spec in specs)
    report = SweepReport(open_folder(output), total=len(wanted))
    missing = [spec for spec in wanted if force or not _is_stored(report, spec)]
    report.reused = len(wanted) - len(missing)
    with observe(report.total, report.reused) if observe else nullcontext() as observer:
        _compute(report, longest_first(missing), count, observer)
    report.seconds = perf_counter() - began
    return report


def available_workers() -> int:
    """Return the number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def longest_first(specs: Iterable[Spec]) -> Sequence[Spec]:
    """Order runs so that no long one is left alone at the end."""
    return sorted(specs, key=lambda spec: -spec.cost())


def _is_stored(report: SweepReport, spec: Spec) -> bool:
    """Whether the result of a spec is there and intact; a damaged one is set aside."""
    path = result_path(report.output, spec)
    if not path.exists():
        return False
    entry = inspect_file(path)
    if entry.state == "stored" and entry.spec == spec_json(spec):
        return True
    report.damaged.append(set_aside(path))
    return False


def _compute(
    report: SweepReport, specs: Sequence[Spec], workers: int, observer: Observer | None
) -> None:
    pool = Pool(report.output, deque(specs), min(workers, len(specs)))
    refused = None
    try:
        with closing(pool.outcomes()) as outcomes:
            for spec, outcome in outcomes:
                if outcome.state == "unwritable":
                    refused = outcome.sentence
                    pool.stop()
                _record(report, spec, outcome)
                if observer:
                    observer(spec, outcome)
    except KeyboardInterrupt:
        report.interrupted = True
        # Runs may have been stored without their workers being heard any more.
        report.computed = sum(result_path(report.output, spec).exists() for spec in specs)
    report.startup_seconds = pool.startup
    if refused:
        raise OSError(refused)


def _record(report: SweepReport, spec: Spec, outcome: Outcome) -> None:
    if outcome.state != "stored":
        report.failures.append(Failure(spec, outcome.sentence, outcome.trace))
        return
    report.computed += 1
    kind = str(type(spec).__struct_config__.tag)
    report.run_seconds[kind] = report.run_seconds.get(kind, 0.0) + outcome.seconds
    record_time(report.output, spec, outcome.seconds)
