"""The drift response: path, tangent, noise and best time by other routes (C18, C19)."""

import numpy as np
import pytest
import scipy.integrate

import linattn as la
from linattn.objectives.population import population
from linattn.theory.drift_field import DriftField, relative_work

HORIZON = 4.0


def tiny(seed=0, **more):
    options = {"num_clients": 3, "sequences_per_client": 5, "num_tokens": 4, "dim": 2,
               "num_outputs": 2, "value_heterogeneity": 1.0, "covariate_heterogeneity": 0.3,
               "noise": 0.1, "value_ridge": 0.1, "kernel_ridge": 0.05, "seed": seed}  # fmt: skip
    return la.synthetic_problem(**options | more)


KINDS = {
    "merged": (tiny(), {}),
    "two heads, unequal weights": (tiny(weights=[0.2, 0.5, 0.3]), {"num_heads": 2}),
    "factored, one query": (tiny(readout="last"), {"kernel": "factored", "rank": 2}),
}


def made(name="merged"):
    problem, options = KINDS[name]
    return problem, la.initial_params(problem, scale=0.8, value="normal", **options)


@pytest.fixture(params=KINDS)
def kind(request):
    return made(request.param)


def field(problem, params, work=None):
    share = relative_work(work, problem.weights)
    return DriftField(problem, params, problem.weights, share)


def client_gradient(problem, i, params, flat):
    """∇F_i from the objective of the client alone."""
    return la.Joint(problem.subset([i])).value_and_gradient(la.Params(params.layout, flat))[1].flat


def differences(function, flat, direction, step=1e-5):
    return (function(flat + step * direction) - function(flat - step * direction)) / (2 * step)


def test_the_drift_field_is_the_slope_of_half_the_variance(kind):
    problem, params = kind

    def variance(flat):
        own = np.stack([client_gradient(problem, i, params, flat) for i in range(3)])
        apart = own - problem.weights @ own
        return 0.5 * problem.weights @ (apart**2).sum(axis=1)

    found = field(problem, params).drift(params.flat)
    expected = [differences(variance, params.flat, unit) for unit in np.eye(params.flat.size)]
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7 * np.linalg.norm(found))


def test_the_drift_field_of_unequal_work(kind):
    """Σ q_i e_i H_i g_i − H_q g_q with q_i = p_i e_i."""
    problem, params = kind
    work = np.array([1.0, 4.0, 2.0])
    e = work / (problem.weights @ work)
    q = problem.weights * e
    flat = params.flat

    def own(i):
        return lambda at: client_gradient(problem, i, params, at)

    g = np.stack([own(i)(flat) for i in range(3)])
    expected = sum(q[i] * differences(own(i), flat, e[i] * g[i] - q @ g) for i in range(3))
    found = field(problem, params, work).drift(flat)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7 * np.linalg.norm(found))


def test_path_and_tangent_are_those_of_another_integrator(kind):
    """Radau on slopes by differences of F_i, whose path and tangent are the exact flow."""
    problem, params = kind
    held = field(problem, params)
    size = params.flat.size

    def slope(_, state):
        flat, tangent = state[:size], state[size:]
        bend = differences(held.gradient, flat, tangent) if tangent.any() else 0.0 * tangent
        return np.concatenate([-held.gradient(flat), held.drift(flat) - bend])

    found = la.drift_response(problem, params, HORIZON)
    start = np.concatenate([params.flat, np.zeros(size)])
    other = scipy.integrate.solve_ivp(slope, (0, HORIZON), start, method="Radau", rtol=1e-7,
                                      atol=1e-9, t_eval=found.time).y.T  # fmt: skip
    for mine, theirs in ((found.path, other[:, :size]), (found.drift, other[:, size:])):
        apart = np.linalg.norm(mine - theirs, axis=1)
        assert (apart <= 1e-3 * np.linalg.norm(theirs, axis=1) + 1e-9).all()


def test_times_and_profile(kind):
    problem, params = kind
    found = la.drift_response(problem, params, 5.5)
    assert {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.5} <= set(found.time)
    assert (np.diff(found.time) > 0).all()
    held = population(problem)
    for k in (0, len(found.time) - 1):
        at = found.at(k)
        expected = held.profile_value(at, held.value_system(at.kernels()))
        assert found.profile[k] == pytest.approx(expected, rel=1e-13)
    assert not found.drift[0].any()


