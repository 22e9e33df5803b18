"""The in-context simulation: its numbers by other routes, and its controls."""

import numpy as np
import pytest

import linattn as la
from linattn.data.in_context import in_context_covariances
from linattn.theory.in_context_law import in_context_limit
from scripts import module, run

SMALL = {"num_clients": 3, "sequences_per_client": 32, "dim": 2, "horizon": 3.0, "num_starts": 2,
         "local_steps": 21}  # fmt: skip


@pytest.fixture(scope="module")
def made():
    return run("in_context", **SMALL)


def world(spec):
    common = {"num_clients": 3, "dim": 2, "covariance_heterogeneity": 0.5, "seed": spec.seed}
    ridges = {"value_ridge": spec.value_ridge, "kernel_ridge": spec.kernel_ridge}
    more = {"context_length": spec.context_length, "noise": spec.noise, **ridges}
    problem = la.in_context_problem(sequences_per_client=32, **common, **more)
    return problem, in_context_limit(in_context_covariances(**common), **more)


def test_the_end_in_exact_moments_is_that_of_an_explicit_run(made):
    spec, found = made
    problem, limit = world(spec)
    for length in (0, 4, spec.rounds):
        nearest = int(found.warmup.values[np.argmin(np.abs(found.warmup.values - length))])
        ended = la.run(
            la.fed_frozen(warmup_rounds=nearest), problem, spec.start(), rounds=spec.rounds,
            local_steps=spec.local_steps, local_lr=spec.local_lr, metrics=("objective",),
        )  # fmt: skip
        row = found.sel(warmup=nearest)
        assert float(row.objective) == pytest.approx(ended.columns["objective"][-1], rel=1e-10)
        assert float(row.objective_exact) == pytest.approx(limit.objective(ended.params), rel=1e-10)


def test_nothing_is_below_the_optimum(made):
    _, found = made
    assert float(found.optimum) < float(found.learned)
    assert (found.objective_exact > found.optimum).all()


def test_many_sequences_are_exact_moments():
    _, few = run("in_context", **SMALL)
    _, many = run("in_context", **SMALL | {"sequences_per_client": 2048})
    apart = [float(abs(f.objective - f.objective_exact).max()) for f in (few, many)]
    assert apart[1] < apart[0] / 3.0  # eight times less is expected
    assert float(many.learned - many.optimum) < float(few.learned - few.optimum) / 10.0


def test_the_kernel_of_the_optimum_is_at_distance_zero():
    held = module("in_context")
    best = la.in_context_optimum(np.eye(3), 8, 0.1, value_ridge=0.1, kernel_ridge=0.01)
    features = held._features(best.params)
    np.testing.assert_allclose(features, features[0, 0] * np.eye(3), atol=1e-14)


def test_alike_clients_and_one_step_have_no_trade_off():
    for control in ({"covariance_heterogeneity": 0.0}, {"local_steps": 1, "local_lr": 0.02}):
        _, found = run("in_context", **SMALL | {"sequences_per_client": 256} | control)
        assert not found.tradeoff
