"""The runs that claims are measured on, each simulated once per instance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from linattn._typing import Array
from linattn.analysis.bias_drift import bias_drift
from linattn.analysis.descent_steps import DescentSteps, descent_steps
from linattn.analysis.trajectory import LocalPath, local_paths
from linattn.claims.record import Instance, shared
from linattn.federated import fed_avg, fed_frozen
from linattn.federated.method import Method, Plan, RoundContext, train_everything
from linattn.federated.rounds import run

if TYPE_CHECKING:
    import xarray as xr

Row = tuple[float, float, float]
"""Measured, bound and the sum of |terms| of one step."""


def settings(instance: Instance) -> dict[str, Any]:
    """How the rounds of an instance are run, as arguments of `run`."""
    names = ("rounds", "local_steps", "local_lr", "batch_size", "participation", "seed")
    return {name: getattr(instance, name) for name in names}


def frozen_method(instance: Instance, warmup_rounds: int = 0) -> Method:
    """The method of an instance with the kernel frozen after some rounds.

    Raises
    ------
    ValueError
        If the method plans itself what is trained.
    """
    method = instance.method
    if method is None:
        return fed_frozen(warmup_rounds=warmup_rounds)
    if method.plan is not train_everything:
        raise ValueError(f"method must leave to the claim what is frozen, got {method}.")

    def plan(context: RoundContext, memory: object) -> Plan:
        layout = context.params.layout
        frozen = context.round >= warmup_rounds
        return Plan(layout.value_blocks if frozen else frozenset(layout.names), context.local_lr)

    return replace(method, plan=plan)


@shared
def warmup_rounds(instance: Instance) -> list[LocalPath]:
    """The rounds of the warm-up, as far as they are finite."""
    method, how = instance.method or fed_avg(), settings(instance)
    return list(local_paths(instance.problem, instance.params, method=method, **how))


@shared
def warmup_descent(instance: Instance) -> DescentSteps:
    """The same warm-up as inexact descent on P, with its certificate."""
    method, how = instance.method or fed_avg(), settings(instance)
    return descent_steps(instance.problem, instance.params, method=method, **how)


def server_path(instance: Instance, **changes: Any) -> Array:
    """The server's parameters of all rounds, as far as they are finite: (n + 1, D)."""
    method, how = instance.method or fed_avg(), settings(instance) | changes
    result = run(method, instance.problem, instance.params, metrics=(), record_params=True, **how)
    return np.stack([params.flat for params in result.path])


@shared
def frozen_rounds(instance: Instance) -> list[LocalPath]:
    """Rounds with the kernel frozen, as far as they are finite."""
    method, how = frozen_method(instance), settings(instance)
    return list(local_paths(instance.problem, instance.params, method=method, **how))


def shown(rows: Iterable[Row], budget: float) -> Row:
    """The row that fails an upper bound the most, else the last: every step is judged."""
    listed = list(rows)
    worst = max(listed, key=lambda row: (row[0] - row[1]) / max(row[2], 1e-300))
    return worst if worst[0] - worst[1] > budget * worst[2] else listed[-1]


@shared
def every_length(instance: Instance) -> xr.Dataset:
    """The table of C9 at every warm-up length of an instance, above nothing."""
    return bias_drift(
        instance.problem,
        instance.params,
        warmup_lengths=range(instance.rounds + 1),
        rounds=instance.rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        reference=0.0,
    )
