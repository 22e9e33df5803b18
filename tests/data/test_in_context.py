"""The in-context world: what a sequence holds, which stream it comes from, what is refused."""

import numpy as np
import pytest
from bridge import same_bits

import linattn as la
from linattn.streams import stream

SIZES = {"num_clients": 3, "sequences_per_client": 4, "context_length": 5, "dim": 2}
RIDGES = {"value_ridge": 0.1, "kernel_ridge": 0.1}


def test_a_sequence_is_examples_of_one_task_and_a_question():
    covariances = la.in_context_covariances(
        num_clients=2, dim=2, covariance_heterogeneity=0.7, seed=5
    )
    clients = la.in_context_clients(
        covariances, sequences_per_client=3, context_length=[4, 6], noise=[0.0, 0.5], seed=5
    )
    for i, (tokens, targets, queries) in enumerate(clients):
        task = stream(5, "task", i).normal(size=(3, 2))
        noise = stream(5, "noise", i).normal(size=(3, 4 + 2 * i))
        answers = np.einsum("snk,sk->sn", tokens[..., :2], task) + 0.5 * i * noise
        assert np.allclose(tokens[..., 2], answers, rtol=0, atol=1e-14)
        assert np.allclose(targets[:, 0, 0], np.einsum("sk,sk->s", queries[:, 0, :2], task))
        assert not queries[..., 2].any()
        root = np.sqrt(np.diag(covariances[i]))
        inputs = stream(5, "context", i).normal(size=(3, 4 + 2 * i, 2)) * root
        assert np.allclose(tokens[..., :2], inputs, rtol=1e-14)


def test_the_problem_holds_the_context_and_one_query():
    problem = la.in_context_problem(**SIZES, noise=0.2, seed=1, **RIDGES)
    covariances = la.in_context_covariances(num_clients=3, dim=2, seed=1)
    assert np.array_equal(covariances, np.stack([np.eye(2)] * 3))
    clients = list(
        la.in_context_clients(
            covariances, sequences_per_client=4, context_length=5, noise=0.2, seed=1
        )
    )
    same = la.problem_from_tokens(clients, **RIDGES)
    assert same_bits(problem.statistics.gram, same.statistics.gram)
    assert problem.statistics.query.shape == (12, 3)
    tokens = clients[0][0][0]
    assert np.allclose(problem.statistics.gram[0], tokens.T @ tokens / 5)
    given = la.in_context_problem(**SIZES, noise=0.2, seed=1, covariances=covariances, **RIDGES)
    assert same_bits(problem.statistics.gram, given.statistics.gram)


def test_covariances_have_mean_one_and_belong_to_their_client():
    wide = la.in_context_covariances(num_clients=300, dim=4, covariance_heterogeneity=0.5)
    few = la.in_context_covariances(num_clients=2, dim=4, covariance_heterogeneity=0.5)
    assert np.array_equal(wide[:2], few)
    eigenvalues = np.diagonal(wide, axis1=1, axis2=2)
    assert eigenvalues.mean() == pytest.approx(1.0, abs=4 * eigenvalues.std() / np.sqrt(1200))


def test_fed_avg_learns_in_context():
    """The model trained by rounds comes close to the known optimum of infinitely many tasks."""
    world = {"covariance_heterogeneity": 0.3, "noise": 0.1, "seed": 2, **RIDGES}
    problem = la.in_context_problem(**SIZES | {"sequences_per_client": 400}, **world)
    covariances = la.in_context_covariances(
        num_clients=3, dim=2, covariance_heterogeneity=0.3, seed=2
    )
    optimum = la.in_context_optimum(covariances, 5, 0.1, **RIDGES)
    start = la.initial_params(problem, seed=1)
    result = la.run(la.fed_avg(), problem, start, rounds=300, local_steps=2, local_lr=0.1)
    joint = la.Joint(problem)
    zero = joint.value(start.replace(kernel=0 * start["kernel"], value=0 * start.value))
    assert result.outcome.status == "completed"
    assert joint.value(result.params) < 0.7 * zero
    assert joint.value(result.params) == pytest.approx(joint.value(optimum.params), rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be an integer >= 1, got 0"),
        ({"num_clients": 2.0}, "num_clients must be an integer >= 1"),
        ({"context_length": [5, 5]}, "context_length must be one number or 3, one per client"),
        ({"noise": -1.0}, "noise must be >= 0"),
        ({"covariance_heterogeneity": -0.1}, "covariance_heterogeneity must be >= 0"),
        ({"sequences_per_client": 0}, "sequences_per_client must be an integer >= 1"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"covariances": np.eye(2)}, r"covariances must be \(3, 2, 2\) for these clients"),
        (
            {"covariances": np.stack([np.eye(2)] * 3), "covariance_heterogeneity": 0.1},
            "go without covariance_heterogeneity",
        ),
    ],
)
def test_bad_worlds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        la.in_context_problem(**SIZES | RIDGES | options)
