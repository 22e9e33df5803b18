"""The bias of a frozen stage beside the exact one: to first order, and from above (C8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from linattn._typing import Array
from linattn.linalg import contract
from linattn.theory.polynomials import slope

if TYPE_CHECKING:
    from linattn.theory.stage import FrozenStage


def first_order_bias(stage: FrozenStage) -> Array:
    """Return V_∞ − V* to first order in η(E − 1), (Hd, m).

    With equal work (η(E − 1)/2) A⁻¹ Σ p (A_i − A) g_i*. In general, with q_i ∝ a_i E_i and V_q the
    minimizer of F_q = Σ q_i F_i,

        (V_q − V*) + A_q⁻¹ Σ q_i (η(E_i − 1)/2) A_i g_i(V_q)

    of which the first part does not vanish with η: objective inconsistency.

    Raises
    ------
    ValueError
        With stragglers.

    Notes
    -----
    Source: C8; unequal work, C21. Proof: S_i = E_i (I − (η(E_i − 1)/2) A_i) + O(η²) in C7. Cost:
    C (Hd)² m.
    """
    if stage.local_work.stragglers > 0.0:
        raise ValueError(
            f"stage must be without stragglers for the bias to first order, got E = "
            f"{stage.local_work}."
        )
    q, gradients = stage.weights, stage.gradients_at_minimizer
    if not stage.is_plain:
        q = stage.work_shares / stage.work_shares.sum()
    hessian, inconsistency = np.tensordot(q, stage.hessians, 1), np.zeros_like(gradients[0])
    if not stage.is_plain:
        inconsistency = -np.linalg.solve(hessian, np.tensordot(q, gradients, 1))
        gradients = gradients + stage.hessians @ inconsistency
    numbers = 0.5 * stage.local_lr * (stage.local_work.mean(len(q)) - 1.0)
    # Σ q c_i A_i g_i = Σ q c_i (A_i − A) g_i + A Σ q (c_i − c) g_i for any c, because Σ q g_i = 0.
    apart = contract("i,iab,ibc->ac", q * numbers, stage.hessians - hessian, gradients)
    spread = np.tensordot(q * (numbers - numbers.min()), gradients, 1)
    return np.asarray(inconsistency + np.linalg.solve(hessian, apart) + spread)


def bias_bound(stage: FrozenStage, *, crude: bool = False) -> float | None:
    """Return the bound of ‖V_∞ − V*‖ of C8, or None where it does not hold.

        L/λ_min(Σp S_iA_i/E) · Σp ‖A_i − A‖‖g_i*‖₂,   S_i/E = s(A_i), |s'| ≤ L

    Parameters
    ----------
    stage : FrozenStage
    crude : bool
        Take L = η(E − 1)/2 whatever the step size.

    Returns
    -------
    float or None
        None where η ≥ 2/max λ_max(A_i), work is unequal or averaging is not plain.

    Notes
    -----
    Source: C8. Cost: the spectra of A_i and of their mean.
    """
    if stage.largest_step_curvature >= 2.0 or not stage.is_plain:
        return None
    steps, step_size = stage.common_steps, stage.local_lr
    lipschitz = 0.5 * step_size * (steps - 1)
    if not crude and stage.largest_step_curvature <= 1.0:
        lipschitz = slope(stage.smallest_step_curvature, steps, step_size)
    return bound_with(stage, lipschitz)


def bound_with(stage: FrozenStage, lipschitz: float) -> float:
    """Return the expression of `bias_bound` for any L; a bound only if |s'| ≤ L."""
    smallest = float(np.linalg.eigvalsh(stage.surrogate_hessian / stage.common_steps)[0])
    covariance = np.linalg.norm(stage.hessians - stage.hessian, axis=(1, 2))
    targets = np.linalg.norm(stage.gradients_at_minimizer, ord=2, axis=(1, 2))
    return float(lipschitz / smallest * np.sum(stage.weights * covariance * targets))
