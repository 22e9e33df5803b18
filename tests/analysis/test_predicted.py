"""The predicted table of warm-up lengths against the simulated one, and when it is not trusted."""

import numpy as np
import pytest
import xarray as xr
from method_cases import drifting_world

import linattn as la
from linattn.analysis.predicted import curve_error, judge
from linattn.analysis.regret import has_tradeoff, relative_regret, stake
from linattn.theory.prediction import predict_run

RUN = {"rounds": 150, "local_steps": 10, "local_lr": 0.02}


@pytest.fixture(scope="module")
def base():
    """A problem and a start on which never freezing loses most of the gain."""
    problem, params = drifting_world()
    return problem, params, la.reference_value(problem, like=params, num_starts=3)


def test_it_is_the_table_of_the_run(base):
    problem, params, reference = base
    predicted = la.predict_trade_off(problem, params, reference=reference, **RUN)
    lengths = predicted["warmup"].values
    assert lengths.tolist() == list(range(151))
    measured = la.bias_drift(problem, params, warmup_lengths=lengths, reference=reference, **RUN)
    excess = measured["objective"].values - reference.value
    gaps = np.abs(predicted["objective"].values - measured["objective"].values) / excess
    assert gaps.max() < 0.02
    assert gaps.max() < predicted.attrs["curve_error"] < 0.3
    assert predicted.attrs["trusted"] is True
    assert predicted.attrs["reason"] == ""
    assert 0 < predicted.attrs["warmup_star"] < 150
    at = predicted["warmup"].values == predicted.attrs["warmup_star"]
    assert relative_regret(measured, float(measured["objective"].values[at][0])) < 0.01
    assert predicted.attrs["num_impulses"] < 80
    for name, column in measured.items():
        assert predicted[name].attrs == column.attrs


def test_every_round_measured_is_exact(base):
    problem, params, reference = base
    options = {"reference": reference, "warmup_lengths": [10, 30], **RUN, "rounds": 40}
    predicted = la.predict_trade_off(problem, params, tolerance=0.0, **options)
    measured = la.bias_drift(problem, params, **options | {"warmup_lengths": [0, 10, 30, 40]})
    assert predicted.attrs["curve_error"] == 0.0
    assert predicted["warmup"].values.tolist() == [0, 10, 30, 40]
    for name in ("objective", "profile", "value_floor", "profile_synchronized"):
        np.testing.assert_allclose(predicted[name], measured[name], rtol=1e-10)


def test_without_drift_there_is_nothing_to_choose(base):
    problem, params, reference = base
    alone = la.predict_trade_off(problem, params, reference=reference, **RUN | {"local_steps": 1})
    assert alone.attrs["trusted"] is False
    assert "stake is below 1e-3" in alone.attrs["reason"]


@pytest.mark.parametrize(
    ("objective", "share", "worth"),
    [
        ([5.0, 1.0, 2.0], 0.25, True),
        ([5.0, 1.0, 1.001], 0.00025, False),
        ([1.0, 1.5, 2.0], np.inf, True),
        ([1.0, 1.0, 1.0], 0.0, False),
        ([5.0, 1.0, np.inf], np.inf, True),
        ([np.inf, 1.0, 2.0], 0.0, False),
        ([np.inf, 1.0, np.inf], np.inf, True),
        ([np.inf, np.inf, np.inf], np.nan, False),
    ],
)
def test_the_stake_where_ends_diverge(objective, share, worth):
    stable = np.isfinite(objective)
    table = xr.Dataset({"objective": ("warmup", objective), "stable": ("warmup", stable)})
    assert stake(table) == pytest.approx(share, nan_ok=True)
    assert has_tradeoff(table) is worth


def test_a_chaotic_run_is_not_trusted(base):
    problem, params, reference = base
    wild = la.predict_trade_off(
        problem, params, reference=reference, rounds=200, local_steps=2, local_lr=0.1,
        frozen_lr="safe", warmup_lengths=[0, 50, 100],
    )  # fmt: skip
    assert wild.attrs["trusted"] is False
    assert "the run is chaotic: of a start moved by 1e-09" in wild.attrs["reason"]