def fitted_order(sizes, errors):
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


def test_fed_avg_is_path_and_tangent_to_second_order_in_s():
    """At matched steps, with s up to .02."""
    problem, params = made()
    held, eta, total = field(problem, params), 0.001, 400
    path, tangent = params.flat.copy(), np.zeros(params.flat.size)
    for _ in range(total):
        pull = held.slope(path, tangent) - held.drift(path)
        path, tangent = path - eta * held.gradient(path), tangent - eta * pull
    drifts, errors = [], []
    for count in (10, 20, 40):
        run = la.run(la.fed_avg(), problem, params, rounds=total // count, metrics=(),
                     local_steps=count, local_lr=eta)  # fmt: skip
        drifts.append(0.5 * eta * (count - 1))
        errors.append(np.linalg.norm(run.params.flat - path - drifts[-1] * tangent))
    assert fitted_order(drifts, errors) == pytest.approx(2.0, abs=0.2)


def test_the_settled_response_is_the_bias_to_first_order():
    problem, params = made()
    response = la.drift_response(problem, params, 1.0)
    held = field(problem, params)
    flat = la.run(la.fed_avg(), problem, params, rounds=4000, local_steps=1, local_lr=0.05,
                  metrics=()).params.flat  # fmt: skip
    for _ in range(8):
        flat = flat - np.linalg.solve(held.hessian(flat), held.gradient(flat))
    rest = la.Params(params.layout, flat)
    settled = response.settled(rest)
    errors, sizes = [], []
    for eta in (0.01, 0.02):
        ended = la.run(la.fed_avg(), problem, rest, rounds=round(60 / eta), local_steps=6,
                       local_lr=eta, metrics=()).params  # fmt: skip
        sizes.append(0.5 * eta * 5)
        errors.append(np.linalg.norm(ended.flat - flat - sizes[-1] * settled))
        assert errors[-1] < 0.3 * np.linalg.norm(sizes[-1] * settled)
    assert fitted_order(sizes, errors) == pytest.approx(2.0, abs=0.3)


def test_identical_clients_do_not_drift():
    problem = la.pool(tiny())
    params = la.initial_params(problem, scale=0.8)
    found = la.drift_response(problem, params, 3.0)
    assert np.abs(found.drift).max() <= 1e-12
    assert found.best_time(0.1) == pytest.approx(3.0)


def test_best_time_is_the_argmin_of_the_objective():
    problem = tiny(2, value_heterogeneity=1.5, covariate_heterogeneity=0.5)
    found = la.drift_response(problem, la.initial_params(problem, scale=0.8), 10.0)
    times = found.best_time([0.01, 0.02])
    assert times.shape == (2,)
    assert 0.0 < times[1] < times[0]
    for s, best in zip((0.01, 0.02), times, strict=True):
        values = found.objective(s)
        nearest = found.time[np.argmin(values)]
        assert abs(best - nearest) <= np.diff(found.time).max()
    assert found.best_time(0.02) == times[1]


def test_the_objective_without_drift_is_that_of_the_flow():
    """At s = 0: P(B(τ)) and the value block relaxed by the flow of its own objective."""
    problem, params = made()
    found = la.drift_response(problem, params, 4.0)
    k = len(found.time) // 2
    at, rest = found.at(k), found.time[-1] - found.time[k]
    frozen = la.run(la.fed_frozen(warmup_rounds=0), problem, at, rounds=4000, local_steps=1,
                    local_lr=rest / 4000, metrics=("objective",))  # fmt: skip
    assert found.objective(0.0)[k] == pytest.approx(frozen.columns["objective"][-1], rel=1e-4)


def noisy(kind, eta, runs, **draws):
    """Mean and covariance of the ends of sampled FedAvg with E = 2, around the run of everybody."""
    problem, params = kind
    rounds = round(0.5 / (2 * eta))
    settings = {"rounds": rounds, "local_steps": 2, "local_lr": eta, "metrics": ()}
    still = la.run(la.fed_avg(), problem, params, **settings).params.flat
    ends = np.stack([
        la.run(la.fed_avg(), problem, params, seed=k, **settings, **draws).params.flat
        for k in range(runs)
    ])  # fmt: skip
    return ends - still


