"""Every method at its best step: a few factors of a unit step, more until the best is inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
FACTORS = (1.0, 3.0, 10.0, 30.0, 100.0)
MOST = 6
"""Factors that are added at most."""


class Tuned(NamedTuple, Generic[T]):
    """What was found at the best step.

    Attributes
    ----------
    found : object
        What `run_at` gave there.
    loss : float
        +inf where everything diverged.
    factor : float
        The best step in unit steps.
    interior : bool
        Whether smaller and larger ones were tried.
    """

    found: T
    loss: float
    factor: float
    interior: bool

    def said(self) -> dict[str, float]:
        """Factor, and whether it is interior, as entries of a row."""
        return {"factor": self.factor, "interior": float(self.interior)}


def best_step(run_at: Callable[[float], tuple[T, float]], factors: Sequence[float]) -> Tuned[T]:
    """Try factors of the unit step, and their neighbours on 1, 3, 10, … until the best is inside.

    Parameters
    ----------
    run_at : callable (factor) -> (anything, loss)
        The loss is +inf where the run diverges.
    factors : sequence of float
        At least one, tried in turn; of equal losses the smallest factor is the best.

    Examples
    --------
    >>> tuned = best_step(lambda factor: (None, (factor - 0.3) ** 2), (1.0, 3.0))
    >>> tuned.factor, tuned.interior
    (0.3, True)
    """
    tried = {factor: run_at(factor) for factor in factors}
    for _ in range(MOST + 1):
        best = min(sorted(tried), key=lambda factor: tried[factor][1])
        beyond = {max(tried): neighbour(best, 1), min(tried): neighbour(best, -1)}.get(best)
        if beyond is None or len(tried) == len(factors) + MOST:
            break
        tried[beyond] = run_at(beyond)
    found, loss = tried[best]
    return Tuned(found, loss, best, beyond is None)


def neighbour(factor: float, way: int) -> float:
    """Return the next number of … 0.3, 1, 3, 10, 30, … above (way = 1) or below (−1).

    Examples
    --------
    >>> neighbour(1.0, 1), neighbour(1.0, -1), neighbour(30.0, 1)
    (3.0, 0.3, 100.0)
    """
    place = round(2.0 * log10(factor)) + way
    return float(f"{(3.0 if place % 2 else 1.0) * 10.0 ** (place // 2):.1g}")


def near(factor: float) -> tuple[float, float, float]:
    """Return a factor between its neighbours: where to look for the best step of a relative."""
    return neighbour(factor, -1), factor, neighbour(factor, 1)
