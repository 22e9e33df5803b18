"""Small dense linear algebra: safe eigenvalue bounds and symmetric solves."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.linalg

from linattn._typing import Array
from linattn.streams import stream

EXACT_EIGENVALUE_SIZE = 1024
FEW_NUMBERS = 2**16
"""Up to so many numbers are weighed all at once."""
# Above the error of a symmetric eigenvalue solver (about n·eps), far below any use of the value.
EIGENVALUE_SLACK = 1e-10
LANCZOS_STEPS = 60
LANCZOS_FAILURE = 1e-15
NOT_FINITE = "a curvature matrix is not finite"
NOT_DEFINITE = "the value-block Hessian is not finite, or not positive definite to rounding"


def solve_definite(matrix: Array, right: Array) -> Array:
    """Return A⁻¹ right for a symmetric positive definite A, by Cholesky factors.

    Raises
    ------
    FloatingPointError
        If the matrix has non-finite entries or is not positive definite to rounding, which happens
        only after an iterate has diverged or a ridge is negligible against the data.
    """
    # LAPACK by name: the checks around it cost more than a small factorization.
    factor, failed = scipy.linalg.lapack.dpotrf(matrix, lower=1, clean=1)
    if failed or not np.isfinite(factor).all():  # LAPACK factorizes NaN without complaint
        raise FloatingPointError(NOT_DEFINITE)
    solution, _ = scipy.linalg.lapack.dpotrs(factor, right, lower=1)
    return np.ascontiguousarray(solution)


def largest_eigenvalue(matrix: Array) -> float:
    """Return a safe upper bound of λ_max of a symmetric positive semidefinite matrix.

    Up to 1,024 rows the bound is within a factor 1 + 1e-8, beyond it is that of
    `largest_eigenvalue_of`.

    Parameters
    ----------
    matrix : array, shape (N, N)

    Raises
    ------
    FloatingPointError
        If the matrix has non-finite entries.

    Notes
    -----
    Cost: O(N³) up to 1,024 rows, 60 N² beyond.
    """
    size = len(matrix)
    if size > EXACT_EIGENVALUE_SIZE:
        return largest_eigenvalue_of(lambda vector: np.asarray(matrix @ vector), size)
    if not np.isfinite(matrix).all():
        raise FloatingPointError(NOT_FINITE)
    top = scipy.linalg.eigvalsh(matrix, subset_by_index=[size - 1, size - 1])[0]
    return float(top) * (1.0 + EIGENVALUE_SLACK)


def largest_eigenvalue_of(product: Callable[[Array], Array], size: int) -> float:
    """Return an upper bound of λ_max of a positive semidefinite operator from 60 products.

    With θ the largest Ritz value after k Lanczos steps from a uniformly random direction,
    P(λ_max > θ/(1 − ε)) ≤ 1.648 √N exp(−√ε (2k − 1)). The bound is θ/(1 − ε) with ε such that this
    is 1e-15: 1.13 λ_max at most for N = 10⁴. The direction is the same in every call.

    Parameters
    ----------
    product : callable
        A vector (N,) to its image.
    size : int
        N.

    Raises
    ------
    FloatingPointError
        If an image is not finite.

    Notes
    -----
    Source: Kuczyński and Woźniakowski 1992. Cost: 60 products and 60² N multiply-adds twice.
    """
    basis = np.zeros((LANCZOS_STEPS, size))
    start = stream(0, "lanczos").normal(size=size)
    basis[0] = start / np.linalg.norm(start)
    diagonal, below = np.zeros(LANCZOS_STEPS), np.zeros(LANCZOS_STEPS)
    for k in range(LANCZOS_STEPS):
        image = product(basis[k])
        if not np.isfinite(image).all():
            raise FloatingPointError(NOT_FINITE)
        diagonal[k] = basis[k] @ image
        before = float(np.linalg.norm(image))
        for _ in range(2):  # the second time for what rounding left
            image = image - basis[: k + 1].T @ (basis[: k + 1] @ image)
        below[k] = np.linalg.norm(image)
        if k + 1 == LANCZOS_STEPS or below[k] <= 1e-14 * before:  # the space is invariant
            break
        basis[k + 1] = image / below[k]
    top = scipy.linalg.eigvalsh_tridiagonal(diagonal[: k + 1], below[:k])[-1]
    exponent = np.log(1.648 * np.sqrt(size) / LANCZOS_FAILURE) / (2 * LANCZOS_STEPS - 1)
    return max(float(top), 0.0) / (1.0 - float(exponent) ** 2)


def spectral_norms(matrices: Array) -> Array:
    """Return ‖·‖₂ of stacked symmetric positive semidefinite matrices, (..., d, d) -> (...).

    Raises
    ------
    FloatingPointError
        If a matrix has non-finite entries.
    """
    if not np.isfinite(matrices).all():
        raise FloatingPointError(NOT_FINITE)
    return np.asarray(np.linalg.eigvalsh(matrices)[..., -1])


def weighted_sum(weights: Array, rows: Array) -> Array:
    """Return Σ_k weights[k] · rows[k] added up in this order, so that compiled code can repeat it.

    A matrix product may add in another order for another number of threads or rows. A sum of zeros
    may have the other sign.

    Raises
    ------
    ValueError
        If there are not as many weights as rows.
    """
    if len(weights) != len(rows):
        raise ValueError(f"weights must have {len(rows)} entries, got {len(weights)}.")
    if rows[0].size > 1 and rows.size <= FEW_NUMBERS:
        # numpy adds whole rows one after the other where the summed axis is not the innermost.
        column = weights.reshape(-1, *[1] * (rows.ndim - 1))
        return np.asarray(np.add.reduce(np.multiply(column, rows, order="C"), axis=0))
    out = weights[0] * rows[0]
    for weight, row in zip(weights[1:].tolist(), rows[1:], strict=True):
        out += weight * row
    return np.asarray(out)


def averaged(weights: Array, each: Array) -> Array:
    """Return Σ_i weights[i] · each[..., i, :, :], (..., C, a, b) -> (..., a, b)."""
    rows = each.reshape(*each.shape[:-2], -1)
    return np.asarray((weights @ rows).reshape(*each.shape[:-3], *each.shape[-2:]))


def contract(subscripts: str, *operands: Array) -> Array:
    """Return `np.einsum` by products of pairs, in an order that is sought once per shape.

    Seeking it takes as long as a product of small matrices.
    """
    order = _order(subscripts, tuple(operand.shape for operand in operands))
    return np.asarray(np.einsum(subscripts, *operands, optimize=order))


@lru_cache(maxsize=1024)
def _order(subscripts: str, shapes: tuple[tuple[int, ...], ...]) -> list[Any]:
    held = (np.broadcast_to(0.0, shape) for shape in shapes)
    return list(np.einsum_path(subscripts, *held, optimize=True)[0])


def finite_or_inf(number: float) -> float:
    """Return a number, or +inf where it is beyond the range of floating-point numbers."""
    return number if np.isfinite(number) else float("inf")


def row_sums(rows: Array) -> Array:
    """Return the sum of every row, (..., n) -> (...), added up in order."""
    if rows.shape[-1] == 0:
        return np.zeros(rows.shape[:-1])
    return np.asarray(np.cumsum(rows, axis=-1)[..., -1])


def row_norms(rows: Array) -> Array:
    """Return the Euclidean norm of every row, (..., n) -> (...)."""
    return np.asarray(np.sqrt(row_sums(rows * rows)))


def weighted_spread(weights: Array, rows: Array, mean: Array) -> float:
    """Return (Σ_k w_k ‖rows[k] − mean‖²)^½, added up in order as compiled rounds do."""
    apart = rows - mean
    return float(np.sqrt(row_sums(weighted_sum(weights, apart * apart))))


def affine_chain(start: float, factors: Array, pushes: Array) -> Array:
    """Return b_0 = start, b_1 … b_N of b ← factor · b + push, (N + 1,)."""
    chain = np.full(len(factors) + 1, start, dtype=np.float64)
    for k, (factor, push) in enumerate(zip(factors, pushes, strict=True)):
        chain[k + 1] = factor * chain[k] + push
    return chain


def stack_heads(blocks: Array) -> Array:
    """Value-type blocks (H, d, m) as one (Hd, m) matrix with row index h·d + a."""
    return blocks.reshape(-1, blocks.shape[-1])


def lowest_point(x: Array, y: Array) -> float:
    """Return where a curve is lowest: by a parabola through its least entry and the neighbours.

    The least entry itself at the ends, beside what is not finite, and where nothing bends upwards.
    """
    k = int(np.argmin(y))
    if k in (0, len(y) - 1) or not np.isfinite(y[k - 1 : k + 2]).all():
        return float(x[k])
    across, up = x[k - 1 : k + 2] - x[k], y[k - 1 : k + 2] - y[k]
    bend = (up[2] / across[2] - up[0] / across[0]) / (across[2] - across[0])
    if bend <= 0.0:
        return float(x[k])
    slope = up[2] / across[2] - bend * across[2]
    return float(x[k] + np.clip(-slope / (2.0 * bend), across[0], across[2]))


def square_root(symmetric: Array) -> Array:
    """Return symmetric square roots of positive semidefinite matrices: as smooth as those are."""
    values, vectors = np.linalg.eigh(symmetric)
    roots = np.sqrt(np.maximum(values, 0.0))
    return np.asarray((vectors * roots[..., None, :]) @ vectors.swapaxes(-1, -2))
