"""C14: the descent certificate as a chain of contractions with measured PL moduli."""

import numpy as np

from linattn.analysis.descent_steps import DescentSteps
from linattn.claims.along import shown, warmup_descent
from linattn.claims.conditions import FED_AVG, FINITE_DESCENT
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement, Requirement
from linattn.claims.sizes import loss_terms
from linattn.objectives.population import population
from linattn.objectives.wide import dual_lower_bound
from linattn.theory.inexact import descent_chain, measured_moduli


def _reference(instance: Instance, steps: DescentSteps) -> float:
    """A lower bound of inf P: C15 at the last iterate (merged), and never below zero."""
    problem, held = instance.problem, population(instance.problem)
    if steps.end.is_factored or problem.kernel_ridge <= 0.0:
        return 0.0
    star = held.value_system(steps.end.kernels()).value
    threshold = float(np.sqrt(problem.value_ridge * problem.kernel_ridge))
    return max(0.0, dual_lower_bound(held, steps.end.kernels(), star, threshold))


def _measure(instance: Instance) -> Measurement:
    steps = warmup_descent(instance)
    reference, eta = _reference(instance, steps), instance.local_lr
    excess = steps.profile - reference
    moduli = measured_moduli(excess[:-1], steps.slopes_sq, eta)
    chain = descent_chain(float(excess[0]), eta, moduli, steps.errors_sq)
    paid = 0.5 * eta * float(steps.errors_sq.sum())
    scale = abs(steps.profile[0]) + reference + paid + loss_terms(instance)
    rows = [(float(m), float(b), scale) for m, b in zip(excess[1:], chain, strict=True)]
    how = "zero" if reference == 0.0 else "C15 at the last iterate"
    return Measurement(
        *shown(rows, LONG_BUDGET),
        constants=(
            Constant("P_ref", reference, how),
            Constant("median m_k", float(np.median(moduli)), "measured along the path"),
        ),
    )


CLAIMS = (
    Claim(
        "C14",
        "P(B_T) − P_ref ≤ Π(1 − ηm_k)Δ_0 + (η/2)Σ_kΠ_{j>k}(1 − ηm_j)‖ε_k‖², measured m_k",
        "upper",
        "Warm-up",
        _measure,
        needs=FED_AVG,
        conditions=(
            FINITE_DESCENT,
            Requirement(
                "ηL ≤ 1 at every step",
                lambda at: 1.0 - float(warmup_descent(at).eta_L.max()),
            ),
        ),
        budget=LONG_BUDGET,
    ),
)
