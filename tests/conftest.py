"""Shared fixtures: a small federation, and one BLAS thread for many small products."""

import pytest
from worlds import APART, world

import linattn as la
from linattn._threads import one_blas_thread

collect_ignore = ["additions"]
"""Files of things that `test_additions` adds to a copy of the repository."""


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread():
    """Tests multiply small matrices; threads would only get in each other's way."""
    with one_blas_thread():
        yield


@pytest.fixture(scope="session")
def small_problem():
    """Four clients that differ in covariates, kernels and targets."""
    return world(**APART, seed=3)


@pytest.fixture(scope="session")
def small_params(small_problem):
    """A merged start with two heads and a nonzero value block."""
    return la.initial_params(small_problem, num_heads=2, scale=0.7, value="normal", seed=5)


@pytest.fixture(scope="session")
def small_factored(small_problem):
    """A factored start of rank 2 with two heads."""
    return la.initial_params(
        small_problem, num_heads=2, kernel="factored", rank=2, scale=0.7, value="normal", seed=5
    )
