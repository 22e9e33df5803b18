"""The methods of the toolkit, each a small `Method` record."""

from __future__ import annotations

from typing import NamedTuple

from linattn._checks import positive_int
from linattn.federated.freeze import FreezeRule, rule_fires, rule_uploads
from linattn.federated.method import Cost, Method, Plan, Proposal, RoundContext, train_everything
from linattn.objectives.steps import check_frozen_lr, frozen_step
from linattn.types import single_layer


def fed_avg() -> Method:
    """Return FedAvg: every participant trains everything, the server averages."""
    return Method("fed_avg")


def fed_frozen(*, warmup_rounds: int | FreezeRule, frozen_lr: float | str | None = None) -> Method:
    """Return FedFrozen: FedAvg on everything for a warm-up, then the kernel stays frozen.

    Parameters
    ----------
    warmup_rounds : int or FreezeRule
        T: rounds 0..T−1 train all blocks. 0 never trains the kernel; T ≥ rounds is FedAvg. A
        `freeze_rule` decides while running (C13).
    frozen_lr : None, float or "safe"
        Step size of the frozen stage: None keeps local_lr; "safe" is
        min(local_lr, 1/max_i λ_max(A_i(B_T))).

    Raises
    ------
    ValueError
        If warmup_rounds is negative or frozen_lr is not positive.
    TypeError
        When run on a deep problem with a freeze rule or ``frozen_lr="safe"``: both need one layer.

    Notes
    -----
    Source: the two stages of FedFrozen (arXiv 2605.06446); theory sections 3 and 4.
    """
    check_frozen_lr(frozen_lr)
    if isinstance(warmup_rounds, FreezeRule):
        return _fed_frozen_by_rule(warmup_rounds, frozen_lr)
    length = positive_int("warmup_rounds", warmup_rounds, minimum=0)

    def plan(context: RoundContext, memory: object) -> Plan:
        if frozen_lr == "safe":  # refused before the warm-up, not after it
            single_layer(context.problem, "frozen_lr='safe'")
        if context.round < length:
            return train_everything(context, memory)
        return frozen_plan(context, frozen_lr)

    return Method(f"fed_frozen({length})", plan=plan)


def frozen_plan(context: RoundContext, frozen_lr: float | str | None) -> Plan:
    """Train the value blocks alone."""
    step = frozen_step(context.problem, context.params, context.local_lr, frozen_lr)
    return Plan(context.params.layout.value_blocks, step)


class WarmupMemory(NamedTuple):
    """Server memory of rule-driven FedFrozen: the round from which the kernel is frozen."""

    frozen_from: int | None = None


def _fed_frozen_by_rule(rule: FreezeRule, frozen_lr: float | str | None) -> Method:
    def begin(context: RoundContext) -> WarmupMemory:
        single_layer(context.problem, "freeze_rule")
        return WarmupMemory()

    def plan(context: RoundContext, memory: WarmupMemory) -> Plan:
        if memory.frozen_from is None:
            return train_everything(context, memory)
        return frozen_plan(context, frozen_lr)

    def review(
        context: RoundContext, memory: WarmupMemory, proposal: Proposal
    ) -> WarmupMemory | None:
        # At t = 0 with V_0 = 0 the update is the pure ridge step and its sign misleads (C13).
        if memory.frozen_from is not None or context.round == 0:
            return None
        if rule_fires(rule, context, proposal):
            return WarmupMemory(frozen_from=context.round)
        return None

    return Method(
        f"fed_frozen({rule.name})",
        plan=plan,
        review=review,
        server_memory=begin,
        extra_cost=lambda context, client, memory, own: Cost(
            floats_up=rule_uploads(rule, context) if memory.frozen_from is None else 0
        ),
        records_steps=rule.name == "observable",
    )
