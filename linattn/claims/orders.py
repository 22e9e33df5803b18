"""Orders of errors: what is fitted, and where a fit says something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.claims.judge import NOTHING
from linattn.claims.record import ORDER_SLACK, Constant, Instance, Measurement, Requirement

AGREEMENT = 0.5 * ORDER_SLACK
"""Orders from size to size may differ by this: halving what is left of higher orders as sizes are
halved, the fit is off by three quarters of the slack."""

NOISE = 2e-15
"""Rounding of a long computation, relative to the size of what it computes."""
LEAST_STEP = 1e-100
"""Of steps: below it the data are so large that impulses per step are no floats."""
CLEAR = 30.0
"""An error this many times its rounding has the digits that a slope needs."""


class Errors(NamedTuple):
    """Errors at decreasing sizes: of a step, an interval, a drift number.

    Attributes
    ----------
    sizes, errors : array, shape (N,)
        From the largest size to the smallest.
    scale : float
        Size of what the errors are errors of, in the same norm.
    """

    sizes: Array
    errors: Array
    scale: float

    @classmethod
    def of(cls, sizes: Sequence[float], errors: Sequence[float], scale: float) -> Errors:
        """From lists."""
        return cls(np.array(sizes, float), np.array(errors, float), float(scale))

    @property
    def nothing(self) -> bool:
        """Whether the last error is rounding, or too near to it."""
        return bool(self.errors[-1] <= CLEAR * NOISE * self.scale)

    @property
    def steps(self) -> Array:
        """Orders from one size to the next, (N − 1,)."""
        return np.asarray(np.diff(np.log(self.errors)) / np.diff(np.log(self.sizes)))

    @property
    def order(self) -> float:
        """Fitted by least squares: errors ∝ size^order."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.errors), 1)[0])

    @property
    def spread(self) -> float:
        """How much the orders from one size to the next differ; NaN if an error is no number."""
        return float(np.ptp(self.steps)) if np.isfinite(self.errors).all() else float("nan")

    def against(self, order: float, *constants: Constant) -> Measurement:
        """The fitted order beside that of the theory."""
        if self.nothing:
            return NOTHING._replace(measured=0.0, bound=order, scale=0.0)
        smallest = Constant("smallest error", float(self.errors[-1]), "in its norm")
        return Measurement(self.order, order, order, constants=(*constants, smallest))


def slack_of(errors: Errors) -> float:
    """By how much the orders from size to size agree; errors that are rounding have none."""
    return 0.0 if errors.nothing else AGREEMENT - errors.spread


def settled(name: str, errors: Callable[[Instance], Errors]) -> Requirement:
    """The condition that orders are those of small sizes: from size to size they agree."""
    return Requirement(name, lambda at: slack_of(errors(at)))
