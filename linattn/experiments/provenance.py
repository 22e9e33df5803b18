"""Where a number comes from: versions, threads and machine, as plain values."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from linattn.experiments.simulation import NUMERICS

THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_PACKAGES = ("linattn", "numpy", "scipy", "numba", "xarray")


@cache
def provenance() -> dict[str, Any]:
    """Return what besides the spec may decide the bytes of a result. Nothing in it is a time."""
    return {
        "machine": platform.machine(),
        "numerics": NUMERICS,
        "system": platform.system(),
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "unset"),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source tree that was not installed
        return str(getattr(import_module(package), "__version__", "not installed"))
