"""The frozen stage where clients differ in work: dense powers, explicit rounds, limits (C21)."""

from fractions import Fraction

import numpy as np
import pytest
import reference as ref
from bridge import make, over, relative_error, seeds
from hypothesis import strategies as st
from method_cases import log_slope

import linattn as la
from linattn.theory import published
from linattn.theory.consensus import frozen_consensus_bound
from linattn.theory.local_work import LocalWork
from linattn.theory.polynomials import contraction, power_sums

shares = st.sampled_from([0.01, 0.3, 0.9])


def case(seed, share, *, normalized=False, top_steps=12):
    """(twin, theta, V, problem, params, η, E_i, stage) at a share of the stable step."""
    rng, inst, theta, V, problem, params = make(
        seed, ("merged", "factored")[seed % 2], readout=ref.READOUTS[seed % 3], value_ridge=0.2
    )
    clients = len(inst.weights)
    top = max(np.linalg.norm(ref.client_matrix(inst, i, theta), 2) for i in range(clients))
    steps = rng.integers(1, top_steps + 1, clients).tolist()
    eta = share / top
    stage = la.frozen_stage(problem, params, local_steps=steps, local_lr=eta, normalized=normalized)
    return inst, theta, V, problem, params, eta, steps, stage


def naive_round(inst, theta, V, steps, eta, *, normalized):
    """One round by explicit gradient steps of the twin, client by client."""
    moves = []
    for i, count in enumerate(steps):
        own = V
        for _ in range(count):
            own = own - eta * ref.client_gradient(inst, i, theta, own)[1]
        moves.append(own - V)
    if normalized:
        mean = sum(p * e for p, e in zip(inst.weights, steps, strict=True))
        moves = [mean / e * move for e, move in zip(steps, moves, strict=True)]
    return V + sum(p * move for p, move in zip(inst.weights, moves, strict=True))


@over(seeds, shares, st.booleans())
def test_against_a_naive_loop_and_dense_sums(seed, share, normalized):
    inst, theta, V, _, _, eta, steps, stage = case(seed, share, normalized=normalized)
    size = np.linalg.norm(V) + np.linalg.norm(stage.fixed_point)
    for t in range(1, 4):
        V = naive_round(inst, theta, V, steps, eta, normalized=normalized)
        assert np.linalg.norm(stage.after(t) - V) <= 1e-12 * size
    p = inst.weights
    a = p * (p @ np.array(steps)) / steps if normalized else p
    A = [ref.client_matrix(inst, i, theta) for i in range(len(p))]
    sums = [ref.power_sum(m, eta, np.ones(e)) for m, e in zip(A, steps, strict=True)]
    left = sum(w * s @ m for w, s, m in zip(a, sums, A, strict=True))
    right = sum(
        w * s @ ref.client_linear(inst, i, theta)
        for i, (w, s) in enumerate(zip(a, sums, strict=True))
    )
    condition = np.linalg.cond(left)
    fixed = np.linalg.solve(left, right)
    assert relative_error(ref.stack(stage.fixed_point), fixed) < 1e-13 * condition
    # The list may hold equal numbers, for which normalized averaging is the plain one.
    if len(set(steps)) > 1:
        assert relative_error(stage.surrogate_hessian, left) < 1e-12


@over(seeds, shares)
def test_runs_take_the_same_rounds(seed, share):
    *_, problem, params, eta, steps, stage = case(seed, share)
    run = la.run(la.fed_frozen(warmup_rounds=0), problem, params, rounds=9, local_steps=steps,
                 local_lr=eta, metrics=["gap"])  # fmt: skip
    size = np.linalg.norm(params.value) + np.linalg.norm(stage.fixed_point)
    assert np.linalg.norm(run.params.value - stage.after(9)) <= 1e-12 * size
    assert sum(stage.drift_parts(9)) == pytest.approx(run.columns["gap"][-1], rel=1e-8)


def test_as_steps_shrink_averaging_aims_at_the_work_weighted_objective():
    """V_∞ → argmin Σ p_iE_iF_i: the distance to it falls like η, that to V* does not."""
    sizes = np.array([1e-3, 1e-4, 1e-5])
    inst, theta, *_, steps, _ = case(4, 1.0)
    work = inst.weights * np.array(steps)
    left = sum(w * ref.client_matrix(inst, i, theta) for i, w in enumerate(work))
    right = sum(w * ref.client_linear(inst, i, theta) for i, w in enumerate(work))
    aim = np.linalg.solve(left, right)
    plain = [case(4, s)[-1] for s in sizes]
    normal = [case(4, s, normalized=True)[-1] for s in sizes]
    off_aim = [np.linalg.norm(ref.stack(stage.fixed_point) - aim) for stage in plain]
    assert abs(log_slope(sizes, off_aim) - 1.0) < 0.01
    assert abs(log_slope(sizes, [np.linalg.norm(stage.bias) for stage in plain])) < 1e-3
    assert abs(log_slope(sizes, [np.linalg.norm(stage.bias) for stage in normal]) - 1.0) < 0.01


@pytest.mark.parametrize("normalized", [False, True])
def test_the_bias_to_first_order(normalized):
    sizes = np.array([1e-3, 1e-4])
    stages = [case(5, s, normalized=normalized)[-1] for s in sizes]
    rest = [np.linalg.norm(stage.bias - stage.first_order_bias) for stage in stages]
    assert log_slope(sizes, rest) == pytest.approx(2.0, abs=0.05)
    assert rest[0] < 0.1 * np.linalg.norm(stages[0].bias)


