"""Exact moments of the sampled frozen stage: all outcomes, limits, floors, refusals (C20)."""

import dataclasses

import numpy as np
import pytest
import reference as ref
from bridge import from_instance, make, over, relative_error, same_bits, seeds
from enumeration import Draws, listed_moments, weight_draws
from hypothesis import strategies as st
from worlds import world

import linattn as la
from linattn._settings import Sampling
from linattn.theory.congruence import SymmetricBasis
from linattn.theory.weights import weight_moments

# (E_i, clients drawn of three, scheme, batch, stragglers, equal weights)
LISTED = [
    ([1, 1, 1], 1, "uniform", None, 0.0, False),
    ([2, 2, 2], 2, "uniform", None, 0.0, False),
    ([2, 2, 2], 2, "uniform", None, 0.0, True),
    ([3, 3, 3], 3, "uniform", None, 0.0, False),
    ([1, 3, 2], 2, "uniform", None, 0.0, False),
    ([1, 3, 2], 3, "uniform", None, 0.0, True),
    ([7, 7, 7], 2, "uniform", None, 0.0, True),
    ([2, 2, 2], 1, "weighted", None, 0.0, False),
    ([2, 2, 2], 2, "weighted", None, 0.0, False),
    ([4, 1, 2], 3, "weighted", None, 0.0, False),
    ([1, 1, 1], 3, "uniform", 1, 0.0, False),
    ([2, 2, 2], 1, "uniform", 1, 0.0, False),
    ([2, 2, 2], 2, "uniform", 2, 0.0, False),
    ([2, 2, 2], 2, "uniform", 1, 0.0, True),
    ([1, 2, 1], 3, "uniform", 2, 0.0, False),
    ([3, 1, 2], 1, "weighted", 1, 0.0, False),
    ([1, 1, 1], 2, "weighted", 1, 0.0, False),
    ([2, 2, 2], 2, "weighted", 2, 0.0, False),
    ([3, 3, 3], 2, "uniform", None, 0.4, False),
    ([2, 4, 3], 3, "uniform", None, 1.0, False),
    ([3, 2, 1], 2, "weighted", None, 0.5, False),
    ([2, 2, 2], 1, "uniform", 1, 0.3, False),
    ([1, 2, 2], 2, "uniform", 1, 0.5, True),
    ([2, 1, 2], 2, "weighted", 2, 0.7, False),
    ([2, 2, 2], 2, "uniform", 99, 0.0, False),
]


def small(seed, **options):
    """Three clients of two or three sequences, two channels."""
    chosen = {"num_clients": 3, "sequences": (2, 3), "dim": 2, "value_ridge": 0.2} | options
    kind, readout = ("merged", "factored")[seed % 2], ref.READOUTS[seed % 3]
    _, inst, theta, V, problem, params = make(seed, kind, readout=readout, **chosen)
    return inst, theta, V, problem, params


def settings_of(draws, clients=3):
    return {
        "local_steps": draws.steps, "local_lr": draws.step_size, "sampling": draws.sampling,
        "participation": draws.num_drawn / clients, "batch_size": draws.batch_size,
        "stragglers": draws.stragglers,
    }  # fmt: skip


@pytest.mark.parametrize("case", LISTED, ids=str)
@pytest.mark.parametrize("share", [0.4, 1.4])
def test_against_all_outcomes(case, share):
    steps, drawn, scheme, batch, stragglers, equal = case
    inst, theta, V, problem, params = small(LISTED.index(case))
    if equal:
        inst = inst._replace(weights=np.full(3, 1 / 3))
        problem = from_instance(inst)
    top = max(np.linalg.norm(ref.client_matrix(inst, i, theta), 2) for i in range(3))
    draws = Draws(steps, share / top, drawn, scheme, batch, stragglers)
    moments = la.frozen_moments(problem, params, **settings_of(draws))
    for rounds in (1, 2) if share < 1 else (2,):
        exact = listed_moments(inst, theta, V, draws, rounds)
        assert moments.expected_gap(rounds) == pytest.approx(exact.expected_gap, rel=1e-12)
        assert relative_error(ref.stack(moments.mean(rounds)), exact.mean) < 1e-12
        assert relative_error(moments.second_moment(rounds), exact.second_moment) < 1e-12
        error = exact.mean - ref.stack(ref.minimizer(inst, theta))
        bias = 0.5 * float(np.sum(error * (ref.value_matrix(inst, theta) @ error)))
        assert moments.bias(rounds) == pytest.approx(bias, rel=1e-11)
        noise = exact.expected_gap - bias
        assert moments.noise(rounds) == pytest.approx(noise, rel=1e-11, abs=1e-14 * bias)
    assert moments.expected_gap(0) == la.frozen_stage(
        problem, params, local_steps=1, local_lr=0.1).gap  # fmt: skip


