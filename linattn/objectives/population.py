"""The whole population at a kernel: everything the profile and the value block need, computed once.

`Population` wraps a `Problem` with the compiled data form and adds the ridges. Objectives,
federated oracles, theory and analysis all evaluate F through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from linattn._typing import Array, IntArray
from linattn.linalg import NOT_DEFINITE, row_sums, stack_heads
from linattn.objectives.clients import client_systems, merged_shape, shape_of, solve_systems
from linattn.objectives.compiled import MAX_NUMBERS, CompiledForm
from linattn.objectives.forms import NormalEquations
from linattn.objectives.packing import client_data
from linattn.types import Layout, Params, Problem, single_layer


class ValueSystem(NamedTuple):
    """The value-block problem at a kernel: A = H + λI, C, A's factor, V* = A⁻¹C as (Hd, m)."""

    hessian: Array
    linear: Array
    factor: Array
    minimizer: Array
    dim: int

    @property
    def value(self) -> Array:
        """V* as the value block, (H, d, m)."""
        return self.minimizer.reshape(-1, self.dim, self.minimizer.shape[-1])


class ValueSystems(NamedTuple):
    """The value-block problems at N kernels: A (N, Hd, Hd), C and V* (N, Hd, m), factors of A.

    Factors and minimizers are NaN where A is not positive definite to rounding, nor finite.
    """

    hessians: Array
    linears: Array
    factors: Array
    minimizers: Array

    def one(self, k: int, dim: int) -> ValueSystem:
        """One of them."""
        hessian, linear, factor, minimizer = (each[k] for each in self)
        return ValueSystem(hessian, linear, factor, minimizer, dim)

    @property
    def saved(self) -> Array:
        """½⟨C, V*⟩, (N,): what the best values take off ½c̄."""
        products = self.linears * self.minimizers
        return 0.5 * row_sums(products.reshape(len(products), -1))

    def gaps(self, values: Array) -> Array:
        """F − P = ½⟨V − V*, A(V − V*)⟩ at values (N, Hd, m), (N,) (C1)."""
        lags = values - self.minimizers
        products = lags * (self.hessians @ lags)
        return 0.5 * row_sums(products.reshape(len(products), -1))


