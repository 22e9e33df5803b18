"""Simulations of the prediction: what they store is what the library says, by other routes."""

import numpy as np
import pytest

import linattn as la
from linattn.data.worlds import ModelSpec, ProblemSpec
from linattn.experiments.find import find_scripts
from linattn.experiments.predictions import PredictedSpec
from linattn.experiments.specs import RegimeSpec
from linattn.theory.log_law import log_law
from scripts import run, simulation

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


def test_the_log_law_is_stored_and_judged_as_a_route():
    spec, found = run("response", **SMALL | {"horizon": 60.0}, routes=("first_order", "log_law"))
    world = spec.tables().world
    response = la.drift_response(world.problem, world.params, 60.0)
    law = log_law(response)
    assert float(found.law_rate) == pytest.approx(law.rate, rel=1e-9)
    assert float(found.law_crossing) == pytest.approx(law.crossing, rel=1e-9)
    s, time = 0.5 * 0.05 * 5, 0.05 * 6
    assert float(found.law_time) == pytest.approx(law.best_time(s))
    lengths = found.route_length.values
    assert lengths[0] == pytest.approx(response.best_time(s) / time, abs=0.5)
    assert lengths[1] == pytest.approx(min(spec.rounds, law.best_time(s) / time), abs=0.5)
    assert np.isnan(found.route_rounds.values).all()


@pytest.mark.parametrize("deep", [False, True])
def test_worlds_are_predicted_within_what_is_stored(deep):
    spec, found = run("predicted_worlds", problem=SMALL["problem"], rounds=30, most_rounds=30,
                      local_steps=4, deep=deep, deep_step=0.05, factor=0.2,
                      model=ModelSpec(feature_map="identity"), tolerances=(0.1, 0.001))  # fmt: skip
    world = spec.world()
    settings = {"rounds": 30, "local_steps": 4, "local_lr": 0.2 * world.local_lr}
    measured = la.run(la.fed_avg(), world.problem, world.params, record_params=True, **settings)
    predicted = la.predict_run(world.problem, world.params, tolerance=0.1, **settings)
    apart = [np.linalg.norm(a.flat - b.flat) / np.linalg.norm(a.flat)
             for a, b in zip(measured.path, predicted.path, strict=True)]  # fmt: skip
    assert found.path_error[0] == pytest.approx(max(apart), rel=1e-6, abs=1e-14)
    assert found.path_error[1] <= found.path_error[0]
    assert found.num_impulses[0] == predicted.num_impulses + predicted.num_rejected < 31
    assert found.objective_error[1] < 1e-3


def test_the_tuned_optimum_beside_its_prediction():
    """What is stored is what the studies say, and nothing reached is below the measured best."""
    own = {"rounds": 20, "local_steps": 6, "local_lrs": (0.02, 0.05, 0.1), "tolerance": 0.3}
    spec, found = run("tuned_prediction", problem=SMALL["problem"], num_starts=2, **own)
    problem, params = spec.prepared()
    tolerance = own.pop("tolerance")
    studies = {
        "measured": la.study(problem, params, seeds=[spec.seed], **own),
        "predicted": la.predict_study(
            problem, params, seeds=[spec.seed], tolerance=tolerance, **own
        ),
    }
    for k, method in enumerate(found["method"].values.tolist()):
        for name, study in studies.items():
            best = study.best(method)
            assert found[name][k] == best.objective[0]
            assert found[f"{name}_local_lr"][k] == best.local_lr
            assert found[f"{name}_length"][k] == best.warmup[0]
        at = own["local_lrs"].index(float(found["predicted_local_lr"][k]))
        length = list(studies["measured"].table["warmup"].values).index(
            found["predicted_length"][k]
        )
        assert found["reached"][k] == studies["measured"].losses(method)[0, at, 0, length]
    assert (found["reached"] >= found["measured"]).all()
    assert (np.abs(found["predicted"] - found["measured"]) > 0.0).any()


def test_regimes_of_too_many_rounds_are_refused():
    specs = [simulation(path.stem).spec for path in find_scripts("simulations")]
    regimes = [spec for spec in specs if issubclass(spec, RegimeSpec)]
    assert len(regimes) > 6
    for spec in regimes:
        with pytest.raises(ValueError, match="horizon must be at most"):
            spec(horizon=1e12)


@pytest.mark.parametrize("more", [{"weights": "rising"}, {"identical": True}])
def test_problem_and_reference_of_a_regime_are_those_of_its_tables(more):
    """Weights and sharing make another problem than that of the same data."""
    spec = PredictedSpec(**SMALL, **more)
    problem, start = spec.prepared()
    world = spec.tables().world
    assert problem is world.problem
    assert start is world.params
    assert spec.reference(spec.num_starts) is world.reference
    plain, _ = RegimeSpec(problem=spec.problem).prepared()
    assert not np.array_equal(problem.statistics.gram, plain.statistics.gram) or not (
        np.array_equal(problem.weights, plain.weights)
    )
