"""Compute tasks: what is missing, in spawned workers, and lose nothing on the way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Literal, NamedTuple, Protocol

from linattn._checks import positive_int
from linattn.experiments.files import open_folder
from linattn.experiments.find import load_simulation
from linattn.experiments.pool import Pool
from linattn.experiments.simulation import Task
from linattn.experiments.store import State, inspect_file, record_time, set_aside
from linattn.experiments.worker import Outcome

Observer = Callable[[Task, Outcome], None]
Observe = Callable[[Sequence[Task], Sequence[Task]], AbstractContextManager[Observer]]
WINDOWS_HANDLES = 61
"""Most processes that a Windows process can wait for."""


class Backend(Protocol):
    """What computes tasks: the built-in pool, or a scheduler of many machines."""

    startup: float

    def outcomes(self) -> Generator[tuple[Task, Outcome], None, None]:
        """Yield every task with its outcome, in order of completion."""

    def stop(self) -> None:
        """Let runs in flight finish, start no more."""


MakeBackend = Callable[[Path, "deque[Task]", int], Backend]


class Failure(NamedTuple):
    """A run that is not stored: its task, one sentence, and the traceback if there is one."""

    task: Task
    sentence: str
    trace: str


@dataclass
class Report:
    """What `compute_tasks` did.

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
    interrupted, forced : bool
        Whether Ctrl-C ended the sweep early, and whether stored runs were computed again.
    seconds, startup_seconds : float
        Wall time in all, and until the first worker was ready.
    """

    output: Path
    total: int = 0
    reused: int = 0
    computed: int = 0
    failures: list[Failure] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    interrupted: bool = False
    forced: bool = False
    seconds: float = 0.0
    startup_seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every run asked for is stored."""
        return self.reused + self.computed == self.total

    def __str__(self) -> str:
        verb = "computed again" if self.forced else "stored"
        done = f"{self.reused + self.computed} of {self.total} runs {verb} in {self.output}"
        parts = [f"{self.computed} computed", f"{self.reused} there before"]
        parts += [f"{len(self.failures)} crashed"] if self.failures else []
        times = f"{self.seconds:.1f} s, of which start-up {self.startup_seconds:.1f} s"
        rest = "--force begins again" if self.forced else "the same command computes the rest"
        end = f"; interrupted, {rest}" if self.interrupted else ""
        return f"{done} in {times}{end}: {', '.join(parts)}"


def compute_tasks(
    tasks: Iterable[Task],
    output: str | os.PathLike[str] = "results",
    *,
    workers: int | None = None,
    force: bool = False,
    observe: Observe | None = None,
    backend: MakeBackend = Pool,
) -> Report:
    """Compute and store every task that is not stored yet.

    The stored bytes do not depend on the number of workers or the order. Files appear whole, so
    a killed sweep loses only the runs in flight and the same call computes what is missing; two
    processes may share one store.

    Parameters
    ----------
    tasks : iterable of Task
        Runs to make; repeated ones are computed once.
    output : path
        The store.
    workers : int, optional
        Number of processes; default one per available processor.
    force : bool
        Compute stored runs again too.
    observe : callable, optional
        Called with all tasks and those that are not stored yet; gives a context with a function
        that is called with every finished task and its outcome (`progress.reporter`).
    backend : callable (output, tasks, workers) -> Backend
        Default the pool of spawned processes.

    Raises
    ------
    ValueError
        If `workers` is not valid.
    OSError
        If the output cannot be written; what is stored stays.
    RuntimeError
        If worker processes cannot start.
    """
    began = perf_counter()
    count = worker_count(workers)
    wanted = list({task.digest: task for task in tasks}.values())
    report = Report(open_folder(output), total=len(wanted), forced=force)
    missing = [task for task in wanted if force or not is_stored(report, task)]
    report.reused = len(wanted) - len(missing)
    if missing:
        with observe(wanted, missing) if observe else nullcontext() as observer:
            order = deque(sorted(missing, key=lambda task: -task.cost))
            _compute(report, backend(report.output, order, min(count, len(missing))), observer)
    if report.interrupted and not force:  # a run may be stored, and its worker not have said so
        report.computed = sum(is_stored(report, task) for task in missing)
    report.seconds = perf_counter() - began
    return report


def worker_count(workers: int | None) -> int:
    """Return the number of processes asked for, by default one per available processor."""
    return available_workers() if workers is None else positive_int("workers", workers)


def available_workers() -> int:
    """Return the number of processors this process may use: affinity and quota of its group."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    if os.name == "nt":
        count = min(count, WINDOWS_HANDLES)
    return max(1, min(count, _group_quota() or count))


def _group_quota(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Whole processors that a Linux control group grants, None where it sets no limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None


def is_stored(report: Report, task: Task) -> bool:
    """Whether the result of a task is there, intact and not stale; a damaged one is set aside."""
    state = task_state(report.output, task)
    if state == "damaged":
        report.damaged.append(set_aside(report.output / task.file))
    return state == "stored"


def task_state(store: Path, task: Task) -> State | Literal["missing"]:
    """What a store has of a task; a result of another spec is stale."""
    path = store / task.file
    if not path.exists() and not path.is_symlink():
        return "missing"
    entry = inspect_file(path, load_simulation(Path(task.path)))
    return "stale" if entry.state == "stored" and entry.spec != task.spec else entry.state


def _compute(report: Report, backend: Backend, observer: Observer | None) -> None:
    refused = None
    try:
        with closing(backend.outcomes()) as outcomes:
            for task, outcome in outcomes:
                if outcome.state == "unwritable":
                    refused = outcome.sentence
                    backend.stop()
                if outcome.state == "stored":
                    report.computed += 1
                    record_time(report.output, task, outcome.seconds)
                else:
                    report.failures.append(Failure(task, outcome.sentence, outcome.trace))
                if observer:
                    observer(task, outcome)
    except KeyboardInterrupt:
        report.interrupted = True
    report.startup_seconds = backend.startup
    if refused:
        raise OSError(refused)
