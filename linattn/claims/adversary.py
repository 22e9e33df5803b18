"""Search for the instance on which a bound is tightest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import scipy.optimize

from linattn._checks import one_of, positive_int
from linattn._typing import Array
from linattn.claims.judge import Verdict
from linattn.claims.record import Claim, Instance
from linattn.claims.table import check_instance
from linattn.data.tokens import problem_from_tokens
from linattn.objectives.steps import safe_step
from linattn.streams import stream
from linattn.types import Params

DIM, OUTPUTS, CLIENTS, SEQUENCES, TOKENS, RANK = 2, 1, 2, 2, 2, 1
MAX_STEPS = 16
BOX = 3.0
# Where a bound is compared with next to nothing, rounding would decide.
SMALLEST = 1e-6
FORBIDDEN = 1e3
RANDOM_SHARE = 0.25


def sizes(*, factored: bool) -> tuple[int, ...]:
    """Numbers of coordinates: tokens, targets, kernel, value, and six scalars."""
    rows = CLIENTS * SEQUENCES * TOKENS
    kernel = 2 * DIM * RANK if factored else DIM * DIM
    return rows * DIM, rows * OUTPUTS, kernel, DIM * OUTPUTS, 6


def decode(vector: Array, *, factored: bool) -> Instance:
    """Return the instance of a point of the box [−3, 3]^N.

    Two clients with two sequences of two tokens, d = 2, m = 1, token readout. The last six
    coordinates are the weights, both ridges, the step size, the local steps, and the scale of the
    parameters.

    Parameters
    ----------
    vector : array, shape (N,)
    factored : bool
        Whether the kernel is factored, which the search does not vary.
    """
    ends = np.cumsum(sizes(factored=factored))
    tokens, targets, kernel, value, scalars = np.split(vector, ends[:-1])
    lean, value_ridge, kernel_ridge, step, count, scale = scalars / BOX
    share = 1.0 / (1.0 + np.exp(-4.0 * lean))
    rows = (CLIENTS, SEQUENCES, TOKENS)
    problem = problem_from_tokens(
        list(zip(tokens.reshape(*rows, DIM), targets.reshape(*rows, OUTPUTS), strict=True)),
        weights=[share, 1.0 - share],
        value_ridge=_between(value_ridge, 1e-4, 1.0),
        kernel_ridge=_between(kernel_ridge, 1e-4, 1.0),
    )
    params = _params(_between(scale, 0.1, 3.0), kernel, value, factored=factored)
    return Instance(
        problem,
        params,
        rounds=2,
        local_steps=round(_between(count, 1.0, MAX_STEPS)),
        local_lr=2.0 * _between(step, 1e-3, 2.0) * safe_step(problem, params),
    )


def _between(unit: float, low: float, high: float) -> float:
    """Log-uniform in [low, high] of a coordinate in [−1, 1]."""
    return float(np.exp(np.log(low) + 0.5 * (1.0 + unit) * (np.log(high) - np.log(low))))


def _params(scale: float, kernel: Array, value: Array, *, factored: bool) -> Params:
    block = scale * value.reshape(1, DIM, OUTPUTS)
    if not factored:
        return Params.merged(scale * kernel.reshape(1, DIM, DIM), block)
    query, key = np.split(np.sqrt(scale) * kernel, 2)
    return Params.factored(query.reshape(1, DIM, RANK), key.reshape(1, DIM, RANK), block)


class Part(NamedTuple):
    """What one optimizer found from random points of its own.

    Attributes
    ----------
    vector : array, shape (N,)
        The best point of the box, which `decode` makes an instance of.
    value : float
        log(tightness) there; at least `FORBIDDEN` if nothing was usable.
    at_random : bool
        Whether a random point was never improved on.
    random : array
        log(tightness) of the random points where it is defined.
    evaluations : int
    """

    vector: Array
    value: float
    at_random: bool
    random: Array
    evaluations: int


class _ExhaustedError(Exception):
    """The evaluations of a search are used up."""


class _Objective:
    """log(tightness) at a point, with a count and the best point so far."""

    def __init__(self, claim: Claim, *, factored: bool) -> None:
        self.claim, self.factored = claim, factored
        self.size = sum(sizes(factored=factored))
        self.count, self.limit = 0, 0
        self.best, self.best_value = np.zeros(self.size), np.inf

    def __call__(self, vector: Array) -> float:
        if self.count >= self.limit:
            raise _ExhaustedError
        self.count += 1
        point = np.clip(vector, -BOX, BOX)
        value = _log_tightness(self.claim, decode(point, factored=self.factored))
        if value < self.best_value:
            self.best, self.best_value = point.copy(), value
        return value


def _log_tightness(claim: Claim, instance: Instance) -> float:
    """Penalized where the claim is refused or measures next to nothing."""
    verdict = check_instance(claim, instance)
    if not _usable(verdict):
        return FORBIDDEN + min(1e3, -sum(c.slack for c in verdict.unmet if c.slack < 0.0))
    return float(np.log(verdict.tightness))


def _usable(verdict: Verdict) -> bool:
    judged = verdict.status in ("holds", "violated")
    large = abs(verdict.measured) > SMALLEST * verdict.scale
    return bool(judged and large and np.isfinite(verdict.tightness) and verdict.tightness > 0.0)


def search(
    claim: Claim, optimizer: str, *, evaluations: int, factored: bool = False, seed: int = 0
) -> Part:
    """Search small problems for the one on which a bound is tightest.

    A quarter of the evaluations are random points, the rest belongs to the optimizer, which starts
    from the best of them.

    Parameters
    ----------
    claim : Claim
        An upper or lower bound.
    optimizer : {"differential evolution", "dual annealing", "Nelder–Mead"}
    evaluations : int
    factored : bool
        Whether kernels are factored.
    seed : int
        Of the random points and the optimizer.

    Raises
    ------
    ValueError
        For identities and reports, which have no tightness.

    Notes
    -----
    Source: Where everything is. Cost: that of the evaluations.
    """
    one_of("optimizer", optimizer, OPTIMIZERS)
    if claim.kind not in ("upper", "lower"):
        raise ValueError(f"claim must be an upper or lower bound, got {claim.id} ({claim.kind}).")
    objective = _Objective(claim, factored=factored)
    objective.limit = max(1, round(RANDOM_SHARE * positive_int("evaluations", evaluations)))
    draw = stream(seed, "adversary")
    points = np.clip(draw.normal(size=(objective.limit, objective.size)), -BOX, BOX)
    values = np.array([objective(point) for point in points])
    best, objective.limit = objective.best_value, evaluations
    with suppress(_ExhaustedError):
        OPTIMIZERS[optimizer](objective, points[np.argsort(values)], seed)
    return Part(
        objective.best,
        objective.best_value,
        objective.best_value == best,
        values[values < FORBIDDEN],
        objective.count,
    )


Search = Callable[[_Objective, Array, int], object]


def _evolve(objective: _Objective, ranked: Array, seed: int) -> object:
    bounds = [(-BOX, BOX)] * objective.size
    return scipy.optimize.differential_evolution(
        objective, bounds, init=ranked[: 2 * objective.size], maxiter=10**6, tol=0.0,
        polish=False, seed=seed,
    )  # fmt: skip


def _anneal(objective: _Objective, ranked: Array, seed: int) -> object:
    bounds = [(-BOX, BOX)] * objective.size
    return scipy.optimize.dual_annealing(
        objective, bounds, x0=ranked[0], maxiter=10**6, seed=seed, no_local_search=True
    )


def _descend(objective: _Objective, ranked: Array, seed: int) -> object:
    """From the best point of all, then again from where it stopped, until nothing is left."""
    options = {"maxfev": 10**6, "adaptive": True, "xatol": 1e-10, "fatol": 1e-12}
    while True:
        before = objective.best_value
        scipy.optimize.minimize(objective, objective.best, method="Nelder-Mead", options=options)
        if objective.best_value > before - 1e-9:
            return None


OPTIMIZERS: dict[str, Search] = {
    "differential evolution": _evolve,
    "dual annealing": _anneal,
    "Nelder–Mead": _descend,
}
