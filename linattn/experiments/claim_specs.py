"""Specs of the simulations about bounds: over instances, and as ηE grows."""

from __future__ import annotations

from typing import ClassVar

from linattn.experiments.specs import Count, Index, Spec, SyntheticSpec, register


@register
class TightnessSpec(
    Spec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="tightness",
):  # fmt: skip
    """Every bound on random instances `first` .. `first + count` of a seed."""

    job: ClassVar[str] = "linattn.experiments.jobs.tightness:run"

    first: Index = 0
    count: Count = 20

    def cost(self) -> float:
        """Instances, in the unit of a gradient step on the base problem."""
        return 1e6 * self.count


class TrainedKernelSpec(SyntheticSpec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is measured at one kernel: after `rounds` rounds of `warmup_local_steps` steps."""

    rounds: Count = 10
    warmup_local_steps: Count = 10

    def cost(self) -> float:
        """Gradient steps of the warm-up, times the data."""
        data = self.problem.num_clients * self.problem.sequences_per_client
        return float(self.rounds * self.warmup_local_steps * data * self.problem.dim**2)


@register
class BoundsSpec(
    TrainedKernelSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="bounds",
):  # fmt: skip
    """The bias of the frozen stage between its bounds, and the rate, for every E."""

    job: ClassVar[str] = "linattn.experiments.jobs.bounds:run"

    local_steps: tuple[Count, ...] = (2, 3, 5, 8, 13, 20, 32, 50, 80, 130, 200, 320)


@register
class OrdersSpec(
    TrainedKernelSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="orders",
):  # fmt: skip
    """Drift, bias and mismatch at η = local_lr · 2⁻ᵏ, k < `halvings`, and for every E."""

    job: ClassVar[str] = "linattn.experiments.jobs.orders:run"

    local_steps: tuple[Count, ...] = (2, 3, 5, 9, 17, 33, 65)
    local_steps_fixed: Count = 10
    halvings: Count = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local_steps_fixed < 2 or min(self.local_steps) < 2:
            raise ValueError("local_steps_fixed and local_steps must be at least 2: at 1 no drift.")
