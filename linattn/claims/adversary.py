"""Search for the instance on which a bound is tightest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import numpy as np
import scipy.optimize

from linattn._checks import positive_int, real
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
OPTIMIZERS = ("differential evolution", "dual annealing", "Nelder–Mead")


class Shape(NamedTuple):
    """What the search does not vary: the parametrization of the kernel."""

    factored: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of coordinates: tokens, targets, kernel, value, and six scalars."""
        rows = CLIENTS * SEQUENCES * TOKENS
        kernel = 2 * DIM * RANK if self.factored else DIM * DIM
        return rows * DIM, rows * OUTPUTS, kernel, DIM * OUTPUTS, 6

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return sum(self.sizes)


def decode(vector: Array, shape: Shape) -> Instance:
    """Return the instance of a point of the box [−3, 3]^N.

    Two clients with two sequences of two tokens, d = 2, m = 1, token readout. The last six
    coordinates are the weights, both ridges, the step size, the local steps, and the scale of the
    parameters.

    Parameters
    ----------
    vector : array, shape (N,)
    shape : Shape

    """
    ends = np.cumsum(shape.sizes)
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
    params = _params(_between(scale, 0.1, 3.0), kernel, value, shape)
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


def _params(scale: float, kernel: Array, value: Array, shape: Shape) -> Params:
    block = scale * value.reshape(1, DIM, OUTPUTS)
    if not shape.factored:
        return Params.merged(scale * kernel.reshape(1, DIM, DIM), block)
    query, key = np.split(np.sqrt(scale) * kernel, 2)
    return Params.factored(query.reshape(1, DIM, RANK), key.reshape(1, DIM, RANK), block)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes
    ----------
    claim : str
    factored : bool
    vector : tuple of float
        The point of the box that `decode` makes the instance of.
    tightness : float
        bound/measured (upper) or measured/bound (lower), 1 is tight.
    random_quantile : float
        The tightness that one in a thousand random instances reaches.
    evaluations : int
    optimizer : str
        Which of the three found it, or "random search".
    """

    claim: str
    factored: bool
    vector: tuple[float, ...]
    tightness: float
    random_quantile: float
    evaluations: int
    optimizer: str

    @property
    def instance(self) -> Instance:
        """The instance."""
        return decode(np.array(self.vector), Shape(self.factored))

    def __repr__(self) -> str:
        return (
            f"Found({self.claim}: tightness {self.tightness:.6g} by {self.optimizer} in "
            f"{self.evaluations} evaluations; random search {self.random_quantile:.6g} at 99.9 %)"
        )


class _Exhausted(Exception):
    """The evaluations or the time of a search are used up."""


class _Objective:
    """log(tightness) at a point, with a count, a clock and the best point so far."""

    def __init__(self, claim: Claim, shape: Shape, seconds: float) -> None:
        self.claim, self.shape = claim, shape
        self.deadline = perf_counter() + seconds
        self.count, self.limit = 0, 0
        self.best, self.best_value, self.found_by = np.zeros(shape.size), FORBIDDEN, ""
        self.name = "random search"

    def __call__(self, vector: Array) -> float:
        if self.count >= self.limit or perf_counter() > self.deadline:
            raise _Exhausted
        self.count += 1
        point = np.clip(vector, -BOX, BOX)
        value = _log_tightness(self.claim, decode(point, self.shape))
        if value < self.best_value:
            self.best, self.best_value, self.found_by = point.copy(), value, self.name
        return value


def _log_tightness(claim: Claim, instance: Instance) -> float:
    """Penalized where the claim is refused or measures next to nothing."""
    try:
        verdict = check_instance(claim, instance)
    except (ValueError, np.linalg.LinAlgError):
        return FORBIDDEN
    if not _usable(verdict):
        return FORBIDDEN + min(1e3, -sum(c.slack for c in verdict.unmet))
    return float(np.log(verdict.tightness))


def _usable(verdict: Verdict) -> bool:
    judged = verdict.status in ("holds", "violated")
    large = abs(verdict.measured) > SMALLEST * verdict.scale
    return bool(judged and large and np.isfinite(verdict.tightness) and verdict.tightness > 0.0)


def search(
    claim: Claim,
    *,
    evaluations: int = 20_000,
    seconds: float = 600.0,
    factored: bool = False,
    seed: int = 0,
) -> Found:
    """Search small problems for the one on which a bound is tightest.

    A quarter of the evaluations is random search; three optimizers share the rest, each from the
    best random points.

    Parameters
    ----------
    claim : Claim
        An upper or lower bound.
    evaluations : int
    seconds : float
        The search ends at whichever limit comes first.
    factored : bool
        Whether kernels are factored.
    seed : int

    Raises
    ------
    ValueError
        For identities and reports, which have no tightness, and if nothing usable was found.

    Notes
    -----
    Cost: that of the evaluations.
    """
    if claim.kind not in ("upper", "lower"):
        raise ValueError(f"claim must be an upper or lower bound, got {claim.id} ({claim.kind}).")
    positive_int("evaluations", evaluations)
    real("seconds", seconds, above=0.0)
    shape = Shape(factored)
    objective = _Objective(claim, shape, seconds)
    points, values = _random_search(objective, round(RANDOM_SHARE * evaluations), seed)
    share = (evaluations - objective.count) // len(OPTIMIZERS)
    for name, optimize in zip(OPTIMIZERS, (_evolve, _anneal, _descend), strict=True):
        objective.name, objective.limit = name, objective.count + share
        try:
            optimize(objective, points[np.argsort(values)], seed)
        except _Exhausted:
            continue
    if objective.best_value >= FORBIDDEN:
        raise ValueError(f"claim {claim.id} was refused on all {objective.count} instances tried.")
    usable = values[values < FORBIDDEN]
    rare = float(np.exp(np.quantile(usable, 0.001))) if len(usable) else float("inf")
    return Found(
        claim.id,
        factored,
        tuple(objective.best.tolist()),
        float(np.exp(objective.best_value)),
        rare,
        objective.count,
        objective.found_by,
    )


def _random_search(objective: _Objective, count: int, seed: int) -> tuple[Array, Array]:
    """Standard normal points and their values."""
    objective.limit = count
    draw = stream(seed, "adversary")
    points, values = [], []
    for _ in range(count):
        point = np.clip(draw.normal(size=objective.shape.size), -BOX, BOX)
        try:
            values.append(objective(point))
        except _Exhausted:
            break
        points.append(point)
    return np.array(points).reshape(-1, objective.shape.size), np.array(values)


Search = Callable[[_Objective, Array, int], object]


def _evolve(objective: _Objective, ranked: Array, seed: int) -> object:
    bounds = [(-BOX, BOX)] * objective.shape.size
    return scipy.optimize.differential_evolution(
        objective, bounds, init=ranked[: 2 * objective.shape.size], maxiter=10**6, tol=0.0,
        polish=False, seed=seed,
    )  # fmt: skip


def _anneal(objective: _Objective, ranked: Array, seed: int) -> object:
    bounds = [(-BOX, BOX)] * objective.shape.size
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
