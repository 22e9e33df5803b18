"""The tuned optimum predicted, against the measured one."""

import numpy as np
import pytest
from method_cases import drifting_world

import linattn as la

SETTINGS = {"local_lrs": [0.02, 0.05, 0.1], "local_steps": [2, 12], "rounds": 60}


@pytest.fixture(scope="module")
def pair():
    """A problem and a start with a trade-off."""
    problem, _ = drifting_world(num_clients=4, value_heterogeneity=1.0, noise=0.0)
    return problem, la.initial_params(problem)


def test_measuring_every_round_gives_the_measured_study(pair):
    measured = la.study(*pair, **SETTINGS).table
    predicted = la.predict_study(*pair, tolerance=0.0, **SETTINGS).table
    np.testing.assert_allclose(measured["objective"], predicted["objective"], rtol=1e-10)


def test_predicts_the_tuned_optimum(pair):
    measured, predicted = la.study(*pair, **SETTINGS), la.predict_study(*pair, **SETTINGS)
    reference = la.reference_value(pair[0], like=pair[1], num_starts=4).value
    for name in measured.methods:
        one, two = measured.best(name), predicted.best(name)
        assert (one.local_lr, one.local_steps) == (two.local_lr, two.local_steps)
        excess = one.objective[0] - reference
        assert abs(two.objective[0] - one.objective[0]) < 0.01 * excess
    assert predicted.best("fed_frozen_exact").objective < predicted.best("fed_avg").objective


def test_no_federated_round_is_run(pair, monkeypatch):
    monkeypatch.setattr("linattn.analysis.study_cell.run", None)
    assert np.isfinite(la.predict_study(*pair, **SETTINGS).table["objective"]).any()


def test_budgets_and_seeds_are_those_of_a_study(pair):
    settings = {
        "local_lrs": [0.05], "local_steps": 3, "floats": 2000.0, "seeds": (0, 2),
        "warmup_lengths": (0, 5, 20),
    }  # fmt: skip

    def start(seed):
        return la.initial_params(pair[0], seed=seed)

    measured = la.study(pair[0], start, **settings).table
    predicted = la.predict_study(pair[0], start, tolerance=0.0, **settings).table
    assert measured["rounds"].equals(predicted["rounds"])
    np.testing.assert_allclose(measured["objective"], predicted["objective"], rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"methods": ["fed_prox"]}, "methods must be one of"),
        ({"tolerance": -1.0}, "tolerance must be"),
        ({"local_lrs": []}, "local_lrs must not be empty"),
        ({"rounds": None}, "rounds"),
    ],
)
def test_refusals(pair, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        la.predict_study(*pair, **{**SETTINGS, **change})
