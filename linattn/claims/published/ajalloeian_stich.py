"""Ajalloeian and Stich 2020: biased gradient descent under PL, without noise."""

import numpy as np

from linattn.claims.conditions import FED_AVG, FINITE_FROZEN, client_steps
from linattn.claims.frozen_runs import curvatures, local_descent, stage_of
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement
from linattn.theory.published import biased_descent_bound

RELATIVE_PARTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)


def _measure(instance: Instance) -> Measurement:
    """Local steps of the frozen stage, (m, ζ²) fitted to the visited errors, best of a few m."""
    descent, curved = local_descent(instance), curvatures(instance)
    slopes, errors = descent.slope_norms**2, descent.error_norms**2
    bound = min(
        biased_descent_bound(
            float(descent.excess[0]),
            len(errors),
            step_size=descent.step_size,
            modulus=curved.smallest,
            relative=part,
            absolute=float(max(0.0, np.max(errors - part * slopes))),
        )
        for part in RELATIVE_PARTS
    )
    return Measurement(
        float(descent.excess[-1]),
        bound,
        bound + descent.scale(stage_of(instance), LONG_BUDGET),
        constants=(Constant("μ", curved.smallest, "exact"),),
    )


CLAIMS = (
    Claim(
        "Ajalloeian–Stich",
        "f_T − f* ≤ (1 − ημ(1 − m))^T Δ_0 + ζ²/(2μ(1 − m)), ‖e‖² ≤ m‖∇f‖² + ζ²",
        "upper",
        "Ajalloeian and Stich 2020",
        _measure,
        needs=FED_AVG,
        conditions=(FINITE_FROZEN, client_steps(1.0)),
        provenance="recalled",
        budget=LONG_BUDGET,
    ),
)
