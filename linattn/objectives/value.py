"""The value-block problem V ↦ F(B, V) at a fixed kernel."""

from __future__ import annotations

import numpy as np

from linattn._typing import Array
from linattn.linalg import finite_or_inf, stack_heads
from linattn.objectives.joint import check_fits
from linattn.objectives.population import population
from linattn.types import Params, Problem


class ValueBlock:
    """V ↦ F(B, V): a strongly convex quadratic with Hessian A(B) ⪰ λI (notes, Objectives).

    Parameters
    ----------
    problem : Problem
    params : Params
        Gives the kernel; its value block is ignored.

    Attributes
    ----------
    hessian : array, shape (Hd, Hd)
        A = H + λI, row index h·d + a.
    linear : array, shape (Hd, m)
        C.

    Raises
    ------
    FloatingPointError
        If A(B) is not finite, or not positive definite to rounding.

    Notes
    -----
    Source: Objectives, C1 (gap), C3f. Cost: one normal matrix A and one factorization (Hd)³; then
    (Hd)² m per call.
    """

    def __init__(self, problem: Problem, params: Params) -> None:
        check_fits(problem, params)
        held = population(problem)
        self._params = params
        self._system = held.value_system(params.kernels())
        self._constant = 0.5 * held.form.energy + held.kernel_penalty(params)
        self.hessian: Array = self._system.hessian
        self.linear: Array = self._system.linear

    def __repr__(self) -> str:
        heads, dim, outputs = self._params.value.shape
        return f"ValueBlock({heads} heads, dim {dim}, {outputs} outputs)"

    def _stacked(self, value: Array) -> Array:
        return stack_heads(self._params.replace(value=value).value)

    @np.errstate(over="ignore", invalid="ignore")
    def value(self, value: Array) -> float:
        """Return F(B, V) = const − ⟨C, V⟩ + ½⟨V, A V⟩; +inf as in `gap`."""
        v = self._stacked(value)
        part = float(np.vdot(v, 0.5 * (self.hessian @ v) - self.linear))
        return finite_or_inf(self._constant + part)

    @np.errstate(over="ignore", invalid="ignore")
    def gradient(self, value: Array) -> Array:
        """Return A V − C, (H, d, m)."""
        v = self._stacked(value)
        return np.asarray((self.hessian @ v - self.linear).reshape(self._params.value.shape))

    def minimizer(self) -> Array:
        """Return V* = A⁻¹C, (H, d, m), to as many digits as `KernelProfile.minimizer`."""
        return self._system.value

    @np.errstate(over="ignore", invalid="ignore")
    def gap(self, value: Array) -> float:
        """Return F(B, V) − P(B) = ½⟨V − V*, A(V − V*)⟩, without subtraction (C1).

        +inf beyond the range of floating-point numbers.
        """
        lag = self._stacked(value) - self._system.minimizer
        return finite_or_inf(0.5 * float(np.vdot(lag, self.hessian @ lag)))
