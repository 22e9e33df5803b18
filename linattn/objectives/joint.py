"""The joint objective F(B, V)."""

from __future__ import annotations

import numpy as np

from linattn._checks import shown
from linattn.linalg import finite_or_inf
from linattn.objectives.population import kernel_slope, population
from linattn.params import is_single_layer
from linattn.types import Params, Problem, single_layer


def check_fits(problem: Problem, params: Params) -> None:
    """Refuse parameters whose blocks do not fit the problem.

    Raises
    ------
    TypeError
        If the problem is not of a single layer.
    ValueError
        Naming the value block's shape and what the problem needs.
    """
    single_layer(problem)
    if not isinstance(params, Params):
        raise TypeError(f"params must be Params, got {shown(params)}.")
    shape = params.layout.shapes.get("value")
    if shape is None or len(shape) != 3 or shape[1:] != (problem.dim, problem.num_outputs):
        raise ValueError(
            f"params must have a value block of shape (H, {problem.dim}, {problem.num_outputs}) "
            f"for this problem, got {shape}."
        )
    if not is_single_layer(params.layout):
        raise ValueError(
            "params must have the blocks that Params.merged or Params.factored builds, got "
            f"{', '.join(f'{name} {size}' for name, size in params.layout.blocks)}."
        )


class Joint:
    """F(B, V) = Σ p_i mean ℓ + (λ/2)‖V‖² + (μ/2)‖kernel parameters‖² (notes, Model).

    Parameters
    ----------
    problem : Problem

    Notes
    -----
    Source: Model, C1 (gap), C3f. Cost of every method: the cheaper of S (5H + 1) d² m
    (sequences, token readout) and 2 H² d⁶ (moments) multiply-adds.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._population = population(problem)

    def __repr__(self) -> str:
        return f"Joint({self.problem!r})"

    def value(self, params: Params) -> float:
        """Return F, units of loss; +inf beyond the range of floating-point numbers."""
        return self.value_and_gradient(params)[0]

    def gradient(self, params: Params) -> Params:
        """Return ∇F as `Params` of the same blocks (ridges included); not finite where F is not."""
        return self.value_and_gradient(params)[1]

    def value_and_gradient(self, params: Params) -> tuple[float, Params]:
        """Return F and ∇F at the cost of one of them."""
        check_fits(self.problem, params)
        value, flat = self._population.value_and_gradient(params)
        return finite_or_inf(value), Params(params.layout, flat)

    @np.errstate(over="ignore", invalid="ignore")
    def gap(self, params: Params) -> float:
        """Return F(B, V) − P(B) = ½⟨V − V*, A(V − V*)⟩ ≥ 0 without subtraction (C1).

        +inf beyond the range of floating-point numbers.

        Raises
        ------
        FloatingPointError
            If A(B) is not finite, or not positive definite to rounding.
        """
        check_fits(self.problem, params)
        system = self._population.value_system(params.kernels())
        return finite_or_inf(self._population.gap(params, system))

    def hvp(self, params: Params, direction: Params) -> Params:
        """Return ∇²F(params)[direction] (notes, Second derivatives).

        Parameters
        ----------
        params, direction : Params
            Of the same layout.

        Raises
        ------
        ValueError
            If the layouts differ.

        Notes
        -----
        Factored kernels: with δB = D_Q Kᵀ + Q D_Kᵀ, the query part is (∂²F[δB, W])K + ∂_BF D_K
        + μD_Q, and likewise for the key.
        """
        check_fits(self.problem, params)
        if params.layout != direction.layout:
            raise ValueError(f"direction must have the blocks of params, got {direction!r}.")
        held = self._population
        kernels = params.kernels()
        if params.kernel is not None:
            assert direction.kernel is not None
            change = direction.kernel
        else:
            change = direction["query"] @ params["key"].transpose(0, 2, 1)
            change = change + params["query"] @ direction["key"].transpose(0, 2, 1)
        curved, value_part = held.form.hvp(kernels, params.value, change, direction.value)
        value_part = value_part + held.value_ridge * direction.value
        kernel_part = held.chain(params, curved)
        if params.kernel is None:
            slope = held.form.gradient(kernels, params.value).kernel
            kernel_part = kernel_part + kernel_slope(direction, slope)
        # `chain` adds μ·params; a Hessian needs μ·direction.
        size = kernel_part.size
        kernel_part = kernel_part + held.kernel_ridge * (direction.flat - params.flat)[:size]
        return Params(params.layout, np.concatenate([kernel_part, value_part.reshape(-1)]))
