"""The data as moments, and which form is the cheaper one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from linattn._typing import Array, IntArray
from linattn.objectives.forms import LossGradient, NormalEquations, SequenceForm
from linattn.objectives.tensor import TensorData
from linattn.types import Statistics

# One moment tensor must stay well inside the caches it is meant to exploit, and memory.
MAX_MOMENT_ENTRIES = 4_000_000


class MomentForm:
    """The data as moments: T = Σ w G ⊗ G ⊗ M and Σ w K ⊗ G (notes, Moments).

    The loss is a quadratic in W = Σ_h B_h ⊗ V_h, so these two tensors are all of it. Cost of a
    gradient, whatever the number of sequences: 2 d⁶ multiply-adds for one head, f² m + 3H d³ m
    for several, f = d²(d + 1)/2.
    """

    @np.errstate(over="ignore", invalid="ignore")
    def __init__(self, statistics: Statistics, weights: Array) -> None:
        self.energy = float(weights @ statistics.energy)
        count, dim = statistics.gram.shape[:2]
        self.dim = dim
        cross = statistics.cross_moments()
        self.outputs = cross.shape[-1]
        tensor = np.zeros((dim**2, dim**4))
        mixed = np.zeros((dim * self.outputs, dim**2))
        chunk = max(1, 2**21 // dim**4)
        moments = statistics.query_moments()
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            gram = statistics.gram[part].reshape(-1, dim**2)
            weighted = gram * weights[part, None]
            outer = weighted[:, :, None] * gram[:, None, :]
            tensor += moments[part].reshape(-1, dim**2).T @ outer.reshape(-1, dim**4)
            mixed += cross[part].reshape(len(gram), -1).T @ weighted
        # a a' b k b' k'  ->  (k k'), (a b a' b') and back: one matrix product per contraction
        sixth = tensor.reshape((dim,) * 6)
        self._by_value = np.ascontiguousarray(sixth.transpose(3, 5, 0, 2, 1, 4)).reshape(
            dim**2, dim**4
        )
        # a c b k -> k c a b
        third = mixed.reshape(dim, self.outputs, dim, dim)
        self._third = np.ascontiguousarray(third.transpose(3, 1, 0, 2))

    @cached_property
    def folded(self) -> tuple[Array, Array, IntArray, IntArray]:
        """Moments of the features M ⊗ (upper half of G): (f, f), (f, m), and the pair indices.

        G is symmetric: W enters only through w_(a, bk) = W_ab,k + W_ak,b, b < k (notes, Moments).
        """
        dim = self.dim
        low, high = np.triu_indices(dim)
        sixth = self._by_value.reshape((dim,) * 6).transpose(2, 3, 0, 4, 5, 1)  # a b k a' b' k'
        half = sixth[:, low, high][:, :, :, low, high]
        size = dim * len(low)
        third = self._third.transpose(2, 3, 0, 1)[:, low, high]  # a, (b k), c
        return (
            np.ascontiguousarray(half).reshape(size, size),
            np.ascontiguousarray(third).reshape(size, self.outputs),
            low.astype(np.int64),
            high.astype(np.int64),
        )

    def pairs(self) -> tuple[Array, Array]:
        """Moments of one head: (v, w) and (d·m, d²), v = d(d + 1)/2, w = d²(d² + 1)/2.

        Row k ≤ k' belongs to Φ_kk' + Φ_k'k, a symmetric matrix over the entries i = (a, b) of B, of
        which the columns are i ≥ j. Both symmetric forms that they make are halved on the diagonal:
        every pair then adds 2 x_i x_j.
        """
        dim = self.dim
        low, high = np.triu_indices(dim)
        left, right = np.tril_indices(dim**2)
        rows = 0.5 * (self._by_value[low * dim + high] + self._by_value[high * dim + low])
        halves = np.where(low == high, 0.5, 1.0)[:, None] * np.where(left == right, 0.5, 1.0)
        linear = self._third.reshape(dim * self.outputs, dim**2)
        return rows[:, left * dim**2 + right] * halves, linear

    def solve_least_squares(self) -> float:
        """Return min over W of the data loss: a lower bound of every objective without ridges."""
        moments, linear, _, _ = self.folded
        solution = np.linalg.lstsq(moments, linear, rcond=None)[0]
        return 0.5 * self.energy - 0.5 * float(np.vdot(linear, solution))

    @cached_property
    def tensor(self) -> TensorData:
        """The loss as a function of W."""
        moments, linear, low, high = self.folded
        return TensorData(None, moments, linear, self.energy, low, high)

    def _kernel_form(self, left: Array, right: Array) -> Array:
        """Contract the moments with V_h V'_kᵀ: the bilinear 𝓚, (Hd², Hd²)."""
        heads, dim = left.shape[:2]
        outer = np.einsum("hkc,glc->hgkl", left, right).reshape(heads**2, dim**2)
        blocks = (outer @ self._by_value).reshape(heads, heads, dim**2, dim**2)
        return np.asarray(blocks.transpose(0, 2, 1, 3).reshape(heads * dim**2, heads * dim**2))

    def _value_form(self, left: Array, right: Array) -> Array:
        """Contract the moments with B_h ⊗ B'_k: the bilinear H, (Hd, Hd)."""
        heads, dim = left.shape[:2]
        outer = left.reshape(heads, 1, -1, 1) * right.reshape(1, heads, 1, -1)
        blocks = (self._by_value @ outer.reshape(heads**2, dim**4).T).reshape(
            dim, dim, heads, heads
        )
        return blocks.transpose(2, 0, 3, 1).reshape(heads * dim, heads * dim)

    def kernel_hessian(self, value: Array) -> Array:
        """𝓚(V) without μ."""
        return self._kernel_form(value, value)

    def kernel_operator(self, value: Array) -> Callable[[Array], Array]:
        """D ↦ 𝓚(V)D, by its matrix."""
        matrix = self.kernel_hessian(value)
        return lambda flat: np.asarray(matrix @ flat)

    def normal_equations(self, kernel: Array) -> NormalEquations:
        """H(B) and C(B)."""
        hessian = self._value_form(kernel, kernel)
        return NormalEquations(0.5 * (hessian + hessian.T), self._linear(kernel))

    def _linear(self, kernel: Array) -> Array:
        """C(B), (Hd, m); linear in B."""
        heads, dim = kernel.shape[:2]
        linear = self._third.reshape(dim * self.outputs, dim**2) @ kernel.reshape(heads, -1).T
        linear = linear.reshape(dim, self.outputs, heads).transpose(2, 0, 1)
        return linear.reshape(heads * dim, self.outputs)

    def _kernel_linear(self, value: Array) -> Array:
        """Σ w K (G V_h)ᵀ, (H, d, d)."""
        return np.tensordot(value, self._third, ((1, 2), (0, 1)))

    def gradient(self, kernel: Array, value: Array) -> LossGradient:
        """Loss and gradients: the loss is quadratic in B at fixed V and in V at fixed B."""
        heads = len(kernel)
        if heads > 1:
            loss, tensor = self.tensor.loss_and_gradient(kernel, value)
            kernel_gradient = value.reshape(heads, -1) @ tensor.T
            value_gradient = kernel.reshape(heads, -1) @ tensor
            return LossGradient(
                loss, kernel_gradient.reshape(kernel.shape), value_gradient.reshape(value.shape)
            )
        hessian, linear = self.normal_equations(kernel)
        flat_value = value.reshape(-1, self.outputs)
        image = hessian @ flat_value
        loss = 0.5 * self.energy + 0.5 * float(np.vdot(flat_value, image - 2.0 * linear))
        kernel_image = self.kernel_hessian(value) @ kernel.reshape(-1)
        kernel_gradient = kernel_image.reshape(kernel.shape) - self._kernel_linear(value)
        return LossGradient(loss, kernel_gradient, (image - linear).reshape(value.shape))

    def hvp(
        self, kernel: Array, value: Array, kernel_direction: Array, value_direction: Array
    ) -> tuple[Array, Array]:
        """Hessian-vector product; the mixed blocks are the symmetrized bilinear forms."""
        mixed = self._kernel_form(value, value_direction)
        mixed = mixed + mixed.T
        kernel_part = self.kernel_hessian(value) @ kernel_direction.reshape(-1)
        kernel_part = (kernel_part + mixed @ kernel.reshape(-1)).reshape(kernel.shape)
        kernel_part = kernel_part - self._kernel_linear(value_direction)
        flat_value = value.reshape(-1, self.outputs)
        flat_direction = value_direction.reshape(-1, self.outputs)
        mixed = self._value_form(kernel, kernel_direction)
        value_part = self.normal_equations(kernel).hessian @ flat_direction
        value_part = value_part + (mixed + mixed.T) @ flat_value - self._linear(kernel_direction)
        return kernel_part, value_part.reshape(value.shape)


def prefers_moments(statistics: Statistics) -> bool:
    """Whether moments are the cheaper form: fewer multiply-adds per gradient, and small enough."""
    count, dim = statistics.gram.shape[:2]
    if dim**6 > MAX_MOMENT_ENTRIES:
        return False
    outputs = statistics.num_outputs
    per_sequence = 4 * dim**2 if statistics.query is not None else 6 * dim**2 * outputs
    return bool(2 * dim**6 < count * per_sequence)


DataForm = MomentForm | SequenceForm


def data_form(statistics: Statistics, weights: Array) -> DataForm:
    """Return the cheaper form of the weighted data."""
    if prefers_moments(statistics):
        return MomentForm(statistics, weights)
    return SequenceForm(statistics, weights)
