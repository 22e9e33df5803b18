"""A store to be hurt: small real runs, their bytes, and an engine that computes them at once."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

from linattn.experiments.engine import compute_tasks
from linattn.experiments.find import find_script, load_simulation
from linattn.experiments.simulation import Task
from linattn.experiments.store import encode, write_manifest
from linattn.experiments.worker import Outcome, attempt, compute

NAME, PRESET = "certificate", "tiny"
SETTINGS = {
    "problem.num_clients": 3, "problem.sequences_per_client": 8, "problem.num_tokens": 6,
    "problem.dim": 3, "problem.num_outputs": 2,
    "horizon": 1.0, "local_steps": 4, "num_starts": 2,
}  # fmt: skip


class Inline:
    """An engine's backend that computes in this process."""

    startup = 0.0

    def __init__(self, output: Path, waiting: deque[Task], size: int) -> None:
        self.output, self.waiting = output, waiting

    def outcomes(self) -> Generator[tuple[Task, Outcome], None, None]:
        """Compute tasks one after the other."""
        while self.waiting:
            task = self.waiting.popleft()
            yield task, attempt(task, self.output)

    def stop(self) -> None:
        """Start no more."""
        self.waiting.clear()


class Sweep(NamedTuple):
    """Tasks of small real runs, and what their files have to hold."""

    tasks: list[Task]
    expected: dict[str, bytes]

    def write(self, output: Path) -> None:
        """Compute what is missing, as a sweep of one worker does it."""
        report = compute_tasks(self.tasks, output, workers=1, backend=Inline)
        assert report.complete
        write_manifest(output, NAME, PRESET, self.tasks)

    def fill(self, output: Path) -> None:
        """Store all of it, without computing."""
        output.mkdir(parents=True, exist_ok=True)
        for name, content in self.expected.items():
            (output / name).write_bytes(content)
        write_manifest(output, NAME, PRESET, self.tasks)

    def faults(self, output: Path, before: set[str]) -> list[str]:
        """What is wrong with a store that had some results before it was hurt."""
        now = held(output)
        lost = [f"{name} is lost" for name in sorted(before - now.keys())]
        wrong = [n for n, content in sorted(now.items()) if self.expected.get(n) != content]
        return lost + [f"{name} holds other bytes" for name in wrong]


def small_sweep(count: int) -> Sweep:
    """Make a sweep of so many runs."""
    simulation = load_simulation(find_script(NAME))
    tasks = simulation.tasks(PRESET, SETTINGS | {"seed": list(range(count))})
    made = {task.file: encode(task, simulation, compute(simulation, task)) for task in tasks}
    return Sweep(tasks, made)


def held(output: Path) -> dict[str, bytes]:
    """Bytes of every result by name."""
    return {path.name: path.read_bytes() for path in output.glob("*.nc")}


def forked(work: Callable[[], None]) -> int:
    """Start work in a child that ends with it: status 0, or 1 and a traceback."""
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        work()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(1)


def ended(child: int) -> int:
    """Wait for a child; its exit status, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
