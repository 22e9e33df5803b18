"""Two stages as one method: FedAvg on everything, then another method on the blocks that move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from linattn._settings import Sampling
from linattn._typing import Array, IntArray
from linattn.federated.freeze import FreezeRule
from linattn.federated.method import (
    Cost,
    Direction,
    Method,
    Plan,
    Proposal,
    RoundContext,
    average,
    is_quiet,
    train_everything,
)
from linattn.federated.stretch import promised_rounds
from linattn.objectives.steps import frozen_step
from linattn.types import single_layer


class StageMemory(NamedTuple):
    """Server memory: since when a rule has frozen, and what the second stage remembers."""

    frozen_from: int | None = None
    begun: bool = False
    second: Any = None


class OwnMemory(NamedTuple):
    """Client memory: what the client remembers of the second stage, once it took part in it."""

    begun: bool = False
    second: Any = None


PLAIN: dict[str, Callable[[RoundContext], Any]] = {
    "probe": lambda context: None,
    "start": lambda context: context.params.flat,
    "personal": lambda context: context.params.flat,
    "direction": lambda context: Direction(),
}
"""What FedAvg says about a client in slots that a second stage may fill."""


@dataclass(frozen=True)
class TwoStages:
    """A warm-up on all blocks, then `second` on those that are not frozen.

    In the warm-up every slot does what FedAvg does. The memories of the second stage begin with it,
    and its context knows no other participation than that of the stage.

    Attributes
    ----------
    length : int
        Warm-up rounds; unused where there is a rule.
    rule : FreezeRule or None
    second : Method
    freeze : {"kernel", "value"}
    frozen_lr : None, float or "safe"
    participation : float or None
        Of the second stage; None for that of the run.
    """

    length: int
    rule: FreezeRule | None
    second: Method
    freeze: str
    frozen_lr: float | str | None
    participation: float | None

    def method(self, name: str) -> Method:
        """The method; only slots that a stage needs are filled."""
        second, rule = self.second, self.rule
        samples = self.participation is not None or second.sampling is not None
        slots: dict[str, Callable[..., Any]] = {
            slot: self.then(slot) for slot in PLAIN if getattr(second, slot) is not None
        }
        if second.penalty_gradient is not None:
            slots["penalty_gradient"] = self.penalty_gradient
        if second.client_memory is not None:
            slots |= {"client_memory": lambda *_: OwnMemory(), "update_client": self.update_client}
        if second.aggregate is not None or second.server_memory is not None:
            slots["aggregate"] = self.aggregate
        if rule is not None or second.review is not None:
            slots["review"] = self.review
        if samples:
            slots["sampling"] = self.sampling
        nature = second.nature._replace(masked=True, sampled=samples)
        return Method(
            name,
            plan=self.plan,
            server_memory=self.begin,
            extra_cost=self.extra_cost,
            records_steps=second.records_steps or (rule is not None and rule.records_steps),
            declared=nature._replace(memory=nature.memory or rule is not None),
            **slots,
        )

    def is_frozen(self, context: RoundContext, memory: StageMemory) -> bool:
        """Whether the round belongs to the second stage."""
        if self.rule is None:
            return context.round >= self.length
        return memory.frozen_from is not None

    def begin(self, context: RoundContext) -> StageMemory:
        """Refuse what the problem cannot do, before the warm-up rather than after it."""
        if self.rule is not None and self.rule.one_layer:
            single_layer(context.problem, "freeze_rule")
        if self.frozen_lr == "safe":
            single_layer(context.problem, "frozen_lr='safe'")
        self._server(context, StageMemory())
        return StageMemory()

    def _moving(self, context: RoundContext) -> frozenset[str]:
        layout = context.params.layout
        return layout.value_blocks if self.freeze == "kernel" else layout.kernel_blocks

    def _server(self, context: RoundContext, memory: StageMemory | None) -> Any:
        """Server memory of the second stage, made in its first round."""
        begin = self.second.server_memory
        if memory is None or not memory.begun:  # None where the plan is another method's
            return None if begin is None else begin(context)
        return memory.second

    def _own(self, context: RoundContext, client: int, own: OwnMemory | None) -> Any:
        """Client memory of the second stage, made when the client first takes part in it."""
        if self.second.client_memory is None:
            return None
        assert own is not None
        return own.second if own.begun else self.second.client_memory(context, client)

    def _asked(
        self, slot: str, context: RoundContext, client: int, memory: StageMemory, own: Any
    ) -> Any:
        """What a slot of the second stage says about a client."""
        held = self._server(context, memory), self._own(context, client, own)
        return getattr(self.second, slot)(context, client, *held)

    def plan(self, context: RoundContext, memory: StageMemory) -> Plan:
        """All blocks, then what the second stage trains of those that are not frozen."""
        if not self.is_frozen(context, memory):
            left = 1 if self.rule is not None else self.length - context.round
            return train_everything(context, memory)._replace(rounds=left)
        moving = self._moving(context)
        asked = self.second.plan(context, self._server(context, memory))
        step = asked.local_lr
        if asked.trained:
            step = frozen_step(context.problem, context.params, step, self.frozen_lr)
        blocks = None if asked.blocks is None else tuple(part & moving for part in asked.blocks)
        return Plan(
            asked.trained & moving,
            step,
            blocks,
            asked.kept & moving,
            asked.generated & moving,
            promised_rounds(self.second, asked),
            quiet=self.rule is not None and self.participation is None and is_quiet(self.second),
        )

    def sampling(self, context: RoundContext, memory: StageMemory) -> Sampling:
        """The participation of the run, then that of the second stage."""
        if not self.is_frozen(context, memory):
            return context.sampling
        if self.participation is not None:
            asked = context.sampling._replace(participation=self.participation)
            context = context._replace(sampling=asked)
        if self.second.sampling is None:
            return context.sampling
        return self.second.sampling(context, self._server(context, memory))

    def then(self, slot: str) -> Callable[..., Any]:
        """A slot that does what FedAvg does, then what the second stage says about a client."""

        def answer(context: RoundContext, client: int, memory: StageMemory, own: Any) -> Any:
            if not self.is_frozen(context, memory):
                return PLAIN[slot](context)
            return self._asked(slot, context, client, memory, own)

        return answer

    def penalty_gradient(
        self, context: RoundContext, client: int, own: Any, flat: Array, batch: IntArray | None
    ) -> Array:
        """Nothing, then the penalty of the second stage: the plan tells the stages apart."""
        assert context.plan is not None
        assert self.second.penalty_gradient is not None
        if context.plan.trained - self._moving(context):
            return np.zeros_like(flat)
        held = self._own(context, client, own)
        return self.second.penalty_gradient(context, client, held, flat, batch)

    def update_client(
        self, context: RoundContext, client: int, memory: StageMemory, own: OwnMemory, end: Array
    ) -> OwnMemory:
        """Nothing, then what the second stage remembers at a client."""
        if not self.is_frozen(context, memory):
            return own
        held = self._own(context, client, own)
        if self.second.update_client is not None:
            server = self._server(context, memory)
            held = self.second.update_client(context, client, server, held, end)
        return OwnMemory(True, held)

    def review(
        self, context: RoundContext, memory: StageMemory, proposal: Proposal
    ) -> StageMemory | None:
        """Freeze before this round if the rule fires; then as the second stage reviews."""
        if self.is_frozen(context, memory):
            if self.second.review is None:
                return None
            changed = self.second.review(context, self._server(context, memory), proposal)
            return None if changed is None else memory._replace(begun=True, second=changed)
        # At t = 0 with V_0 = 0 the update is the pure ridge step and its sign misleads (C13).
        if self.rule is not None and context.round > 0 and self.rule.fires(context, proposal):
            return memory._replace(frozen_from=context.round)
        return None

    def aggregate(
        self, context: RoundContext, memory: StageMemory, proposal: Proposal
    ) -> tuple[Array, StageMemory]:
        """The mean, then what the second stage makes of the blocks that are not frozen."""
        if not self.is_frozen(context, memory):
            return average(context, proposal), memory
        held = self._server(context, memory)
        if self.second.aggregate is None:
            return average(context, proposal), memory._replace(begun=True, second=held)
        memories = (None if own is None else own.second for own in proposal.memories)
        found, held = self.second.aggregate(
            context, held, proposal._replace(memories=tuple(memories))
        )
        moving = context.params.layout.mask(self._moving(context))
        flat = np.where(moving, found, context.params.flat)
        return flat, memory._replace(begun=True, second=held)

    def extra_cost(self, context: RoundContext, client: int, memory: StageMemory, own: Any) -> Cost:
        """What the rule asks for, then what the second stage costs besides."""
        if not self.is_frozen(context, memory):
            if self.rule is None or context.round == 0:  # a rule looks at rounds from t = 1 on
                return Cost()
            return self.rule.cost(context, client)
        if self.second.extra_cost is None:
            return Cost()
        cost: Cost = self._asked("extra_cost", context, client, memory, own)
        return cost
