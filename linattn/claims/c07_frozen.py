"""C7 and C8: the frozen stage is a linear recursion with a known fixed point."""

import numpy as np

from linattn.claims.record import (
    LONG_BUDGET,
    Claim,
    Condition,
    Constant,
    Instance,
    Measurement,
    refused,
)
from linattn.claims.value_descent import stage_of
from linattn.federated import fed_frozen, run
from linattn.theory import FrozenStage
from linattn.types import Params

MAX_CONDITION = 1e4


def _simulate(instance: Instance, params: Params, rounds: int) -> np.ndarray:
    """Explicit frozen rounds: V_t."""
    result = run(
        fed_frozen(warmup_rounds=0),
        instance.problem,
        params,
        rounds=rounds,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        metrics=(),
    )
    return result.params.value


def _conditions(stage: FrozenStage) -> tuple[Condition, ...]:
    condition = float(np.linalg.cond(stage.hessian))
    return (
        Condition("ρ < 1", 1.0 - stage.rate),
        Condition(f"cond(A) ≤ {MAX_CONDITION:g}", MAX_CONDITION - condition),
    )


def _closed_form(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    conditions = _conditions(stage)
    if min(c.slack for c in conditions) < 0:
        return refused(*conditions)
    rounds = max(1, instance.rounds)
    simulated = _simulate(instance, instance.params, rounds)
    predicted = stage.after(rounds)
    fixed = stage.fixed_point
    scale = float(np.linalg.norm(instance.params.value - fixed) + np.linalg.norm(fixed))
    return Measurement(
        float(np.linalg.norm(simulated)),
        float(np.linalg.norm(predicted)),
        scale,
        residual=float(np.linalg.norm(simulated - predicted)),
        conditions=conditions,
        constants=(Constant("ρ", stage.rate, "exact, one eigendecomposition"),),
    )


def _fixed_point(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    conditions = _conditions(stage)
    if min(c.slack for c in conditions) < 0:
        return refused(*conditions)
    fixed = stage.fixed_point
    after = _simulate(instance, instance.params.replace(value=fixed), 1)
    return Measurement(
        float(np.linalg.norm(after)),
        float(np.linalg.norm(fixed)),
        float(np.linalg.norm(fixed) + np.linalg.norm(stage.minimizer)),
        residual=float(np.linalg.norm(after - fixed)),
        conditions=conditions,
    )


def _bias_bound(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    condition = Condition("ηλ_max < 2", 2.0 - stage.largest_step_curvature - 1e-12)
    bound = stage.bias_bound
    if bound is None:
        return refused(condition)
    measured = float(np.linalg.norm(stage.bias))
    return Measurement(
        measured,
        bound,
        float(np.linalg.norm(stage.minimizer)),
        conditions=(condition,),
        constants=(Constant("ηλ_max", stage.largest_step_curvature, "exact"),),
        budget=LONG_BUDGET,
    )


def _first_order(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    measured, predicted = stage.bias, stage.first_order_bias
    scale = float(np.linalg.norm(stage.minimizer))
    return Measurement(
        float(np.linalg.norm(measured)), float(np.linalg.norm(predicted)), max(scale, 1e-300)
    )


SOURCE = "theory section 4"
CLAIMS = (
    Claim(
        "C7",
        "V_t = V_∞ + M̂ᵗ(V_0 − V_∞), against simulated rounds",
        "identity",
        SOURCE,
        _closed_form,
        assumptions=("full batches", "full participation", "ρ < 1", "cond(A) ≤ 1e4"),
    ),
    Claim(
        "C8",
        "a simulated round from V* + bias formula stays there",
        "identity",
        SOURCE,
        _fixed_point,
        assumptions=("full batches", "full participation", "ρ < 1", "cond(A) ≤ 1e4"),
    ),
    Claim(
        "C8 bound",
        "‖V_∞ − V*‖ ≤ Lipschitz(s)/λ_min(Σp S_i A_i/E) · Σp ‖A_i − A‖‖g_i*‖₂",
        "upper",
        SOURCE,
        _bias_bound,
        assumptions=("η < 2/λ_max(A_i) for all clients",),
    ),
    Claim(
        "C8 first order",
        "‖V_∞ − V*‖ ≈ ‖(η(E−1)/2) A⁻¹ Σp (A_i − A) g_i*‖ for η(E−1)λ_max ≪ 1",
        "report",
        SOURCE,
        _first_order,
    ),
)
