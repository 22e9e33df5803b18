"""What the jobs on synthetic problems share: the problem, the start, and labelled stacking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

import linattn as la
from linattn.experiments.specs import SyntheticSpec

if TYPE_CHECKING:
    import xarray as xr


def prepared(spec: SyntheticSpec) -> tuple[la.Problem, la.Params]:
    """Return the problem of a spec and its initial parameters."""
    problem = la.synthetic_problem(**msgspec.to_builtins(spec.problem), seed=spec.seed)
    initial = msgspec.to_builtins(spec.initial)
    return problem, la.initial_params(problem, **initial, seed=spec.seed)


def one_of_identical(problem: la.Problem) -> la.Problem:
    """Return one client of the *identical clients* control.

    Identical clients move identically, so one of them stands for all at a fraction of the cost.
    """
    return la.pool(problem).subset([0])


def stacked(parts: Sequence[xr.Dataset], local_steps: Sequence[int]) -> xr.Dataset:
    """Return the datasets of all numbers of local steps as one, dimension `local_steps` first."""
    import xarray as xr

    coordinate = xr.DataArray(np.array(local_steps), dims="local_steps", name="local_steps")
    return xr.concat(parts, dim=coordinate, combine_attrs="drop", join="exact")


def labelled(
    rows: Sequence[Mapping[str, Any]], dim: str, units: Mapping[str, str]
) -> dict[str, tuple[Any, ...]]:
    """Return variables along `dim`, one entry per row, each with its unit."""
    return {
        name: (dim, np.array([row[name] for row in rows]), {"units": units.get(name, "1")})
        for name in rows[0]
    }
