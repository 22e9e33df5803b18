"""C13: when to freeze without knowing the answer. Heuristics, reported and never judged."""

from __future__ import annotations

from functools import partial

import numpy as np

from linattn.claims.along import every_length, settings
from linattn.claims.conditions import CLOSED_FORM
from linattn.claims.record import Claim, Instance, Measurement
from linattn.federated import fed_frozen, freeze_rule, run


def _measure(instance: Instance, rule: str) -> Measurement:
    method, how = fed_frozen(warmup_rounds=freeze_rule(rule)), settings(instance)
    result = run(method, instance.problem, instance.params, metrics=("objective",), **how)
    table = every_length(instance)
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
