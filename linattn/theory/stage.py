"""The frozen stage as a linear iteration: rate, fixed point, bias (C7, C8)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from linattn._checks import MOST_ENTRIES, positive_int, real
from linattn._display import draw_gaps, facts_html
from linattn._typing import Array
from linattn.linalg import averaged, finite_or_inf, stack_heads
from linattn.theory.bias import bias_bound, first_order_bias
from linattn.theory.local_work import LocalWork

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY_STEPS = 1000
"""Beyond so many local steps the bias is formed from the smaller terms."""


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

    def _repr_html_(self) -> str:
        return facts_html(
            "FrozenStage",
            [
                ("stable", self.stable),
                ("rate ρ(M̂) per round", self.rate),
                ("floor above P(B)", self.floor),
                ("clients", len(self.weights)),
                ("local steps E", self.local_work),
                ("step η", self.local_lr),
            ],
        )

    def plot(self, axes: Axes | None = None, *, rounds: int = 100) -> Axes:
        """Draw F(B, V_t) − P(B) for t = 0..rounds, and the floor it ends at.

        Returns
        -------
        matplotlib Axes
        """
        counts = range(positive_int("rounds", rounds, maximum=MOST_ENTRIES) + 1)
        gaps = [sum(self.drift_parts(t)) for t in counts]
        return draw_gaps(axes, gaps, self.floor, "F(B, V_t) − P(B)")

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
        return averaged(self.weights, self.hessians)

    @cached_property
    def _star(self) -> Array:
        linear = averaged(self.weights, self.linears)
        if not np.isfinite(self.hessian).all():  # a kernel beyond all measure has no V* here
            return np.full_like(linear, np.nan)
        return np.asarray(np.linalg.solve(self.hessian, linear))

    @property
    def minimizer(self) -> Array:
        """V* = A⁻¹C, (H, d, m), to as many digits as `KernelProfile.minimizer`."""
        return self._heads(self._star)

    @cached_property
    def gradients_at_minimizer(self) -> Array:
        """g_i* = A_i V* − C_i, (C, Hd, m); Σ p_i g_i* = 0."""
        return np.asarray(self.hessians @ self._star[..., None, :, :] - self.linears)

    @cached_property
    def _spectra(self) -> tuple[Array, Array]:
        if not np.isfinite(self.hessians).all():
            return np.full(self.hessians.shape[:-1], np.inf), np.zeros_like(self.hessians)
        values, vectors = np.linalg.eigh(self.hessians)
        return values, vectors

    @cached_property
    def _one_minus_mean_power(self) -> Array:
        """I − M̂ = η Σ a_i S_i A_i, formed without subtraction."""
        values, vectors = self._spectra
        with np.errstate(over="ignore", invalid="ignore"):
            gone = self.local_work.contraction(self.local_lr * values)
            each = (vectors * gone[..., None, :]) @ vectors.swapaxes(-1, -2)
            return averaged(self._shares, each)

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

    def at_step(self, local_lr: float) -> FrozenStage:
        """The same stage with another step size; what steps do not change is not computed again."""
        other = replace(self, local_lr=real("local_lr", local_lr, above=0.0))
        kept = ("hessian", "_star", "gradients_at_minimizer", "_spectra")
        other.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return other

    @property
    def stable(self) -> bool:
        """Whether ρ < 1."""
        return self.rate < 1.0

    @cached_property
    def _push(self) -> Array:
        """V⁺ − V* from V*, η Σ [a_i η T_i A_i − (a_i E_i − p_i Σ a_j E_j)] g_i*, (Hd, m).

        With plain averaging and equal work only ηT_iA_i is left, exactly zero at E = 1. As
        S_i = E_i I − ηT_iA_i and Σ p_i g_i* = 0, it is −η Σ a_i S_i g_i* too: taken beyond
        `MANY_STEPS` where S_i is smaller, since of terms of size E little is left then.
        """
        values, vectors = self._spectra
        x = self.local_lr * values
        weighted = self.local_work.weighted_sum(x) * x  # η T_i A_i in the eigenbasis
        rotated = vectors.swapaxes(-1, -2) @ self.gradients_at_minimizer
        right = averaged(self._shares, vectors @ (weighted[..., None] * rotated))
        if self._uneven is not None:
            right = right - averaged(self._uneven, self.gradients_at_minimizer)
        if self.local_steps > MANY_STEPS:
            with np.errstate(divide="ignore", invalid="ignore"):
                sums = self.local_work.contraction(x) / x  # S_i
            parts, others = sums[..., None] * rotated, weighted[..., None] * rotated
            smaller = _largest(parts) < _largest(others)
            right = np.where(smaller, -averaged(self._shares, vectors @ parts), right)
        return np.asarray(self.local_lr * right)

    @cached_property
    def _bias(self) -> Array:
        """V_∞ − V* = (I − M̂)⁻¹ (V⁺ − V* from V*); inf at overflow, or where M̂ has eigenvalue 1."""
        if not self._overflows:
            with suppress(np.linalg.LinAlgError):
                return np.asarray(np.linalg.solve(self._one_minus_mean_power, self._push))
        return np.full_like(self._star, np.inf)

    @cached_property
    def _has_limit(self) -> bool:
        """Whether V_∞ is within the range of floating-point numbers."""
        return bool(np.isfinite(self._bias).all())

    @property
    def bias(self) -> Array:
        """V_∞ − V*, (H, d, m) (C8); inf at overflow.

        Raises
        ------
        FloatingPointError
            Where M̂ has eigenvalue 1 up to rounding, beyond stability: V_∞ is not one point then.
        """
        if not (self._has_limit or self._overflows):
            raise FloatingPointError("I − M̂ is singular: the stage has no single fixed point")
        return self._heads(self._bias)

    @property
    def fixed_point(self) -> Array:
        """V_∞ = (Σ a S_i A_i)⁻¹ Σ a S_i C_i, (H, d, m) (C7)."""
        return self._heads(self._star) + self.bias

    @property
    def floor(self) -> float:
        """½‖V_∞ − V*‖²_A, units of loss; inf where V_∞ is none."""
        return 0.5 * self._norm_sq(self._bias) if self._has_limit else float("inf")

    def _norm_sq(self, stacked: Array) -> float:
        return float(np.vdot(stacked, self.hessian @ stacked))

    @property
    def gap(self) -> float:
        """½‖V_0 − V*‖²_A: what one exact value solve would gain (C1); inf at overflow."""
        return finite_or_inf(0.5 * self._norm_sq(stack_heads(self.start) - self._star))

    def _lag(self, rounds: int) -> Array:
        """M̂ᵗ(V_0 − V_∞)."""
        return self._powered(rounds, stack_heads(self.start) - self._star - self._bias)

    def _powered(self, rounds: int, error: Array) -> Array:
        """M̂ᵗ times a value block, (Hd, m)."""
        values, vectors = self._mean_power_spectrum
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            decay = (1.0 - values) ** rounds
            small = np.exp(rounds * np.log1p(-np.minimum(values, 0.5)))
            powers = np.where(values < 0.5, small, decay)
            return np.asarray(vectors @ (powers[:, None] * (vectors.T @ error)))

    def _pushed(self, rounds: int) -> Array:
        """Σ_{k<t} M̂ᵏ (V⁺ − V* from V*): what V_∞ − V* is the limit of, where it has none."""
        values, vectors = self._mean_power_spectrum
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            sums = np.where(values == 0.0, rounds, (1.0 - (1.0 - values) ** rounds) / values)
            return np.asarray(vectors @ (sums[:, None] * (vectors.T @ self._push)))

    def after(self, rounds: int) -> Array:
        """Return V after `rounds` rounds, (H, d, m), without simulating them (C7).

        Not finite where an unstable stage has left the range of floating-point numbers.
        """
        positive_int("rounds", rounds, minimum=0)
        if rounds == 0:
            return self.start
        if not self._has_limit:
            return self._heads(self._star + self.error(rounds))
        return self._heads(self._star + self._bias + self._lag(rounds))

    def error(self, rounds: int) -> Array:
        """Return V − V* after `rounds` rounds, (Hd, m)."""
        if positive_int("rounds", rounds, minimum=0) == 0:
            return np.asarray(stack_heads(self.start) - self._star)
        if self._overflows:
            return np.full_like(self._star, np.inf)
        if not self._has_limit:
            return self._powered(rounds, self.error(0)) + self._pushed(rounds)
        return self._bias + self._lag(rounds)

    def drift_parts(self, rounds: int) -> tuple[float, float, float]:
        """Return transient ½‖a‖²_A, floor ½‖b‖²_A and cross ⟨a, Ab⟩ after `rounds` rounds (C9).

        a = M̂ᵗ(V_0 − V_∞) and b = V_∞ − V*; all +inf where the stage is unstable and rounds > 0. At
        0 rounds V_∞ is not needed: where it is none, all of the gap is transient.
        """
        if positive_int("rounds", rounds, minimum=0) > 0 and not self.stable:
            return (float("inf"),) * 3
        if not self._has_limit:
            return self.gap, 0.0, 0.0
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


def _largest(each: Array) -> Array:
    """The largest |entry| over clients, (..., C, Hd, m) -> (..., 1, 1)."""
    return np.asarray(np.abs(each).max(axis=(-3, -2, -1))[..., None, None])


def prepare(stages: Sequence[FrozenStage], hessians: Array, linears: Array) -> None:
    """Compute for many stages at once what each computes when it is asked, to the same bits.

    Their A_i and C_i are those of the stacks, (N, C, Hd, Hd) and (N, C, Hd, m); they share clients,
    weights and local work. A stage of six dimensions takes a few microseconds of arithmetic in some
    twenty calls; here the calls are shared too. What does not exist for one of them, after overflow
    or for a singular I − M̂, is left to be computed one by one.
    """
    if len(stages) < 2 or not np.isfinite(hessians).all():
        return
    steps: Any = np.array([stage.local_lr for stage in stages])[:, None, None]
    stacked = replace(stages[0], hessians=hessians, linears=linears, local_lr=steps)
    names = ["hessian", "_star", "gradients_at_minimizer", "_spectra", "_one_minus_mean_power"]
    with suppress(np.linalg.LinAlgError):
        stacked.gradients_at_minimizer  # noqa: B018 - asked for what it leaves behind
        if not stacked._overflows:
            names += ["_mean_power_spectrum", "_push"]
            names += ["_bias"] if stacked._has_limit else []
        for name in names:
            held = getattr(stacked, name)
            each = zip(*held, strict=True) if isinstance(held, tuple) else held
            for stage, one in zip(stages, each, strict=True):
                stage.__dict__[name] = one
