"""A federated round as a centralized round and a drift impulse: θ⁺ = Φ(θ) + I(θ)."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from linattn._settings import (
    LocalSteps,
    Step,
    StepSize,
    check_local_steps,
    step_at,
    step_schedule,
)
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.linalg import weighted_sum
from linattn.oracles.pooled import PooledDescent, central_work
from linattn.oracles.protocol import LocalTask, oracle_of
from linattn.oracles.unequal import train_unequal
from linattn.types import Federation, Params


def drift_impulse(
    problem: Federation, params: Params, *, local_steps: LocalSteps, local_lr: StepSize
) -> Params:
    """Return the drift impulse I(θ) = Σ p_i Φ_i(θ) − Φ(θ) of one round.

    Φ_i(θ) is θ after the local steps of client i, Φ(θ) after as many steps on F: a FedAvg round is
    exactly θ⁺ = Φ(θ) + I(θ). Zero at E = 1 and for identical clients; ηE·s·c(θ) to leading order,
    with the drift number s = η(E − 1)/2 and the drift field c = Σ p_i H_i(g_i − g).

    Parameters
    ----------
    problem : Problem, DeepProblem or any other `linattn.types.Federation`
    params : Params
        θ.
    local_steps : int, or one int per client
        E; with unequal work Φ is ⌈Ē⌉ steps of ηĒ/⌈Ē⌉ on F_q, q_i = p_iE_i/Ē.
    local_lr : float
        η; of a schedule the first entry.

    Returns
    -------
    Params
        Of the blocks of `params`, units of parameters. Not finite where the round or its steps on F
        leave the range of floating-point numbers.

    Raises
    ------
    TypeError, ValueError
        If the parameters do not fit the problem, or an argument is out of range.

    Notes
    -----
    Source: C24. Cost: one round of all clients, and E gradients on pooled data.

    Examples
    --------
    >>> import linattn as la
    >>> problem = la.synthetic_problem(num_clients=2, sequences_per_client=4, num_tokens=3, dim=2,
    ...     num_outputs=1, value_heterogeneity=1.0, value_ridge=0.1, kernel_ridge=0.1)
    >>> params = la.initial_params(problem, value="normal")
    >>> one = la.drift_impulse(problem, params, local_steps=1, local_lr=0.1)
    >>> bool(np.abs(one.flat).max() < 1e-15)
    True
    """
    rounds = RoundMaps(problem, params, local_steps=local_steps, local_lr=local_lr)
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        return Params(params.layout, rounds.impulse(params.flat, 0))


class RoundMaps:
    """The maps of a round, from any parameters: Φ_i of every client, their mean, and Φ.

    Nothing of `linattn.federated` is used: these are the client's own steps.

    Parameters
    ----------
    problem : Problem, DeepProblem or any other `linattn.types.Federation`
    like : Params
        Gives the blocks.
    local_steps : int, or one int per client
    local_lr : float, array or callable
        η, or η_t of round t.
    rounds : int, optional
        How many entries an array of step sizes needs.
    weights : array, shape (C,), optional
        Averaging weights; default p_i.

    Notes
    -----
    Source: C24, C21 for unequal work.
    """

    def __init__(
        self,
        problem: Federation,
        like: Params,
        *,
        local_steps: LocalSteps,
        local_lr: StepSize,
        rounds: int | None = None,
        weights: Array | None = None,
    ) -> None:
        self._oracle = oracle_of(problem, like)
        self.weights = problem.weights if weights is None else weights
        self.local_steps = check_local_steps(local_steps, problem.num_clients)
        self._step: Step = step_schedule("local_lr", local_lr, rounds=rounds)
        self._central = central_work(self.weights, self.local_steps)
        self._descent = PooledDescent(problem, like, self._central.weights)

    def step_size(self, t: int) -> float:
        """η_t."""
        return step_at(self._step, t)

    @property
    def mean_steps(self) -> float:
        """Ē = Σ p_iE_i."""
        return float(self._central.steps * self._central.scale)

    def clients(self, flats: Array, t: int) -> Array:
        """Φ_i of every client from every start: (N, D) -> (N, C, D)."""
        count, clients = len(flats), len(self.weights)
        task = LocalTask.plain(
            np.tile(np.arange(clients), count),
            np.repeat(flats, clients, axis=0),
            local_steps=int(np.max(self.local_steps)),
            local_lr=self.step_size(t),
        )
        if isinstance(self.local_steps, int):
            ends = self._oracle.train(task)[0]
        else:
            ends = train_unequal(self._oracle.train, task, np.tile(self.local_steps, count))[0]
        return np.asarray(ends.reshape(count, clients, -1))

    def federated(self, flat: Array, t: int) -> Array:
        """Σ p_i Φ_i, one round of FedAvg: (D,) -> (D,)."""
        return weighted_sum(self.weights, self.clients(flat[None], t)[0])

    def central(self, flat: Array, t: int) -> Array:
        """Φ, one round without clients: (D,) -> (D,) or (N, D) -> (N, D)."""
        central = self._central
        return self._descent.steps(flat, central.steps, self.step_size(t) * central.scale)

    def follow(self, flat: Array, t: int, pushes: Array) -> Array:
        """θ⁺ = Φ(θ) + push for rounds t, t + 1, …, one per push: (D,), (N, D) -> (N, D)."""
        steps = [self.step_size(t + j) * self._central.scale for j in range(len(pushes))]
        out, done = np.empty_like(pushes), 0
        for step, group in groupby(steps):
            rows = slice(done, done := done + len(list(group)))
            out[rows] = self._descent.follow(flat, self._central.steps, step, pushes[rows])
            flat = out[rows.stop - 1]
        return out

    def impulse(self, flat: Array, t: int) -> Array:
        """I = Σ p_i Φ_i − Φ: (D,) -> (D,)."""
        return self.federated(flat, t) - self.central(flat, t)

    def trouble(self, flat: Array) -> str:
        """Why parameters have diverged, or nothing: they or their objective are not finite."""
        if not np.isfinite(flat).all():
            return "non-finite parameters"
        if np.abs(flat).max() < LARGE:
            return ""
        parts = [self._oracle.objective(i, flat) for i in range(len(self.weights))]
        return "" if np.isfinite(parts).all() else "non-finite objective"


# Far from overflow of a polynomial of low degree: no need to evaluate it.
LARGE = 1e20
