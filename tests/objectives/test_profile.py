"""The kernel profile, its minimizer, gradient and curvature, and the value block."""

import numpy as np
import pytest
import reference as ref
from bridge import (
    READOUTS,
    direction_like,
    from_instance,
    kinds,
    make,
    moved,
    over,
    readouts,
    relative_error,
    seeds,
    to_params,
    to_theta,
)
from hypothesis import assume
from hypothesis import strategies as st
from worlds import world

import linattn as la
from linattn.objectives.population import population
from linattn.objectives.profile import cheap_curvature_bound, kernel_curvature


@over(seeds, kinds, readouts)
def test_value_minimizer_and_gradient_against_the_twin(seed, kind, readout):
    _, inst, theta, _, problem, params = make(seed, kind, readout=readout)
    profile = la.KernelProfile(problem)
    assert profile.value(params) == pytest.approx(ref.profile(inst, theta), rel=1e-9)
    assert relative_error(profile.minimizer(params), ref.minimizer(inst, theta)) < 1e-8
    value, gradient = profile.value_and_gradient(params)
    assert value == profile.value(params)
    expected = ref.profile_gradient(inst, theta)
    got, zero = to_theta(gradient)
    scale = max(np.max(np.abs(g)) for g in expected)
    for left, right in zip(got, expected, strict=True):
        assert relative_error(left, right, scale) < 1e-8
    assert not zero.any()


@over(seeds, kinds, readouts)
def test_gradient_against_differences_of_the_value(seed, kind, readout):
    rng, *_, problem, params = make(seed, kind, readout=readout, value_ridge=0.3)
    profile, direction = la.KernelProfile(problem), direction_like(rng, params)
    direction = direction.replace(value=0 * direction.value)
    slope = ref.line_derivative(lambda t: profile.value(moved(params, direction, t)), step=1e-3)
    exact = profile.gradient(params).flat @ direction.flat
    scale = np.linalg.norm(profile.gradient(params).flat) * np.linalg.norm(direction.flat)
    assert abs(slope - exact) < 1e-6 * scale + 1e-9 * profile.value(params)


@over(seeds, kinds)
def test_the_minimizer_minimizes_by_brute_force(seed, kind):
    rng, *_, problem, params = make(seed, kind)
    joint, profile = la.Joint(problem), la.KernelProfile(problem)
    best = params.replace(value=profile.minimizer(params))
    assert joint.value(best) == pytest.approx(profile.value(params), rel=1e-9)
    size = np.linalg.norm(joint.gradient(best).value)
    assert size < 1e-10 * np.linalg.norm(la.ValueBlock(problem, params).linear)
    for _ in range(5):
        other = best.replace(value=best.value + 0.1 * rng.standard_normal(best.value.shape))
        assert joint.value(other) > joint.value(best)


def test_the_value_block_of_the_parameters_is_ignored(small_problem, small_params):
    profile = la.KernelProfile(small_problem)
    other = small_params.replace(value=100.0 + small_params.value)
    for call in (profile.value, profile.minimizer, profile.curvature):
        assert np.array_equal(call(small_params), call(other))
    assert np.array_equal(profile.gradient(small_params).flat, profile.gradient(other).flat)


# ------------------------------------------------------------------------ curvature


@over(seeds, readouts)
def test_curvature_is_a_tight_upper_bound(seed, readout):
    _, inst, (B,), _, problem, params = make(seed, readout=readout)
    exact = ref.curvature(inst, B)
    bound = la.KernelProfile(problem).curvature(params)
    assert exact * (1 - 1e-9) <= bound <= (1 + 1e-8) * exact
    value = la.KernelProfile(problem).minimizer(params)
    own = population(problem).form.twin.kernel_hessian(value)
    own = own + problem.kernel_ridge * np.eye(len(own))
    assert np.linalg.eigvalsh(own)[-1] <= bound
    cheap = cheap_curvature_bound(problem)(value)
    assert cheap >= exact * (1 - 1e-9)
    assert cheap == pytest.approx(ref.curvature_safe_bound(inst, B), rel=1e-8)


