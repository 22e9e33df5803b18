"""The log law: its formula against the curve it minimizes, its constants by other routes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from worlds import world

import linattn as la
from linattn.theory.log_law import LEFT, LogLaw, log_law, rest_point
from linattn.theory.symmetry import change_gauge, gauge_directions

LAW = LogLaw(rate=0.25, time=8.0, excess=0.5, crossing=-2.0, left=1e-3)


def curve(law, s, time):
    """P − P° − O(s²) of the docstring."""
    decay = np.exp(-law.rate * (time - law.time))
    return 0.5 * law.excess * decay**2 + s * law.crossing * decay


@pytest.fixture(scope="module", params=["merged", "two heads", "factored"])
def settled(request):
    problem = world(num_clients=3, sequences_per_client=8, num_tokens=6, dim=2,
                    value_heterogeneity=1.0, covariate_heterogeneity=0.3, value_ridge=0.1,
                    kernel_ridge=0.05)  # fmt: skip
    options = {"two heads": {"num_heads": 2}, "factored": {"kernel": "factored", "rank": 1}}
    params = la.initial_params(problem, scale=0.7, **options.get(request.param, {}))
    return problem, la.drift_response(problem, params, 200.0)


@pytest.mark.parametrize("s", [0.003, 0.02, 0.1])
def test_the_best_time_is_where_the_curve_is_lowest(s):
    found = minimize_scalar(lambda t: curve(LAW, s, t), bounds=(-50.0, 200.0), method="bounded")
    assert LAW.best_time(s) == pytest.approx(max(0.0, found.x), abs=1e-3)
    assert LAW.saving(s) == pytest.approx(-found.fun, rel=1e-6)


def test_the_slope_in_the_logarithm_is_one_over_the_rate():
    drifts = 0.01 * 0.5 ** np.arange(4)
    times = [LAW.best_time(s) for s in drifts]
    assert np.diff(times) == pytest.approx(np.log(2.0) / 0.25)


def test_drift_on_this_side_of_the_optimum_never_freezes():
    away = replace(LAW, crossing=2.0)
    assert not away.has_interior
    assert away.best_time(0.1) == np.inf
    assert away.saving(0.1) == 0.0
    assert LAW.best_time(0.0) == np.inf
    assert LAW.best_time(1e6) == 0.0


def test_a_negative_drift_number_is_refused():
    for ask in (LAW.best_time, LAW.saving):
        with pytest.raises(ValueError, match="drift_number must be"):
            ask(-0.1)


def test_predictions_stay_along_gauge_directions(settled):
    problem, response = settled
    at = response.at(len(response.time) - 1)
    tokens = np.random.default_rng(0).normal(size=(5, 6, problem.dim))
    predict = lambda flat: la.predict(la.Params(at.layout, flat), tokens)  # noqa: E731
    size = np.abs(predict(at.flat)).max()
    for direction in gauge_directions(at):
        step = 1e-4 * direction / np.linalg.norm(direction)
        moved = predict(at.flat + step) - predict(at.flat - step)
        assert np.abs(moved).max() <= 1e-8 * size


def test_gauge_directions_are_the_derivative_of_the_gauge(settled):
    _, response = settled
    at = response.at(0)
    size = at["query"].shape[-1] if at.is_factored else at.num_heads
    change = np.random.default_rng(1).normal(size=(size, size))
    apart = [change_gauge(at, np.eye(size) + h * change).flat for h in (1e-5, -1e-5)]
    slope = (apart[0] - apart[1]) / 2e-5
    rows = gauge_directions(at)
    left = slope - rows.T @ np.linalg.lstsq(rows.T, slope, rcond=None)[0]
    assert np.linalg.norm(left) <= 1e-8 * np.linalg.norm(slope)


def test_the_rest_point_is_stationary_across_them_and_its_rates_are_curvatures(settled):
    problem, response = settled
    found = rest_point(response.flow, response.at(len(response.time) - 1))
    joint, at = la.Joint(problem), found.params
    gradient = lambda flat: joint.gradient(la.Params(at.layout, flat)).flat  # noqa: E731
    _, sizes, rows = np.linalg.svd(gauge_directions(at))
    across = rows[int((sizes > 1e-9 * sizes[0]).sum()) :]
    assert np.linalg.norm(across @ gradient(at.flat)) <= 1e-6
    slopes = [(gradient(at.flat + 1e-5 * d) - gradient(at.flat - 1e-5 * d)) / 2e-5 for d in across]
    rates = np.linalg.eigvalsh(across @ np.array(slopes).T)
    assert found.rates == pytest.approx(rates, rel=1e-5, abs=1e-8)
    assert rates[0] > 0.0


def test_the_constants_are_those_of_the_path(settled):
    problem, response = settled
    law, profile = log_law(response), la.KernelProfile(problem)
    at = int(np.flatnonzero(response.time == law.time)[0])
    floor = profile.value(rest_point(response.flow, response.at(len(response.time) - 1)).params)
    assert law.excess == pytest.approx(2.0 * (response.profile[at] - floor), rel=1e-9)
    assert law.left <= LEFT < (response.profile[at - 1] - floor) / (response.profile[0] - floor)
    ends = [profile.value(response.at(at, h)) for h in (1e-5, -1e-5)]
    assert law.crossing == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_bad_responses_are_refused(settled):
    problem, response = settled
    start = response.at(0)
    uneven = la.drift_response(problem, start, 3.0, work=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="equal work"):
        log_law(uneven)


def test_a_path_that_still_waits_says_how_much_is_left(settled):
    problem, response = settled
    early = la.drift_response(problem, response.at(0), 0.5)
    law = log_law(early)
    assert law.time == 0.5
    assert LEFT < law.left < 1.0


def test_a_path_without_a_minimum_near_its_end_is_refused(settled, monkeypatch):
    problem, response = settled
    monkeypatch.setattr("linattn.theory.log_law.MOST_STEPS", 1)
    with pytest.raises(ValueError, match="must end near a minimum"):
        log_law(la.drift_response(problem, response.at(0), 0.5))
