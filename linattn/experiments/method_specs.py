"""Specs of the simulations that compare methods: which world, which methods, which schedules."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from linattn.experiments.specs import (
    Count,
    Index,
    InitialSpec,
    NonNegative,
    Positive,
    ProblemSpec,
    Spec,
    register,
)

MethodName = Literal[
    "fed_avg", "fed_avg_momentum", "fed_prox", "scaffold", "moon", "fed_frozen",
    "frozen_scaffold", "frozen_one_shot", "freeze_value", "freeze_start", "fed_part", "selective",
    "fed_tp", "local_attention", "fine_tuned", "fed_sq",
]  # fmt: skip
Stage = Literal["fed_avg", "scaffold", "one_shot"]
Order = Literal["sequential", "reverse", "random"]
Momentum = Annotated[float, Meta(ge=0, lt=1)]
SINGLE: tuple[MethodName, ...] = (
    "fed_avg", "fed_avg_momentum", "fed_prox", "scaffold", "moon", "fed_frozen",
    "frozen_scaffold", "frozen_one_shot", "freeze_value", "freeze_start", "fed_part", "selective",
    "fed_tp", "local_attention", "fine_tuned",
)  # fmt: skip
"""Methods of the single-layer model; `fed_sq` needs gates."""
DEEP: tuple[MethodName, ...] = (*(m for m in SINGLE if m != "frozen_one_shot"), "fed_sq")
"""Methods of a deep model with ReLU features; the one-shot round needs one layer."""


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arguments of `linattn.DeepAttention` that the problem does not decide, and the start."""

    num_layers: Count = 2
    inner_dim: Count = 3
    feature_map: Literal["identity", "relu"] = "relu"
    residual: bool = True
    scale: Positive = 0.7


class WorldSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The clients that all methods of a run share, so that differences are paired.

    ``data="synthetic"`` is the problem of `linattn.synthetic_problem`; with ``deep`` its tokens and
    targets are those of a deep model. Real data: a Dirichlet split of the digits, and one side of
    every exercise of the watch recordings; there the step is `step_factor` · `linattn.safe_step`.
    """

    data: Literal["synthetic", "digits", "watch"] = "synthetic"
    alpha: Positive = 0.05
    deep: bool = False
    model: ModelSpec = ModelSpec()
    problem: ProblemSpec = ProblemSpec(value_heterogeneity=0.75, covariate_heterogeneity=0.3)
    initial: InitialSpec = InitialSpec()
    rounds: Count = 40
    local_steps: Count = 10
    local_lr: Positive = 0.05
    step_factor: Positive = 2.0

    def __post_init__(self) -> None:
        if self.deep and self.data != "synthetic":
            raise ValueError(f"deep must be false for data {self.data!r}: it has one layer here.")

    def cost(self) -> float:
        """Gradient steps of one trajectory, times the data."""
        sizes = {"digits": 1437 * 16**2, "watch": 2300 * 7**2}
        per_client = self.problem.num_clients * self.problem.sequences_per_client
        data = sizes.get(self.data, per_client * self.problem.dim**2)
        return float(self.rounds * self.local_steps * data * (20 if self.deep else 1))


@register
class MethodsSpec(
    WorldSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="methods",
):  # fmt: skip
    """All methods in one world. `methods` left empty are all that the world's model allows."""

    job: ClassVar[str] = "linattn.experiments.jobs.methods:run"

    methods: tuple[MethodName, ...] = ()
    warmup_rounds: Index = 10
    prox: NonNegative = 0.1
    server_momentum: Momentum = 0.5
    contrast: NonNegative = 0.1
    budget: Count = 1
    embedding_dim: Count = 4
    server_lr: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = DEEP if self.deep else SINGLE
        for name in self.methods:
            if name not in allowed:
                raise ValueError(
                    f"methods must be among {', '.join(allowed)} where deep is {self.deep}, "
                    f"got {name!r}."
                )
        if self.methods and "fed_avg" not in self.methods:
            raise ValueError("methods must have fed_avg, whose final objective is the target.")

    def names(self) -> tuple[MethodName, ...]:
        """The methods of this run."""
        return self.methods or (DEEP if self.deep else SINGLE)

    def cost(self) -> float:
        """As one trajectory, for every method."""
        return super().cost() * len(self.names())


