"""FedAvg, with or without a server step and momentum, FedProx, and FedNova."""

from __future__ import annotations

import numpy as np

from linattn._checks import real
from linattn._settings import StepSize, step_at, step_schedule
from linattn._typing import Array
from linattn.federated.method import Direction, Method, Proposal, RoundContext, average, step_toward
from linattn.federated.nature import Nature


def fed_avg(*, server_momentum: float = 0.0, server_lr: StepSize = 1.0) -> Method:
    """Return FedAvg: every participant trains everything, the server averages.

        m ← β m + (Σ_S w_i w_{i,E} − w),   w ← w + η_g m

    Parameters
    ----------
    server_momentum : float
        β in [0, 1); 0 is FedAvg, the default.
    server_lr : float, array or callable (round) -> float
        η_g > 0; 1 and no momentum make w the weighted mean, the default.

    Raises
    ------
    ValueError
        If server_momentum is not in [0, 1) or server_lr is not positive.

    Notes
    -----
    Source: FedAvg (arXiv 1602.05629); server momentum as in FedAvgM (arXiv 1909.06335). Cost: all
    parameters down and up per participant and round, E client gradients.
    """
    beta = check_momentum(server_momentum)
    step = step_schedule("server_lr", server_lr)
    if beta == 0.0 and step == 1.0:
        return Method("fed_avg")

    def aggregate(
        context: RoundContext, momentum: Array, proposal: Proposal
    ) -> tuple[Array, Array]:
        flat, mean = context.params.flat, average(context, proposal)
        if beta == 0.0:
            return step_toward(context, mean, step), momentum
        moved = beta * momentum + (mean - flat)
        return flat + step_at(step, context.round) * moved, moved

    return Method(
        f"fed_avg(server_momentum={beta:g}{'' if step == 1.0 else ', server_lr'})",
        server_memory=lambda context: np.zeros(context.params.layout.size),
        aggregate=aggregate,
        declared=Nature(memory=beta > 0.0, server_step=True),
    )


def fed_prox(*, prox: float) -> Method:
    """Return FedProx: local steps on F_i(w) + (ν/2)‖w − w^t‖².

    Parameters
    ----------
    prox : float
        ν ≥ 0, units of curvature; 0 is FedAvg.

    Raises
    ------
    ValueError
        If prox is negative.

    Notes
    -----
    Source: FedProx (arXiv 1812.06127). The anchor w^t are the parameters that the round sent down,
    whatever the number of local steps. Cost: that of FedAvg; keeps the compiled local steps.
    """
    weight = real("prox", prox, minimum=0.0)
    return Method(
        f"fed_prox({weight:g})",
        direction=lambda *_: Direction(weight),
        declared=Nature(proximal=weight > 0.0),
    )


def fed_nova(*, server_lr: StepSize = 1.0) -> Method:
    """Return FedNova: moves of clients are divided by their numbers of local steps.

        w ← w + η_g · Ē Σ_S w_i (w_{i,E_i} − w)/E_i,   Ē = Σ_S w_i E_i

    With equal work this is FedAvg to the bit. With unequal work plain averaging aims at the
    minimizer of Σ p_i E_i F_i however small η is; here the bias is of the order of η.

    Parameters
    ----------
    server_lr : float, array or callable (round) -> float
        η_g > 0.

    Raises
    ------
    ValueError
        If server_lr is not positive.

    Notes
    -----
    Source: FedNova (arXiv 2007.07481) for plain local gradient steps; C21. E_i are those of the
    round: a straggler counts with the steps that it took. Cost: that of FedAvg.
    """
    step = step_schedule("server_lr", server_lr)

    def aggregate(context: RoundContext, memory: None, proposal: Proposal) -> tuple[Array, None]:
        return step_toward(context, average(context, normalized(context, proposal)), step), memory

    nature = Nature(normalized=True, server_step=step != 1.0)
    return Method("fed_nova", aggregate=aggregate, declared=nature)


def normalized(context: RoundContext, proposal: Proposal) -> Proposal:
    """The proposal with every client's move scaled by Ē/E_i; itself where all work is equal."""
    steps, flat = context.local_steps, context.params.flat
    if (steps == steps[0]).all():
        return proposal
    scale = (context.weights @ steps) / steps
    ends = flat + scale[:, None] * (proposal.ends - flat)
    return proposal._replace(ends=ends, mean=context.weights @ ends)


def check_momentum(value: float, name: str = "server_momentum") -> float:
    """Return β once it is known to be in [0, 1)."""
    beta = real(name, value, minimum=0.0)
    if beta >= 1.0:
        raise ValueError(f"{name} must be < 1, got {value!r}.")
    return beta
