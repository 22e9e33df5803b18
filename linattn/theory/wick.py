"""The sixth moment of Gaussian tokens, in closed form and by enumeration (C16)."""

from __future__ import annotations

import numpy as np

from linattn._typing import Array


def psi(covariance: Array, left: Array, right: Array, num_tokens: int) -> Array:
    """Return Ψ(P, Q) = E[G P G Q G] for n tokens N(0, S), G = XᵀX/n, (d, d).

    Parameters
    ----------
    covariance : array, shape (d, d)
        S.
    left, right : array, shape (d, d)
        P and Q.
    num_tokens : int
        n.

    Notes
    -----
    Source: C16. Proof: Wick's theorem; of the 15 pairings of six factors one leaves three tokens
    free, six two and eight one. Cost: about 40 products of (d, d) matrices.
    """
    s, p, q = covariance, left, right
    pt, qt = p.T, q.T
    trace_p, trace_q = np.vdot(pt, s), np.vdot(qt, s)
    single = (
        s @ p @ s @ qt @ s
        + trace_q * (s @ p @ s)
        + s @ pt @ s @ q @ s
        + trace_p * (s @ q @ s)
        + s @ qt @ s @ pt @ s
        + np.trace(p @ s @ q @ s) * s
    )
    double = (
        s @ pt @ s @ qt @ s
        + trace_q * (s @ pt @ s)
        + s @ q @ s @ p @ s
        + s @ q @ s @ pt @ s
        + trace_p * (s @ qt @ s)
        + s @ qt @ s @ p @ s
        + (trace_p * trace_q + np.trace(s @ q @ s @ pt)) * s
    )
    return np.asarray(s @ p @ s @ q @ s + single / num_tokens + double / num_tokens**2)


def psi_by_pairings(covariance: Array, left: Array, right: Array, num_tokens: int) -> Array:
    """Return Ψ(P, Q) by enumerating all 15 pairings of the six token factors.

    x_a x_aᵀ P x_b x_bᵀ Q x_c x_cᵀ: a pairing contributes its product of covariances, times the
    share of token triples (a, b, c) in which paired factors belong to the same token.

    Notes
    -----
    Source: C16 (Wick's theorem). Independent of the closed formula. Cost: 15 contractions.
    """
    total = np.zeros_like(covariance)
    for pairing in _pairings(tuple(range(6))):
        edges = ",".join("abcdef"[i] + "abcdef"[j] for i, j in pairing)
        term = np.einsum(f"{edges},bc,de->af", *[covariance] * 3, left, right, optimize="greedy")
        total += float(num_tokens) ** (_components(pairing) - 3) * term
    return total


def _pairings(items: tuple[int, ...]) -> list[tuple[tuple[int, int], ...]]:
    """All perfect matchings of an even number of items."""
    if not items:
        return [()]
    found = []
    for k in range(1, len(items)):
        rest = items[1:k] + items[k + 1 :]
        found += [((items[0], items[k]), *tail) for tail in _pairings(rest)]
    return found


def _components(pairing: tuple[tuple[int, int], ...]) -> int:
    """Number of tokens that may still differ: factors 2t and 2t + 1 belong to token t."""
    label = [0, 1, 2]
    for i, j in pairing:
        old, new = label[i // 2], label[j // 2]
        label = [new if name == old else name for name in label]
    return len(set(label))
