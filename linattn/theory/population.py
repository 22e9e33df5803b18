"""The population limit: Gaussian tokens without sampling (C16).

Tokens x ~ N(0, S) independent, n per sequence, targets of a teacher of the model's class. Then all
expectations over sequences are closed formulas in S, so P, its gradient and the frozen stage exist
without a single sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.special

from linattn._checks import as_float64, one_of, positive_int, real
from linattn._typing import Array
from linattn.clients import check_weights
from linattn.data.synthetic import draw_clients
from linattn.linalg import solve_definite, stack_heads
from linattn.objectives.population import kernel_slope
from linattn.theory.frozen import FrozenStage
from linattn.theory.wick import psi
from linattn.types import READOUTS, Params

# A mean of zero is refused this rarely.
FALSE_ALARM = 1e-6


def token_covariance(tokens: Any) -> Array:
    """Return S = mean xxᵀ of tokens, (d, d), once their mean is known to be zero.

    Parameters
    ----------
    tokens : array, shape (..., d)
        Independent draws.

    Raises
    ------
    ValueError
        If Hotelling's statistic N x̄ᵀS⁻¹x̄ is beyond its 1 − 1e-6 quantile: Ψ holds for N(0, S) only.

    Notes
    -----
    Source: C16. Cost: N d².
    """
    array = as_float64("tokens", tokens)
    flat = array.reshape(-1, array.shape[-1])
    count, dim = flat.shape
    if count <= dim:
        raise ValueError(f"tokens must be more than their {dim} channels, got {count}.")
    mean, covariance = flat.mean(axis=0), flat.T @ flat / count
    statistic = count * float(mean @ np.linalg.lstsq(covariance, mean, rcond=None)[0])
    limit = 2.0 * float(scipy.special.gammainccinv(0.5 * dim, FALSE_ALARM))
    if statistic > limit:
        raise ValueError(
            f"tokens must have mean zero for the population limit, got Hotelling's statistic "
            f"{statistic:.3g} > {limit:.3g}; subtract the mean first."
        )
    return np.asarray(covariance)


class Law(Protocol):
    """The exact moments of one client's sequences: all that the population limit asks."""

    @property
    def dim(self) -> int:
        """Number of channels d."""

    @property
    def energy(self) -> float:
        """c̄ = E‖Y‖²/q."""

    def system(self, kernels: Array) -> tuple[Array, Array]:
        """H, (Hd, Hd), and C, (Hd, m), at kernels (H, d, d)."""

    def kernel_gradient(self, kernels: Array, value: Array) -> Array:
        """Gradient of the data loss in B, (H, d, d)."""


@dataclass(frozen=True, eq=False)
class TokenLaw:
    """How the sequences of one client are drawn.

    Attributes
    ----------
    covariance : array, shape (d, d)
        S of the tokens, whose mean is zero.
    num_tokens : int
        n per sequence.
    teacher_kernel : array, shape (H', d, d)
    teacher_value : array, shape (H', d, m)
        The teacher; its number of heads is its own.
    noise : float
        Standard deviation of every target entry.
    readout : {"token", "mean", "last"}
    """

    covariance: Array
    num_tokens: int
    teacher_kernel: Array
    teacher_value: Array
    noise: float = 0.0
    readout: str = "token"

    def __post_init__(self) -> None:
        positive_int("num_tokens", self.num_tokens)
        one_of("readout", self.readout, READOUTS)
        real("noise", self.noise, minimum=0.0)
        symmetric = np.allclose(self.covariance, self.covariance.T, rtol=1e-12, atol=0.0)
        if not symmetric or np.linalg.eigvalsh(self.covariance)[0] < 0.0:
            raise ValueError("covariance must be symmetric and positive semidefinite.")

    @property
    def dim(self) -> int:
        """Number of channels d."""
        return len(self.covariance)

    @property
    def _scale(self) -> float:
        return 1.0 / self.num_tokens if self.readout == "mean" else 1.0

    def pair(self, left: Array, right: Array) -> Array:
        """E[G Pᵀ M Q G] = Ψ(Pᵀ, Q), over n for the mean readout."""
        return self._scale * psi(self.covariance, left.T, right, self.num_tokens)

    def system(self, kernels: Array) -> tuple[Array, Array]:
        """H, (Hd, Hd), and C, (Hd, m), at kernels (H, d, d)."""
        hessian = np.block([[self.pair(b, c) for c in kernels] for b in kernels])
        linear = [
            sum(self.pair(b, t) @ v for t, v in zip(*self._teacher, strict=True)) for b in kernels
        ]
        return hessian, np.concatenate(linear)

    @property
    def _teacher(self) -> tuple[Array, Array]:
        return self.teacher_kernel, self.teacher_value

    @property
    def energy(self) -> float:
        """c̄ = E‖Y‖²/q."""
        _, linear = self.system(self.teacher_kernel)
        signal = float(np.vdot(stack_heads(self.teacher_value), linear))
        return signal + float(self.noise**2 * self.teacher_value.shape[-1])

    def kernel_gradient(self, kernels: Array, value: Array) -> Array:
        """Gradient of the data loss in B, (H, d, d): Σ_hΨ(B_h, V_hV_kᵀ) less the teacher's."""
        return np.stack([self._pulled(kernels, value, v) - self._pulled(*self._teacher, v)
                         for v in value])  # fmt: skip

    def _pulled(self, kernels: Array, value: Array, right: Array) -> Array:
        """E[M(Σ_h B_h G V_h)(G V_k)ᵀ]."""
        parts = [
            psi(self.covariance, b, v @ right.T, self.num_tokens)
            for b, v in zip(kernels, value, strict=True)
        ]
        return np.asarray(self._scale * np.sum(parts, axis=0))


