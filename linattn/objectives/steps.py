"""Step sizes that the problem itself justifies."""

from __future__ import annotations

import numpy as np

from linattn._typing import Array
from linattn.linalg import spectral_norms
from linattn.objectives.joint import check_fits
from linattn.objectives.population import client_normal_equations, population
from linattn.objectives.profile import kernel_curvature
from linattn.types import Params, Problem


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

    Notes
    -----
    A safe start, not a guarantee for later rounds: both constants move with B.
    """
    check_fits(problem, params)
    held = population(problem)
    minimizer = held.value_system(params.kernels()).minimizer.reshape(params.value.shape)
    kernel = kernel_curvature(held, minimizer)
    return float(0.5 / max(kernel, float(np.max(client_value_curvatures(problem, params)))))
