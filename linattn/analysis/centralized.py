"""The synchronized control: centralized gradient descent, without clients."""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from linattn._typing import Array
from linattn.objectives.forms import MomentForm
from linattn.objectives.population import Population, population
from linattn.oracles.packing import pack_moments
from linattn.oracles.protocol import LocalTask
from linattn.oracles.statistics import StatisticsOracle
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
    Source: the synchronized control of C9 (theory section 5). Cost: as many gradients as the
    largest step count ever asked for, when marks are asked for in one call or in rising order; each
    on moments or one pass over all sequences (compiled, but for large token problems).
    """

    def __init__(self, problem: Problem, params: Params, step_size: float) -> None:
        self.problem = problem
        self.params = params
        self.step_size = step_size
        self._advance = _descent(problem, population(problem), params, step_size)
        self._known: dict[int, Array] = {0: params.flat}
        self._marks = [0]

    def at(self, marks: Iterable[int]) -> list[Params]:
        """Return the parameters after each number of steps, from where descent was read before.

        Parameters are not finite from the point where descent diverged.
        """
        wanted = list(marks)
        for mark in sorted(set(wanted) - self._known.keys()):
            nearest = self._marks[bisect(self._marks, mark) - 1]
            flat = self._known[nearest]
            with np.errstate(over="ignore", invalid="ignore"):
                if np.isfinite(flat).all():
                    flat = self._advance(flat, mark - nearest)
            self._known[mark] = flat
            insort(self._marks, mark)
        return [Params(self.params.layout, self._known[mark]) for mark in wanted]

    def check(self, problem: Problem, params: Params, step_size: float) -> None:
        """Refuse to stand for descent on another problem, from another start, at another step."""
        same_start = np.array_equal(params.flat, self.params.flat)
        if problem is not self.problem or not same_start or step_size != self.step_size:
            raise ValueError(
                "descent must be of this problem, start and local_lr, got one of "
                f"{self.problem!r} with step size {self.step_size:g}."
            )


def _descent(
    problem: Problem, held: Population, like: Params, step_size: float
) -> Callable[[Array, int], Array]:
    """Return the function (flat parameters, number of steps) -> flat parameters."""
    oracle = _pooled_oracle(problem, held, like)

    def advance(flat: Array, steps: int) -> Array:
        for _ in range(steps):
            flat = flat - step_size * held.value_and_gradient(Params(like.layout, flat))[1]
        return flat

    def advance_compiled(flat: Array, steps: int) -> Array:
        assert oracle is not None
        task = LocalTask.plain(
            np.zeros(1, dtype=np.int64), flat[None], local_steps=steps, local_lr=step_size
        )
        return np.asarray(oracle.train(task)[0][0])

    return advance if oracle is None else advance_compiled


def _pooled_oracle(problem: Problem, held: Population, like: Params) -> StatisticsOracle | None:
    """One client whose objective is F, for the compiled local solver; None where there is none."""
    form, kept, count = held.form, problem.statistics, problem.num_sequences
    offsets = np.array([0, count], dtype=np.int64)
    pooled = replace(problem, offsets=offsets, weights=np.ones(1))
    if isinstance(form, MomentForm):
        return StatisticsOracle(
            pooled, like.layout, data=pack_moments(pooled, [form], like.num_heads)
        )
    if kept.query is None or kept.target is None:
        return None
    # A sequence of weight w with one query u and target y counts in a plain mean of S like the
    # sequence (√(wS) u, √(wS) y): its loss is ½‖Vᵀ G Bᵀ u − y‖².
    root = np.sqrt(problem.sequence_weights * count)[:, None]
    scaled = kept._replace(query=root * kept.query, target=root * kept.target)
    return StatisticsOracle(replace(pooled, statistics=scaled), like.layout)
