"""Differences of gradients that are exact for polynomials, against Hessian-vector products."""

import numpy as np
import pytest
import reference as ref
from bridge import direction_like, make, moved, relative_error

import linattn as la
from linattn.oracles.pooled import PooledDescent
from linattn.theory.curvature import hessian, second_slopes, slopes


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", ref.READOUTS)
def test_slopes_are_hessian_vector_products(kind, readout):
    rng, *_, problem, params = make(8, kind, num_heads=2, readout=readout)
    joint, pooled = la.Joint(problem), PooledDescent(problem, params)
    directions = [direction_like(rng, params) for _ in range(3)]
    expected = np.stack([joint.hvp(params, v).flat for v in directions])
    rows = np.stack([v.flat for v in directions])
    for scale in (1e-6, 1.0, 1e6):
        found = slopes(pooled.gradients, params.flat, scale * rows, factored=params.is_factored)
        assert relative_error(found / scale, expected) < 1e-11
    matrix = hessian(pooled.gradients, params.flat)
    assert np.array_equal(matrix, matrix.T)
    assert relative_error(rows @ matrix, expected) < 1e-11


@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_second_slopes_are_differences_of_hessian_vector_products(kind):
    rng, *_, problem, params = make(3, kind)
    joint, pooled = la.Joint(problem), PooledDescent(problem, params)
    direction = direction_like(rng, params)
    h = 1e-4
    plus, minus = (joint.hvp(moved(params, direction, t), direction).flat for t in (h, -h))
    found = second_slopes(
        pooled.gradients, params.flat, direction.flat[None], factored=params.is_factored
    )[0]
    assert relative_error(found, (plus - minus) / (2 * h)) < 1e-6


def test_merged_weights_are_not_enough_for_factored_kernels():
    rng, *_, problem, params = make(3, "factored")
    pooled, rows = PooledDescent(problem, params), direction_like(rng, params).flat[None]
    right = slopes(pooled.gradients, params.flat, rows, factored=True)
    assert relative_error(slopes(pooled.gradients, params.flat, rows, factored=False), right) > 1e-3
    second = second_slopes(pooled.gradients, params.flat, rows, factored=True)
    wrong = second_slopes(pooled.gradients, params.flat, rows, factored=False)
    assert relative_error(wrong, second) > 1e-3


def test_a_zero_direction_has_no_slope(small_problem, small_params):
    pooled, zero = PooledDescent(small_problem, small_params), np.zeros((1, small_params.flat.size))
    for derivative in (slopes, second_slopes):
        assert not derivative(pooled.gradients, small_params.flat, zero, factored=False).any()
