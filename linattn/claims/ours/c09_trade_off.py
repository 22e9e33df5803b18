"""C9: the loss after both stages is kernel bias plus value drift, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from linattn.analysis.bias_drift import PARTS, bias_drift
from linattn.claims.along import frozen_method, settings
from linattn.claims.conditions import CLOSED_FORM, DIVERGED, strict, yes_or_no
from linattn.claims.record import Claim, Instance, Measurement, Requirement, shared
from linattn.claims.sizes import loss_terms
from linattn.federated import run

if TYPE_CHECKING:
    import xarray as xr


@shared
def _simulated(instance: Instance) -> float:
    """F(B_T, V_R) with T half of the rounds, by an explicit run; NaN if it diverges."""
    method, how = frozen_method(instance, instance.rounds // 2), settings(instance)
    result = run(method, instance.problem, instance.params, metrics=("objective",), **how)
    finite = result.outcome.status == "completed"
    return float(result.columns["objective"][-1]) if finite else float("nan")


@shared
def _predicted(instance: Instance) -> xr.Dataset:
    table = bias_drift(
        instance.problem,
        instance.params,
        warmup_lengths=[instance.rounds // 2],
        rounds=instance.rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        reference=0.0,
    )
    return table.isel(warmup=0)


def _measure(instance: Instance) -> Measurement:
    measured, table = _simulated(instance), _predicted(instance)
    terms = [float(table[name]) for name in PARTS]
    scale = abs(measured) + float(np.abs(terms).sum()) + loss_terms(instance)
    return Measurement(measured, sum(terms), scale)


CLAIMS = (
    Claim(
        "C9",
        "F(B_T, V_R) = P(B_T) + transient + floor + cross, against a simulated run",
        "identity",
        "Trade-off",
        _measure,
        needs=CLOSED_FORM,
        conditions=(
            yes_or_no(
                "finite trajectory",
                lambda at: bool(np.isfinite(_simulated(at))),
                DIVERGED,
                essential=True,
            ),
            Requirement("ρ(M̂) < 1 at B_T", lambda at: strict(1.0 - float(_predicted(at)["rate"]))),
        ),
    ),
)
