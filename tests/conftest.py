"""Shared fixtures: a small federation, and one BLAS thread for many small products."""

import pytest

import linattn as la
from linattn._threads import one_blas_thread

collect_ignore = ["additions"]
"""Files of things that `test_additions` adds to a copy of the repository."""
BASE = {"num_clients": 4, "sequences_per_client": 6, "num_tokens": 5, "dim": 3, "num_outputs": 2,
        "value_ridge": 0.05, "kernel_ridge": 0.01, "noise": 0.1, "seed": 3}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread():
    """Tests multiply small matrices; threads would only get in each other's way."""
    with one_blas_thread():
        yield


@pytest.fixture(scope="session")
def small_problem():
    """Four clients that differ in covariates, kernels and targets."""
    return la.synthetic_problem(
        **BASE, covariate_heterogeneity=0.3, kernel_heterogeneity=0.3, value_heterogeneity=1.0
    )


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
