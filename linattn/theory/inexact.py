"""Inexact gradient descent on smooth functions with the PL inequality (C14, and beside it)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.optimize

from linattn._checks import real
from linattn._typing import Array
from linattn.linalg import affine_chain
from linattn.theory.polynomials import contraction


def measured_moduli(excess: Array, slopes_sq: Array, step_size: float) -> Array:
    """Return m_k = ‖∇P‖²/(2(P − P_ref)), clipped to [0, 1/η], 0 where P ≤ P_ref.

    Parameters
    ----------
    excess : array, shape (N,)
        P − P_ref at every step.
    slopes_sq : array, shape (N,)
        ‖∇P‖².
    step_size : float
        η.

    Notes
    -----
    Source: C14. Cost: N.

    Examples
    --------
    >>> import numpy as np
    >>> measured_moduli(np.array([2.0, -1.0, 1e-9]), np.array([4.0, 1.0, 1.0]), 0.1)
    array([ 1.,  0., 10.])
    """
    positive = excess > 0.0
    ratio = np.divide(slopes_sq, 2.0 * excess, out=np.zeros_like(slopes_sq), where=positive)
    return np.clip(ratio, 0.0, 1.0 / step_size)


def descent_chain(start: float, step_size: float, moduli: Array, errors_sq: Array) -> Array:
    """Return bounds of f_1 − f* … f_N − f*: b ← (1 − ηm_k)b + (η/2)‖e_k‖².

    Needs η ≤ 1/L, and f − f* ≤ ‖∇f‖²/(2m_k) at step k: measured moduli (C14) or a PL constant.
    The time-varying sum, much tighter than the supremum of the errors.

    Parameters
    ----------
    start : float
        f_0 − f*.
    step_size : float
        η.
    moduli : array, shape (N,)
        m_k in [0, 1/η].
    errors_sq : array, shape (N,)
        ‖e_k‖².

    Notes
    -----
    Source: C14; Inexact gradient descent (absolute error). Cost: N.

    Examples
    --------
    >>> import numpy as np
    >>> descent_chain(8.0, 0.5, np.array([1.0, 1.0]), np.array([4.0, 0.0]))
    array([5. , 2.5])
    """
    return affine_chain(start, 1.0 - step_size * moduli, 0.5 * step_size * errors_sq)[1:]


def effective_step(step_size: float, smoothness: float, relative_error: float) -> float:
    """Return the exact step η_e with the worst descent lemma of steps with ‖e‖ ≤ ε‖∇f‖.

    η(1 − ε) for ηL ≤ 1, η(1 + ε) for ηL ≥ 1: the descent lemma bounds f⁺ by
    f + (L/2)‖(η − 1/L)∇f + ηe‖² − ‖∇f‖²/(2L), largest for e along ±∇f.

    Notes
    -----
    Source: Inexact gradient descent (relative error). Cost: none.
    """
    sign = -1.0 if step_size * smoothness <= 1.0 else 1.0
    return step_size * (1.0 + sign * relative_error)


def relative_decrease(step_size: float, smoothness: float, relative_error: float) -> float:
    """Return c of f(x⁺) ≤ f(x) − c‖∇f‖²: η_e(1 − Lη_e/2), for every L-smooth f.

    Positive for η < 2/(L(1 + ε)) and ε < 1.

    Notes
    -----
    Source: Inexact gradient descent (relative error). Cost: none.
    """
    step = effective_step(step_size, smoothness, relative_error)
    return step * (1.0 - 0.5 * smoothness * step)


def relative_rate(
    step_size: float, smoothness: float, modulus: float, *, relative_error: float
) -> float:
    """Return the factor 1 − μη_e(2 − Lη_e) of f − f* in one step with ‖e‖ ≤ ε‖∇f‖.

    Parameters
    ----------
    step_size : float
        η < 2/(L(1 + ε)).
    smoothness, modulus : float
        L and the PL constant μ ≤ L.
    relative_error : float
        ε in [0, 1].

    Raises
    ------
    ValueError
        Where the step may ascend, so that μ would stand where L is needed.

    Notes
    -----
    Source: Inexact gradient descent (relative error). Cost: none.
    """
    decrease = relative_decrease(step_size, smoothness, relative_error)
    if decrease < 0.0:
        raise ValueError(
            f"step_size must be < 2/(L(1 + ε)) and relative_error <= 1, got ηL = "
            f"{step_size * smoothness:g} and ε = {relative_error:g}."
        )
    return 1.0 - 2.0 * modulus * decrease


class CompositeBound(NamedTuple):
    """f_T − f* ≤ rate^T (f_0 − f*) + floor·(1 − rate^T) at a split s of the error."""

    value: float
    rate: float
    floor: float
    split: float


def composite_bound(
    start: float,
    steps: int,
    *,
    step_size: float,
    modulus: float,
    relative: float,
    absolute: float,
) -> CompositeBound | None:
    """Return the bound for ‖e‖ ≤ ε‖∇f‖ + δ at the best split s of its square.

    ‖e‖² ≤ (1 + s)ε²‖∇f‖² + (1 + 1/s)δ² gives the rate 1 − ημ(1 − (1 + s)ε²) and the floor
    (1 + 1/s)δ²/(2μ(1 − (1 + s)ε²)); every s with (1 + s)ε² < 1 is valid, the best is found
    numerically.

    Parameters
    ----------
    start : float
        f_0 − f*.
    steps : int
        T.
    step_size : float
        η ≤ 1/L.
    modulus : float
        PL constant μ.
    relative, absolute : float
        ε and δ.

    Returns
    -------
    CompositeBound or None
        None where ε ≥ 1.

    Notes
    -----
    Source: Inexact gradient descent (composite error). Cost: about 100 evaluations
    of a scalar function.
    """
    if relative >= 1.0:
        return None

    def at(log_split: float) -> CompositeBound:
        split = float(np.exp(log_split))
        kept = 1.0 - (1.0 + split) * relative**2
        if kept <= 0.0:  # ε is one to rounding: nothing is left of the descent
            return CompositeBound(float("inf"), 1.0, float("inf"), split)
        rate, floor = 1.0 - step_size * modulus * kept, 0.0
        if absolute > 0.0:
            floor = (1.0 + 1.0 / split) * absolute**2 / (2.0 * modulus * kept)
        # 1 − rate^T without cancellation: the floor is huge where the rate is close to one.
        fallen = float(contraction(np.array(step_size * modulus * kept), steps))
        return CompositeBound(rate**steps * start + floor * fallen, rate, floor, split)

    if absolute == 0.0:
        return at(-60.0)
    # Beyond the largest split, (1 + s)ε² = 1, no descent is left; without relative error there is
    # none.
    top = np.log(max(1.0 / relative**2 - 1.0, 1e-15)) - 1e-9 if relative > 1e-12 else 60.0
    grid = np.linspace(top - 60.0, top, 61)
    best = int(np.argmin([at(x).value for x in grid]))
    around = (float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 60)]))
    found = scipy.optimize.minimize_scalar(lambda x: at(x).value, bounds=around, method="bounded")
    return min(at(float(found.x)), at(float(grid[best])), key=lambda bound: bound.value)


def pl_rate(step_size: float, smoothness: float, modulus: float) -> float:
    """Return the factor of f − f* in one exact gradient step on L-smooth functions with PL.

    Three regimes with joints at 1/L and √3/L, for lower curvature −L:

        γ ≤ 1/L:   [(μ(1 − Lγ) + √(4L² − 2L(L + μ)(2 − Lγ)μγ)) / (2L + μ)]²
        γ ≤ √3/L:  1 + (Lγ − 2)(−Lγ − 2)μγ / (−μγ − 2)
        γ ≤ 2/L:   (Lγ − 1)² / ((Lγ − 1)² + μγ(2 − Lγ))

    Parameters
    ----------
    step_size : float
        γ in [0, 2/L].
    smoothness, modulus : float
        L, and the PL constant μ in (0, L].

    Raises
    ------
    ValueError
        If the step is outside [0, 2/L] or μ > L.

    Notes
    -----
    Source: Abbaszadehpeivasti, de Klerk and Zamani 2023 (theorem 3, with the parenthesis
    corrected). 1 at 0 and at 2/L, continuous at the joints. The worst case of what
    smoothness and PL say about the two points of the step (a semidefinite program gives the same
    numbers); what they say elsewhere makes the true worst case smaller. Cost: none.
    """
    step = real("step_size", step_size, minimum=0.0, maximum=2.0 / smoothness)
    mu = real("modulus", modulus, above=0.0, maximum=smoothness)
    x, lower = smoothness * step, -smoothness
    if x <= 1.0:
        span = smoothness - lower
        root = np.sqrt(span * (lower - mu) * (2.0 - x) * mu * step + span**2)
        return float(((mu * (1.0 - x) + root) / (span + mu)) ** 2)
    if x <= np.sqrt(3.0):
        bend = (smoothness + lower - mu) * step - 2.0
        return float(1.0 + (x - 2.0) * (lower * step - 2.0) * mu * step / bend)
    return float((x - 1.0) ** 2 / ((x - 1.0) ** 2 + mu * step * (2.0 - x)))
