"""Drift factors: by their closed forms, attained, and valid on explicit local steps."""

import numpy as np
import pytest

from linattn.theory.drift import (
    BlockConstants,
    block_drift,
    dissimilarity,
    general_drift_factor,
    quadratic_drift_factor,
)


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("x", [0.01, 0.3, 1.0])
def test_factors_are_their_closed_forms(x, steps):
    general = ((1 + x) ** steps - 1) / (x * steps) - 1
    quadratic = 1 - (1 - (1 - x) ** steps) / (x * steps)
    assert general_drift_factor(x, steps) == pytest.approx(general, rel=1e-9, abs=1e-12)
    assert quadratic_drift_factor(x, steps) == pytest.approx(quadratic, rel=1e-9, abs=1e-12)


def test_factors_do_not_cancel_at_small_steps():
    assert general_drift_factor(1e-12, 5) == pytest.approx(2e-12, rel=1e-9)
    assert quadratic_drift_factor(1e-12, 5) == pytest.approx(2e-12, rel=1e-9)


def test_factors_of_a_billion_steps():
    assert quadratic_drift_factor(0.3, 10**9) == pytest.approx(1 - 1 / 0.3e9, rel=1e-14)
    assert general_drift_factor(1e-10, 10**9) == pytest.approx((np.e**0.1 - 1) / 0.1 - 1, rel=1e-6)
    assert general_drift_factor(0.3, 10**9) == np.inf


def test_the_numbers_of_the_literature():
    """At ηL = 1 and E = 32 the general factor is useless and the quadratic one is not."""
    assert general_drift_factor(1.0, 32) == pytest.approx(2.0**32 / 32, rel=1e-6)
    assert quadratic_drift_factor(1.0, 32) == pytest.approx(31 / 32)
    assert quadratic_drift_factor(1.0, 1) == general_drift_factor(1.0, 1) == 0.0


def drift(curvatures, step, count):
    """‖(1/E)Σ_k(∇F(w^k) − ∇F(w))‖ on a diagonal quadratic from w = 1, and ‖∇F(w)‖."""
    place = np.ones(len(curvatures))
    slopes = []
    for _ in range(count):
        slopes.append(curvatures * place)
        place = place - step * slopes[-1]
    return np.linalg.norm(np.mean(slopes, axis=0) - slopes[0]), np.linalg.norm(slopes[0])


def test_the_general_factor_is_attained_by_negative_curvature():
    measured, start = drift(np.array([-2.0]), 0.1, 6)
    assert general_drift_factor(0.2, 6) * start == pytest.approx(measured)


def test_the_quadratic_factor_is_attained_and_needs_convexity():
    measured, start = drift(np.array([2.0]), 0.1, 6)
    assert quadratic_drift_factor(0.2, 6) * start == pytest.approx(measured)
    measured, start = drift(np.array([-2.0]), 0.1, 6)
    assert measured > quadratic_drift_factor(0.2, 6) * start


def test_the_quadratic_factor_needs_a_small_step():
    """With ηL = 1.9 and E = 3 a direction of ηλ = 1.5 drifts more than the top one."""
    measured, start = drift(np.array([1.5]), 1.0, 3)
    assert measured > quadratic_drift_factor(1.9, 3) * start


def test_block_drift_without_coupling_is_the_general_factor_and_a_capped_value_part():
    alone = BlockConstants(2.0, 0.0, 0.0, 3.0)
    kernel, value = block_drift(0.1, 6, constants=alone, start=(1.5, 2.0))
    assert kernel == pytest.approx(general_drift_factor(0.2, 6) * 1.5)
    assert value == pytest.approx(np.mean([min(0.3 * k, 2.0) for k in range(6)]) * 2.0)


def test_block_drift_holds_on_coupled_quadratics():
    """Joint Hessians with a convex value block: every bound above explicit steps."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        half = rng.normal(size=(3, 3))
        value = half @ half.T
        kernel = rng.normal(size=(2, 2))
        kernel, cross = kernel + kernel.T, rng.normal(size=(2, 3))
        hessian = np.block([[kernel, cross], [cross.T, value]])
        step, count = rng.uniform(0.1, 1.9) / np.linalg.norm(value, 2), int(rng.integers(1, 12))
        place, slopes = rng.normal(size=5), []
        for _ in range(count):
            slopes.append(hessian @ place)
            place = place - step * slopes[-1]
        error = np.mean(slopes, axis=0) - slopes[0]
        norms = [np.linalg.norm(block, 2) for block in (kernel, cross, cross.T, value)]
        start = (float(np.linalg.norm(slopes[0][:2])), float(np.linalg.norm(slopes[0][2:])))
        bounds = block_drift(step, count, constants=BlockConstants(*norms), start=start)
        assert np.linalg.norm(error[:2]) <= bounds[0] + 1e-9
        assert np.linalg.norm(error[2:]) <= bounds[1] + 1e-9


def test_dissimilarity_is_the_smallest_valid_offset():
    means, norms = np.array([3.0, 5.0]), np.array([1.0, 4.0])
    assert dissimilarity(means, norms, 1.0) == 2.0
    assert dissimilarity(means, norms, 5.0) == 0.0
