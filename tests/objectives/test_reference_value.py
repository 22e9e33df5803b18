"""The reference value: best known P, its lower bound C15, and when it is certified."""

import numpy as np
import pytest
import reference as ref
from bridge import direction_like, make, moved, to_theta

import linattn as la
from linattn.objectives.population import population
from linattn.objectives.wide import dual_lower_bound, wide_fit, wide_form

TINY = {"dim": 2, "num_outputs": 2, "num_clients": 2, "sequences": (3, 4), "tokens": (3, 5),
        "value_ridge": 0.1, "kernel_ridge": 0.05, "noise": 0.2}  # fmt: skip


def tiny(seed, kind="merged", num_heads=1, **options):
    return make(seed, kind, num_heads, **(TINY | options))


def tau(problem):
    return float(np.sqrt(problem.value_ridge * problem.kernel_ridge))


@pytest.mark.parametrize(
    ("kind", "readout", "num_heads"),
    [("merged", "token", 1), ("merged", "mean", 2), ("factored", "token", 2),
     ("factored", "last", 1)],
)  # fmt: skip
def test_the_value_is_a_stationary_minimum_above_its_bound(kind, readout, num_heads):
    rng, inst, _, _, problem, params = tiny(num_heads, kind, num_heads, readout=readout)
    found = la.reference_value(problem, like=params, num_starts=2)
    assert found.params.layout == params.layout
    theta, V = to_theta(found.params)
    assert found.value == pytest.approx(ref.profile(inst, theta), rel=1e-9)
    assert ref.objective(inst, theta, V) == pytest.approx(found.value, rel=1e-9)
    slope = np.sqrt(sum(ref.norm_sq(g) for g in ref.profile_gradient(inst, theta)))
    assert found.gradient_norm == pytest.approx(slope, abs=1e-8)
    assert found.gradient_norm < 1e-4 * found.value
    assert found.lower_bound <= found.value * (1 + 1e-9)
    profile = la.KernelProfile(problem)
    assert found.value <= profile.value(params)
    for scale in (1e-2, 0.3):
        for _ in range(10):
            near = moved(found.params, direction_like(rng, params), scale)
            assert profile.value(near) >= found.value * (1 - 1e-9)


def test_wide_heads_are_certified_and_bound_every_width():
    """At H = min(d², dm) heads the merged model is convex in W: value = lower bound."""
    *_, problem, _ = tiny(0)
    wide = la.initial_params(problem, num_heads=4)
    best = la.reference_value(problem, like=wide, num_starts=2)
    assert best.certified
    assert best.lower_bound == pytest.approx(best.value, rel=1e-6)
    assert repr(best).startswith("Reference(certified ")
    for heads in (1, 2):
        like = la.initial_params(problem, num_heads=heads)
        found = la.reference_value(problem, like=like, num_starts=2)
        assert found.value >= best.lower_bound * (1 - 1e-9)
        assert found.lower_bound == pytest.approx(best.lower_bound, rel=1e-5)


def test_the_lower_bound_is_valid_at_any_point_and_equals_the_twin():
    rng, inst, *_, problem, _ = tiny(1)
    held, wide = population(problem), la.initial_params(problem, num_heads=4)
    best = la.reference_value(problem, like=wide, num_starts=2).value
    for heads in (1, 2, 3, 3):
        B, V = ref.random_merged(rng, inst, heads)
        bound = dual_lower_bound(held, B, V, tau(problem))
        assert bound == pytest.approx(ref.lower_bound(inst, B, V), rel=1e-8, abs=1e-12)
        assert bound <= best * (1 + 1e-9)


