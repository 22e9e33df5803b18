"""Small dense linear algebra: safe eigenvalue bounds and symmetric solves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from linattn._typing import Array

EXACT_EIGENVALUE_SIZE = 1024
# Above the error of a symmetric eigenvalue solver (about n·eps), far below any use of the value.
EIGENVALUE_SLACK = 1e-10


class Factorized(NamedTuple):
    """Cholesky factor of a symmetric positive definite matrix, ready for solves."""

    factor: Array

    def solve(self, right: Array) -> Array:
        """Return A⁻¹ right."""
        return np.asarray(scipy.linalg.cho_solve((self.factor, True), right, check_finite=False))


def factorize(matrix: Array) -> Factorized:
    """Return the Cholesky factorization of a symmetric positive definite matrix.

    Raises
    ------
    FloatingPointError
        If the matrix has non-finite entries or is not positive definite to rounding, which happens
        only after an iterate has diverged or a ridge is negligible against the data.
    """
    try:
        factor = scipy.linalg.cholesky(matrix, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError as error:
        raise FloatingPointError("the value-block Hessian is not positive definite") from error
    return Factorized(factor)


def largest_eigenvalue(matrix: Array) -> float:
    """Return a safe upper bound of λ_max of a symmetric positive semidefinite matrix.

    Up to 1,024 rows the bound is within a factor 1 + 1e-8. Beyond, a Lanczos lower bound ℓ is
    raised until a Cholesky factorization of cI − A proves c ≥ λ_max; c ≤ 2 λ_max.

    Parameters
    ----------
    matrix : array, shape (N, N)

    Notes
    -----
    Cost: O(N³); N²  memory twice.
    """
    size = len(matrix)
    if size <= EXACT_EIGENVALUE_SIZE:
        top = scipy.linalg.eigvalsh(matrix, subset_by_index=[size - 1, size - 1])[0]
        return float(top) * (1.0 + EIGENVALUE_SLACK)
    start = np.ones(size) / np.sqrt(size)  # fixed, so that the result does not vary between calls
    lower = float(
        scipy.sparse.linalg.eigsh(matrix, k=1, tol=1e-4, v0=start, return_eigenvectors=False)[0]
    )
    bound = 1.001 * lower
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
    """Return ‖·‖₂ of stacked symmetric positive semidefinite matrices, (..., d, d) -> (...)."""
    return np.asarray(np.linalg.eigvalsh(matrices)[..., -1])


def stack_heads(blocks: Array) -> Array:
    """Value-type blocks (H, d, m) as one (Hd, m) matrix with row index h·d + a."""
    return blocks.reshape(-1, blocks.shape[-1])
