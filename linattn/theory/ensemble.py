"""The distribution of sampled FedAvg as a Gaussian: its mean path and covariance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from linattn._checks import MOST_ENTRIES, positive_int, real
from linattn._settings import LocalSteps, StepSize, check_sampling
from linattn._threads import one_blas_thread
from linattn._typing import Array, IntArray
from linattn.linalg import square_root
from linattn.oracles.protocol import Outcome
from linattn.theory.gradient_noise import GradientNoise
from linattn.theory.impulse import RoundMaps
from linattn.theory.interpolation import (
    NOTHING,
    Clock,
    Forced,
    Node,
    interpolate,
    mismatch,
    polynomial,
)
from linattn.theory.weights import WeightMoments, weight_moments
from linattn.types import Params, Problem

RANK = 12
"""Directions that the covariance keeps."""
REACH = 3.0**0.5
"""Sigma points lie this many standard deviations out: right to order five along each direction."""


@dataclass(frozen=True, eq=False)
class PredictedEnsemble:
    """What `predict_ensemble` returns: N(θ̄_t, L_t L_tᵀ) of every round.

    Attributes
    ----------
    path : list of Params
        Means θ̄ of rounds 0 to R, up to the last finite one.
    times : array, shape (len(path),)
        τ_t = Σ η Ē, units of 1/curvature.
    factors : array, shape (len(path), D, r)
        L, columns by decreasing size.
    impulse_rounds : array of int, shape (K,)
        Where the clients were measured.
    num_rejected : int
        Measurements that were not used.
    outcome : Outcome
    reach : float
        Where sigma points lie, in standard deviations.
    """

    path: list[Params]
    times: Array
    factors: Array
    impulse_rounds: IntArray
    num_rejected: int
    outcome: Outcome
    reach: float = REACH

    @property
    def num_impulses(self) -> int:
        """K; `num_rejected` more were measured."""
        return len(self.impulse_rounds)

    def covariance(self, t: int) -> Array:
        """L Lᵀ of round t, (D, D)."""
        return np.asarray(self.factors[t] @ self.factors[t].T)

    def expectation(self, function: Callable[[Params], float], t: int) -> float:
        """Return E f(θ_t) under the Gaussian, exact for cubic f.

        f(θ̄) + Σ_k [f(θ̄ + h L_k) + f(θ̄ − h L_k) − 2f(θ̄)]/(2h²) with h = `reach`.

        Notes
        -----
        Source: C19 beyond first order. Cost: 2r + 1 evaluations.
        """
        mean = self.path[t]
        centre = function(mean)
        total = 0.0
        for column in self.factors[t].T:
            if column.any():
                for sign in (self.reach, -self.reach):
                    total += function(Params(mean.layout, mean.flat + sign * column)) - centre
        return centre + total / (2.0 * self.reach**2)

    def __repr__(self) -> str:
        reason = f": {self.outcome.reason}" if self.outcome.reason else ""
        return (
            f"PredictedEnsemble({self.outcome.status} at round {self.outcome.round}{reason}; "
            f"{self.num_impulses} impulses, {self.num_rejected} rejected, rank "
            f"{self.factors.shape[-1]})"
        )


def predict_ensemble(
    problem: Problem,
    params: Params,
    *,
    rounds: int,
    local_steps: LocalSteps,
    local_lr: StepSize,
    participation: float = 1.0,
    batch_size: int | None = None,
    sampling: str = "uniform",
    tolerance: float = 0.01,
    rank: int = RANK,
    reach: float = REACH,
) -> PredictedEnsemble:
    """Return the predicted mean and covariance of FedAvg over its draws of clients and batches.

    With w̄ = E[w] the applied weights' mean, I = Σ w̄_iΦ_i − Φ and Q the covariance of a round's
    average Σ_S w_iΦ_i at the mean path,

        θ̄⁺ = E[Φ(θ)] + I(θ̄),     Σ⁺ = E[Φ'] Σ E[Φ']ᵀ + Q(θ̄),     θ ~ N(θ̄, Σ),

    a Gaussian closure: expectations of Φ and its slope are taken over the Gaussian, not at its
    mean, so Σ cannot run away where F has negative curvature. Impulses and displacements Φ_i − Φ̄
    are measured at a few rounds and interpolated as in `predict_run`.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    rounds, local_steps, local_lr, tolerance
        As in `predict_run`.
    participation, batch_size, sampling
        As in `run`.
    rank : int
        Directions kept in Σ, r.
    reach : float
        Where sigma points lie, in standard deviations. Every value is exact where Φ is cubic; what
        changes with it tells how far from that the spread reaches.

    Raises
    ------
    TypeError, ValueError
        If the parameters do not fit the problem or an argument is out of range; if clients of
        unequal weight are sampled uniformly and there are more than 20,000 subsets of them.

    Notes
    -----
    Source: C19, beyond first order in the noise and in s. Cost: with K impulses, K rounds of all
    clients, 2r + 2 passes of R·E gradients on pooled data, and K·2D of these gradients where there
    are minibatches: about ten sampled runs at two of eight clients.

    What it leaves out: the slope of the impulse in Σ, O(s); the change of Q over the Gaussian,
    Σ_ij Cov(w)_ij Φ_i'ΣΦ_j'ᵀ to leading order; and everything that is not Gaussian, above all runs
    that leave a plateau at different times. The first two make Σ too small (notes, C19). With
    ``reach=1`` sigma points see less of what bounds Σ there, and the prediction differs or runs
    away: a test of both.
    """
    rounds = positive_int("rounds", rounds, minimum=0, maximum=MOST_ENTRIES)
    tolerance = real("tolerance", tolerance, minimum=0.0)
    kept = min(positive_int("rank", rank), params.flat.size)
    reach = real("reach", reach, above=0.0)
    shares = check_sampling(participation, sampling)
    weights = weight_moments(problem.weights, shares)
    maps = RoundMaps(
        problem,
        params,
        local_steps=local_steps,
        local_lr=local_lr,
        rounds=rounds,
        weights=weights.mean,
    )
    noise = None
    if batch_size is not None:
        noise = GradientNoise(problem, params, positive_int("batch_size", batch_size))
    clock = Clock.of(maps, rounds)
    course = Spread(maps, clock, (params.flat.size, kept, reach), weights, noise)
    start = np.concatenate([params.flat, np.zeros(params.flat.size * (kept + 1))])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"), one_blas_thread():
        draft = interpolate(course, start, tolerance=tolerance)
    means, factors, _ = course.parts(draft.flats)
    return PredictedEnsemble(
        path=[Params(params.layout, flat) for flat in means],
        times=clock.times[: len(means)],
        factors=factors,
        impulse_rounds=np.array([node.round for node in draft.nodes], dtype=np.int64),
        num_rejected=draft.rejected,
        outcome=draft.outcome,
        reach=reach,
    )


class Spread(Forced):
    """A course of Gaussians: the state is θ̄, L and the last shift of the mean by Σ."""

    def __init__(
        self,
        maps: RoundMaps,
        clock: Clock,
        shape: tuple[int, int, float],
        weights: WeightMoments,
        noise: GradientNoise | None,
    ) -> None:
        super().__init__(maps, clock)
        self.size, self.rank, self.reach = shape
        self.weights, self.noise = weights, noise
        values, vectors = np.linalg.eigh(weights.covariance)
        roots = np.sqrt(np.maximum(values, 0.0))
        self._root = (vectors * roots).T[roots > 1e-8 * max(roots.max(), 1e-300)]

    def parts(self, states: Array) -> tuple[Array, Array, Array]:
        """θ̄ (..., D), L (..., D, r) and the shift (..., D)."""
        size, rank = self.size, self.rank
        factors = states[..., size : size * (rank + 1)].reshape(*states.shape[:-1], size, rank)
        return states[..., :size], factors, states[..., size * (rank + 1) :]

    def measure(self, state: Array, t: int) -> Node:
        """I, and rows whose squares sum to the covariance of the round, per η, in one vector."""
        t_run = min(t, self.clock.rounds - 1)
        step, mean = self.clock.step_sizes[t_run], state[: self.size]
        ends = self.maps.clients(mean[None], t_run)[0]
        centre = self.weights.mean @ ends
        rows = [self._root @ (ends - centre)]
        if self.noise is not None:
            spread = self.noise.of_round(mean, self.maps.local_steps, step, self.weights)
            rows.append(square_root(spread))
        impulse = centre - self.maps.central(mean, t_run)
        noise = np.concatenate(rows).reshape(-1) * step
        floor = NOTHING * float(np.linalg.norm(mean))
        return self.node(t, np.concatenate([impulse, noise]), floor)

    def error(self, node: Node, predicted: Array) -> float:
        """The larger error of I and of the noise."""
        cut = self.size
        drift = mismatch(node.impulse[:cut], predicted[:cut], node.floor)
        return max(drift, mismatch(node.impulse[cut:], predicted[cut:], node.floor))

    def predict(self, state: Array, t: int, stop: int, nodes: list[Node]) -> Array:
        """The mean alone, with the last shift; L stays."""
        impulses = polynomial(nodes, self.clock.times[t:stop])[:, : self.size]
        shift = self.parts(state)[2] / self.clock.scale(t)
        out = np.tile(state, (stop - t, 1))
        out[:, : self.size] = self.follow(state[: self.size], t, impulses + shift)
        return out

    def correct(self, state: Array, t: int, ahead: Array, nodes: list[Node]) -> Array:
        """θ̄ and L by sigma points."""
        pushes = polynomial(nodes, self.clock.times[t : t + len(ahead)])
        out = np.empty_like(ahead)
        for j, push in enumerate(pushes):
            state = self._step(state, t + j, push)
            out[j] = state
        return out

    def _step(self, state: Array, t: int, push: Array) -> Array:
        mean, factor, _ = self.parts(state)
        step = self.clock.step_sizes[t]
        reach = self.reach * factor.T
        ends = self.maps.central(np.concatenate([mean[None], mean + reach, mean - reach]), t)
        centre, plus, minus = ends[0], ends[1 : self.rank + 1], ends[self.rank + 1 :]
        shift = (plus + minus - 2.0 * centre).sum(axis=0) / (2.0 * self.reach**2)
        moved = (plus - minus) / (2.0 * self.reach)
        noise = push[self.size :].reshape(-1, self.size) * step
        spread = np.concatenate([moved, noise])
        if not np.isfinite(spread).all():
            return np.full_like(state, np.nan)
        _, sizes, rows = np.linalg.svd(spread, full_matrices=False)
        kept = (sizes[:, None] * rows)[: self.rank]
        mean = centre + shift + push[: self.size] * step**2
        return np.concatenate([mean, kept.T.reshape(-1), shift])

    def trouble(self, state: Array) -> str:
        """Of the mean."""
        return self.maps.trouble(state[: self.size])
