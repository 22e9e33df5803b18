"""The gradient flow and its tangent in the drift number, integrated (C18)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, pairwise

import numpy as np
import scipy.integrate

from linattn._typing import Array
from linattn.objectives.profile import KernelProfile
from linattn.theory.drift_field import DriftField
from linattn.types import Params, Problem

ACCURACY = 1e-6
"""Relative tolerance of the integrator; unstable stretches amplify it."""
NO_DRIFT = 1e-6
"""Drift that is not resolved, relative to the gradient."""
BEND = 0.01
"""Intervals are halved where P leaves its chord by more than this share of its range."""
HALVINGS = 5
MAX_EVALUATIONS = 200_000
"""Of the slopes of path and tangent: an explicit integrator needs about λ_max·τ of them."""
TRIAL = 2_000
"""Evaluations after which a horizon is refused that four times the pace would not reach."""
Solution = Callable[[Array | float], Array]
"""θ and u at any time up to the horizon, (2D, N)."""
STATIONARY = 1e-12
"""Gradient norm, relative to that of the parameters (at least 1), that is no motion."""


def check_moves(flow: DriftField, params: Params) -> None:
    """Refuse a start at which the flow stands still.

    Raises
    ------
    FloatingPointError
        If the gradient is not finite.
    ValueError
        If it is zero to rounding.
    """
    size = float(np.linalg.norm(flow.gradient(params.flat)))
    if not np.isfinite(size):
        raise FloatingPointError("the gradient is not finite at the start")
    if size <= STATIONARY * max(1.0, float(np.linalg.norm(params.flat))):
        raise ValueError(
            f"params must not be stationary, got a gradient of norm {size:.2g}: nothing moves; at "
            "a stationary point ask a response for settled(params)."
        )


def integrate(flow: DriftField, start: Array, end: float) -> Solution:
    """Return θ' = −g and u' = c − Hu from u = 0, by DOP853.

    Raises
    ------
    ValueError
        If the path is not finite up to the end, or takes too many evaluations.
    """
    size, evaluations, seen = start.size, count(1), 0.0

    def slope(time: float, state: Array) -> Array:
        nonlocal seen
        number = next(evaluations)
        if number % TRIAL == 0:
            left, pace = MAX_EVALUATIONS - number, max(time - seen, 0.0) / TRIAL
            if time + 4.0 * pace * left < end:
                raise ValueError(
                    f"horizon must be at most about {time + pace * left:.2g}, for which "
                    f"{MAX_EVALUATIONS:,} evaluations are enough, got {end:g}: at this size of "
                    "data and parameters the flow is stiff."
                )
            seen = time
        flat, tangent = state[:size], state[size:]
        gradient, drift = flow.gradient_and_drift(flat)
        return np.concatenate([-gradient, drift - flow.slope(flat, tangent)])

    gradient, drift = (float(np.linalg.norm(v)) for v in flow.gradient_and_drift(start))
    # A drift that is rounding is not followed.
    scales = np.array([np.linalg.norm(start), max(drift, NO_DRIFT * gradient)])
    tiny = ACCURACY * np.repeat(scales, size) / np.sqrt(size)
    found = scipy.integrate.solve_ivp(
        slope,
        (0.0, end),
        np.concatenate([start, np.zeros(size)]),
        method="DOP853",
        rtol=ACCURACY,
        atol=np.maximum(tiny, np.finfo(float).tiny),
        dense_output=True,
    )
    if not found.success or not np.isfinite(found.y[:, -1]).all():
        reached = float(found.t[-1])
        raise ValueError(f"horizon must be below {reached:.3g}, where the path ends, got {end:g}.")
    solution: Solution = found.sol
    return solution


def stored_times(
    problem: Problem, like: Params, solution: Solution, end: float
) -> tuple[Array, Array]:
    """0, every integer, the horizon, and more where P bends; and P at these times."""
    size, held = like.flat.size, KernelProfile(problem)

    def profile(time: float) -> float:
        return held.value(Params(like.layout, solution(time)[:size]))

    known = {float(t): profile(float(t)) for t in [*range(int(end) + 1), end]}
    allowed = BEND * (max(known.values()) - min(known.values()))
    times = sorted(known)
    for _ in range(HALVINGS):
        added = []
        for left, right in pairwise(times):
            middle = 0.5 * (left + right)
            if middle not in known:  # an interval that was straight is looked at once
                known[middle] = profile(middle)
            if abs(known[middle] - 0.5 * (known[left] + known[right])) > allowed:
                added.append(middle)
        if not added:
            break
        times = sorted([*times, *added])
    return np.array(times), np.array([known[time] for time in times])
