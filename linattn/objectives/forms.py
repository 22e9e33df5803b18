"""Two ways to hold the data part of the objective: per sequence, or as moments of all sequences.

Both answer the same questions about  loss(B, V) = Σ_s w_s ℓ_s(B, V)  with the same numbers to
rounding; which one is cheaper depends on the number of sequences (notes, Moments).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from linattn._typing import Array, IntArray
from linattn.objectives.tensor import TensorData
from linattn.types import Statistics

# One moment tensor must stay well inside the caches it is meant to exploit, and memory.
MAX_MOMENT_ENTRIES = 4_000_000


class LossGradient(NamedTuple):
    """Data loss with its gradients in B, (H, d, d), and V, (H, d, m)."""

    loss: float
    kernel: Array
    value: Array


class NormalEquations(NamedTuple):
    """H(B), (Hd, Hd), and C(B), (Hd, m): the data part of the value-block problem."""

    hessian: Array
    linear: Array


class DataForm(Protocol):
    """What objectives ask of the data."""

    energy: float

    @property
    def tensor(self) -> TensorData:
        """The loss as a function of W = Σ_h vec(B_h) vec(V_h)ᵀ."""

    def gradient(self, kernel: Array, value: Array) -> LossGradient:
        """Loss and gradients at (B, V)."""

    def normal_equations(self, kernel: Array) -> NormalEquations:
        """H(B) and C(B)."""

    def kernel_hessian(self, value: Array) -> Array:
        """Matrix of 𝓚(V) without μ, (Hd², Hd²), index (h, a, b)."""

    def kernel_operator(self, value: Array) -> Callable[[Array], Array]:
        """The same as a function of a vector (Hd²,)."""

    def hvp(
        self, kernel: Array, value: Array, kernel_direction: Array, value_direction: Array
    ) -> tuple[Array, Array]:
        """Hessian of the loss at (B, V) applied to a direction (D, W)."""

    def tensor_gradient(self, kernel: Array, value: Array) -> Array:
        """𝒢 = Σ w R ⊗ G, (d², dm): the gradient in W = Σ_h vec(B_h) vec(V_h)ᵀ (C15)."""


class SequenceForm:
    """The data as statistics of single sequences with weights.

    Notes
    -----
    Cost of a gradient with S sequences: S (5H + 1) d² m multiply-adds for the token readout,
    about 4 S H d² for mean and last, whose M has rank one.
    """

    def __init__(self, statistics: Statistics, weights: Array) -> None:
        self.statistics = statistics
        self.weights = weights
        self.energy = float(weights @ statistics.energy)

    def gradient(self, kernel: Array, value: Array) -> LossGradient:
        """Loss and gradients: ∂B_h = Σ w R (G V_h)ᵀ, ∂V_h = Σ w G B_hᵀ R (notes, Model)."""
        if self.statistics.query is not None:
            return self._rank_one_gradient(kernel, value)
        heads, dim, outputs = value.shape
        mapped, product, residual = self._residual(kernel, value)
        weighted = residual * self.weights[:, None, None]
        cross = self.statistics.cross_moments()
        loss = 0.5 * self.energy + 0.5 * float(
            np.vdot(weighted, product) - np.einsum("s,sam,sam->", self.weights, cross, product)
        )
        # Rows (s, c): R against the G V_h of all heads in one product, then Bᵀ R of all heads.
        rows = np.ascontiguousarray(weighted.transpose(0, 2, 1)).reshape(-1, dim)
        columns = np.ascontiguousarray(mapped.transpose(0, 3, 1, 2)).reshape(-1, heads * dim)
        kernel_gradient = (rows.T @ columns).reshape(dim, heads, dim).transpose(1, 0, 2)
        pulled = rows @ kernel.transpose(1, 0, 2).reshape(dim, -1)
        by_channel = pulled.reshape(-1, outputs, heads, dim).transpose(0, 3, 2, 1)
        stacked = np.ascontiguousarray(by_channel).reshape(-1, heads * outputs)
        value_gradient = self.statistics.gram.reshape(-1, dim).T @ stacked
        value_gradient = value_gradient.reshape(dim, heads, outputs).transpose(1, 0, 2)
        return LossGradient(loss, kernel_gradient, value_gradient)

    def _map_values(self, value: Array) -> Array:
        """G V_h of every sequence and head, (S, H, d, m)."""
        heads, dim, outputs = value.shape
        wide = value.transpose(1, 0, 2).reshape(dim, heads * outputs)
        mapped = (self.statistics.gram.reshape(-1, dim) @ wide).reshape(-1, dim, heads, outputs)
        return np.ascontiguousarray(mapped.transpose(0, 2, 1, 3))

    def _residual(self, kernel: Array, value: Array) -> tuple[Array, Array, Array]:
        """G V_h of every head (S, H, d, m), and Z and R = M Z − K, each (S, d, m)."""
        heads, dim, outputs = value.shape
        mapped = self._map_values(value)
        wide = kernel.transpose(1, 0, 2).reshape(dim, heads * dim)
        product = wide @ mapped.reshape(-1, heads * dim, outputs)
        if self.statistics.query is None:
            moment_product = self.statistics.query_moments() @ product
        else:
            query = self.statistics.query
            moment_product = query[:, :, None] * np.einsum("sa,sam->sm", query, product)[:, None]
        return mapped, product, moment_product - self.statistics.cross_moments()

    def _features(self, kernel: Array) -> Array:
        """G B_hᵀ u of every sequence and head, (S, Hd); rank-one readouts only."""
        assert self.statistics.query is not None
        pulled = np.tensordot(self.statistics.query, kernel, (1, 1))  # (S, H, d): B_hᵀ u
        return (pulled @ self.statistics.gram).reshape(len(pulled), -1)

    def _rank_one_gradient(self, kernel: Array, value: Array) -> LossGradient:
        query, target = self.statistics.query, self.statistics.target
        assert query is not None
        assert target is not None
        features = self._features(kernel)
        error = features @ value.reshape(-1, value.shape[-1]) - target
        weighted = error * self.weights[:, None]
        loss = 0.5 * float(np.vdot(weighted, error))
        backward = np.tensordot(weighted, value, (1, 2)) @ self.statistics.gram  # (S, H, d)
        kernel_gradient = np.tensordot(query, backward, (0, 0)).transpose(1, 0, 2)
        return LossGradient(loss, kernel_gradient, (features.T @ weighted).reshape(value.shape))

    def normal_equations(self, kernel: Array) -> NormalEquations:
        """H block (h, k) = Σ w G B_hᵀ M B_k G and C block h = Σ w G B_hᵀ K."""
        heads, dim = kernel.shape[:2]
        if self.statistics.query is not None:
            assert self.statistics.target is not None
            features = self._features(kernel)
            weighted = features * self.weights[:, None]
            hessian, linear = weighted.T @ features, weighted.T @ self.statistics.target
        else:
            # Rows (s, a), columns (h, b): the feature map B_h G before the queries are applied.
            maps = np.tensordot(self.statistics.gram, kernel, (1, 2)).transpose(0, 3, 2, 1)
            maps = np.ascontiguousarray(maps).reshape(-1, dim, heads * dim)
            moment = (self.statistics.query_moments() @ maps) * self.weights[:, None, None]
            cross = self.statistics.cross_moments() * self.weights[:, None, None]
            flat = maps.reshape(-1, heads * dim)
            hessian = flat.T @ moment.reshape(-1, heads * dim)
            linear = flat.T @ cross.reshape(-1, cross.shape[-1])
        return NormalEquations(0.5 * (hessian + hessian.T), linear)

    def kernel_hessian(self, value: Array) -> Array:
        """Σ w M ⊗ (G V_h)(G V_k)ᵀ, index (h, a, b)."""
        heads, dim = value.shape[:2]
        gamma = np.stack([self.statistics.gram @ v for v in value], axis=1)
        gamma = gamma.reshape(len(gamma), heads * dim, -1)
        outer = (gamma @ gamma.transpose(0, 2, 1)).reshape(len(gamma), -1)
        moments = self.statistics.query_moments().reshape(len(gamma), -1)
        tensor = (moments * self.weights[:, None]).T @ outer
        tensor = tensor.reshape(dim, dim, heads, dim, heads, dim)  # a, a', h, b, h', b'
        matrix = tensor.transpose(2, 0, 3, 4, 1, 5).reshape(heads * dim**2, -1)
        return np.asarray(0.5 * (matrix + matrix.T))

    def kernel_operator(self, value: Array) -> Callable[[Array], Array]:
        """D ↦ Σ w M D (G V)(G V)ᵀ; S d (2Hd + d) m multiply-adds each, no matrix."""
        heads, dim, _ = value.shape
        columns = self._map_values(value).transpose(1, 2, 0, 3).reshape(heads * dim, -1)
        moments = self.statistics.query_moments() * self.weights[:, None, None]

        def apply(flat: Array) -> Array:
            wide = flat.reshape(heads, dim, dim).transpose(1, 0, 2).reshape(dim, -1)
            products = (wide @ columns).reshape(dim, len(moments), -1).transpose(1, 0, 2)
            rows = (moments @ products).transpose(1, 0, 2).reshape(dim, -1)
            return (rows @ columns.T).reshape(dim, heads, dim).transpose(1, 0, 2).reshape(-1)

        return apply

    def hvp(
        self, kernel: Array, value: Array, kernel_direction: Array, value_direction: Array
    ) -> tuple[Array, Array]:
        """Hessian-vector product (notes, Second derivatives)."""
        mapped, _, residual = self._residual(kernel, value)
        mapped_direction = self._map_values(value_direction)
        change = np.einsum("hab,shbm->sam", kernel_direction, mapped, optimize=True)
        change = change + np.einsum("hab,shbm->sam", kernel, mapped_direction, optimize=True)
        moment_change = self.statistics.query_moments() @ change
        weights = self.weights[:, None, None]
        moment_change, residual = moment_change * weights, residual * weights

        def pull(left: Array, block: Array) -> Array:
            return np.tensordot(
                self.statistics.gram, np.tensordot(left, block, (1, 0)), ((0, 2), (0, 2))
            )

        kernel_part = np.tensordot(moment_change, mapped, ((0, 2), (0, 3)))
        kernel_part = kernel_part + np.tensordot(residual, mapped_direction, ((0, 2), (0, 3)))
        value_part = [
            pull(moment_change, b) + pull(residual, d)
            for b, d in zip(kernel, kernel_direction, strict=True)
        ]
        return kernel_part.transpose(1, 0, 2), np.stack(value_part)

    def tensor_gradient(self, kernel: Array, value: Array) -> Array:
        """𝒢 = Σ w R ⊗ G with entry ((i, j), (k, o)) = R_io G_jk (C15)."""
        return self.tensor.loss_and_gradient(kernel, value)[1]

    @cached_property
    def tensor(self) -> TensorData:
        """The loss as a function of W."""
        held, weights = self.statistics, self.weights[:, None, None]
        low, high = np.triu_indices(held.gram.shape[1])
        return TensorData(
            np.ascontiguousarray(held.gram[:, low, high]),
            held.query_moments() * weights,
            held.cross_moments() * weights,
            self.energy,
            low,
            high,
        )


class MomentForm:
    """The data as moments: T = Σ w G ⊗ G ⊗ M and Σ w K ⊗ G (notes, Moments).

    The loss is a quadratic in W = Σ_h B_h ⊗ V_h, so these two tensors are all of it. Cost of a
    gradient, whatever the number of sequences: 2 d⁶ multiply-adds for one head, f² m + 3H d³ m
    for several, f = d²(d + 1)/2.
    """

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

    def tensor_gradient(self, kernel: Array, value: Array) -> Array:
        """𝒢 (d², dm), C15."""
        return self.tensor.loss_and_gradient(kernel, value)[1]

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
    held = statistics.cross if statistics.target is None else statistics.target
    assert held is not None
    outputs = held.shape[-1]
    per_sequence = 4 * dim**2 if statistics.query is not None else 6 * dim**2 * outputs
    return bool(2 * dim**6 < count * per_sequence)


def data_form(statistics: Statistics, weights: Array) -> DataForm:
    """Return the cheaper form of the weighted data."""
    if prefers_moments(statistics):
        return MomentForm(statistics, weights)
    return SequenceForm(statistics, weights)
