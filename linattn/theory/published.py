"""Published bounds restated for the frozen stage, with weights p_i in place of 1/M.

Whether a statement could be compared with its paper stands in the claim table: what could not is
`recalled` there, never adjusted, and never an exit status.
"""

from __future__ import annotations

import numpy as np

from linattn._typing import Array
from linattn.theory.frozen import FrozenStage
from linattn.theory.polynomials import contraction, power_sums
from linattn.theory.tracking import SPECTRAL_SLACK


def operator_bound(stage: FrozenStage) -> float | None:
    """Return ‖V_∞ − V*‖ ≤ ξ(1 − ξ^{E−1})/((1 − ξ)(1 − ξ^E))·Σp‖T_iV* − V*‖, or None if ξ ≥ 1.

    ξ = max_i ‖I − ηA_i‖₂ is the contraction of one local step T_i; ‖T_iV* − V*‖ = η‖g_i*‖.

    Notes
    -----
    Source: Malinovsky et al. 2020 (constant re-derived): with x† the fixed point of
    Σp T_i^E, x† − V* = Σp(T_i^E x† − T_i^E V*) + Σp(T_i^E V* − V*); the first is at most
    ξ^E‖x† − V*‖, the second telescopes to Σ_{1≤k<E} ξ^k Σp‖T_iV* − V*‖ because its first term
    Σp(T_iV* − V*) vanishes. Cost: the spectra of A_i.
    """
    values: Array = np.asarray(stage.local_lr * np.linalg.eigvalsh(stage.hessians), dtype=float)
    xi = float(np.abs(1.0 - values).max())
    if xi >= 1.0:
        return None
    moves = np.linalg.norm(stage.gradients_at_minimizer, axis=(1, 2))
    total = float(stage.local_lr * (stage.weights @ moves))
    apart = np.array(np.minimum(values, 2.0 - values).min())  # 1 − ξ
    powers = xi * float(power_sums(apart, stage.common_steps - 1).plain)
    # 1 − ξ^E of a ξ just below 1, without cancellation; contraction(x) is 1 − (1 − x)^E.
    return powers * total / float(contraction(apart, stage.common_steps))


def surrogate_condition_bound(stage: FrozenStage) -> float:
    """Return k_E ≤ (1 − (1 − ηL)^E)/(1 − (1 − ημ)^E), which bounds cond(Σp S_iA_i) for ηL ≤ 1.

    L = max λ_max(A_i), μ = min λ_min(A_i). Equals L/μ at E = 1 and falls with E: what local steps
    gain.

    Notes
    -----
    Source: Charles and Konečný 2021 (surrogate loss). Proof: ηS_iA_i has the
    eigenvalues 1 − (1 − ηλ)^E, which grow with λ for ηλ ≤ 1, and extreme eigenvalues of a weighted
    mean lie between those of its parts. Cost: the spectra of A_i.
    """
    values = stage.local_lr * np.linalg.eigvalsh(stage.hessians)
    ends = contraction(np.array([values.max(), values.min()]), stage.common_steps)
    return float(ends[0] / ends[1])


def alignment_bound(stage: FrozenStage) -> float:
    """Return ‖V_∞ − V*‖ ≤ 8C(√k_0 − √k_E)/(√k_0 + √k_E) with ‖V_i‖ ≤ C for ηL ≤ 1.

    V_i = A_i⁻¹C_i are the client minimizers, k_0 = L/μ, k_E from `surrogate_condition_bound`. With
    it this is the trade-off of convergence (k_E) and accuracy (the bias).

    Notes
    -----
    Source: Charles and Konečný 2021, recalled. Cost: the spectra of A_i and a solve
    per client.
    """
    values = np.linalg.eigvalsh(stage.hessians)
    start = np.sqrt(values.max() / values.min())
    end = np.sqrt(surrogate_condition_bound(stage))
    radius = np.linalg.norm(np.linalg.solve(stage.hessians, stage.linears), axis=(1, 2)).max()
    return float(8.0 * radius * (start - end) / (start + end))


def khaled_bound(
    distance_sq: float,
    steps: int,
    *,
    step_size: float,
    smoothness: float,
    local_steps: int,
    dissimilarity_sq: float,
) -> float:
    """Return 2D²/(γT) + 24γ²σ*²H²L, which bounds the mean of F(x̂_t) − F* over t < T.

    Local gradient descent on convex, L-smooth clients, T local steps in all, H per round,
    γ ≤ min{1/(4L), 1/(8L(H − 1))}.

    Parameters
    ----------
    distance_sq : float
        D² = ‖x_0 − x*‖².
    steps : int
        T.
    step_size : float
        γ.
    smoothness : float
        L.
    local_steps : int
        H.
    dissimilarity_sq : float
        σ*² = Σp‖∇F_i(x*)‖², heterogeneity at the optimum only.

    Notes
    -----
    Source: Khaled, Mishchenko and Richtárik 2020, recalled. Cost: none.
    """
    optimization = 2.0 * distance_sq / (step_size * steps)
    return optimization + 24.0 * step_size**2 * dissimilarity_sq * local_steps**2 * smoothness


