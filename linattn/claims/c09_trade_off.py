"""C9: the loss after both stages is kernel bias plus value drift, exactly."""

import numpy as np

from linattn.analysis.bias_drift import bias_drift
from linattn.claims.record import Claim, Condition, Instance, Measurement, refused
from linattn.federated import fed_frozen, run
from linattn.objectives.population import population


def _measure(instance: Instance) -> Measurement:
    rounds = max(2, instance.rounds)
    warmup = rounds // 2
    result = run(
        fed_frozen(warmup_rounds=warmup),
        instance.problem,
        instance.params,
        rounds=rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        metrics=("objective",),
    )
    table = bias_drift(
        instance.problem,
        instance.params,
        warmup_lengths=[warmup],
        rounds=rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        reference=0.0,
    ).isel(warmup=0)
    completed = result.outcome.status == "completed"
    conditions = (
        Condition("finite trajectory", 0.0 if completed else -1.0),
        Condition("ρ < 1", 1.0 - float(table["rate"])),
    )
    if not all(c.slack >= 0 for c in conditions):
        return refused(*conditions)
    names = ("kernel_bias", "value_transient", "value_floor", "value_cross")
    terms = [float(table[name]) for name in names]
    measured = float(result.columns["objective"][-1])
    # P = ½c̄ − ½⟨C, V*⟩ + ridge: its own terms are of the size of c̄, however small P is.
    energy = population(instance.problem).form.energy
    scale = abs(measured) + float(np.abs(terms).sum()) + energy
    return Measurement(measured, sum(terms), scale, conditions=conditions)


CLAIMS = (
    Claim(
        "C9",
        "F(B_T, V_R) = P(B_T) + transient + floor + cross, against a simulated run",
        "identity",
        "theory section 5",
        _measure,
        assumptions=("full batches", "full participation", "ρ < 1"),
    ),
)