def test_a_diverging_run_loses_its_late_lengths(base):
    problem, params, reference = base
    options = {"rounds": 40, "local_steps": 3, "local_lr": 0.4, "frozen_lr": "safe"}
    run = predict_run(problem, params, rounds=40, local_steps=3, local_lr=0.4)
    assert run.outcome.status == "diverged"
    table = la.predict_trade_off(problem, params, reference=reference, **options)
    fine = np.isfinite(table["objective"].values)
    assert fine[: run.outcome.round + 1].all()
    assert not fine[run.outcome.round + 1 :].any()
    assert np.isfinite(table.attrs["curve_error"])


def test_a_length_that_moves_is_not_trusted(base):
    """Two tables whose T̂ differ by more than 5 % of the stake in value; by hand."""
    problem, params, _ = base
    run = predict_run(problem, params, rounds=3, local_steps=2, local_lr=0.01)
    table = la.bias_drift(
        problem, params, warmup_lengths=[0, 1, 2, 3], rounds=3, local_steps=2, local_lr=0.01,
        reference=0.0,
    )  # fmt: skip
    held = table.assign(objective=("warmup", [5.0, 1.0, 1.2, 3.0])).assign_attrs(warmup_star=1)
    other = held.assign(objective=("warmup", [5.0, 1.4, 1.2, 3.0])).assign_attrs(warmup_star=2)
    verdict = judge(held, other, run)
    assert verdict == (False, "four tolerances move T̂ by 0.1 of the stake in value")
    assert judge(held, held, run).trusted
    assert curve_error(held, other) == pytest.approx(0.4)
    none = held.assign_attrs(warmup_star=None)
    assert judge(none, none, run).reason == "no warm-up length is stable"
    assert "move T̂ by inf" in judge(held, none, run).reason


def test_refusals(base):
    problem, params, _ = base
    with pytest.raises(ValueError, match="tolerance must be >= 0"):
        la.predict_trade_off(problem, params, tolerance=-1.0, reference=0.0, **RUN)
    with pytest.raises(ValueError, match=r"warmup_lengths must be numbers in 0..150"):
        la.predict_trade_off(problem, params, warmup_lengths=[151], reference=0.0, **RUN)


@pytest.fixture(scope="module")
def sampled(base):
    """Two of five clients and half of the batch."""
    problem, params, reference = base
    settings = {"rounds": 80, "local_steps": 5, "local_lr": 0.005, "participation": 0.4,
                "batch_size": 4}  # fmt: skip
    predicted = la.predict_trade_off(
        problem, params, reference=reference, warmup_lengths=range(0, 81, 5), **settings
    )
    return predicted, settings


def test_under_sampling_it_is_the_mean_over_runs(base, sampled):
    problem, params, _ = base
    predicted, settings = sampled
    for length in (0, 30, 80):
        row = predicted.sel(warmup=length)
        values, profiles = [], []
        for seed in range(40):
            method = la.fed_frozen(warmup_rounds=length)
            run = la.run(method, problem, params, seed=seed, metrics=[], **settings)
            values.append(la.Joint(problem).value(run.params))
            profiles.append(la.KernelProfile(problem).value(run.params))
        for name, found in (("objective", values), ("profile", profiles)):
            error = 4.0 * np.std(found) / np.sqrt(40) + 0.01 * abs(np.mean(found))
            assert error < 0.2 * np.mean(found)
            assert abs(float(row[name]) - np.mean(found)) < error


def test_its_parts_add_up(sampled):
    predicted, _ = sampled
    parts = ("kernel_bias", "value_transient", "value_floor", "value_cross", "value_noise")
    total = sum(predicted[name].values for name in parts) + predicted.attrs["reference"]
    np.testing.assert_allclose(total + predicted["residual"].values, predicted["objective"])
    assert np.abs(predicted["residual"].values).max() < 1e-12
    assert np.isnan(predicted.attrs["amplification"])


def test_runs_that_leave_a_plateau_at_different_times_are_not_trusted(base):
    problem, _, reference = base
    params = la.initial_params(problem, scale=0.05, seed=1)
    predicted = la.predict_trade_off(
        problem, params, rounds=200, local_steps=5, local_lr=0.014, participation=0.4,
        warmup_lengths=range(0, 201, 20), reference=reference,
    )  # fmt: skip
    assert predicted.attrs["trusted"] is False
    assert "single runs scatter too far for a Gaussian" in predicted.attrs["reason"]
