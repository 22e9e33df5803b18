"""The data loss as a function of W = Σ_h vec(B_h) vec(V_h)ᵀ, at a cost without the heads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array, IntArray


class TensorData(NamedTuple):
    """The data loss as a quadratic of Z, a linear image of W: ½c̄ − ⟨κ, Z⟩ + ½⟨Z, ΨZ⟩.

    G is symmetric, so W enters only through w_(bk) = W_ab,kc + W_ak,bc, b ≤ k. From moments Z is
    this w itself, (f, m), and Ψ the folded moments; from sequences it is Z_s = Σ w G_s, (S, d, m),
    and Ψ multiplies with weights and M_s. The cost is that of one product with w, whatever the
    number of heads.
    """

    gram: Array | None  # (S, d(d + 1)/2), or None for moments
    middle: Array  # (S, d, d), M with weights, or (f, f)
    cross: Array  # κ
    energy: float  # c̄
    low: IntArray
    high: IntArray

    @property
    def dim(self) -> int:
        """d."""
        return int(self.high[-1]) + 1

    def image(self, tensor: Array) -> Array:
        """Z of W (d², dm)."""
        dim, outputs = self.dim, self.cross.shape[-1]
        by_pair = tensor.reshape(dim, dim, dim, outputs).transpose(1, 2, 0, 3)
        rows = np.ascontiguousarray(by_pair).reshape(dim, dim, -1)
        folded, twice = rows[self.low, self.high], self.low != self.high
        folded[twice] += rows[self.high[twice], self.low[twice]]
        if self.gram is not None:
            return (self.gram @ folded).reshape(-1, dim, outputs)
        return folded.reshape(-1, dim, outputs).transpose(1, 0, 2).reshape(-1, outputs)

    def pull(self, image: Array) -> Array:
        """The gradient in W, (d², dm), of ⟨image, Z(W)⟩."""
        dim, outputs = self.dim, self.cross.shape[-1]
        if self.gram is not None:
            folded = self.gram.T @ image.reshape(len(image), -1)
        else:
            folded = image.reshape(dim, -1, outputs).transpose(1, 0, 2).reshape(len(self.low), -1)
        rows = np.empty((dim, dim, dim * outputs), dtype=folded.dtype)
        rows[self.low, self.high] = folded
        rows[self.high, self.low] = folded
        tensor = rows.reshape(dim, dim, dim, outputs).transpose(2, 0, 1, 3)
        return np.ascontiguousarray(tensor).reshape(dim**2, dim * outputs)

    def weigh(self, image: Array) -> Array:
        """ΨZ."""
        return np.asarray(self.middle @ image)

    def loss_and_gradient(self, kernel: Array, value: Array) -> tuple[float, Array]:
        """The loss at the W of (B, V), and 𝒢 (C15): entry ((i, j), (k, o)) is Σ w R_io G_jk."""
        heads = len(kernel)
        image = self.image(kernel.reshape(heads, -1).T @ value.reshape(heads, -1))
        weighed = self.weigh(image)
        pulled = float(np.vdot(image, weighed - 2.0 * self.cross))
        return 0.5 * (self.energy + pulled), self.pull(weighed - self.cross)
