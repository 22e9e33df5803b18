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

    from linattn.analysis.bias_drift import BiasDrift

TRADEOFF = 1e-3
"""Smallest share of the gain of training the kernel that freezing must save (contract)."""


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


def reference_variables(reference: la.Reference) -> dict[str, tuple[Any, ...]]:
    """Return the reference value of P as variables without dimension (no bound is NaN)."""
    bound = reference.lower_bound
    return {
        "reference": ((), reference.value, {"units": "loss"}),
        "reference_lower_bound": ((), np.nan if bound is None else bound, {"units": "loss"}),
        "reference_gradient_norm": ((), reference.gradient_norm, {"units": "loss per parameter"}),
        "reference_certified": ((), reference.certified),
    }


def table_variables(table: BiasDrift) -> dict[str, tuple[Any, ...]]:
    """Return the columns of a warm-up length table, and its T* (−1 if nothing is stable)."""
    units = {"rate": "1", "stable": "1", "frozen_lr": "1/curvature"}
    data: dict[str, tuple[Any, ...]] = {
        name: ("warmup", column, {"units": units.get(name, "loss")})
        for name, column in table.columns.items()
    }
    star = table.warmup_star
    data["warmup_star"] = ((), -1 if star is None else star, {"units": "rounds"})
    return data


def has_tradeoff(table: BiasDrift) -> bool:
    """Whether F_never − F(T*) is at least 1e-3 of F(T=0) − F(T*) (lengths 0 and R in the table)."""
    objective, best = table["objective"], _best(table)
    fall, price = float(objective[0]) - best, float(objective[-1]) - best
    return bool(np.isfinite(best) and price > 0.0 and price >= TRADEOFF * fall)


def relative_regret(table: BiasDrift, objective: float) -> float:
    """Return (F − F(T*)) / (F_never − F(T*)), NaN where there is no trade-off.

    0 is the best warm-up length, 1 is never freezing.
    """
    if not has_tradeoff(table):
        return float("nan")
    best, never = _best(table), float(table["objective"][-1])
    return (objective - best) / (never - best) if np.isfinite(never) else 0.0


def _best(table: BiasDrift) -> float:
    return float(np.where(table["stable"], table["objective"], np.inf).min())
