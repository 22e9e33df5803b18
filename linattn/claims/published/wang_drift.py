"""Wang et al. 2022: the average drift at the optimum, an identity on quadratics."""

import numpy as np

from linattn.claims.conditions import CLOSED_FORM, CONTRACTING, well_conditioned
from linattn.claims.frozen_runs import stage_of
from linattn.claims.ours.c07_frozen import simulated
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement
from linattn.theory.published import average_drift


def _measure(instance: Instance) -> Measurement:
    """E explicit local steps from V*, against the closed form."""
    stage = stage_of(instance)
    star, length = stage.minimizer, stage.local_lr * stage.local_steps
    moved = float(np.linalg.norm(simulated(instance, star, 1) - star)) / length
    norms = np.linalg.norm(stage.gradients_at_minimizer, axis=(1, 2))
    mean = float(stage.weights @ norms)
    return Measurement(
        moved,
        average_drift(stage),
        float(np.linalg.norm(star)) / length + moved + mean,
        constants=(Constant("Σp‖g_i*‖", mean, "exact"),),
    )


CLAIMS = (
    Claim(
        "average drift",
        "ρ = ‖V* − mean of E local steps from V*‖/(ηE) = ‖Σp S_i g_i*‖/E",
        "identity",
        "Wang et al. 2022",
        _measure,
        needs=CLOSED_FORM,
        conditions=(CONTRACTING, well_conditioned(1e4)),
        budget=LONG_BUDGET,
    ),
)
