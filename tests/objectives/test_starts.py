"""Starting points: sizes, streams and refusals."""

import numpy as np
import pytest
from worlds import world

import linattn as la
from linattn.streams import stream


def test_merged_entries_are_the_documented_stream(small_problem):
    params = la.initial_params(small_problem, num_heads=2, scale=0.4, value="normal", seed=9)
    kernel = stream(9, "initial kernel").normal(size=(2, 3, 3)) * 0.4 / np.sqrt(3)
    value = stream(9, "initial value").normal(size=(2, 3, 2)) * 0.4 / np.sqrt(3)
    assert np.array_equal(params.kernel, kernel)
    assert np.array_equal(params.value, value)


@pytest.mark.parametrize("options", [{"kernel": "merged"}, {"kernel": "factored"},
                                     {"kernel": "factored", "rank": 2},
                                     {"kernel": "factored", "rank": 30}])  # fmt: skip
def test_the_mean_size_of_a_kernel(options):
    """E‖B_h‖² = scale²·d in both parametrizations."""
    kernels = la.initial_params(world(dim=6), num_heads=4000, scale=1.7, **options).kernels()
    sizes = np.sum(kernels**2, axis=(1, 2))
    error = 4 * sizes.std() / np.sqrt(len(sizes))
    assert abs(sizes.mean() - 1.7**2 * 6) < error


def test_value_blocks(small_problem):
    zeros = la.initial_params(small_problem)
    assert not zeros.value.any()
    best = la.initial_params(small_problem, value="minimizer")
    assert np.array_equal(best.kernel, zeros.kernel)
    assert np.array_equal(best.value, la.KernelProfile(small_problem).minimizer(zeros))
    factored = la.initial_params(small_problem, kernel="factored", num_heads=2)
    assert factored.query.shape == (2, 3, 3)
    seeds = [la.initial_params(small_problem, seed=seed).flat for seed in (0, 1)]
    assert not np.array_equal(*seeds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 0}, "num_heads must be an integer >= 1, got 0"),
        ({"kernel": "full"}, "kernel must be one of 'merged', 'factored', got 'full'"),
        ({"value": "zero"}, "value must be one of .* did you mean 'zeros'"),
        ({"scale": 0.0}, "scale must be > 0, got 0.0"),
        ({"scale": np.inf}, "scale must be a finite number > 0, got inf"),
        ({"rank": 2}, "rank must be None for kernel='merged', got 2; use 'factored'"),
        ({"kernel": "factored", "rank": 0}, "rank must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"seed": 1.5}, "seed must be an integer >= 0, got 1.5"),
    ],
)
def test_bad_arguments_are_refused(small_problem, options, message):
    with pytest.raises(ValueError, match=message):
        la.initial_params(small_problem, **options)
