"""The record that a federated method is, and what its slots see.

A `Method` fills a few slots; an empty slot is what FedAvg does. `RoundDriver` owns the only round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from linattn._settings import EVERYBODY, Sampling, Step, step_at
from linattn._typing import Array, IntArray
from linattn.federated.nature import Nature
from linattn.oracles.protocol import LocalTrace, Oracle
from linattn.oracles.work import NO_WORK, Work
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
    local_steps : array of int, shape (P,)
        E_i: how many each participant takes in this round.
    local_lr : float
        η of this round as given to `run`.
    problem : Problem or DeepProblem
    oracle : Oracle
    seed : int
        Of the run; name your stream: ``stream(context.seed, "my method", ...)``.
    sampling : Sampling
        As given to `run`, whatever the slot ``sampling`` makes of it.
    probes : tuple
        What every participant uploaded before the plan; empty without the slot ``probe``.
    plan : Plan or None
        The plan of the round; None before it is made.
    """

    round: int
    params: Params
    participants: IntArray
    weights: Array
    local_steps: IntArray
    local_lr: float
    problem: Federation
    oracle: Oracle
    seed: int = 0
    sampling: Sampling = EVERYBODY
    probes: tuple[Any, ...] = ()
    plan: Plan | None = None

    @property
    def step_size(self) -> float:
        """η of the planned round."""
        assert self.plan is not None
        return self.plan.local_lr

    def steps_of(self, client: int) -> int:
        """E_i of a participant."""
        return int(self.local_steps[np.searchsorted(self.participants, client)])


FOREVER = sys.maxsize
"""More rounds than any run has."""


class Plan(NamedTuple):
    """What a round trains, and whose the blocks are.

    Attributes
    ----------
    trained : frozenset of str
        Blocks that at least one participant trains; with none there are no local steps.
    local_lr : float
        η of the round.
    blocks : tuple of frozenset of str, optional
        What each participant trains, where they differ; `trained` is their union.
    kept : frozenset of str
        Blocks that stay with their client: neither uploaded nor averaged, fetched once.
    generated : frozenset of str
        Blocks that the server makes for each client: fetched anew every round.
    rounds : int
        For how many rounds, this one included, plan and extra costs stay as they are, whatever
        happens and whoever takes part; `FOREVER` to the end. Where no other slot acts, they may run
        in one call.
    quiet : bool
        Whether none acts in the rounds after this one, though the method fills some.
    """

    trained: frozenset[str]
    local_lr: float
    blocks: tuple[frozenset[str], ...] | None = None
    kept: frozenset[str] = frozenset()
    generated: frozenset[str] = frozenset()
    rounds: int = 1
    quiet: bool = False

    def trained_by(self, place: int) -> frozenset[str]:
        """What the participant number `place` of the round trains."""
        return self.trained if self.blocks is None else self.blocks[place]


