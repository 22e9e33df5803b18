"""The real_data job on its tiny preset: fields, exact parts, forks, halved steps, refusals."""

import msgspec
import numpy as np
import pytest

import linattn as la
from linattn.analysis.bias_drift import PARTS
from linattn.data.splits import federated_split
from scripts import module, simulation

REAL_DATA = module("real_data")
compute = REAL_DATA.SIMULATION.run
RealDataSpec = REAL_DATA.RealDataSpec
SPECS = simulation("real_data").specs("tiny")


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.data)
def stored(request):
    return request.param, compute(request.param)


def simulated(spec, found, warmup, steps):
    """FedFrozen without any fork, and the federation it ran on."""
    data = federated_split(spec.data, spec.split, alpha=spec.alpha, seed=spec.seed)
    problem, params, _ = spec.prepared()
    result = la.run(
        la.fed_frozen(warmup_rounds=warmup),
        problem,
        params,
        rounds=spec.rounds,
        local_steps=steps,
        local_lr=float(found.step),
        metrics=("objective",),
    )
    return data, result


def test_fields(stored):
    spec, found = stored
    assert dict(found.sizes) == {
        "local_steps": 2,
        "warmup": len(spec.lengths()),
        "round": spec.rounds + 1,
        "attempt": 1,
    }
    assert found.attempt_round.item() == -1
    assert found.step == found.step_factor * found.safe_step
    assert np.isfinite(found.accuracy_rounds).all()
    assert ((found.test_accuracy >= 0) & (found.test_accuracy <= 1)).all()
    last = found.accuracy_rounds.isel(round=slice(-2, None)).std("round")
    np.testing.assert_allclose(found.stability, last, atol=1e-15)
    for name in ("test_loss", "objective_simulated", "kernel_bias", "step"):
        assert found[name].attrs["units"]


def test_parts_are_exact(stored):
    _, found = stored
    parts = sum(found[name] for name in PARTS)
    scale = abs(found.objective) + abs(found.reference) + sum(abs(found[n]) for n in PARTS)
    assert (abs(found.objective - found.reference - parts) <= 1e-10 * scale).all()
    assert (abs(found.residual) <= 1e-10 * scale).all()
    np.testing.assert_allclose(found.objective_simulated, found.objective, rtol=1e-10)
    np.testing.assert_array_equal(found.objective_rounds[..., -1], found.objective_simulated)


def test_ceiling_is_below_every_run_in_training(stored):
    _, found = stored
    assert (found.profile <= found.objective_simulated + 1e-12).all()


def test_forks_are_the_runs_themselves(stored):
    spec, found = stored
    for warmup in (spec.lengths()[1], spec.rounds):
        data, result = simulated(spec, found, warmup, 5)
        entry = found.sel(local_steps=5, warmup=warmup)
        assert entry.test_accuracy == la.accuracy(result.params, *data.test)
        own = result.columns["objective"]
        np.testing.assert_allclose(entry.objective_rounds, own, rtol=1e-12)
        targets = np.eye(len(data.class_names))[data.test[1]]
        loss = la.loss(result.params, data.test[0], targets, readout="mean")
        np.testing.assert_allclose(entry.test_loss, loss, rtol=1e-12)


def test_last_length_is_fed_avg(stored):
    spec, found = stored
    problem, params, _ = spec.prepared()
    common = {"rounds": spec.rounds, "local_steps": 5, "local_lr": float(found.step)}
    average = la.run(la.fed_avg(), problem, params, **common, metrics=("objective",))
    entry = found.sel(local_steps=5, warmup=spec.rounds)
    np.testing.assert_array_equal(entry.objective_rounds, average.columns["objective"])


def test_refit_is_the_value_minimizer(stored):
    spec, found = stored
    problem, params, test = spec.prepared()
    best = la.KernelProfile(problem).minimizer(params)
    expected = REAL_DATA.measure(test, REAL_DATA.features(test, params.kernels()), best)
    entry = found.sel(warmup=0).isel(local_steps=0)
    assert entry.refit_test_accuracy == expected["accuracy"]
    assert entry.refit_test_loss == expected["loss"]
    data = federated_split(spec.data, spec.split, alpha=spec.alpha, seed=spec.seed)
    assert entry.refit_test_accuracy == la.accuracy(params.replace(value=best), *data.test)


