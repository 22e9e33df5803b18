"""What runs inside a worker process: warm up once, then compute and store specs one by one."""

from __future__ import annotations

import pickle
import signal
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from linattn.experiments.files import write_atomically
from linattn.experiments.specs import Spec, kind_of
from linattn.experiments.store import encode, result_path

if TYPE_CHECKING:
    import xarray as xr


class Outcome(NamedTuple):
    """How a task ended: stored, crashed (the job raised), unwritable (the store refused) or died
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
    """Answer tasks until the other end closes. Each is a pickled (spec, output folder)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    start = perf_counter()
    warm()
    try:
        connection.send(Ready(perf_counter() - start))
        while True:
            connection.send(attempt(connection.recv_bytes()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the sweep is over, or its process was killed


def warm() -> None:
    """Load what every run needs, and build or load the compiled code."""
    import_module("xarray")
    from linattn import _kernels

    build: Callable[[], Any] | None = getattr(_kernels, "warm", None)
    if build is not None:
        build()


def attempt(message: bytes) -> Outcome:
    """Compute and store one task; whatever the job raises becomes a sentence."""
    start = perf_counter()
    label = "a run"
    try:
        spec, output = pickle.loads(message)
        label = kind_of(spec)
        content = encode(spec, compute(spec))
    except Exception as error:  # a crash must not end the other runs
        text = " ".join(str(error).split()) or "no message"
        sentence = f"{label} crashed: {type(error).__name__}: {text}"
        return Outcome("crashed", perf_counter() - start, sentence, traceback.format_exc())
    try:
        write_atomically(result_path(output, spec), content)
    except OSError as error:
        return Outcome("unwritable", perf_counter() - start, str(error))
    return Outcome("stored", perf_counter() - start)


def compute(spec: Spec) -> xr.Dataset:
    """Return the dataset of a spec, from the function its kind names.

    Overflow is quiet: a diverging run is a result that says so in its arrays.
    """
    import numpy as np

    module, _, name = spec.job.partition(":")
    job: Callable[[Spec], xr.Dataset] = getattr(import_module(module), name)
    with np.errstate(over="ignore", invalid="ignore"):
        return job(spec)
