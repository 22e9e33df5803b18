"""The compiled local solver where its blocks end: many sequences per client, large minibatches."""

import numpy as np
import pytest

import linattn as la
from linattn._kernels.layout import BLOCK_SEQUENCES
from linattn.objectives.forms import SequenceForm
from linattn.objectives.population import population
from linattn.oracles.statistics import StatisticsOracle
from linattn.types import Problem

SIZES = (2 * BLOCK_SEQUENCES + 5, 3, BLOCK_SEQUENCES)
BATCHES = [
    np.array([0]),
    np.arange(BLOCK_SEQUENCES - 1, BLOCK_SEQUENCES + 2),
    np.arange(1, 2 * BLOCK_SEQUENCES + 4),
]


def problem_of(readout):
    rng = np.random.default_rng(5)
    queries = 4 if readout == "token" else 1
    clients = [
        (rng.normal(size=(n, 4, 5)), rng.normal(size=(n, queries, 3)) if queries > 1
         else rng.normal(size=(n, 3)))
        for n in SIZES
    ]  # fmt: skip
    return la.problem_from_tokens(clients, readout=readout, value_ridge=0.1, kernel_ridge=0.2)


def gradient_of(problem, chosen, params):
    """Gradient of the plain mean over some sequences, on the interpreted path."""
    count = len(chosen)
    part = Problem(
        problem.statistics.take(chosen),
        np.array([0, count]),
        np.ones(1),
        problem.value_ridge,
        problem.kernel_ridge,
        problem.readout,
    )
    form = SequenceForm(part.statistics, part.sequence_weights)
    _, kernel, value = form.gradient(params.kernels(), params.value)
    value = value + problem.value_ridge * params.value
    return np.concatenate([population(part).chain(params, kernel), value.reshape(-1)])


@pytest.mark.parametrize("readout", ["token", "mean", "last"])
@pytest.mark.parametrize("heads", [1, 2])
def test_blocks_change_nothing(readout, heads):
    problem = problem_of(readout)
    params = la.initial_params(problem, num_heads=heads, value="normal", seed=1)
    oracle = StatisticsOracle(problem, params.layout)
    for client in range(problem.num_clients):
        own = np.arange(problem.offsets[client], problem.offsets[client + 1])
        for batch in [None, *(b for b in BATCHES if b[-1] < len(own))]:
            chosen = own if batch is None else own[batch]
            found = oracle.gradient(client, params.flat, batch)
            expected = gradient_of(problem, chosen, params)
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
