"""The second moment of one client's local steps on minibatches, as linear maps (C20).

With e = V − V* and Z = E[zzᵀ], z = (e; I_m), a local step is z⁺ = [[I − ηA_s, ηr_s], [0, I]] z, so
that Z moves linearly: Z⁺ = E[G_s Z G_sᵀ] = G Z Gᵀ + 𝓓(Z), where G is the mean map and 𝓓 comes from
the sampling of sequences. Below, 𝓚_e is what noise adds in e steps, Z_e = G^e Z (G^e)ᵀ + 𝓚_e(Z),
all of it in the leading Hd × Hd block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array, IntArray
from linattn.theory.congruence import SymmetricBasis
from linattn.theory.polynomials import contraction


class ClientSteps(NamedTuple):
    """One client's local steps.

    Attributes
    ----------
    hessian : array, shape (n, n)
        A_i.
    residual : array, shape (n, m)
        r_i = C_i − A_i V*.
    noise : array, shape (S, n, n + m) or None
        η (γ_i/S)^½ (−ΔA_s, Δr_s) of every sequence; None without noise.
    chances : array, shape (E,)
        Probabilities of 1..E local steps.
    step_size : float
    """

    hessian: Array
    residual: Array
    noise: Array | None
    chances: Array
    step_size: float

    @property
    def _possible(self) -> IntArray:
        """Numbers of steps with a chance."""
        return np.asarray(np.flatnonzero(self.chances) + 1, dtype=np.int64)

    def moves(self) -> tuple[Array, Array]:
        """(G^e − I) without its zero rows for every possible e, (K, n, n + m), and their chances.

        Its blocks are −[I − (I − ηA)^e] and ηS_e r, without cancellation.
        """
        values, vectors = np.linalg.eigh(self.hessian)
        x = self.step_size * values
        with np.errstate(over="ignore", invalid="ignore"):
            gone = np.stack([contraction(x, int(e)) for e in self._possible])
            shrink = -(vectors * gone[:, None, :]) @ vectors.T
            pull = (vectors * (gone / values)[:, None, :]) @ (vectors.T @ self.residual)
        return np.concatenate([shrink, pull], axis=2), self.chances[self._possible - 1]

    def step_map(self) -> Array:
        """G, (N, N)."""
        size, outputs = self.residual.shape
        out = np.eye(size + outputs)
        out[:size, :size] -= self.step_size * self.hessian
        out[:size, size:] = self.step_size * self.residual
        return out

    def noise_map(self, basis: SymmetricBasis) -> Array | None:
        """E[𝓚_e] over the number of steps, as a matrix; None without noise."""
        if self.noise is None:
            return None
        single, step, possible = basis.gram(self.noise), self.step_map(), self._possible
        if len(possible) == 1:
            return noise_power(basis, single, step, int(possible[0]))
        return _mean_noise_power(basis, single, step, self.chances)


def noise_power(basis: SymmetricBasis, single: Array, step: Array, count: int) -> Array:
    """Return the noise 𝓚_E of E steps Z⁺ = G Z Gᵀ + 𝓓(Z), as a matrix.

    By doubling: 𝓚_{2e} = 𝓚_e(𝓚_e + 𝓠_e) + 𝓠_e𝓚_e with 𝓠_e(Z) = G^e Z (G^e)ᵀ.

    Parameters
    ----------
    basis : SymmetricBasis
    single : array, shape (n(n + 1)/2, N(N + 1)/2)
        𝓓.
    step : array, shape (N, N)
        G.
    count : int
        E ≥ 1.

    Notes
    -----
    Source: C20. Every term is positive: nothing cancels. Cost: about 1.5 log₂ E products of an
    n(n + 1)/2 by an N(N + 1)/2 matrix.
    """
    total, power = single, step
    for bit in bin(count)[3:]:
        total = _composed(basis, total, power, total, power)
        power = power @ power
        if bit == "1":
            total = _composed(basis, single, step, total, power)
            power = step @ power
    return total


def _composed(
    basis: SymmetricBasis, later: Array, later_map: Array, first: Array, first_map: Array
) -> Array:
    """Noise of some steps after others: 𝓚(𝓚' + 𝓠') + 𝓠𝓚'."""
    inner = basis.inner
    return (
        later[:, : basis.num_inner] @ first
        + basis.after(later, first_map)
        + basis.before(first, later_map[:inner, :inner])
    )


def _mean_noise_power(basis: SymmetricBasis, single: Array, step: Array, chances: Array) -> Array:
    """Σ_e chances_e 𝓚_e, step by step."""
    total, power = single, step
    out = chances[0] * total
    for chance in chances[1:]:
        total, power = _composed(basis, single, step, total, power), step @ power
        out = out + chance * total
    return np.asarray(out)
