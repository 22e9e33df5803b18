"""Small dense linear algebra: safe eigenvalue bounds and symmetric solves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from linattn._typing import Array
from linattn.streams import stream

EXACT_EIGENVALUE_SIZE = 1024
# Above the error of a symmetric eigenvalue solver (about n·eps), far below any use of the value.
EIGENVALUE_SLACK = 1e-10


class Factorized(NamedTuple):
    """Cholesky factor of a symmetric positive definite matrix, ready for solves."""

    factor: Array

    def solve(self, right: Array) -> Array:
        """Return A⁻¹ right."""
        solution, _ = scipy.linalg.lapack.dpotrs(self.factor, right, lower=1)
        return np.ascontiguousarray(solution)


def factorize(matrix: Array) -> Factorized:
    """Return the Cholesky factorization of a symmetric positive definite matrix.

    Raises
    ------
    FloatingPointError
        If the matrix has non-finite entries or is not positive definite to rounding, which happens
        only after an iterate has diverged or a ridge is negligible against the data.
    """
    # LAPACK by name: the checks around it cost more than a small factorization.
    factor, failed = scipy.linalg.lapack.dpotrf(matrix, lower=1, clean=1)
    if failed or not np.isfinite(factor).all():  # LAPACK factorizes NaN without complaint
        raise FloatingPointError("the value-block Hessian is not positive definite, nor finite")
    return Factorized(factor)


def largest_eigenvalue(matrix: Array) -> float:
    """Return a safe upper bound of λ_max of a symmetric positive semidefinite matrix.

    Up to 1,024 rows the bound is within a factor 1 + 1e-8. Beyond, a Lanczos lower bound ℓ is
    raised until a Cholesky factorization of cI − A proves c ≥ λ_max; c ≤ 2 λ_max.

    Parameters
    ----------
    matrix : array, shape (N, N)

    Raises
    ------
    FloatingPointError
        If the matrix has non-finite entries.

    Notes
    -----
    Cost: O(N³); N² memory twice.
    """
    size = len(matrix)
    if not np.isfinite(matrix).all():
        raise FloatingPointError("a curvature matrix is not finite")
    if size <= EXACT_EIGENVALUE_SIZE:
        top = scipy.linalg.eigvalsh(matrix, subset_by_index=[size - 1, size - 1])[0]
        return float(top) * (1.0 + EIGENVALUE_SLACK)
    if not matrix.any():
        return 0.0
    # Fixed, so that the result does not vary between calls, and generic: a start orthogonal to the
    # top eigenvector would stall.
    start = stream(0, "lanczos").normal(size=size)
    lower = float(
        scipy.sparse.linalg.eigsh(matrix, k=1, tol=1e-4, v0=start, return_eigenvectors=False)[0]
    )
    bound = 1.001 * max(lower, float(np.trace(matrix)) / size)
    while not _is_positive_definite(bound * np.eye(size) - matrix):
        bound *= 1.1
    return bound


def _is_positive_definite(matrix: Array) -> bool:
    try:
        scipy.linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return False
    return True


def spectral_norms(matrices: Array) -> Array:
    """Return ‖·‖₂ of stacked symmetric positive semidefinite matrices, (..., d, d) -> (...).

    Raises
    ------
    FloatingPointError
        If a matrix has non-finite entries.
    """
    if not np.isfinite(matrices).all():
        raise FloatingPointError("a curvature matrix is not finite")
    return np.asarray(np.linalg.eigvalsh(matrices)[..., -1])


def weighted_sum(weights: Array, rows: Array) -> Array:
    """Return Σ_k weights[k] · rows[k] added up in this order, so that compiled code can repeat it.

    A matrix product may add in another order for another number of threads or rows.
    """
    out = weights[0] * rows[0]
    for weight, row in zip(weights[1:].tolist(), rows[1:], strict=True):
        out += weight * row
    return np.asarray(out)


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


def stack_heads(blocks: Array) -> Array:
    """Value-type blocks (H, d, m) as one (Hd, m) matrix with row index h·d + a."""
    return blocks.reshape(-1, blocks.shape[-1])
