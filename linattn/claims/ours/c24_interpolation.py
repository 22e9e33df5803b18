"""C24: a run from its centralized rounds and the drift impulses of some rounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.analysis.predicted import COARSER, SAFETY, objective_at, predict_trade_off
from linattn.analysis.regret import has_tradeoff, relative_regret
from linattn.claims.along import every_length, server_path
from linattn.claims.conditions import CLOSED_FORM, DIVERGED, yes_or_no
from linattn.claims.orders import LEAST_STEP, Errors, settled
from linattn.claims.record import Claim, Constant, Instance, Measurement, Requirement, shared
from linattn.objectives.steps import safe_step
from linattn.theory.impulse import RoundMaps
from linattn.theory.interpolation import ORDER, Clock, Forced, retraced
from linattn.theory.prediction import CHAOS, PredictedRun, predict_run, prediction_error

HORIZON, ROUNDS, INTERVALS = 0.25, 96, (24, 12, 6)
"""Of the order in the interval: τ times the curvature, rounds, and rounds between impulses."""
TOLERANCE = 0.01
WORTH_ESTIMATING = 1e-8
"""Relative error below which no impulse was in doubt and both tolerances take the same path."""
LONG, MOST_STEPS = 60, 10
"""Rounds and local steps of the random runs that are predicted from a few impulses."""
SMALL = 0.05
"""Least step size of these, times the curvature."""


@shared
def _path(instance: Instance) -> Array:
    return server_path(instance)


def _run(instance: Instance, tolerance: float, *, check_chaos: bool = False) -> PredictedRun:
    return predict_run(
        instance.problem,
        instance.params,
        rounds=instance.rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        tolerance=tolerance,
        check_chaos=check_chaos,
    )


@shared
def _every_round(instance: Instance) -> PredictedRun:
    return _run(instance, 0.0, check_chaos=True)


def _largest(rows: Array) -> float:
    return float(np.linalg.norm(rows, axis=1).max())


def _equality(instance: Instance) -> Measurement:
    """All rounds, every impulse measured."""
    path, found = _path(instance), _every_round(instance)
    growth = max(1.0, found.amplification)
    return Measurement(
        _largest(path),
        _largest(found.flats),
        _largest(path) * growth,
        residual=_largest(found.flats - path),
        constants=(Constant("amplification", found.amplification, "of a start moved by 1e-9"),),
    )


@shared
def _interval_errors(instance: Instance) -> Errors:
    """The largest ‖θ_predicted − θ‖ over rounds, at halved intervals of a short run."""
    size = HORIZON * 2.0 * safe_step(instance.problem, instance.params)
    size /= ROUNDS * instance.local_steps
    path = server_path(instance, rounds=ROUNDS, local_lr=size)
    maps = RoundMaps(
        instance.problem, instance.params, local_steps=instance.local_steps, local_lr=size
    )
    course, start = Forced(maps, Clock.of(maps, ROUNDS)), instance.params.flat
    stops = [range(k, ROUNDS + 1, k) for k in INTERVALS]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        drafts = [retraced(course, start, listed) for listed in stops]
    whole = [size > LEAST_STEP and len(path) == len(d) == ROUNDS + 1 for d in drafts]
    apart = [_largest(d - path) if fine else np.inf for d, fine in zip(drafts, whole, strict=True)]
    return Errors.of(INTERVALS, apart, _largest(path))


class _Pair(NamedTuple):
    """Largest relative error of the finer prediction, and the largest estimate of it."""

    error: float
    estimate: float
    impulses: int


@shared
def _two(instance: Instance) -> _Pair:
    coarse, fine = (_run(instance, times * TOLERANCE) for times in (COARSER, 1.0))
    path = _path(instance)
    count = min(len(path), len(fine.path))
    apart = np.linalg.norm(fine.flats[:count] - path[:count], axis=1)
    sizes = np.maximum(np.linalg.norm(path[:count], axis=1), np.finfo(float).tiny)
    return _Pair(
        float((apart / sizes).max()),
        SAFETY * float(prediction_error(coarse, fine).max()),
        fine.num_impulses + fine.num_rejected,
    )


def _estimate(instance: Instance) -> Measurement:
    found = _two(instance)
    count = Constant("impulses", found.impulses, f"of {instance.rounds} rounds, with rejected ones")
    return Measurement(found.error, found.estimate, 1.0, constants=(count,))


def _regret(instance: Instance) -> Measurement:
    """Of T̂, beside 0 for the oracle."""
    table = every_length(instance)
    predicted = predict_trade_off(
        instance.problem,
        instance.params,
        rounds=instance.rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        reference=0.0,
    )
    regret = relative_regret(table, objective_at(table, predicted.attrs["warmup_star"]))
    trusted = Constant("trusted", float(predicted.attrs["trusted"]), "by two tolerances")
    return Measurement(regret, 0.0, 1.0, constants=(trusted,))


def longer(instance: Instance) -> Instance:
    """Sixty rounds of ten local steps, not too small to get anywhere."""
    least = SMALL * 2.0 * safe_step(instance.problem, instance.params)
    step = max(least, instance.local_lr)
    return instance._replace(rounds=LONG, local_steps=MOST_STEPS, local_lr=step)


def hurried(instance: Instance) -> Instance:
    """The same with a step of 1/curvature, whose drift may undo what it gains."""
    safe = safe_step(instance.problem, instance.params)
    return longer(instance)._replace(local_lr=2.0 * safe)


def few_steps(instance: Instance) -> Instance:
    """Up to ten local steps, which take less time than fifty."""
    return instance._replace(local_steps=min(MOST_STEPS, instance.local_steps))


FINITE = yes_or_no(
    "finite trajectory",
    lambda at: len(_path(at)) == len(_every_round(at).flats) == at.rounds + 1,
    DIVERGED,
    essential=True,
)
TAME = Requirement(
    f"moves of the start grow at most {CHAOS:g} times",
    lambda at: CHAOS - _every_round(at).amplification,
)
CLAIMS = (
    Claim(
        "C24",
        "θ⁺ = Φ(θ) + I(θ) with every impulse measured is the run, all rounds",
        "identity",
        "Drift as impulses",
        _equality,
        needs=CLOSED_FORM,
        conditions=(FINITE, TAME),
    ),
    Claim(
        "C24 order",
        f"impulses every k rounds and parabolas between them: FedAvg up to O(k^{ORDER + 1})",
        "order",
        "Drift as impulses",
        lambda at: _interval_errors(at).against(ORDER + 1.0),
        needs=CLOSED_FORM,
        conditions=(settled("orders at halved k agree within 0.1", _interval_errors),),
        share=0.05,
        record=1_000,
        suit=few_steps,
    ),
    Claim(
        "C24 estimate",
        "relative error of the path at tolerance .01 ≤ twice its change from tolerance .04",
        "mostly",
        "Drift as impulses",
        _estimate,
        needs=CLOSED_FORM,
        conditions=(
            FINITE,
            TAME,
            Requirement(
                f"a relative error above {WORTH_ESTIMATING:g}",
                lambda at: _two(at).error - WORTH_ESTIMATING,
            ),
        ),
        share=0.05,
        record=1_000,
        suit=longer,
    ),
    Claim(
        "C24 regret",
        "relative regret of the predicted warm-up length, beside 0 for the oracle",
        "report",
        "Drift as impulses",
        _regret,
        needs=CLOSED_FORM,
        conditions=(
            FINITE,
            TAME,
            yes_or_no(
                "a stake of at least 1e-3", lambda at: has_tradeoff(every_length(at)), "none in it"
            ),
        ),
        share=0.05,
        record=100,
        suit=hurried,
    ),
)
