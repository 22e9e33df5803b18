"""Compute tasks on a Dask scheduler: the engine's backend for more than one machine.

Workers return the bytes of a result and this process stores them: the same file as the built-in
pool writes, whole or not at all, whoever dies meanwhile, and no shared disk is needed.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from linattn.experiments.clusters import Cluster, parse_scheduler
from linattn.experiments.engine import MakeBackend
from linattn.experiments.provenance import provenance
from linattn.experiments.simulation import Task
from linattn.experiments.worker import Outcome, Warm, encoded, stored, warm

AHEAD = 2
"""Tasks in flight per worker: one at work, one waiting beside it."""
CONNECT = 20.0
"""Seconds that a scheduler has to answer."""
LOSSES = 3
"""Schedulers lost in a row, without a result in between, that end the sweep."""


class LostError(Exception):
    """The scheduler is gone; what was in flight has to be asked for again."""


@dataclass
class Scheduler:
    """Tasks that no worker has taken yet, and those that a scheduler has."""

    output: Path
    waiting: deque[Task]
    cluster: Cluster
    flying: dict[Any, Task] = field(default_factory=dict)
    startup: float = 0.0

    def outcomes(self) -> Generator[tuple[Task, Outcome], None, None]:
        """Yield every task with its outcome, in order of completion.

        A worker that dies is the scheduler's to replace, and its task goes to another one. When
        the scheduler dies we connect again and hand in what was in flight.

        Raises
        ------
        RuntimeError
            If the scheduler cannot be reached, has no worker, or a worker would not give the bytes
            of the built-in pool: one sentence.
        """
        losses, began = 0, perf_counter()
        try:
            while self.waiting or self.flying:
                try:
                    with _connected(self.cluster) as client:
                        self.startup = self.startup or perf_counter() - began
                        for pair in self._drain(client):
                            losses = 0
                            yield pair
                except LostError as error:
                    self.waiting.extendleft(self.flying.values())
                    self.flying.clear()
                    losses += 1
                    if losses == LOSSES or not self.startup:
                        raise RuntimeError(
                            f"{error}; what is stored stays, the same command computes the rest."
                        ) from error
        finally:
            self.cluster.close()

    def stop(self) -> None:
        """Let runs in flight finish, start no more."""
        self.waiting.clear()

    def _drain(self, client: Any) -> Iterator[tuple[Task, Outcome]]:
        """Keep every worker busy until nothing is left."""
        finished: SimpleQueue[Any] = SimpleQueue()
        try:
            self._submit(client, finished)
            while self.flying:
                future = finished.get()
                task = self.flying[future]
                outcome = self._outcome(future, task)  # still in flight if the scheduler is lost
                del self.flying[future]
                yield task, outcome  # before the scheduler is asked again: it may be lost
                self._submit(client, finished)
        except Exception as error:
            if isinstance(error, OSError) or client.status != "running":
                raise LostError("the scheduler was lost") from error
            raise
        finally:
            if self.flying:
                with suppress(Exception):  # the scheduler may be gone
                    client.cancel(list(self.flying), force=True)

    def _submit(self, client: Any, finished: SimpleQueue[Any]) -> None:
        room = AHEAD * max(1, len(client.nthreads())) - len(self.flying)
        for _ in range(min(room, len(self.waiting))):
            task = self.waiting[0]
            future = client.submit(attempt_remote, task, _origin(), key=task.file, pure=False)
            self.flying[future] = self.waiting.popleft()
            future.add_done_callback(finished.put)

    def _outcome(self, future: Any, task: Task) -> Outcome:
        """How a task ended, after storing what came back."""
        if future.status == "finished":
            answer = future.result()
            if isinstance(answer, Outcome):
                if answer.state == "unfit":
                    raise RuntimeError(answer.sentence)
                return answer
            return stored(self.output / task.file, *answer)
        if future.status == "error":  # a run's own errors are outcomes: its worker died
            return Outcome("died", 0.0, _death(task, future.exception()))
        raise LostError("the scheduler was lost")


def scheduler_backend(text: str) -> MakeBackend:
    """Return the backend that ``--scheduler`` names.

    Raises
    ------
    ValueError
        If it cannot be read, or Dask is not installed.
    """
    cluster = parse_scheduler(text)
    needed = ["distributed"] + (["dask_jobqueue"] if text.endswith(".toml") else [])
    if not all(map(find_spec, needed)):
        raise ValueError("--scheduler needs Dask; install it with `pip install 'linattn[dask]'`.")
    return lambda output, waiting, size: Scheduler(output, waiting, cluster)


def attempt_remote(task: Task, origin: dict[str, Any]) -> tuple[bytes, float] | Outcome:
    """Compute a task on a worker; return its bytes and seconds, or what went wrong."""
    wrong = unfit(origin)
    return Outcome("unfit", 0.0, wrong) if wrong else encoded(task)


def unfit(origin: dict[str, Any]) -> str:
    """Say why this worker would not give the bytes of the built-in pool; nothing if it would."""
    from distributed import get_worker

    worker = get_worker()
    threads = worker.state.nthreads
    if threads != 1:
        return (
            f"worker {worker.address} has {threads} threads, but results need one; start it with "
            f"`dask worker --nthreads 1`."
        )
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    held = provenance()
    for name, wanted in origin.items():
        if held[name] != wanted:
            return (
                f"worker {worker.address} differs from this process: {name} {held[name]!r} instead "
                f"of {wanted!r}; its results would have other bytes."
            )
    return ""


def _origin() -> dict[str, Any]:
    """What a worker of the pool says of itself."""
    return provenance() | {"threads": "1"}


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    """A client of the scheduler, with at least one worker; those there have the compiled code.

    Raises
    ------
    LostError
        If the scheduler cannot be reached.
    RuntimeError
        If no worker joins it in time.
    """
    from distributed import Client

    with _silent():
        where = cluster.address()
        try:
            client = Client(where, timeout=CONNECT, set_as_default=False)
        except OSError as error:
            raise LostError(f"there is no scheduler at {where}") from error
        try:
            client.wait_for_workers(1, timeout=cluster.patience)
            client.submit(warm, Warm(), pure=False).result()  # one builds, the others load
            client.run(warm, Warm())
            yield client
        except TimeoutError as error:
            raise RuntimeError(
                f"no worker has joined the scheduler at {where} in {cluster.patience:.0f} s; start "
                f"some with `dask worker {where} --nthreads 1`."
            ) from error
        finally:
            with suppress(Exception):
                client.close(timeout=2)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep quiet what Dask logs of losses, which we answer for."""
    handlers = logging.getLogger("distributed").handlers
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


def _death(task: Task, error: BaseException) -> str:
    from distributed import KilledWorker

    how = f"{type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        how = "every worker that tried it died, perhaps out of memory."
    return f"{task.name} crashed: {how}"