def test_the_wide_fit_meets_the_optimality_condition():
    _, inst, *_, problem, _ = tiny(2)
    fit = wide_fit(population(problem), tau(problem))
    norm = np.linalg.norm(ref.residual_matrix(inst, fit.kernel, fit.value), 2)
    assert norm <= tau(problem) * (1 + 1e-3)
    convex = ref.data_loss(inst, fit.kernel, fit.value)
    convex += tau(problem) * np.linalg.norm(ref.function_matrix(fit.kernel, fit.value), "nuc")
    bound = ref.lower_bound(inst, fit.kernel, fit.value)
    assert bound <= convex * (1 + 1e-12)
    assert bound == pytest.approx(convex, rel=1e-5)


def test_the_factored_bound_against_the_twin_and_against_every_start():
    _, inst, *_, problem, params = tiny(0, "factored", sequences=(12, 12))
    found = la.reference_value(problem, like=params, num_starts=3)
    assert found.lower_bound <= found.value
    plain = wide_form(population(problem)).solve_least_squares()
    assert plain == pytest.approx(ref.least_squares(inst), rel=1e-6, abs=1e-9)
    assert found.lower_bound >= plain * (1 - 1e-9)
    threshold = ref.factored_threshold(inst, found.value, plain)
    fit = wide_fit(population(problem), threshold)
    expected = ref.factored_lower_bound(inst, fit.kernel, fit.value, found.value, plain)
    assert found.lower_bound == pytest.approx(expected, rel=1e-6)
    # Wider factored models beat narrow ones, and none beats the bound.
    like = la.initial_params(problem, num_heads=4, kernel="factored")
    wide = la.reference_value(problem, like=like, num_starts=3)
    assert wide.value >= found.lower_bound * (1 - 1e-9)


def test_a_collapsed_problem_is_certified_at_zero():
    """σ_max² ≤ λμ: the zero kernel is the global minimizer, P = c̄/2."""
    _, inst, *_, problem, params = tiny(1, value_ridge=50.0, kernel_ridge=50.0)
    first, second = ref.collapse(inst)
    assert first <= second
    found = la.reference_value(problem, like=params, num_starts=4)
    assert found.value == pytest.approx(0.5 * population(problem).form.energy, rel=1e-6)
    assert found.certified


def test_targets_of_zero():
    zeros = np.zeros((3, 4, 2))
    tokens = np.random.default_rng(0).standard_normal(zeros.shape)
    problem = la.problem_from_tokens([(tokens, zeros)], value_ridge=0.1, kernel_ridge=0.1)
    for kind in ("merged", "factored"):
        like = la.initial_params(problem, kernel=kind)
        found = la.reference_value(problem, like=like, num_starts=3)
        assert found.value == pytest.approx(0.0, abs=1e-12)
        assert found.lower_bound is None or found.lower_bound <= found.value + 1e-15


def test_the_same_seed_gives_the_same_answer_and_more_starts_never_a_worse_one():
    *_, problem, params = tiny(4)
    values = [la.reference_value(problem, like=params, num_starts=n).value for n in (1, 2, 2)]
    assert values[1] == values[2]
    assert values[0] >= values[1]


def test_refusals(small_problem, small_params):
    *_, problem, params = tiny(0, kernel_ridge=0.0)
    with pytest.raises(ValueError, match="problem must have kernel_ridge > 0 for a reference"):
        la.reference_value(problem, like=params)
    with pytest.raises(ValueError, match="num_starts must be an integer >= 1"):
        la.reference_value(small_problem, like=small_params, num_starts=0)
    with pytest.raises(ValueError, match="params must have a value block"):
        la.reference_value(small_problem, like=params)


@pytest.mark.parametrize("scale", [1e60, 1e100])
def test_data_beyond_floating_point_are_one_sentence(scale):
    rng = np.random.default_rng(0)
    clients = [tuple(scale * rng.normal(size=(2, 3, 4, 2))) for _ in range(2)]
    problem = la.problem_from_tokens(clients, value_ridge=0.1, kernel_ridge=0.1)
    with pytest.raises(ValueError, match="problem must be on a scale where its profile can be"):
        la.reference_value(problem, like=la.initial_params(problem), num_starts=2)
