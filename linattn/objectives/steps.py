"""Step sizes that the problem itself justifies."""

from __future__ import annotations

import numpy as np

from linattn._checks import one_of, real
from linattn._typing import Array
from linattn.linalg import spectral_norms
from linattn.objectives.joint import check_fits
from linattn.objectives.population import client_normal_equations, population
from linattn.objectives.profile import kernel_curvature
from linattn.types import Federation, Params, Problem, single_layer


def client_value_curvatures(problem: Problem, params: Params) -> Array:
    """Return λ_max(A_i(B)) of every client, (C,), units of curvature."""
    hessians = client_normal_equations(problem, params.kernels()).hessian
    return spectral_norms(hessians) + problem.value_ridge


def safe_step(problem: Problem, params: Params) -> float:
    """Return 0.5 / max(L_K(V*(B)), max_i λ_max(A_i(B))), units of 1/curvature.

    Parameters
    ----------
    problem : Problem
    params : Params
        Gives B; for factored kernels B = QKᵀ and L_K is that of the merged kernel.

    Raises
    ------
    ValueError
        If the parameters do not fit the problem.
    TypeError
        If the problem has more than one layer.

    Notes
    -----
    Source: C3 (L_K), Frozen stage (A_i). A safe start, not a guarantee for later rounds: both
    constants move with B. Cost: the A_i with their largest eigenvalues, and that of 𝓚.
    """
    check_fits(problem, params)
    held = population(problem)
    minimizer = held.value_system(params.kernels()).value
    kernel = kernel_curvature(held, minimizer)
    return float(0.5 / max(kernel, float(np.max(client_value_curvatures(problem, params)))))


def check_frozen_lr(frozen_lr: float | str | None) -> None:
    """Refuse a frozen_lr that is not None, "safe" or a positive number."""
    if isinstance(frozen_lr, str):
        one_of("frozen_lr", frozen_lr, ("safe",))
    elif frozen_lr is not None:
        real("frozen_lr", frozen_lr, above=0.0)


def frozen_step(
    problem: Federation, params: Params, local_lr: float, frozen_lr: float | str | None
) -> float:
    """Return the step size of the frozen stage at the kernel of `params`; "safe": one layer."""
    if frozen_lr is None:
        return local_lr
    if isinstance(frozen_lr, str):
        held = single_layer(problem, "frozen_lr='safe'")
        return min(local_lr, 1.0 / float(client_value_curvatures(held, params).max()))
    return float(frozen_lr)
