"""Eigenvalue bounds are bounds, whatever the size, and solves solve."""

import numpy as np
import pytest

from linattn.linalg import (
    EXACT_EIGENVALUE_SIZE,
    contract,
    largest_eigenvalue,
    largest_eigenvalue_of,
    lowest_point,
    solve_definite,
    spectral_norms,
    stack_heads,
    weighted_sum,
)
from linattn.streams import stream

LARGE = EXACT_EIGENVALUE_SIZE + 6


def semidefinite(rng, size, rank):
    root = rng.standard_normal((size, rank))
    return root @ root.T / rank


@pytest.mark.parametrize("size", [1, 2, 7, 40])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_small_matrices_have_a_tight_upper_bound(size, scale):
    matrix = scale * semidefinite(np.random.default_rng(size), size, 2 * size)
    top = np.linalg.svd(matrix, compute_uv=False)[0]
    bound = largest_eigenvalue(matrix)
    assert top <= bound <= (1 + 1e-8) * top


@pytest.mark.parametrize("rank", [3, 2000])
def test_large_matrices_have_an_upper_bound_within_a_seventh(rank):
    matrix = semidefinite(np.random.default_rng(1), LARGE, rank)
    top = np.linalg.eigvalsh(matrix)[-1]
    bound = largest_eigenvalue(matrix)
    assert top <= bound <= 1.13 * top
    assert bound == largest_eigenvalue(matrix)


def test_a_large_matrix_whose_top_eigenvector_is_orthogonal_to_the_lanczos_start():
    vector = np.zeros(LARGE)
    vector[:2] = 1.0, -1.0
    matrix = np.outer(vector, vector)
    assert 2.0 <= largest_eigenvalue(matrix) <= 4.0


def test_lanczos_on_a_spectrum_without_a_gap_and_on_few_vectors():
    spread = np.linspace(1.0, 0.0, LARGE) ** 2
    assert 1.0 <= largest_eigenvalue_of(lambda x: spread * x, LARGE) <= 1.13
    two = np.where(np.arange(LARGE) < 3, [[2.0], [1.0]], 0.0)
    assert 1.0 <= largest_eigenvalue_of(lambda x: two[1] * x, LARGE) <= 1.13
    assert 2.0 <= largest_eigenvalue_of(lambda x: two[0] * x, LARGE) <= 2.26


@pytest.mark.parametrize("size", [3, LARGE])
def test_the_zero_matrix_has_the_bound_zero(size):
    assert largest_eigenvalue(np.zeros((size, size))) == 0.0


@pytest.mark.parametrize("size", [3, LARGE])
def test_a_matrix_that_is_not_finite_is_a_divergence(size):
    matrix = np.eye(size)
    matrix[1, 1] = np.nan
    with pytest.raises(FloatingPointError, match="finite"):
        largest_eigenvalue(matrix)
    with pytest.raises(FloatingPointError, match="finite"):
        spectral_norms(matrix[None])


def test_spectral_norms_of_stacked_matrices():
    rng = np.random.default_rng(0)
    stacked = np.array([[semidefinite(rng, 4, k) for k in (1, 2)] for _ in range(3)])
    expected = [[np.linalg.norm(a, 2) for a in row] for row in stacked]
    assert np.allclose(spectral_norms(stacked), expected, rtol=1e-12)


def test_solve_definite_solves_and_refuses_what_is_not_positive_definite():
    rng = np.random.default_rng(2)
    matrix = semidefinite(rng, 5, 9) + np.eye(5)
    right = rng.standard_normal((5, 2))
    assert np.allclose(matrix @ solve_definite(matrix, right), right, rtol=1e-12)
    for bad in (-np.eye(3), np.diag([1.0, 0.0]), np.full((2, 2), np.nan)):
        with pytest.raises(FloatingPointError, match="not positive definite"):
            solve_definite(bad, np.ones((len(bad), 1)))


def test_stack_heads_has_the_row_index_h_d_plus_a():
    blocks = np.arange(24.0).reshape(2, 3, 4)
    stacked = stack_heads(blocks)
    assert stacked.shape == (6, 4)
    assert np.array_equal(stacked[1 * 3 + 2], blocks[1, 2])


def test_the_lowest_point_of_a_parabola_is_exact_and_of_other_curves_on_the_grid():
    x = np.array([0.0, 1.0, 2.5, 3.0, 5.0])
    assert lowest_point(x, (x - 2.2) ** 2) == pytest.approx(2.2, rel=1e-13)
    assert lowest_point(x, x) == 0.0
    assert lowest_point(x, -x) == 5.0
    assert lowest_point(x, np.array([2.0, np.inf, 1.0, 3.0, 4.0])) == 2.5
    assert lowest_point(x, np.ones(5)) == 0.0


def test_contracted_tensors_are_those_of_numpy_to_the_bit():
    rng = np.random.default_rng(0)
    for count, size in ((8, 6), (3, 20), (8, 6)):
        weights, rows = rng.random(count), rng.random((count, size))
        cube = rng.random((count, size, size))
        for subscripts, *held in (
            ("i,iab,ib,icb->ac", weights, cube, rows, cube),
            ("sab,sb->sa", cube, rows),
        ):
            expected = np.einsum(subscripts, *held, optimize=True)
            assert np.array_equal(contract(subscripts, *held), expected)


def test_a_weighted_sum_needs_a_weight_for_every_row():
    with pytest.raises(ValueError, match="weights must have 3 entries, got 1"):
        weighted_sum(np.ones(1), np.ones((3, 2)))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 33, 200])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (7,), (60,), (513,), (3, 1), (1, 2), (4, 5)])
@pytest.mark.parametrize("order", "CF")
def test_a_weighted_sum_adds_row_after_row(count, shape, order):
    generator = stream(0, "rows", count, *shape)
    weights = generator.dirichlet(np.ones(count))
    rows = np.asarray(generator.normal(size=(count, *shape)), order=order)
    expected = weights[0] * rows[0]
    for k in range(1, count):
        expected = expected + weights[k] * rows[k]
    assert np.array_equal(weighted_sum(weights, rows), expected)
