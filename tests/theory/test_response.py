"""The drift response: path, tangent, noise and best time by other routes (C18, C19)."""

from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pytest
from bridge import relative_error
from method_cases import drifting_world, log_slope
from worlds import world

import linattn as la
from linattn.objectives.population import population
from linattn.theory import drift_flow, response
from linattn.theory.drift_field import DriftField, relative_work


def tiny(**more):
    options = {"num_clients": 3, "sequences_per_client": 5, "num_tokens": 4, "dim": 2,
               "value_heterogeneity": 1.0, "covariate_heterogeneity": 0.3, "value_ridge": 0.1,
               "kernel_ridge": 0.05}  # fmt: skip
    return world(**options | more)


def start(problem, **options):
    return la.initial_params(problem, scale=0.5, value="normal", **options)


KINDS = {
    "merged": (tiny(), {}),
    "two heads, unequal weights": (tiny(weights=[0.2, 0.5, 0.3]), {"num_heads": 2}),
    "factored, one query": (tiny(readout="last"), {"kernel": "factored", "rank": 2}),
}


@pytest.fixture(params=KINDS)
def kind(request):
    problem, options = KINDS[request.param]
    return problem, start(problem, **options)


@pytest.fixture(scope="module")
def merged():
    return tiny(), start(tiny())


@pytest.fixture(scope="module")
def trade_off():
    """Training gains, and drift takes a part of it back."""
    problem, params = drifting_world(seed=1)
    return problem, params, la.drift_response(problem, params, 30.0)


def field(problem, params, work=None):
    return DriftField(problem, params, problem.weights, relative_work(work, problem.weights))


def client_gradient(problem, params, i, flat):
    """∇F_i from the objective of the client alone."""
    return la.Joint(problem.subset([i])).gradient(la.Params(params.layout, flat)).flat


def differences(function, flat, direction, step=1e-5):
    return (function(flat + step * direction) - function(flat - step * direction)) / (2 * step)


def runge_kutta(slope, state, times, most=0.02):
    """The classical method with steps of at most `most`: states at the times."""
    out = [state]
    for left, right in pairwise(times):
        steps = int(np.ceil((right - left) / most))
        h = (right - left) / steps
        for _ in range(steps):
            a = slope(state)
            b = slope(state + 0.5 * h * a)
            c = slope(state + 0.5 * h * b)
            state = state + h / 6.0 * (a + 2.0 * b + 2.0 * c + slope(state + h * c))
        out.append(state)
    return np.stack(out)


def test_the_drift_field_is_the_slope_of_half_the_variance(kind):
    problem, params = kind

    def variance(flat):
        own = np.stack([client_gradient(problem, params, i, flat) for i in range(3)])
        return 0.5 * problem.weights @ ((own - problem.weights @ own) ** 2).sum(axis=1)

    found = field(problem, params).drift(params.flat)
    expected = [differences(variance, params.flat, unit) for unit in np.eye(params.flat.size)]
    assert relative_error(found, np.array(expected)) < 1e-6


def test_the_drift_field_of_unequal_work(kind):
    """Σ q_i e_i H_i g_i − H_q g_q with q_i = p_i e_i."""
    problem, params = kind
    e = np.array([1.0, 4.0, 2.0])
    e = e / (problem.weights @ e)
    q = problem.weights * e
    own = [partial(client_gradient, problem, params, i) for i in range(3)]
    g = np.stack([gradient(params.flat) for gradient in own])
    parts = [differences(own[i], params.flat, e[i] * g[i] - q @ g) for i in range(3)]
    found = field(problem, params, [1, 4, 2])
    assert relative_error(found.drift(params.flat), q @ np.stack(parts)) < 1e-6
    assert relative_error(found.gradient(params.flat), q @ g) < 1e-12


def test_path_and_tangent_by_small_steps_of_a_flow_with_drift(kind):
    """u = [θ(τ; s) − θ(τ; −s)]/2s for θ' = −g + s c at a small s."""
    problem, params = kind
    held, s = field(problem, params), 1e-5
    found = la.drift_response(problem, params, 2.5)
    flows = [
        runge_kutta(lambda x, s=s: s * held.drift(x) - held.gradient(x), params.flat, found.time)
        for s in (-s, 0.0, s)
    ]
    assert relative_error(found.path, flows[1]) < 1e-5
    assert relative_error(found.drift, (flows[2] - flows[0]) / (2.0 * s)) < 5e-4