@dataclass(frozen=True, eq=False)
class PopulationLimit:
    """The federated problem with infinitely many sequences per client.

    Attributes
    ----------
    laws : tuple of Law
        One per client.
    weights : array, shape (C,)
    value_ridge, kernel_ridge : float
    """

    laws: tuple[Law, ...]
    weights: Array
    value_ridge: float
    kernel_ridge: float

    def __repr__(self) -> str:
        return f"PopulationLimit({len(self.laws)} clients, dim {self.laws[0].dim})"

    def client_systems(self, params: Params) -> tuple[Array, Array]:
        """A_i, (C, Hd, Hd), and C_i, (C, Hd, m), at the kernel of `params`."""
        hessians, linears = zip(*(law.system(params.kernels()) for law in self.laws), strict=True)
        ridge = self.value_ridge * np.eye(len(hessians[0]))
        return np.stack(hessians) + ridge, np.stack(linears)

    def _solved(self, params: Params) -> tuple[Array, Array]:
        """C and V* = A⁻¹C, both (Hd, m)."""
        hessians, linears = self.client_systems(params)
        linear = np.tensordot(self.weights, linears, 1)
        return linear, solve_definite(np.tensordot(self.weights, hessians, 1), linear)

    def minimizer(self, params: Params) -> Array:
        """V*(B), (H, d, m)."""
        return self._solved(params)[1].reshape(params.value.shape)

    def value(self, params: Params) -> float:
        """P(B) = ½c̄ − ½⟨C, A⁻¹C⟩ + (μ/2)‖kernel parameters‖²."""
        linear, star = self._solved(params)
        return self._constant(params) - 0.5 * float(np.vdot(linear, star))

    def _constant(self, params: Params) -> float:
        """½c̄ and the kernel ridge: F at V = 0."""
        energy = sum(p * law.energy for p, law in zip(self.weights, self.laws, strict=True))
        kernel = params.flat[params.layout.kernel_part]
        return 0.5 * float(energy) + 0.5 * self.kernel_ridge * float(kernel @ kernel)

    def objective(self, params: Params) -> float:
        """F(B, V) = ½c̄ − ⟨C, V⟩ + ½⟨V, A V⟩ + (μ/2)‖kernel parameters‖²."""
        hessians, linears = self.client_systems(params)
        hessian, linear = (np.tensordot(self.weights, a, 1) for a in (hessians, linears))
        value = stack_heads(params.value)
        return self._constant(params) + float(np.vdot(value, 0.5 * hessian @ value - linear))

    def gradient(self, params: Params) -> Params:
        """∇P = ∂_BF(B, V*(B)) (C2) in the kernel parameters, with a zero value block."""
        slope = self.joint_gradient(params.replace(value=self.minimizer(params)))
        return slope.replace(value=np.zeros_like(params.value))

    def joint_gradient(self, params: Params) -> Params:
        """∇F(B, V) in all blocks."""
        kernels = params.kernels()
        hessians, linears = self.client_systems(params)
        pull = hessians @ stack_heads(params.value) - linears
        value = np.tensordot(self.weights, pull, 1)
        pairs = zip(self.weights, self.laws, strict=True)
        data = np.sum([p * law.kernel_gradient(kernels, params.value) for p, law in pairs], axis=0)
        ridge = self.kernel_ridge * params.flat[params.layout.kernel_part]
        kernel = kernel_slope(params, data) + ridge
        return Params(params.layout, np.concatenate([kernel, value.reshape(-1)]))

    def tensor_gradient(self, params: Params) -> Array:
        """𝒢 = Σp E[R ⊗ G], (d², dm), at merged kernels (C15).

        Heads with B = 0 and a unit matrix V change no prediction, and ∂_B of theirs is a column.
        """
        kernels, value = params.kernels(), params.value
        size = value[0].size
        units = np.eye(size).reshape(size, *value.shape[1:])
        wide = (
            np.concatenate([kernels, np.zeros((size, *kernels.shape[1:]))]),
            np.concatenate([value, units]),
        )
        pairs = zip(self.weights, self.laws, strict=True)
        columns = np.sum([p * law.kernel_gradient(*wide) for p, law in pairs], axis=0)
        return np.asarray(columns[len(value) :].reshape(size, -1).T)

    def frozen_stage(self, params: Params, *, local_steps: int, local_lr: float) -> FrozenStage:
        """The frozen stage without sampling, exactly (C7, C8 on the population's A_i and C_i)."""
        positive_int("local_steps", local_steps)
        real("local_lr", local_lr, above=0.0)
        hessians, linears = self.client_systems(params)
        return FrozenStage(self.weights, hessians, linears, params.value, local_steps, local_lr)


