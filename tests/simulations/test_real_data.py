"""The real_data job on its tiny preset: runs, forks, ceilings, classifiers, refusals."""

import msgspec
import numpy as np
import pytest

import linattn as la
from linattn.data.splits import federated_split
from linattn.experiments.tuning import FACTORS, best_step
from scripts import module, simulation

REAL_DATA = module("real_data")
compute = REAL_DATA.SIMULATION.run
RealDataSpec = REAL_DATA.RealDataSpec
SPECS = simulation("real_data").specs("tiny")


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.data)
def stored(request):
    return request.param, compute(request.param)


def trained(spec, found, method, name):
    """A whole run at the step that was found best, without any fork."""
    world = REAL_DATA.make_world(spec)
    step = float(found.unit_step) * float(found.factor.sel({"method": name}))
    result = la.run(method, world.problem, world.params, local_lr=step, metrics=("objective",),
                    **spec.settings())  # fmt: skip
    return world, result


def test_fields(stored):
    spec, found = stored
    assert dict(found.sizes) == {
        "method": 4, "round": spec.rounds + 1, "warmup": len(spec.lengths()), "classifier": 0,
    }  # fmt: skip
    assert np.isfinite(found.accuracy_rounds).all()
    assert ((found.test_accuracy >= 0) & (found.test_accuracy <= 1)).all()
    last = found.accuracy_rounds.isel(round=slice(-2, None)).std("round")
    np.testing.assert_allclose(found.stability, last, atol=1e-15)
    np.testing.assert_array_equal(found.floats, found.floats_rounds[:, -1])
    for name in ("test_loss", "objective", "objective_rounds", "profile", "unit_step"):
        assert found[name].attrs["units"]


def test_fed_avg_is_the_whole_run(stored):
    spec, found = stored
    world, result = trained(spec, found, la.fed_avg(), "fed_avg")
    entry = found.sel({"method": "fed_avg"})
    np.testing.assert_array_equal(entry.objective_rounds, result.columns["objective"])
    data = federated_split(spec.data, spec.split, alpha=spec.alpha, seed=spec.seed)
    assert entry.test_accuracy == la.accuracy(result.params, *data.test)
    targets = np.eye(len(data.class_names))[data.test[1]]
    loss = la.loss(result.params, data.test[0], targets, readout="mean")
    np.testing.assert_allclose(entry.test_loss, loss, rtol=1e-12)
    profile = la.KernelProfile(world.problem).value(result.params)
    np.testing.assert_allclose(found.profile, profile, rtol=1e-12)


@pytest.mark.parametrize("name", ["fed_frozen", "frozen_scaffold", "frozen_one_shot"])
def test_forks_are_the_runs_themselves(stored, name):
    spec, found = stored
    entry = found.sel({"method": name})
    method = la.fed_frozen(warmup_rounds=int(entry.length), frozen=REAL_DATA.STAGES[name])
    _, result = trained(spec, found, method, name)
    np.testing.assert_allclose(entry.objective_rounds, result.columns["objective"], rtol=1e-9)


def test_the_best_length_is_the_lowest_training_objective(stored):
    _, found = stored
    np.testing.assert_allclose(found.objective, found.objective_warmup.min("warmup"), rtol=1e-12)
    assert found.ceiling_objective <= float(found.objective.min())
    exact, average = (found.sel({"method": m}) for m in ("frozen_one_shot", "fed_avg"))
    assert exact.objective < average.objective
    assert exact.floats < average.floats


def test_prediction_follows_fed_avg(stored):
    _, found = stored
    average = found.objective_rounds.sel({"method": "fed_avg"})
    np.testing.assert_allclose(found.predicted_objective, average, rtol=0.02)
    assert found.num_impulses > 0


def test_sampled_clients_and_classifiers():
    spec = msgspec.structs.replace(
        SPECS[0], participation=0.3, rounds=3, classifiers=("linear", "kernel"), factors=(3.0,)
    )
    found = compute(spec)
    assert found.predicted_objective.isnull().all()
    assert (found.classifier_accuracy > 0.9).all()


def test_steps_are_tried_until_the_best_is_inside():
    tried = []

    def run_at(factor):
        tried.append(factor)
        return factor, float("inf") if factor > 50.0 else 1.0 / factor

    best = best_step(run_at, FACTORS)
    assert (best.factor, best.loss, best.interior) == (30.0, 1.0 / 30.0, True)
    tried.clear()
    best = best_step(lambda factor: run_at(1.0 / factor), (1.0, 3.0))
    assert (best.factor, best.interior) == (0.03, True)
    assert len(tried) == 6
    assert not best_step(lambda factor: (None, factor), (1.0,)).interior


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"data": "watch"}, r"split must be one of 'sides', 'subjects'"),
        ({"split": "sides"}, r"split must be one of 'sheets', 'dirichlet', 'iid'"),
        ({}, r"alpha must be a number > 0 for the dirichlet split .* got None"),
        ({"split": "iid", "alpha": 0.1}, r"alpha must be .* null for all others, got 0.1"),
        ({"data": "schools"}, r"data must be one of 'digits', 'watch', got 'schools'"),
        ({"dataset": "x.npz#0", "split": "ward", "alpha": 0.1}, r"alpha must be .* for 'ward'"),
        ({"dataset": "x.npz#0", "data": "own"}, r"alpha must be a number > 0 .* got None"),
        ({"alpha": 0.1, "factors": ()}, r"factors must be strictly increasing"),
        ({"alpha": 0.1, "warmup_shares": (0.5, 0.1)}, r"warmup_shares must be strictly increasing"),
    ],
)
def test_bad_specs(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        RealDataSpec(**fields)


def test_an_own_set_takes_the_place_of_the_shipped_one_and_of_its_splits():
    skewed = RealDataSpec(dataset="x.npz#0", alpha=0.5)
    assert (skewed.data, skewed.split) == ("own", "dirichlet")
    sides = RealDataSpec(dataset="x.npz#0", data="watch", split="sides")
    assert (sides.data, sides.split) == ("own", "iid")
    assert msgspec.convert(msgspec.to_builtins(sides), RealDataSpec) == sides
    grouped = RealDataSpec(dataset="x.npz#0", split="ward")
    assert grouped.split == "ward"
