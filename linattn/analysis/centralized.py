"""The synchronized control: centralized gradient descent, without clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from linattn._typing import Array
from linattn.federated.local_data import pack_moments
from linattn.federated.oracle import LocalTask, StatisticsOracle
from linattn.objectives.forms import MomentForm
from linattn.objectives.population import Population, population
from linattn.types import Params, Problem


def centralized_path(
    problem: Problem, params: Params, *, marks: Sequence[int], step_size: float
) -> list[Params]:
    """Return the parameters after each number of gradient steps on F in `marks`.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    marks : sequence of int
        Non-decreasing step counts.
    step_size : float
        η, the same for all blocks.

    Returns
    -------
    list of Params
        One per mark; not finite from the point where descent diverged.

    Notes
    -----
    Cost: marks[-1] gradients, each f² m multiply-adds on moments (compiled) or one pass over all
    sequences (compiled for the mean and last readout).
    """
    advance = _descent(problem, population(problem), params, step_size)
    flat = params.flat.copy()
    out, done = [], 0
    with np.errstate(over="ignore", invalid="ignore"):
        for mark in marks:
            if np.isfinite(flat).all():
                flat = advance(flat, mark - done)
            done = mark
            out.append(Params(params.layout, flat))
    return out


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
        task = LocalTask(
            participants=np.zeros(1, dtype=np.int64),
            starts=flat[None],
            anchor=flat,
            mask=np.ones((1, flat.size), dtype=bool),
            local_steps=steps,
            local_lr=step_size,
            prox=0.0,
            shift=np.zeros((0, flat.size)),
            batches=None,
            record=False,
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
