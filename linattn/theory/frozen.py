"""The frozen stage in closed form: fixed point, rate, bias (C7, C8)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from linattn._checks import positive_int, real
from linattn._typing import Array
from linattn.linalg import stack_heads
from linattn.objectives.joint import check_fits
from linattn.objectives.population import client_normal_equations
from linattn.objectives.steps import check_frozen_lr, frozen_step
from linattn.theory.polynomials import contraction, slope, weighted_sum
from linattn.types import Params, Problem


def frozen_stage(
    problem: Problem,
    params: Params,
    *,
    local_steps: int,
    local_lr: float,
    frozen_lr: float | str | None = None,
) -> FrozenStage:
    """Return the exact description of FedAvg on the value block at the kernel of `params`.

    Full batches, full participation, plain gradient steps. Nothing is simulated.

    Parameters
    ----------
    problem : Problem
    params : Params
        Kernel B and the value block V_0 from which the stage starts.
    local_steps : int
        E.
    local_lr : float
        η of the warm-up.
    frozen_lr : None, float or "safe"
        Step size of this stage, as in `fed_frozen`.

    Notes
    -----
    Source: C7, C8. Cost: 3 S H² d³ for the A_i, one eigendecomposition (Hd)³ per client and one for
    M̂; every number of rounds afterwards costs (Hd)² m.
    """
    check_fits(problem, params)
    positive_int("local_steps", local_steps)
    real("local_lr", local_lr, above=0.0)
    check_frozen_lr(frozen_lr)
    equations = client_normal_equations(problem, params.kernels())
    hessians = equations.hessian + problem.value_ridge * np.eye(equations.hessian.shape[-1])
    step = frozen_step(problem, params, local_lr, frozen_lr)
    return FrozenStage(
        weights=problem.weights,
        hessians=hessians,
        linears=equations.linear,
        start=params.value,
        local_steps=local_steps,
        local_lr=step,
    )


@dataclass(frozen=True, eq=False)
class FrozenStage:
    """V_t = V_∞ + M̂ᵗ(V_0 − V_∞) for E local steps on the client quadratics A_i, C_i.

    Attributes
    ----------
    weights : array, shape (C,)
    hessians : array, shape (C, Hd, Hd)
        A_i = H_i(B) + λI.
    linears : array, shape (C, Hd, m)
        C_i.
    start : array, shape (H, d, m)
        V_0.
    local_steps : int
        E.
    local_lr : float
        The η of this stage.
    """

    weights: Array
    hessians: Array
    linears: Array
    start: Array
    local_steps: int
    local_lr: float

    def __repr__(self) -> str:
        verdict = "stable" if self.stable else "unstable"
        return (
            f"FrozenStage({verdict}, rate {self.rate:.6g}, floor {self.floor:.3g}, "
            f"{len(self.weights)} clients, E = {self.local_steps}, lr {self.local_lr:.3g})"
        )

    def _heads(self, stacked: Array) -> Array:
        return stacked.reshape(self.start.shape)

    @cached_property
    def hessian(self) -> Array:
        """A = Σ p_i A_i, (Hd, Hd)."""
        return np.tensordot(self.weights, self.hessians, 1)

    @cached_property
    def _star(self) -> Array:
        linear = np.tensordot(self.weights, self.linears, 1)
        return np.asarray(np.linalg.solve(self.hessian, linear))

    @property
    def minimizer(self) -> Array:
        """V* = A⁻¹C, (H, d, m)."""
        return self._heads(self._star)

    @cached_property
    def gradients_at_minimizer(self) -> Array:
        """g_i* = A_i V* − C_i, (C, Hd, m); Σ p_i g_i* = 0."""
        return np.asarray(self.hessians @ self._star - self.linears)

    @cached_property
    def _spectra(self) -> tuple[Array, Array]:
        values, vectors = np.linalg.eigh(self.hessians)
        return values, vectors

    def _function(self, of_eigenvalues: Array) -> Array:
        """Σ p_i f(A_i) from f of the eigenvalues."""
        vectors = self._spectra[1]
        return np.asarray(
            np.einsum(
                "i,iab,ib,icb->ac", self.weights, vectors, of_eigenvalues, vectors, optimize=True
            )
        )

    @cached_property
    def _one_minus_mean_power(self) -> Array:
        """I − M̂ = η Σ p_i S_i A_i, formed without subtraction."""
        x = self.local_lr * self._spectra[0]
        with np.errstate(over="ignore", invalid="ignore"):
            return self._function(contraction(x, self.local_steps))

    @property
    def surrogate_hessian(self) -> Array:
        """Σ p_i S_i A_i, (Hd, Hd): the Hessian of the loss that this stage minimizes (C7)."""
        return self._one_minus_mean_power / self.local_lr

    @cached_property
    def _overflows(self) -> bool:
        """Whether (I − ηA_i)^E is beyond the range of floating-point numbers."""
        return not bool(np.isfinite(self._one_minus_mean_power).all())

    @cached_property
    def _mean_power_spectrum(self) -> tuple[Array, Array]:
        """Eigenvalues of I − M̂ and its eigenvectors."""
        values, vectors = np.linalg.eigh(self._one_minus_mean_power)
        return values, vectors

    @cached_property
    def rate(self) -> float:
        """ρ(M̂) = ‖M̂‖₂, the contraction per round; inf after overflow."""
        if self._overflows:
            return float("inf")
        return float(np.abs(1.0 - self._mean_power_spectrum[0]).max())

    @property
    def stable(self) -> bool:
        """Whether ρ < 1."""
        return self.rate < 1.0

    @cached_property
    def _bias(self) -> Array:
        """V_∞ − V* = η (Σ p S_i A_i)⁻¹ Σ p T_i A_i g_i*, exactly zero at E = 1; inf at overflow."""
        if self._overflows:
            return np.full_like(self._star, np.inf)
        values, vectors = self._spectra
        x = self.local_lr * values
        weighted = weighted_sum(x, self.local_steps) * x  # η T_i A_i in the eigenbasis
        rotated = vectors.transpose(0, 2, 1) @ self.gradients_at_minimizer
        pushed = vectors @ (weighted[:, :, None] * rotated)
        right = self.local_lr * np.tensordot(self.weights, pushed, 1)
        return np.asarray(np.linalg.solve(self._one_minus_mean_power, right))

    @property
    def bias(self) -> Array:
        """V_∞ − V*, (H, d, m) (C8)."""
        return self._heads(self._bias)

    @property
    def fixed_point(self) -> Array:
        """V_∞ = (Σ p S_i A_i)⁻¹ Σ p S_i C_i, (H, d, m) (C7)."""
        return self._heads(self._star + self._bias)

    @property
    def floor(self) -> float:
        """½‖V_∞ − V*‖²_A, units of loss; inf at overflow."""
        if self._overflows:
            return float("inf")
        return 0.5 * self._norm_sq(self._bias)

    def _norm_sq(self, stacked: Array) -> float:
        return float(np.vdot(stacked, self.hessian @ stacked))

    @property
    def gap(self) -> float:
        """½‖V_0 − V*‖²_A: what one exact value solve would gain at the start (C1)."""
        return 0.5 * self._norm_sq(stack_heads(self.start) - self._star)

    def _lag(self, rounds: int) -> Array:
        """M̂ᵗ(V_0 − V_∞)."""
        values, vectors = self._mean_power_spectrum
        start = stack_heads(self.start) - self._star - self._bias
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            decay = (1.0 - values) ** rounds
            small = np.exp(rounds * np.log1p(-np.minimum(values, 0.5)))
            powers = np.where(values < 0.5, small, decay)
            return np.asarray(vectors @ (powers[:, None] * (vectors.T @ start)))

    def after(self, rounds: int) -> Array:
        """Return V after `rounds` rounds, (H, d, m), without simulating them (C7).

        Not finite where an unstable stage has left the range of floating-point numbers.
        """
        positive_int("rounds", rounds, minimum=0)
        if rounds == 0:
            return self.start
        if self._overflows:
            return np.full_like(self.start, np.inf)
        return self._heads(self._star + self._bias + self._lag(rounds))

    def drift_parts(self, rounds: int) -> tuple[float, float, float]:
        """Return transient ½‖a‖²_A, floor ½‖b‖²_A and cross ⟨a, Ab⟩ after `rounds` rounds (C9).

        a = M̂ᵗ(V_0 − V_∞) and b = V_∞ − V*; all +inf where the stage is unstable and rounds > 0.
        """
        if rounds > 0 and not self.stable:
            return (float("inf"),) * 3
        lag = self._lag(rounds)
        return (
            0.5 * self._norm_sq(lag),
            self.floor,
            float(np.vdot(lag, self.hessian @ self._bias)),
        )

    @property
    def first_order_bias(self) -> Array:
        """(η(E − 1)/2) A⁻¹ Σ p (A_i − A) g_i*, (H, d, m): V_∞ − V* to first order in η(E − 1)."""
        spread = np.einsum(
            "i,iab,ibc->ac",
            self.weights,
            self.hessians - self.hessian,
            self.gradients_at_minimizer,
            optimize=True,
        )
        factor = 0.5 * self.local_lr * (self.local_steps - 1)
        return self._heads(factor * np.linalg.solve(self.hessian, spread))

    @property
    def largest_step_curvature(self) -> float:
        """η max_i λ_max(A_i): the bounds need it below 2 (the sharper one at most 1)."""
        return float(self.local_lr * self._spectra[0].max())

    @property
    def bias_bound(self) -> float | None:
        """Upper bound of ‖V_∞ − V*‖, or None where η ≥ 2/max λ_max(A_i) (C8)."""
        if self.largest_step_curvature >= 2.0:
            return None
        return self._bound_with(self._lipschitz_constant)

    @property
    def crude_bias_bound(self) -> float | None:
        """The C8 bound with η(E − 1)/2 whatever the step size, or None where η ≥ 2/λ_max."""
        if self.largest_step_curvature >= 2.0:
            return None
        return self._bound_with(0.5 * self.local_lr * (self.local_steps - 1))

    @property
    def _lipschitz_constant(self) -> float:
        """Of s(x) = (1 − (1 − ηx)^E)/(ηxE) over all eigenvalues."""
        if self.largest_step_curvature > 1.0:
            return 0.5 * self.local_lr * (self.local_steps - 1)
        smallest = float(self.local_lr * self._spectra[0].min())
        return slope(smallest, self.local_steps, self.local_lr)

    def _bound_with(self, lipschitz: float) -> float:
        mean = self._one_minus_mean_power / (self.local_lr * self.local_steps)
        smallest = float(np.linalg.eigvalsh(mean)[0])
        covariance = np.linalg.norm(self.hessians - self.hessian, axis=(1, 2))
        targets = np.linalg.norm(self.gradients_at_minimizer, ord=2, axis=(1, 2))
        return float(lipschitz / smallest * np.sum(self.weights * covariance * targets))
