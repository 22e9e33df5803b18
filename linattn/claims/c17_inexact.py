"""Inexact gradient descent: the theorems that the warm-up must be compared with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn.claims.along import Row, shown
from linattn.claims.record import (
    LONG_BUDGET,
    Claim,
    Condition,
    Constant,
    Instance,
    Measurement,
    refused,
)
from linattn.claims.value_descent import (
    Curvatures,
    ValueDescent,
    curvatures,
    rounding,
    stage_of,
    value_descent,
)
from linattn.objectives import Joint, ValueBlock
from linattn.theory.drift import dissimilarity, quadratic_drift_factor
from linattn.theory.frozen import FrozenStage
from linattn.theory.inexact import (
    CompositeBound,
    composite_bound,
    descent_chain,
    pl_rate,
    relative_decrease,
)

ROUNDING_SQ = 1e-20
"""Square of the relative distance from V* below which a gap is rounding."""
SLOPES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Values of B_d that are tried; every one gives a valid bound."""


def _constants(curved: Curvatures) -> tuple[Constant, ...]:
    return (
        Constant("L = λ_max(A)", curved.largest, "exact"),
        Constant("μ = λ_min(A)", curved.smallest, "exact"),
    )


def _scale(descent: ValueDescent, stage: FrozenStage) -> float:
    eta = descent.step_size
    terms = float(descent.excess.max() + 0.5 * eta * np.max(descent.error_norms**2))
    return terms + rounding(stage, LONG_BUDGET)


def _absolute(instance: Instance) -> Measurement:
    """Local steps of the frozen stage with their measured errors."""
    stage = stage_of(instance)
    descent, finite = value_descent(instance, stage, every_round=False)
    if descent is None:
        return refused(finite)
    curved, eta = curvatures(stage), descent.step_size
    small = Condition("ηL ≤ 1", 1.0 - eta * curved.largest)
    moduli = np.full(len(descent.errors), curved.smallest)
    chain = descent_chain(float(descent.excess[0]), eta, moduli, descent.error_norms**2)
    scale = _scale(descent, stage)
    rows = [(float(m), float(b), scale) for m, b in zip(descent.excess[1:], chain, strict=True)]
    return Measurement(
        *shown(rows, LONG_BUDGET),
        conditions=(finite, small),
        constants=_constants(curved),
        budget=LONG_BUDGET,
    )


def _relative_rows(
    descent: ValueDescent, curved: Curvatures, scale: float
) -> tuple[list[Row], list[float]]:
    """Steps up to the first whose error is too large for the rate, and the slack of each."""
    rows, slacks = [], []
    eta = descent.step_size
    sizes = np.maximum(descent.slope_norms, 1e-300)
    for k, error in enumerate(descent.error_norms / sizes):
        slack = min(2.0 - eta * curved.largest * (1.0 + error), 1.0 - error)
        if slack < 0 and k > 0:
            break
        rate = 1.0 - 2.0 * curved.smallest * relative_decrease(eta, curved.largest, float(error))
        rows.append((float(descent.excess[k + 1]), rate * float(descent.excess[k]), scale))
        slacks.append(slack)
    return rows, slacks


