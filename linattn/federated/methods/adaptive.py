"""Adaptive server optimizers: FedAdam and FedYogi."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from linattn._checks import real
from linattn._settings import StepSize, step_at, step_schedule
from linattn._typing import Array
from linattn.federated.method import Method, Proposal, RoundContext, average
from linattn.federated.methods.averaging import check_momentum
from linattn.federated.nature import Nature


class Moments(NamedTuple):
    """Server memory: m and v of every entry, (D,)."""

    first: Array
    second: Array


SecondMoment = Callable[[Array, Array, float], Array]


def fed_adam(
    *, server_lr: StepSize = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3
) -> Method:
    """Return FedAdam: the server takes an Adam step along the mean move of the clients.

        Δ = Σ_S w_i w_{i,E} − w,   m ← β₁m + (1 − β₁)Δ,   v ← β₂v + (1 − β₂)Δ²,
        w ← w + η_g m/(√v + τ),   from m = 0, v = τ², without bias correction

    Parameters
    ----------
    server_lr : float, array or callable (round) -> float
        η_g > 0, units of parameters: what an entry moves per round at most, roughly. Tune it; the
        default is a place to start.
    beta1, beta2 : float
        In [0, 1).
    tau : float
        τ > 0, units of parameters: moves far below it are scaled alike, those above by their size.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Source: Adaptive federated optimization (arXiv 2003.00295), algorithm 2, with the weights w_i of
    averaging in place of 1/|S|. Cost on the server: D numbers twice.
    """
    return _adaptive("fed_adam", _adam, server_lr, (beta1, beta2), tau)


def fed_yogi(
    *, server_lr: StepSize = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3
) -> Method:
    """Return FedYogi: as `fed_adam`, but v moves by at most (1 − β₂)Δ² in a round.

        v ← v − (1 − β₂) Δ² sign(v − Δ²)

    Parameters
    ----------
    server_lr, beta1, beta2, tau
        As in `fed_adam`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Source: Adaptive federated optimization (arXiv 2003.00295), algorithm 2. Cost on the server: D
    numbers twice.
    """
    return _adaptive("fed_yogi", _yogi, server_lr, (beta1, beta2), tau)


def _adam(second: Array, square: Array, beta: float) -> Array:
    return beta * second + (1.0 - beta) * square


def _yogi(second: Array, square: Array, beta: float) -> Array:
    return second - (1.0 - beta) * square * np.sign(second - square)


def _adaptive(
    name: str,
    second_moment: SecondMoment,
    server_lr: StepSize,
    betas: tuple[float, float],
    tau: float,
) -> Method:
    step, tau = step_schedule("server_lr", server_lr), real("tau", tau, above=0.0)
    beta1, beta2 = (check_momentum(b, f"beta{k}") for k, b in enumerate(betas, 1))

    def begin(context: RoundContext) -> Moments:
        size = context.params.layout.size
        return Moments(np.zeros(size), np.full(size, tau**2))

    def aggregate(
        context: RoundContext, memory: Moments, proposal: Proposal
    ) -> tuple[Array, Moments]:
        flat = context.params.flat
        move = average(context, proposal) - flat
        first = beta1 * memory.first + (1.0 - beta1) * move
        second = second_moment(memory.second, move**2, beta2)
        scaled = first / (np.sqrt(second) + tau)
        return flat + step_at(step, context.round) * scaled, Moments(first, second)

    nature = Nature(memory=True, server_step=True, adaptive=True)
    return Method(name, server_memory=begin, aggregate=aggregate, declared=nature)
