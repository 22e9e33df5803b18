"""The data as statistics of single sequences (notes, Moments).

This form and the one of moments answer the same questions about  loss(B, V) = Σ_s w_s ℓ_s(B, V)
with the same numbers to rounding; which one is cheaper depends on the number of sequences
(`moment_form`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.linalg import contract
from linattn.objectives.tensor import TensorData
from linattn.types import Problem, Statistics


class LossGradient(NamedTuple):
    """Data loss with its gradients in B, (H, d, d), and V, (H, d, m)."""

    loss: float
    kernel: Array
    value: Array


class NormalEquations(NamedTuple):
    """H(B), (Hd, Hd), and C(B), (Hd, m): the data part of the value-block problem."""

    hessian: Array
    linear: Array


def query_features(statistics: Statistics, kernel: Array) -> Array:
    """Return G B_hᵀ u of every sequence and head, (S, Hd); rank-one readouts only."""
    assert statistics.query is not None
    pulled = np.tensordot(statistics.query, kernel, (1, 1))  # (S, H, d): B_hᵀ u
    return (pulled @ statistics.gram).reshape(len(pulled), -1)


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

    def _rank_one_gradient(self, kernel: Array, value: Array) -> LossGradient:
        query, target = self.statistics.query, self.statistics.target
        assert query is not None
        assert target is not None
        features = query_features(self.statistics, kernel)
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
            features = query_features(self.statistics, kernel)
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
        """𝓚(V) without μ: Σ w M ⊗ (G V_h)(G V_k)ᵀ, (Hd², Hd²), index (h, a, b)."""
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
        """D ↦ 𝓚(V)D = Σ w M D (G V)(G V)ᵀ; S d (2Hd + d) m multiply-adds each, no matrix."""
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
        """Hessian of the loss at (B, V) applied to a direction (notes, Second derivatives)."""
        mapped, _, residual = self._residual(kernel, value)
        mapped_direction = self._map_values(value_direction)
        change = contract("hab,shbm->sam", kernel_direction, mapped)
        change = change + contract("hab,shbm->sam", kernel, mapped_direction)
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

    @cached_property
    def tensor(self) -> TensorData:
        """The loss as a function of W = Σ_h vec(B_h) vec(V_h)ᵀ."""
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


def sequence_equations(problem: Problem, kernels: Array, client: int) -> NormalEquations:
    """Return H_s, (S, Hd, Hd), and C_s, (S, Hd, m), of a client's S sequences, without ridge.

    What minibatches draw from: block (h, k) of H_s is G B_hᵀ M B_k G, block h of C_s is G B_hᵀ K;
    their means are H_i and C_i.

    Notes
    -----
    Source: Model. Cost: S (Hd)² d, and S (Hd)² numbers.
    """
    held = problem.statistics.take(problem.client(client))
    heads, dim = kernels.shape[:2]
    if held.query is not None:
        assert held.target is not None
        features = query_features(held, kernels)
        return NormalEquations(
            features[:, :, None] * features[:, None, :],
            features[:, :, None] * held.target[:, None, :],
        )
    # Γ = [B_1 G … B_H G], (S, d, Hd).
    stacked = (kernels.reshape(heads * dim, dim) @ held.gram).reshape(-1, heads, dim, dim)
    wide = np.ascontiguousarray(stacked.transpose(0, 2, 1, 3)).reshape(-1, dim, heads * dim)
    turned = wide.transpose(0, 2, 1)
    return NormalEquations(turned @ (held.query_moments() @ wide), turned @ held.cross_moments())
