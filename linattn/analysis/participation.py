"""Tuned ends of two-stage training when part of the clients takes part, for several budgets.

Every method is taken at its best step and length of what it can expect: the mean over draws of the
clients. The choice is made on one half of the draws and measured on the other, both ways round, so
that a method with noisy ends gains nothing from the noise. Where any draw diverges or ends at ten
times the loss of the start, or the frozen stage is unstable, a step and length are not taken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from linattn._checks import MOST_ENTRIES, positive_int, real
from linattn._settings import MOST_STEPS, Sampling
from linattn._threads import one_blas_thread
from linattn._typing import Array, IntArray
from linattn.analysis.bias_drift import SecondStage, loss_after, warmup_path
from linattn.analysis.budget import KINDS, TwoStageCost, affordable, bought
from linattn.analysis.synchronized import finite_profiles
from linattn.federated.settings import check_settings
from linattn.objectives.joint import check_fits
from linattn.objectives.population import population
from linattn.objectives.value import ValueBlock
from linattn.types import Params, Problem

ENDS = ("fed_avg", "fed_frozen", "fed_frozen_all", "fed_frozen_exact")
"""FedAvg to the end; frozen rounds of as many clients, of everybody; one exact round of all."""
MOST_POWERS = 12
DIVERGED = 10.0
"""Losses of the start from which on an end has diverged: after a few rounds it is finite yet."""
INF = float("inf")
Evaluate = Callable[[Params], float]


class Plan(NamedTuple):
    """What is compared.

    Attributes
    ----------
    rounds : int
        R: every budget is what FedAvg of everybody spends in R rounds.
    local_steps : int
        E, the same for all.
    participation : float
        Of the warm-up.
    num_draws : int
        At least two; one run stands for all where nothing is drawn.
    num_lengths : int
        Warm-up lengths per budget.
    seed : int
        Of the first draw.
    """

    rounds: int
    local_steps: int
    participation: float
    num_draws: int = 8
    num_lengths: int = 12
    seed: int = 0


class TunedEnds(NamedTuple):
    """Each of `ENDS` at its best step and length; arrays (3, 4) over `KINDS` and `ENDS`.

    Attributes
    ----------
    loss : array
        Mean F at the end, +inf where no step is stable or the budget buys no exact round.
    profile : array
        Mean P at the same kernels: loss − profile is what the value block misses.
    noise : array
        Mean value noise ½tr(A Cov V) in it, of the frozen rounds.
    score : array
        Mean of `evaluate` there, NaN for frozen rounds of averaging, whose ends are exact in
        expectation only.
    standard_error : array
        Of the mean F over draws; zero where nothing is drawn.
    local_lr : array
        Best step on all draws, 1/curvature.
    interior : array of bool
        Whether a smaller and a larger step were tried and are worse.
    rounds, warmup : array
        Rounds that the budget buys before a second stage, and how many of them are warm-up at best.
    """

    loss: Array
    profile: Array
    noise: Array
    score: Array
    standard_error: Array
    local_lr: Array
    interior: Array
    rounds: Array
    warmup: Array


class _Ends(NamedTuple):
    """At one step: arrays (draws, 3, 4, lengths)."""

    loss: Array
    profile: Array
    noise: Array
    score: Array
    rounds: Array
    warmup: Array


def tuned_ends(
    problem: Problem,
    params: Params,
    plan: Plan,
    *,
    unit_step: float,
    evaluate: Evaluate | None = None,
) -> TunedEnds:
    """Return what FedAvg and FedFrozen reach at one participation of the warm-up, tuned.

    Steps are unit_step times powers of two, further ones until the best of every end is inside.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    plan : Plan
    unit_step : float
        First step size that is tried, 1/curvature.
    evaluate : callable (Params) -> float, optional
        A score of a model, as test accuracy.

    Raises
    ------
    ValueError
        If an argument is out of range, or `frozen_moments` refuses.

    Notes
    -----
    Source: C9, C20. Cost: num_draws runs of up to 2R·C/K rounds per step, and per draw and length a
    profile and two sets of moments.
    """
    check_fits(problem, params)
    unit = real("unit_step", unit_step, above=0.0)
    positive_int("rounds", plan.rounds, maximum=MOST_ENTRIES)
    positive_int("num_draws", plan.num_draws, minimum=2)
    positive_int("num_lengths", plan.num_lengths, minimum=2)
    positive_int("local_steps", plan.local_steps, maximum=MOST_STEPS)
    positive_int("seed", plan.seed, minimum=0, maximum=None)
    real("participation", plan.participation, above=0.0, maximum=1.0)
    everybody = Sampling(plan.participation).is_everybody(problem.num_clients)
    draws = range(1 if everybody else plan.num_draws)
    schedules = [_Schedule(problem, params, plan, draw) for draw in draws]
    found: dict[int, _Ends] = {}
    wanted = [-1, 0, 1]
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        while wanted and len(found) < MOST_POWERS:
            for power in wanted:
                step = unit * 2.0**power
                ends = [_Draw(held, step, evaluate).ends() for held in schedules]
                found[power] = _Ends(*(np.array(arrays) for arrays in zip(*ends, strict=True)))
            wanted = _beyond(found)
        return _chosen(found, unit)


def _mean_losses(found: dict[int, _Ends]) -> Array:
    """The mean losses over draws at the best lengths, (powers, 3, 4)."""
    return np.array([found[k].loss.mean(axis=0).min(axis=-1) for k in sorted(found)])


def _beyond(found: dict[int, _Ends]) -> list[int]:
    """Powers to try next: those beyond an end of the ladder that is the best for something."""
    powers = sorted(found)
    losses = _mean_losses(found)
    best = np.array(powers)[losses.argmin(axis=0)][np.isfinite(losses).any(axis=0)]
    if not best.size:
        return [powers[0] - 1]
    ends = ((powers[0] - 1, powers[0]), (powers[-1] + 1, powers[-1]))
    return [k for k, edge in ends if (best == edge).any()]


def _chosen(found: dict[int, _Ends], unit: float) -> TunedEnds:
    """Everything at the best pairs of step and length, of one half of the draws on the other."""
    powers = sorted(found)
    stacked = {n: np.array([getattr(found[k], n) for k in powers]) for n in _Ends._fields}
    count = stacked["loss"].shape[1]
    halves = [slice(0, None, 2), slice(1, None, 2)] if count > 1 else [slice(None)]

    def pairs(name: str, draws: slice) -> Array:
        """A quantity of some draws at all pairs, (draws, 3, 4, powers · lengths)."""
        moved = np.moveaxis(stacked[name][:, draws], 0, -2)
        return moved.reshape(*moved.shape[:-2], -1)

    diverged = ~np.isfinite(pairs("loss", slice(None))).all(axis=0)

    def across(name: str) -> Array:
        """A quantity of all draws, each at the pair that is best for the other half, (D, 3, 4)."""
        parts = []
        for one, other in zip(halves, reversed(halves), strict=True):
            losses = np.where(diverged, INF, pairs("loss", one).mean(axis=0))
            best = losses.argmin(axis=-1)
            at = np.take_along_axis(pairs(name, other), best[None, ..., None], axis=-1)
            parts.append(at[..., 0])
        return np.concatenate(parts)

    held = {name: across(name) for name in _Ends._fields}
    error = held["loss"].std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else 0.0
    power = np.array(powers)[_mean_losses(found).argmin(axis=0)]
    means = {name: values.mean(axis=0) for name, values in held.items()}
    return TunedEnds(
        **means,
        standard_error=error * np.ones(power.shape),
        local_lr=unit * 2.0**power,
        interior=(power > powers[0]) & (power < powers[-1]),
    )


class _Schedule:
    """What every budget buys when the clients of one draw take part; independent of the step.

    Attributes
    ----------
    lengths : array of int, shape (3, 4, lengths)
        Warm-up lengths of every budget and end, as far as the budget reaches.
    bought : array of int, shape (3, 4, lengths)
        Frozen rounds after each; −1 where an exact round is too dear.
    limit : float
        Loss beyond which an end has diverged.
    """

    def __init__(self, problem: Problem, params: Params, plan: Plan, draw: int) -> None:
        self.problem, self.params, self.plan, self.seed = problem, params, plan, plan.seed + draw
        share, clients = plan.participation, problem.num_clients
        # Unequal clients may spend less than their share: as many rounds again, and some.
        self.most = int(2.0 * plan.rounds * clients / Sampling(share).draws(clients)) + 8
        tables = [self._buy(kind) for kind in KINDS]
        self.lengths, self.bought = (np.array(each) for each in zip(*tables, strict=True))
        self.limit = DIVERGED * population(problem).value_and_gradient(params)[0]

    def _cost(self, kind: str, first: float, second: float) -> TwoStageCost:
        return TwoStageCost(
            self.problem,
            self.params,
            kind,
            local_steps=self.plan.local_steps,
            participation=first,
            frozen_participation=second,
            seed=self.seed,
        )

    def _buy(self, kind: str) -> tuple[IntArray, IntArray]:
        """Lengths and frozen rounds of one budget, each (4, lengths)."""
        share = self.plan.participation
        amount = float(self._cost(kind, 1.0, 1.0).warmup(self.plan.rounds)[-1])
        costs = [self._cost(kind, share, second) for second in (share, 1.0)]
        spent = costs[0].warmup(self.most)
        left = np.full(len(ENDS), amount)
        left[-1] -= costs[0].exact
        most = np.array([affordable(spent[1:], value) if value >= 0.0 else -1 for value in left])
        fractions = np.linspace(0.0, 1.0, self.plan.num_lengths) ** 2
        lengths = np.rint(np.maximum(most, 0)[:, None] * fractions).astype(np.int64)
        lengths[0] = most[0]  # FedAvg goes to the end
        frozen = np.zeros(lengths.shape, dtype=np.int64)
        frozen[-1] = min(most[-1], 0)
        for end, cost in enumerate(costs, start=1):
            frozen[end] = [bought(partial(cost.frozen, t), amount - spent[t]) for t in lengths[end]]
        return lengths, frozen


class _Draw:
    """One warm-up at one step, and everything that is read off it."""

    def __init__(self, held: _Schedule, step: float, evaluate: Evaluate | None) -> None:
        self.problem, self.held, self.evaluate = held.problem, held, evaluate
        settings = check_settings(
            rounds=held.most,
            local_steps=held.plan.local_steps,
            local_lr=step,
            participation=held.plan.participation,
            seed=held.seed,
        )
        self.stages = [
            SecondStage.checked(held.problem, held.params, settings, None, second)
            for second in (held.plan.participation, 1.0)
        ]
        wanted = np.unique(held.lengths).tolist()
        path = warmup_path(held.problem, held.params, wanted, settings)
        self.path = dict(zip(wanted, path, strict=True))
        profiles = finite_profiles(held.problem, path).tolist()
        self.profiles = dict(zip(wanted, profiles, strict=True))
        self._known: dict[tuple[int, int, int], tuple[float, float, float]] = {}

    def ends(self) -> _Ends:
        """All ends, arrays (3, 4, lengths)."""
        lengths, frozen = self.held.lengths, self.held.bought
        found = np.empty((3, *lengths.shape))
        for place in np.ndindex(*lengths.shape):
            key = (place[1], int(lengths[place]), int(frozen[place]))
            if key not in self._known:
                self._known[key] = self._end(*key)
            found[(slice(None), *place)] = self._known[key]
        loss, noise, score = found
        loss = np.where(loss > self.held.limit, INF, loss)
        profile = np.vectorize(self.profiles.__getitem__, otypes=[float])(lengths)
        rounds = np.broadcast_to(lengths.max(axis=-1, keepdims=True), lengths.shape)
        return _Ends(loss, profile, noise, score, rounds.astype(float), lengths.astype(float))

    def _end(self, end: int, t: int, rounds: int) -> tuple[float, float, float]:
        """Loss, noise and score of an end after t warm-up and some frozen rounds."""
        at, profile = self.path[t], self.profiles[t]
        if not np.isfinite(profile) or rounds < 0:
            return INF, 0.0, np.nan
        if ENDS[end] == "fed_avg":
            return profile + ValueBlock(self.problem, at).gap(at.value), 0.0, self._score(at)
        if ENDS[end] == "fed_frozen_exact":
            return profile, 0.0, self._score(at, exact=True)
        stage, moments = self.stages[end - 1].at(self.problem, at)
        if rounds and not (stage.stable if moments is None else moments.stable):
            return INF, 0.0, np.nan
        noise = 0.0 if moments is None else moments.noise(rounds)
        return loss_after(self.problem, at, stage, rounds) + noise, noise, np.nan

    def _score(self, at: Params, *, exact: bool = False) -> float:
        if self.evaluate is None:
            return np.nan
        if exact:
            at = at.replace(value=ValueBlock(self.problem, at).minimizer())
        return self.evaluate(at)