@pytest.mark.parametrize("draws", [{"participation": 0.34}, {"batch_size": 1}], ids=str)
def test_covariance_is_that_of_an_ensemble(draws):
    kind, eta, runs = made(), 0.01, 100
    found = la.drift_response(*kind, 0.5, noise=True, **draws)
    predicted = 2 * eta * found.sampling_covariance[-1] + eta * found.batch_covariance[-1]
    ends = noisy(kind, eta, runs, **draws)
    measured = np.cov(ends.T)
    # The relative error of a trace from so many runs, and what is left out, O(η).
    slack = 4.0 * np.sqrt(2.0 / runs) + 2.0 * eta
    assert np.trace(measured) == pytest.approx(np.trace(predicted), rel=slack)
    values, vectors = np.linalg.eigh(predicted)
    for k in (-1, -2):
        along = vectors[:, k] @ measured @ vectors[:, k]
        assert along == pytest.approx(values[k], rel=slack)


def test_noise_is_the_solution_of_its_equations(kind):
    """Against small explicit steps of Σ' = −HΣ − ΣH + Q, m' = −Hm − ½∇³F:Σ."""
    problem, params = kind
    found = la.drift_response(problem, params, 0.3, noise=True, participation=0.67)
    steps, size = 150, params.flat.size
    h, flat = 0.3 / steps, params.flat.copy()
    sigma, shift = np.zeros((size, size)), np.zeros(size)
    draws = [np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0])]
    drawn = np.stack([d * problem.weights / (d @ problem.weights) for d in draws])
    held = DriftField(problem, params, drawn.mean(axis=0), np.ones(3))
    for _ in range(steps):
        curved, slope = held.hessian(flat), held.gradient(flat)
        rows = drawn @ held.all_gradients(flat)
        apart = rows - rows.mean(axis=0)
        values, vectors = np.linalg.eigh(sigma)
        far = 1e-3 * vectors.T
        bend = held.gradients(flat + far) + held.gradients(flat - far) - 2.0 * slope
        shift = shift - h * (curved @ shift + 0.5 * (values @ bend) / 1e-6)
        sigma = sigma + h * (apart.T @ apart / 3.0 - curved @ sigma - sigma @ curved)
        flat = flat - h * slope
    apart = np.linalg.norm(found.sampling_covariance[-1] - sigma)
    assert apart <= 0.05 * np.linalg.norm(sigma)
    apart = np.linalg.norm(found.sampling_shift[-1] - shift)
    assert apart <= 0.05 * np.linalg.norm(shift)
    assert not found.batch_covariance.any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"horizon": 0.0}, "horizon must be > 0"),
        ({"horizon": np.nan}, "horizon must be"),
        ({"work": [1.0, 2.0]}, "work must have 3 entries"),
        ({"work": [1.0, 0.0, 1.0]}, "work must be > 0"),
        ({"participation": 0.0}, "participation must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"sampling": "other"}, "sampling must be"),
    ],
)
def test_bad_input_is_one_sentence(change, sentence):
    problem, params = made()
    horizon = change.pop("horizon", 1.0)
    with pytest.raises(ValueError, match=sentence):
        la.drift_response(problem, params, horizon, **change)


def test_starts_that_do_not_move_or_never_end():
    problem, params = made()
    resting = la.initial_params(problem, scale=1e-300)
    with pytest.raises(ValueError, match="params must not be stationary"):
        la.drift_response(problem, resting.replace(kernel=0 * resting.kernel), 1.0)
    with pytest.raises(ValueError, match="params must be stationary"):
        la.drift_response(problem, params, 1.0).settled(params)
    with pytest.raises(AttributeError, match="noise=True"):
        la.drift_response(problem, params, 1.0).sampling_shift  # noqa: B018
    wide = tiny(dim=24)
    with pytest.raises(ValueError, match="at most 512 entries for noise"):
        la.drift_response(wide, la.initial_params(wide), 1.0, noise=True)
