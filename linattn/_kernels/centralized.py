"""Compiled centralized gradient descent on the moments of all data (theory section 8)."""

import numpy as np
from numba import njit

from linattn._kernels.local import LocalShape
from linattn._typing import Array, IntArray


@njit(cache=True)
def moment_descent(
    moments: Array,
    linear: Array,
    pair: IntArray,
    shape: LocalShape,
    flat: Array,
    value_ridge: float,
    kernel_ridge: float,
    step_size: float,
    steps: int,
) -> None:
    """Take `steps` gradient steps on F, in place.

    Parameters
    ----------
    moments : array, shape (f, f)
        Second moments of the features M ⊗ (upper half of G), f = d·d(d + 1)/2.
    linear : array, shape (f, m)
    pair : array of int, shape (d, d)
        Index of the unordered pair (b, k) in the upper half.
    flat : array, shape (D,)
        Parameters, merged or factored.
    """
    heads, dim, outputs, rank = shape.heads, shape.dim, shape.outputs, shape.rank
    half = moments.shape[0] // dim
    tensor = np.empty((dim * half, outputs))
    slope = np.empty((dim * half, outputs))
    kernel = np.empty((dim, dim))
    kernel_slope = np.empty((heads, dim, dim))
    value_slope = np.empty((heads, dim, outputs))
    kernel_size = heads * dim * dim if rank == 0 else 2 * heads * dim * rank
    factor_size = heads * dim * rank
    factor_slope = np.empty((dim, max(rank, 1)))
    value = flat[kernel_size:].reshape(heads, dim, outputs)
    for _ in range(steps):
        for j in range(dim * half):
            for c in range(outputs):
                tensor[j, c] = 0.0
        for h in range(heads):
            _write_kernel(flat, h, heads, dim, rank, kernel)
            for a in range(dim):
                for b in range(dim):
                    for k in range(dim):
                        row = a * half + pair[b, k]
                        for c in range(outputs):
                            tensor[row, c] += kernel[a, b] * value[h, k, c]
        np.dot(moments, tensor, slope)
        for j in range(dim * half):
            for c in range(outputs):
                slope[j, c] -= linear[j, c]
        for h in range(heads):
            _write_kernel(flat, h, heads, dim, rank, kernel)
            for k in range(dim):
                for c in range(outputs):
                    value_slope[h, k, c] = value_ridge * value[h, k, c]
            for a in range(dim):
                for b in range(dim):
                    total = 0.0
                    for k in range(dim):
                        row = a * half + pair[b, k]
                        for c in range(outputs):
                            total += slope[row, c] * value[h, k, c]
                            value_slope[h, k, c] += slope[row, c] * kernel[a, b]
                    kernel_slope[h, a, b] = total
        if rank == 0:
            kernels = flat[:kernel_size].reshape(heads, dim, dim)
            for h in range(heads):
                for a in range(dim):
                    for b in range(dim):
                        slope_here = kernel_slope[h, a, b] + kernel_ridge * kernels[h, a, b]
                        kernels[h, a, b] -= step_size * slope_here
        else:
            queries = flat[:factor_size].reshape(heads, dim, rank)
            keys = flat[factor_size:kernel_size].reshape(heads, dim, rank)
            for h in range(heads):
                np.dot(kernel_slope[h], keys[h], factor_slope)
                # Q's slope is kept above, so the key may move first, still against the old Q.
                _step_key(kernel_slope[h], queries[h], keys[h], kernel_ridge, step_size)
                for a in range(dim):
                    for j in range(rank):
                        slope_here = factor_slope[a, j] + kernel_ridge * queries[h, a, j]
                        queries[h, a, j] -= step_size * slope_here
        for h in range(heads):
            for k in range(dim):
                for c in range(outputs):
                    value[h, k, c] -= step_size * value_slope[h, k, c]


@njit(cache=True)
def _write_kernel(flat: Array, h: int, heads: int, dim: int, rank: int, out: Array) -> None:
    """B_h from flat parameters."""
    if rank == 0:
        start = h * dim * dim
        for a in range(dim):
            for b in range(dim):
                out[a, b] = flat[start + a * dim + b]
        return
    first, second = h * dim * rank, (heads + h) * dim * rank
    for a in range(dim):
        for b in range(dim):
            total = 0.0
            for j in range(rank):
                total += flat[first + a * rank + j] * flat[second + b * rank + j]
            out[a, b] = total


@njit(cache=True)
def _step_key(
    kernel_slope: Array, query: Array, key: Array, kernel_ridge: float, step_size: float
) -> None:
    """K −= η(∂Bᵀ Q + μK)."""
    dim, rank = query.shape
    for b in range(dim):
        for j in range(rank):
            total = kernel_ridge * key[b, j]
            for a in range(dim):
                total += kernel_slope[a, b] * query[a, j]
            key[b, j] -= step_size * total