def population_limit(
    laws: Sequence[Law],
    *,
    value_ridge: float,
    kernel_ridge: float,
    weights: Any = "equal",
) -> PopulationLimit:
    """Return the population limit of clients with given laws.

    Parameters
    ----------
    laws : sequence of Law
        `TokenLaw`, or whatever else knows the moments of its sequences.
    value_ridge, kernel_ridge : float
        λ > 0 and μ ≥ 0.
    weights : "equal" or sequence of float
        p_i.

    Raises
    ------
    ValueError
        If there is no client or an argument is out of range.

    Notes
    -----
    Source: C16. Cost: of P, C H² evaluations of Ψ; of a gradient about three times that.
    """
    if not laws:
        raise ValueError("laws must name at least one client, got none.")
    return PopulationLimit(
        tuple(laws),
        check_weights(weights, np.ones(len(laws), dtype=np.int64)),
        real("value_ridge", value_ridge, above=0.0),
        real("kernel_ridge", kernel_ridge, minimum=0.0),
    )


def synthetic_limit(
    *,
    num_clients: int,
    num_tokens: int,
    dim: int,
    num_outputs: int,
    value_ridge: float,
    kernel_ridge: float,
    num_heads: int = 1,
    value_heterogeneity: float = 0.0,
    covariate_heterogeneity: float = 0.0,
    kernel_heterogeneity: float = 0.0,
    noise: float = 0.0,
    shared_tokens: bool = False,
    readout: str = "token",
    weights: Any = "equal",
    seed: int = 0,
) -> PopulationLimit:
    """Return the limit of `synthetic_problem` with the same arguments for many sequences.

    Notes
    -----
    Source: C16. Clients draw their mixing matrix and teacher from the same streams as
    `synthetic_problem`. Cost: that of drawing C teachers.
    """
    drawn = draw_clients(
        seed,
        num_clients=num_clients,
        dim=dim,
        num_outputs=num_outputs,
        num_heads=num_heads,
        value_heterogeneity=value_heterogeneity,
        covariate_heterogeneity=covariate_heterogeneity,
        kernel_heterogeneity=kernel_heterogeneity,
        shared_tokens=shared_tokens,
    )
    laws = []
    for client in drawn:
        covariance, teacher = client.mixing @ client.mixing.T, client.teacher
        laws.append(
            TokenLaw(covariance, num_tokens, teacher["kernel"], teacher.value, noise, readout)
        )
    return population_limit(
        laws, value_ridge=value_ridge, kernel_ridge=kernel_ridge, weights=weights
    )
