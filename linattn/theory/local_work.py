"""Functions of local gradient descent where clients differ in work or stop early."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._settings import mean_local_steps, steps_per_client
from linattn._typing import Array, IntArray
from linattn.theory.polynomials import contraction, power_sums


class LocalWork(NamedTuple):
    """How many local steps clients take: E or E_i, or a number uniform on 1..E_i if they straggle.

    Attributes
    ----------
    steps : int or array of int, shape (C,)
    stragglers : float
        Probability of straggling.
    """

    steps: int | IntArray
    stragglers: float = 0.0

    def __str__(self) -> str:
        steps = np.asarray(self.steps)
        number = f"{steps}" if steps.ndim == 0 else f"{steps.min()}..{steps.max()}"
        return number + (f" with {self.stragglers:g} stragglers" if self.stragglers else "")

    def mean(self, num_clients: int) -> Array:
        """E[E_i], (C,)."""
        return mean_local_steps(steps_per_client(self.steps, num_clients), self.stragglers)

    def normalized(self, weights: Array) -> Array:
        """p_i Ē/E_i, (C,): shares of normalized averaging."""
        counts = self.mean(len(weights))
        return np.asarray(weights * (weights @ counts) / counts)

    @property
    def _column(self) -> int | IntArray:
        """E, or E_i as (C, 1) beside eigenvalues (C, Hd)."""
        return self.steps if isinstance(self.steps, int) else self.steps[:, None]

    def contraction(self, x: Array) -> Array:
        """E[1 − (1 − x)^{E_i}] of x = η·(eigenvalues of A_i), (C, Hd)."""
        steps, share = self._column, self.stragglers
        with np.errstate(over="ignore", invalid="ignore"):
            full = contraction(x, steps)
            if share == 0.0:
                return full
            # Σ_{1 ≤ e ≤ E} (1 − y^e) = x Σ_{1 ≤ e ≤ E} S_e = x T_{E+1}
            return (1.0 - share) * full + share * x * power_sums(x, steps + 1).weighted / steps

    def weighted_sum(self, x: Array) -> Array:
        """E[T_{E_i}] of the same, T_E = Σ_{k<E} (E − 1 − k)(1 − x)^k."""
        steps, share = self._column, self.stragglers
        full = power_sums(x, steps).weighted
        if share == 0.0:
            return full
        return (1.0 - share) * full + share * power_sums(x, steps + 1).twice / steps
