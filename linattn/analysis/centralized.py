"""The synchronized control: centralized gradient descent, without clients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linattn._typing import Array
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
    sequences.
    """
    held = population(problem)
    flat = params.flat.copy()
    out, done = [], 0
    with np.errstate(over="ignore", invalid="ignore"):
        for mark in marks:
            if np.isfinite(flat).all():
                flat = _advance(held, params, flat, mark - done, step_size)
            done = mark
            out.append(Params(params.layout, flat))
    return out


def _advance(held: Population, like: Params, flat: Array, steps: int, step_size: float) -> Array:
    if isinstance(held.form, MomentForm):
        return _advance_on_moments(held, held.form, like, flat, steps, step_size)
    for _ in range(steps):
        _, gradient = held.value_and_gradient(Params(like.layout, flat))
        flat = flat - step_size * gradient
    return flat


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
