"""C14: the descent certificate as a chain of contractions with measured PL moduli."""

from __future__ import annotations

import numpy as np

from linattn.analysis.descent_steps import DescentSteps
from linattn.claims.along import shown, warmup_descent
from linattn.claims.record import (
    LONG_BUDGET,
    Claim,
    Condition,
    Constant,
    Instance,
    Measurement,
    refused,
)
from linattn.objectives.population import population
from linattn.objectives.reference import dual_lower_bound
from linattn.theory.inexact import descent_chain, measured_moduli


def _reference(instance: Instance, steps: DescentSteps) -> float:
    """A lower bound of inf P: C15 at the last iterate (merged), and never below zero."""
    problem, held = instance.problem, population(instance.problem)
    if steps.end.is_factored or problem.kernel_ridge <= 0.0:
        return 0.0
    star = held.value_system(steps.end.kernels()).minimizer.reshape(steps.end.value.shape)
    threshold = float(np.sqrt(problem.value_ridge * problem.kernel_ridge))
    return max(0.0, dual_lower_bound(held, steps.end.kernels(), star, threshold))


def _measure(instance: Instance) -> Measurement:
    steps = warmup_descent(instance)
    finite = Condition("finite trajectory", 0.0 if steps.completed else -1.0)
    if finite.slack < 0:
        return refused(finite)
    small = Condition("ηL ≤ 1 at every step", 1.0 - float(steps.eta_L.max()))
    reference, eta = _reference(instance, steps), instance.local_lr
    excess = steps.profile - reference
    moduli = measured_moduli(excess[:-1], steps.slopes_sq, eta)
    chain = descent_chain(float(excess[0]), eta, moduli, steps.errors_sq)
    scale = abs(steps.profile[0]) + reference + 0.5 * eta * float(steps.errors_sq.sum())
    rows = [(float(m), float(b), scale) for m, b in zip(excess[1:], chain, strict=True)]
    how = "zero" if reference == 0.0 else "C15 at the last iterate"
    return Measurement(
        *shown(rows, LONG_BUDGET),
        conditions=(finite, small),
        constants=(
            Constant("P_ref", reference, how),
            Constant("median m_k", float(np.median(moduli)), "measured along the path"),
        ),
        budget=LONG_BUDGET,
    )


CLAIMS = (
    Claim(
        "C14",
        "P(B_T) − P_ref ≤ Π(1 − ηm_k)Δ_0 + (η/2)Σ_kΠ_{j>k}(1 − ηm_j)‖ε_k‖², measured m_k",
        "upper",
        "theory section 3",
        _measure,
        assumptions=("finite trajectory", "ηL ≤ 1 at every step"),
    ),
)
