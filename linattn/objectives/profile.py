"""The kernel profile P(B) = min_V F(B, V)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.linalg import (
    EXACT_EIGENVALUE_SIZE,
    contract,
    finite_or_inf,
    largest_eigenvalue,
    largest_eigenvalue_of,
    spectral_norms,
)
from linattn.objectives.joint import check_fits
from linattn.objectives.population import Population, ValueSystem, population
from linattn.types import Params, Problem


class KernelProfile:
    """P(B) = min_V F(B, V) = ½c̄ − ½⟨C, A⁻¹C⟩ + (μ/2)‖kernel parameters‖² (notes, Objectives).

    ``params.value`` is ignored throughout.

    Parameters
    ----------
    problem : Problem
        With value ridge λ > 0, so that the minimizer exists.

    Raises
    ------
    FloatingPointError
        In every method, if A(B) is not finite, or not positive definite to rounding: parameters
        have diverged, or data are on no scale for λ.

    Notes
    -----
    Source: Objectives, C2 (gradient), C3 (curvature). Cost: one normal matrix A, one
    factorization (Hd)³, one gradient.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._population = population(problem)

    def __repr__(self) -> str:
        return f"KernelProfile({self.problem!r})"

    def value(self, params: Params) -> float:
        """Return P, units of loss; +inf beyond the range of floating-point numbers."""
        return finite_or_inf(self._population.profile_value(params, self._system(params)))

    def minimizer(self, params: Params) -> Array:
        """Return V*(B) = A⁻¹C, (H, d, m).

        Its relative error is about cond(A)·1e-16: where a small λ makes cond(A) 1e16 or more no
        digit of it is right, although those of P are.
        """
        return self._system(params).value

    def _system(self, params: Params) -> ValueSystem:
        check_fits(self.problem, params)
        return self._population.value_system(params.kernels())

    def gradient(self, params: Params) -> Params:
        """Return ∇P = ∂_B F(B, V*(B)) with a zero value block (C2)."""
        return self.value_and_gradient(params)[1]

    def value_and_gradient(self, params: Params) -> tuple[float, Params]:
        """Return P and ∇P at the cost of one factorization and one gradient."""
        held, system = self._population, self._system(params)
        kernel_part = held.profile_kernel_gradient(params, system.minimizer)
        flat = np.concatenate([kernel_part, np.zeros(params.value.size)])
        value = finite_or_inf(held.profile_value(params, system))
        return value, Params(params.layout, flat)

    def curvature(self, params: Params) -> float:
        """Return L_K = λ_max 𝓚(V*(B)), the constant of P(B + D) ≤ P + ⟨∇P, D⟩ + ½L_K‖D‖² (C3).

        A safe upper bound: within a factor 1 + 1e-8 of λ_max for Hd² ≤ 1,024; above, λ_max
        exceeds it with a probability below 1e-15, and it is within 1.13 (`largest_eigenvalue_of`).

        Raises
        ------
        ValueError
            For factored kernels, whose profile has no such constant.

        Notes
        -----
        Source: C3. Cost: S d⁴ H² to form 𝓚 (or H² d⁶ from moments) and (Hd²)³ for λ_max; above
        1,024 entries 60 products of S d (2Hd + d) m multiply-adds.
        """
        if params.kernel is None:
            raise ValueError(
                "params must have a merged kernel: L_K of C3 bounds the increment of P in B, and "
                "in (Q, K) the map B = QKᵀ adds curvature that L_K does not see; use C4f."
            )
        value = self.minimizer(params)
        return kernel_curvature(self._population, value)


def kernel_curvature(held: Population, value: Array) -> float:
    """Return a safe λ_max of 𝓚(V) = data part + μ; above 1,024 entries of B without its matrix."""
    size = value.shape[0] * value.shape[1] ** 2
    with one_blas_thread():
        if size > EXACT_EIGENVALUE_SIZE:
            top = largest_eigenvalue_of(held.form.twin.kernel_operator(value), size)
        else:
            top = largest_eigenvalue(held.form.twin.kernel_hessian(value))
    return top + held.kernel_ridge


class KernelCurvatureBound(NamedTuple):
    """Constants of the cheap bound: per sequence w_s‖M_s‖₂, and the Gram matrices."""

    weighted_norms: Array
    gram: Array
    kernel_ridge: float

    def __call__(self, value: Array) -> float:
        """Return μ + ‖Σ w ‖M‖₂ ΓΓᵀ‖₂ with Γ the stack of G V_h (C3); cost S H² d² m."""
        gamma = contract("sab,hbm->sham", self.gram, value)
        gamma = gamma.reshape(len(self.gram), -1, value.shape[-1])
        weighted = np.sqrt(self.weighted_norms)[:, None, None] * gamma
        matrix = np.tensordot(weighted, weighted, ((0, 2), (0, 2)))
        return self.kernel_ridge + largest_eigenvalue(matrix)


def cheap_curvature_bound(problem: Problem) -> KernelCurvatureBound:
    """Return the cheap upper bound of L_K as a function of V (C3).

    ‖M‖₂ is exact: ‖u‖² where there is one query per sequence, else an eigenvalue.
    """
    held = problem.statistics
    if held.query is None:
        norms = spectral_norms(held.query_moments())
    else:
        norms = np.einsum("sa,sa->s", held.query, held.query)
    return KernelCurvatureBound(problem.sequence_weights * norms, held.gram, problem.kernel_ridge)