def test_times_and_profile(kind):
    problem, params = kind
    found = la.drift_response(problem, params, 2.5)
    assert {0.0, 1.0, 2.0, 2.5} <= set(found.time)
    assert (np.diff(found.time) > 0).all()
    fine = la.drift_response(problem, params, 2.4)
    between = [k for k, time in enumerate(fine.time) if time not in found.time]
    chords = np.interp(fine.time[between], found.time, found.profile)
    assert np.abs(chords - fine.profile[between]).max() < 0.02 * np.ptp(found.profile)
    held = population(problem)
    for k in (0, -1):
        at = found.at(k)
        expected = held.profile_value(at, held.value_system(at.kernels()))
        assert found.profile[k] == pytest.approx(expected, rel=1e-13)
    np.testing.assert_array_equal(found.at(3, 0.1).flat, found.path[3] + 0.1 * found.drift[3])
    assert not found.drift[0].any()
    assert "2.5" in repr(found)


def moved_to_second_order_in_s(problem, params, sizes):
    """Path and tangent at the steps, u' = −Hu + (η_t/η_0)c, from which FedAvg is O(s²) away.

    They are in τ = EΣη_t, and s = η_0(E − 1)/2; every size is that of 40 steps.
    """
    held = field(problem, params)
    path, tangent = params.flat.copy(), np.zeros(params.flat.size)
    for eta in np.repeat(sizes, 40):
        pull = held.slope(path, tangent) - eta / sizes[0] * held.drift(path)
        path, tangent = path - eta * held.gradient(path), tangent - eta * pull
    drifts, errors = [], []
    for count in (10, 20, 40):
        run = la.run(la.fed_avg(), problem, params, rounds=480 // count, metrics=(),
                     local_steps=count, local_lr=np.repeat(sizes, 40 // count))  # fmt: skip
        drifts.append(0.5 * sizes[0] * (count - 1))
        errors.append(np.linalg.norm(run.params.flat - path - drifts[-1] * tangent))
    assert log_slope(drifts, errors) == pytest.approx(2.0, abs=0.2)
    return path, tangent


def test_fed_avg_is_path_and_tangent_to_second_order_in_s(merged):
    """At matched steps of path and tangent, which are those of the flow up to O(η)."""
    eta = 0.001
    path, tangent = moved_to_second_order_in_s(*merged, np.full(12, eta))
    flow = la.drift_response(*merged, 480 * eta)
    assert relative_error(flow.path[-1], path) < 2.0 * eta
    assert relative_error(flow.drift[-1], tangent) < 10.0 * eta


def test_a_schedule_moves_fed_avg_by_the_drift_numbers_of_its_steps(merged):
    moved_to_second_order_in_s(*merged, 0.001 / (1.0 + np.arange(12) / 4.0))


def test_unequal_work_moves_fed_avg_as_the_response_says(merged):
    """Equal mean work, so that τ is the same; against the flow, so that η is small."""
    problem, params = merged
    counts = np.array([10, 30, 20])
    eta, rounds = 0.0005, 60
    run = la.run(la.fed_avg(), problem, params, rounds=rounds, metrics=(), local_lr=eta,
                 local_steps=counts)  # fmt: skip
    found = la.drift_response(problem, params, eta * rounds * 20, work=counts)
    moved, s = run.params.flat - found.path[-1], 0.5 * eta * 19
    assert np.linalg.norm(moved - s * found.drift[-1]) < 0.15 * np.linalg.norm(moved)


def stationary(problem, params):
    """The minimum next to where gradient steps go, by Newton."""
    held = field(problem, params)
    flat = la.run(la.fed_avg(), problem, params, rounds=3000, local_steps=1, local_lr=0.1,
                  metrics=()).params.flat  # fmt: skip
    for _ in range(5):
        flat = flat - np.linalg.solve(held.hessian(flat), held.gradient(flat))
    assert np.linalg.eigvalsh(held.hessian(flat))[0] > 0.0
    return la.Params(params.layout, flat)


def test_the_settled_response_is_the_bias_to_first_order(merged):
    problem, params = merged
    rest = stationary(problem, params)
    found = la.drift_response(problem, params, 1.0)
    settled, held = found.settled(rest), field(problem, rest)
    assert relative_error(held.hessian(rest.flat) @ settled, held.drift(rest.flat)) < 1e-7
    biases, sizes = [], []
    for eta in (0.005, 0.01, 0.02):
        ended = la.run(la.fed_avg(), problem, rest, rounds=round(40 / eta), local_steps=6,
                       local_lr=eta, metrics=()).params  # fmt: skip
        sizes.append(0.5 * eta * 5)
        biases.append(ended.flat - rest.flat)
    errors = [np.linalg.norm(b - s * settled) for s, b in zip(sizes, biases, strict=True)]
    assert errors[0] < 0.2 * np.linalg.norm(biases[0])
    assert log_slope(sizes, errors) == pytest.approx(2.0, abs=0.2)


def test_a_flow_that_has_settled_has_the_settled_response(merged):
    problem, params = merged
    rest = stationary(problem, params)
    found = la.drift_response(problem, params, 100.0)
    assert relative_error(found.path[-1], rest.flat) < 1e-3
    assert relative_error(found.drift[-1], found.settled(rest)) < 1e-2


@pytest.mark.parametrize("same", ["one client", "identical clients"])
def test_without_heterogeneity_there_is_no_drift(same):
    problem = la.pool(tiny())
    if same == "identical clients":
        count = problem.num_sequences
        rows = np.tile(np.arange(count), 3)
        problem = problem.rearranged(rows, count * np.arange(4), np.array([0.2, 0.3, 0.5]))
    params = start(problem)
    found = la.drift_response(problem, params, 3.0)
    assert np.abs(found.drift).max() <= 1e-10
    assert found.best_time(0.1) == 3.0


@pytest.mark.parametrize(("drift", "apart"), [(0.01, 0.01), (0.05, 0.06)])
def test_the_objective_is_that_of_runs_to_first_order(trade_off, drift, apart):
    problem, params, found = trade_off
    eta = 0.005
    count = 1 + round(2 * drift / eta)
    rounds = round(30.0 / (eta * count))
    lengths = np.unique(np.linspace(0, rounds, 81).astype(int)).tolist()
    table = la.bias_drift(problem, params, warmup_lengths=lengths, rounds=rounds,
                          local_steps=count, local_lr=eta)  # fmt: skip
    times, measured = table["warmup"].values * eta * count, table["objective"].values
    predicted = np.interp(times, found.time, found.objective(drift))
    assert np.abs(predicted - measured).max() < apart * np.ptp(measured)
    at = np.interp(found.best_time(drift), times, measured)
    assert at - measured.min() < 1e-3 * np.ptp(measured)
    if drift == 0.05:
        # What never freezing loses is told from what the best length loses.
        assert measured[-1] - measured.min() > 0.01 * np.ptp(measured)


def test_best_times_are_argmins_and_fall_with_drift(trade_off):
    found = trade_off[2]
    times = found.best_time([0.02, 0.05, 0.1])
    assert times.shape == (3,)
    assert (np.diff(times) < 0.0).all()
    values = found.objective(0.05)
    k = int(np.argmin(values))
    assert found.time[k - 1] < times[1] < found.time[k + 1]
    assert found.best_time(0.05) == times[1]
    assert found.best_time(0.0) == 30.0


def test_the_objective_without_drift_is_that_of_the_flow(merged):
    """At s = 0: P(B(τ)) and the value block relaxed by the flow of its own objective."""
    problem, params = merged
    found = la.drift_response(problem, params, 4.0)
    k = len(found.time) // 2
    rest = found.time[-1] - found.time[k]
    frozen = la.run(la.fed_frozen(warmup_rounds=0), problem, found.at(k), rounds=4000,
                    local_steps=1, local_lr=rest / 4000, metrics=("objective",))  # fmt: skip
    expected = frozen.columns["objective"][-1]
    assert found.objective(0.0)[k] == pytest.approx(expected, rel=1e-4)


def moments(problem, params, drawn, batch):
    """Q_S from a list of averaging weights, Q_b from minibatches by its formula, at any point."""
    mean, held = drawn.mean(axis=0), field(problem, params)
    squares = (drawn**2).mean(axis=0)
    alone = [problem.subset([i]) for i in range(3)]
    single = [
        [p.rearranged(np.array([s]), np.array([0, 1]), np.ones(1)) for s in range(p.num_sequences)]
        for p in alone
    ]

    def sources(flat):
        rows = (drawn - mean) @ held.all_gradients(flat)
        by_draw, by_batch = rows.T @ rows / len(drawn), np.zeros((flat.size, flat.size))
        for i, square in enumerate(squares):
            at = la.Params(params.layout, flat)
            own = np.stack([la.Joint(one).gradient(at).flat for one in single[i]])
            count = len(own)
            factor = square * (count - batch) / (batch * (count - 1))
            by_batch += factor * np.cov(own.T, bias=True)
        return np.stack([by_draw, by_batch])

    return sources


def test_noise_is_the_solution_of_its_equations(kind):
    """Σ' = −HΣ − ΣH + Q and m' = −Hm − ½∇³F:Σ, slopes of H by differences."""
    problem, params = kind
    chosen = [np.isin(np.arange(3), pair) * problem.weights for pair in combinations(range(3), 2)]
    drawn = np.stack([w / w.sum() for w in chosen])
    held = DriftField(problem, params, drawn.mean(axis=0), np.ones(3))
    sources, size = moments(problem, params, drawn, batch=2), params.flat.size
    shape = (2, size + 1, size)

    def slope(state):
        flat, noise = state[:size], state[size:].reshape(shape)
        curved, change = held.hessian(flat), np.empty(shape)
        for k, source in enumerate(sources(flat)):
            spread, shift = noise[k, :size], noise[k, size]
            values, vectors = np.linalg.eigh(spread)
            far = 1e-3 * vectors.T
            bent = held.gradients(flat + far) + held.gradients(flat - far)
            bent = values @ (bent - 2.0 * held.gradient(flat)) / 1e-6
            change[k, :size] = source - curved @ spread - spread @ curved
            change[k, size] = -curved @ shift - 0.5 * bent
        return np.concatenate([-held.gradient(flat), change.reshape(-1)])

    state = np.concatenate([params.flat, np.zeros(2 * size * (size + 1))])
    found = la.drift_response(problem, params, 0.5, noise=True, participation=0.67, batch_size=2)
    ends = runge_kutta(slope, state, np.array([0.0, 0.5]), most=0.05)[-1][size:].reshape(shape)
    for k, (spread, shift) in enumerate([
        (found.sampling_covariance, found.sampling_shift),
        (found.batch_covariance, found.batch_shift),
    ]):  # fmt: skip
        assert relative_error(spread[-1], ends[k, :size]) < 5e-3
        assert relative_error(shift[-1], ends[k, size]) < 1e-2
        assert not spread[0].any()
    assert "with noise" in repr(found)


@pytest.mark.parametrize("draws", [{"participation": 0.34}, {"batch_size": 1}], ids=str)
def test_covariance_is_that_of_an_ensemble(merged, draws):
    problem, params = merged
    eta, runs, rounds = 0.02, 80, 20
    settings = {"rounds": rounds, "local_steps": 2, "local_lr": eta, "metrics": ()}
    ends = np.stack([
        la.run(la.fed_avg(), problem, params, seed=k, **settings, **draws).params.flat
        for k in range(runs)
    ])  # fmt: skip
    found = la.drift_response(problem, params, 2 * eta * rounds, noise=True, **draws)
    predicted = 2 * eta * found.sampling_covariance[-1] + eta * found.batch_covariance[-1]
    measured = np.cov(ends.T)
    values, vectors = np.linalg.eigh(predicted)
    along = np.diag(vectors.T @ measured @ vectors)[-2:]
    # Four relative standard errors of a variance.
    np.testing.assert_allclose(along / values[-2:], 1.0, atol=4.0 * np.sqrt(2.0 / runs))


def test_what_is_not_drawn_has_no_noise(merged):
    everybody = la.drift_response(*merged, 1.0, noise=True)
    assert not everybody.sampling_covariance.any()
    assert not everybody.batch_covariance.any()
    whole = la.drift_response(*merged, 1.0, noise=True, participation=0.67, batch_size=5)
    assert whole.sampling_covariance[-1].any()
    assert not whole.batch_shift.any()
    with pytest.raises(AttributeError, match="noise=True"):
        la.drift_response(*merged, 1.0).sampling_shift  # noqa: B018


def test_renormalized_draws_have_a_path_of_their_own():
    """With E[w_i] ≠ p_i the path is that of Σ E[w_i] F_i."""
    problem, options = KINDS["two heads, unequal weights"]
    params = start(problem, **options)
    pairs = np.array([[0.2, 0.5, 0.0], [0.2, 0.0, 0.3], [0.0, 0.5, 0.3]])
    mean = (pairs / pairs.sum(axis=1, keepdims=True)).mean(axis=0)
    count = problem.num_sequences
    applied = problem.rearranged(np.arange(count), problem.offsets, mean)
    found = la.drift_response(problem, params, 2.0, participation=0.67)
    other = la.drift_response(applied, params, 2.0)
    k = list(other.time).index(2.0)
    assert relative_error(found.path[-1], other.path[k]) < 1e-5
    weighted = la.drift_response(problem, params, 2.0, participation=0.67, sampling="weighted")
    assert relative_error(weighted.path[-1], found.path[-1]) > 1e-3


BAD = {
    "horizon must be > 0, got 0": {"horizon": 0.0},
    "horizon must be a finite number > 0, got inf": {"horizon": np.inf},
    "work must have 3 entries, one per client, got 2": {"work": [1.0, 2.0]},
    "work must be > 0 for every client, got 0": {"work": [1.0, 0.0, 1.0]},
    "participation must be": {"participation": 0.0},
    "batch_size must be an integer": {"batch_size": 0},
    "batch_size must be left out without noise=True, got 2": {"batch_size": 2},
    "sampling must be": {"sampling": "other"},
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_input_is_one_sentence(merged, sentence):
    options = {"horizon": 1.0} | BAD[sentence]
    with pytest.raises(ValueError, match=sentence):
        la.drift_response(*merged, options.pop("horizon"), **options)


def test_starts_that_do_not_move_or_do_not_fit(merged):
    problem, params = merged
    resting = params.replace(kernel=0.0 * params.kernel, value=0.0 * params.value)
    with pytest.raises(ValueError, match="params must not be stationary"):
        la.drift_response(problem, resting, 1.0)
    with pytest.raises(ValueError, match="the gradient is not finite at the start"):
        la.drift_response(problem, la.Params(params.layout, 1e200 * params.flat), 1.0)
    with pytest.raises(ValueError, match="value"):
        la.drift_response(tiny(dim=3), params, 1.0)
    found = la.drift_response(problem, params, 1.0)
    with pytest.raises(ValueError, match="params must be stationary"):
        found.settled(params)
    with pytest.raises(ValueError, match="params must have the blocks of the start"):
        found.settled(start(problem, num_heads=2))
    with pytest.raises(ValueError, match="drift_number must be"):
        found.objective(-1.0)
    with pytest.raises(TypeError, match="problem must be a single-layer Problem"):
        la.drift_response("problem", params, 1.0)


def test_limits_of_size_and_stiffness(merged, monkeypatch):
    problem, params = merged
    monkeypatch.setattr(response, "MAX_NOISE_SIZE", 3)
    with pytest.raises(ValueError, match="at most 3 entries for noise=True, got 8"):
        la.drift_response(problem, params, 1.0, noise=True)
    with pytest.raises(ValueError, match="horizon must be at most about"):
        la.drift_response(problem, params, 1e9)  # within a second, not after all evaluations
    monkeypatch.setattr(drift_flow, "MAX_EVALUATIONS", 100)
    monkeypatch.setattr(drift_flow, "TRIAL", 50)
    with pytest.raises(ValueError, match="for which 100 evaluations are enough"):
        la.drift_response(problem, params, 100.0)
