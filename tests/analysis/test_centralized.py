"""The synchronized control is remembered wherever it was read."""

import numpy as np
import pytest
from bridge import relative_error

import linattn as la
from linattn.oracles.pooled import PooledDescent


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


def test_evenly_spaced_points_are_one_call_and_the_same_bits(
    small_problem, small_params, monkeypatch
):
    calls, follow = [], PooledDescent.follow

    def counted(self, flat, count, step_size, pushes):
        calls.append((count, len(pushes)))
        return follow(self, flat, count, step_size, pushes)

    single = la.CentralizedDescent(small_problem, small_params, 0.01)
    one_by_one = {mark: single.at([mark])[0].flat for mark in (7, 10, 20, 30, 31, 40, 60, 80)}
    monkeypatch.setattr(PooledDescent, "follow", counted)
    descent = la.CentralizedDescent(small_problem, small_params, 0.01)
    descent.at([31])
    for at, mark in zip(descent.at(one_by_one), one_by_one, strict=True):
        assert np.array_equal(at.flat, one_by_one[mark]), mark
    # From 0 to 31, then 7, 10, 20 and 30 before it, 40 from 31 on, and 60 and 80 from 40 on.
    assert calls == [(31, 1), (7, 1), (3, 1), (10, 2), (9, 1), (20, 2)]


def test_points_beyond_a_divergence_are_not_finite(small_problem, small_params):
    reached = la.CentralizedDescent(small_problem, small_params, 5.0).at([0, 40, 80, 120])
    assert [bool(np.isfinite(at.flat).all()) for at in reached] == [True, False, False, False]
