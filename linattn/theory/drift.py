"""One FedAvg round as one inexact gradient step: how large the drift error can be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.theory.polynomials import power_sums


def general_drift_factor(x: float, steps: int) -> float:
    """Return ψ = ((1 + x)^E − 1)/(xE) − 1 at x = ηL, about x(E − 1)/2.

    With e = (1/E)Σ_k(∇F_i(w^k) − ∇F_i(w)) over E local steps of size η on an L-smooth F_i,
    ‖e‖ ≤ ψ‖∇F_i(w)‖: gradients grow by at most 1 + ηL per step. No convexity.

    Notes
    -----
    Source: Inexact gradient descent (a round as one step). Summed as
    (1/E)Σ_k((1 + x)^k − 1) = (x/E) T_E(−x), which does not cancel. Cost: log₂ E.

    Examples
    --------
    >>> general_drift_factor(0.5, 1), general_drift_factor(0.5, 2)
    (0.0, 0.25)
    """
    return float(x * power_sums(np.array(-x), steps).weighted) / steps


def quadratic_drift_factor(x: float, steps: int) -> float:
    """Return ψ_q = 1 − (1 − (1 − x)^E)/(xE) < 1 at x = ηL ≤ 1, for convex quadratics.

    Notes
    -----
    Source: Inexact gradient descent (a round as one step). Summed as
    (1/E)Σ_k(1 − (1 − x)^k) = (x/E) T_E(x), which does not cancel. For x > 1 it is not a bound.
    Cost: log₂ E.

    Examples
    --------
    >>> quadratic_drift_factor(0.5, 1), quadratic_drift_factor(0.5, 2)
    (0.0, 0.25)
    """
    return float(x * power_sums(np.array(x), steps).weighted) / steps


class BlockConstants(NamedTuple):
    """Lipschitz constants of the blocks of one client's gradient along its path.

    Attributes
    ----------
    kernel, kernel_value : float
        Of ∂_θF_i in θ, and in V.
    value_kernel, value : float
        Of ∂_VF_i in θ, and in V.
    """

    kernel: float
    kernel_value: float
    value_kernel: float
    value: float


def block_drift(
    step_size: float, steps: int, *, constants: BlockConstants, start: tuple[float, float]
) -> tuple[float, float]:
    """Return bounds of ‖(1/E)Σ_k(∂F_i(w^k) − ∂F_i(w))‖ in the kernel and in the value block.

    The kernel block is general and may grow by 1 + ηL_θθ per step; F_i is a convex quadratic in V,
    so for ηλ_max(A_i) ≤ 2 the value gradient grows through the moving kernel only, and its change
    is at most the sum of both its norms.

    Parameters
    ----------
    step_size : float
        η.
    steps : int
        E.
    constants : BlockConstants
    start : tuple of float
        ‖∂_θF_i(w)‖ and ‖∂_VF_i(w)‖.

    Notes
    -----
    Source: Inexact gradient descent (a round as one step, block by block). Cost: E.
    """
    kernel, value = start
    moved_kernel = moved_value = total_kernel = total_value = 0.0
    c = constants
    for _ in range(steps - 1):
        kernel_change = step_size * (c.kernel * kernel + c.kernel_value * value)
        value_push = step_size * c.value_kernel * kernel
        moved_kernel += kernel_change
        moved_value += value_push + step_size * c.value * value
        kernel, value = kernel + kernel_change, value + value_push
        total_kernel += moved_kernel
        total_value += min(moved_value, value + start[1])
    return total_kernel / steps, total_value / steps


def dissimilarity(norm_means: Array, mean_norms: Array, slope: float) -> float:
    """Return the smallest G_d with Σp‖∇F_i‖ ≤ G_d + B_d‖∇F‖ at all visited points.

    Parameters
    ----------
    norm_means : array, shape (N,)
        Σp‖∇F_i‖ at every point.
    mean_norms : array, shape (N,)
        ‖∇F‖.
    slope : float
        B_d ≥ 0.

    Notes
    -----
    Source: Inexact gradient descent (a round as one step). A supremum over visited points, so
    it is valid along the trajectory only. Cost: N.
    """
    return float(max(0.0, np.max(norm_means - slope * mean_norms)))
