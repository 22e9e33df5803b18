"""All clients as one: gradient steps on F, or on F_q = Σ q_i F_i, without clients."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import NamedTuple

import numpy as np

from linattn._settings import mean_local_steps, steps_per_client
from linattn._typing import Array, IntArray
from linattn.objectives.moment_form import MomentForm
from linattn.objectives.population import Population, population
from linattn.oracles.protocol import Draws, LocalTask, LocalTrace, Oracle, explicit_steps
from linattn.oracles.statistics import StatisticsOracle
from linattn.types import Federation, Params, Statistics, single_layer

# A mean number of steps above an integer by rounding only is that integer.
COUNT_SLACK = 1e-9


class CentralWork(NamedTuple):
    """What one round of local steps is without clients.

    Attributes
    ----------
    weights : array, shape (C,)
        q_i = p_iE_i/Ē with Ē = Σ p_iE_i.
    steps : int
        ⌈Ē⌉ gradient steps on F_q,
    scale : float
        of size η·Ē/⌈Ē⌉: the factor of η.
    """

    weights: Array
    steps: int
    scale: float


def central_work(
    weights: Array, local_steps: int | IntArray, *, stragglers: float = 0.0
) -> CentralWork:
    """Return the centralized steps that a round of local steps amounts to; E on F if all equal.

    Parameters
    ----------
    weights : array, shape (C,)
        p_i.
    local_steps : int or array of int, shape (C,)
        E or E_i.
    stragglers : float
        E_i is the mean number of steps then.

    Notes
    -----
    Source: C21: to first order in η the clients' steps add up to one of size ηĒ along −∇F_q.

    Examples
    --------
    >>> central_work(np.array([0.5, 0.5]), np.array([2, 5]))[1:]
    (4, 0.875)
    """
    if np.ndim(local_steps) == 0 and stragglers == 0.0:
        return CentralWork(weights, int(local_steps), 1.0)
    work = weights * mean_local_steps(steps_per_client(local_steps, len(weights)), stragglers)
    mean = float(work.sum())
    steps = ceil(mean - COUNT_SLACK)
    return CentralWork(work / mean, steps, mean / steps)


class PooledDescent:
    """Gradient steps on F_q = Σ q_i F_i from any parameters.

    Parameters
    ----------
    problem : Problem, DeepProblem or any other `linattn.types.Federation`
    like : Params
        Gives the blocks.
    weights : array, shape (C,), optional
        q_i; default p_i.

    Notes
    -----
    Source: the synchronized control of C9, Φ of C24. Cost of a step: one gradient on the moments of
    all data or one pass over all sequences, compiled; the gradients of all clients for problems of
    other kinds.
    """

    def __init__(self, problem: Federation, like: Params, weights: Array | None = None) -> None:
        shares = problem.weights if weights is None else weights
        self._oracle: Oracle | ClientMean
        if getattr(problem, "has_profile", False):
            held = single_layer(problem)
            if weights is not None and not np.array_equal(weights, held.weights):
                held = replace(held, weights=weights)
            self._oracle = one_client(population(held), like)
        else:
            self._oracle = ClientMean(problem.oracle(like), shares)

    def steps(self, flat: Array, count: int, step_size: float) -> Array:
        """Return the parameters after `count` steps of one size from each start, (D,) or (N, D)."""
        starts = np.atleast_2d(flat)
        participants = np.zeros(len(starts), dtype=np.int64)
        task = LocalTask.plain(participants, starts, local_steps=count, local_lr=step_size)
        return np.asarray(self._oracle.train(task)[0].reshape(flat.shape))

    def follow(self, flat: Array, count: int, step_size: float, pushes: Array) -> Array:
        """Return θ⁺ = (`count` steps from θ) + push for one push after another, (N, D) -> (N, D).

        Many of them are one compiled call where one call may run several rounds.
        """
        out, done, alone = np.empty_like(pushes), 0, np.zeros(1, dtype=np.int64)
        fast = self._oracle if isinstance(self._oracle, StatisticsOracle) else None
        while done < len(pushes):
            task = LocalTask.plain(alone, flat[None], local_steps=count, local_lr=step_size)
            here = pushes[done : done + (1 if fast is None else fast.together(task))]
            if fast is not None and len(here) > 1:
                reached = fast.rounds(task, Draws.same(np.ones(1), len(here)), here).path
            else:
                reached = self._oracle.train(task)[0] + here
            out[done : done + len(here)] = reached
            flat, done = reached[-1], done + len(here)
        return out

    def gradients(self, at: Array) -> Array:
        """Return ∇F_q at every point, (N, D)."""
        if isinstance(self._oracle, ClientMean):
            return np.stack([self._oracle.gradient(0, flat) for flat in at])
        return self._oracle.gradients(np.zeros(len(at), dtype=np.int64), at)[1]


class ClientMean:
    """One client whose objective is Σ q_i F_i, answered by all clients: for any kind of problem."""

    def __init__(self, oracle: Oracle, weights: Array) -> None:
        self.oracle = oracle
        self.weights = weights

    def gradient(self, client: int, flat: Array, batch: IntArray | None = None) -> Array:
        """Σ q_i ∇F_i; there is one client, and it has no minibatches."""
        parts = [self.oracle.gradient(i, flat) for i in range(self.oracle.num_clients)]
        return np.asarray(self.weights @ np.stack(parts))

    def train(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Local steps one after the other."""
        return explicit_steps(self, task)


def one_client(held: Population, like: Params) -> StatisticsOracle:
    """Return the oracle of a single client whose objective is F, on the form that `held` has."""
    problem, count = held.problem, held.problem.num_sequences
    pooled = replace(problem, offsets=np.array([0, count], dtype=np.int64), weights=np.ones(1))
    if isinstance(held.form.twin, MomentForm):
        return StatisticsOracle(pooled, like.layout, data=held.form.data(like.num_heads)[0])
    weighted = weigh_sequences(problem.statistics, problem.sequence_weights * count)
    return StatisticsOracle(replace(pooled, statistics=weighted), like.layout)


def weigh_sequences(held: Statistics, weights: Array) -> Statistics:
    """Return statistics whose sequences count in a plain mean like `held` with factors `weights`.

    The loss ½[c − 2⟨K, Z⟩ + ⟨Z, M Z⟩], Z = Σ B_h G V_h, is multiplied by w if c is, and (token
    readout, M = G) G → w^⅓ G, K → w^⅔ K, or (one query u with target y) u → w^½ u, y → w^½ y, or
    (several queries of their own) M → w M, K → w K.

    Parameters
    ----------
    held : Statistics
        Of S sequences.
    weights : array, shape (S,)
        w > 0.
    """

    def scaled(array: Array | None, power: float) -> Array | None:
        if array is None:
            return None
        return array * (weights**power).reshape(-1, *[1] * (array.ndim - 1))

    own_gram = held.query is None and held.moment is None
    gram = scaled(held.gram, 1 / 3) if own_gram else held.gram
    assert gram is not None
    return Statistics(
        gram,
        scaled(held.cross, 2 / 3 if own_gram else 1.0),
        scaled(held.query, 1 / 2),
        scaled(held.target, 1 / 2),
        weights * held.energy,
        scaled(held.moment, 1.0),
    )
