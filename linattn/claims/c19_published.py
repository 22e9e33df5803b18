"""Published bounds on the frozen stage, beside C8 on the same instances."""

from __future__ import annotations

import numpy as np

from linattn.claims.along import shown
from linattn.claims.published_runs import (
    FULL,
    SOURCE,
    frozen_places,
    recalled,
    small_step,
    smoothness,
)
from linattn.claims.record import (
    LONG_BUDGET,
    Claim,
    Condition,
    Constant,
    Instance,
    Measurement,
    refused,
)
from linattn.claims.value_descent import curvatures, rounding, stage_of, value_descent
from linattn.federated import fed_frozen, run
from linattn.theory.published import (
    alignment_bound,
    average_drift,
    biased_descent_bound,
    heterogeneous_smoothness,
    operator_bound,
    surrogate_condition_bound,
)

MAX_CONDITION = 1e6
RELATIVE_PARTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)


def _operator(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    small = Condition("ηλ_max < 2", 2.0 - stage.largest_step_curvature - 1e-12)
    bound = operator_bound(stage)
    if bound is None:
        return refused(small)
    return Measurement(
        float(np.linalg.norm(stage.bias)),
        bound,
        float(np.linalg.norm(stage.minimizer)),
        conditions=(small,),
        constants=(Constant("ηλ_max", stage.largest_step_curvature, "exact"),),
        budget=LONG_BUDGET,
    )


def _condition_number(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    if stage.largest_step_curvature >= 2.0:
        return refused(small_step(stage, 1.0))
    values = np.linalg.eigvalsh(stage.surrogate_hessian)
    measured, bound = float(values[-1] / values[0]), surrogate_condition_bound(stage)
    tame = Condition(f"k_E ≤ {MAX_CONDITION:g}", MAX_CONDITION - bound)
    # An eigenvalue is known to a share of the largest one.
    return Measurement(
        measured,
        bound,
        bound * measured,
        conditions=(small_step(stage, 1.0), tame),
        budget=LONG_BUDGET / 100.0,
    )


def _alignment(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    return Measurement(
        float(np.linalg.norm(stage.bias)),
        alignment_bound(stage),
        float(np.linalg.norm(stage.minimizer)),
        conditions=(small_step(stage, 1.0),),
        constants=(Constant("k_E", surrogate_condition_bound(stage), "closed form"),),
        budget=LONG_BUDGET,
    )


def _biased(instance: Instance) -> Measurement:
    """Local steps of the frozen stage, (m, ζ²) fitted to the visited errors, best of a few m."""
    stage = stage_of(instance)
    descent, condition = value_descent(instance, stage, every_round=False)
    if descent is None:
        return refused(condition)
    curved = curvatures(stage)
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
        float(descent.excess.max()) + bound + rounding(stage, LONG_BUDGET),
        conditions=(condition, small_step(stage, 1.0)),
        constants=(Constant("μ", curved.smallest, "exact"),),
        budget=LONG_BUDGET,
    )


def _average_drift(instance: Instance) -> Measurement:
    """E explicit local steps from V*, against the closed form."""
    stage = stage_of(instance)
    tame = Condition("ρ(M̂) < 1", 1.0 - stage.rate)
    conditioned = Condition("cond(A) ≤ 1e4", 1e4 - float(np.linalg.cond(stage.hessian)))
    if min(tame.slack, conditioned.slack) < 0:
        return refused(tame, conditioned)
    star = stage.minimizer
    result = run(
        fed_frozen(warmup_rounds=0),
        instance.problem,
        instance.params.replace(value=star),
        rounds=1,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        metrics=(),
    )
    length = stage.local_lr * stage.local_steps
    moved = float(np.linalg.norm(result.params.value - star)) / length
    scale = float(np.linalg.norm(star)) / length + moved
    norms = np.linalg.norm(stage.gradients_at_minimizer, axis=(1, 2))
    return Measurement(
        moved,
        average_drift(stage),
        scale + float(stage.weights @ norms),
        conditions=(tame, conditioned),
        constants=(Constant("Σp‖g_i*‖", float(stage.weights @ norms), "exact"),),
        budget=LONG_BUDGET,
    )


def _lipschitz(instance: Instance) -> Measurement:
    held, condition = frozen_places(instance)
    if held is None:
        return refused(condition)
    stage, lag = held.stage, held.places - held.means[:, :, None]
    changes = np.einsum("i,reiam->ream", stage.weights, stage.hessians @ lag)
    measured = np.linalg.norm(changes, axis=(-2, -1)).ravel()
    apart = np.sqrt(np.sum(lag**2, axis=(-2, -1)) @ stage.weights).ravel()
    constant = heterogeneous_smoothness(stage)
    size = float(np.linalg.norm(held.places, axis=(-2, -1)).max())
    scale = np.full_like(apart, smoothness(stage) * size)
    rows = [(float(m), constant * float(a), float(s))
            for m, a, s in zip(measured, apart, scale, strict=True)]  # fmt: skip
    return Measurement(
        *shown(rows, LONG_BUDGET),
        conditions=(condition,),
        constants=(Constant("L_h", constant, "exact"),),
        budget=LONG_BUDGET,
    )


CLAIMS = (
    Claim(
        "Malinovsky",
        "‖V_∞ − V*‖ ≤ ξ(1 − ξ^{E−1})/((1 − ξ)(1 − ξ^E))·ηΣp‖g_i*‖, constant re-derived",
        "upper",
        SOURCE,
        _operator,
        assumptions=(*FULL, "η < 2/λ_max(A_i)"),
    ),
    Claim(
        "Charles–Konečný condition",
        "cond(Σp S_iA_i) ≤ (1 − (1 − ηL)^E)/(1 − (1 − ημ)^E)",
        "upper",
        SOURCE,
        _condition_number,
        assumptions=(*FULL, "ηL ≤ 1", f"k_E ≤ {MAX_CONDITION:g}"),
    ),
    recalled(
        "Charles–Konečný alignment",
        "‖V_∞ − V*‖ ≤ 8C(√k_0 − √k_E)/(√k_0 + √k_E), ‖V_i‖ ≤ C",
        _alignment,
        "ηL ≤ 1",
    ),
    recalled(
        "Ajalloeian–Stich",
        "f_T − f* ≤ (1 − ημ(1 − m))^T Δ_0 + ζ²/(2μ(1 − m)), ‖e‖² ≤ m‖∇f‖² + ζ²",
        _biased,
        "ηL ≤ 1",
    ),
    Claim(
        "average drift",
        "ρ = ‖V* − mean of E local steps from V*‖/(ηE) = ‖Σp S_i g_i*‖/E",
        "identity",
        SOURCE,
        _average_drift,
        assumptions=(*FULL, "ρ(M̂) < 1", "cond(A) ≤ 1e4"),
    ),
    Claim(
        "heterogeneous smoothness",
        "‖Σp∇F_i(V_i) − ∇F(V̄)‖ ≤ ‖Σp(A_i − A)²‖₂^½ (Σp‖V_i − V̄‖²)^½",
        "upper",
        SOURCE,
        _lipschitz,
        assumptions=("full batches", "full participation"),
    ),
)