def test_the_cases_are_many():
    """At least 9,801 outcomes somewhere, as few as one elsewhere."""
    counts = []
    for k in (0, 3, 13):
        steps, drawn, scheme, batch, stragglers, _ = LISTED[k]
        inst, theta, V, *_ = small(k, sequences=(3, 3))
        draws = Draws(steps, 0.1, drawn, scheme, batch, stragglers)
        counts.append(listed_moments(inst, theta, V, draws, 2).outcomes)
    assert counts[1] == 1
    assert max(counts) >= 9801


# ------------------------------------------------------------------------ limits


@pytest.mark.parametrize("steps", [4, [1, 4, 2]])
def test_without_randomness_moments_are_the_closed_form_and_noise_is_zero(steps):
    _, _, _, problem, params = small(3)
    top = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
    options = {"local_steps": steps, "local_lr": 0.7 / top}
    stage = la.frozen_stage(problem, params, **options)
    for random in ({}, {"batch_size": 10**6}):
        moments = la.frozen_moments(problem, params, **options, **random)
        assert moments.noise(7) == 0.0
        assert same_bits(moments.mean(7), stage.after(7))
        assert moments.bias(7) == pytest.approx(sum(stage.drift_parts(7)), rel=1e-12)
        assert moments.noise_floor == pytest.approx(stage.floor, rel=1e-12)
        assert moments.mean_rate == stage.rate
        assert moments.second_moment_rate == pytest.approx(stage.rate**2, rel=1e-12)


def test_one_sequence_per_client_has_no_batch_noise():
    _, _, _, problem, params = small(4, sequences=(1, 1))
    moments = la.frozen_moments(problem, params, local_steps=3, local_lr=0.05, batch_size=1)
    assert moments.noise(5) == 0.0


def test_identical_clients_make_no_sampling_noise():
    _, _, _, problem, params = small(5)
    pooled = la.pool(problem)
    for scheme in ("uniform", "weighted"):
        moments = la.frozen_moments(
            pooled, params, local_steps=3, local_lr=0.05, participation=0.4, sampling=scheme
        )
        assert moments.noise(9) < 1e-27 * moments.bias(0)


def test_noise_keeps_its_digits_where_it_is_tiny():
    """Noise is no difference: at 1e-15 of the bias it still grows like η²."""
    *_, problem, params = small(6)
    options = {"local_steps": 2, "participation": 0.4}
    coarse, fine = (
        la.frozen_moments(problem, params, local_lr=eta, **options) for eta in (1e-8, 1e-9)
    )
    assert fine.noise(2) < 1e-12 * fine.bias(2)
    assert coarse.noise(2) / fine.noise(2) == pytest.approx(100.0, rel=1e-5)


# ------------------------------------------------------------------------ rates and floors


@pytest.mark.parametrize("random", [
    {"participation": 0.4}, {"batch_size": 1}, {"participation": 0.4, "batch_size": 1},
    {"participation": 0.7, "sampling": "weighted", "stragglers": 0.5, "batch_size": 2},
])  # fmt: skip
def test_the_floor_is_the_limit_and_the_rate_is_that_of_the_approach(random):
    _, _, _, problem, params = small(7)
    top = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
    moments = la.frozen_moments(problem, params, local_steps=3, local_lr=0.8 / top, **random)
    assert moments.stable
    long = int(np.ceil(40 / -np.log(moments.second_moment_rate)))
    assert moments.expected_gap(long) == pytest.approx(moments.noise_floor, rel=1e-9)
    parts = moments.floor_parts
    assert moments.noise_floor == parts.bias + parts.noise
    assert parts.noise > 0
    assert moments.bias(long) == pytest.approx(parts.bias, rel=1e-6, abs=1e-9 * parts.noise)
    assert moments.second_moment_rate >= moments.mean_rate**2 * (1 - 1e-12)


