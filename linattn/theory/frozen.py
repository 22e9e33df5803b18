"""The frozen stage in closed form: fixed point, rate, bias (C7, C8)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from linattn._checks import positive_int
from linattn._settings import LocalSteps, check_local_steps, constant_step
from linattn._typing import Array
from linattn.linalg import stack_heads
from linattn.objectives.joint import check_fits
from linattn.objectives.population import client_normal_equations
from linattn.objectives.steps import check_frozen_lr, frozen_step
from linattn.theory.bias import bias_bound, first_order_bias
from linattn.theory.local_work import LocalWork
from linattn.types import Params, Problem


def frozen_stage(
    problem: Problem,
    params: Params,
    *,
    local_steps: LocalSteps,
    local_lr: float,
    frozen_lr: float | str | None = None,
    normalized: bool = False,
) -> FrozenStage:
    """Return the exact description of FedAvg on the value block at the kernel of `params`.

    Full batches, full participation, plain gradient steps. Nothing is simulated. With unequal work
    E_i plain averaging converges to the minimizer of about Σ p_i E_i F_i, normalized averaging
    (FedNova: V⁺ = V + Ē Σ p_i (V_i − V)/E_i, Ē = Σ p_i E_i) to V* as η → 0.

    Parameters
    ----------
    problem : Problem
    params : Params
        Kernel B and the value block V_0 from which the stage starts.
    local_steps : int, or one int per client
        E, or the E_i of all clients.
    local_lr : float
        η of the warm-up.
    frozen_lr : None, float or "safe"
        Step size of this stage, as in `fed_frozen`.
    normalized : bool
        Whether moves are divided by numbers of local steps, as in `fed_nova`.

    Raises
    ------
    ValueError
        If an argument is out of range, or a step size is a schedule.

    Notes
    -----
    Source: C7, C8; unequal work, C21. Cost: 3 S H² d³ for the A_i, one eigendecomposition (Hd)³ per
    client and one for M̂; every number of rounds afterwards costs (Hd)² m.
    """
    check_fits(problem, params)
    steps = check_local_steps(local_steps, problem.num_clients)
    local_lr = constant_step("local_lr", local_lr, "the frozen stage in closed form")
    check_frozen_lr(frozen_lr)
    equations = client_normal_equations(problem, params.kernels())
    hessians = equations.hessian + problem.value_ridge * np.eye(equations.hessian.shape[-1])
    averaging = work = None
    if not isinstance(steps, int):
        work, steps = LocalWork(steps), int(steps.max())
        averaging = normalized_shares(problem.weights, work) if normalized else None
    return FrozenStage(
        weights=problem.weights,
        hessians=hessians,
        linears=equations.linear,
        start=params.value,
        local_steps=steps,
        local_lr=frozen_step(problem, params, local_lr, frozen_lr),
        averaging=averaging,
        work=work,
    )


def normalized_shares(weights: Array, work: LocalWork) -> Array:
    """p_i Ē/E_i, (C,)."""
    counts = work.mean(len(weights))
    return np.asarray(weights * (weights @ counts) / counts)


@dataclass(frozen=True, eq=False)
class FrozenStage:
    """V_t = V_∞ + M̂ᵗ(V_0 − V_∞) for local steps on the client quadratics A_i, C_i.

    A round is V⁺ = V + Σ a_i (V_i − V), so M̂ = I − Σ a_i [I − (I − ηA_i)^{E_i}]. Where stragglers
    stop after a random number of local steps, or clients are sampled, it is the mean round.

    Attributes
    ----------
    weights : array, shape (C,)
        p_i of the objective, of which V* is the minimizer.
    hessians : array, shape (C, Hd, Hd)
        A_i = H_i(B) + λI.
    linears : array, shape (C, Hd, m)
        C_i.
    start : array, shape (H, d, m)
        V_0.
    local_steps : int
        E; where work is unequal the largest E_i.
    local_lr : float
        The η of this stage.
    averaging : array, shape (C,), optional
        a_i, where they are not p_i: p_i Ē/E_i if normalized, E[w_i] if sampled.
    work : LocalWork, optional
        E_i and stragglers, where not all clients always take E local steps.
    """

    weights: Array
    hessians: Array
    linears: Array
    start: Array
    local_steps: int
    local_lr: float
    averaging: Array | None = None
    work: LocalWork | None = None

    def __repr__(self) -> str:
        verdict = "stable" if self.stable else "unstable"
        return (
            f"FrozenStage({verdict}, rate {self.rate:.6g}, floor {self.floor:.3g}, "
            f"{len(self.weights)} clients, E = {self.local_work}, lr {self.local_lr:.3g})"
        )

    @property
    def local_work(self) -> LocalWork:
        """E for everybody, or `work`."""
        return LocalWork(self.local_steps) if self.work is None else self.work

    @property
    def is_plain(self) -> bool:
        """Whether all clients take E local steps and are averaged with p_i, as bounds ask."""
        return self.work is None and self.averaging is None

    @property
    def common_steps(self) -> int:
        """E of plain averaging with equal work.

        Raises
        ------
        ValueError
            If work is unequal or averaging is not plain.
        """
        if not self.is_plain:
            shares = "p_i" if self.averaging is None else "others"
            raise ValueError(
                "stage must be plain averaging with equal local steps for this, got "
                f"E = {self.local_work}, weights {shares}."
            )
        return self.local_steps

    @property
    def _shares(self) -> Array:
        """a_i, (C,)."""
        return self.weights if self.averaging is None else self.averaging

    @cached_property
    def work_shares(self) -> Array:
        """a_i E_i, (C,), in the mean over stragglers."""
        return self._shares * self.local_work.mean(len(self.weights))

    @cached_property
    def _uneven(self) -> Array | None:
        """a_i E_i − p_i Σ a_j E_j, (C,), which pulls V_∞ off V* whatever η is; None for zero."""
        if self.is_plain:
            return None
        return np.asarray(self.work_shares - self.weights * self.work_shares.sum())

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

    @cached_property
    def _one_minus_mean_power(self) -> Array:
        """I − M̂ = η Σ a_i S_i A_i, formed without subtraction."""
        values, vectors = self._spectra
        with np.errstate(over="ignore", invalid="ignore"):
            gone = self.local_work.contraction(self.local_lr * values)
            return np.asarray(
                np.einsum("i,iab,ib,icb->ac", self._shares, vectors, gone, vectors, optimize=True)
            )

    @property
    def surrogate_hessian(self) -> Array:
        """Σ a_i S_i A_i, (Hd, Hd): the Hessian of the loss that this stage minimizes (C7)."""
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
        """V_∞ − V* = (Σ a S_i A_i)⁻¹ Σ [a_i η T_i A_i − (a_i E_i − p_i Σ a_j E_j)] g_i*.

        S_i = E_i I − ηT_iA_i and Σ p_i g_i* = 0, so nothing large cancels; with plain averaging and
        equal work only ηT_iA_i is left, exactly zero at E = 1. Inf at overflow.
        """
        if self._overflows:
            return np.full_like(self._star, np.inf)
        values, vectors = self._spectra
        x = self.local_lr * values
        weighted = self.local_work.weighted_sum(x) * x  # η T_i A_i in the eigenbasis
        rotated = vectors.transpose(0, 2, 1) @ self.gradients_at_minimizer
        pushed = vectors @ (weighted[:, :, None] * rotated)
        right = np.tensordot(self._shares, pushed, 1)
        if self._uneven is not None:
            right = right - np.tensordot(self._uneven, self.gradients_at_minimizer, 1)
        return np.asarray(np.linalg.solve(self._one_minus_mean_power, self.local_lr * right))

    @property
    def bias(self) -> Array:
        """V_∞ − V*, (H, d, m) (C8)."""
        return self._heads(self._bias)

    @property
    def fixed_point(self) -> Array:
        """V_∞ = (Σ a S_i A_i)⁻¹ Σ a S_i C_i, (H, d, m) (C7)."""
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

    def error(self, rounds: int) -> Array:
        """Return V − V* after `rounds` rounds, (Hd, m)."""
        if positive_int("rounds", rounds, minimum=0) == 0:
            return np.asarray(stack_heads(self.start) - self._star)
        if self._overflows:
            return np.full_like(self._star, np.inf)
        return self._bias + self._lag(rounds)

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
        """V_∞ − V* to first order in η(E − 1), (H, d, m); see `linattn.theory.bias`."""
        return self._heads(first_order_bias(self))

    @property
    def largest_step_curvature(self) -> float:
        """η max_i λ_max(A_i): the bounds need it below 2 (the sharper one at most 1)."""
        return float(self.local_lr * self._spectra[0].max())

    @property
    def smallest_step_curvature(self) -> float:
        """η min_i λ_min(A_i)."""
        return float(self.local_lr * self._spectra[0].min())

    @property
    def bias_bound(self) -> float | None:
        """Upper bound of ‖V_∞ − V*‖ (C8), or None where η ≥ 2/max λ_max(A_i) or work is unequal."""
        return bias_bound(self)

    @property
    def crude_bias_bound(self) -> float | None:
        """The C8 bound with η(E − 1)/2 whatever the step size; None as in `bias_bound`."""
        return bias_bound(self, crude=True)
