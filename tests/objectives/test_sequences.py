"""Value-block problems of single sequences against those of their clients."""

import numpy as np
import pytest

import linattn as la
from linattn.objectives.population import client_normal_equations
from linattn.objectives.sequences import sequence_equations


@pytest.mark.parametrize("readout", ["token", "mean", "queries"])
def test_means_over_sequences_are_the_client(readout):
    rng = np.random.default_rng(0)
    clients = [(rng.normal(size=(n, 5, 3)), rng.normal(size=(n, 4, 2))) for n in (3, 6)]
    if readout == "queries":
        clients = [(*client, rng.normal(size=(len(client[0]), 4, 3))) for client in clients]
    else:
        rows = 5 if readout == "token" else 1
        clients = [(tokens, rng.normal(size=(len(tokens), rows, 2))) for tokens, _ in clients]
    problem = la.problem_from_tokens(
        clients, readout=readout, value_ridge=0.1, kernel_ridge=0.1
    )  # fmt: skip
    kernels = rng.normal(size=(2, 3, 3))
    means = client_normal_equations(problem, kernels)
    for i in range(2):
        single = sequence_equations(problem, kernels, i)
        np.testing.assert_allclose(single.hessian.mean(axis=0), means.hessian[i], rtol=1e-12)
        np.testing.assert_allclose(single.linear.mean(axis=0), means.linear[i], rtol=1e-12)
