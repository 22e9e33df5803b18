"""Abbaszadehpeivasti, de Klerk and Zamani 2023, theorem 3: exact gradient steps under PL."""

import numpy as np

from linattn.claims.along import Row, shown
from linattn.claims.conditions import mean_steps
from linattn.claims.frozen_runs import curvatures, stage_of
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement, Requirement
from linattn.objectives import Joint, ValueBlock
from linattn.theory.inexact import pl_rate

MAX_STEPS = 10
ROUNDING_SQ = 1e-20
"""Square of the relative distance from V* below which a gap is rounding."""


def _smallest_gap(instance: Instance) -> float:
    size = float(np.sum(stage_of(instance).minimizer ** 2))
    return ROUNDING_SQ * 0.5 * curvatures(instance).largest * size


def _measure(instance: Instance) -> Measurement:
    """Exact gradient descent on the value block, by the gradient of the joint objective."""
    curved, eta = curvatures(instance), instance.local_lr
    joint, block = Joint(instance.problem), ValueBlock(instance.problem, instance.params)
    rate = pl_rate(min(eta, 2.0 / curved.largest), curved.largest, curved.smallest)
    params, rows = instance.params, list[Row]()
    gap, floor = block.gap(params.value), _smallest_gap(instance)
    for _ in range(min(instance.local_steps, MAX_STEPS)):
        if gap <= floor:
            break
        params = params.replace(value=params.value - eta * joint.gradient(params).value)
        before, gap = gap, block.gap(params.value)
        rows.append((gap, rate * before, before))
    return Measurement(
        *shown(rows, LONG_BUDGET),
        constants=(*curved.constants, Constant("rate", rate, "closed form, three regimes")),
    )


def _start_slack(instance: Instance) -> float:
    """How far the gap of V_0 is above rounding, in units of it."""
    gap = ValueBlock(instance.problem, instance.params).gap(instance.params.value)
    floor = _smallest_gap(instance)
    return gap - floor if gap > floor else -1.0


CLAIMS = (
    Claim(
        "PL rate",
        "f⁺ − f* ≤ τ(η)(f − f*) for exact gradient steps, tight three-regime τ",
        "upper",
        "Abbaszadehpeivasti, de Klerk and Zamani 2023",
        _measure,
        conditions=(
            mean_steps(2.0),
            Requirement("V_0 apart from V*", _start_slack, "rounding would decide", essential=True),
        ),
        provenance="paper",
        budget=LONG_BUDGET,
    ),
)
