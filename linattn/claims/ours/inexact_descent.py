"""Inexact gradient descent: what the warm-up must be compared with, on the value block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn.claims.along import Row, shown
from linattn.claims.conditions import CLOSED_FORM, FED_AVG, FINITE_FROZEN, client_steps, mean_steps
from linattn.claims.frozen_runs import curvatures, local_descent, stage_of, value_descent
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement, Requirement
from linattn.theory.drift import dissimilarity, quadratic_drift_factor
from linattn.theory.inexact import CompositeBound, composite_bound, descent_chain, relative_decrease

SLOPES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Values of B_d that are tried; every one gives a valid bound."""


def _absolute(instance: Instance) -> Measurement:
    """Local steps of the frozen stage with their measured errors."""
    descent, curved = local_descent(instance), curvatures(instance)
    moduli = np.full(len(descent.errors), curved.smallest)
    start, step = float(descent.excess[0]), descent.step_size
    chain = descent_chain(start, step, moduli, descent.error_norms**2)
    scale = descent.scale(stage_of(instance), LONG_BUDGET)
    rows = [(float(m), float(b), scale) for m, b in zip(descent.excess[1:], chain, strict=True)]
    return Measurement(*shown(rows, LONG_BUDGET), constants=curved.constants)


def _relative_slacks(instance: Instance) -> list[tuple[float, float]]:
    """ε and the slack of every step up to the first, but the very first, that is too inexact."""
    descent, curved = local_descent(instance), curvatures(instance)
    found: list[tuple[float, float]] = []
    for error in descent.error_norms / np.maximum(descent.slope_norms, 1e-300):
        slack = min(2.0 - descent.step_size * curved.largest * (1.0 + error), 1.0 - error)
        if slack < 0 and found:
            break
        found.append((float(error), float(slack)))
    return found


def _relative(instance: Instance) -> Measurement:
    descent, curved = local_descent(instance), curvatures(instance)
    scale, rows = descent.scale(stage_of(instance), LONG_BUDGET), list[Row]()
    for k, (error, _) in enumerate(_relative_slacks(instance)):
        decrease = relative_decrease(descent.step_size, curved.largest, error)
        rate = 1.0 - 2.0 * curved.smallest * decrease
        rows.append((float(descent.excess[k + 1]), rate * float(descent.excess[k]), scale))
    steps = Constant("steps", len(rows), "counted")
    return Measurement(*shown(rows, LONG_BUDGET), constants=(*curved.constants, steps))


class _Composite(NamedTuple):
    """A bound, with the dissimilarity G_d + B_d‖∇F‖ it uses."""

    bound: CompositeBound
    offset: float
    slope: float


def _composite(instance: Instance) -> Measurement:
    """Rounds of the frozen stage as steps of size ηE with ‖e‖ ≤ ψ_q(G_d + B_d‖∇F‖).

    The best bound over B_d, each with its own G_d from the visited points.
    """
    stage, curved = stage_of(instance), curvatures(instance)
    descent = value_descent(instance, stage.local_steps)
    factor = quadratic_drift_factor(min(1.0, stage.largest_step_curvature), stage.local_steps)
    means, found = descent.client_norms @ stage.weights, list[_Composite]()
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
    best = min(found, key=lambda one: one.bound.value)
    return Measurement(
        float(descent.excess[-1]),
        best.bound.value,
        descent.scale(stage, LONG_BUDGET),
        constants=(
            *curved.constants,
            Constant("split s", best.bound.split, "minimizer of the bound"),
            Constant("B_d", best.slope, "minimizer of the bound over a few values"),
            Constant("G_d", best.offset, "supremum over the visited points"),
        ),
    )


CLAIMS = (
    Claim(
        "inexact absolute",
        "f_T − f* ≤ (1 − ημ)^T Δ_0 + (η/2)Σ(1 − ημ)^{T−1−t}‖e_t‖², local steps on V",
        "upper",
        "Inexact gradient descent",
        _absolute,
        needs=FED_AVG,
        conditions=(FINITE_FROZEN, mean_steps(1.0)),
        budget=LONG_BUDGET,
    ),
    Claim(
        "inexact relative",
        "f⁺ − f* ≤ (1 − μη_e(2 − Lη_e))(f − f*), η_e = η(1 ∓ ε), local steps on V",
        "upper",
        "Inexact gradient descent",
        _relative,
        needs=FED_AVG,
        conditions=(
            FINITE_FROZEN,
            Requirement(
                "η < 2/(L(1 + ε)) and ε ≤ 1", lambda at: min(s for _, s in _relative_slacks(at))
            ),
        ),
        budget=LONG_BUDGET,
    ),
    Claim(
        "inexact composite",
        "f_T − f* ≤ rate^T Δ_0 + floor for rounds on V with ‖e‖ ≤ ψ_q(G_d + B_d‖∇F‖), best split",
        "upper",
        "Inexact gradient descent",
        _composite,
        needs=CLOSED_FORM,
        conditions=(
            FINITE_FROZEN,
            Requirement(
                "ηEλ_max(A) ≤ 1",
                lambda at: 1.0 - at.local_lr * at.local_steps * curvatures(at).largest,
            ),
            client_steps(1.0),
        ),
        budget=LONG_BUDGET,
    ),
)
