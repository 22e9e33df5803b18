"""The covariance of minibatch gradients, from the gradients of single sequences."""

from __future__ import annotations

import numpy as np

from linattn._settings import steps_per_client
from linattn._typing import Array, IntArray
from linattn.oracles.pooled import PooledDescent
from linattn.theory.curvature import hessian
from linattn.theory.polynomials import power_sums
from linattn.theory.weights import WeightMoments
from linattn.types import Params, Problem, single_layer


class GradientNoise:
    """Gradients of single sequences and what b of n_i of them, without replacement, scatter.

    Parameters
    ----------
    problem : Problem
    like : Params
        Gives the blocks.
    batch_size : int
        b.

    Attributes
    ----------
    scatter : array, shape (C,)
        γ_i = (n_i − b)/(b(n_i − 1)), zero if n_i = 1 or b ≥ n_i: the covariance of a minibatch mean
        is γ_i times that of single sequences.

    Notes
    -----
    Source: C19, C20.
    """

    def __init__(self, problem: Problem, like: Params, batch_size: int) -> None:
        held = single_layer(problem, "the noise of minibatches")
        count = held.num_sequences
        alone = held.rearranged(np.arange(count), np.arange(count + 1), np.full(count, 1.0 / count))
        self._oracle = alone.oracle(like)
        self._problem = held
        self._pooled = PooledDescent(held, like)
        sizes = held.client_sizes.astype(np.float64)
        drawn = np.minimum(float(batch_size), sizes)
        self.scatter = (sizes - drawn) / (drawn * np.maximum(sizes - 1.0, 1.0))

    def gradients(self, flat: Array) -> Array:
        """∇ℓ_s plus ridges of every sequence, (S, D)."""
        return self._oracle.gradients(np.arange(self._problem.num_sequences), flat[None])[1]

    def covariances(self, flat: Array) -> Array:
        """γ_i Cov_s(g_{i,s}) of every client, (C, D, D)."""
        found, out = self.gradients(flat), []
        for i, factor in enumerate(self.scatter):
            own = found[self._problem.client(i)]
            apart = own - own.mean(axis=0)
            out.append(factor * (apart.T @ apart) / len(own))
        return np.stack(out)

    def of_round(
        self, flat: Array, local_steps: int | IntArray, step: float, weights: WeightMoments
    ) -> Array:
        """Covariance of Σ_S w_iΦ_i from minibatches, (D, D).

        A step's noise is contracted by the steps after it: with the eigenvalues λ of ∇²F,
        η²Σ_iE[w_i²]·Σ_{e<E_i}(1 − ηλ_a)^e(1 − ηλ_b)^e·Q_ab.
        """
        values, vectors = np.linalg.eigh(hessian(self._pooled.gradients, flat))
        shrink = 1.0 - step * values
        products = shrink[:, None] * shrink
        counts = steps_per_client(local_steps, self._problem.num_clients)
        total = np.zeros_like(products)
        for count, square, covariance in zip(
            counts.tolist(), weights.squares, self.covariances(flat), strict=True
        ):
            turned = vectors.T @ covariance @ vectors
            total += square * power_sums(1.0 - products, count).plain * turned
        return np.asarray(step**2 * (vectors @ total @ vectors.T))
