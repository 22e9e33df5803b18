"""What runs inside a worker process: warm up once, then compute and store tasks one by one."""

from __future__ import annotations

import json
import pickle
import signal
import traceback
from collections.abc import Callable
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
    """How a task ended: stored, crashed (the run raised), unwritable (the store refused) or died
    (the process ended); `sentence` and `trace` are empty for stored runs.
    """

    state: Literal["stored", "crashed", "unwritable", "died"]
    seconds: float
    sentence: str = ""
    trace: str = ""


class Ready(NamedTuple):
    """First message of a worker: imports and compiled code are there."""

    seconds: float


def serve(connection: Connection) -> None:
    """Answer tasks until the other end closes. Each is a pickled (task, output folder)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    start = perf_counter()
    warm()
    try:
        connection.send(Ready(perf_counter() - start))
        while True:
            task, output = pickle.loads(connection.recv_bytes())
            connection.send(attempt(task, output))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the sweep is over, or its process was killed


def warm() -> None:
    """Load what every run needs, and build or load the compiled code."""
    import_module("xarray")
    from linattn import _kernels

    build: Callable[[], Any] | None = getattr(_kernels, "warm", None)
    if build is not None:
        build()


def attempt(task: Task, output: Path) -> Outcome:
    """Compute and store one task; whatever the run raises becomes a sentence."""
    start = perf_counter()
    try:
        simulation = load_simulation(Path(task.path))
        content = encode(task, simulation, compute(simulation, task))
    except Exception as error:  # a crash must not end the other runs
        text = " ".join(str(error).split()) or "no message"
        sentence = f"{task.name} crashed: {type(error).__name__}: {text}"
        return Outcome("crashed", perf_counter() - start, sentence, traceback.format_exc())
    try:
        write_atomically(output / task.file, content)
    except OSError as error:
        return Outcome("unwritable", perf_counter() - start, str(error))
    return Outcome("stored", perf_counter() - start)


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
