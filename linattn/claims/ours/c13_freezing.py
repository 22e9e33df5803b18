"""C13: when to freeze without knowing the answer. Heuristics, reported and never judged."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from linattn.analysis.bias_drift import bias_drift
from linattn.claims.along import settings
from linattn.claims.conditions import CLOSED_FORM
from linattn.claims.record import Claim, Instance, Measurement, shared
from linattn.federated import fed_frozen, freeze_rule, run

if TYPE_CHECKING:
    import xarray as xr


@shared
def _every_length(instance: Instance) -> xr.Dataset:
    return bias_drift(
        instance.problem,
        instance.params,
        warmup_lengths=range(instance.rounds + 1),
        rounds=instance.rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        reference=0.0,
    )


def _measure(instance: Instance, rule: str) -> Measurement:
    method, how = fed_frozen(warmup_rounds=freeze_rule(rule)), settings(instance)
    result = run(method, instance.problem, instance.params, metrics=("objective",), **how)
    table = _every_length(instance)
    oracle = float(np.min(np.where(table["stable"], table["objective"], np.inf)))
    completed = result.outcome.status == "completed"
    measured = float(result.columns["objective"][-1]) if completed else float("inf")
    return Measurement(measured, oracle, abs(measured))


CLAIMS = tuple(
    Claim(
        f"C13 {rule}",
        f"objective when freezing by the {rule} rule, beside the oracle T*",
        "report",
        "When to freeze",
        partial(_measure, rule=rule),
        needs=CLOSED_FORM,
    )
    for rule in ("profile", "observable", "certified")
)
