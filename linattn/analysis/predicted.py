"""The bias-drift trade-off predicted: which warm-up length is best, without the federated run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from linattn._checks import real
from linattn._settings import LocalSteps, Sampling, check_sampling
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.analysis.bias_drift import bias_drift, loss_after, warmup_star
from linattn.analysis.regret import has_tradeoff, relative_regret
from linattn.analysis.study_cell import default_grid
from linattn.analysis.synchronized import check_lengths, finite_profile
from linattn.linalg import finite_or_inf
from linattn.objectives.joint import check_fits
from linattn.objectives.reference import Reference, reference_value
from linattn.theory.ensemble import REACH, PredictedEnsemble, predict_ensemble
from linattn.theory.frozen import frozen_stage
from linattn.theory.prediction import PredictedRun, predict_run
from linattn.theory.weights import weight_moments
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr

COARSER = 4.0
"""The second prediction has a tolerance this many times larger."""
SAFETY = 2.0
"""The estimated error is this many times the change between the two."""
MOVED = 0.05
"""Share of the stake by which T̂ may move between them."""
CHANGED = 0.25
"""Share of its excess by which the expected objective at T̂ may change between them."""
NEAR = 1.0
"""Reach of the sigma points of the second prediction of an ensemble."""


def predict_trade_off(
    problem: Problem,
    params: Params,
    *,
    rounds: int,
    local_steps: LocalSteps,
    local_lr: float,
    warmup_lengths: Sequence[int] | None = None,
    participation: float = 1.0,
    batch_size: int | None = None,
    sampling: str = "uniform",
    tolerance: float = 0.01,
    frozen_lr: float | str | None = None,
    reference: float | Reference | None = None,
) -> xr.Dataset:
    """Return the table of `bias_drift` along the predicted run, and whether to trust it.

    With sampling or minibatches the table is in expectation over all draws, of the warm-up too:
    ``profile`` is E P(B_T), ``objective`` E F(B_T, V_R), the other parts are those of the mean
    path, and ``value_noise`` holds what the spread adds.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start of the warm-up.
    rounds, local_steps, local_lr
        R, E or the E_i, η, as in `bias_drift`.
    warmup_lengths : sequence of int, optional
        T in 0..R; default every one up to 200, else 200 of them; 0 and R are always there.
    participation, batch_size, sampling
        As in `run`, for both stages.
    tolerance : float
        Of `predict_run` or `predict_ensemble`. A second prediction at four times of it, that of an
        ensemble with sigma points at one standard deviation, tells the error.
    frozen_lr : None, float or "safe"
        Step size of the frozen stage, as in `fed_frozen`.
    reference : float or Reference, optional
        P_ref; default `reference_value(problem, like=params)`.

    Returns
    -------
    xarray.Dataset
        As of `bias_drift`; ``warmup_star`` is T̂. Further attributes: ``curve_error``, twice the
        largest change of the objective between the two predictions relative to its excess over
        P_ref; ``trusted`` and ``reason``; ``num_impulses`` and ``num_rejected`` of the prediction;
        ``amplification`` of the run (NaN for ensembles).

        Not trusted where T̂ moves between the predictions by more than 5 % of the stake in value,
        the stake is below 1e-3 of what training gains, the run is chaotic, no length is stable, or
        the expected excess at T̂ changes by more than a quarter.

    Raises
    ------
    TypeError, ValueError
        As `bias_drift`, `predict_run`, `predict_ensemble` and `frozen_moments` do.

    Notes
    -----
    Source: C24, C9; under sampling C19, C20. Cost: two predictions (see `predict_run`,
    `predict_ensemble`), E·R centralized steps, and two eigendecompositions per T; under sampling
    4r + 2 more.
    """
    check_fits(problem, params)
    real("tolerance", tolerance, minimum=0.0)
    asked = default_grid(rounds) if warmup_lengths is None else warmup_lengths
    lengths = check_lengths([0, rounds, *asked], rounds)
    drawn = check_sampling(participation, sampling)
    known = reference_value(problem, like=params) if reference is None else reference
    steps: dict[str, Any] = {"local_steps": local_steps, "local_lr": local_lr}
    stage: dict[str, Any] = {**steps, "frozen_lr": frozen_lr}
    draws: dict[str, Any] = {
        "participation": drawn.participation,
        "sampling": drawn.scheme,
        "batch_size": batch_size,
    }

    def predict(tolerance: float, *, check: bool = False) -> PredictedRun | PredictedEnsemble:
        common: dict[str, Any] = {"rounds": lengths[-1], "tolerance": tolerance, **steps}
        if batch_size is None and drawn.is_everybody(problem.num_clients):
            return predict_run(problem, params, check_chaos=not check, **common)
        reach = NEAR if check else REACH
        return predict_ensemble(problem, params, reach=reach, **common, **draws)

    def along(run: PredictedRun | PredictedEnsemble) -> xr.Dataset:
        found = bias_drift(
            problem,
            params,
            warmup_lengths=lengths,
            rounds=lengths[-1],
            reference=known,
            path=filled(run.path, lengths[-1]),
            **stage,
            **draws,
        )
        if isinstance(run, PredictedRun):
            return found
        return _in_expectation(found, problem, run, drawn, stage)

    run = predict(tolerance)
    table = other = along(run)
    if tolerance > 0.0:
        other = along(predict(COARSER * tolerance, check=True))
    verdict = judge(table, other, run)
    return table.assign_attrs(
        curve_error=SAFETY * curve_error(table, other),
        trusted=verdict.trusted,
        reason=verdict.reason,
        num_impulses=run.num_impulses,
        num_rejected=run.num_rejected,
        amplification=getattr(run, "amplification", float("nan")),
    )


def _in_expectation(
    table: xr.Dataset,
    problem: Problem,
    ensemble: PredictedEnsemble,
    sampling: Sampling,
    stage: dict[str, Any],
) -> xr.Dataset:
    """The table along the mean path with the spread of single runs around it (C19, C20).

    ``profile`` becomes E P(B_T), ``objective`` E F(B_T, V_R), both over N(θ̄_T, Σ_T); what the
    spread of (B_T, V_T) adds to the value drift is counted as ``value_noise``. `stage` are the
    settings of the frozen stage.
    """
    averaging = weight_moments(problem.weights, sampling).mean
    rounds = int(table.attrs["rounds"])

    def final(params: Params, remaining: int) -> float:
        if not np.isfinite(finite_profile(problem, params)):
            return float("inf")
        mean = replace(frozen_stage(problem, params, **stage), averaging=averaging)
        return loss_after(problem, params, mean, remaining)

    shifts = np.zeros((2, table.sizes["warmup"]))
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        for k, t in enumerate(table["warmup"].values.tolist()):
            if np.isfinite(table["objective"].values[k]):
                shifts[0, k] = _shift(ensemble, partial(finite_profile, problem), t)
                shifts[1, k] = _shift(ensemble, partial(final, remaining=rounds - t), t)
    return _shifted(table, *shifts)


def _shift(ensemble: PredictedEnsemble, function: Callable[[Params], float], t: int) -> float:
    """E f(θ_T) − f(θ̄_T), +inf where it is not finite."""
    return finite_or_inf(ensemble.expectation(function, t) - function(ensemble.path[t]))


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


def filled(path: list[Params], rounds: int) -> list[Params]:
    """The path with not-a-number parameters for the rounds after a divergence."""
    lost = Params(path[0].layout, np.full(path[0].flat.size, np.nan))
    return path + [lost] * (rounds + 1 - len(path))


def curve_error(table: xr.Dataset, other: xr.Dataset) -> float:
    """Return max_T |F − F_other| / (F − P_ref) over lengths that are stable in both tables."""
    left, right = table["objective"].values, other["objective"].values
    both = np.isfinite(left) & np.isfinite(right)
    excess = np.maximum(left[both] - table.attrs["reference"], np.finfo(float).tiny)
    return float(np.max(np.abs(left[both] - right[both]) / excess, initial=0.0))


class Verdict(NamedTuple):
    """Whether T̂ is trusted, and why not."""

    trusted: bool
    reason: str


def judge(table: xr.Dataset, other: xr.Dataset, run: PredictedRun | PredictedEnsemble) -> Verdict:
    """Return whether to trust T̂ of `table`, given the table of the second prediction."""
    if table.attrs["warmup_star"] is None:
        return Verdict(False, "no warm-up length is stable")
    if run.outcome.status == "unpredictable":
        return Verdict(False, f"the run is chaotic: {run.outcome.reason}")
    if not has_tradeoff(table):
        return Verdict(False, "the stake is below 1e-3 of what training gains")
    moved = relative_regret(table, objective_at(table, other.attrs["warmup_star"]))
    scattered = "single runs scatter too far for a Gaussian: nearer sigma points"
    if isinstance(run, PredictedEnsemble):
        best, star = (objective_at(held, table.attrs["warmup_star"]) for held in (other, table))
        changed = abs(best - star) / max(star - table.attrs["reference"], np.finfo(float).tiny)
        if not changed <= CHANGED:
            return Verdict(False, f"{scattered} change the excess at T̂ by {changed:.2g} of itself")
    if not moved <= MOVED:
        cause = scattered if isinstance(run, PredictedEnsemble) else "four tolerances"
        return Verdict(False, f"{cause} move T̂ by {moved:.2g} of the stake in value")
    return Verdict(True, "")


def objective_at(table: xr.Dataset, length: int | None) -> float:
    """The objective at a warm-up length of the table, +inf if there is none."""
    if length is None:
        return float("inf")
    (where,) = np.flatnonzero(table["warmup"].values == length)
    return float(table["objective"].values[where])
