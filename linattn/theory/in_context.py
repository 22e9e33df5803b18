"""The best model of in-context linear regression, for clients that differ in covariance (C22)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from linattn._typing import Array
from linattn.streams import stream
from linattn.theory.in_context_law import in_context_laws, in_context_limit
from linattn.types import Params

# Off-diagonal entries in the common eigenvectors that rounding explains, relative to the largest.
COMMUTING_SLACK = 1e-10


class InContextOptimum(NamedTuple):
    """The best model of an in-context world.

    Attributes
    ----------
    params : Params
        Merged, one head: B = diag(Γ, 0), V = v e_{D+1}.
    loss : float
        F there, ridges included: the least of merged kernels with any number of heads.
    scales : array, shape (D,)
        γ_k, the eigenvalues of Γ, of the v that `params` has.
    client_losses : array, shape (C,)
        Data loss of every client at the joint optimum.
    """

    params: Params
    loss: float
    scales: Array
    client_losses: Array

    def __repr__(self) -> str:
        low, high = float(self.client_losses.min()), float(self.client_losses.max())
        return (
            f"InContextOptimum(loss {self.loss:.6g}, {len(self.client_losses)} clients with data "
            f"losses {low:.6g} to {high:.6g}, {len(self.scales)} features)"
        )


def in_context_optimum(
    covariances: Any,
    context_length: Any,
    noise: Any = 0.0,
    *,
    weights: Any = "equal",
    value_ridge: float = 0.0,
    kernel_ridge: float = 0.0,
) -> InContextOptimum:
    """Return the best linear attention for `in_context_problem` with infinitely many sequences.

    In the common eigenvectors of the Λ_i (eigenvalues λ_ik), with a_k = Σp_iλ_ik² and
    b_k = Σp_iλ_ik²((1 + 1/n_i)λ_ik + (tr Λ_i + σ_i²)/n_i): without ridges γ_k = a_k/b_k and v = 1;
    with both, θ_k = vγ_k = u a_k/(u b_k + 1), where u = v²/μ is the root of Σ_k(a_k/(u b_k + 1))² =
    λμ, or 0 where Σ_k a_k² ≤ λμ (collapse).

    Parameters
    ----------
    covariances : array, shape (C, D, D), or (D, D) for one client
        Λ_i, which must commute.
    context_length : int or one int per client
        n.
    noise : float or one float per client
        σ.
    weights : "equal" or sequence of float
        p_i.
    value_ridge, kernel_ridge : float
        λ and μ; both zero or both positive (with one of them no minimizer exists).

    Raises
    ------
    TypeError, ValueError
        If covariances do not commute, one ridge alone is zero, or an argument is out of range.

    Notes
    -----
    Source: C22; one client without ridges is theorem 1 of Ahn et al. (arXiv 2306.00297, recalled)
    and the limit of Zhang, Frei and Bartlett (arXiv 2306.09927, recalled).
    Cost: one eigendecomposition, one root of a monotone function.

    Examples
    --------
    One feature of variance one, one example: γ = 1/(2 + 1) and the loss ½(1 − γ).

    >>> optimum = in_context_optimum([[1.0]], 1)
    >>> round(float(optimum.scales[0]), 6), round(optimum.loss, 6)
    (0.333333, 0.333333)
    """
    limit = in_context_limit(
        covariances,
        context_length,
        noise,
        weights=weights,
        value_ridge=value_ridge,
        kernel_ridge=kernel_ridge,
    )
    if (limit.value_ridge > 0.0) != (limit.kernel_ridge > 0.0):
        raise ValueError(
            "value_ridge and kernel_ridge must be both zero or both positive for a minimizer to "
            f"exist, got {limit.value_ridge:g} and {limit.kernel_ridge:g}."
        )
    laws = in_context_laws(covariances, context_length, noise)
    vectors, eigenvalues = common_eigenvectors(np.stack([law.covariance for law in laws]))
    parts = [
        _diagonal_parts(row, law.context_length, law.noise)
        for row, law in zip(eigenvalues, laws, strict=True)
    ]
    linear, square = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    a, b = limit.weights @ linear, limit.weights @ square
    theta, ridge, value = _best_scales(a, b, limit.value_ridge, limit.kernel_ridge)
    scales = np.divide(theta, value, out=np.zeros_like(theta), where=theta > 0.0)
    losses = 0.5 * (eigenvalues.sum(axis=1) - 2.0 * linear @ theta + square @ theta**2)
    dim = laws[0].dim
    kernel, block = np.zeros((dim, dim)), np.zeros((dim, 1))
    kernel[:-1, :-1], block[-1] = (vectors * scales) @ vectors.T, value
    loss = float(limit.weights @ losses) + ridge
    return InContextOptimum(Params.merged(kernel, block), loss, scales, losses)


class InContextCheck(NamedTuple):
    """The formula of `in_context_optimum` against exact moments.

    Attributes
    ----------
    formula, moments : float
        F at the optimum: by the formula, and from H, C and c̄ of the world.
    gradient_norm : float
        ‖∇F‖ there in all entries of B and V, zero in exact arithmetic.
    dual_norm, threshold : float
        ‖𝒢‖₂ and τ = √(λμ): not larger, no model of any number of heads is better (C15b).
    scale : float
        ½ tr Σp_iΛ_i, the loss of predicting zero: what rounding is measured against.
    """

    formula: float
    moments: float
    gradient_norm: float
    dual_norm: float
    threshold: float
    scale: float


def check_in_context_optimum(
    covariances: Any,
    context_length: Any,
    noise: Any = 0.0,
    *,
    weights: Any = "equal",
    value_ridge: float = 0.0,
    kernel_ridge: float = 0.0,
) -> InContextCheck:
    """Return what `in_context_optimum` claims beside what exact moments say at its parameters.

    Parameters
    ----------
    covariances, context_length, noise, weights, value_ridge, kernel_ridge
        As in `in_context_optimum`.

    Notes
    -----
    Source: C22, C15 (b). Cost: (D + 2)² D products of (D + 1, D + 1) matrices per client.
    """
    world = {"weights": weights, "value_ridge": value_ridge, "kernel_ridge": kernel_ridge}
    optimum = in_context_optimum(covariances, context_length, noise, **world)
    limit = in_context_limit(covariances, context_length, noise, **world)
    return InContextCheck(
        formula=optimum.loss,
        moments=limit.objective(optimum.params),
        gradient_norm=float(np.linalg.norm(limit.joint_gradient(optimum.params).flat)),
        dual_norm=float(np.linalg.norm(limit.tensor_gradient(optimum.params), 2)),
        threshold=float(np.sqrt(limit.value_ridge * limit.kernel_ridge)),
        scale=0.5 * sum(p * law.energy for p, law in zip(limit.weights, limit.laws, strict=True)),
    )


def _diagonal_parts(eigenvalues: Array, length: int, noise: float) -> tuple[Array, Array]:
    """λ_k² and λ_k²((1 + 1/n)λ_k + (tr Λ + σ²)/n): loss = ½Σ[λ_k − 2θ_k(first) + θ_k²(second)]."""
    linear = eigenvalues**2
    spread = (1.0 + 1.0 / length) * eigenvalues + (eigenvalues.sum() + noise * noise) / length
    return linear, linear * spread


def _best_scales(
    a: Array, b: Array, value_ridge: float, kernel_ridge: float
) -> tuple[Array, float, float]:
    """θ = vγ, (D,), both ridges, and v ≥ 0 at the minimum; v = 1 without ridges (it is free)."""
    threshold = float(np.sqrt(value_ridge) * np.sqrt(kernel_ridge))
    if threshold == 0.0:
        return np.divide(a, b, out=np.zeros_like(a), where=a > 0.0), 0.0, 1.0

    def excess(u: float) -> float:
        return float(np.linalg.norm(a / (u * b + 1.0))) - threshold

    if excess(0.0) <= 0.0:
        return np.zeros_like(a), 0.0, 0.0
    top = 1.0
    while excess(top) > 0.0:
        top *= 2.0
    u = float(scipy.optimize.brentq(excess, 0.0, top, xtol=1e-300, rtol=1e-15))
    damped = a / (u * b + 1.0)
    # (μ/2)‖γ‖² and (λ/2)v², of which each is half of τ‖θ‖ where they balance.
    ridge = 0.5 * u * (float(damped @ damped) + threshold**2)
    return u * damped, ridge, float(np.sqrt(u) * np.sqrt(kernel_ridge))


def common_eigenvectors(covariances: Array) -> tuple[Array, Array]:
    """Return eigenvectors of all Λ_i, (D, D) in columns, and their eigenvalues (C, D).

    Raises
    ------
    ValueError
        If they do not commute, so that there are none.

    Notes
    -----
    Source: C22. Those of a mixture with generic weights, in which distinct eigenvalues stay so.
    """
    mixing = stream(0, "common eigenvectors").uniform(0.5, 1.5, size=len(covariances))
    _, vectors = np.linalg.eigh(np.tensordot(mixing / mixing.sum(), covariances, 1))
    turned = vectors.T @ covariances @ vectors
    eigenvalues = np.diagonal(turned, axis1=1, axis2=2)
    rest = turned - eigenvalues[:, :, None] * np.eye(len(vectors))
    apart = float(np.abs(rest).max())
    if apart > COMMUTING_SLACK * max(float(np.abs(covariances).max()), 1e-300):
        raise ValueError(
            "covariances must commute for the joint optimum to have a formula, got entries of "
            f"{apart:.3g} off the diagonal in their common eigenvectors; in_context_limit takes "
            "them."
        )
    return vectors, np.maximum(eigenvalues, 0.0)
