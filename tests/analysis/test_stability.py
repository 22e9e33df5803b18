"""The steps from which on the mean and the second moment of the frozen stage grow."""

import numpy as np
import pytest
from method_cases import case

import linattn as la
from linattn.analysis.stability import PRECISION, boundary, critical_steps


def scalar_clients(curvatures):
    """Clients with one token and one weight, so that A_i = a_i is a number."""
    clients = []
    for a in curvatures:
        x = (a - 0.5) ** (1 / 6)  # U = x, G = x², so H = (U·B·G)² = x⁶ at B = 1
        clients.append((np.full((1, 1, 1), x), np.full((1, 1, 1), 0.3 * a)))
    problem = la.problem_from_tokens(clients, value_ridge=0.5, kernel_ridge=0.1)
    return problem, la.Params.merged(np.ones((1, 1, 1)), np.zeros((1, 1, 1)))


def test_one_local_step_against_the_closed_form():
    """Mean: |1 − η mean(a)| = 1; one of the clients a round: mean of (1 − ηa)² = 1."""
    a = np.array([1.0, 2.0, 6.0])
    problem, params = scalar_clients(a)
    for client, curvature in enumerate(a):
        hessian = la.ValueBlock(problem.subset([client]), params).hessian
        assert float(hessian[0, 0]) == pytest.approx(curvature, rel=1e-12)
    found = critical_steps(problem, params, local_steps=1, participation=1 / 3)
    assert found.mean == pytest.approx(2 / a.mean(), rel=2 * PRECISION)
    assert found.second_moment == pytest.approx(2 * a.mean() / np.mean(a**2), rel=2 * PRECISION)
    everybody = critical_steps(problem, params, local_steps=1)
    assert everybody.second_moment == everybody.mean == found.mean


@pytest.mark.parametrize("drawn", [{"participation": 0.5}, {"batch_size": 2}])
def test_moments_turn_unstable_there(drawn):
    problem, params, _ = case("merged")
    found = critical_steps(problem, params, local_steps=3, **drawn)
    below, above = (
        la.frozen_moments(
            problem, params, local_steps=3, local_lr=factor * found.second_moment, **drawn
        )
        for factor in (1 - 2 * PRECISION, 1 + 2 * PRECISION)
    )
    assert below.stable
    assert not above.stable
    assert above.mean_rate < 1.0  # the mean still settles
    assert found.second_moment < found.mean


def test_refusals_are_those_of_the_moments():
    problem, params, _ = case("merged")
    with pytest.raises(ValueError, match="participation must be"):
        critical_steps(problem, params, local_steps=3, participation=0.0)


@pytest.mark.parametrize("answer", [True, False])
def test_a_search_without_an_end_is_refused(answer):
    with pytest.raises(ValueError, match="stable must hold at some steps and fail at others"):
        boundary(lambda step: answer, 1.0)


@pytest.mark.parametrize("participation", [0.5, 1.0])
def test_a_ridge_below_rounding_leaves_no_stable_step(participation):
    problem = la.synthetic_problem(
        num_clients=2, sequences_per_client=1, num_tokens=1, dim=6, num_outputs=1,
        value_ridge=1e-20, kernel_ridge=0.1,
    )  # fmt: skip
    params = la.initial_params(problem, seed=1)
    with pytest.raises(ValueError, match="stable must hold"):
        critical_steps(problem, params, local_steps=3, participation=participation)
