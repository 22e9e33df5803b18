"""All clients as one: compiled steps on pooled data against explicit gradient descent on F."""

import numpy as np
import pytest
import reference as ref
from bridge import INSTANCE, READOUTS, make, moved, over, population_on, relative_error
from hypothesis import strategies as st
from worlds import world

import linattn as la
from linattn.objectives.forms import SequenceForm
from linattn.objectives.moment_form import MomentForm
from linattn.objectives.packing import prefers_client_moments
from linattn.oracles.pooled import PooledDescent, central_work, one_client, weigh_sequences
from linattn.oracles.protocol import LocalTask


def descend(problem, params, step_size, steps, form=MomentForm):
    """Parameters after compiled descent on one form of all data."""
    task = LocalTask.plain(
        np.zeros(1, dtype=np.int64), params.flat[None], local_steps=steps, local_lr=step_size
    )
    return one_client(population_on(form, problem), params).train(task)[0][0]


@over(*INSTANCE, st.integers(0, 4), examples=20)
def test_against_explicit_descent(seed, kind, readout, steps):
    _, inst, theta, V, problem, params = make(seed, kind, readout=readout)
    step_size = 0.2 * la.safe_step(problem, params)
    joint, at = la.Joint(problem), params
    for _ in range(steps):
        at = moved(at, joint.gradient(at), -step_size)
    twin = ref.centralized(inst, theta, V, steps=steps, step_size=step_size)
    for form in (MomentForm, SequenceForm):
        flat = descend(problem, params, step_size, steps, form)
        assert relative_error(flat, at.flat) < 1e-9
        assert relative_error(flat, ref.flatten(*twin)) < 1e-9


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_large_step_shows_that_all_blocks_move_from_the_old_point(rank):
    """With one big step a block that saw its neighbour's new value would be far off."""
    problem = world(num_clients=2, sequences_per_client=3, value_ridge=0.3, kernel_ridge=0.2)
    for options in ({"kernel": "merged"}, {"kernel": "factored", "rank": rank}):
        params = la.initial_params(problem, num_heads=3, value="normal", **options)
        expected = params.flat - 0.9 * la.Joint(problem).gradient(params).flat
        assert relative_error(descend(problem, params, 0.9, 1), expected) < 1e-11


def test_two_calls_continue_each_other_to_the_bit(small_problem, small_factored):
    descent = PooledDescent(small_problem, small_factored)
    whole = descent.steps(small_factored.flat, 7, 0.01)
    first = descent.steps(small_factored.flat, 3, 0.01)
    assert np.array_equal(descent.steps(first, 4, 0.01), whole)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_sequence_counts_with_its_weight(readout):
    """Loss and gradients of the plain mean over scaled statistics are the weighted ones."""
    rng, *_, problem, params = make(2, readout=readout)
    weights = rng.uniform(0.2, 3.0, problem.num_sequences)
    plain = np.full(len(weights), 1.0 / len(weights))
    scaled = SequenceForm(weigh_sequences(problem.statistics, weights), plain)
    direct = SequenceForm(problem.statistics, weights * plain)
    for found, expected in zip(
        scaled.gradient(params.kernels(), params.value),
        direct.gradient(params.kernels(), params.value),
        strict=True,
    ):
        assert relative_error(found, expected) < 1e-12


def test_given_moments_serve_queries_of_their_own_whatever_would_be_cheaper():
    *_, problem, params = make(1, "merged", 1, readout=ref.own_queries, dim=5, sequences=(1, 2))
    assert not prefers_client_moments(problem, 1)
    expected = params.flat - 0.1 * la.Joint(problem).gradient(params).flat
    for form in (MomentForm, SequenceForm):
        assert relative_error(descend(problem, params, 0.1, 1, form), expected) < 1e-11


def test_other_weights_give_another_mean(small_problem, small_params):
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    oracle = small_problem.oracle(small_params)
    expected = weights @ np.stack([oracle.gradient(i, small_params.flat) for i in range(4)])
    descent = PooledDescent(small_problem, small_params, weights)
    found = descent.gradients(np.stack([small_params.flat, 2.0 * small_params.flat]))
    assert relative_error(found[0], expected) < 1e-12
    assert (
        relative_error(descent.steps(small_params.flat, 1, 1.0), small_params.flat - found[0])
        < 1e-12
    )
    both = descent.steps(np.stack([small_params.flat, 2.0 * small_params.flat]), 3, 0.1)
    assert np.array_equal(both[0], descent.steps(small_params.flat, 3, 0.1))
    assert np.array_equal(both[1], descent.steps(2.0 * small_params.flat, 3, 0.1))


def test_unequal_work_is_steps_on_other_weights():
    weights = np.array([0.2, 0.3, 0.5])
    central = central_work(weights, np.array([3, 1, 8]))
    np.testing.assert_allclose(central.weights, weights * [3, 1, 8] / 4.9)
    assert central.steps == 5
    assert central.scale * 5 == pytest.approx(4.9)
    assert central_work(weights, np.array([4, 4, 4])).steps == 4
    assert central_work(weights, 4)[1:] == (4, 1.0)
