"""FedFrozen: a warm-up on everything, then one part stays frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from linattn._checks import one_of, positive_int, real
from linattn._settings import EVERYBODY, Sampling
from linattn._typing import Array
from linattn.federated.freeze import FreezeRule, rule_fires, rule_uploads
from linattn.federated.method import (
    Cost,
    Direction,
    Method,
    Plan,
    Proposal,
    RoundContext,
    average,
    train_everything,
)
from linattn.federated.methods.scaffold import (
    Variate,
    corrected,
    new_control,
    new_variate,
    no_variate,
    variate_cost,
)
from linattn.federated.nature import Nature
from linattn.linalg import factorize
from linattn.objectives.forms import NormalEquations
from linattn.objectives.population import one_client_equations
from linattn.objectives.steps import check_frozen_lr, frozen_step
from linattn.types import single_layer

STAGES = ("fed_avg", "scaffold", "one_shot")
PARTS = ("kernel", "value")


def fed_frozen(
    *,
    warmup_rounds: int | FreezeRule,
    frozen: str = "fed_avg",
    freeze: str = "kernel",
    frozen_lr: float | str | None = None,
    frozen_participation: float | None = None,
) -> Method:
    """Return FedFrozen: FedAvg on everything for a warm-up, then the kernel stays frozen.

    Parameters
    ----------
    warmup_rounds : int or FreezeRule
        T: rounds 0..T−1 train all blocks. 0 never trains the kernel; T ≥ rounds is FedAvg. A
        `freeze_rule` decides while running (C13).
    frozen : {"fed_avg", "scaffold", "one_shot"}
        The second stage: averaging; control variates (option 2, from zero), whose fixed point is
        V*; or one exact round, in which all clients, whoever took part in the warm-up, send A_i and
        C_i and the server solves for V*, after which nothing is left to train.
    freeze : {"kernel", "value"}
        What stays; freezing the value blocks (and the readout) is a control.
    frozen_lr : None, float or "safe"
        Step size of the frozen stage: None keeps local_lr; "safe" is
        min(local_lr, 1/max_i λ_max(A_i(B_T))).
    frozen_participation : float, optional
        Participation of the second stage, in (0, 1]; default that of the run.

    Raises
    ------
    ValueError
        If warmup_rounds is negative, frozen_lr is not positive or frozen_participation is not in
        (0, 1]; if "one_shot", "safe" or a freeze rule is to freeze the value; if "one_shot" meets a
        frozen_participation.
    TypeError
        When run on a deep problem with a freeze rule, ``frozen_lr="safe"`` or "one_shot": all need
        one layer.

    Notes
    -----
    Source: the two stages of FedFrozen (arXiv 2605.06446); Warm-up; Frozen stage. The second
    stages other than averaging are ours. Deep models: kernel blocks are all query and key blocks.
    """
    stages = _check(warmup_rounds, frozen, freeze, frozen_lr, frozen_participation)
    by_rule = stages.rule is not None
    extra = {"fed_avg": {}, "scaffold": _control_slots(stages), "one_shot": _exact_slots(stages)}
    options: dict[str, Any] = extra[frozen] | ({"review": stages.review} if by_rule else {})
    return Method(
        stages.name,
        plan=stages.plan,
        server_memory=stages.begin,
        extra_cost=stages.cost,
        sampling=stages.sampling if stages.samples else None,
        records_steps=stages.rule is not None and stages.rule.name == "observable",
        declared=stages.nature,
        **options,
    )


class StageMemory(NamedTuple):
    """Server memory: since when a rule has frozen, c of the control variates, V* found or not."""

    frozen_from: int | None = None
    control: Array | None = None
    solved: bool = False


@dataclass(frozen=True)
class _Stages:
    """The checked arguments of `fed_frozen`, and the slots that all second stages share."""

    length: int
    rule: FreezeRule | None
    frozen: str
    freeze: str
    frozen_lr: float | str | None
    participation: float | None

    @property
    def samples(self) -> bool:
        """Whether the second stage has participants of its own."""
        return self.participation is not None or self.frozen == "one_shot"

    @property
    def nature(self) -> Nature:
        """Stages mask; control variates correct and remember; the exact round does not average."""
        variates, exact = self.frozen == "scaffold", self.frozen == "one_shot"
        return Nature(
            corrected=variates,
            masked=True,
            sampled=self.samples,
            memory=variates or self.rule is not None,
            server_step=exact,
        )

    @property
    def name(self) -> str:
        """What `repr` says: the length or the rule, and what is not the default."""
        parts = [str(self.length) if self.rule is None else self.rule.name]
        parts += [] if self.frozen == "fed_avg" else [self.frozen]
        parts += [] if self.freeze == "kernel" else ["value frozen"]
        share = self.participation
        parts += [] if share is None else [f"frozen_participation {share:g}"]
        return f"fed_frozen({', '.join(parts)})"

    def is_frozen(self, context: RoundContext, memory: StageMemory) -> bool:
        """Whether the round belongs to the second stage."""
        if self.rule is None:
            return context.round >= self.length
        return memory.frozen_from is not None

    def begin(self, context: RoundContext) -> StageMemory:
        """Refuse what the problem cannot do, before the warm-up rather than after it."""
        if self.rule is not None:
            single_layer(context.problem, "freeze_rule")
        if self.frozen_lr == "safe":
            single_layer(context.problem, "frozen_lr='safe'")
        if self.frozen == "one_shot":
            single_layer(context.problem, "frozen='one_shot'")
        if self.frozen == "scaffold":
            return StageMemory(control=np.zeros(context.params.layout.size))
        return StageMemory()

    def sampling(self, context: RoundContext, memory: StageMemory) -> Sampling:
        """Everybody in the exact round; the participation of the second stage in others."""
        if not self.is_frozen(context, memory):
            return context.sampling
        if self.frozen == "one_shot":
            return context.sampling if memory.solved else EVERYBODY
        assert self.participation is not None
        return context.sampling._replace(participation=self.participation)

    def plan(self, context: RoundContext, memory: StageMemory) -> Plan:
        """All blocks, then those that are not frozen, or none once solved exactly."""
        if not self.is_frozen(context, memory):
            return train_everything(context, memory)
        layout = context.params.layout
        moving = layout.value_blocks if self.freeze == "kernel" else layout.kernel_blocks
        if self.frozen == "one_shot":
            return Plan(frozenset(), context.local_lr)
        step = frozen_step(context.problem, context.params, context.local_lr, self.frozen_lr)
        return Plan(moving, step)

    def review(
        self, context: RoundContext, memory: StageMemory, proposal: Proposal
    ) -> StageMemory | None:
        """Freeze before this round if the rule fires."""
        # At t = 0 with V_0 = 0 the update is the pure ridge step and its sign misleads (C13).
        if memory.frozen_from is not None or context.round == 0:
            return None
        assert self.rule is not None
        if rule_fires(self.rule, context, proposal):
            return memory._replace(frozen_from=context.round)
        return None

    def cost(self, context: RoundContext, client: int, memory: StageMemory, own: object) -> Cost:
        """Uploads of the rule; control variates; A_i and C_i."""
        if not self.is_frozen(context, memory):
            return Cost(0 if self.rule is None else rule_uploads(self.rule, context))
        if self.frozen == "scaffold":
            return variate_cost(context, client, option=2)
        if self.frozen == "one_shot" and not memory.solved:
            return _exact_cost(context, client)
        return Cost()


def _check(
    warmup_rounds: int | FreezeRule,
    frozen: str,
    freeze: str,
    frozen_lr: float | str | None,
    participation: float | None,
) -> _Stages:
    check_frozen_lr(frozen_lr)
    if participation is not None:
        participation = real("frozen_participation", participation, above=0.0, maximum=1.0)
        if frozen == "one_shot":
            raise ValueError(
                "frozen_participation must be left out for frozen='one_shot', which asks every "
                f"client once, got {participation:g}."
            )
    one_of("frozen", frozen, STAGES)
    one_of("freeze", freeze, PARTS)
    rule = warmup_rounds if isinstance(warmup_rounds, FreezeRule) else None
    if freeze == "value":
        quadratic = {"warmup_rounds=freeze_rule(...)": rule is not None}
        quadratic["frozen='one_shot'"] = frozen == "one_shot"
        quadratic["frozen_lr='safe'"] = frozen_lr == "safe"
        for name, asked in quadratic.items():
            if asked:
                raise ValueError(f"{name} is about a frozen kernel, got freeze='value'.")
    length = 0 if rule else positive_int("warmup_rounds", warmup_rounds, minimum=0)
    return _Stages(length, rule, frozen, freeze, frozen_lr, participation)


def _control_slots(stages: _Stages) -> dict[str, Any]:
    """SCAFFOLD in the second stage."""

    def direction(
        context: RoundContext, client: int, memory: StageMemory, own: Variate
    ) -> Direction:
        if not stages.is_frozen(context, memory):
            return Direction()
        assert memory.control is not None
        return corrected(memory.control, own)

    def update(
        context: RoundContext, client: int, memory: StageMemory, own: Variate, end: Array
    ) -> Variate:
        if not stages.is_frozen(context, memory):
            return own
        assert memory.control is not None
        return new_variate(context, client, memory.control, own, end, option=2)

    def aggregate(
        context: RoundContext, memory: StageMemory, proposal: Proposal
    ) -> tuple[Array, StageMemory]:
        assert memory.control is not None
        if stages.is_frozen(context, memory):
            memory = memory._replace(control=new_control(context, memory.control, proposal))
        return average(context, proposal), memory

    return {
        "client_memory": lambda context, client: no_variate(context),
        "direction": direction,
        "update_client": update,
        "aggregate": aggregate,
    }


def _exact_slots(stages: _Stages) -> dict[str, Any]:
    """One exact round: A_i and C_i go up before it, V* = (Σ w_i A_i)⁻¹ Σ w_i C_i."""

    def probe(
        context: RoundContext, client: int, memory: StageMemory, own: object
    ) -> NormalEquations | None:
        if memory.solved or not stages.is_frozen(context, memory):
            return None
        problem = single_layer(context.problem, "frozen='one_shot'")
        return one_client_equations(problem, context.params.kernels(), client)

    def aggregate(
        context: RoundContext, memory: StageMemory, proposal: Proposal
    ) -> tuple[Array, StageMemory]:
        if context.probes[0] is None:
            return average(context, proposal), memory
        params, hessian, linear = context.params, 0.0, 0.0
        for weight, sent in zip(context.weights, context.probes, strict=True):
            hessian, linear = hessian + weight * sent.hessian, linear + weight * sent.linear
        ridge = single_layer(context.problem, "frozen='one_shot'").value_ridge
        solved = factorize(hessian + ridge * np.eye(len(np.atleast_1d(linear)))).solve(
            np.asarray(linear)
        )
        exact = params.replace(value=solved.reshape(params.value.shape))
        return exact.flat, memory._replace(solved=True)

    return {"probe": probe, "aggregate": aggregate}


def _exact_cost(context: RoundContext, client: int) -> Cost:
    """A_i is symmetric; per sequence H²d³ + 2Hd³ + Hd²m, with one query H²d² + 2Hd² + Hdm."""
    heads, dim, outputs = context.params.layout.shapes["value"]
    size = heads * dim
    products = size * size + 2 * size * dim + size * outputs
    problem = single_layer(context.problem, "frozen='one_shot'")
    per_sequence = products if problem.statistics.query is not None else dim * products
    return Cost(
        size * (size + 1) // 2 + size * outputs,
        multiply_adds=per_sequence * context.oracle.batch_limit(client),
    )
