"""The predicted trade-off under sampling and minibatches: in expectation over all draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from linattn._settings import LocalSteps, Sampling
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.analysis.bias_drift import loss_after, warmup_star
from linattn.analysis.synchronized import finite_profile
from linattn.theory.ensemble import PredictedEnsemble
from linattn.theory.frozen import frozen_stage
from linattn.theory.weights import weight_moments
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr


def in_expectation(
    table: xr.Dataset,
    problem: Problem,
    ensemble: PredictedEnsemble,
    *,
    local_steps: LocalSteps,
    local_lr: float,
    frozen_lr: float | str | None,
    sampling: Sampling,
) -> xr.Dataset:
    """Return the table along the mean path with the spread of single runs around it.

    ``profile`` becomes E P(B_T), ``objective`` E F(B_T, V_R), both over N(θ̄_T, Σ_T); what the
    spread of (B_T, V_T) adds to the value drift is counted as ``value_noise``.

    Parameters
    ----------
    table : Dataset
        Of `bias_drift` along ``ensemble.path``, with the same settings.
    problem, ensemble
    local_steps, local_lr, frozen_lr, sampling
        Of the frozen stage.

    Notes
    -----
    Source: C19, C20. Cost: 2r + 1 eigendecompositions per length.
    """
    averaging = weight_moments(problem.weights, sampling).mean
    rounds = int(table.attrs["rounds"])

    def final(remaining: int) -> Callable[[Params], float]:
        def objective(params: Params) -> float:
            if not np.isfinite(finite_profile(problem, params)):
                return float("inf")
            stage = frozen_stage(
                problem, params, local_steps=local_steps, local_lr=local_lr, frozen_lr=frozen_lr
            )
            return loss_after(problem, params, replace(stage, averaging=averaging), remaining)

        return objective

    shifts = np.zeros((2, table.sizes["warmup"]))
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        for k, t in enumerate(table["warmup"].values.tolist()):
            if np.isfinite(table["objective"].values[k]):
                shifts[0, k] = _shift(ensemble, partial(finite_profile, problem), t)
                shifts[1, k] = _shift(ensemble, final(rounds - t), t)
    return _shifted(table, *shifts)


def _shift(ensemble: PredictedEnsemble, function: Callable[[Params], float], t: int) -> float:
    """E f(θ_T) − f(θ̄_T), +inf where it is not finite."""
    shift = ensemble.expectation(function, t) - function(ensemble.path[t])
    return shift if np.isfinite(shift) else float("inf")


def _shifted(table: xr.Dataset, profile: Array, objective: Array) -> xr.Dataset:
    changes = {
        "profile": profile,
        "kernel_bias": profile,
        "objective": objective,
        "value_noise": np.where(np.isfinite(objective), objective - profile, np.inf),
    }
    shifted = table.assign(
        {name: table[name].copy(data=table[name].values + x) for name, x in changes.items()}
    )
    best = warmup_star(
        shifted["warmup"].values.tolist(), shifted["objective"].values, shifted["stable"].values
    )
    return shifted.assign_attrs(warmup_star=best)
