"""The frozen stage in closed form: fixed point, rate, bias (C7, C8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linattn._settings import LocalSteps, check_local_steps, constant_step
from linattn.linalg import stack_heads
from linattn.objectives.joint import check_fits
from linattn.objectives.population import client_normal_equations
from linattn.objectives.steps import check_frozen_lr, frozen_step
from linattn.theory.local_work import LocalWork
from linattn.theory.stage import FrozenStage as FrozenStage
from linattn.theory.stage import prepare
from linattn.types import Params, Problem

MAX_NUMBERS = 2**21
"""Entries of Hessians that are held at once."""


def frozen_stage(
    problem: Problem,
    params: Params,
    *,
    local_steps: LocalSteps,
    local_lr: float,
    frozen_lr: float | str | None = None,
    normalized: bool = False,
) -> FrozenStage:
    """Return the exact description of FedAvg on the value block at the kernel of `params`.

    Full batches, full participation, plain gradient steps. Nothing is simulated. With unequal work
    E_i plain averaging converges to the minimizer of about Σ p_i E_i F_i, normalized averaging
    (FedNova: V⁺ = V + Ē Σ p_i (V_i − V)/E_i, Ē = Σ p_i E_i) to V* as η → 0.

    Parameters
    ----------
    problem : Problem
    params : Params
        Kernel B and the value block V_0 from which the stage starts.
    local_steps : int, or one int per client
        E, or the E_i of all clients.
    local_lr : float
        η of the warm-up.
    frozen_lr : None, float or "safe"
        Step size of this stage, as in `fed_frozen`.
    normalized : bool
        Whether moves are divided by numbers of local steps, as in `fed_nova`.

    Raises
    ------
    ValueError
        If an argument is out of range, or a step size is a schedule.

    Notes
    -----
    Source: C7, C8; unequal work, C21. Cost: 3 S H² d³ for the A_i, one eigendecomposition (Hd)³ per
    client and one for M̂; every number of rounds afterwards costs (Hd)² m.
    """
    return frozen_stages(
        problem,
        [params],
        local_steps=local_steps,
        local_lr=local_lr,
        frozen_lr=frozen_lr,
        normalized=normalized,
    )[0]


def frozen_stages(
    problem: Problem,
    points: Sequence[Params],
    *,
    local_steps: LocalSteps,
    local_lr: float,
    frozen_lr: float | str | None = None,
    normalized: bool = False,
) -> list[FrozenStage]:
    """Return `frozen_stage` at many points of one layout, to the same bits.

    Parameters
    ----------
    problem : Problem
    points : sequence of Params
    local_steps, local_lr, frozen_lr, normalized
        As in `frozen_stage`.

    Notes
    -----
    Source: C7, C8. Cost: the same arithmetic, but a fixed number of calls for every few
    million numbers instead of some thirty per point.
    """
    if not points:
        return []
    check_fits(problem, points[0])
    steps = check_local_steps(local_steps, problem.num_clients)
    local_lr = constant_step("local_lr", local_lr, "the frozen stage in closed form")
    check_frozen_lr(frozen_lr)
    averaging = work = None
    if not isinstance(steps, int):
        work, steps = LocalWork(steps), int(steps.max())
        averaging = work.normalized(problem.weights) if normalized else None
    out: list[FrozenStage] = []
    size = len(stack_heads(points[0].value))
    chunk = max(1, MAX_NUMBERS // (problem.num_clients * size**2))
    for first in range(0, len(points), chunk):
        here = points[first : first + chunk]
        kernels = np.stack([params.kernels() for params in here])
        hessians, linears = client_normal_equations(problem, kernels)
        hessians = hessians + problem.value_ridge * np.eye(size)
        stages = [
            FrozenStage(
                weights=problem.weights,
                hessians=hessian,
                linears=linear,
                start=params.value,
                local_steps=steps,
                local_lr=frozen_step(problem, params, local_lr, frozen_lr),
                averaging=averaging,
                work=work,
            )
            for params, hessian, linear in zip(here, hessians, linears, strict=True)
        ]
        prepare(stages, hessians, linears)
        out += stages
    return out
