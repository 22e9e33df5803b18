"""C15: a lower bound of the profile that holds for every number of heads."""

from linattn.analysis.applicable import MERGED
from linattn.claims.conditions import yes_or_no
from linattn.claims.record import (
    LONG_BUDGET,
    Claim,
    Constant,
    Instance,
    Measurement,
    Requirement,
    shared,
)
from linattn.claims.sizes import loss_terms
from linattn.objectives import Reference, reference_value
from linattn.objectives.descent import local_minimum
from linattn.objectives.population import population
from linattn.objectives.wide import dual_lower_bound

NUM_STARTS = 2
TINY = 1e-300


@shared
def _reference(instance: Instance) -> Reference:
    return reference_value(
        instance.problem, like=instance.params, num_starts=NUM_STARTS, seed=instance.seed
    )


def _measure(instance: Instance) -> Measurement:
    found = _reference(instance)
    assert found.lower_bound is not None  # a condition
    scale = abs(found.value) + loss_terms(instance)
    return Measurement(
        found.value,
        found.lower_bound,
        scale,
        constants=(Constant("certified", float(found.certified), "C15(b)"),),
    )


def _any_point(instance: Instance) -> Measurement:
    """The bound from the instance's own point, which is far from optimal."""
    params, problem = instance.params, instance.problem
    held = population(problem)
    threshold = (problem.value_ridge * problem.kernel_ridge) ** 0.5
    bound = dual_lower_bound(held, params.kernels(), params.value, threshold)
    value, *_ = local_minimum(problem, params)
    # The bound is a difference of terms of the size of the data loss.
    size = 2.0 * held.form.gradient(params.kernels(), params.value).loss + loss_terms(instance)
    return Measurement(value, bound, abs(value) + size)


RIDGE = Requirement("μ > 0", lambda at: at.problem.kernel_ridge - TINY, essential=True)
BOUNDED = yes_or_no(
    "moments of the data that fit in memory",
    lambda at: _reference(at).lower_bound is not None,
    "they are too large",
    essential=True,
)
CLAIMS = (
    Claim(
        "C15",
        "inf P over every number of heads ≥ the dual bound at a wide-head fit",
        "lower",
        "Objectives",
        _measure,
        conditions=(RIDGE, BOUNDED),
        budget=LONG_BUDGET,
        share=0.25,
    ),
    Claim(
        "C15 any point",
        "the dual bound is valid from any (B, V)",
        "lower",
        "Objectives",
        _any_point,
        needs=(MERGED,),
        conditions=(RIDGE,),
        budget=LONG_BUDGET,
    ),
)
