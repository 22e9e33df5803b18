"""`RoundDriver`: one round — plan, local steps, review, aggregation — and what rounds carry on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

from linattn._settings import Sampling, check_local_steps, step_at
from linattn._typing import Array, BoolArray, IntArray
from linattn.federated.accounting import Traffic
from linattn.federated.memory import ClientMemories, Memory, check_continues, origin_of
from linattn.federated.method import (
    Cost,
    Method,
    PerClientSlot,
    Plan,
    Proposal,
    RoundContext,
    average,
    is_quiet,
)
from linattn.federated.round import Round
from linattn.federated.settings import Settings, draw_batches, draw_local_steps, draw_participants
from linattn.federated.slots import checked, stacked
from linattn.linalg import weighted_sum
from linattn.oracles.protocol import Draws, LocalTask, LocalTrace, Oracle, explicit_steps
from linattn.oracles.unequal import train_unequal
from linattn.oracles.work import Work
from linattn.streams import stream
from linattn.types import Federation, Params

MOST_REVIEWS = 1000
"""Proposals of one round that a method may reject."""
NOBODY = np.zeros(0, dtype=np.int64)


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
        self.method = checked(method, params.layout)
        self.problem = problem
        self.oracle = oracle if self.method.oracle is None else self.method.oracle(oracle)
        check_local_steps(settings.local_steps, self.oracle.num_clients)
        self.settings = settings
        self.record = record or method.records_steps
        self.params = params
        self.traffic = Traffic(params.layout)
        self.server: Any = None
        self.clients = ClientMemories()
        self.freeze_round: int | None = None
        self._always_quiet = is_quiet(self.method) and not self.record
        self.quiet = self._always_quiet
        self._masks: dict[frozenset[str], BoolArray] = {}
        self._work: dict[Any, int] = {}
        # Whether anybody reads floats and multiply-adds of rounds, and the drifts of stretches.
        self.counts_costs, self.measures_drift = True, False
        self.round = settings.start_round
        if memory is not None:
            held = check_continues(memory, self.traffic, self._origin)
            self.server, clients, self.traffic, self.freeze_round = held[:4]
            self.clients = ClientMemories(clients)
        self._begun = self.server is not None
        self.mark()

    @property
    def memory(self) -> Memory:
        """Everything a continued run needs besides parameters and round."""
        clients = dict(self.clients)
        return Memory(self.server, clients, self.traffic.copy(), self.freeze_round, self._origin)

    @property
    def _origin(self) -> dict[str, Any]:
        return origin_of(self.method.name, self.settings, self.round)

    @property
    def shares_gradients(self) -> bool:
        """Whether the next round will ask all clients for their gradients at the server's point."""
        everybody = self.settings.sampling.is_everybody(self.oracle.num_clients)
        full = everybody and self.settings.batch_size is None
        return full and self.method.start is None and self.freeze_round is None

    def __iter__(self) -> Iterator[Round]:
        for t in range(self.settings.start_round, self.settings.rounds):
            yield self.step(t)

    def begin(self, context: RoundContext) -> None:
        """Make the server memory before the first round."""
        if not self._begun and self.method.server_memory is not None:
            self.server = self.method.server_memory(context)
        self._begun = True

    def revert(self, t: int) -> None:
        """Take back what was done since `mark`, from round t on."""
        self.round = t
        self.params, self.server, self.freeze_round, self.quiet = self._before
        self._begun = self.server is not None
        self.clients.revert()
        self.traffic.revert()

    def mark(self) -> None:
        """Begin rounds that `revert` can take back."""
        self.clients.mark()
        self.traffic.mark()
        self._before = self.params, self.server, self.freeze_round, self.quiet

    def step(self, t: int) -> Round:
        """Run round t: probe, plan, train, review until accepted, aggregate."""
        self.mark()
        context = self.context(t)
        self.begin(context)
        bill = np.zeros(3, dtype=np.int64)
        for rejected in count():
            if rejected == MOST_REVIEWS:
                raise ValueError(
                    f"review of {self.method.name} must accept a round at last, but has rejected "
                    f"{rejected} proposals of round {t}."
                )
            for i in context.participants.tolist():
                self._client(context, i)
            context = self.planned(context)
            task = self.task(context)
            ends, trace = self._train(context, task)
            plan = task_plan(context)
            fetched = self.traffic.download(context.participants, plan.generated)
            if self.counts_costs:
                bill += self.costs(context, task.batches)
                bill[1] += fetched
            proposal = Proposal(plan, ends, weighted_sum(context.weights, ends), trace)
            verdict = None
            if self.method.review is not None:
                verdict = self.method.review(context, self.server, proposal)
            if verdict is None:
                break
            self.server = verdict
            context = self.context(t)  # another plan may ask other clients
        flat = self._aggregate(context, proposal)
        self._publish(t, proposal.plan, flat)
        self.round = t + 1
        up, down, work = bill.tolist()
        return Round(context, proposal.plan, ends, flat, trace, up, down, work, self.server)

    def client_models(self, t: int) -> list[Array]:
        """The model that every client uses now, (D,) each; the server's unless it is personal."""
        context, personal = self.context(t), self.method.personal
        if personal is None:
            return [context.params.flat] * self.oracle.num_clients
        self.begin(context)
        return [
            personal(context, i, self.server, self._peek(context, i))
            for i in range(self.oracle.num_clients)
        ]

    def context(self, t: int) -> RoundContext:
        """What slots see before round t, at the parameters of now."""
        sampling = self.settings.sampling
        if self.method.sampling is not None:
            context = self._context(t, NOBODY, np.zeros(0))
            self.begin(context)
            sampling = self.method.sampling(context, self.server)
        return self._context(t, *self._drawn(t, sampling))

    def _context(self, t: int, participants: IntArray, weights: Array) -> RoundContext:
        settings = self.settings
        return RoundContext(
            round=t,
            params=self.params,
            participants=participants,
            weights=weights,
            local_steps=draw_local_steps(settings, participants, t),
            local_lr=step_at(settings.local_lr, t),
            problem=self.problem,
            oracle=self.oracle,
            seed=settings.seed,
            sampling=settings.sampling,
        )

    def planned(self, context: RoundContext) -> RoundContext:
        """The context with the uploads of the probe phase and the plan."""
        if self.method.probe is not None:
            context = context._replace(probes=tuple(self._asked(context, self.method.probe)))
        return context._replace(plan=self.method.plan(context, self.server))

    def task(self, context: RoundContext) -> LocalTask:
        plan, count = task_plan(context), len(context.participants)
        prox, shift = self._directions(context)
        return LocalTask(
            context.participants,
            self._starts(context),
            context.params.flat,
            np.stack([self.mask(plan.trained_by(k)) for k in range(count)]),
            max(context.local_steps.tolist()),
            plan.local_lr,
            prox,
            shift,
            self._batches(context),
            self.record,
        )

    def mask(self, names: frozenset[str]) -> BoolArray:
        """Where some blocks lie, remembered."""
        if names not in self._masks:
            self._masks[names] = self.params.layout.mask(names)
        return self._masks[names]

    def _starts(self, context: RoundContext) -> Array:
        if self.method.start is None:
            return np.tile(context.params.flat, (len(context.participants), 1))
        return np.stack(self._asked(context, self.method.start))

    def _directions(self, context: RoundContext) -> tuple[float, Array]:
        """The prox weight, and shifts stacked over participants."""
        slot, size = self.method.direction, context.params.layout.size
        if slot is None:
            return 0.0, np.zeros((0, size))
        return stacked(self._asked(context, slot), size)

    def _asked(self, context: RoundContext, slot: PerClientSlot) -> list[Any]:
        """What a slot says about every participant."""
        return [
            slot(context, i, self.server, self._client(context, i))
            for i in context.participants.tolist()
        ]

    def _client(self, context: RoundContext, client: int) -> Any:
        if self.method.client_memory is not None and client not in self.clients:
            self.clients[client] = self.method.client_memory(context, client)
        return self.clients.get(client)

    def _peek(self, context: RoundContext, client: int) -> Any:
        """The memory of a client, without giving one to a client that never participated."""
        if self.method.client_memory is not None and client not in self.clients:
            return self.method.client_memory(context, client)
        return self.clients.get(client)

    def _batches(self, context: RoundContext) -> list[IntArray] | None:
        size, seed, t = self.settings.batch_size, context.seed, context.round
        if size is None:
            return None
        limit, counts = self.oracle.batch_limit, context.local_steps.tolist()
        return [
            draw_batches(limit(i), size, steps, stream(seed, "batch", i, t))
            for i, steps in zip(context.participants.tolist(), counts, strict=True)
        ]

    def _train(self, context: RoundContext, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        penalty = self.method.penalty_gradient
        if not task_plan(context).trained and not task.record:
            return task.starts, None

        def train(task: LocalTask) -> tuple[Array, LocalTrace | None]:
            if penalty is None:
                return self.oracle.train(task)
            return explicit_steps(
                self.oracle,
                task,
                lambda i, flat, batch: penalty(context, i, self.clients.get(i), flat, batch),
            )

        if len(set(context.local_steps.tolist())) == 1:
            return train(task)
        return train_unequal(train, task, context.local_steps)

    def draws(self, context: RoundContext, count: int) -> Draws:
        """Who takes part in `count` rounds, of which `context` is the first, as the run asks."""
        sampling, first = self.settings.sampling, context.round
        if sampling.is_everybody(self.oracle.num_clients):
            return Draws.same(context.weights, count)
        return Draws.of([self._drawn(t, sampling) for t in range(first, first + count)])

    def _drawn(self, t: int, sampling: Sampling) -> tuple[IntArray, Array]:
        """The participants of a round and their weights."""
        seed = self.settings.seed
        return draw_participants(self.problem.weights, sampling, seed=seed, t=t)

    def plain_costs(self, context: RoundContext, draws: Draws) -> IntArray:
        """The costs of plain rounds of all draws, the first of which is `context`, (N, 3)."""
        count = len(draws.offsets) - 1
        if draws.everybody:
            return np.tile(self.costs(context, None), (count, 1))
        rounds = (self._context(context.round + k, *draws.round(k)) for k in range(count))
        return np.stack([self.costs(one._replace(plan=context.plan), None) for one in rounds])

    def costs(self, context: RoundContext, batches: list[IntArray] | None) -> IntArray:
        """Floats up, extra floats down and multiply-adds of all participants, extras included."""
        plan, extras = task_plan(context), [Cost()] * len(context.participants)
        bill, counts = np.zeros(3, dtype=np.int64), context.local_steps.tolist()
        if self.method.extra_cost is not None:
            extras = self._asked(context, self.method.extra_cost)
        for k, (i, extra) in enumerate(zip(context.participants.tolist(), extras, strict=True)):
            trained = plan.trained_by(k)
            work = extra.multiply_adds
            if trained:
                own = None if batches is None else batches[k]
                work += self._local_work(i, trained, extra.per_step, counts[k], own)
            uploaded = self.traffic.size(trained - plan.kept)
            bill += (uploaded + extra.floats_up, extra.floats_down, work)
        return bill

    def _local_work(
        self, client: int, trained: frozenset[str], more: Work, steps: int, batches: IntArray | None
    ) -> int:
        """Multiply-adds of the local steps of a client; on full batches they are remembered."""
        key = client, trained, more, steps
        if batches is None and key in self._work:
            return self._work[key]
        per_step = self.oracle.gradient_work(trained).plus(more)
        tokens, sequences = self.oracle.amount(client, batches)
        repeats = steps if batches is None else 1
        work = per_step.total(tokens * repeats, sequences * repeats, steps)
        if batches is None:
            self._work[key] = work
        return work

    def _aggregate(self, context: RoundContext, proposal: Proposal) -> Array:
        participants = context.participants.tolist()
        if self.method.update_client is not None:
            for k, i in enumerate(participants):
                self.clients[i] = self.method.update_client(
                    context, i, self.server, self._client(context, i), proposal.ends[k]
                )
        if self.method.aggregate is None:
            return average(context, proposal)
        memories = tuple(self.clients.get(i) for i in participants)
        flat, self.server = self.method.aggregate(
            context, self.server, proposal._replace(memories=memories)
        )
        return flat

    def _publish(self, t: int, plan: Plan, flat: Array) -> None:
        """The new server parameters, which blocks clients must fetch, and what froze."""
        layout, old = self.params.layout, self.params.flat
        changed = {n for n, part in layout.slices.items() if (flat[part] != old[part]).any()}
        self.traffic.publish(frozenset(changed) | (plan.trained - plan.kept))
        self.adopt(t, plan, flat)

    def adopt(self, t: int, plan: Plan, flat: Array) -> None:
        """New server parameters, made under a plan that began with round t."""
        self.quiet = self._always_quiet or plan.quiet
        if plan.trained & self.params.layout.kernel_blocks:
            self.freeze_round = None
        elif self.freeze_round is None:
            self.freeze_round = t
        self.params = Params(self.params.layout, flat)


def task_plan(context: RoundContext) -> Plan:
    """The plan of a planned round."""
    assert context.plan is not None
    return context.plan