class Direction(NamedTuple):
    """Affine terms added to a client's gradient: prox·(w − anchor) + shift.

    Attributes
    ----------
    prox : float
        Units of curvature.
    shift : array, shape (D,), optional
        Units of the gradient.
    """

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
    memories : tuple
        Client memories after the local steps; filled for `aggregate`, which may read of them what
        the clients upload.
    """

    plan: Plan
    ends: Array
    mean: Array
    trace: LocalTrace | None
    memories: tuple[Any, ...] = ()


class Cost(NamedTuple):
    """What a participant sends, fetches and computes besides its trained blocks and local steps.

    Attributes
    ----------
    floats_up, floats_down : int
    multiply_adds : int
        Once in the round.
    per_step : Work
        Added to every local step.
    """

    floats_up: int = 0
    floats_down: int = 0
    multiply_adds: int = 0
    per_step: Work = NO_WORK


def applied_weights(context: RoundContext, plan: Plan, name: str) -> Array:
    """Return the weights (P,) with which participants enter block `name`.

        w_{i,l} = w_i / Σ_{j trains l} w_j  for those who train l, else 0

    Raises
    ------
    ValueError
        If nobody trains the block.
    """
    chosen = np.array([name in plan.trained_by(k) for k in range(len(context.participants))])
    if not chosen.any():
        raise ValueError(f"block {name!r} is trained by nobody in round {context.round}.")
    if chosen.all():
        return context.weights
    weights = np.where(chosen, context.weights, 0.0)
    return np.asarray(weights / weights.sum())


def average(context: RoundContext, proposal: Proposal) -> Array:
    """Return the server parameters (D,): per block the mean over those who trained it.

    Entries nobody trained stay exactly (a weighted mean of equal numbers may round), and so do
    blocks that clients keep.
    """
    layout, plan = context.params.layout, proposal.plan
    shared = plan.trained - plan.kept
    flat = np.where(layout.mask(shared), proposal.mean, context.params.flat)
    for name in shared if plan.blocks is not None else ():
        weights, part = applied_weights(context, plan, name), layout.slices[name]
        if weights is not context.weights:
            flat[part] = weights @ proposal.ends[:, part]
    return flat


def step_toward(context: RoundContext, mean: Array, server_lr: Step) -> Array:
    """w + η_g (mean − w), (D,); the mean itself at η_g = 1."""
    step = step_at(server_lr, context.round)
    if step == 1.0:
        return mean
    return np.asarray(context.params.flat + step * (mean - context.params.flat))


def train_everything(context: RoundContext, memory: Any) -> Plan:
    """Train all blocks at the given step size: the plan of FedAvg."""
    return Plan(frozenset(context.params.layout.names), context.local_lr)


PlanSlot = Callable[[RoundContext, Any], Plan]
DirectionSlot = Callable[[RoundContext, int, Any, Any], Direction]
PenaltySlot = Callable[[RoundContext, int, Any, Array, IntArray | None], Array]
ClientSlot = Callable[[RoundContext, int], Any]
UpdateClientSlot = Callable[[RoundContext, int, Any, Any, Array], Any]
AggregateSlot = Callable[[RoundContext, Any, Proposal], tuple[Array, Any]]
ReviewSlot = Callable[[RoundContext, Any, Proposal], Any]
PerClientSlot = Callable[[RoundContext, int, Any, Any], Any]
FlatSlot = Callable[[RoundContext, int, Any, Any], Array]
CostSlot = Callable[[RoundContext, int, Any, Any], Cost]
SamplingSlot = Callable[[RoundContext, Any], Sampling]


@dataclass(frozen=True)
class Method:
    """A federated method; every slot but the name may be left empty.

    Attributes
    ----------
    name : str
    plan : (context, server memory) -> Plan
        Which blocks train, at whose client, at which step size, and who owns them.
    direction : (context, client, server memory, client memory) -> Direction
        What is added to a client's gradient; keeps the compiled local steps.
    penalty_gradient : (context, client, client memory, w, batch) -> array (D,)
        Anything else that is added to the gradient at w, on the minibatch of the local step
        (sequences counted within the client, None for all); local steps then run in Python.
    server_memory : (context) -> memory
        Before the first round; may refuse a problem or a run.
    client_memory : (context, client) -> memory
        When a client first participates.
    update_client : (context, client, server memory, client memory, end) -> memory
        After the local steps; `end` has shape (D,).
    aggregate : (context, server memory, proposal) -> (parameters (D,), memory)
        What the server makes of the ends; default `average`.
    review : (context, server memory, proposal) -> memory or None
        None accepts the round; a new server memory discards it and plans the round again.
    oracle : (oracle) -> Oracle
        Exchanges the oracle of the problem, for training and for the history.
    probe : (context, client, server memory, client memory) -> upload
        Before the plan, which finds the uploads of all participants in ``context.probes``.
    start : (context, client, server memory, client memory) -> array (D,)
        Where a client starts; default the server's parameters.
    personal : (context, client, server memory, client memory) -> array (D,)
        The client's own model; ``context.params`` are the server's current parameters.
    extra_cost : (context, client, server memory, client memory) -> Cost
        What a participant sends, fetches and computes besides its local steps.
    sampling : (context, server memory) -> Sampling
        Who takes part. The context has no participants yet; what `run` was told is
        ``context.sampling``.
    records_steps : bool
        Whether `aggregate` and `review` need the trace of the local steps.
    declared : Nature, optional
        What the method is, where its slots would say too much: a `direction` may be a proximal
        term or a control variate, a memory mere bookkeeping. See `nature`.

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
    oracle: Callable[[Oracle], Oracle] | None = None
    probe: PerClientSlot | None = None
    start: FlatSlot | None = None
    personal: FlatSlot | None = None
    extra_cost: CostSlot | None = None
    sampling: SamplingSlot | None = None
    records_steps: bool = False
    declared: Nature | None = None

    @property
    def nature(self) -> Nature:
        """What theorems may ask of the method: as declared, else the most its slots could mean."""
        if self.declared is not None:
            return self.declared
        return Nature(
            proximal=self.direction is not None,
            corrected=_any_filled(self.direction, self.penalty_gradient, self.oracle),
            masked=self.plan is not train_everything,
            sampled=self.sampling is not None,
            personal=self.start is not None,
            memory=_any_filled(
                self.server_memory, self.client_memory, self.update_client, self.review
            ),
            server_step=self.aggregate is not None,
        )

    def __repr__(self) -> str:
        return f"Method({self.name})"


def observed(method: Method, observe: Callable[[RoundContext, Proposal], None]) -> Method:
    """Return the same method, whose proposals are shown to `observe` before they are aggregated."""
    inner = method.aggregate

    def aggregate(context: RoundContext, memory: Any, proposal: Proposal) -> tuple[Array, Any]:
        observe(context, proposal)
        if inner is None:
            return average(context, proposal), memory
        return inner(context, memory, proposal)

    return replace(method, aggregate=aggregate, declared=method.nature)


def _any_filled(*slots: object) -> bool:
    return any(slot is not None for slot in slots)


# A method that fills one of these may do something in a round that the next one depends on.
ACTIVE_SLOTS = (
    "sampling",
    "client_memory",
    "probe",
    "start",
    "direction",
    "penalty_gradient",
    "review",
    "update_client",
    "aggregate",
)


def is_quiet(method: Method) -> bool:
    """Whether nothing but plans, local steps and averages happens in the rounds of a method."""
    return not method.records_steps and all(getattr(method, name) is None for name in ACTIVE_SLOTS)
