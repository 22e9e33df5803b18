"""The synchronized control: what a run would be without clients, round by round (C9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from linattn._checks import MOST_ENTRIES, positive_int
from linattn._settings import LocalSteps, check_local_steps, constant_step
from linattn._threads import one_blas_thread
from linattn._typing import Array, IntArray
from linattn.analysis.centralized import CentralizedDescent
from linattn.linalg import stack_heads
from linattn.objectives.joint import check_fits
from linattn.objectives.population import population
from linattn.oracles.pooled import central_work
from linattn.types import Params, Problem

INF = float("inf")


class CentralRound(NamedTuple):
    """What one round of local steps is without clients.

    Attributes
    ----------
    problem : Problem
        The same data with weights q_i = p_iE_i/Ē, Ē = Σ p_iE_i: its objective is F_q.
    steps : int
        ⌈Ē⌉ centralized gradient steps,
    step_size : float
        of size ηĒ/⌈Ē⌉.
    """

    problem: Problem
    steps: int
    step_size: float


def central_round(
    problem: Problem, local_steps: int | IntArray, step_size: float, *, stragglers: float = 0.0
) -> CentralRound:
    """Return the centralized round that unequal work amounts to; with equal work E steps on F.

    Parameters
    ----------
    problem : Problem
    local_steps : int or array of int, shape (C,)
    step_size : float
        η.
    stragglers : float
        E_i is the mean number of steps then.

    Notes
    -----
    Source: C21: to first order in η the clients' steps add up to one of size ηĒ along −∇F_q.
    """
    if isinstance(local_steps, int) and stragglers == 0.0:
        return CentralRound(problem, local_steps, step_size)
    work = central_work(problem.weights, local_steps, stragglers=stragglers)
    weighted = replace(problem, weights=work.weights)
    return CentralRound(weighted, work.steps, step_size * work.scale)


def synchronized_path(
    central: CentralRound,
    params: Params,
    lengths: Sequence[int],
    descent: CentralizedDescent | None = None,
) -> list[Params]:
    """Return the parameters after each number of centralized rounds, by `descent` if given.

    Raises
    ------
    ValueError
        If `descent` is of another problem, start or step.
    """
    if descent is None:
        descent = CentralizedDescent(central.problem, params, central.step_size)
    else:
        descent.check(central.problem, params, central.step_size)
    return descent.at([central.steps * t for t in lengths])


def check_lengths(warmup_lengths: Sequence[int], rounds: int) -> list[int]:
    """Return sorted, distinct warm-up lengths in 0..rounds."""
    lengths = sorted({positive_int("warmup_lengths", t, minimum=0) for t in warmup_lengths})
    if not lengths or lengths[-1] > rounds:
        raise ValueError(
            f"warmup_lengths must be numbers in 0..{rounds} (rounds), got {list(warmup_lengths)}."
        )
    return lengths


def finite_profile(problem: Problem, params: Params) -> float:
    """P, or +inf where the parameters have diverged."""
    return float(finite_profiles(problem, [params])[0])


def finite_profiles(problem: Problem, points: Sequence[Params]) -> Array:
    """P at points of one layout, (N,), +inf where the parameters have diverged."""
    out = np.full(len(points), INF)
    finite = [k for k, at in enumerate(points) if np.isfinite(at.flat).all()]
    if finite:
        found = population(problem).profiles([points[k] for k in finite])
        out[finite] = np.where(np.isfinite(found), found, INF)
    return out


def finite_losses(problem: Problem, points: Sequence[Params], values: Sequence[Array]) -> Array:
    """F at points with these value blocks instead of their own, (N,), +inf where there are none."""
    out = np.full(len(points), INF)
    held = [k for k, value in enumerate(values) if np.isfinite(value).all()]
    if held:
        flat = np.stack([points[k].replace(value=values[k]).flat for k in held])
        found = population(problem).values(points[0].layout, flat)
        out[held] = np.where(np.isfinite(found), found, INF)
    return out


def synchronized_control(
    problem: Problem,
    params: Params,
    *,
    warmup_lengths: Sequence[int],
    rounds: int,
    local_steps: LocalSteps,
    local_lr: float,
    descent: CentralizedDescent | None = None,
) -> Array:
    """Return the objective of the control without clients, for each warm-up length.

    E·T explicit centralized gradient steps on everything, then E·(R − T) on the value block, which
    are a power of a matrix; with unequal work `central_round` takes the place of E steps on F.

    Parameters
    ----------
    problem, params, warmup_lengths, rounds, local_steps, local_lr, descent
        As in `bias_drift`.

    Returns
    -------
    array, shape (number of distinct lengths,)
        Units of loss; +inf where descent diverged.

    Raises
    ------
    ValueError
        As `bias_drift`.

    Notes
    -----
    Source: Trade-off. Cost: E·R centralized steps once, and an eigendecomposition of (Hd)³ per
    length.
    """
    check_fits(problem, params)
    lengths = check_lengths(
        warmup_lengths, positive_int("rounds", rounds, minimum=0, maximum=MOST_ENTRIES)
    )
    step = constant_step("local_lr", local_lr, "the synchronized control")
    central = central_round(problem, check_local_steps(local_steps, problem.num_clients), step)
    out = np.full(len(lengths), INF)
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        path = synchronized_path(central, params, lengths, descent)
        held = np.flatnonzero(np.isfinite(finite_profiles(problem, path)))
        if held.size:
            reached = [path[k] for k in held]
            steps = [central.steps * (rounds - lengths[k]) for k in held]
            out[held] = finite_losses(problem, reached, _value_descents(central, reached, steps))
    return out


def _value_descents(
    central: CentralRound, points: Sequence[Params], steps: Sequence[int]
) -> list[Array]:
    """V after centralized gradient steps on the value block alone, (H, d, m), at each point.

    k steps of size η from V are V* + (I − ηA)^k (V − V*).
    """
    systems = population(central.problem).value_systems(np.stack([at.kernels() for at in points]))
    held = np.stack([stack_heads(at.value) for at in points])
    curvatures, ways = np.linalg.eigh(systems.hessians)
    factors = (1.0 - central.step_size * curvatures) ** np.array(steps)[:, None]
    lags = ways.transpose(0, 2, 1) @ (held - systems.minimizers)
    ended = systems.minimizers + ways @ (factors[..., None] * lags)
    return list(ended.reshape(-1, *points[0].value.shape))
