"""How far clients drift apart within a round (C6)."""

from __future__ import annotations

import numpy as np

from linattn._typing import Array
from linattn.linalg import affine_chain
from linattn.objectives.forms import SequenceForm
from linattn.theory.frozen import FrozenStage
from linattn.theory.polynomials import contraction
from linattn.theory.tracking import SPECTRAL_SLACK, coupling_matrix
from linattn.types import Params, Problem


def consensus_chain(step_size: float, constants: Array, heterogeneity: Array) -> Array:
    """Return bounds of D_1 … D_E: D_{e+1} ≤ (1 + ηL_e)D_e + ηζ_e from D_0 = 0.

    Parameters
    ----------
    step_size : float
        η.
    constants : array, shape (E,)
        L_e, a Lipschitz constant of the client gradients between w̄_e and the w_{i,e}.
    heterogeneity : array, shape (E,)
        ζ_e = (Σp‖∇F_i(w̄_e) − ∇F(w̄_e)‖²)^½.

    Notes
    -----
    Source: C6. Cost: E.

    Examples
    --------
    >>> import numpy as np
    >>> consensus_chain(0.5, np.array([2.0, 2.0]), np.array([4.0, 4.0]))
    array([2., 6.])
    """
    return affine_chain(0.0, 1.0 + step_size * constants, step_size * heterogeneity)[1:]


def secant_constants(weights: Array, changes: Array, spreads: Array) -> Array:
    """Return L_e = (Σp‖∇F_i(w_i) − ∇F_i(w̄)‖²)^½ / D_e, zero where D_e = 0.

    Parameters
    ----------
    weights : array, shape (P,)
    changes : array, shape (E, P, D)
        ∇F_i(w_{i,e}) − ∇F_i(w̄_e).
    spreads : array, shape (E,)
        D_e.

    Notes
    -----
    Source: C6. No assumption: the constant is that of the path itself. Cost: E P D.
    """
    sizes = np.sqrt(np.sum(changes**2, axis=2) @ weights)
    return np.where(spreads > 0.0, sizes / np.where(spreads > 0.0, spreads, 1.0), 0.0)


def client_hessian(problem: Problem, client: int, params: Params) -> Array:
    """Return ∇²F_i at merged parameters as a matrix, (D, D), kernel entries first.

    Raises
    ------
    ValueError
        For factored kernels.

    Notes
    -----
    Source: C6, Second derivatives. Cost: n_i d (Hd)² m, D² numbers.
    """
    if params.is_factored:
        raise ValueError("params must have a merged kernel: the segment bound of C6 needs one.")
    held = problem.statistics.take(problem.client(client))
    weights = np.full(len(held.energy), 1.0 / len(held.energy))
    form, kernel, value = SequenceForm(held, weights), params["kernel"], params.value
    curved = form.kernel_hessian(value) + problem.kernel_ridge * np.eye(kernel.size)
    block = form.normal_equations(kernel).hessian
    wide = np.kron(block + problem.value_ridge * np.eye(len(block)), np.eye(value.shape[-1]))
    cross = coupling_matrix(held, weights, kernel=kernel, value=value)
    return np.block([[curved, cross], [cross.T, wide]])


def segment_constant(problem: Problem, client: int, start: Params, end: Params) -> float:
    """Return a bound of ‖∇²F_i‖₂ on the whole segment between two merged parameters.

    Along the segment the Hessian is a quadratic H(t), so it is a convex combination of H(0), H(1)
    and 2H(½) − (H(0) + H(1))/2, its Bernstein coefficients.

    Notes
    -----
    Source: C6. Cost: three client Hessians and three spectra of (D, D) matrices.
    """
    middle = Params(start.layout, 0.5 * (start.flat + end.flat))
    first, half, last = (client_hessian(problem, client, p) for p in (start, middle, end))
    coefficients = (first, 2.0 * half - 0.5 * (first + last), last)
    largest = max(float(np.abs(np.linalg.eigvalsh(matrix)).max()) for matrix in coefficients)
    return largest * (1.0 + SPECTRAL_SLACK)


def frozen_consensus_bound(
    stage: FrozenStage, heterogeneity: float, *, force: bool = False
) -> float | None:
    """Return D_E ≤ ηEζ, or None where η > 2/max λ_max(A_i).

    Parameters
    ----------
    stage : FrozenStage
    heterogeneity : float
        ζ, the largest ζ_e over the local steps; the one at the start is not enough.
    force : bool
        Return the expression even where it is not a bound, to show that the condition is needed.

    Notes
    -----
    Source: C6 (frozen stage). Cost: the spectra of A_i.
    """
    if stage.largest_step_curvature > 2.0 and not force:
        return None
    return stage.local_lr * stage.common_steps * heterogeneity


def frozen_contraction_bound(
    stage: FrozenStage, heterogeneity: float, *, force: bool = False
) -> float | None:
    """Return D_E ≤ ζ(1 − (1 − ηa)^E)/a, a = min λ_min(A_i); None where η > 1/max λ_max(A_i).

    Parameters
    ----------
    stage : FrozenStage
    heterogeneity : float
    force : bool
        Both as in `frozen_consensus_bound`.

    Notes
    -----
    Source: C6 (frozen stage). Stays bounded as E grows. Cost: the spectra of A_i.
    """
    if stage.largest_step_curvature > 1.0 and not force:
        return None
    smallest = float(np.linalg.eigvalsh(stage.hessians).min())
    shrunk = contraction(np.array(stage.local_lr * smallest), stage.common_steps)
    return heterogeneity * float(shrunk) / smallest
