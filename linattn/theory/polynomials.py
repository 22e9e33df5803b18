"""Scalar functions of local gradient descent, free of cancellation (notes, Frozen stage).

With x = η·(eigenvalue of A_i) and y = 1 − x, E local steps apply y^E, and the sums below.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array, IntArray


def contraction(x: Array, steps: int | IntArray) -> Array:
    """Return 1 − (1 − x)^E for x > 0, to full relative precision.

    Notes
    -----
    1 − x is below zero for x > 1, where log1p(x − 2) = log|1 − x| and the sign is that of (−1)^E.
    """
    x = np.asarray(x, dtype=np.float64)
    if (x < 1.0).all():
        return np.asarray(-np.expm1(steps * np.log1p(-x)))
    with np.errstate(divide="ignore", over="ignore"):
        log_size = np.where(x < 1.0, np.log1p(-np.minimum(x, 1.0)), np.log(np.abs(x - 1.0)))
        near_two = np.log1p(np.clip(x, 1.0, 2.0) - 2.0)
        log_size = np.where((x > 1.0) & (x <= 2.0), near_two, log_size)
        negative = (x > 1.0) & (steps % 2 == 1)
        grown, kept = 1.0 + np.exp(steps * log_size), -np.expm1(steps * log_size)
        return np.asarray(np.where(negative, grown, kept))


class PowerSums(NamedTuple):
    """Sums of y^k = (1 − x)^k: y^E, and each of the others the sum of the one before over 0..E−1.

    Attributes
    ----------
    power : array
        y^E.
    plain : array
        S_E = Σ_{k<E} y^k.
    weighted : array
        T_E = Σ_{j<E} S_j = Σ_{k<E} (E − 1 − k) y^k.
    twice : array
        U_E = Σ_{j<E} T_j.
    """

    power: Array
    plain: Array
    weighted: Array
    twice: Array


def power_sums(x: Array, steps: int | IntArray) -> PowerSums:
    """Return the sums up to E (which broadcasts against x) by doubling, without subtraction.

    Notes
    -----
    Sums over 0..2n−1 split at n: S_{n+i} = S_n + y^n S_i, and the others by summing that. All terms
    are positive for x ≤ 1. Rounding of 1 − x costs a relative error of about min(E, 1/x)·1e-16.
    Cost: log₂ E vector operations.
    """
    y = 1.0 - np.asarray(x, dtype=np.float64)
    one_count = np.ndim(steps) == 0
    counts = np.asarray(steps, dtype=np.int64)
    shape = np.broadcast_shapes(y.shape, counts.shape)
    power, plain, weighted, twice = np.ones(shape), *np.zeros((3, *shape))
    with np.errstate(over="ignore", invalid="ignore"):
        for bit in reversed(range(int(counts.max()).bit_length())):
            n = (counts >> (bit + 1)).astype(np.float64)
            twice = twice + n * weighted + 0.5 * n * (n - 1.0) * plain + power * twice
            weighted = weighted + n * plain + power * weighted
            plain, power = plain + power * plain, power * power
            odd = (counts >> bit) % 2 == 1
            if one_count and not odd:
                continue
            grown = twice + weighted, weighted + plain, plain + power, power * y
            if not one_count:
                held = twice, weighted, plain, power
                grown = tuple(np.where(odd, a, b) for a, b in zip(grown, held, strict=True))
            twice, weighted, plain, power = grown
    return PowerSums(power, plain, weighted, twice)


def slope(x: float, steps: int, step_size: float) -> float:
    """Return |s'| at η·a = x, s(a) = S(ηa)/E: (η/E) Σ_{k=1}^{E−1} k (1 − x)^{k−1}.

    Notes
    -----
    On 0 < x ≤ 1 all terms are positive and |s'| falls with x, so its value at the smallest
    eigenvalue is the Lipschitz constant of s over all of them (C8). By doubling as in `power_sums`:
    D_n = Σ_{k≤n} k y^{k−1} has D_{2n} = D_n + y^n(n S_n + D_n). Cost: log₂ E operations.
    """
    y, n = 1.0 - x, 0
    power, plain, total = 1.0, 0.0, 0.0
    for bit in f"{steps - 1:b}":
        total += power * (n * plain + total)
        plain, power, n = plain + power * plain, power * power, 2 * n
        if bit == "1":
            total += (n + 1) * power
            plain, power, n = plain + power, power * y, n + 1
    return step_size / steps * total