@over(seeds, st.sampled_from([1e-2, 1.0, 10.0]))
def test_curvature_bounds_the_increment(seed, scale):
    rng, *_, problem, params = make(seed)
    profile = la.KernelProfile(problem)
    D = scale * rng.standard_normal(params.kernel.shape)
    value, gradient = profile.value_and_gradient(params)
    upper = value + np.vdot(gradient.kernel, D)
    upper += 0.5 * profile.curvature(params) * np.vdot(D, D)
    after = profile.value(params.replace(kernel=params.kernel + D))
    assert after <= upper + 1e-10 * (abs(upper) + value)


def test_curvature_above_1024_rows():
    rng = np.random.default_rng(0)
    inst = ref.random_instance(
        rng, dim=34, num_outputs=2, num_clients=1, sequences=(2, 2), tokens=(3, 4),
        value_ridge=0.1, kernel_ridge=0.01, readout="token",
    )  # fmt: skip
    kernel, value = ref.random_merged(rng, inst, num_heads=1)
    problem, params = from_instance(inst), to_params(kernel, value)
    exact = ref.curvature(inst, kernel)
    assert exact <= la.KernelProfile(problem).curvature(params) <= 2 * exact


def test_curvature_at_a_zero_kernel_is_the_ridge():
    for dim in (3, 34):
        problem = world(sequences_per_client=2, dim=dim, num_outputs=1, kernel_ridge=0.25)
        params = la.Params.merged(np.zeros((dim, dim)), np.ones((dim, 1)))
        assert la.KernelProfile(problem).curvature(params) == 0.25


def test_curvature_of_factored_kernels_is_refused(small_problem, small_factored):
    with pytest.raises(ValueError, match="params must have a merged kernel: L_K of C3 bounds"):
        la.KernelProfile(small_problem).curvature(small_factored)


def test_profile_refuses_what_does_not_fit(small_problem):
    profile = la.KernelProfile(small_problem)
    bad = la.Params.merged(np.eye(2), np.ones((2, 2)))
    for call in (profile.value, profile.gradient, profile.minimizer, profile.curvature):
        with pytest.raises(ValueError, match="params must have a value block"):
            call(bad)
    assert repr(profile).startswith("KernelProfile(Problem(")


def test_an_indefinite_value_system_is_a_divergence(small_problem):
    huge = la.Params.merged(np.full((3, 3), 1e160), np.zeros((3, 2)))
    with pytest.raises(FloatingPointError):
        la.KernelProfile(small_problem).value(huge)


# ------------------------------------------------------------------------ steps


@over(seeds, kinds, readouts)
def test_safe_step_against_the_twin(seed, kind, readout):
    _, inst, theta, _, problem, params = make(seed, kind, readout=readout)
    assert la.safe_step(problem, params) == pytest.approx(ref.safe_step(inst, theta), rel=1e-7)


@over(seeds)
def test_a_safe_step_makes_centralized_descent_descend(seed):
    *_, problem, params = make(seed)
    joint = la.Joint(problem)
    params = params.replace(value=la.KernelProfile(problem).minimizer(params))
    step = la.safe_step(problem, params)
    value, gradient = joint.value_and_gradient(params)
    assume(np.linalg.norm(gradient.flat) > 1e-6)
    assert joint.value(moved(params, gradient, -step)) < value


def test_safe_step_refuses_what_does_not_fit(small_problem):
    with pytest.raises(ValueError, match="params must have a value block"):
        la.safe_step(small_problem, la.Params.merged(np.eye(2), np.ones((2, 2))))


def test_kernel_curvature_is_a_function_of_the_value_block(small_problem, small_params):
    held, value = population(small_problem), small_params.value
    tops = [kernel_curvature(held, t * value) - small_problem.kernel_ridge for t in (1.0, 2.0)]
    assert tops[1] == pytest.approx(4 * tops[0], rel=1e-10)


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", READOUTS)
def test_many_points_at_once_are_each_of_them_to_the_bit(kind, readout):
    *_, problem, start = make(11, kind, readout=readout)
    held = population(problem)
    points = [la.Params(start.layout, c * start.flat) for c in (1.0, 0.2, 3.0)]
    values = held.values(start.layout, np.stack([at.flat for at in points]))
    profiles = held.profiles(points)
    for at, value, profile in zip(points, values, profiles, strict=True):
        assert value == held.value_and_gradient(at)[0]
        assert profile == held.profile_value(at, held.value_system(at.kernels()))
