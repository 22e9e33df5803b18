"""A pool of spawned single-threaded workers that survives the death of any of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import perf_counter
from types import ModuleType

from linattn.experiments.files import remove_temporary
from linattn.experiments.provenance import THREAD_VARIABLES
from linattn.experiments.simulation import Task
from linattn.experiments.worker import Outcome, Ready, Warm, serve

_PATIENCE = 5.0


@dataclass
class _Worker:
    """A process, our end of its pipe, and the task it is at."""

    process: BaseProcess
    connection: Connection
    task: Task | None = None
    since: float = 0.0


@dataclass
class Pool:
    """Workers and the tasks that none of them has taken yet.

    Used once, by iterating over `outcomes` and closing it; `stop` hands out no more tasks.
    """

    output: Path
    waiting: deque[Task]
    size: int
    workers: dict[Connection, _Worker] = field(default_factory=dict)
    leaving: list[BaseProcess] = field(default_factory=list)
    startup: float = 0.0

    def outcomes(self) -> Generator[tuple[Task, Outcome], None, None]:
        """Yield every task with its outcome, in order of completion.

        All workers import at once; the first ones build a part each of the compiled code that all
        of them then load.

        Raises
        ------
        RuntimeError
            If a worker process dies before it can take a task.
        """
        began = perf_counter()
        try:
            self._start(self.size)
            building = self._build()
            while self.workers:
                for connection in wait(list(self.workers)):
                    assert isinstance(connection, Connection)
                    worker = self.workers[connection]
                    task, message = worker.task, _receive(connection)
                    if isinstance(message, Ready) and building:
                        building.remove(connection)
                        if not building:
                            self.startup = perf_counter() - began
                            self._warm(*self.workers.values())
                        continue
                    if message is None:
                        message = self._bury(worker)
                    if isinstance(message, Outcome) and task is not None:
                        yield task, message
                    if connection in self.workers:
                        self._give(worker)
        finally:
            self._end()

    def stop(self) -> None:
        """Let runs in flight finish, start no more."""
        self.waiting.clear()

    def _start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        for _ in range(min(number, len(self.waiting))):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs,), daemon=True)
            with single_threaded(), without_main():
                process.start()
            # Our copy of their end must go: the pipe then breaks when the worker dies.
            theirs.close()
            self.workers[ours] = _Worker(process, ours)
            if self.startup:
                self._warm(self.workers[ours])

    def _build(self) -> set[Connection]:
        """Let the first workers build the compiled code: a part each, or the only one all of it."""
        from linattn import _kernels

        chosen = list(self.workers.values())[: _kernels.PARTS]
        for part, worker in enumerate(chosen):
            _send(worker, Warm(part if len(chosen) > 1 else None))
        return {worker.connection for worker in chosen}

    def _warm(self, *workers: _Worker) -> None:
        for worker in workers:
            _send(worker, Warm())

    def _give(self, worker: _Worker) -> None:
        """Hand the next task to an idle worker, or send it home."""
        worker.task = None
        if not self.waiting:
            self._dismiss(worker)
            return
        worker.task, worker.since = self.waiting.popleft(), perf_counter()
        _send(worker, (worker.task, self.output.absolute()))  # a run may change its folder

    def _dismiss(self, worker: _Worker) -> None:
        """Close the pipe: the worker ends by itself, and we wait for it at the end."""
        worker.connection.close()
        del self.workers[worker.connection]
        self.leaving.append(worker.process)

    def _bury(self, worker: _Worker) -> Outcome:
        """Say how a worker ended and replace it."""
        worker.process.join(_PATIENCE)
        how = _ending(worker.process.exitcode)
        self._dismiss(worker)
        remove_temporary(self.output, [worker.process.pid or 0])
        if worker.task is None:
            raise RuntimeError(f"a worker process {how} before it could take a run.")
        self._start(1)
        sentence = f"{worker.task.name} crashed: its worker process {how}."
        return Outcome("died", perf_counter() - worker.since, sentence)

    def _end(self) -> None:
        """End all workers that are left (after Ctrl-C or an error) and their half-written files."""
        left: Sequence[_Worker] = list(self.workers.values())
        for worker in left:
            worker.process.terminate()
            self._dismiss(worker)
        for process in self.leaving:
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
        remove_temporary(self.output, [worker.process.pid or 0 for worker in left])


@contextmanager
def single_threaded() -> Iterator[None]:
    """Give processes started inside one BLAS, OpenMP and Numba thread, and no Ctrl-C.

    The variables must be there before NumPy loads in the child, so they are set around its start
    and restored. Ctrl-C reaches the whole process group; a blocked signal mask is inherited, so
    only the parent answers it.
    """
    resource_tracker.ensure_running()  # starting it later would unblock the signal
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    mask = getattr(signal, "pthread_sigmask", None)
    blocked = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else set()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        if mask:
            mask(signal.SIG_SETMASK, blocked)


@contextmanager
def without_main() -> Iterator[None]:
    """Start processes that do not run the user's script once more.

    A spawned process imports the file of ``__main__`` again, and so repeats what a script does
    outside of ``if __name__ == "__main__"``; ours need nothing of it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _send(worker: _Worker, message: tuple[Task, Path] | Warm) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # seen as its death by `wait`
        worker.connection.send(message)


def _receive(connection: Connection) -> Outcome | Ready | None:
    """Return the next message, None if the worker is gone."""
    try:
        message = connection.recv()
    except (EOFError, ConnectionResetError):
        return None
    assert isinstance(message, Outcome | Ready)
    return message


def _ending(code: int | None) -> str:
    if code is None:
        return "closed its pipe"
    if code < 0:
        hint = ", perhaps out of memory" if code == -9 else ""
        return f"was killed by signal {-code}{hint}"
    return f"ended with exit code {code}"
