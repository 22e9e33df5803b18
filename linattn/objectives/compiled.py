"""The data part of F by compiled kernels; a form of NumPy is its twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from linattn._typing import Array
from linattn.linalg import weighted_sum
from linattn.objectives.clients import (
    client_gradients,
    client_products,
    client_systems,
    merged_shape,
)
from linattn.objectives.forms import LossGradient, NormalEquations
from linattn.objectives.moment_form import MomentForm, data_form
from linattn.objectives.packing import pack_moments, sequence_data
from linattn.types import Problem

if TYPE_CHECKING:
    from linattn._kernels.layout import Data, Shape

# Gradients of all clients at many points are held at once, at most so many numbers of them.
MAX_NUMBERS = 2**22


class CompiledForm:
    """The data part of F: compiled on the cheaper of sequences and moments.

    Parameters
    ----------
    problem : Problem

    Attributes
    ----------
    twin : MomentForm or SequenceForm
        The same in NumPy, which also answers what is not compiled.
    energy : float
        c̄.
    """

    def __init__(self, problem: Problem) -> None:
        self.twin = data_form(problem.statistics, problem.sequence_weights)
        self.energy = self.twin.energy
        self._problem = problem
        self._moments: dict[bool, Data] = {}

    def data(self, heads: int) -> tuple[Data, Array]:
        """Packed data and the weights of its clients; moments are those of one client."""
        if not isinstance(self.twin, MomentForm):
            return self._problem.derived(sequence_data), self._problem.weights
        one_head = heads == 1
        if one_head not in self._moments:
            offsets = np.array([0, self._problem.num_sequences])
            self._moments[one_head] = pack_moments([self.twin], one_head, offsets)
        return self._moments[one_head], np.ones(1)

    def gradient(self, kernel: Array, value: Array) -> LossGradient:
        """Loss and gradients (notes, Model)."""
        losses, slopes = self.objectives(merged_shape(*value.shape), _joined(kernel, value)[None])
        return LossGradient(float(losses[0]), *_split(slopes[0], kernel, value))

    def objectives(
        self,
        shape: Shape,
        points: Array,
        ridges: tuple[float, float] = (0.0, 0.0),
        *,
        kernel: bool = True,
        value: bool = True,
    ) -> tuple[Array, Array]:
        """F, (N,), and its gradient, (N, D), at flat parameters (N, D), ridges λ and μ included.

        Parts of the gradient that are not wanted are zero.
        """
        data, weights = self.data(shape.heads)
        (count, size), clients = points.shape, len(weights)
        values, slopes = np.empty(count), np.empty(points.shape)
        chunk = max(1, MAX_NUMBERS // (clients * size))
        for start in range(0, count, chunk):
            here = points[start : start + chunk]
            everybody = np.tile(np.arange(clients), len(here))
            rows = np.repeat(here, clients, axis=0) if clients > 1 and len(here) > 1 else here
            losses, parts = client_gradients(
                data, shape, everybody, rows, ridges=ridges, kernel=kernel, value=value
            )
            part = slice(start, start + len(here))
            values[part] = weighted_sum(weights, losses.reshape(len(here), clients).T)
            by_client = parts.reshape(len(here), clients, size).transpose(1, 0, 2)
            slopes[part] = weighted_sum(weights, by_client)
        return values, slopes

    def systems(self, kernels: Array) -> NormalEquations:
        """H(B), (N, Hd, Hd), and C(B), (N, Hd, m), at kernels (N, H, d, d)."""
        heads, dim = kernels.shape[1:3]
        data, weights = self.data(heads)
        shape = merged_shape(heads, dim, data.cross.shape[1])
        flat = kernels.reshape(len(kernels), -1)
        held = client_systems(data, shape, flat, np.arange(len(weights)), weights)
        return NormalEquations(held.hessian.sum(axis=1), held.linear.sum(axis=1))

    def hvp(
        self, kernel: Array, value: Array, kernel_direction: Array, value_direction: Array
    ) -> tuple[Array, Array]:
        """Hessian-vector product of the loss."""
        data, weights = self.data(len(kernel))
        here, there = _joined(kernel, value), _joined(kernel_direction, value_direction)
        images = client_products(
            data, merged_shape(*value.shape), np.arange(len(weights)), here[None], there[None]
        )
        return _split(weighted_sum(weights, images), kernel, value)


def _joined(kernel: Array, value: Array) -> Array:
    return np.concatenate([kernel.reshape(-1), value.reshape(-1)])


def _split(flat: Array, kernel: Array, value: Array) -> tuple[Array, Array]:
    """Kernel and value entries in the shapes of two blocks."""
    return flat[: kernel.size].reshape(kernel.shape), flat[kernel.size :].reshape(value.shape)
