"""What claims about trajectories share: the trajectory of an instance, and which step to show."""

from __future__ import annotations

from collections.abc import Iterable

from linattn.analysis.descent_steps import DescentSteps, descent_steps
from linattn.analysis.trajectory import LocalPath, local_paths
from linattn.claims.record import Condition, Instance, shared
from linattn.federated.methods import fed_frozen

Row = tuple[float, float, float]
"""Measured, bound and the sum of |terms| of one step."""


@shared
def warmup_rounds(instance: Instance) -> list[LocalPath]:
    """The rounds of a FedAvg warm-up with minibatches and sampling as the instance has them."""
    return list(
        local_paths(
            instance.problem,
            instance.params,
            rounds=instance.rounds,
            local_steps=instance.local_steps,
            local_lr=instance.local_lr,
            batch_size=instance.batch_size,
            participation=instance.participation,
            seed=instance.seed,
        )
    )


@shared
def warmup_descent(instance: Instance) -> DescentSteps:
    """The same warm-up as inexact descent on P, with its certificate."""
    return descent_steps(
        instance.problem,
        instance.params,
        rounds=instance.rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        batch_size=instance.batch_size,
        participation=instance.participation,
        seed=instance.seed,
    )


@shared
def frozen_rounds(instance: Instance) -> list[LocalPath]:
    """Frozen rounds with full batches and full participation."""
    return list(
        local_paths(
            instance.problem,
            instance.params,
            rounds=instance.rounds,
            local_steps=instance.local_steps,
            local_lr=instance.local_lr,
            method=fed_frozen(warmup_rounds=0),
        )
    )


def finite(paths: list[LocalPath], rounds: int) -> Condition:
    """Whether the first rounds stayed finite: as many as are needed."""
    return Condition("finite trajectory", 0.0 if len(paths) >= rounds else -1.0)


def shown(rows: Iterable[Row], budget: float) -> Row:
    """The row that fails an upper bound the most, else the last: every step is judged."""
    listed = list(rows)
    worst = max(listed, key=lambda row: (row[0] - row[1]) / max(row[2], 1e-300))
    return worst if worst[0] - worst[1] > budget * worst[2] else listed[-1]