@register
class SecondStageSpec(
    WorldSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="second_stage",
):  # fmt: skip
    """FedFrozen with each second stage, forked from one warm-up at each of `warmup_lengths`."""

    job: ClassVar[str] = "linattn.experiments.jobs.second_stage:run"

    warmup_lengths: tuple[Index, ...] = (0, 5, 10, 20)
    stages: tuple[Stage, ...] = ("fed_avg", "scaffold", "one_shot")
    reference_iterations: Count = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deep:
            raise ValueError(
                "deep must be false: the one-shot round and the profile need one layer."
            )
        lengths = self.warmup_lengths
        if not lengths or list(lengths) != sorted(set(lengths)) or lengths[-1] >= self.rounds:
            raise ValueError(
                f"warmup_lengths must be increasing and below rounds = {self.rounds}, "
                f"got {list(lengths)}."
            )
        if "fed_avg" not in self.stages:
            raise ValueError("stages must have fed_avg, which the others are compared with.")


@register
class UpdateJumpSpec(
    WorldSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="update_jump",
):  # fmt: skip
    """Norms of local updates before and after averaging: full, one block in turn, value only."""

    job: ClassVar[str] = "linattn.experiments.jobs.update_jump:run"


@register
class PartScheduleSpec(
    WorldSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="part_schedule",
):  # fmt: skip
    """FedPart: orders at the first of `initial_rounds`, numbers of initial rounds in sequence."""

    job: ClassVar[str] = "linattn.experiments.jobs.part_schedule:run"

    deep: bool = True
    model: ModelSpec = ModelSpec(num_layers=3)
    groups: Literal["block", "layer", "kernel_value"] = "layer"
    initial_rounds: tuple[Index, ...] = (5, 0, 15)
    rounds_per_group: Count = 2
    orders: tuple[Order, ...] = ("sequential", "reverse", "random")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("initial_rounds", "orders"):
            held = getattr(self, name)
            if not held or len(set(held)) < len(held):
                raise ValueError(f"{name} must be distinct, at least one, got {list(held)}.")


@register
class PersonalAttentionSpec(
    WorldSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="personal_attention",
):  # fmt: skip
    """FedTP, local attention and averaged attention on fresh sequences of every client."""

    job: ClassVar[str] = "linattn.experiments.jobs.personal_attention:run"

    test_sequences: Count = 64
    embedding_dim: Count = 8
    server_lr: Positive = 2.0
    tuning_steps: Count = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data != "synthetic" or self.deep:
            raise ValueError("personal_attention is about the single layer on synthetic data.")


@register
class GatesSpec(
    WorldSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="gates",
):  # fmt: skip
    """ReLU gates along training, and FedSQ after pre-training of each of `pretraining` rounds."""

    job: ClassVar[str] = "linattn.experiments.jobs.gates:run"

    deep: bool = True
    pretraining: tuple[Index, ...] = (0, 5, 20)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.deep or self.model.feature_map != "relu":
            raise ValueError("gates need a deep model with feature_map 'relu'.")
        held = self.pretraining
        if not held or list(held) != sorted(set(held)) or held[-1] > self.rounds:
            raise ValueError(
                f"pretraining must be increasing, at most rounds = {self.rounds}, got {list(held)}."
            )


@register
class SelectionSpec(
    WorldSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="selection",
):  # fmt: skip
    """Selective training along λ; scores are divided by their mean, so λ has no units."""

    job: ClassVar[str] = "linattn.experiments.jobs.selection:run"

    deep: bool = True
    budget: Count = 2
    consistency: tuple[NonNegative, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 10.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        held = self.consistency
        if not held or list(held) != sorted(set(held)):
            raise ValueError(f"consistency must be strictly increasing, got {list(held)}.")
