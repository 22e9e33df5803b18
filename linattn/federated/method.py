"""The record that a federated method is, and what its slots see.

A `Method` fills a few slots; an empty slot is what FedAvg does. `run_rounds` owns the only loop.

====================  ============================================================================
slot                  question it answers
====================  ============================================================================
``plan``              which blocks does this round train, at which step size?
``direction``         what is added to a client's gradient: prox·(w − anchor) + shift?
``penalty_gradient``  what is added that is not of that form? (general path, no compiled steps)
``client_memory``     what does a client remember before its first round?
``update_client``     ... and after its local steps?
``server_memory``     what does the server remember before the first round?
``aggregate``         how do the ends become new server parameters? (default: weighted mean)
``review``            is the round accepted, or repeated under another plan?
``extra_floats_up``   what does a participant upload besides the blocks that it trained?
====================  ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from linattn._typing import Array, IntArray
from linattn.federated.oracle import LocalTrace, Oracle
from linattn.types import Federation, Params


class RoundContext(NamedTuple):
    """What a slot may look at.

    Attributes
    ----------
    round : int
        t, from 0.
    params : Params
        Server parameters at the start of the round.
    participants : array of int, shape (P,)
    weights : array, shape (P,)
        w_i of the weighted mean; sums to one.
    local_steps : int
        E.
    local_lr : float
        η as given to `run`.
    problem : Problem or DeepProblem
    oracle : Oracle
    """

    round: int
    params: Params
    participants: IntArray
    weights: Array
    local_steps: int
    local_lr: float
    problem: Federation
    oracle: Oracle


class Plan(NamedTuple):
    """What a round trains: block names (the same for all participants) and the step size."""

    trained: frozenset[str]
    local_lr: float


class Direction(NamedTuple):
    """Affine terms added to a client's gradient: prox·(w − anchor) + shift, shift of shape (D,)."""

    prox: float = 0.0
    shift: Array | None = None


class Proposal(NamedTuple):
    """What a round produced.

    Attributes
    ----------
    plan : Plan
    ends : array, shape (P, D)
        Where each participant ended.
    mean : array, shape (D,)
        Their weighted mean.
    trace : LocalTrace or None
        Every local step, for methods with ``records_steps``.
    """

    plan: Plan
    ends: Array
    mean: Array
    trace: LocalTrace | None


def train_everything(context: RoundContext, memory: Any) -> Plan:
    """Train all blocks at the given step size: the plan of FedAvg."""
    return Plan(frozenset(context.params.layout.names), context.local_lr)


PlanSlot = Callable[[RoundContext, Any], Plan]
DirectionSlot = Callable[[RoundContext, int, Any, Any], Direction]
PenaltySlot = Callable[[RoundContext, int, Any, Array], Array]
ClientSlot = Callable[[RoundContext, int], Any]
UpdateClientSlot = Callable[[RoundContext, int, Any, Any, Array], Any]
AggregateSlot = Callable[[RoundContext, Any, Proposal], tuple[Array, Any]]
ReviewSlot = Callable[[RoundContext, Any, Proposal], Any]


@dataclass(frozen=True)
class Method:
    """A federated method; every slot but the name may be left empty.

    Attributes
    ----------
    name : str
    plan : (context, server memory) -> Plan
    direction : (context, client, server memory, client memory) -> Direction
        Keeps the compiled local steps.
    penalty_gradient : (context, client, client memory, w) -> array (D,)
        Anything else that is added to the gradient at w; local steps then run in Python.
    server_memory : (context) -> memory
        Before the first round.
    client_memory : (context, client) -> memory
        When a client first participates.
    update_client : (context, client, server memory, client memory, end) -> memory
        After the local steps; `end` has shape (D,).
    aggregate : (context, server memory, proposal) -> (parameters (D,), memory)
    review : (context, server memory, proposal) -> memory or None
        None accepts the round; a new server memory discards it and plans the round again.
    extra_floats_up : (context, server memory) -> int
        Floats uploaded per participant besides the trained blocks.
    records_steps : bool
        Whether `aggregate` and `review` need the trace of the local steps.

    Examples
    --------
    FedProx in one slot:

    >>> prox = Method("fed_prox", direction=lambda context, client, server, own: Direction(0.1))
    """

    name: str
    plan: PlanSlot = train_everything
    direction: DirectionSlot | None = None
    penalty_gradient: PenaltySlot | None = None
    server_memory: Callable[[RoundContext], Any] | None = None
    client_memory: ClientSlot | None = None
    update_client: UpdateClientSlot | None = None
    aggregate: AggregateSlot | None = None
    review: ReviewSlot | None = None
    extra_floats_up: Callable[[RoundContext, Any], int] | None = None
    records_steps: bool = False

    def __repr__(self) -> str:
        return f"Method({self.name})"
