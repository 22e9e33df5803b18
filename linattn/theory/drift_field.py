"""The drift field c(θ) = Σ p_i H_i (g_i − g): what client drift adds to the gradient flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linattn._checks import as_float64
from linattn._typing import Array, IntArray
from linattn.oracles.pooled import PooledDescent
from linattn.oracles.protocol import oracle_of
from linattn.theory.curvature import hessian, second_slopes, slopes
from linattn.types import Params, Problem, single_layer


class DriftField:
    """F_q, its derivatives, and the drift field, at flat parameters.

    With relative local work e_i = E_i/Ē (all 1 where work is equal) q_i = w_ie_i, and

        s·c(θ) = s·[Σ q_i e_i H_i g_i − H_q g_q] = s·Σ q_i H_i (e_i g_i − g_q).

    Parameters
    ----------
    problem : Problem
    like : Params
        Gives the blocks.
    weights : array, shape (C,)
        w_i: p_i, or E[w_i] under sampling.
    work : array, shape (C,)
        e_i, with Σ w_ie_i = 1.

    Notes
    -----
    Source: C17; C21 for unequal work. Gradients are compiled; their derivatives are differences
    that are exact for polynomials. Cost: of c, 5 C client gradients with merged kernels, 7 C with
    factored ones.
    """

    def __init__(self, problem: Problem, like: Params, weights: Array, work: Array) -> None:
        self.problem = single_layer(problem, "the drift field")
        self.like = like
        self.work = work
        self.shares = weights * work
        self.factored = like.is_factored
        self._oracle = oracle_of(problem, like)
        self._pooled = PooledDescent(problem, like, self.shares)

    def gradients(self, at: Array) -> Array:
        """∇F_q at every point, (N, D)."""
        return self._pooled.gradients(at)

    def gradient(self, flat: Array) -> Array:
        """g = ∇F_q, (D,)."""
        return np.asarray(self.gradients(flat[None])[0])

    def client_gradients(self, at: Array) -> Array:
        """∇F_i of clients 0, 1, …, C − 1, 0, 1, … at one point each, (N, D)."""
        clients: IntArray = np.arange(len(at)) % len(self.work)
        return self._oracle.gradients(clients, at)[1]

    def all_gradients(self, flat: Array) -> Array:
        """g_i = ∇F_i of every client, (C, D)."""
        return self.client_gradients(np.tile(flat, (len(self.work), 1)))

    def drift(self, flat: Array) -> Array:
        """c(θ), (D,)."""
        return self.gradient_and_drift(flat)[1]

    def gradient_and_drift(self, flat: Array) -> tuple[Array, Array]:
        """g and c, (D,) each, from the same client gradients."""
        own = self.work[:, None] * self.all_gradients(flat)
        mean = self.weights @ own
        curved = slopes(self.client_gradients, flat, own - mean, factored=self.factored)
        return np.asarray(mean), np.asarray(self.shares @ curved)

    @property
    def weights(self) -> Array:
        """w_i."""
        return self.shares / self.work

    def slope(self, flat: Array, direction: Array) -> Array:
        """∇²F_q times a direction, (D,)."""
        found = slopes(self.gradients, flat, direction[None], factored=self.factored)
        return np.asarray(found[0])

    def hessian(self, flat: Array) -> Array:
        """∇²F_q, (D, D)."""
        return hessian(self.gradients, flat)

    def third(self, flat: Array, covariance: Array) -> Array:
        """∇³F_q:Σ = Σ_k λ_k D²∇F_q[v_k, v_k] over the eigenpairs of Σ, (D,)."""
        values, vectors = np.linalg.eigh(covariance)
        # Rising, so that the first ones together are below a share of the whole.
        kept = np.cumsum(np.maximum(values, 0.0)) > NEGLIGIBLE * np.trace(covariance)
        if not kept.any():
            return np.zeros(flat.size)
        curved = second_slopes(self.gradients, flat, vectors[:, kept].T, factored=self.factored)
        return np.asarray(values[kept] @ curved)


NEGLIGIBLE = 1e-4
"""Share of a covariance, in its smallest eigenvalues, that is left out of its pull on the mean."""


def relative_work(work: Sequence[float] | Array | None, weights: Array) -> Array:
    """Return e_i = E_i/Ē from numbers in proportion to the E_i; ones for None.

    Raises
    ------
    TypeError, ValueError
        If there is not one positive number per client.
    """
    if work is None:
        return np.ones(len(weights))
    array = as_float64("work", work, ndim=1)
    if array.shape != weights.shape:
        raise ValueError(
            f"work must have {len(weights)} entries, one per client, got {array.size}."
        )
    if not (array > 0.0).all():
        raise ValueError(f"work must be > 0 for every client, got {array.min():g}.")
    return np.asarray(array / (weights @ array))