def _relative(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    descent, finite = value_descent(instance, stage, every_round=False)
    if descent is None:
        return refused(finite)
    curved = curvatures(stage)
    rows, slacks = _relative_rows(descent, curved, _scale(descent, stage))
    return Measurement(
        *shown(rows, LONG_BUDGET),
        conditions=(finite, Condition("η < 2/(L(1 + ε)) and ε ≤ 1", min(slacks))),
        constants=(*_constants(curved), Constant("steps", len(rows), "counted")),
        budget=LONG_BUDGET,
    )


class _Composite(NamedTuple):
    """The best bound, with the dissimilarity G_d + B_d‖∇F‖ it uses."""

    bound: CompositeBound
    offset: float
    slope: float


def _best_composite(descent: ValueDescent, stage: FrozenStage, curved: Curvatures) -> _Composite:
    """The best bound over B_d, each with its own G_d from the visited points."""
    factor = quadratic_drift_factor(min(1.0, stage.local_lr * curved.clients), stage.local_steps)
    means = descent.client_norms @ stage.weights
    found = []
    for slope in SLOPES:
        offset = dissimilarity(means, descent.slope_norms, slope)
        bound = composite_bound(
            float(descent.excess[0]),
            len(descent.errors),
            step_size=descent.step_size,
            modulus=curved.smallest,
            relative=factor * slope,
            absolute=factor * offset,
        )
        if bound is not None:  # B_d = 0 is always among them
            found.append(_Composite(bound, offset, slope))
    return min(found, key=lambda one: one.bound.value)


def _composite(instance: Instance) -> Measurement:
    """Rounds of the frozen stage as steps of size ηE with ‖e‖ ≤ ψ_q(G_d + B_d‖∇F‖)."""
    stage = stage_of(instance)
    descent, finite = value_descent(instance, stage, every_round=True)
    if descent is None:
        return refused(finite)
    curved = curvatures(stage)
    best = _best_composite(descent, stage, curved)
    return Measurement(
        float(descent.excess[-1]),
        best.bound.value,
        _scale(descent, stage),
        conditions=(
            finite,
            Condition("ηEL ≤ 1", 1.0 - descent.step_size * curved.largest),
            Condition("ηλ_max(A_i) ≤ 1", 1.0 - stage.local_lr * curved.clients),
        ),
        constants=(
            *_constants(curved),
            Constant("split s", best.bound.split, "minimizer of the bound"),
            Constant("B_d", best.slope, "minimizer of the bound over a few values"),
            Constant("G_d", best.offset, "supremum over the visited points"),
        ),
        budget=LONG_BUDGET,
    )


def _exact(instance: Instance) -> Measurement:
    """Exact gradient descent on the value block, by the gradient of the joint objective."""
    stage = stage_of(instance)
    curved = curvatures(stage)
    joint, block = Joint(instance.problem), ValueBlock(instance.problem, instance.params)
    eta = instance.local_lr
    small = Condition("η ≤ 2/L", 2.0 - eta * curved.largest)
    rate = pl_rate(min(eta, 2.0 / curved.largest), curved.largest, curved.smallest)
    # Where V is V* to rounding, rounding decides.
    floor = ROUNDING_SQ * 0.5 * curved.largest * float(np.sum(stage.minimizer**2))
    params, rows = instance.params, list[Row]()
    for _ in range(min(instance.local_steps, 10)):
        before = block.gap(params.value)
        if before <= floor:
            break
        params = params.replace(value=params.value - eta * joint.gradient(params).value)
        rows.append((block.gap(params.value), rate * before, before))
    if not rows:
        return refused(small, Condition("V_0 apart from V*", -1.0))
    return Measurement(
        *shown(rows, LONG_BUDGET),
        conditions=(small,),
        constants=(*_constants(curved), Constant("rate", rate, "closed form, three regimes")),
        budget=LONG_BUDGET,
    )


SOURCE = "literature: inexact gradient descent"
FROZEN = ("full batches", "full participation")
CLAIMS = (
    Claim(
        "inexact absolute",
        "f_T − f* ≤ (1 − ημ)^T Δ_0 + (η/2)Σ(1 − ημ)^{T−1−t}‖e_t‖², local steps on V",
        "upper",
        SOURCE,
        _absolute,
        assumptions=(*FROZEN, "ηL ≤ 1"),
    ),
    Claim(
        "inexact relative",
        "f⁺ − f* ≤ (1 − μη_e(2 − Lη_e))(f − f*), η_e = η(1 ∓ ε), local steps on V",
        "upper",
        SOURCE,
        _relative,
        assumptions=(*FROZEN, "η < 2/(L(1 + ε))", "ε ≤ 1"),
    ),
    Claim(
        "inexact composite",
        "f_T − f* ≤ rate^T Δ_0 + floor for rounds on V with ‖e‖ ≤ ψ_q(G_d + B_d‖∇F‖), best split",
        "upper",
        SOURCE,
        _composite,
        assumptions=(*FROZEN, "ηEL ≤ 1", "ηλ_max(A_i) ≤ 1"),
    ),
    Claim(
        "PL rate",
        "f⁺ − f* ≤ τ(η)(f − f*) for exact gradient steps, tight three-regime τ",
        "upper",
        SOURCE,
        _exact,
        assumptions=("η ≤ 2/L", "V_0 apart from V*"),
    ),
)
