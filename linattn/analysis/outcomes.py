"""The sampled frozen stage without its theory (C20): all outcomes one by one, or many runs.

What `linattn.frozen_moments` says in closed form is measured here on the same settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import combinations, product
from math import comb, prod
from typing import NamedTuple, Unpack

import numpy as np

from linattn._checks import positive_int
from linattn._settings import Sampling, check_local_steps, constant_step, steps_per_client
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.federated import fed_frozen
from linattn.federated.rounds import RoundDriver, RunSettings, Settings, check_settings
from linattn.federated.stretch import stretches
from linattn.linalg import stack_heads
from linattn.objectives.forms import sequence_equations
from linattn.objectives.joint import check_fits
from linattn.objectives.population import population
from linattn.types import Params, Problem

MAX_OUTCOMES = 200_000


class Outcomes(NamedTuple):
    """Every value block that some rounds can lead to.

    Attributes
    ----------
    chances : array, shape (N,)
        Probabilities, summing to one.
    errors : array, shape (N, Hd, m)
        V − V*.
    hessian : array, shape (Hd, Hd)
        A.
    """

    chances: Array
    errors: Array
    hessian: Array

    @property
    def second_moment(self) -> Array:
        """E[(V − V*)(V − V*)ᵀ], (Hd, Hd)."""
        weighted = self.chances[:, None, None] * self.errors
        return np.tensordot(weighted, self.errors, ((0, 2), (0, 2)))

    @property
    def expected_gap(self) -> float:
        """E F(B, V) − P(B)."""
        return 0.5 * float(np.vdot(self.hessian, self.second_moment))


class _Maps(NamedTuple):
    """V -> matrix V + shift, with probabilities: (N,), (N, n, n), (N, n, m)."""

    chances: Array
    matrices: Array
    shifts: Array

    def after(self, first: _Maps) -> _Maps:
        """Each of these after each of `first`, drawn independently."""
        size, outputs = self.shifts.shape[1:]
        shifts = self.matrices[:, None] @ first.shifts + self.shifts[:, None]
        return _Maps(
            np.outer(self.chances, first.chances).reshape(-1),
            (self.matrices[:, None] @ first.matrices).reshape(-1, size, size),
            shifts.reshape(-1, size, outputs),
        )

    def plus(self, other: _Maps) -> _Maps:
        """Each sum of one of these and one of `other`, drawn independently."""
        size, outputs = self.shifts.shape[1:]
        return _Maps(
            np.outer(self.chances, other.chances).reshape(-1),
            (self.matrices[:, None] + other.matrices).reshape(-1, size, size),
            (self.shifts[:, None] + other.shifts).reshape(-1, size, outputs),
        )

    def weighted(self, weight: float) -> _Maps:
        """Averaging weight times each map."""
        return self._replace(matrices=weight * self.matrices, shifts=weight * self.shifts)

    def likely(self, chance: float) -> _Maps:
        """The same maps with probabilities times `chance`."""
        return self._replace(chances=chance * self.chances)


def _joined(parts: list[_Maps]) -> _Maps:
    return _Maps(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def frozen_outcomes(problem: Problem, params: Params, **settings: Unpack[RunSettings]) -> Outcomes:
    """Return every outcome of some frozen rounds with its probability.

    Subsets of clients, minibatches and numbers of local steps are listed, not drawn.

    Parameters
    ----------
    problem : Problem
    params : Params
        Kernel B and the value block V_0.
    **settings
        As in `run`; the seed plays no part.

    Raises
    ------
    ValueError
        If an argument is out of range, or there are more than `MAX_OUTCOMES` outcomes.

    Notes
    -----
    Source: C20. Cost: the number of outcomes times (Hd)³.
    """
    check_fits(problem, params)
    checked = check_settings(**settings)
    check_local_steps(checked.local_steps, problem.num_clients)
    per_round = _count(problem, checked._replace(rounds=1))
    if per_round**checked.rounds > MAX_OUTCOMES:
        raise ValueError(
            f"settings must have at most {MAX_OUTCOMES:,} outcomes to list, got "
            f"{per_round:,} per round in {checked.rounds} rounds."
        )
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        ends = [_client_maps(problem, params, checked, i) for i in range(problem.num_clients)]
        parts = []
        for chance, weights in weight_draws(problem.weights, checked.sampling):
            drawn = np.flatnonzero(weights).tolist()
            mean = reduce(_Maps.plus, [ends[i].weighted(float(weights[i])) for i in drawn])
            parts.append(mean.likely(chance))
        single = _joined(parts)
        system = population(problem).value_system(params.kernels())
        chances, values = np.ones(1), stack_heads(params.value)[None]
        for _ in range(checked.rounds):
            chances = np.outer(single.chances, chances).reshape(-1)
            moved = single.matrices[:, None] @ values + single.shifts[:, None]
            values = moved.reshape(-1, *values.shape[1:])
        return Outcomes(chances, values - system.minimizer, system.hessian)


def weight_draws(weights: Array, sampling: Sampling) -> Iterator[tuple[float, Array]]:
    """Yield the probability and the averaging weights, (C,), of every draw of clients."""
    clients = len(weights)
    draws = sampling.draws(clients)
    if sampling.scheme == "uniform":
        for chosen in combinations(range(clients), draws):
            held = np.zeros(clients)
            held[list(chosen)] = weights[list(chosen)] / weights[list(chosen)].sum()
            yield 1.0 / comb(clients, draws), held
        return
    for listed in product(range(clients), repeat=draws):
        counts = np.bincount(listed, minlength=clients)
        yield float(np.prod(weights[list(listed)])), counts / draws


def _client_maps(problem: Problem, params: Params, settings: Settings, client: int) -> _Maps:
    """All local steps of a client, for every number of them that it may take."""
    step = constant_step("local_lr", settings.local_lr, "the list of outcomes")
    hessians, linears = sequence_equations(problem, params.kernels(), client)
    size, rows = len(hessians), hessians.shape[-1]
    batch = min(settings.batch_size or size, size)
    subsets = np.array(list(combinations(range(size), batch)))
    curved = hessians[subsets].mean(axis=1) + problem.value_ridge * np.eye(rows)
    single = _Maps(
        np.full(len(subsets), 1.0 / len(subsets)),
        np.eye(rows) - step * curved,
        step * linears[subsets].mean(axis=1),
    )
    count = int(steps_per_client(settings.local_steps, problem.num_clients)[client])
    whole, parts = single, []
    for e in range(1, count + 1):
        chance = settings.stragglers / count + (1.0 - settings.stragglers) * (e == count)
        parts += [whole.likely(chance)] if chance > 0.0 else []
        whole = single.after(whole) if e < count else whole
    return _joined(parts)


def count_outcomes(problem: Problem, **settings: Unpack[RunSettings]) -> int:
    """Return how many outcomes `frozen_outcomes` would list, from binomial coefficients alone.

    Parameters
    ----------
    problem : Problem
    **settings
        As in `run`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Source: C20. Cost: the number of subsets of clients, as far as there are few.
    """
    checked = check_settings(**settings)
    check_local_steps(checked.local_steps, problem.num_clients)
    return _count(problem, checked)


def _count(problem: Problem, settings: Settings) -> int:
    clients, draws = problem.num_clients, settings.sampling.draws(problem.num_clients)
    steps = steps_per_client(settings.local_steps, clients).tolist()
    counts = []
    for size, count in zip(problem.client_sizes.tolist(), steps, strict=True):
        subsets = comb(size, min(settings.batch_size or size, size))
        first = 1 if settings.stragglers > 0.0 else count
        counts.append(sum(subsets**e for e in range(first, count + 1)))
    if settings.sampling.scheme == "uniform":
        listed = comb(clients, draws)
        per_draw = (prod(counts[i] for i in s) for s in combinations(range(clients), draws))
    else:
        listed = clients**draws
        tuples = product(range(clients), repeat=draws)
        per_draw = (prod(counts[i] for i in set(s)) for s in tuples)
    total = listed if listed > MAX_OUTCOMES else sum(per_draw)
    return int(total**settings.rounds)


class Ensemble(NamedTuple):
    """Gaps F(B, V) − P(B) at the end of independent runs.

    Attributes
    ----------
    gaps : array, shape (num_runs,)
    """

    gaps: Array

    @property
    def mean(self) -> float:
        """Their mean."""
        return float(self.gaps.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return float(self.gaps.std(ddof=1) / np.sqrt(len(self.gaps)))


def frozen_ensemble(
    problem: Problem, params: Params, *, num_runs: int, **settings: Unpack[RunSettings]
) -> Ensemble:
    """Return the gaps of explicit frozen runs that differ in their seed alone.

    Parameters
    ----------
    problem : Problem
    params : Params
        Kernel B and the value block V_0.
    num_runs : int
        At least 2; seeds count up from that of the settings.
    **settings
        As in `run`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Source: C20. Cost: num_runs frozen runs, none of which keeps a history.
    """
    checked = check_settings(**settings)
    runs = positive_int("num_runs", num_runs, minimum=2)
    method, oracle = fed_frozen(warmup_rounds=0), problem.oracle(params)
    held = population(problem)
    system, gaps = held.value_system(params.kernels()), np.empty(runs)
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        for k in range(runs):
            driver = RoundDriver(
                method, problem, oracle, params, checked._replace(seed=checked.seed + k)
            )
            driver.counts_costs = False
            for _ in stretches(driver):
                pass
            gaps[k] = held.gap(driver.params, system)
    return Ensemble(gaps)