def test_equal_entries_are_the_equal_stage():
    *_, problem, params, eta, steps, _ = case(6, 0.5)
    clients = len(steps)
    for normalized in (False, True):
        stages = [
            la.frozen_stage(problem, params, local_steps=e, local_lr=eta, normalized=normalized)
            for e in (4, [4] * clients)
        ]
        assert np.array_equal(stages[0].after(5), stages[1].after(5))
        assert stages[1].is_plain
        assert stages[1].common_steps == 4


def test_identical_work_and_clients_leave_no_bias():
    *_, problem, params, eta, steps, _ = case(7, 0.5)
    pooled = la.pool(problem)
    stage = la.frozen_stage(pooled, params, local_steps=steps, local_lr=eta)
    assert np.linalg.norm(stage.bias) < 1e-12 * np.linalg.norm(stage.minimizer)


def test_a_round_map_with_eigenvalue_one_has_no_fixed_point_but_goes_on():
    """η = 2/λ and E = 2: (1 − ηλ)² = 1, so M̂ = I and every round adds the same push."""
    hessians = np.array([2.0, 2.0]).reshape(2, 1, 1)
    linears = np.array([1.0, 5.0]).reshape(2, 1, 1)
    stage = la.FrozenStage(np.array([0.5, 0.5]), hessians, linears, np.full((1, 1, 1), 4.0), 2, 1.0)
    value = 4.0
    for t in range(1, 5):
        ends = []
        for linear in (1.0, 5.0):
            own = value
            for _ in range(2):
                own = own - 1.0 * (2.0 * own - linear)
            ends.append(own)
        value = 0.5 * sum(ends)
        assert float(stage.after(t)[0, 0, 0]) == pytest.approx(value, rel=1e-14)
    assert not stage.stable
    assert stage.floor == np.inf
    for ask in (lambda: stage.bias, lambda: stage.fixed_point):
        with pytest.raises(FloatingPointError, match="no single fixed point"):
            ask()
    assert stage.drift_parts(0) == (stage.gap, 0.0, 0.0)
    assert stage.drift_parts(1) == (np.inf,) * 3


# ------------------------------------------------------------------------ what does not cover it


def test_bounds_of_equal_work_say_nothing_about_unequal_work():
    *_, stage = case(8, 0.3)
    assert not stage.is_plain
    assert stage.bias_bound is stage.crude_bias_bound is None
    asked = (
        published.average_drift, published.operator_bound, published.surrogate_condition_bound,
        lambda s: frozen_consensus_bound(s, 1.0), lambda s: s.common_steps,
    )  # fmt: skip
    for ask in asked:
        with pytest.raises(
            ValueError, match="stage must be plain averaging with equal local steps"
        ):
            ask(stage)
    assert f"E = {min(stage.work.steps)}..{max(stage.work.steps)}" in repr(stage)


def test_control_variates_in_closed_form_need_equal_work():
    *_, problem, params, eta, steps, _ = case(9, 0.3)
    with pytest.raises(ValueError, match="local_steps must be an integer >= 1"):
        la.scaffold_stage(problem, params, local_steps=steps, local_lr=eta)


@pytest.mark.parametrize("steps", [[1, 2], [0] * 4, 1.5])
def test_bad_local_steps_are_refused(small_problem, small_params, steps):
    with pytest.raises(ValueError, match=r"local_steps(\[0\])? must"):
        la.frozen_stage(small_problem, small_params, local_steps=steps, local_lr=0.1)


# ------------------------------------------------------------------------ scalar functions


@over(st.floats(1e-9, 1.999), st.lists(st.integers(1, 80), min_size=3, max_size=3))
def test_power_sums_exactly(x, counts):
    found = power_sums(np.full((3, 1), x), np.array(counts)[:, None])
    y = 1 - Fraction(x)
    for k, count in enumerate(counts):
        sums = [Fraction(0)] * 3  # S, T, U up to now
        power, size = Fraction(1), Fraction(0)
        for _ in range(count):
            sums[2], sums[1], sums[0] = sums[2] + sums[1], sums[1] + sums[0], sums[0] + power
            power, size = power * y, size + abs(power)
        exact = (power, *sums)
        scales = (1.0, float(size), float(size) * count, float(size) * count**2)
        for part, value, scale in zip(found, exact, scales, strict=True):
            assert abs(Fraction(float(part[k, 0])) - value) <= 1e-14 * count * max(scale, 1.0)


def test_a_million_local_steps_take_no_time():
    x = np.array([1e-7, 1e-3, 0.5, 1.5])
    found = power_sums(x, 10**6).weighted
    exact = [float((10**6 * Fraction(v) - 1) / Fraction(v) ** 2) for v in x[1:]]
    np.testing.assert_allclose(found[1:], exact, rtol=1e-12)


@over(st.floats(1e-6, 1.9), st.integers(1, 12), st.floats(0.0, 1.0))
def test_means_over_stragglers_by_listing(x, count, share):
    work = LocalWork(np.array([count, 3]), share)
    grid = np.full((2, 2), x)
    for k, most in enumerate((count, 3)):
        numbers = range(1, most + 1)
        chances = np.array([share / most + (1 - share) * (e == most) for e in numbers])
        gone = chances @ [float(contraction(np.array(x), e)) for e in numbers]
        weighted = chances @ [float(power_sums(np.array(x), e).weighted) for e in numbers]
        assert work.contraction(grid)[k, 0] == pytest.approx(gone, rel=1e-12)
        assert work.weighted_sum(grid)[k, 0] == pytest.approx(weighted, rel=1e-11, abs=1e-14)
        assert work.mean(2)[k] == pytest.approx(chances @ np.array(numbers), rel=1e-14)
    assert str(work) == f"{min(count, 3)}..{max(count, 3)}" + (
        f" with {share:g} stragglers" if share else "")  # fmt: skip
