"""Linear maps Z ↦ Σ F Z Fᵀ of symmetric matrices, as matrices in an orthonormal basis."""

from __future__ import annotations

import numpy as np

from linattn._typing import Array


class SymmetricBasis:
    """Orthonormal coordinates of symmetric N × N matrices: Z_aa, and √2 Z_ab for a < b.

    Coordinates of the leading n × n block come first. ⟨Y, Z⟩ is the inner product of coordinates,
    so the matrix of Z ↦ FZFᵀ has the matrix of Z ↦ FᵀZF as its transpose.

    Parameters
    ----------
    inner : int
        n.
    size : int
        N ≥ n.
    """

    def __init__(self, inner: int, size: int) -> None:
        low, high = np.triu_indices(size)
        order = np.argsort(high >= inner, kind="stable")
        self.inner, self.size = inner, size
        self.low, self.high = low[order], high[order]
        self.num_inner = inner * (inner + 1) // 2
        self._scale = np.where(self.low == self.high, 1.0, np.sqrt(2.0))

    def pack(self, matrices: Array) -> Array:
        """Coordinates of symmetric matrices, (..., N, N) -> (..., N(N + 1)/2); n in place of N."""
        count = self.num_inner if matrices.shape[-1] == self.inner else len(self.low)
        low, high = self.low[:count], self.high[:count]
        return np.asarray(matrices[..., low, high] * self._scale[:count])

    def unpack(self, coordinates: Array) -> Array:
        """The matrices again."""
        count = coordinates.shape[-1]
        size = self.inner if count == self.num_inner else self.size
        low, high = self.low[:count], self.high[:count]
        out = np.empty((*coordinates.shape[:-1], size, size))
        out[..., low, high] = out[..., high, low] = coordinates / self._scale[:count]
        return out

    def gram(self, factors: Array) -> Array:
        """The matrix of Z ↦ leading block of Σ_k F_k Z F_kᵀ, from F of shape (K, n, N).

        Notes
        -----
        Cost: K n² N²/2 multiply-adds.
        """
        count, inner, size = factors.shape
        out = np.empty((self.num_inner, len(self.low)))
        weight = np.where(self.low == self.high, 0.5, np.sqrt(0.5))
        rows = self.low[: self.num_inner]
        for a in range(inner):
            # T_b[c, d] = Σ_k F_k[a, c] F_k[b, d] for b ≥ a
            left = np.ascontiguousarray(factors[:, a])
            right = np.ascontiguousarray(factors[:, a:]).reshape(count, -1)
            table = (left.T @ right).reshape(size, inner - a, size).transpose(1, 0, 2)
            both = table[:, self.low, self.high] + table[:, self.high, self.low]
            out[rows == a] = both * weight
        return out * self._scale[: self.num_inner, None]

    def after(self, operator: Array, change: Array) -> Array:
        """The matrix of Z ↦ operator(G Z Gᵀ), for G = `change`, (N, N)."""
        return self.pack(change.T @ self.unpack(operator) @ change)

    def before(self, operator: Array, change: Array) -> Array:
        """The matrix of Z ↦ T operator(Z) Tᵀ, for T = `change`, (n, n), onto the leading block."""
        return np.ascontiguousarray(self.pack(change @ self.unpack(operator.T) @ change.T).T)
