"""C23: every pass along a predicted path is of one order more in the drift number."""

from itertools import islice

import numpy as np

from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.claims.along import server_path
from linattn.claims.conditions import CLOSED_FORM
from linattn.claims.orders import LEAST_STEP, Errors, slack_of
from linattn.claims.record import Claim, Constant, Instance, Measurement, Requirement, shared
from linattn.objectives.steps import safe_step
from linattn.theory.impulse import RoundMaps
from linattn.theory.interpolation import Clock
from linattn.theory.prediction import iterated

PASSES = (0, 1, 2, 3)
HORIZON = 3.0
"""τ times the curvature, a short run."""
ROUNDS = 32
"""At the largest drift number; twice as many at every halving of η, for the same horizon."""
HALVINGS = 3
MOST_STEPS = 5


def _steps(instance: Instance) -> list[float]:
    """η, halved, for which the rounds reach the horizon."""
    longest = HORIZON * 2.0 * safe_step(instance.problem, instance.params)
    return [longest / (instance.local_steps * ROUNDS * 2**h) for h in range(HALVINGS)]


@shared
def _paths(instance: Instance) -> list[Array]:
    sizes = _steps(instance)
    return [
        server_path(instance, rounds=ROUNDS * 2**h, local_lr=size) for h, size in enumerate(sizes)
    ]


def _apart(instance: Instance, path: Array, size: float, rounds: int) -> list[float]:
    """The largest distance over rounds of every pass from a run; inf where one is not whole."""
    maps = RoundMaps(
        instance.problem, instance.params, local_steps=instance.local_steps, local_lr=size
    )
    found = iterated(maps, Clock.of(maps, rounds), instance.params.flat, tolerance=0.0)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"), one_blas_thread():
        drafts = list(islice(found, len(PASSES)))
    apart = [
        float(np.linalg.norm(draft.flats - path, axis=1).max())
        for draft in drafts
        if size > LEAST_STEP and draft.outcome.status == "completed" and len(path) > rounds
    ]
    return apart + [float("inf")] * (len(PASSES) - len(apart))


@shared
def _errors(instance: Instance) -> list[Errors]:
    """Of every number of passes, at halved drift numbers."""
    sizes, paths = _steps(instance), _paths(instance)
    drifts = [0.5 * size * (instance.local_steps - 1) for size in sizes]
    largest = max(float(np.linalg.norm(path, axis=1).max()) for path in paths)
    rounds = [ROUNDS * 2**h for h in range(HALVINGS)]
    apart = [_apart(instance, *row) for row in zip(paths, sizes, rounds, strict=True)]
    return [Errors.of(drifts, row, largest) for row in zip(*apart, strict=True)]


def _slack(instance: Instance) -> float:
    """Least over the numbers of passes that leave an error."""
    return min(slack_of(errors) for errors in _errors(instance))


def _order(instance: Instance) -> Measurement:
    """That of the number of passes whose order falls short the most."""
    found = [errors.against(k + 1.0) for k, errors in zip(PASSES, _errors(instance), strict=True)]
    fitted = [one for one in found if one.scale > 0.0]
    worst = max(fitted, key=lambda one: one.bound - one.measured, default=found[0])
    orders = (Constant(f"k = {one.bound - 1.0:g}", one.measured, "order") for one in fitted)
    return worst._replace(constants=tuple(orders))


def few_steps(instance: Instance) -> Instance:
    """Up to five local steps, which take less time than fifty."""
    return instance._replace(local_steps=min(MOST_STEPS, instance.local_steps))


CLAIMS = (
    Claim(
        "C23",
        "k passes of θ⁺ = Φ(θ) + I(previous path) are FedAvg up to O(s^{k+1}), k = 0..3, short run",
        "order",
        "Drift as impulses",
        _order,
        needs=CLOSED_FORM,
        conditions=(Requirement("orders at halved s agree within 0.1", _slack),),
        share=0.05,
        record=1_000,
        suit=few_steps,
    ),
)
