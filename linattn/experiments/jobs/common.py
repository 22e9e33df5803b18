"""What the jobs on synthetic problems share: the problem, the start, labels, regret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

import linattn as la
from linattn.experiments.claim_specs import TrainedKernelSpec
from linattn.experiments.specs import FrozenStageSpec, SyntheticSpec

if TYPE_CHECKING:
    import xarray as xr

TRADEOFF = 1e-3
"""Smallest share of the gain of training the kernel that freezing must save (contract)."""

Variables = dict[str, tuple[Any, ...]]


def prepared(spec: SyntheticSpec) -> tuple[la.Problem, la.Params]:
    """Return the problem of a spec and its initial parameters."""
    problem = la.synthetic_problem(**msgspec.to_builtins(spec.problem), seed=spec.seed)
    initial = msgspec.to_builtins(spec.initial)
    return problem, la.initial_params(problem, **initial, seed=spec.seed)


def with_trained_kernel(
    spec: TrainedKernelSpec | FrozenStageSpec, rounds: int
) -> tuple[la.Problem, la.Params]:
    """Return the problem of a spec and its parameters after some FedAvg rounds."""
    problem, start = prepared(spec)
    result = la.run(
        la.fed_avg(),
        problem,
        start,
        rounds=rounds,
        local_steps=spec.warmup_local_steps,
        local_lr=spec.local_lr,
        metrics=(),
    )
    return problem, result.params


def one_of_identical(problem: la.Problem) -> la.Problem:
    """Return one client of the *identical clients* control.

    Identical clients move identically, so one of them stands for all at a fraction of the cost.
    """
    return la.pool(problem).subset([0])


def stacked(parts: Sequence[xr.Dataset], local_steps: Sequence[int]) -> xr.Dataset:
    """Return the datasets of all numbers of local steps as one, dimension `local_steps` first."""
    import xarray as xr

    coordinate = xr.DataArray(np.array(local_steps), dims="local_steps", name="local_steps")
    # Attributes of the parts differ, but every variable keeps its unit.
    bare = [xr.Dataset(part.data_vars, part.coords) for part in parts]
    return xr.concat(bare, dim=coordinate, combine_attrs="override", join="exact")


def along(dim: str, rows: Sequence[Mapping[str, Any]], units: Mapping[str, str]) -> Variables:
    """Return variables along `dim`, one entry per row, each with its unit."""
    return {
        name: (dim, np.array([row[name] for row in rows]), {"units": units.get(name, "1")})
        for name in rows[0]
    }


def single(values: Mapping[str, Any], units: Mapping[str, str]) -> Variables:
    """Return variables without dimension, each with its unit."""
    return {name: ((), value, {"units": units.get(name, "1")}) for name, value in values.items()}


def reference_variables(reference: la.Reference) -> Variables:
    """Return the reference value of P as variables without dimension (no bound is NaN)."""
    bound = reference.lower_bound
    values = {
        "reference": reference.value,
        "reference_lower_bound": np.nan if bound is None else bound,
        "reference_gradient_norm": reference.gradient_norm,
        "reference_certified": reference.certified,
    }
    units = {"reference_gradient_norm": "loss per parameter", "reference_certified": "1"}
    return single(values, dict.fromkeys(values, "loss") | units)


def best_length(table: xr.Dataset) -> int:
    """Return T* of a warm-up length table, −1 if no entry is stable."""
    star = table.attrs["warmup_star"]
    return -1 if star is None else int(star)


def has_tradeoff(table: xr.Dataset) -> bool:
    """Whether F_never − F(T*) is at least 1e-3 of F(T=0) − F(T*) (lengths 0 and R in the table)."""
    objective, best = table["objective"].values, _best(table)
    fall, price = float(objective[0]) - best, float(objective[-1]) - best
    return bool(np.isfinite(best) and price > 0.0 and price >= TRADEOFF * fall)


def relative_regret(table: xr.Dataset, objective: float) -> float:
    """Return (F − F(T*)) / (F_never − F(T*)), NaN where there is no trade-off.

    0 is the best warm-up length, 1 is never freezing.
    """
    if not has_tradeoff(table):
        return float("nan")
    best, never = _best(table), float(table["objective"][-1])
    if not np.isfinite(never):  # against a diverging run every finite loss is the oracle's
        return 0.0 if np.isfinite(objective) else 1.0
    return (objective - best) / (never - best)


def _best(table: xr.Dataset) -> float:
    return float(np.where(table["stable"], table["objective"], np.inf).min())
