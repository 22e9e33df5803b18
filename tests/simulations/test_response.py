"""Simulations of the prediction: what they store is what the library says, by other routes."""

import numpy as np
import pytest

import linattn as la
from linattn.data.worlds import ProblemSpec
from scripts import run

SMALL = {
    "problem": ProblemSpec(num_clients=3, sequences_per_client=8, num_tokens=6, dim=3,
                           num_outputs=2, value_heterogeneity=1.0, covariate_heterogeneity=0.3),
    "horizon": 3.0, "local_lr": 0.05, "local_steps": 6, "num_starts": 2,
}  # fmt: skip


def prepared(spec, **more):
    world = spec.tables().world
    return {"problem": world.problem, "params": world.params, "local_lr": spec.local_lr,
            "local_steps": spec.local_steps, "rounds": spec.rounds, **more}  # fmt: skip


def test_response_holds_the_measured_and_the_predicted_table():
    spec, found = run(
        "response", **SMALL | {"horizon": 15.0}, routes=("pass", "certificate", "profile")
    )
    settings = prepared(spec, warmup_lengths=list(spec.lengths()))
    measured = la.bias_drift(**settings, reference=float(found.reference))
    np.testing.assert_allclose(found.objective, measured.objective, rtol=1e-10)
    predicted = la.predict_trade_off(**settings, reference=float(found.reference))
    np.testing.assert_allclose(found.predicted, predicted.objective, rtol=1e-10)
    excess = measured.objective - float(found.reference)
    worst = float(np.abs((predicted.objective - measured.objective) / excess).max())
    assert worst > 0.0
    assert found.worst_error.values[-1] == pytest.approx(worst, rel=1e-6)
    certificate = la.descent_certificate(**prepared(spec)).certificate
    assert int(found.route_length.sel(route="certificate")) == int(np.argmin(certificate.values))


def test_identical_clients_have_nothing_to_save():
    _, found = run("response", **SMALL, identical=True)
    assert not found.tradeoff
    assert float(found.saved) <= 1e-9


def test_smaller_tolerances_and_more_passes_come_closer():
    _, found = run("impulses", **SMALL, tolerances=(0.1, 0.001), passes=(0, 1, 2))
    errors = found.path_error.values
    assert errors[1] < 0.1 * errors[0]
    assert found.num_impulses[1] >= found.num_impulses[0]
    passes = found.pass_path_error.values
    assert passes[2] < passes[1] < passes[0]
    assert (np.diff(found.pass_num_impulses) > 0).all()


def test_a_seed_of_random_predictions_is_one_federation():
    (spec, first), (_, again) = (run("random_predictions", horizon=2.0, seed=3) for _ in range(2))
    assert first.identical(again)
    tables = spec.tables()
    assert int(first.clients) == tables.world.problem.num_clients
    assert float(first.path_error) <= max(0.05, float(first.estimated_path_error))


def test_sampled_runs_are_averaged():
    spec, found = run("sampled_response", **SMALL, num_runs=3, num_lengths=4)
    settings = prepared(spec, warmup_lengths=list(spec.lengths()), participation=0.25)
    tables = [la.bias_drift(**settings, reference=1.0, seed=k) for k in range(3)]
    runs = np.stack([table.objective.values for table in tables])
    np.testing.assert_allclose(found.objective, runs.mean(axis=0), rtol=1e-12)
    error = runs.std(axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(found.objective_error, error, rtol=1e-9, atol=1e-15)
