"""The warm-up table against the twin, against explicit runs, and at its edges (C9)."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import reference as ref
from bridge import make, moved
from worlds import world

import linattn as la
from linattn.analysis.bias_drift import PARTS, _recorded, warmup_path
from linattn.analysis.synchronized import central_round
from linattn.federated.rounds import RoundDriver, check_settings


@pytest.fixture(scope="module")
def drift(small_problem, small_params):
    """The table of the small instance, for no reference."""
    return partial(la.bias_drift, small_problem, small_params, reference=0.0)


def descended(problem, params, count, rate, *, frozen=False):
    """The end of gradient steps on F; frozen, of the value block alone."""
    joint, layout = la.Joint(problem), params.layout
    kernel = layout.mask(layout.kernel_blocks)
    for _ in range(count):
        slope = np.where(kernel & frozen, 0.0, joint.gradient(params).flat)
        params = la.Params(layout, params.flat - rate * slope)
    return params


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", ["token", "mean", "last"])
def test_table_is_the_twins(kind, readout):
    _, inst, theta, value, problem, params = make(3 + len(readout), kind, readout=readout)
    options = {"rounds": 6, "local_steps": 3, "local_lr": 0.05 * ref.safe_step(inst, theta)}
    frozen = 0.5 * options["local_lr"]
    table = la.bias_drift(
        problem, params, warmup_lengths=[0, 2, 6], reference=0.25, frozen_lr=frozen, **options
    )
    for warmup in (0, 2, 6):
        theirs = ref.bias_drift(
            inst, theta, value, warmup_rounds=warmup, reference=0.25, frozen_lr=frozen, **options
        )
        row = table.sel(warmup=warmup)
        for name, number in theirs.items():
            scale = 1.0 if name == "rate" else abs(theirs["objective"]) + abs(theirs["profile"])
            assert float(row[name]) == pytest.approx(number, abs=1e-11 * scale), name


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("frozen_lr", [None, 0.02, "safe"])
def test_objective_is_what_explicit_runs_reach(kind, frozen_lr):
    _, _, _, _, problem, params = make(21, kind)
    options = {"rounds": 12, "local_steps": 6, "local_lr": 0.4 * la.safe_step(problem, params)}
    lengths = [0, 1, 5, 12]
    table = la.bias_drift(
        problem, params, warmup_lengths=lengths, reference=0.0, frozen_lr=frozen_lr, **options
    )
    for warmup in lengths:
        method = la.fed_frozen(warmup_rounds=warmup, frozen_lr=frozen_lr)
        result = la.run(method, problem, params, metrics=("objective",), **options)
        reached = float(result.history["objective"][-1])
        assert float(table["objective"].sel(warmup=warmup)) == pytest.approx(reached, rel=1e-12)


def test_parts_add_up(small_problem, small_params):
    options = {"rounds": 8, "local_steps": 5, "local_lr": 0.03}
    asked = options | {"warmup_lengths": range(9)}
    table = la.bias_drift(small_problem, small_params, **asked)
    path = la.run(la.fed_avg(), small_problem, small_params, record_params=True, **options).path
    assert table.identical(la.bias_drift(small_problem, small_params, path=path, **asked))
    total = table.attrs["reference"] + sum(table[name] for name in PARTS)
    np.testing.assert_allclose(table["objective"], total, rtol=1e-12)
    assert np.abs(table["residual"]).max() <= 1e-12 * np.abs(table["objective"]).max()
    assert table.attrs["lower_bound"] <= table.attrs["reference"]
    assert (table["kernel_bias"] >= -1e-9).all()
    best = int(np.argmin(table["objective"].values))
    assert table.attrs["warmup_star"] == int(table["warmup"][best])


def test_synchronized_profile_is_centralized_descent(drift, small_problem, small_params):
    table = drift(warmup_lengths=[0, 1, 4], rounds=4, local_steps=3, local_lr=0.02)
    for length in (1, 4):
        at = descended(small_problem, small_params, 3 * length, 0.02)
        found = float(table["profile_synchronized"].sel(warmup=length))
        assert found == pytest.approx(la.KernelProfile(small_problem).value(at), rel=1e-12)


def test_one_local_step_has_no_client_drift(drift):
    table = drift(warmup_lengths=[0, 3, 9], rounds=9, local_steps=1, local_lr=0.05)
    assert np.array_equal(table["value_floor"], np.zeros(3))
    np.testing.assert_allclose(table["profile"], table["profile_synchronized"], rtol=1e-12)


def test_unstable_frozen_stage_is_infinite_never_nan(drift, small_problem, small_params):
    rate = 3.0 / float(np.linalg.eigvalsh(la.ValueBlock(small_problem, small_params).hessian)[-1])
    options = {"rounds": 3, "local_steps": 4, "local_lr": 1e-3}
    table = drift(warmup_lengths=[0, 1, 3], frozen_lr=rate, **options)
    assert not any(np.isnan(table[name].values).any() for name in table.data_vars)
    assert table["stable"].values.tolist() == [False, False, True]
    for name in ("value_transient", "value_floor", "value_cross"):
        assert np.isinf(table[name].values[:2]).all()
    method = la.fed_frozen(warmup_rounds=0, frozen_lr=rate)
    result = la.run(method, small_problem, small_params, metrics=("objective",), **options)
    assert float(table["objective"][0]) == pytest.approx(float(result.columns["objective"][-1]))
    assert table.attrs["warmup_star"] == 3


def test_a_stage_without_rounds_may_overflow(drift):
    """Never frozen: the parts at T = R do not need V_∞, however wild the stage would be."""
    options = {"rounds": 2, "local_steps": 400, "local_lr": 1e-4, "frozen_lr": 1e3}
    for random in ({}, {"participation": 0.5}):
        row = drift(warmup_lengths=[2], **options, **random).sel(warmup=2)
        assert float(row["rate"]) == np.inf
        assert bool(row["stable"])
        assert float(row["value_transient"]) > 0
        assert float(row["objective"]) == pytest.approx(
            float(row["profile"] + row["value_transient"]), rel=1e-12
        )
        assert float(row["value_floor"]) == float(row["value_noise"]) == 0.0


def test_diverging_warmup_has_no_best_length(drift):
    table = drift(warmup_lengths=[5, 20], rounds=20, local_steps=5, local_lr=50.0)
    assert table.attrs["warmup_star"] is None
    assert np.isinf(table["objective"]).all()
    assert not table["stable"].any()


@pytest.mark.parametrize("local_lr", [0.03, 50.0])
@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_the_warm_up_is_that_of_single_rounds(small_problem, small_params, local_lr, participation):
    """Whether rounds run in one call or one by one; after divergence it stays where it is."""
    settings = check_settings(
        rounds=12, local_steps=4, local_lr=local_lr, participation=participation
    )
    with np.errstate(over="ignore", invalid="ignore"):
        found = warmup_path(small_problem, small_params, range(13), settings)
        driver = RoundDriver(
            la.fed_avg(), small_problem, small_problem.oracle(small_params), small_params, settings
        )
        expected = [small_params.flat]
        for t in range(12):
            finite = np.isfinite(expected[-1]).all()
            expected.append(driver.step(t).flat if finite else expected[-1])
    np.testing.assert_array_equal([at.flat for at in found], expected)
    assert np.isfinite(expected[-1]).all() == (local_lr < 1.0)


@pytest.mark.parametrize("lengths", [[-1], [4], [0.5], []])
def test_bad_lengths_are_refused(drift, lengths):
    with pytest.raises(ValueError, match="warmup_lengths must be"):
        drift(warmup_lengths=lengths, rounds=3, local_steps=1, local_lr=0.1)


def test_synchronized_control_is_explicit_descent(small_problem, small_factored):
    options = {"rounds": 3, "local_steps": 4, "local_lr": 0.02}
    found = la.synchronized_control(small_problem, small_factored, warmup_lengths=[1], **options)
    warm = descended(small_problem, small_factored, 4, 0.02)
    end = descended(small_problem, warm, 8, 0.02, frozen=True)
    assert found == pytest.approx([la.Joint(small_problem).value(end)], rel=1e-12)


def test_a_recorded_path_must_fit(small_params, small_factored):
    path = [moved(small_params, small_params, 0.1 * t) for t in range(4)]
    assert _recorded(path, small_params, [0, 3]) == [path[0], path[3]]
    assert _recorded(path, small_params, [1]) == [path[1]]
    other = [path[0], *(small_factored for _ in range(3))]
    wrong = {"hold 4 entries": path[:3], "start at params": [*path[1:], path[0]], "layout": other}
    for told, points in wrong.items():
        with pytest.raises(ValueError, match=f"path must .*{told}"):
            _recorded(points, small_params, [0, 3])


# ------------------------------------------------------------------------ sampling, unequal work

RANDOM = {
    "half": {"participation": 0.5},
    "weighted": {"participation": 0.5, "sampling": "weighted"},
    "batches": {"batch_size": 2},
    "stragglers": {"stragglers": 0.5},
    "all": {"participation": 0.75, "batch_size": 3, "stragglers": 0.4, "local_steps": [2, 4, 1, 3]},
}
SHORT = {"warmup_lengths": [0, 2, 5], "rounds": 5, "local_steps": 3, "local_lr": 0.05}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("frozen_lr", [None, "safe"])
def test_the_parts_add_up_in_expectation(drift, small_problem, small_params, name, frozen_lr):
    options = {"rounds": 8, "local_steps": 3, "local_lr": 0.03, "seed": 4} | RANDOM[name]
    asked = options | {"warmup_lengths": range(9), "frozen_lr": frozen_lr, "reference": 0.1}
    table = drift(**asked)
    total = 0.1 + sum(table[part] for part in (*PARTS, "value_noise"))
    np.testing.assert_allclose(table["objective"], total, rtol=1e-12)
    assert np.abs(table["residual"]).max() <= 1e-12 * np.abs(table["objective"]).max()
    assert (table["value_noise"][:-1] > 0).all()
    assert float(table["value_noise"][-1]) == 0.0
    path = la.run(la.fed_avg(), small_problem, small_params, record_params=True, **options).path
    profile = la.KernelProfile(small_problem)
    assert table["profile"].values.tolist() == [profile.value(at) for at in path]
    again = drift(path=path, **asked)
    assert all(np.array_equal(again[v], table[v]) for v in table.data_vars)


@pytest.mark.parametrize("name", ["half", "all"])
def test_the_objective_is_the_mean_of_runs_that_share_the_warm_up(
    drift, small_problem, small_params, name
):
    """The same warm-up, 150 draws of the frozen stage."""
    options = {"rounds": 7, "local_steps": 3, "local_lr": 0.05} | RANDOM[name]
    table = drift(warmup_lengths=[3], seed=4, frozen_participation=0.5, **options)
    warm = la.run(la.fed_avg(), small_problem, small_params, seed=4, **(options | {"rounds": 3}))
    frozen, found = la.fed_frozen(warmup_rounds=0), []
    for seed in range(150):
        run = la.run(frozen, small_problem, warm.params, seed=seed, metrics=["objective"],
                     **(options | {"rounds": 4, "participation": 0.5}))  # fmt: skip
        found.append(run.columns["objective"][-1])
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    expected = float(table["objective"].sel(warmup=3))
    assert abs(np.mean(found) - expected) < 4 * error
    assert float(table["value_noise"].sel(warmup=3)) > 3 * error


def test_the_participation_of_the_frozen_stage_stands_apart(drift):
    drift = partial(drift, seed=3, **SHORT)
    few = drift(participation=0.25)
    split = drift(participation=0.25, frozen_participation=1.0)
    everybody = drift()
    assert np.array_equal(split["profile"], few["profile"])
    assert not split["value_noise"].any()
    assert (few["value_noise"][:2] > 0).all()
    for part in ("value_transient", "value_floor", "rate"):  # at T = 0 there is no warm-up
        assert float(split[part][0]) == float(everybody[part][0])


def test_without_randomness_noise_is_zero_and_the_rest_is_what_it_was(drift):
    plain, seeded, whole = (drift(**SHORT, **m) for m in ({}, {"seed": 7}, {"batch_size": 10**6}))
    for name in plain.data_vars:
        assert np.array_equal(plain[name], seeded[name])
        np.testing.assert_allclose(whole[name], plain[name], rtol=1e-11, atol=1e-13)
    assert not plain["value_noise"].any()


def test_a_second_moment_that_grows_is_unstable_though_the_mean_settles():
    problem = world(num_clients=2, sequences_per_client=4, num_tokens=4, dim=2, num_outputs=1,
                    covariate_heterogeneity=1.5, value_heterogeneity=1.0, value_ridge=0.2,
                    noise=0.0, seed=5)  # fmt: skip
    params = la.initial_params(problem, value="normal", scale=0.7)
    top = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
    found = []
    for share in np.linspace(1.5, 4.0, 11):
        table = la.bias_drift(
            problem, params, warmup_lengths=[0, 40], rounds=40, local_steps=1,
            local_lr=1e-3, frozen_lr=share / top, participation=0.5, reference=0.0,
        )  # fmt: skip
        assert not any(np.isnan(table[name].values).any() for name in table.data_vars)
        found.append((float(table["rate"][0]) < 1, bool(table["stable"][0])))
        assert bool(table["stable"][1])
        parts = [float(table[n][0]) for n in ("value_transient", "value_noise")]
        assert np.isfinite(parts).all() == found[-1][1]
    assert (True, False) in found
    assert (True, True) in found


def test_unequal_work_is_run_and_solved(drift, small_problem, small_params):
    options = {"rounds": 7, "local_steps": [4, 1, 2, 6], "local_lr": 0.04}
    table = drift(warmup_lengths=[0, 2, 7], **options)
    for warmup in (0, 2, 7):
        run = la.run(la.fed_frozen(warmup_rounds=warmup), small_problem, small_params,
                     metrics=["objective"], **options)  # fmt: skip
        reached = float(run.columns["objective"][-1])
        assert float(table["objective"].sel(warmup=warmup)) == pytest.approx(reached, rel=1e-12)
    assert np.abs(table["residual"]).max() <= 1e-12 * np.abs(table["objective"]).max()


def test_the_synchronized_round_of_unequal_work(drift, small_problem, small_params):
    """⌈Ē⌉ steps of size ηĒ/⌈Ē⌉ on F_q, q_i = p_iE_i/Ē."""
    steps, rate = np.array([4, 1, 2, 6]), 0.02
    work = small_problem.weights * steps
    count = int(np.ceil(work.sum()))
    assert count > work.sum()
    weighted, size = replace(small_problem, weights=work / work.sum()), rate * work.sum() / count
    options = {"rounds": 3, "local_steps": steps.tolist(), "local_lr": rate}
    table = drift(warmup_lengths=[2], **options)
    warm = descended(weighted, small_params, 2 * count, size)
    expected = la.KernelProfile(small_problem).value(warm)
    assert float(table["profile_synchronized"][0]) == pytest.approx(expected, rel=1e-12)
    last = descended(weighted, warm, count, size, frozen=True)
    control = la.synchronized_control(small_problem, small_params, warmup_lengths=[2], **options)
    assert control == pytest.approx([la.Joint(small_problem).value(last)], rel=1e-12)


def test_the_synchronized_round_of_stragglers():
    """The mean number of steps; above an integer by rounding it is the integer."""
    weights = np.array([0.1, 0.7, 0.2 + 4e-16])  # 7 of them add up to more than 7
    problem = world(num_clients=3, covariate_heterogeneity=0.5, weights=weights)
    assert weights @ np.full(3, 7.0) > 7.0
    central = central_round(problem, 9, 0.25, stragglers=0.5)
    assert central.steps == 7
    assert central.step_size == pytest.approx(0.25, rel=1e-14)
    np.testing.assert_allclose(central.problem.weights, weights, rtol=1e-14)
    more = central_round(problem, np.array([9, 9, 10]), 0.25, stragglers=0.5)
    assert more.steps == 8
    assert more.step_size == pytest.approx(0.25 * (7 + 0.5 * weights[2] + 0.25 * weights[2]) / 8)
    assert central_round(problem, 9, 0.25) == (problem, 9, 0.25)


def test_descent_of_equal_work_is_refused_for_unequal(drift, small_problem, small_params):
    descent = la.CentralizedDescent(small_problem, small_params, 0.02)
    options = {"rounds": 2, "local_steps": [1, 2, 3, 4], "local_lr": 0.02}
    with pytest.raises(ValueError, match="descent must be of this problem"):
        drift(warmup_lengths=[1], descent=descent, **options)


@pytest.mark.parametrize(("change", "message"), [
    ({"local_steps": [1, 2]}, "local_steps must have 4, one per client, got 2"),
    ({"participation": 0.0}, "participation must be > 0"),
    ({"frozen_participation": 2.0}, "frozen_participation must be > 0 and <= 1, got 2.0"),
    ({"sampling": "unifrom"}, "did you mean 'uniform'"),
    ({"batch_size": 0}, "batch_size must be an integer >= 1"),
    ({"stragglers": 2}, "stragglers must be >= 0 and <= 1"),
    ({"seed": -1}, "seed must be an integer >= 0"),
])  # fmt: skip
def test_bad_settings_are_refused(drift, change, message):
    with pytest.raises(ValueError, match=message):
        drift(**(SHORT | change))


def test_moments_that_would_be_refused_are_refused_before_the_warm_up():
    weights = np.arange(1.0, 21.0) / 210.0
    problem = world(num_clients=20, sequences_per_client=2, weights=weights)
    params = la.initial_params(problem)
    with pytest.raises(ValueError, match=r"at most 20,000 subsets .* sampling='weighted'"):
        la.bias_drift(problem, params, warmup_lengths=[0], rounds=10**6, local_steps=1,
                      local_lr=0.1, participation=0.5, reference=0.0)  # fmt: skip


def test_an_unstable_value_block_of_the_control_is_explicit_descent(small_problem, small_params):
    """At five times the boundary of the value block: large, but the same."""
    options = {"rounds": 3, "local_steps": 4, "local_lr": 0.35}
    (found,) = la.synchronized_control(small_problem, small_params, warmup_lengths=[0], **options)
    joint = la.Joint(small_problem)
    end = descended(small_problem, small_params, 12, 0.35, frozen=True)
    assert found == pytest.approx(joint.value(end), rel=1e-10)
    assert found > 1e3 * joint.value(small_params)
