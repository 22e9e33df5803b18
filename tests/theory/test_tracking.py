"""C5 against the twin: the mixed Hessian, both constants, the unrolled contraction."""

import bridge
import numpy as np
import pytest
import reference as ref

from linattn.theory.tracking import contracted_lag, coupling_matrix, factor_size, tracking_bound


@pytest.mark.parametrize("seed", range(6))
def test_mixed_hessian_against_the_twin(seed):
    _, inst, theta, _, problem, params = bridge.make(seed, num_heads=1 + seed % 3)
    star = ref.minimizer(inst, theta)
    found = coupling_matrix(
        problem.statistics, problem.sequence_weights, kernel=params.kernels(), value=star
    )
    assert bridge.relative_error(found, ref.coupling_matrix(inst, theta)) < 1e-10


@pytest.mark.parametrize("seed", range(6))
def test_bound_is_the_twins(seed):
    _, inst, theta, value, problem, params = bridge.make(seed, num_heads=1 + seed % 3)
    measured, upper = ref.tracking_bound(inst, theta, value)
    bound = tracking_bound(problem, params)
    assert bound.value == pytest.approx(upper, rel=1e-10)
    assert bound.quadratic == pytest.approx(ref.coupling_constant(inst, theta), rel=1e-11)
    assert measured <= bound.value
    assert bound.factor == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_factored_bound_is_the_twins(seed):
    _, inst, theta, value, problem, params = bridge.make(seed, kind="factored")
    merged = ref.tracking_bound(inst, ref.kernels(theta), value)[1]
    measured, upper = ref.tracking_bound_factored(inst, *theta, value)
    assert measured <= upper
    bound = tracking_bound(problem, params)
    assert np.sqrt(measured) <= bound.value
    sizes = (np.linalg.norm(block, 2, axis=(1, 2)) ** 2 for block in theta)
    assert bound.factor == pytest.approx(np.sqrt(np.max(sum(sizes))), rel=1e-11)
    assert bound.value == pytest.approx(factor_size(params) * merged, rel=1e-9)


def test_both_terms_are_needed():
    """Near V* the coupling alone is the error; far from it the quadratic term takes over."""
    _, inst, theta, value, problem, params = bridge.make(1, num_heads=1)
    far = params.replace(value=value + 1e4)
    bound = tracking_bound(problem, far)
    measured, _ = ref.tracking_bound(inst, theta, value + 1e4)
    assert measured > bound.coupling * bound.lag
    assert measured <= bound.value
    star = ref.minimizer(inst, theta)
    top = np.linalg.svd(ref.coupling_matrix(inst, theta))[2][0].reshape(star.shape)
    near = params.replace(value=star + 1e-4 * top)
    measured, _ = ref.tracking_bound(inst, theta, near.value)
    assert measured == pytest.approx(tracking_bound(problem, near).value, rel=1e-2)


def test_heads_side_by_side_not_stacked():
    """κ with the vertical stack is too small: one-token clients with aligned heads show it."""
    _, _, _, _, problem, params = bridge.make(5, num_heads=3)
    aligned = params.replace(kernel=np.stack([np.eye(problem.dim)] * 3))
    wide = tracking_bound(problem, aligned).quadratic
    one = params.replace(kernel=np.stack([np.eye(problem.dim)] + 2 * [0 * np.eye(problem.dim)]))
    assert wide == pytest.approx(np.sqrt(3) * tracking_bound(problem, one).quadratic, rel=1e-10)


def test_contraction_is_unrolled_in_order():
    norms, pushes = np.array([0.5, 2.0, 1.0]), np.array([3.0, 0.0, 1.0])
    assert contracted_lag(2.0, norms, pushes) == ((2.0 * 0.5 + 3.0) * 2.0) * 1.0 + 1.0
