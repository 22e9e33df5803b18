"""`Round`: what observers see of a finished round."""

from __future__ import annotations

from typing import Any, NamedTuple

from linattn._typing import Array
from linattn.federated.method import Plan, RoundContext
from linattn.oracles.protocol import LocalTrace


class Round(NamedTuple):
    """One finished round: what observers see.

    Attributes
    ----------
    context : RoundContext
        The state before the round.
    plan : Plan
        The plan that was accepted.
    ends : array, shape (P, D)
    flat : array, shape (D,)
        Server parameters after the round.
    trace : LocalTrace or None
        Every local step, if recorded.
    floats_up, floats_down, multiply_adds : int
        Of this round and all participants, rejected proposals included.
    memory : object
        Server memory after the round.
    """

    context: RoundContext
    plan: Plan
    ends: Array
    flat: Array
    trace: LocalTrace | None
    floats_up: int
    floats_down: int
    multiply_adds: int
    memory: Any
