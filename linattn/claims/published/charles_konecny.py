"""Charles and Konečný 2021: convergence against accuracy of local steps on quadratics."""

import numpy as np

from linattn.claims.conditions import CLOSED_FORM, client_steps
from linattn.claims.frozen_runs import stage_of
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement, Requirement
from linattn.theory.published import alignment_bound, surrogate_condition_bound

MAX_CONDITION = 1e6


def _condition_number(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    values = np.linalg.eigvalsh(stage.surrogate_hessian)
    measured, bound = float(values[-1] / values[0]), surrogate_condition_bound(stage)
    return Measurement(measured, bound, bound * measured)  # values are known to a share of the last


def _alignment(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    return Measurement(
        float(np.linalg.norm(stage.bias)),
        alignment_bound(stage),
        float(np.linalg.norm(stage.minimizer)),
        constants=(Constant("k_E", surrogate_condition_bound(stage), "closed form"),),
    )


TAME = Requirement(
    f"k_E ≤ {MAX_CONDITION:g}",
    lambda at: MAX_CONDITION - abs(surrogate_condition_bound(stage_of(at))),
)
SOURCE = "Charles and Konečný 2021"
CLAIMS = (
    Claim(
        "Charles–Konečný condition",
        "cond(Σp S_iA_i) ≤ (1 − (1 − ηL)^E)/(1 − (1 − ημ)^E)",
        "upper",
        SOURCE,
        _condition_number,
        needs=CLOSED_FORM,
        conditions=(client_steps(1.0), TAME),
    ),
    Claim(
        "Charles–Konečný alignment",
        "‖V_∞ − V*‖ ≤ 8C(√k_0 − √k_E)/(√k_0 + √k_E), ‖V_i‖ ≤ C",
        "upper",
        SOURCE,
        _alignment,
        needs=CLOSED_FORM,
        conditions=(client_steps(1.0),),
        provenance="recalled",
        budget=LONG_BUDGET,
    ),
)
