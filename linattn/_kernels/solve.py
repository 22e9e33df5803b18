"""Compiled solution of many value-block problems: (A + λI) V = C by Cholesky's factorization.

For the small systems of one kernel after the other, where calling a library costs more than the
solution.
"""

import numpy as np

from linattn._kernels.jit import inner, outer
from linattn._kernels.lanes import WIDTH, load, spread, times_plus, total
from linattn._typing import Array


@inner
def _dot(rows: Array, i: int, j: int, size: int) -> float:
    """The product of the first entries of two rows, in lanes."""
    width = rows.shape[1]
    whole = size - size % WIDTH
    lanes, rest = spread(0.0), 0.0
    for k in range(0, whole, WIDTH):
        lanes = times_plus(load(rows, i * width + k), load(rows, j * width + k), lanes)
    for k in range(whole, size):
        rest += rows[i, k] * rows[j, k]
    return float(total(lanes) + rest)


@inner
def _factorize(matrix: Array, factor: Array) -> bool:
    """Write the lower Cholesky factor; False where there is none."""
    for i in range(matrix.shape[0]):
        for j in range(i):
            factor[j, i] = 0.0
            factor[i, j] = (matrix[i, j] - _dot(factor, i, j, j)) / factor[j, j]
        square = matrix[i, i] - _dot(factor, i, i, i)
        if not (square > 0.0 and square < np.inf):
            return False
        factor[i, i] = np.sqrt(square)
    return True


@inner
def _substitute(factor: Array, right: Array, out: Array) -> None:
    """out = L⁻ᵀ L⁻¹ right."""
    size, outputs = right.shape
    for i in range(size):
        for c in range(outputs):
            out[i, c] = right[i, c]
        for j in range(i):
            x = factor[i, j]
            for c in range(outputs):
                out[i, c] -= x * out[j, c]
        for c in range(outputs):
            out[i, c] /= factor[i, i]
    for i in range(size - 1, -1, -1):
        for c in range(outputs):
            out[i, c] /= factor[i, i]
        for j in range(i):
            x = factor[i, j]
            for c in range(outputs):
                out[j, c] -= x * out[i, c]


@outer
def solve(hessians: Array, linears: Array, ridge: float, factors: Array, solutions: Array) -> None:
    """Add λI to every A, factorize it and solve for C; NaN where A + λI has no factor.

    Parameters
    ----------
    hessians, factors : array, shape (N, n, n)
    linears, solutions : array, shape (N, n, m)
    """
    for k in range(hessians.shape[0]):
        hessian, factor, solution = hessians[k], factors[k], solutions[k]
        for i in range(hessian.shape[0]):
            hessian[i, i] += ridge
        if _factorize(hessian, factor):
            _substitute(factor, linears[k], solution)
        else:
            factor[:, :] = np.nan
            solution[:, :] = np.nan
