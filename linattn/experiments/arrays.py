"""Problems and parameters as files of a store, named by their SHA-256."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from linattn.experiments.files import open_folder, write_atomically
from linattn.types import Params, Problem, Statistics

FOLDER = "arrays"
_SCALARS = ("value_ridge", "kernel_ridge", "readout")


def keep_problem(store: Path, problem: Problem) -> Path:
    """Write a problem into a store, once; return its file."""
    held = {f"statistics.{k}": v for k, v in problem.statistics._asdict().items() if v is not None}
    scalars = {name: np.array(getattr(problem, name)) for name in _SCALARS}
    return _keep(store, held | scalars | {"offsets": problem.offsets, "weights": problem.weights})


def read_problem(path: Path) -> Problem:
    """Return what `keep_problem` wrote."""
    with np.load(path, allow_pickle=False) as held:
        fields = {name: held.get(f"statistics.{name}") for name in Statistics._fields}
        scalars = {name: held[name].item() for name in _SCALARS}
        return Problem(Statistics(**fields), held["offsets"], held["weights"], **scalars)


def keep_params(store: Path, params: Params) -> Path:
    """Write parameters into a store, once; return their file, which `Params.load` reads."""
    return _keep(store, {name: params[name] for name in params.layout.names})


def _keep(store: Path, arrays: dict[str, np.ndarray]) -> Path:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    folder = open_folder(store / FOLDER)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.npz"
    if not path.exists():
        write_atomically(path, content)
    return path
