"""Malinovsky et al. 2020: the fixed point of averaged contractions, constant re-derived."""

import numpy as np

from linattn.claims.conditions import CLOSED_FORM, NONEXPANSIVE, yes_or_no
from linattn.claims.frozen_runs import stage_of
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement
from linattn.theory.published import operator_bound


def _measure(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    bound = operator_bound(stage)
    assert bound is not None  # a condition
    return Measurement(
        float(np.linalg.norm(stage.bias)),
        bound,
        float(np.linalg.norm(stage.minimizer)),
        constants=(Constant("ηλ_max", stage.largest_step_curvature, "exact"),),
    )


CONTRACTION = yes_or_no(
    "ξ < 1",
    lambda at: operator_bound(stage_of(at)) is not None,
    "a local step contracts by less than a rounding",
    essential=True,
)
CLAIMS = (
    Claim(
        "Malinovsky",
        "‖V_∞ − V*‖ ≤ ξ(1 − ξ^{E−1})/((1 − ξ)(1 − ξ^E))·ηΣp‖g_i*‖, constant re-derived",
        "upper",
        "Malinovsky et al. 2020",
        _measure,
        needs=CLOSED_FORM,
        conditions=(NONEXPANSIVE, CONTRACTION),
        budget=LONG_BUDGET,
    ),
)
