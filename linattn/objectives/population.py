"""The whole population at a kernel: everything the profile and the value block need, computed once.

`Population` wraps a `Problem` with the cheaper data form and adds the ridges. Objectives, federated
oracles, theory and analysis all evaluate F through it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.linalg import Factorized, factorize, stack_heads
from linattn.objectives.compiled import CompiledForm, client_systems
from linattn.objectives.forms import DataForm, NormalEquations
from linattn.objectives.packing import client_data
from linattn.types import Params, Problem, single_layer


class ValueSystem(NamedTuple):
    """The value-block problem at a kernel: A = H + λI, C, and V* = A⁻¹C as (Hd, m)."""

    hessian: Array
    linear: Array
    factor: Factorized
    minimizer: Array


class Population:
    """F and its parts over all clients of a problem; see `population` for the cached instance."""

    def __init__(self, problem: Problem, form: DataForm | None = None) -> None:
        self.value_ridge = problem.value_ridge
        self.kernel_ridge = problem.kernel_ridge
        self.form = form or CompiledForm(problem)

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
        if isinstance(self.form, CompiledForm):
            ridges = self.value_ridge, self.kernel_ridge
            return self.form.objective(params.layout, params.flat, ridges)
        kernels = params.kernels()
        loss, kernel_gradient, value_gradient = self.form.gradient(kernels, params.value)
        value = loss + self.ridge(params)
        kernel_part = self.chain(params, kernel_gradient)
        value_part = value_gradient + self.value_ridge * params.value
        return value, np.concatenate([kernel_part, value_part.reshape(-1)])

    def chain(self, params: Params, kernel_gradient: Array) -> Array:
        """Flat gradient in the kernel parameters from the data gradient in B; ridge added.

        Factored: ∂Q_h = ∂B_h K_h + μQ_h, ∂K_h = ∂B_hᵀ Q_h + μK_h.
        """
        mu = self.kernel_ridge
        if params.kernel is not None:
            return np.asarray((kernel_gradient + mu * params.kernel).reshape(-1))
        query, key = params["query"], params["key"]
        query_part = kernel_gradient @ key + mu * query
        key_part = kernel_gradient.transpose(0, 2, 1) @ query + mu * key
        return np.concatenate([query_part.reshape(-1), key_part.reshape(-1)])

    def value_system(self, kernels: Array) -> ValueSystem:
        """A, C and V* at B (notes, Model)."""
        hessian, linear = self.form.normal_equations(kernels)
        hessian = hessian + self.value_ridge * np.eye(len(hessian))
        factor = factorize(hessian)
        return ValueSystem(hessian, linear, factor, factor.solve(linear))

    def profile_value(self, params: Params, system: ValueSystem) -> float:
        """P = ½c̄ − ½⟨C, V*⟩ + (μ/2)‖·‖²."""
        data = 0.5 * self.form.energy - 0.5 * float(np.vdot(system.linear, system.minimizer))
        return data + self.kernel_penalty(params)

    def gap(self, params: Params, system: ValueSystem) -> float:
        """F − P = ½⟨V − V*, A(V − V*)⟩ (C1)."""
        lag = stack_heads(params.value) - system.minimizer
        return 0.5 * float(np.vdot(lag, system.hessian @ lag))

    def profile_kernel_gradient(self, params: Params, minimizer: Array) -> Array:
        """Flat ∇P in the kernel parameters, given V* as (Hd, m) (C2)."""
        data = self.form.gradient(params.kernels(), minimizer.reshape(params.value.shape)).kernel
        return self.chain(params, data)


def population(problem: Problem) -> Population:
    """Return the `Population` of `problem`, built at its first use and remembered."""
    return single_layer(problem).derived(Population)


def client_normal_equations(problem: Problem, kernels: Array) -> NormalEquations:
    """Return H_i(B), (C, Hd, Hd), and C_i(B), (C, Hd, m), of every client, without ridge.

    Notes
    -----
    Source: Model. Cost: about 3 S H d³.
    """
    data = client_data(problem, len(kernels))
    return client_systems(data, kernels, np.arange(problem.num_clients))


def one_client_equations(problem: Problem, kernels: Array, client: int) -> NormalEquations:
    """Return H_i(B), (Hd, Hd), and C_i(B), (Hd, m), of one client, without ridge."""
    held = client_systems(client_data(problem, len(kernels)), kernels, np.array([client]))
    return NormalEquations(held.hessian[0], held.linear[0])
