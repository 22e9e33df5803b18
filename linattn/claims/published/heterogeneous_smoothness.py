"""The heterogeneity-driven Lipschitz constant of an ICLR 2024 submission, on quadratics."""

import numpy as np

from linattn.analysis.applicable import FULL_PARTICIPATION, PLAIN_STEPS
from linattn.claims.along import shown
from linattn.claims.conditions import FINITE_FROZEN
from linattn.claims.frozen_runs import frozen_places, smoothness
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement
from linattn.theory.published import heterogeneous_smoothness


def _measure(instance: Instance) -> Measurement:
    held = frozen_places(instance)
    stage, lag = held.stage, held.places - held.means[:, :, None]
    changes = np.einsum("i,reiam->ream", stage.weights, stage.hessians @ lag)
    measured = np.linalg.norm(changes, axis=(-2, -1)).ravel()
    apart = np.sqrt(np.sum(lag**2, axis=(-2, -1)) @ stage.weights).ravel()
    constant = heterogeneous_smoothness(stage)
    scale = smoothness(stage) * float(np.linalg.norm(held.places, axis=(-2, -1)).max())
    rows = [(float(m), constant * float(a), scale) for m, a in zip(measured, apart, strict=True)]
    return Measurement(*shown(rows, LONG_BUDGET), constants=(Constant("L_h", constant, "exact"),))


CLAIMS = (
    Claim(
        "heterogeneous smoothness",
        "‖Σp∇F_i(V_i) − ∇F(V̄)‖ ≤ ‖Σp(A_i − A)²‖₂^½ (Σp‖V_i − V̄‖²)^½",
        "upper",
        "heterogeneity-driven Lipschitz constant, ICLR 2024 submission",
        _measure,
        needs=(PLAIN_STEPS, FULL_PARTICIPATION),
        conditions=(FINITE_FROZEN,),
        budget=LONG_BUDGET,
    ),
)
