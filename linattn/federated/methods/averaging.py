"""FedAvg, with or without server momentum, and FedProx."""

from __future__ import annotations

import numpy as np

from linattn._checks import real
from linattn._typing import Array
from linattn.federated.method import Direction, Method, Proposal, RoundContext, average


def fed_avg(*, server_momentum: float = 0.0) -> Method:
    """Return FedAvg: every participant trains everything, the server averages.

        m ← β m + (Σ_S w_i w_{i,E} − w),   w ← w + m

    Parameters
    ----------
    server_momentum : float
        β in [0, 1); 0 is FedAvg (w becomes the weighted mean), the default.

    Raises
    ------
    ValueError
        If server_momentum is not in [0, 1).

    Notes
    -----
    Source: FedAvg (arXiv 1602.05629); server momentum as in FedAvgM (arXiv 1909.06335).
    """
    beta = check_momentum(server_momentum)
    if beta == 0.0:
        return Method("fed_avg")

    def aggregate(
        context: RoundContext, momentum: Array, proposal: Proposal
    ) -> tuple[Array, Array]:
        flat = context.params.flat
        moved = beta * momentum + (average(context, proposal) - flat)
        return flat + moved, moved

    return Method(
        f"fed_avg(server_momentum={beta:g})",
        server_memory=lambda context: np.zeros(context.params.layout.size),
        aggregate=aggregate,
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
    whatever the number of local steps. Keeps the compiled local steps.
    """
    weight = real("prox", prox, minimum=0.0)
    return Method(f"fed_prox({weight:g})", direction=lambda *_: Direction(weight))


def check_momentum(server_momentum: float) -> float:
    """Return β once it is known to be in [0, 1)."""
    beta = real("server_momentum", server_momentum, minimum=0.0)
    if beta >= 1.0:
        raise ValueError(f"server_momentum must be < 1, got {server_momentum!r}.")
    return beta
