"""The synchronized control is remembered wherever it was read."""

import numpy as np
import pytest
from bridge import relative_error

import linattn as la


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
