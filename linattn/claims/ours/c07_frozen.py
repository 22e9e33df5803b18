"""C7 and C8: the frozen stage is a linear recursion with a known fixed point."""

import numpy as np

from linattn._typing import Array
from linattn.claims.along import frozen_method, settings
from linattn.claims.conditions import CLOSED_FORM, CONTRACTING, NONEXPANSIVE, well_conditioned
from linattn.claims.frozen_runs import stage_of
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement
from linattn.federated import run


def simulated(instance: Instance, start: Array, rounds: int) -> Array:
    """V after explicit frozen rounds from V_0 = start."""
    params = instance.params.replace(value=start)
    how = settings(instance) | {"rounds": rounds}
    return run(frozen_method(instance), instance.problem, params, metrics=(), **how).params.value


def _closed_form(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    after = simulated(instance, stage.start, instance.rounds)
    predicted, fixed = stage.after(instance.rounds), stage.fixed_point
    scale = float(np.linalg.norm(stage.start - fixed) + np.linalg.norm(fixed))
    return Measurement(
        float(np.linalg.norm(after)),
        float(np.linalg.norm(predicted)),
        scale,
        residual=float(np.linalg.norm(after - predicted)),
        constants=(Constant("ρ", stage.rate, "exact, one eigendecomposition"),),
    )


def _fixed_point(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    fixed = stage.fixed_point
    after = simulated(instance, fixed, 1)
    return Measurement(
        float(np.linalg.norm(after)),
        float(np.linalg.norm(fixed)),
        float(np.linalg.norm(fixed) + np.linalg.norm(stage.minimizer)),
        residual=float(np.linalg.norm(after - fixed)),
    )


def _bias_bound(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    assert stage.bias_bound is not None  # a condition
    return Measurement(
        float(np.linalg.norm(stage.bias)),
        stage.bias_bound,
        float(np.linalg.norm(stage.minimizer)),
        constants=(Constant("ηλ_max", stage.largest_step_curvature, "exact"),),
    )


def _first_order(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    measured, predicted = (float(np.linalg.norm(b)) for b in (stage.bias, stage.first_order_bias))
    return Measurement(measured, predicted, float(np.linalg.norm(stage.minimizer)))


CLAIMS = (
    Claim(
        "C7",
        "V_t = V_∞ + M̂ᵗ(V_0 − V_∞), against simulated rounds",
        "identity",
        "Frozen stage",
        _closed_form,
        needs=CLOSED_FORM,
        conditions=(CONTRACTING, well_conditioned(1e4)),
    ),
    Claim(
        "C8",
        "a simulated round from V* + bias formula stays there",
        "identity",
        "Frozen stage",
        _fixed_point,
        needs=CLOSED_FORM,
        conditions=(CONTRACTING, well_conditioned(1e4)),
    ),
    Claim(
        "C8 bound",
        "‖V_∞ − V*‖ ≤ Lipschitz(s)/λ_min(Σp S_i A_i/E) · Σp ‖A_i − A‖‖g_i*‖₂",
        "upper",
        "Frozen stage",
        _bias_bound,
        needs=CLOSED_FORM,
        conditions=(NONEXPANSIVE,),
        budget=LONG_BUDGET,
    ),
    Claim(
        "C8 first order",
        "‖V_∞ − V*‖ ≈ ‖(η(E−1)/2) A⁻¹ Σp (A_i − A) g_i*‖ for η(E−1)λ_max ≪ 1",
        "report",
        "Frozen stage",
        _first_order,
        needs=CLOSED_FORM,
    ),
)