def khaled_step(smoothness: float, local_steps: int) -> float:
    """Return the largest step min{1/(4L), 1/(8L(H − 1))} of `khaled_bound`.

    Notes
    -----
    Source: Khaled, Mishchenko and Richtárik 2020, recalled. Cost: none.
    """
    return 1.0 / (smoothness * max(4.0, 8.0 * (local_steps - 1)))


def field_guide_bound(
    distance_sq: float,
    rounds: int,
    *,
    step_size: float,
    smoothness: float,
    local_steps: int,
    heterogeneity_sq: float,
) -> float:
    """Return D²/(2ητT) + 18τ²η²Lζ², which bounds the mean of F(x̄) − F* over all local steps.

    Convex, L-smooth clients, full gradients, η ≤ 1/(4L).

    Parameters
    ----------
    distance_sq : float
        D² = ‖x_0 − x*‖².
    rounds : int
        T.
    step_size : float
        η.
    smoothness : float
        L.
    local_steps : int
        τ.
    heterogeneity_sq : float
        ζ², the largest ‖∇F_i − ∇F‖² over clients and visited points; infinite on the whole space
        when Hessians differ.

    Notes
    -----
    Source: Wang et al. 2021 (field guide, theorem 1), recalled. Cost: none.
    """
    optimization = distance_sq / (2.0 * step_size * local_steps * rounds)
    return optimization + smoothness * field_guide_drift(step_size, local_steps, heterogeneity_sq)


def field_guide_drift(step_size: float, local_steps: int, heterogeneity_sq: float) -> float:
    """Return 18τ²η²ζ², which bounds ‖x_i − x̄‖² at every local step.

    Notes
    -----
    Source: Wang et al. 2021 (field guide, lemma), recalled. Cost: none.
    """
    return 18.0 * (local_steps * step_size) ** 2 * heterogeneity_sq


def biased_descent_bound(
    start: float,
    steps: int,
    *,
    step_size: float,
    modulus: float,
    relative: float,
    absolute: float,
) -> float:
    """Return (1 − γμ(1 − m))^T F_0 + ζ²/(2μ(1 − m)) for biases ‖b‖² ≤ m‖∇f‖² + ζ², γ ≤ 1/L.

    Parameters
    ----------
    start : float
        F_0 = f_0 − f*.
    steps : int
        T.
    step_size : float
        γ.
    modulus : float
        PL constant μ.
    relative, absolute : float
        m in [0, 1) and ζ².

    Notes
    -----
    Source: Ajalloeian and Stich 2020 (without noise), recalled. Cost: none.
    """
    kept = modulus * (1.0 - relative)
    return (1.0 - step_size * kept) ** steps * start + absolute / (2.0 * kept)


def average_drift(stage: FrozenStage) -> float:
    """Return ρ = ‖Σp S_i g_i*‖/E: the mean drift of local steps that start at V*, per ηE.

    The heterogeneity that the fixed point feels: zero exactly where V_∞ = V*.

    Notes
    -----
    Source: Wang et al. 2022 (average drift at the optimum), here in closed form:
    Σp S_i g_i* = −Σp S_iA_i(V_∞ − V*) by C8. Cost: a product of (Hd, Hd) and (Hd, m) matrices.
    """
    bias = stage.bias.reshape(-1, stage.bias.shape[-1])
    return float(np.linalg.norm(stage.surrogate_hessian @ bias)) / stage.common_steps


def heterogeneous_smoothness(stage: FrozenStage) -> float:
    """Return L_h = ‖Σp(A_i − A)²‖₂^½: ‖Σp∇F_i(V_i) − ∇F(V̄)‖ ≤ L_h(Σp‖V_i − V̄‖²)^½.

    Notes
    -----
    Source: heterogeneity-driven Lipschitz constant, ICLR 2024 submission, for quadratics:
    Σp A(V_i − V̄) = 0, then Cauchy–Schwarz on the blocks √p_i(A_i − A). Cost: C (Hd)³.
    """
    spread = stage.hessians - stage.hessian
    square = np.tensordot(stage.weights, spread @ spread, 1)
    return float(np.sqrt(np.linalg.eigvalsh(square)[-1].clip(0.0))) * (1.0 + SPECTRAL_SLACK)
