"""Control variates in the frozen stage: the exact linear iteration and its spectral radius."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from linattn._checks import one_of, positive_int, real
from linattn._typing import Array
from linattn.linalg import stack_heads
from linattn.theory.frozen import FrozenStage, frozen_stage
from linattn.types import Params, Problem


def scaffold_stage(
    problem: Problem,
    params: Params,
    *,
    local_steps: int,
    local_lr: float,
    frozen_lr: float | str | None = None,
    server_lr: float = 1.0,
    option: int = 2,
) -> ScaffoldStage:
    """Return the exact description of SCAFFOLD on the value block at the kernel of `params`.

    Full batches, full participation, control variates from zero. Nothing is simulated.

    Parameters
    ----------
    problem : Problem
    params : Params
        Kernel B and the value block V_0.
    local_steps : int
        E.
    local_lr : float
        η of the warm-up.
    frozen_lr : None, float or "safe"
        Step size of this stage, as in `fed_frozen`.
    server_lr : float
        η_g > 0.
    option : {1, 2}

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Source: our own derivation for SCAFFOLD (arXiv 1910.06378) on the quadratics of C7. Cost: one
    eigendecomposition of a matrix with (C + 1)Hd rows.
    """
    one_of("option", str(option), ("1", "2"))
    server_lr = real("server_lr", server_lr, above=0.0)
    stage = frozen_stage(
        problem,
        params,
        local_steps=positive_int("local_steps", local_steps),
        local_lr=local_lr,
        frozen_lr=frozen_lr,
    )
    return ScaffoldStage(stage, server_lr, int(option))


@dataclass(frozen=True, eq=False)
class ScaffoldStage:
    """x_{t+1} = 𝓜 x_t with x = (V − V*, c_1 − g_1*, …, c_C − g_C*), g_i* = A_i V* − C_i.

    With S_i = Σ_{k<E}(I − ηA_i)^k, e = V − V*, d_i = c_i − g_i* and d̄ = Σ p_j d_j a round does

        e⁺   = (1 − η_g) e + η_g Σ p_i [(I − ηA_i)^E e + ηS_i(d_i − d̄)]
        d_i⁺ = (I − S_i/E)(d_i − d̄) + (S_i A_i/E) e      (option 2),      A_i e      (option 1),

    so V* with c_i = g_i* is the fixed point whatever the heterogeneity (Σ p_i g_i* = 0). *Proof:*
    a local step moves ε = y − V* to (I − ηA_i)ε + η(d_i − d̄), and w − y = ηS_i(A_i e − d_i + d̄).

    Attributes
    ----------
    stage : FrozenStage
        A_i, C_i, E, η and V_0.
    server_lr : float
        η_g.
    option : int
    """

    stage: FrozenStage
    server_lr: float
    option: int

    def __repr__(self) -> str:
        verdict = "stable" if self.stable else "unstable"
        return (
            f"ScaffoldStage({verdict}, rate {self.rate:.6g}, {len(self.stage.weights)} clients, "
            f"E = {self.stage.common_steps}, lr {self.stage.local_lr:.3g}, option {self.option})"
        )

    @cached_property
    @np.errstate(over="ignore", invalid="ignore")
    def _sums(self) -> Array:
        """S_i, (C, Hd, Hd), by doubling: S_2k = (I + Mᵏ)S_k and S_{k+1} = I + M S_k."""
        eye = np.eye(self.stage.hessians.shape[-1])
        steps = eye - self.stage.local_lr * self.stage.hessians
        total, power = np.broadcast_to(eye, steps.shape), steps
        for bit in f"{self.stage.common_steps:b}"[1:]:
            total, power = total + power @ total, power @ power
            if bit == "1":
                total, power = eye + steps @ total, steps @ power
        return np.asarray(total)

    @cached_property
    @np.errstate(over="ignore", invalid="ignore")
    def matrix(self) -> Array:
        """𝓜, ((C + 1)Hd, (C + 1)Hd); the first Hd rows are those of V."""
        stage, sums, weights = self.stage, self._sums, self.stage.weights
        clients, size = sums.shape[:2]
        eye, lr, steps = np.eye(size), stage.local_lr, stage.common_steps
        out = np.zeros((clients + 1, size, clients + 1, size))
        progress = sums @ stage.hessians  # S_i A_i = (I − (I − ηA_i)^E)/η
        out[0, :, 0] = eye - self.server_lr * lr * np.tensordot(weights, progress, 1)
        mean = np.tensordot(weights, sums, 1)
        rates = self.server_lr * lr * weights[:, None, None]
        out[0, :, 1:] = (rates * (sums - mean)).swapaxes(0, 1)
        if self.option == 1:
            out[1:, :, 0] = stage.hessians
        else:
            out[1:, :, 0] = progress / steps
            keep = eye - sums / steps
            # d_i − d̄ holds d_j with weight δ_ij − p_j.
            apart = np.eye(clients) - weights
            out[1:, :, 1:] = apart[:, None, :, None] * keep[:, :, None]
        return out.reshape((clients + 1) * size, -1)

    @cached_property
    def _spectrum(self) -> tuple[Array, Array]:
        values, vectors = np.linalg.eig(self.matrix)
        return values, vectors

    @cached_property
    def rate(self) -> float:
        """Spectral radius of 𝓜: the contraction per round in the long run; inf after overflow."""
        if not np.isfinite(self.matrix).all():
            return float("inf")
        return float(np.abs(self._spectrum[0]).max())

    @property
    def stable(self) -> bool:
        """Whether the spectral radius is below 1."""
        return self.rate < 1.0

    @cached_property
    def _start(self) -> Array:
        """x_0 with c_i = 0, ((C + 1)Hd, m)."""
        lag = stack_heads(self.stage.start - self.stage.minimizer)
        return np.concatenate([lag, *(-self.stage.gradients_at_minimizer)])

    def after(self, rounds: int) -> Array:
        """Return V after `rounds` rounds, (H, d, m), without simulating them.

        Not finite where an unstable stage has left the range of floating-point numbers.
        """
        positive_int("rounds", rounds, minimum=0)
        size = self.stage.hessians.shape[-1]
        with np.errstate(over="ignore", invalid="ignore"):
            lag = (np.linalg.matrix_power(self.matrix, rounds) @ self._start)[:size]
        return np.asarray(self.stage.minimizer + lag.reshape(self.stage.start.shape))

    def rounds_to(self, error: float) -> float:
        """Return R with ‖V_t − V*‖ ≤ error for all t ≥ R, from the spectral radius; inf if ρ ≥ 1.

        ‖V_t − V*‖ ≤ cond(X)‖x_0‖ρᵗ with the eigenvectors X of 𝓜, so
        R = log(error/(cond(X)‖x_0‖))/log ρ.

        Parameters
        ----------
        error : float
            > 0, norm of the value block.
        """
        error = real("error", error, above=0.0)
        if not self.stable:
            return float("inf")
        start = float(np.linalg.cond(self._spectrum[1])) * float(np.linalg.norm(self._start))
        if start <= error:
            return 0.0
        return float(np.ceil(np.log(error / start) / np.log(self.rate)))