@over(seeds, st.integers(1, 700))
def test_squaring_and_stepping_agree(seed, rounds):
    _, _, _, problem, params = small(seed % 50)
    top = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
    options = {"local_steps": 3, "local_lr": 0.5 / top, "participation": 0.4, "batch_size": 1}
    squared = la.frozen_moments(problem, params, **options)
    stepped = la.frozen_moments(problem, params, **options)
    for t in range(1, rounds + 1):
        last = stepped.noise(t)
    assert squared.noise(rounds) == pytest.approx(last, rel=1e-9)  # one seed loses five digits


def test_the_second_moment_may_be_unstable_where_the_mean_is_stable():
    """One client in two per round, one much steeper: E[V] converges, E‖V‖² does not."""
    *_, problem, params = make(8, "merged", num_clients=2, sequences=(2, 2), dim=2,
                                              num_heads=1, value_ridge=0.2,
                                              weights=np.array([0.5, 0.5]))  # fmt: skip
    steep = dataclasses.replace(problem, statistics=problem.statistics._replace(
        gram=problem.statistics.gram * np.array([3.0, 3.0, 0.5, 0.5])[:, None, None]))  # fmt: skip
    top = la.frozen_stage(steep, params, local_steps=1, local_lr=1.0).largest_step_curvature
    found = {}
    for share in np.linspace(1.0, 4.0, 31):
        moments = la.frozen_moments(
            steep, params, local_steps=1, local_lr=share / top, participation=0.5
        )
        found[share] = moments
    between = [m for m in found.values() if m.mean_rate < 1 <= m.second_moment_rate]
    assert between
    assert any(m.stable for m in found.values())
    moments = between[len(between) // 2]
    assert not moments.stable
    assert moments.noise_floor == np.inf
    long = int(np.ceil(np.log(1e8) / np.log(moments.second_moment_rate)))
    assert moments.expected_gap(long) > 1e3 * moments.expected_gap(0)
    assert moments.bias(long) < moments.bias(0)
    growth = moments.noise(long + 1) / moments.noise(long)
    assert growth == pytest.approx(moments.second_moment_rate, rel=1e-3)


def test_overflow_is_infinite_never_nan():
    _, _, _, problem, params = small(9)
    moments = la.frozen_moments(
        problem, params, local_steps=400, local_lr=1e3, participation=0.4, batch_size=1
    )
    assert moments.second_moment_rate == np.inf
    assert not moments.stable
    assert moments.expected_gap(1) == np.inf
    assert np.isfinite(moments.expected_gap(0))
    assert "unstable" in repr(moments)
    slower = la.frozen_moments(problem, params, local_steps=2, local_lr=50.0, participation=0.4)
    for one, rounds in ((moments, 1), (slower, 200), (slower, 10**5)):
        assert one.expected_gap(rounds) == np.inf
        assert (one.covariance(rounds) == np.inf).all()
        assert (one.second_moment(rounds) == np.inf).all()


def test_one_call_per_kernel_serves_all_round_counts():
    _, _, _, problem, params = small(10)
    options = {"local_steps": 3, "local_lr": 0.1, "participation": 0.4}
    forward = la.frozen_moments(problem, params, **options)
    curve = [forward.expected_gap(t) for t in range(12)]
    fresh = la.frozen_moments(problem, params, **options)
    assert fresh.expected_gap(11) == pytest.approx(curve[11], rel=1e-12)
    assert fresh.expected_gap(5) == pytest.approx(curve[5], rel=1e-12)
    assert repr(fresh).startswith("FrozenMoments(stable, mean rate 0.")


# ------------------------------------------------------------------------ weights


@pytest.mark.parametrize("scheme", ["uniform", "weighted"])
@pytest.mark.parametrize("drawn", [1, 2, 3, 4])
@pytest.mark.parametrize("p", [[0.25] * 4, [0.1, 0.2, 0.3, 0.4]], ids=["equal", "unequal"])
def test_weight_moments_by_listing(p, drawn, scheme):
    p = np.array(p)
    mean, second = np.zeros(4), np.zeros((4, 4))
    for chance, weights in weight_draws(p, drawn, scheme):
        w = np.zeros(4)
        w[list(weights)] = list(weights.values())
        mean, second = mean + chance * w, second + chance * np.outer(w, w)
    found = weight_moments(p, Sampling(drawn / 4, scheme))
    assert relative_error(found.mean, mean) < 1e-14
    assert relative_error(found.covariance, second - np.outer(mean, mean), 1.0) < 1e-15


def test_many_subsets_of_unequal_weights_are_refused():
    p = np.arange(1.0, 21.0) / 210.0
    assert weight_moments(p, Sampling(0.2)).mean.shape == (20,)  # 4,845 subsets
    with pytest.raises(ValueError, match=r"at most 20,000 subsets .* got 184,756 \(10 of 20\)"):
        weight_moments(p, Sampling(0.5))
    assert weight_moments(p, Sampling(0.5, "weighted")).mean is p
    assert weight_moments(np.full(20, 0.05), Sampling(0.5)).covariance[0, 1] < 0


# ------------------------------------------------------------------------ coordinates


@over(seeds, st.integers(1, 4), st.integers(0, 3))
def test_maps_of_symmetric_matrices(seed, inner, more):
    rng, size = np.random.default_rng(seed), inner + more
    basis = SymmetricBasis(inner, size)
    half = rng.standard_normal((size, size))
    matrix = half + half.T
    packed = basis.pack(matrix)
    assert relative_error(basis.unpack(packed), matrix) < 1e-15
    assert packed @ packed == pytest.approx(np.sum(matrix**2), rel=1e-13)
    factors = rng.standard_normal((3, inner, size))
    operator = basis.gram(factors)
    image = sum(f @ matrix @ f.T for f in factors)
    assert relative_error(basis.unpack(operator @ packed), image) < 1e-13
    change, turn = rng.standard_normal((size, size)), rng.standard_normal((inner, inner))
    moved = basis.pack(change @ matrix @ change.T)
    assert relative_error(basis.after(operator, change) @ packed, operator @ moved) < 1e-12
    turned = basis.pack(turn @ image @ turn.T)
    assert relative_error(basis.before(operator, turn) @ packed, turned) < 1e-12


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(("change", "message"), [
    ({"local_steps": 0}, "local_steps must be an integer >= 1, got 0"),
    ({"local_steps": 2**53}, "local_steps must be an integer <= 10000000, got"),
    ({"local_steps": [1, 2]}, "local_steps must have 3, one per client, got 2"),
    ({"local_lr": -1.0}, "local_lr must be > 0, got -1.0"),
    ({"local_lr": [0.1, 0.1]}, "local_lr must be one number"),
    ({"participation": 0.0}, "participation must be > 0"),
    ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
    ({"sampling": "wieghted"}, "did you mean 'weighted'"),
    ({"stragglers": 1.5}, "stragglers must be >= 0 and <= 1, got 1.5"),
    ({"frozen_lr": "save"}, "did you mean 'safe'"),
])  # fmt: skip
def test_bad_arguments_are_refused(change, message):
    _, _, _, problem, params = small(11)
    with pytest.raises(ValueError, match=message):
        la.frozen_moments(problem, params, **({"local_steps": 2, "local_lr": 0.1} | change))


def test_sizes_beyond_memory_are_refused():
    problem = world(dim=8, num_outputs=1)
    params = la.initial_params(problem, num_heads=13)
    with pytest.raises(ValueError, match=r"H·d \+ m <= 104 for exact moments, got 105"):
        la.frozen_moments(problem, params, local_steps=1, local_lr=0.1, participation=0.5)


@pytest.mark.parametrize("rounds", [-1, 1.0, None])
def test_bad_round_counts_are_refused(rounds):
    _, _, _, problem, params = small(12)
    moments = la.frozen_moments(problem, params, local_steps=1, local_lr=0.1, batch_size=1)
    for ask in (moments.mean, moments.second_moment, moments.noise, moments.bias):
        with pytest.raises(ValueError, match="rounds must be an integer >= 0"):
            ask(rounds)
