"""C13: when to freeze without knowing the answer. Heuristics, reported and never judged."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from linattn.analysis.bias_drift import bias_drift
from linattn.claims.record import (
    Claim,
    Condition,
    Instance,
    Measurement,
    refused,
    shared,
)
from linattn.federated import fed_frozen, freeze_rule, run

if TYPE_CHECKING:
    import xarray as xr


def _rounds(instance: Instance) -> int:
    return max(4, instance.rounds)


@shared
def _every_length(instance: Instance) -> xr.Dataset:
    rounds = _rounds(instance)
    return bias_drift(
        instance.problem,
        instance.params,
        warmup_lengths=range(rounds + 1),
        rounds=rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        reference=0.0,
    )


def _measure(instance: Instance, rule: str) -> Measurement:
    rounds = _rounds(instance)
    result = run(
        fed_frozen(warmup_rounds=freeze_rule(rule)),
        instance.problem,
        instance.params,
        rounds=rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        metrics=("objective",),
    )
    table = _every_length(instance)
    finite = result.outcome.status == "completed" and table.attrs["warmup_star"] is not None
    condition = Condition("finite trajectory", 0.0 if finite else -1.0)
    if not finite:
        return refused(condition)
    oracle = float(np.min(np.where(table["stable"], table["objective"], np.inf)))
    measured = float(result.columns["objective"][-1])
    return Measurement(measured, oracle, abs(measured), conditions=(condition,))


CLAIMS = tuple(
    Claim(
        f"C13 {rule}",
        f"objective when freezing by the {rule} rule, beside the oracle T*",
        "report",
        "theory section 6",
        partial(_measure, rule=rule),
    )
    for rule in ("profile", "observable", "certified")
)
