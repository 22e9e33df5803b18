"""Centralized steps on the objective that local steps of clients descend on (C17)."""

from __future__ import annotations

import numpy as np

from linattn._checks import positive_int, real
from linattn._threads import one_blas_thread
from linattn.objectives.joint import check_fits
from linattn.theory.drift_field import DriftField
from linattn.types import Params, Problem


def modified_steps(
    problem: Problem, params: Params, *, count: int, step_size: float, drift_number: float
) -> Params:
    """Return the parameters after gradient steps on F̃_s = F − (s/2)Σ p_i‖∇F_i − ∇F‖².

    With s = η(E − 1)/2 and E steps of size η that is a round of FedAvg of all clients on full
    batches up to O(η³); s = 0 are steps on F itself, the same up to O(η²).

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    count : int
    step_size : float
        η > 0, units of 1/curvature.
    drift_number : float
        s, units of 1/curvature.

    Raises
    ------
    TypeError, ValueError
        If the parameters do not fit the problem, or an argument is out of range.

    Notes
    -----
    Source: C17. F̃_s is unbounded below: it is about small s, and no objective. Cost of a step: one
    gradient and one drift field (`DriftField`).

    Examples
    --------
    >>> import linattn as la
    >>> problem = la.synthetic_problem(num_clients=2, sequences_per_client=4, num_tokens=3, dim=2,
    ...     num_outputs=1, value_heterogeneity=1.0, value_ridge=0.1, kernel_ridge=0.1)
    >>> start, size = la.initial_params(problem, value="normal"), 1e-3
    >>> round = la.run(la.fed_avg(), problem, start, rounds=1, local_steps=3, local_lr=size)
    >>> plain, modified = (modified_steps(problem, start, count=3, step_size=size, drift_number=s)
    ...     for s in (0.0, size))
    >>> errors = [np.linalg.norm(p.flat - round.params.flat) for p in (plain, modified)]
    >>> bool(errors[1] < 0.01 * errors[0])
    True
    """
    check_fits(problem, params)
    steps = positive_int("count", count)
    size = real("step_size", step_size, above=0.0)
    drift = real("drift_number", drift_number)
    flow = DriftField(problem, params, problem.weights, np.ones(problem.num_clients))
    flat = params.flat
    with one_blas_thread():
        for _ in range(steps):
            pull = flow.gradient(flat)
            if drift:
                pull = pull - drift * flow.drift(flat)
            flat = flat - size * pull
    return Params(params.layout, flat)