def test_an_absurd_step_is_halved_for_all_until_it_holds():
    spec = msgspec.structs.replace(SPECS[1], step_factor=1e3, warmup_lengths=(0, 10, 20))
    found = compute(spec)
    factors = found.attempt_step_factor.values
    assert len(factors) > 2
    np.testing.assert_array_equal(factors, 1e3 / 2.0 ** np.arange(len(factors)))
    assert (found.attempt_round[:-1] >= 0).all()
    assert found.attempt_round[-1] == -1
    assert set(found.attempt_local_steps.values[:-1]) <= {1, 5}
    assert np.isfinite(found.attempt_objective[:-1, 0]).all()
    assert found.attempt_objective[-1].isnull().all()
    assert found.step_factor == factors[-1]
    plain = compute(msgspec.structs.replace(spec, step_factor=factors[-1]))
    np.testing.assert_array_equal(found.test_accuracy, plain.test_accuracy)


def test_a_step_that_never_holds_is_one_sentence(monkeypatch):
    monkeypatch.setattr(REAL_DATA, "MOST_HALVINGS", 1)
    with pytest.raises(ValueError, match=r"^step_factor must be small enough .* 1 halvings of"):
        compute(msgspec.structs.replace(SPECS[1], step_factor=1e12, rounds=2, warmup_lengths=()))


def test_references_agree_where_both_are_affordable():
    problem = la.synthetic_problem(
        num_clients=3, sequences_per_client=6, num_tokens=4, dim=3, num_outputs=2, readout="mean",
        value_ridge=0.1, kernel_ridge=0.1,
    )  # fmt: skip
    params = la.initial_params(problem)
    starts = RealDataSpec(alpha=1.0, reference="multi_start", num_starts=3)
    best = REAL_DATA.find_reference(starts, problem, params)
    single = REAL_DATA.find_reference(RealDataSpec(alpha=1.0), problem, params)
    assert best["reference"][1] <= single["reference"][1] + 1e-9
    assert single["reference_gradient_norm"][1] < 1e-6
    assert np.isnan(single["reference_lower_bound"][1])
    assert best["reference_lower_bound"][1] <= best["reference"][1]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"data": "watch"}, r"split must be one of 'sides', 'subjects'"),
        ({"split": "sides"}, r"split must be one of 'sheets', 'dirichlet', 'iid'"),
        ({}, r"alpha must be a number > 0 for the dirichlet split .* got None"),
        ({"split": "iid", "alpha": 0.1}, r"alpha must be .* null for all others, got 0.1"),
        ({"alpha": 0.1, "warmup_lengths": (0, 300)}, r"at most rounds = 200, got 300"),
        ({"alpha": 0.1, "local_steps": ()}, r"local_steps must be strictly increasing"),
    ],
)
def test_bad_specs(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        RealDataSpec(**fields)


def test_a_recorded_path_changes_nothing_and_must_fit():
    problem = la.synthetic_problem(
        num_clients=3, sequences_per_client=6, num_tokens=4, dim=3, num_outputs=2,
        value_heterogeneity=1.0, covariate_heterogeneity=0.3, value_ridge=0.1, kernel_ridge=0.1,
    )  # fmt: skip
    params = la.initial_params(problem)
    settings = {"rounds": 6, "local_steps": 3, "local_lr": 0.05}
    path = la.run(la.fed_avg(), problem, params, **settings, record_params=True).path
    asked = settings | {"warmup_lengths": (0, 2, 6), "reference": 0.0}
    plain = la.bias_drift(problem, params, **asked)
    assert plain.identical(la.bias_drift(problem, params, **asked, path=path))
    for wrong in (path[:5], path[1:] + path[:1]):
        with pytest.raises(ValueError, match=r"^path must start at params and hold 7 entries"):
            la.bias_drift(problem, params, **asked, path=wrong)
