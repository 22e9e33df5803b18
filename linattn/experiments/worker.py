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
    """How a task ended: stored, crashed (the run raised), unwritable (the store refused) or died
    (the process ended); `sentence` and `trace` are empty for stored runs.
    """

    state: Literal["stored", "crashed", "unwritable", "died"]
    seconds: float
    sentence: str = ""
    trace: str = ""


class Ready(NamedTuple):
    """What a worker says once imports and compiled code are there, after so many seconds."""

    seconds: float


def serve(connection: Connection) -> None:
    """Answer messages until the other end closes: a task and the output folder, or None to warm up.

    Imports come first, while another worker may be building the compiled code.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    import_module("xarray")
    import_module("linattn")
    try:
        while True:
            message: tuple[Task, Path] | None = connection.recv()
            connection.send(warm() if message is None else attempt(*message))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the sweep is over, or its process was killed


def warm() -> Ready:
    """Build or load the compiled code."""
    from linattn import _kernels

    start = perf_counter()
    _kernels.warm()
    return Ready(perf_counter() - start)


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
