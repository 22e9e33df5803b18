"""The bias-drift trade-off predicted: which warm-up length is best, without the federated run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from linattn._checks import real
from linattn.analysis.bias_drift import bias_drift
from linattn.analysis.centralized import CentralizedDescent
from linattn.analysis.regret import has_tradeoff, relative_regret
from linattn.analysis.study_cell import default_grid
from linattn.analysis.synchronized import check_lengths
from linattn.objectives.joint import check_fits
from linattn.objectives.reference import Reference, reference_value
from linattn.theory.prediction import PredictedRun, predict_run
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr

COARSER = 3.0
"""The second prediction has a tolerance this many times larger."""
MOVED = 0.05
"""Share of the stake by which T̂ may move between two tolerances."""


def predict_trade_off(
    problem: Problem,
    params: Params,
    *,
    rounds: int,
    local_steps: int,
    local_lr: float,
    warmup_lengths: Sequence[int] | None = None,
    tolerance: float = 0.01,
    frozen_lr: float | str | None = None,
    reference: float | Reference | None = None,
) -> xr.Dataset:
    """Return the table of `bias_drift` along the predicted run, and whether to trust it.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start of the warm-up.
    rounds, local_steps, local_lr
        R, E, η, as in `bias_drift`.
    warmup_lengths : sequence of int, optional
        T in 0..R; default every one up to 200, else 200 of them; 0 and R are always there.
    tolerance : float
        Of `predict_run`. A second prediction at three times of it tells the error.
    frozen_lr : None, float or "safe"
        Step size of the frozen stage, as in `fed_frozen`.
    reference : float or Reference, optional
        P_ref; default `reference_value(problem, like=params)`.

    Returns
    -------
    xarray.Dataset
        As of `bias_drift`, with further attributes: ``curve_error``, the largest change of the
        objective between the two tolerances relative to its excess over P_ref; ``trusted`` and
        ``reason``; ``num_impulses``, ``num_rejected`` and ``amplification`` of the prediction.
        ``warmup_star`` is T̂. Not trusted where T̂ moves between the tolerances by more than 5 % of
        the stake in value, the stake is below 1e-3 of what training gains, the run is chaotic, or
        no length is stable.

    Raises
    ------
    TypeError, ValueError
        As `bias_drift` and `predict_run` do.

    Notes
    -----
    Source: C24, C9. Cost: two predictions (see `predict_run`), E·R centralized steps, and two
    eigendecompositions per T.
    """
    check_fits(problem, params)
    real("tolerance", tolerance, minimum=0.0)
    asked = default_grid(rounds) if warmup_lengths is None else warmup_lengths
    lengths = check_lengths([0, rounds, *asked], rounds)
    found = reference_value(problem, like=params) if reference is None else reference
    descent = CentralizedDescent(problem, params, local_lr)

    def predicted(tolerance: float, *, check_chaos: bool) -> tuple[PredictedRun, xr.Dataset]:
        run = predict_run(
            problem,
            params,
            rounds=rounds,
            local_steps=local_steps,
            local_lr=local_lr,
            tolerance=tolerance,
            check_chaos=check_chaos,
        )
        return run, bias_drift(
            problem,
            params,
            warmup_lengths=lengths,
            rounds=rounds,
            local_steps=local_steps,
            local_lr=local_lr,
            frozen_lr=frozen_lr,
            reference=found,
            path=filled(run, rounds),
            descent=descent,
        )

    fine, table = predicted(tolerance, check_chaos=True)
    other = predicted(COARSER * tolerance, check_chaos=False)[1] if tolerance > 0.0 else table
    verdict = judge(table, other, fine)
    return table.assign_attrs(
        curve_error=curve_error(table, other),
        trusted=verdict.trusted,
        reason=verdict.reason,
        num_impulses=fine.num_impulses,
        num_rejected=fine.num_rejected,
        amplification=fine.amplification,
    )


def filled(run: PredictedRun, rounds: int) -> list[Params]:
    """The path with not-a-number parameters for the rounds after a divergence."""
    start = run.path[0]
    lost = Params(start.layout, np.full(start.flat.size, np.nan))
    return run.path + [lost] * (rounds + 1 - len(run.path))


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


def judge(table: xr.Dataset, other: xr.Dataset, run: PredictedRun) -> Verdict:
    """Return whether to trust T̂ of `table`, given the table at a larger tolerance."""
    if table.attrs["warmup_star"] is None:
        return Verdict(False, "no warm-up length is stable")
    if run.outcome.status == "unpredictable":
        return Verdict(False, f"the run is chaotic: {run.outcome.reason}")
    if not has_tradeoff(table):
        return Verdict(False, "the stake is below 1e-3 of what training gains")
    moved = relative_regret(table, objective_at(table, other.attrs["warmup_star"]))
    if not moved <= MOVED:
        return Verdict(False, f"three tolerances move T̂ by {moved:.2g} of the stake in value")
    return Verdict(True, "")


def objective_at(table: xr.Dataset, length: int | None) -> float:
    """The objective at a warm-up length of the table, +inf if there is none."""
    if length is None:
        return float("inf")
    (where,) = np.flatnonzero(table["warmup"].values == length)
    return float(table["objective"].values[where])