class Population:
    """F and its parts over all clients of a problem; see `population` for the cached instance."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.value_ridge = problem.value_ridge
        self.kernel_ridge = problem.kernel_ridge
        self._ridges = problem.value_ridge, problem.kernel_ridge
        self.form = CompiledForm(problem)

    def ridge(self, params: Params) -> float:
        """(λ/2)‖V‖² + (μ/2)‖kernel parameters‖²."""
        value_sq = float(np.vdot(params.value, params.value))
        return 0.5 * self.value_ridge * value_sq + self.kernel_penalty(params)

    def kernel_penalty(self, params: Params) -> float:
        """(μ/2)‖kernel parameters‖²."""
        blocks = (params[name] for name in sorted(params.layout.kernel_blocks))
        return 0.5 * self.kernel_ridge * sum(float(np.vdot(b, b)) for b in blocks)

    def value_and_gradient(self, params: Params) -> tuple[float, Array]:
        """F and its flat gradient in the blocks of `params`."""
        values, slopes = self.values_and_gradients(params.layout, params.flat[None])
        return float(values[0]), slopes[0]

    def values(self, layout: Layout, points: Array) -> Array:
        """F, (N,), at flat parameters (N, D)."""
        shape = shape_of(layout)
        return self.form.objectives(shape, points, self._ridges, kernel=False, value=False)[0]

    def profiles(self, points: Sequence[Params]) -> Array:
        """P, (N,), at points of one layout; NaN where A is not positive definite to rounding."""
        chunk = max(1, MAX_NUMBERS // len(stack_heads(points[0].value)) ** 2)
        saved = [
            self.value_systems(np.stack([at.kernels() for at in points[k : k + chunk]])).saved
            for k in range(0, len(points), chunk)
        ]
        return self.profiles_of(points, np.concatenate(saved))

    def profiles_of(self, points: Sequence[Params], saved: Array) -> Array:
        """P, (N,), given what the best values take off ½c̄, as in `ValueSystems`."""
        penalties = np.array([self.kernel_penalty(at) for at in points])
        return np.asarray(0.5 * self.form.energy - saved + penalties)

    def values_and_gradients(self, layout: Layout, points: Array) -> tuple[Array, Array]:
        """F, (N,), and ∇F, (N, D), at flat parameters (N, D)."""
        return self.form.objectives(shape_of(layout), points, self._ridges)

    def chain(self, params: Params, slope: Array) -> Array:
        """Flat gradient in the kernel parameters from the data gradient in B; ridge added."""
        ridge = self.kernel_ridge * params.flat[params.layout.kernel_part]
        return np.asarray(kernel_slope(params, slope) + ridge)

    def value_systems(self, kernels: Array) -> ValueSystems:
        """A, C and V* at kernels (N, H, d, d)."""
        return self.solved(self.form.systems(kernels))

    def solved(self, equations: NormalEquations) -> ValueSystems:
        """A, C and V* of N normal equations, (N, Hd, Hd) and (N, Hd, m)."""
        hessians, factors, minimizers = solve_systems(equations, self.value_ridge)
        return ValueSystems(hessians, equations.linear, factors, minimizers)

    def value_system(self, kernels: Array) -> ValueSystem:
        """A, C and V* at B (notes, Model).

        Raises
        ------
        FloatingPointError
            If A is not positive definite to rounding, nor finite: only after an iterate has
            diverged, or where a ridge is negligible against the data.
        """
        system = self.value_systems(kernels[None]).one(0, kernels.shape[-1])
        if np.isnan(system.minimizer[0, 0]):
            raise FloatingPointError(NOT_DEFINITE)
        return system

    def profile_value(self, params: Params, system: ValueSystem) -> float:
        """P = ½c̄ − ½⟨C, V*⟩ + (μ/2)‖·‖²."""
        saved = 0.5 * float(row_sums((system.linear * system.minimizer).reshape(-1)))
        return 0.5 * self.form.energy - saved + self.kernel_penalty(params)

    def gap(self, params: Params, system: ValueSystem) -> float:
        """F − P = ½⟨V − V*, A(V − V*)⟩ (C1)."""
        lag = stack_heads(params.value) - system.minimizer
        return 0.5 * float(row_sums((lag * (system.hessian @ lag)).reshape(-1)))

    def profile_kernel_gradient(self, params: Params, minimizer: Array) -> Array:
        """Flat ∇P in the kernel parameters, given V* as (Hd, m) (C2)."""
        slopes = self.profile_kernel_gradients(params.layout, params.flat[None], minimizer[None])
        return np.asarray(slopes[0])

    def profile_kernel_gradients(self, layout: Layout, points: Array, minimizers: Array) -> Array:
        """The same at the kernels of flat parameters (N, D), with V* (N, Hd, m)."""
        kernel, best = layout.kernel_part, minimizers.reshape(len(points), -1)
        at = np.concatenate([points[:, kernel], best], axis=1)
        shape = shape_of(layout)
        return self.form.objectives(shape, at, self._ridges, value=False)[1][:, kernel]


def kernel_slope(params: Params, slope: Array) -> Array:
    """Return the flat gradient in the kernel parameters from that in B, (H, d, d).

    Factored: ∂Q_h = ∂B_h K_h, ∂K_h = ∂B_hᵀ Q_h.
    """
    if not params.is_factored:
        return slope.reshape(-1)
    parts = slope @ params["key"], slope.transpose(0, 2, 1) @ params["query"]
    return np.concatenate([part.reshape(-1) for part in parts])


def population(problem: Problem) -> Population:
    """Return the `Population` of `problem`, built at its first use and remembered."""
    return single_layer(problem).derived(Population)


def client_normal_equations(
    problem: Problem, kernels: Array, clients: IntArray | None = None
) -> NormalEquations:
    """Return H_i(B), (..., C, Hd, Hd), and C_i(B), (..., C, Hd, m), of clients without ridge.

    At kernels (..., H, d, d); of all clients by default.

    Notes
    -----
    Source: Model. Cost: about 3 S H d³ per kernel.
    """
    heads, dim = kernels.shape[-3:-1]
    shape, lead = merged_shape(heads, dim, problem.num_outputs), kernels.shape[:-3]
    flat = kernels.reshape(-1, heads * dim * dim)
    chosen = np.arange(problem.num_clients) if clients is None else clients
    held = client_systems(client_data(problem, heads), shape, flat, chosen)
    return NormalEquations(*(part.reshape(*lead, *part.shape[1:]) for part in held))


def one_client_equations(problem: Problem, kernels: Array, client: int) -> NormalEquations:
    """Return H_i(B), (Hd, Hd), and C_i(B), (Hd, m), of one client, without ridge."""
    held = client_normal_equations(problem, kernels, np.array([client]))
    return NormalEquations(held.hessian[0], held.linear[0])
