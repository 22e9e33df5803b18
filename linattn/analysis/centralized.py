"""The synchronized control: centralized gradient descent, without clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from linattn._typing import Array
from linattn.federated.oracle import LocalTask, StatisticsOracle
from linattn.objectives.forms import MomentForm, SequenceForm
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
    advance = _descent(population(problem), params, step_size)
    flat = params.flat.copy()
    out, done = [], 0
    with np.errstate(over="ignore", invalid="ignore"):
        for mark in marks:
            if np.isfinite(flat).all():
                flat = advance(flat, mark - done)
            done = mark
            out.append(Params(params.layout, flat))
    return out


def _descent(held: Population, like: Params, step_size: float) -> Callable[[Array, int], Array]:
    """Return the function (flat parameters, number of steps) -> flat parameters."""
    form = held.form
    if isinstance(form, MomentForm):
        return lambda flat, steps: _advance_on_moments(held, form, like, flat, steps, step_size)
    if isinstance(form, SequenceForm) and form.statistics.query is not None:
        return _one_query_descent(held, form, like, step_size)

    def advance(flat: Array, steps: int) -> Array:
        for _ in range(steps):
            flat = flat - step_size * held.value_and_gradient(Params(like.layout, flat))[1]
        return flat

    return advance


def _one_query_descent(
    held: Population, form: SequenceForm, like: Params, step_size: float
) -> Callable[[Array, int], Array]:
    """Descent in the compiled local solver, on one client that holds all sequences.

    A sequence of weight w with one query u and target y counts in a plain mean of S like the
    sequence (√(wS) u, √(wS) y): its loss is ½‖Vᵀ G Bᵀ u − y‖².
    """
    kept, count = form.statistics, len(form.weights)
    assert kept.query is not None
    assert kept.target is not None
    root = np.sqrt(form.weights * count)[:, None]
    scaled = kept._replace(query=root * kept.query, target=root * kept.target)
    offsets = np.array([0, count], dtype=np.int64)
    ridges = (held.value_ridge, held.kernel_ridge)
    oracle = StatisticsOracle(Problem(scaled, offsets, np.ones(1), *ridges, "mean"), like.layout)
    size = like.layout.size

    def advance(flat: Array, steps: int) -> Array:
        task = LocalTask(
            participants=np.zeros(1, dtype=np.int64),
            starts=flat[None],
            anchor=flat,
            mask=np.ones((1, size), dtype=bool),
            local_steps=steps,
            local_lr=step_size,
            prox=0.0,
            shift=np.zeros((0, size)),
            batches=None,
            record=False,
        )
        ends, _ = oracle.train(task)
        return np.asarray(ends[0])

    return advance


def _advance_on_moments(
    held: Population, form: MomentForm, like: Params, flat: Array, steps: int, step_size: float
) -> Array:
    from linattn._kernels.centralized import moment_descent
    from linattn._kernels.local import LocalShape

    moments, linear, low, high = form.folded
    pair = np.empty((form.dim, form.dim), dtype=np.int64)
    pair[low, high] = pair[high, low] = np.arange(len(low))
    rank = like["query"].shape[-1] if like.is_factored else 0
    flat = flat.copy()
    moment_descent(
        moments,
        linear,
        pair,
        LocalShape(like.num_heads, form.dim, form.outputs, rank),
        flat,
        held.value_ridge,
        held.kernel_ridge,
        step_size,
        steps,
    )
    return flat
