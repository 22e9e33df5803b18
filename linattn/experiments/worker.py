"""What runs inside a worker process: warm up once, then compute and store tasks one by one."""

from __future__ import annotations

import json
import signal
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from linattn.experiments.files import write_atomically
from linattn.experiments.find import load_simulation
from linattn.experiments.simulation import Simulation, Task
from linattn.experiments.store import encode

if TYPE_CHECKING:
    import xarray as xr


class Outcome(NamedTuple):
    """How a task ended: stored, crashed (the run raised), unwritable (the store refused), died (the
    process ended) or unfit (the process is not one that may compute it); `sentence` and `trace` are
    empty for stored runs.
    """

    state: Literal["stored", "crashed", "unwritable", "died", "unfit"]
    seconds: float
    sentence: str = ""
    trace: str = ""


class Warm(NamedTuple):
    """What a worker is asked before its first task: to have (a part of) the compiled code."""

    part: int | None = None


class Ready(NamedTuple):
    """What a worker says once imports and what it was asked for are there."""


def serve(connection: Connection) -> None:
    """Answer messages until the other end closes: a task and the output folder, or to warm up.

    Imports come first, while another worker may be building the compiled code.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    import_module("xarray")
    import_module("linattn")
    try:
        while True:
            message: tuple[Task, Path] | Warm = connection.recv()
            connection.send(warm(message) if isinstance(message, Warm) else attempt(*message))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the sweep is over, or its process was killed


def warm(asked: Warm) -> Ready:
    """Build or load compiled code."""
    from linattn import _kernels

    import_module("xarray")  # a worker of the pool has it, one of Dask does not
    _kernels.warm(asked.part)
    return Ready()


def attempt(task: Task, output: Path) -> Outcome:
    """Compute and store one task; whatever the run raises becomes a sentence."""
    answer = encoded(task)
    return answer if isinstance(answer, Outcome) else stored(output / task.file, *answer)


def encoded(task: Task) -> tuple[bytes, float] | Outcome:
    """Return the bytes of a task's result and the seconds it took, or how it crashed."""
    start = perf_counter()
    try:
        simulation = load_simulation(Path(task.path))
        content = encode(task, simulation, compute(simulation, task))
    except (Exception, SystemExit) as error:  # a crash must not end the other runs
        text = " ".join(str(error).split()) or "no message"
        sentence = f"{task.name} crashed: {type(error).__name__}: {text}"
        return Outcome("crashed", perf_counter() - start, sentence, traceback.format_exc())
    return content, perf_counter() - start


def stored(path: Path, content: bytes, seconds: float) -> Outcome:
    """Store a result, or say why it cannot be."""
    try:
        write_atomically(path, content)
    except OSError as error:
        return Outcome("unwritable", seconds, str(error))
    return Outcome("stored", seconds)


def compute(simulation: Simulation[Any], task: Task) -> xr.Dataset:
    """Return the dataset of a task.

    Overflow is quiet: a diverging run is a result that says so in its arrays.

    Raises
    ------
    TypeError
        If the simulation returns something else.
    """
    import numpy as np
    import xarray as xr

    spec = simulation.spec_from(json.loads(task.spec))
    with np.errstate(over="ignore", invalid="ignore"):
        made = simulation.run(spec)
    if not isinstance(made, xr.Dataset):
        raise TypeError(f"run must return an xarray.Dataset, got {type(made).__name__}")
    return made
