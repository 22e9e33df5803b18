"""`RoundDriver`: one round — plan, local steps, review, aggregation — and what rounds carry on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from linattn._typing import Array, IntArray
from linattn.federated.accounting import Traffic
from linattn.federated.method import Method, Plan, Proposal, RoundContext
from linattn.federated.oracle import LocalTask, LocalTrace, Oracle, explicit_steps
from linattn.federated.settings import Settings, choose_participants, draw_batches
from linattn.streams import stream
from linattn.types import Federation, Params


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
    floats_up, floats_down : int
        Of this round, rejected proposals included.
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
    memory: Any


class Memory(NamedTuple):
    """What a continued run needs: server and client memories, what clients hold, the freezing."""

    server: Any
    clients: dict[int, Any]
    traffic: Traffic
    freeze_round: int | None

    def restore(self) -> Memory:
        """Independent copies, so that one memory may start several runs."""
        return self._replace(clients=dict(self.clients), traffic=self.traffic.copy())


class RoundDriver:
    """Iterator over finished rounds; observers decide what to keep.

    Client memory is keyed by client and created when first used; nothing here depends on the
    number of clients that never participate.
    """

    def __init__(
        self,
        method: Method,
        problem: Federation,
        oracle: Oracle,
        params: Params,
        settings: Settings,
        *,
        memory: Any = None,
        record: bool = False,
    ) -> None:
        self.method = method
        self.problem = problem
        self.oracle = oracle
        self.settings = settings
        self.record = record or method.records_steps
        self.params = params
        self.traffic = Traffic(params.layout)
        self.server: Any = None
        self.clients: dict[int, Any] = {}
        self.freeze_round: int | None = None
        self._begun = False
        if memory is not None:
            self.server, self.clients, self.traffic, self.freeze_round = memory.restore()
            self._begun = True

    @property
    def memory(self) -> Memory:
        """Everything a continued run needs besides parameters and round."""
        return Memory(self.server, dict(self.clients), self.traffic.copy(), self.freeze_round)

    def __iter__(self) -> Iterator[Round]:
        for t in range(self.settings.start_round, self.settings.rounds):
            yield self.step(t)

    def step(self, t: int) -> Round:
        """Run round t: plan, train, review until accepted, aggregate."""
        context = self._context(t)
        if not self._begun:
            self._begun = True
            if self.method.server_memory is not None:
                self.server = self.method.server_memory(context)
        for i in context.participants.tolist():
            self._client(context, i)
        up = down = 0
        while True:
            plan = self.method.plan(context, self.server)
            task = self._task(context, plan)
            down += self.traffic.download(context.participants)
            ends, trace = self._train(context, plan, task)
            proposal = Proposal(plan, ends, context.weights @ ends, trace)
            up += self._uploads(context, plan)
            verdict = None
            if self.method.review is not None:
                verdict = self.method.review(context, self.server, proposal)
            if verdict is None:
                break
            self.server = verdict
        flat = self._aggregate(context, proposal)
        self.traffic.publish(plan.trained)
        if plan.trained & self.params.layout.kernel_blocks:
            self.freeze_round = None
        elif self.freeze_round is None:
            self.freeze_round = t
        self.params = Params(self.params.layout, flat)
        return Round(context, plan, ends, flat, trace, up, down, self.server)

    def _context(self, t: int) -> RoundContext:
        participants = choose_participants(
            self.oracle.num_clients, self.settings.participation, self.settings.seed, t
        )
        chosen = self.problem.weights[participants]
        everyone = len(participants) == self.oracle.num_clients
        return RoundContext(
            round=t,
            params=self.params,
            participants=participants,
            weights=chosen if everyone else chosen / chosen.sum(),
            local_steps=self.settings.local_steps,
            local_lr=self.settings.local_lr,
            problem=self.problem,
            oracle=self.oracle,
        )

    def _task(self, context: RoundContext, plan: Plan) -> LocalTask:
        count, flat = len(context.participants), context.params.flat
        mask = np.tile(context.params.layout.mask(plan.trained), (count, 1))
        prox, shift = self._directions(context)
        return LocalTask(
            context.participants,
            np.tile(flat, (count, 1)),
            flat,
            mask,
            context.local_steps,
            plan.local_lr,
            prox,
            shift,
            self._batches(context),
            self.record,
        )

    def _directions(self, context: RoundContext) -> tuple[float, Array]:
        """The prox weight, and shifts stacked over participants."""
        size = context.params.layout.size
        if self.method.direction is None:
            return 0.0, np.zeros((0, size))
        terms = [
            self.method.direction(context, int(i), self.server, self._client(context, int(i)))
            for i in context.participants
        ]
        if len({term.prox for term in terms}) > 1:
            raise ValueError("direction must give all participants of a round the same prox.")
        shifts = [np.zeros(size) if term.shift is None else term.shift for term in terms]
        any_shift = any(term.shift is not None for term in terms)
        return terms[0].prox, np.stack(shifts) if any_shift else np.zeros((0, size))

    def _client(self, context: RoundContext, client: int) -> Any:
        if self.method.client_memory is not None and client not in self.clients:
            self.clients[client] = self.method.client_memory(context, client)
        return self.clients.get(client)

    def _batches(self, context: RoundContext) -> list[IntArray] | None:
        size = self.settings.batch_size
        if size is None:
            return None
        return [
            draw_batches(
                self.oracle.batch_limit(int(i)),
                size,
                context.local_steps,
                stream(self.settings.seed, "batch", int(i), context.round),
            )
            for i in context.participants
        ]

    def _train(
        self, context: RoundContext, plan: Plan, task: LocalTask
    ) -> tuple[Array, LocalTrace | None]:
        penalty = self.method.penalty_gradient
        if penalty is None:
            return self.oracle.train(task)
        return explicit_steps(
            self.oracle, task, lambda i, flat: penalty(context, i, self.clients.get(i), flat)
        )

    def _uploads(self, context: RoundContext, plan: Plan) -> int:
        extra = self.method.extra_floats_up
        per_client = 0 if extra is None else extra(context, self.server)
        trained = int(context.params.layout.mask(plan.trained).sum())
        return len(context.participants) * (trained + per_client)

    def _aggregate(self, context: RoundContext, proposal: Proposal) -> Array:
        if self.method.update_client is not None:
            for k, i in enumerate(context.participants.tolist()):
                self.clients[i] = self.method.update_client(
                    context, i, self.server, self._client(context, i), proposal.ends[k]
                )
        if self.method.aggregate is not None:
            flat, self.server = self.method.aggregate(context, self.server, proposal)
            return flat
        # Entries nobody trained stay exactly: a weighted mean of equal numbers may round.
        trained = context.params.layout.mask(proposal.plan.trained)
        return np.where(trained, proposal.mean, context.params.flat)
