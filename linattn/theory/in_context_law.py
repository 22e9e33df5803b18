"""In-context linear regression in exact moments (C22).

Context tokens z = (x, y) with x ~ N(0, Λ), y = ⟨w, x⟩ + ε are, given w, Gaussian with covariance

    Σ_w = S₀ + Σ_a w_a S_a + (wᵀΛw) E,   S₀ = diag(Λ, σ²),  S_a = (Λe_a) in the last row and column,

E the unit in the corner. All moments that the model needs are polynomials of degree at most four
in w ~ N(0, I), so nothing here is sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from linattn._checks import positive_int, real
from linattn._typing import Array
from linattn.clients import check_weights
from linattn.data.in_context import check_covariances, context_lengths, noise_levels
from linattn.theory.population import PopulationLimit


@dataclass(frozen=True, eq=False)
class InContextLaw:
    """How the sequences of one client of the in-context world are drawn; a `Law` of d = D + 1.

    Attributes
    ----------
    covariance : array, shape (D, D)
        Λ of the inputs.
    context_length : int
        n.
    noise : float
        σ of the context's targets.
    """

    covariance: Array
    context_length: int
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_covariances(self.covariance)
        positive_int("context_length", self.context_length)
        real("noise", self.noise, minimum=0.0)

    @property
    def dim(self) -> int:
        """Number of channels d = D + 1."""
        return len(self.covariance) + 1

    @property
    def energy(self) -> float:
        """c̄ = E⟨w, x_q⟩² = tr Λ."""
        return float(np.trace(self.covariance))

    @cached_property
    def _query_moment(self) -> Array:
        """M̄ = E[u uᵀ] = diag(Λ, 0)."""
        out = np.zeros((self.dim, self.dim))
        out[:-1, :-1] = self.covariance
        return out

    @cached_property
    def _parts(self) -> tuple[Array, Array]:
        """S₀, (d, d), and the S_a, (D, d, d)."""
        fixed = self._query_moment.copy()
        fixed[-1, -1] = self.noise**2
        linear = np.zeros((self.dim - 1, self.dim, self.dim))
        linear[:, :-1, -1] = linear[:, -1, :-1] = self.covariance
        return fixed, linear

    def pair(self, middle: Array) -> Array:
        """E[G P G], (d, d): E_w[Σ_w P Σ_w + (Σ_w Pᵀ Σ_w + tr(P Σ_w) Σ_w)/n].

        Notes
        -----
        Source: C22 (Wick's theorem given w, then moments of w). Cost: D products of (d, d).
        """
        traced = self._twice(lambda left, right: np.vdot(middle.T, left) * right)
        turned = self._twice(lambda left, right: left @ middle.T @ right)
        plain = self._twice(lambda left, right: left @ middle @ right)
        return plain + (turned + traced) / self.context_length

    def _twice(self, product: Callable[[Array, Array], Array]) -> Array:
        """E_w[product(Σ_w, Σ_w)] of a bilinear product.

        E[w_a w_b] = δ_ab, E[wᵀΛw] = tr Λ, E[(wᵀΛw)²] = (tr Λ)² + 2 tr Λ²; odd moments vanish.
        """
        fixed, linear = self._parts
        corner = np.zeros_like(fixed)
        corner[-1, -1] = 1.0
        size = self.energy
        total = product(fixed, fixed) + sum(product(part, part) for part in linear)
        total = total + size * (product(fixed, corner) + product(corner, fixed))
        fourth = size**2 + 2.0 * float(np.vdot(self.covariance, self.covariance))
        return np.asarray(total + fourth * product(corner, corner))

    def system(self, kernels: Array) -> tuple[Array, Array]:
        """H, blocks E[G B_hᵀ M̄ B_k G], and C, blocks E[Σ_w B_hᵀ (Λw, 0)]; (Hd, Hd) and (Hd, 1)."""
        middle = self._query_moment
        hessian = np.block([[self.pair(b.T @ middle @ c) for c in kernels] for b in kernels])
        linear = self._parts[1]
        columns = [np.einsum("aij,kj,ak->i", linear, b, linear[:, :, -1]) for b in kernels]
        return hessian, np.concatenate(columns)[:, None]

    def kernel_gradient(self, kernels: Array, value: Array) -> Array:
        """∂_{B_k} of the data loss: M̄ Σ_h B_h E[G V_hV_kᵀ G] − E[(Λw, 0)(Σ_w V_k)ᵀ], (H, d, d)."""
        linear = self._parts[1]
        out = []
        for v in value:
            mapped = sum(b @ self.pair(u @ v.T) for b, u in zip(kernels, value, strict=True))
            cross = np.einsum("ai,ajk,ko->ij", linear[:, :, -1], linear, v)
            out.append(self._query_moment @ mapped - cross)
        return np.stack(out)


def in_context_laws(covariances: Any, length: Any, noise: Any) -> tuple[InContextLaw, ...]:
    """Return the laws of all clients, from one length and noise for all or one per client."""
    held = check_covariances(covariances)
    lengths, levels = context_lengths(length, len(held)), noise_levels(noise, len(held))
    triples = zip(held, lengths.tolist(), levels.tolist(), strict=True)
    return tuple(InContextLaw(*triple) for triple in triples)


def in_context_limit(
    covariances: Any,
    context_length: Any,
    noise: Any = 0.0,
    *,
    weights: Any = "equal",
    value_ridge: float = 0.0,
    kernel_ridge: float = 0.0,
) -> PopulationLimit:
    """Return `in_context_problem` with infinitely many sequences per client, in exact moments.

    P, its gradient, and the frozen stage with its bias follow without a sample, for covariances
    that need not commute.

    Parameters
    ----------
    covariances, context_length, noise, weights
        As in `in_context_optimum`; Λ_i (C, D, D), n, σ and p_i.
    value_ridge, kernel_ridge : float
        λ ≥ 0 and μ ≥ 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    Notes
    -----
    Source: C22. Cost: of P, C H² D products of (d, d) matrices.
    """
    laws = in_context_laws(covariances, context_length, noise)
    return PopulationLimit(
        laws,
        check_weights(weights, np.ones(len(laws), dtype=np.int64)),
        real("value_ridge", value_ridge, minimum=0.0),
        real("kernel_ridge", kernel_ridge, minimum=0.0),
    )
