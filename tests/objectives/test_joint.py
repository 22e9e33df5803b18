"""F and its derivatives: library, token-level twin, differences and Taylor remainders."""

import numpy as np
import pytest
import reference as ref
from bridge import INSTANCE, direction_like, make, moved, over, relative_error, to_theta

import linattn as la


def flat_gradient(inst, theta, V):
    return ref.flatten(*ref.gradient(inst, theta, V))


@over(*INSTANCE)
def test_value_and_gradient_against_the_twin(seed, kind, readout):
    _, inst, theta, V, problem, params = make(seed, kind, readout=readout)
    joint = la.Joint(problem)
    assert joint.value(params) == pytest.approx(ref.objective(inst, theta, V), rel=1e-11)
    gradient = joint.gradient(params)
    assert gradient.layout == params.layout
    assert relative_error(gradient.flat, flat_gradient(inst, theta, V)) < 1e-10


@over(*INSTANCE)
def test_gradient_and_hvp_against_the_taylor_remainder(seed, kind, readout):
    rng, *_, problem, params = make(seed, kind, readout=readout)
    joint, direction = la.Joint(problem), direction_like(rng, params)
    direction = la.Params(params.layout, direction.flat / np.linalg.norm(direction.flat))
    value, gradient = joint.value_and_gradient(params)
    slope = gradient.flat @ direction.flat
    bend = direction.flat @ joint.hvp(params, direction).flat
    steps = np.array([1e-1, 1e-2, 1e-3])
    values = np.array([joint.value(moved(params, direction, t)) for t in steps])
    first = (values - value - steps * slope) / steps**2
    # The quotient tends to half the second derivative, with an error of first order in t.
    error = np.abs(first - 0.5 * bend)
    noise = 1e-13 * value / steps**2
    assert error[2] <= 0.3 * error[:2].max() + noise[2]


@over(*INSTANCE)
def test_hvp_against_the_twin_and_differences(seed, kind, readout):
    rng, inst, theta, V, problem, params = make(seed, kind, readout=readout)
    joint, direction = la.Joint(problem), direction_like(rng, params)
    product = joint.hvp(params, direction)
    assert product.layout == params.layout
    expected = ref.flatten(*ref.joint_hvp(inst, theta, V, *to_theta(direction)))
    assert relative_error(product.flat, expected) < 1e-9
    by_stencil = ref.line_derivative(lambda t: joint.gradient(moved(params, direction, t)).flat)
    assert relative_error(product.flat, by_stencil) < 1e-9


@over(*INSTANCE)
def test_hvp_is_symmetric_and_linear(seed, kind, readout):
    rng, *_, problem, params = make(seed, kind, readout=readout)
    joint = la.Joint(problem)
    first, second = direction_like(rng, params), direction_like(rng, params)
    one, two = joint.hvp(params, first).flat, joint.hvp(params, second).flat
    scale = np.linalg.norm(one) * np.linalg.norm(second.flat)
    assert abs(second.flat @ one - first.flat @ two) < 1e-11 * scale
    both = joint.hvp(params, moved(first, second, -3.0)).flat
    assert relative_error(both, one - 3.0 * two) < 1e-10


@over(*INSTANCE)
def test_gap_against_the_twin_and_by_subtraction(seed, kind, readout):
    _, inst, theta, V, problem, params = make(seed, kind, readout=readout)
    gap, value = la.Joint(problem).gap(params), la.Joint(problem).value(params)
    assert gap == pytest.approx(ref.gap(inst, theta, V), rel=1e-9)
    assert gap == pytest.approx(value - la.KernelProfile(problem).value(params), abs=1e-10 * value)


def test_gap_keeps_its_digits_at_the_optimum(small_problem, small_params):
    best = small_params.replace(value=la.KernelProfile(small_problem).minimizer(small_params))
    rng = np.random.default_rng(0)
    hessian = la.ValueBlock(small_problem, small_params).hessian
    for size in (1e-3, 1e-6, 1e-9):
        lag = size * rng.standard_normal(best.value.shape)
        near = best.replace(value=best.value + lag)
        exact = 0.5 * ref.weighted_norm_sq(hessian, lag)
        assert la.Joint(small_problem).gap(near) == pytest.approx(exact, rel=1e-5)


def test_a_client_objective_is_the_problem_of_that_client():
    for seed in range(4):
        _, inst, theta, V, problem, params = make(seed)
        for i in range(problem.num_clients):
            joint = la.Joint(problem.subset([i]))
            assert joint.value(params) == pytest.approx(ref.client_objective(inst, i, theta, V))
            expected = ref.flatten(*ref.client_gradient(inst, i, theta, V))
            assert relative_error(joint.gradient(params).flat, expected) < 1e-10


def test_pooling_keeps_the_objective_when_weights_follow_sizes(small_problem, small_params):
    pooled = la.Joint(la.pool(small_problem))
    assert pooled.value(small_params) == pytest.approx(la.Joint(small_problem).value(small_params))


@pytest.mark.parametrize("scale", [1e100, 1e200, 1e307])
def test_losses_beyond_floating_point_are_infinite_without_a_warning(
    small_problem, small_params, scale
):
    huge, block = small_params.flat * scale, la.ValueBlock(small_problem, small_params)
    huge = la.Params(small_params.layout, huge)
    tokens, joint = np.ones((2, 4, 3)), la.Joint(small_problem)
    assert joint.value(huge) == joint.value_and_gradient(huge)[0] == np.inf
    assert la.loss(huge, tokens, np.ones((2, 4, 2))) == np.inf
    if scale > 1e150:
        assert block.value(huge.value) == block.gap(huge.value) == np.inf
        only_value = small_params.replace(value=huge.value)
        assert joint.gap(only_value) == joint.value(only_value) == np.inf


def test_representation(small_problem):
    assert repr(la.Joint(small_problem)).startswith("Joint(Problem(4 clients")


def test_parameters_that_do_not_fit_are_refused(small_problem, small_params, small_factored):
    joint = la.Joint(small_problem)
    narrow = la.Params.merged(np.eye(2), np.ones((2, 2)))
    odd = la.Params(la.Layout((("weights", (3,)),)), np.zeros(3))
    for bad in (narrow, odd):
        for call in (joint.value, joint.gradient, joint.gap):
            with pytest.raises(ValueError, match=r"params must have a value block of shape \(H, 3"):
                call(bad)
    with pytest.raises(ValueError, match="direction must have the blocks of params"):
        joint.hvp(small_params, small_factored)
