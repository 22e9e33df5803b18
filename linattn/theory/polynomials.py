"""Scalar functions of local gradient descent, free of cancellation (theory section 8).

With x = η·(eigenvalue of A_i) and y = 1 − x, E local steps apply y^E, and the sums below.
"""

from __future__ import annotations

import numpy as np

from linattn._typing import Array


def contraction(x: Array, steps: int) -> Array:
    """Return 1 − (1 − x)^E for x > 0, to full relative precision.

    Notes
    -----
    1 − x is below zero for x > 1, where log1p(x − 2) = log|1 − x| and the sign is that of (−1)^E.
    """
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(divide="ignore", over="ignore"):
        log_size = np.where(x < 1.0, np.log1p(-np.minimum(x, 1.0)), np.log(np.abs(x - 1.0)))
        near_two = np.log1p(np.clip(x, 1.0, 2.0) - 2.0)
        log_size = np.where((x > 1.0) & (x <= 2.0), near_two, log_size)
        negative = (x > 1.0) & (steps % 2 == 1)
        grown, kept = 1.0 + np.exp(steps * log_size), -np.expm1(steps * log_size)
        return np.asarray(np.where(negative, grown, kept))


def weighted_sum(x: Array, steps: int) -> Array:
    """Return T(x) = Σ_{k<E} (E − 1 − k)(1 − x)^k, zero at E = 1.

    Notes
    -----
    T = Σ_{j<E} S_j, so adding partial geometric sums needs no subtraction for x ≤ 1. Cost: E
    vector operations.
    """
    y = 1.0 - np.asarray(x, dtype=np.float64)
    partial, total = np.zeros_like(y), np.zeros_like(y)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps - 1):
            partial = partial * y + 1.0
            total = total + partial
    return total


def slope(x: float, steps: int, step_size: float) -> float:
    """Return |s'| at η·a = x, s(a) = S(ηa)/E: (η/E) Σ_{k=1}^{E−1} k (1 − x)^{k−1}.

    Notes
    -----
    On 0 < x ≤ 1 all terms are positive and |s'| falls with x, so its value at the smallest
    eigenvalue is the Lipschitz constant of s over all of them (C8).
    """
    counts = np.arange(1, steps)
    return float(step_size / steps * np.sum(counts * (1.0 - x) ** (counts - 1)))
