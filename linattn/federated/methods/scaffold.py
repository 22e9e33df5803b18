"""SCAFFOLD: control variates, for whole runs and for the frozen stage of FedFrozen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._checks import shown
from linattn._settings import StepSize, step_schedule
from linattn._typing import Array
from linattn.federated.method import (
    Cost,
    Direction,
    Method,
    Proposal,
    RoundContext,
    average,
    step_toward,
)
from linattn.federated.nature import Nature

OPTIONS = (1, 2)


class Variate(NamedTuple):
    """Client memory: the control variate c_i, (D,), and how the last round changed it."""

    value: Array
    change: Array


def scaffold(*, server_lr: StepSize = 1.0, option: int = 2) -> Method:
    """Return SCAFFOLD: local steps along g_i − c_i + c, with c = Σ p_i c_i at all times.

        option 1: c_i⁺ = ∇F_i(w^t), one more full gradient,
        option 2: c_i⁺ = c_i − c + (w^t − w_{i,E})/(E η),
        w ← w + η_g (Σ_S w_i w_{i,E} − w),   c ← c + Σ_S p_i (c_i⁺ − c_i)

    All variates start at zero, so the first round is FedAvg. With equal weights these are the
    paper's means; unequal weights p enter c as they enter the objective, so that its minimizer
    with c_i = ∇F_i(w*) stays a fixed point.

    Parameters
    ----------
    server_lr : float, array or callable (round) -> float
        η_g > 0.
    option : {1, 2}

    Raises
    ------
    ValueError
        If server_lr is not positive or option is neither 1 nor 2.

    Notes
    -----
    Source: SCAFFOLD (arXiv 1910.06378). Local steps are plain gradient steps, so option 2 is
    unbiased (a momentum inside the local steps would scale it). Cost: c down and the change of c_i
    up, as many floats again as FedAvg. Keeps the compiled local steps.
    """
    step = step_schedule("server_lr", server_lr)
    if isinstance(option, bool) or not isinstance(option, int) or option not in OPTIONS:
        raise ValueError(f"option must be 1 or 2, got {shown(option)}.")

    def no_variate(context: RoundContext, client: int) -> Variate:
        zeros = np.zeros(context.params.layout.size)
        return Variate(zeros, zeros)

    def new_variate(
        context: RoundContext, client: int, control: Array, own: Variate, end: Array
    ) -> Variate:
        """c_i⁺ on the trained blocks; others keep their variate."""
        assert context.plan is not None
        flat = context.params.flat
        if option == 1:
            proposed = context.oracle.gradient(client, flat)
        else:
            gradient = (flat - end) / (context.steps_of(client) * context.step_size)
            proposed = own.value - control + gradient
        value = np.where(context.params.layout.mask(context.plan.trained), proposed, own.value)
        return Variate(value, value - own.value)

    def aggregate(context: RoundContext, control: Array, proposal: Proposal) -> tuple[Array, Array]:
        flat = step_toward(context, average(context, proposal), step)
        changes = np.stack([own.change for own in proposal.memories])
        # With the weights of the objective, so that c = Σ p_i c_i stays.
        return flat, control + context.problem.weights[context.participants] @ changes

    def cost(context: RoundContext, client: int, control: Array, own: Variate) -> Cost:
        """c down, the change of c_i up; for option 1 a full gradient."""
        assert context.plan is not None
        trained = context.plan.trained
        size = int(context.params.layout.mask(trained).sum())
        if option == 2:
            return Cost(size, size)
        work = context.oracle.gradient_work(trained)
        return Cost(size, size, work.total(*context.oracle.amount(client), 1))

    return Method(
        "scaffold",
        declared=Nature(corrected=True, memory=True, server_step=step != 1.0),
        server_memory=lambda context: np.zeros(context.params.layout.size),
        client_memory=no_variate,
        direction=lambda context, client, control, own: Direction(shift=control - own.value),
        update_client=new_variate,
        aggregate=aggregate,
        extra_cost=cost,
    )
