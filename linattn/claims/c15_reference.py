"""C15: a lower bound of the profile that holds for every number of heads."""

from linattn.claims.record import Claim, Condition, Constant, Instance, Measurement, refused
from linattn.objectives import reference_value
from linattn.objectives.population import population
from linattn.objectives.reference import dual_lower_bound, local_minimum

NUM_STARTS = 2


def _measure(instance: Instance) -> Measurement:
    positive = Condition("μ > 0", instance.problem.kernel_ridge - 1e-300)
    if positive.slack < 0:
        return refused(positive)
    found = reference_value(
        instance.problem, like=instance.params, num_starts=NUM_STARTS, seed=instance.seed
    )
    if found.lower_bound is None:
        return refused(Condition("data small enough for the least-squares bound", -1.0))
    scale = abs(found.value) + population(instance.problem).form.energy
    return Measurement(
        found.value,
        found.lower_bound,
        scale,
        conditions=(positive,),
        constants=(Constant("certified", float(found.certified), "C15(b)"),),
    )


def _any_point(instance: Instance) -> Measurement:
    """The bound from the instance's own point, which is far from optimal."""
    params, problem = instance.params, instance.problem
    if params.is_factored or problem.kernel_ridge <= 0.0:
        return refused(Condition("merged kernel and μ > 0", -1.0))
    held = population(problem)
    threshold = (problem.value_ridge * problem.kernel_ridge) ** 0.5
    bound = dual_lower_bound(held, params.kernels(), params.value, threshold)
    value, _ = local_minimum(problem, params)
    return Measurement(value, bound, abs(value) + held.form.energy)


CLAIMS = (
    Claim(
        "C15",
        "inf P over every number of heads ≥ the dual bound at a wide-head fit",
        "lower",
        "theory section 2",
        _measure,
        assumptions=("μ > 0",),
        share=0.25,
    ),
    Claim(
        "C15 any point",
        "the dual bound is valid from any (B, V)",
        "lower",
        "theory section 2",
        _any_point,
        assumptions=("merged kernel", "μ > 0"),
    ),
)
