"""Compiled centralized descent on moments against explicit gradient descent on F."""

import numpy as np
import pytest
import reference as ref
from bridge import READOUTS, make, moved, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

import linattn as la
from linattn.analysis.centralized import _descent, _pooled_oracle
from linattn.objectives.forms import MomentForm, SequenceForm
from linattn.objectives.population import Population

few = settings(max_examples=20, deadline=None, derandomize=True)


def descend(problem, params, step_size, steps):
    """Parameters after compiled descent on the moments of all data."""
    held = Population(problem, MomentForm(problem.statistics, problem.sequence_weights))
    return _descent(problem, held, params, step_size)(params.flat, steps)


@few
@given(
    st.integers(0, 10**6),
    st.sampled_from(["merged", "factored"]),
    st.sampled_from(READOUTS),
    st.integers(0, 4),
)
def test_against_explicit_descent(seed, kind, readout, steps):
    _, inst, theta, V, problem, params = make(seed, kind, readout=readout)
    step_size = 0.2 * la.safe_step(problem, params)
    flat, joint, at = descend(problem, params, step_size, steps), la.Joint(problem), params
    for _ in range(steps):
        at = moved(at, joint.gradient(at), -step_size)
    assert relative_error(flat, at.flat) < 1e-9
    twin = ref.centralized(inst, theta, V, steps=steps, step_size=step_size)
    assert relative_error(flat, ref.flatten(*twin)) < 1e-9


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_large_step_shows_that_all_blocks_move_from_the_old_point(rank):
    """With one big step a block that saw its neighbour's new value would be far off."""
    problem = la.synthetic_problem(
        num_clients=2, sequences_per_client=3, num_tokens=4, dim=3, num_outputs=2,
        value_ridge=0.3, kernel_ridge=0.2,
    )  # fmt: skip
    for options in ({"kernel": "merged"}, {"kernel": "factored", "rank": rank}):
        params = la.initial_params(problem, num_heads=3, value="normal", **options)
        expected = params.flat - 0.9 * la.Joint(problem).gradient(params).flat
        assert relative_error(descend(problem, params, 0.9, 1), expected) < 1e-11


def test_two_calls_continue_each_other_to_the_bit(small_problem, small_factored):
    whole = descend(small_problem, small_factored, 0.01, 7)
    first = la.Params(small_factored.layout, descend(small_problem, small_factored, 0.01, 3))
    assert np.array_equal(descend(small_problem, first, 0.01, 4), whole)


def test_descent_is_read_anywhere_in_any_order(small_problem, small_factored):
    forward = la.CentralizedDescent(small_problem, small_factored, 0.01)
    whole = [p.flat for p in forward.at([0, 3, 5, 11])]
    again = la.CentralizedDescent(small_problem, small_factored, 0.01)
    out_of_order = [again.at([mark])[0].flat for mark in (11, 3, 5, 0)]
    for found, mark in zip(out_of_order, (3, 1, 2, 0), strict=True):
        assert relative_error(found, whole[mark]) < 1e-13
    assert np.array_equal(again.at([11])[0].flat, out_of_order[0])


def test_a_shared_descent_gives_the_same_table(small_problem, small_params):
    options = {"warmup_lengths": [0, 2, 5], "rounds": 5, "local_steps": 3, "local_lr": 0.02}
    descent = la.CentralizedDescent(small_problem, small_params, 0.02)
    alone = la.bias_drift(small_problem, small_params, reference=0.0, **options)
    shared = la.bias_drift(small_problem, small_params, reference=0.0, descent=descent, **options)
    assert alone.identical(shared)
    with pytest.raises(ValueError, match="descent must be of this problem"):
        la.bias_drift(
            small_problem, small_params, reference=0.0, descent=descent, **options | {"local_lr": 1}
        )


@pytest.mark.parametrize(
    ("readout", "compiled"), [("token", False), ("mean", True), ("last", True)]
)
def test_sequences_of_one_query_are_pooled_for_the_compiled_solver(readout, compiled):
    """With every token a query there is no such sequence, and plain NumPy descends."""
    *_, problem, params = make(2, readout=readout)
    held = Population(problem, SequenceForm(problem.statistics, problem.sequence_weights))
    assert (_pooled_oracle(problem, held, params) is None) is (readout == "token")
    step_size = 0.2 * la.safe_step(problem, params)
    flat = _descent(problem, held, params, step_size)(params.flat, 3)
    assert relative_error(flat, descend(problem, params, step_size, 3)) < 1e-9
