"""How large a step sampled averaging of the value block bears: in the mean, and in its square."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import NamedTuple

from linattn._settings import LocalSteps
from linattn.theory.moments import frozen_moments
from linattn.types import Params, Problem

PRECISION = 1e-4
SMALLEST = 1e-300
"""Step down to which a stable one is looked for, and the inverse of the largest."""


class CriticalSteps(NamedTuple):
    """Step sizes from which on rounds at a frozen kernel diverge, 1/curvature.

    Attributes
    ----------
    mean : float
        E[V] does not settle: ρ(M̂) ≥ 1.
    second_moment : float
        E‖V‖² does not settle: at most the step of the mean.
    """

    mean: float
    second_moment: float


def critical_steps(
    problem: Problem,
    params: Params,
    *,
    local_steps: LocalSteps,
    participation: float = 1.0,
    batch_size: int | None = None,
    sampling: str = "uniform",
) -> CriticalSteps:
    """Return the smallest unstable steps of sampled averaging of the value block, to 1e-4 relative.

    Found by doubling and halving from 1/max λ_max(A_i), then by bisection, so an island of
    instability narrower than a factor of two below the result would be missed.

    Parameters
    ----------
    problem : Problem
    params : Params
        Kernel B.
    local_steps, participation, batch_size, sampling
        As in `run`.

    Raises
    ------
    ValueError
        As `frozen_moments`, or if no step is stable: λ is below the rounding of max λ_max(A_i).

    Notes
    -----
    Source: C7, C20. Cost: about 20 times `frozen_moments`.
    """
    moments = partial(
        frozen_moments,
        problem,
        params,
        local_steps=local_steps,
        participation=participation,
        batch_size=batch_size,
        sampling=sampling,
    )
    stage = moments(local_lr=1.0).stage
    first = 1.0 / float(stage.largest_step_curvature)
    return CriticalSteps(
        boundary(lambda step: stage.at_step(step).stable, first)[1],
        boundary(lambda step: moments(local_lr=step).stable, first)[1],
    )


def boundary(stable: Callable[[float], bool], first: float) -> tuple[float, float]:
    """Return the largest stable and the smallest unstable step found, to 1e-4 relative.

    Parameters
    ----------
    stable : callable (step) -> bool
    first : float
        Where doubling begins.

    Raises
    ------
    ValueError
        If no step is stable, or all are.

    Notes
    -----
    Source: C7, C20. Cost: some 20 calls.

    Examples
    --------
    >>> low, high = boundary(lambda step: step < 3.0, 1.0)
    >>> low < 3.0 <= high < 3.001
    True
    """
    high = _within_range(2.0 * first)
    while stable(high):
        high = _within_range(2.0 * high)
    low = 0.5 * high
    while not stable(low):
        low, high = _within_range(0.5 * low), low
    while high > (1.0 + PRECISION) * low:
        middle = sqrt(low * high)
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low, high


def _within_range(step: float) -> float:
    """A step, unless the search for another answer has left the range of numbers."""
    if not SMALLEST < step < 1.0 / SMALLEST:
        raise ValueError(
            "stable must hold at some steps and fail at others, got one answer down or up to "
            f"{step:.1g}."
        )
    return step
