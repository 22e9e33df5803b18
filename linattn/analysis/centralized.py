"""The synchronized control: centralized gradient descent, without clients."""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Iterable

import numpy as np

from linattn._typing import Array
from linattn.oracles.pooled import PooledDescent
from linattn.types import Params, Problem


class CentralizedDescent:
    """Centralized gradient descent on F from one start, remembered wherever it was read.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    step_size : float
        η, the same for all blocks.

    Notes
    -----
    Source: the synchronized control of C9 (Trade-off). Cost: as many gradients as the
    largest step count ever asked for, when marks are asked for in one call or in rising order; each
    on moments or one pass over all sequences, compiled.
    """

    def __init__(self, problem: Problem, params: Params, step_size: float) -> None:
        self.problem = problem
        self.params = params
        self.step_size = step_size
        self._descent = PooledDescent(problem, params)
        self._known: dict[int, Array] = {0: params.flat}
        self._marks = [0]

    def at(self, marks: Iterable[int]) -> list[Params]:
        """Return the parameters after each number of steps, from where descent was read before.

        Parameters are not finite from the point where descent diverged.
        """
        wanted = list(marks)
        missing = sorted(set(wanted) - self._known.keys())
        while missing:
            nearest = self._marks[bisect(self._marks, missing[0]) - 1]
            count, step = _evenly(nearest, missing, self._marks)
            self._go(nearest, step, count)
            missing = missing[count:]
        return [Params(self.params.layout, self._known[mark]) for mark in wanted]

    def _go(self, start: int, step: int, count: int) -> None:
        """Read `count` points at distances of `step` from one that is known."""
        flat = self._known[start]
        path = np.tile(flat, (count, 1))
        if np.isfinite(flat).all():
            with np.errstate(over="ignore", invalid="ignore"):
                path = self._descent.follow(flat, step, self.step_size, np.zeros_like(path))
        for k, reached in enumerate(path, start=1):
            self._known[start + k * step] = reached
            insort(self._marks, start + k * step)

    def check(self, problem: Problem, params: Params, step_size: float) -> None:
        """Refuse to stand for descent on another problem, from another start, at another step."""
        same_start = np.array_equal(params.flat, self.params.flat)
        if problem is not self.problem or not same_start or step_size != self.step_size:
            raise ValueError(
                "descent must be of this problem, start and local_lr, got one of "
                f"{self.problem!r} with step size {self.step_size:g}."
            )


def _evenly(start: int, marks: list[int], known: list[int]) -> tuple[int, int]:
    """How many of the next marks are evenly spaced from `start` on, and how far apart.

    A point that is known in between is a nearer start.
    """
    step = marks[0] - start
    at = bisect(known, start)
    limit = known[at] if at < len(known) else marks[-1] + 1
    count = 1
    while count < len(marks) and marks[count] == start + (count + 1) * step < limit:
        count += 1
    return count, step
