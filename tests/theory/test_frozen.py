"""The frozen stage in closed form: naive dense powers, explicit rounds, controls, bounds."""

import itertools

import numpy as np
import pytest
import reference as ref
from bridge import kinds, make, over, readouts, relative_error, seeds
from hypothesis import assume
from hypothesis import strategies as st
from worlds import world

import linattn as la
from linattn.theory import FrozenStage, frozen_stage
from linattn.theory.frozen import frozen_stages

steps = st.sampled_from([1, 2, 3, 10, 40])
# η as a share of 2/max λ_max(A_i), the limit of stability.
shares = st.sampled_from([0.01, 0.3, 0.5, 0.9, 0.99])


def case(seed, kind, readout, count, share):
    _, inst, theta, V, problem, params = make(
        seed, kind, readout=readout, value_ridge=0.2, heterogeneity=(0.5, 0.5, 1.0)
    )
    tops = [np.linalg.norm(ref.client_matrix(inst, i, theta), 2) for i in range(len(inst.weights))]
    eta = share * 2 / max(tops)
    stage = frozen_stage(problem, params, local_steps=count, local_lr=eta)
    naive = ref.frozen_quantities(inst, theta, local_steps=count, step_size=eta)
    return inst, theta, V, problem, params, eta, stage, naive


def condition(stage):
    return np.linalg.cond(stage.hessian)


@over(seeds, kinds, readouts, steps, shares, examples=30)
def test_against_dense_matrix_powers(seed, kind, readout, count, share):
    *_, stage, naive = case(seed, kind, readout, count, share)
    assume(condition(stage) <= 1e4)
    for i, (hessian, linear) in enumerate(zip(naive.matrices, naive.linears, strict=True)):
        assert relative_error(stage.hessians[i], hessian) < 1e-10
        assert relative_error(stage.linears[i], linear) < 1e-10
    scale = np.abs(naive.fixed_point).max()
    assert relative_error(ref.stack(stage.fixed_point), naive.fixed_point, scale) < 1e-8
    assert relative_error(ref.stack(stage.minimizer), naive.minimizer, scale) < 1e-8
    assert relative_error(ref.stack(stage.bias), naive.bias, scale) < 1e-9
    assert relative_error(ref.stack(stage.first_order_bias), naive.bias_first_order, scale) < 1e-9
    assert stage.rate == pytest.approx(naive.rate, abs=1e-11)
    assert stage.floor == pytest.approx(naive.floor, rel=1e-7, abs=1e-16 * scale**2)
    assert stage.largest_step_curvature == pytest.approx(stage.local_lr * naive.largest, rel=1e-10)
    assert stage.crude_bias_bound == pytest.approx(naive.bound, rel=1e-7, abs=1e-300)
    if stage.largest_step_curvature <= 1.0:
        assert stage.bias_bound == pytest.approx(naive.bound_small_step, rel=1e-7, abs=1e-300)
    else:
        assert stage.bias_bound == stage.crude_bias_bound


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize(
    ("frozen_lr", "largest"), [(None, 2.0), ("safe", 2.0), (None, 1e60), (None, 1e200)]
)
def test_many_stages_at_once_are_each_of_them_to_the_bit(kind, unequal, frozen_lr, largest):
    """The largest kernel is a usual one, one of overflowing powers, one of infinite Hessians."""
    *_, problem, start = make(5, kind)
    count = [3 + i for i in range(problem.num_clients)] if unequal else 7
    points = [la.Params(start.layout, c * start.flat) for c in (1.0, 0.3, largest)]
    options = {"local_steps": count, "local_lr": 0.05, "frozen_lr": frozen_lr}
    with np.errstate(over="ignore", invalid="ignore"):
        many = frozen_stages(problem, points, **options)
        for stage, point in zip(many, points, strict=True):
            alone = frozen_stage(problem, point, **options)
            assert stage.local_lr == alone.local_lr
            for name in ("hessian", "minimizer", "gradients_at_minimizer", "bias"):
                np.testing.assert_array_equal(getattr(stage, name), getattr(alone, name), name)
            np.testing.assert_array_equal(stage.after(9), alone.after(9))
            assert (stage.rate, stage.drift_parts(9)) == (alone.rate, alone.drift_parts(9))


@pytest.mark.parametrize("used", [False, True])
def test_a_stage_at_another_step_is_one_made_with_it(small_problem, small_params, used):
    """Whether or not the first one has been asked already."""
    first = frozen_stage(small_problem, small_params, local_steps=5, local_lr=0.02)
    made = frozen_stage(small_problem, small_params, local_steps=5, local_lr=0.05)
    if used:
        assert first.stable
        assert first.floor > 0.0
    found = first.at_step(0.05)
    assert (found.rate, found.floor) == (made.rate, made.floor)
    for name in ("bias", "fixed_point", "minimizer", "gradients_at_minimizer"):
        assert np.array_equal(getattr(found, name), getattr(made, name))


@pytest.mark.parametrize("seed", range(3))
def test_gap_is_that_of_the_objective(seed):
    """F(B, V_0) − F(B, V*) by the twin, without a subtraction of losses here."""
    inst, theta, V, problem, params, _, stage, naive = case(seed, "merged", "token", 3, 0.3)
    star = ref.unstack(naive.minimizer, len(V))
    expected = ref.objective(inst, theta, V) - ref.objective(inst, theta, star)
    assert stage.gap == pytest.approx(expected, rel=1e-8)
    assert la.ValueBlock(problem, params).gap(params.value) == pytest.approx(stage.gap, rel=1e-9)


@over(seeds, kinds, readouts, steps, shares, examples=30)
def test_the_fixed_point_is_fixed(seed, kind, readout, count, share):
    """One explicit round of the twin from V_∞ stays at V_∞."""
    inst, theta, _, _, _, eta, stage, _ = case(seed, kind, readout, count, share)
    assume(condition(stage) <= 1e4)
    start = stage.fixed_point
    _, after = ref.frozen_rounds(inst, theta, start, rounds=1, local_steps=count, step_size=eta)
    assert relative_error(after, start) < 1e-11


@over(seeds, kinds, readouts, steps, shares, st.sampled_from([1, 2, 7, 60]), examples=30)
def test_closed_form_against_explicit_rounds(seed, kind, readout, count, share, rounds):
    *_, problem, params, eta, stage, _ = case(seed, kind, readout, count, share)
    assume(condition(stage) <= 1e4)
    assert stage.rate < 1
    size = np.linalg.norm(params.value - stage.fixed_point) + np.linalg.norm(stage.fixed_point)
    options = {"rounds": rounds, "local_steps": count, "local_lr": eta, "metrics": ["gap"]}
    method = la.fed_frozen(warmup_rounds=0)
    # The second run goes through the sequences, step by step, and never forms A_i.
    for batch_size in (None, 10**6):
        result = la.run(method, problem, params, batch_size=batch_size, **options)
        difference = np.linalg.norm(result.params.value - stage.after(rounds))
        assert difference <= 1e-12 * size
    final = result.columns["gap"][-1]
    parts = stage.drift_parts(rounds)
    assert sum(parts) == pytest.approx(final, rel=1e-7, abs=1e-13 * size**2)


@over(seeds, kinds, readouts, st.sampled_from([1, 2, 9]), shares, examples=30)
def test_explicit_rounds_of_the_twin(seed, kind, readout, count, share):
    inst, theta, V, _, _, eta, stage, _ = case(seed, kind, readout, count, share)
    assume(condition(stage) <= 1e4)
    values = ref.frozen_rounds(inst, theta, V, rounds=3, local_steps=count, step_size=eta)
    size = np.linalg.norm(V - stage.fixed_point) + np.linalg.norm(stage.fixed_point)
    for t, value in enumerate(values):
        assert np.linalg.norm(value - stage.after(t)) <= 1e-11 * size
    assert np.array_equal(stage.after(0), V)


@over(seeds, kinds, readouts, steps, shares, examples=30)
def test_bounds_hold_and_are_ordered(seed, kind, readout, count, share):
    *_, stage, _ = case(seed, kind, readout, count, share)
    measured = np.linalg.norm(stage.bias)
    assert measured <= stage.bias_bound * (1 + 1e-10)
    assert stage.bias_bound <= stage.crude_bias_bound * (1 + 1e-10)


@pytest.mark.parametrize("share", [1.0, 1.001, 3.0])
def test_bounds_are_refused_at_large_steps(share):
    *_, stage, _ = case(1, "merged", "token", 5, share * (1 + 1e-12))
    assert stage.largest_step_curvature >= 2
    assert stage.bias_bound is None
    assert stage.crude_bias_bound is None


@over(seeds, kinds, examples=30)
def test_the_bias_to_first_order(seed, kind):
    """‖bias − first order‖ falls like η² and the bias like η."""
    stages = [case(seed, kind, "token", 4, share)[-2] for share in (2e-2, 2e-3, 2e-4)]
    bias = [np.linalg.norm(stage.bias) for stage in stages]
    rest = [np.linalg.norm(stage.bias - stage.first_order_bias) for stage in stages]
    assert 0.8 < np.log10(bias[1] / bias[2]) < 1.2
    assert 1.8 < np.log10(rest[1] / rest[2]) < 2.2
    # Richardson: 2V_∞(η) − V_∞(2η) has no first-order bias.
    double = case(seed, kind, "token", 4, 4e-3)[-2]
    left = 2 * stages[1].fixed_point - double.fixed_point - double.minimizer
    assert np.linalg.norm(left) < 0.1 * bias[1] + 1e-12 * np.linalg.norm(double.minimizer)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("count", [10**4, 10**6, 10**9])
def test_many_local_steps_reach_the_mean_of_the_client_minimizers(count, uneven):
    inst, theta, _, problem, params, eta, _, _ = case(3, "merged", "token", 1, 0.5)
    steps = count + np.arange(len(inst.weights)) if uneven else count
    stage = frozen_stage(problem, params, local_steps=steps, local_lr=eta)
    own = [p * ref.client_minimizer(inst, i, theta) for i, p in enumerate(inst.weights)]
    assert relative_error(stage.bias, sum(own) - stage.minimizer) < 1e-11
    assert uneven or np.linalg.norm(stage.bias) <= stage.bias_bound


# ------------------------------------------------------------------------ null controls


@over(seeds, kinds, readouts, shares, examples=30)
def test_one_local_step_has_no_bias_at_all(seed, kind, readout, share):
    *_, stage, _ = case(seed, kind, readout, 1, share)
    assert not stage.bias.any()
    assert not stage.first_order_bias.any()
    assert stage.floor == stage.bias_bound == 0.0
    assert np.array_equal(stage.fixed_point, stage.minimizer)


def test_equal_hessians_have_no_bias_whatever_the_targets():
    problem = world(noise=0.3, value_heterogeneity=2.0, shared_tokens=True, value_ridge=0.1)
    params = la.initial_params(problem, num_heads=2)
    stage = frozen_stage(problem, params, local_steps=30, local_lr=la.safe_step(problem, params))
    scale = np.linalg.norm(stage.minimizer)
    assert np.linalg.norm(stage.gradients_at_minimizer) > 0.1 * scale
    assert np.linalg.norm(stage.bias) < 1e-12 * scale
    assert np.linalg.norm(stage.first_order_bias) < 1e-12 * scale
    assert stage.bias_bound < 1e-10 * scale


def quadratics(linear_of, start=None, count=20, step=0.1):
    """A stage of random client quadratics, without data."""
    rng = np.random.default_rng(5)
    roots = rng.standard_normal((3, 4, 6))
    hessians = roots @ roots.transpose(0, 2, 1) / 6 + 0.1 * np.eye(4)
    star = rng.standard_normal((4, 2))
    linears = np.array([linear_of(rng, a, star) for a in hessians])
    start = np.zeros((2, 2, 2)) if start is None else start
    return FrozenStage(np.array([0.5, 0.3, 0.2]), hessians, linears, start, count, step), star


def test_clients_that_agree_on_the_minimizer_have_no_bias():
    stage, star = quadratics(lambda rng, a, star: a @ star)
    assert relative_error(ref.stack(stage.minimizer), star) < 1e-12
    assert np.linalg.norm(stage.bias) < 1e-12 * np.linalg.norm(star)


def test_the_bias_is_there_when_no_control_holds():
    stage, star = quadratics(lambda rng, a, star: a @ star + rng.standard_normal(star.shape))
    assert np.linalg.norm(stage.bias) > 1e-2 * np.linalg.norm(star)


@pytest.mark.parametrize("count", [25, 10**8])
def test_identical_clients_have_no_bias(small_problem, small_params, count):
    stage = frozen_stage(la.pool(small_problem), small_params, local_steps=count, local_lr=0.05)
    assert np.linalg.norm(stage.bias) < 1e-12 * np.linalg.norm(stage.minimizer)


# ------------------------------------------------------------------------ steps and stability


def test_frozen_lr_as_in_fed_frozen(small_problem, small_params):
    tops = [
        np.linalg.eigvalsh(la.ValueBlock(small_problem.subset([i]), small_params).hessian)[-1]
        for i in range(4)
    ]
    options = {"local_steps": 5, "local_lr": 10.0}
    for frozen_lr, expected in ((None, 10.0), (0.02, 0.02), ("safe", 1 / max(tops))):
        stage = frozen_stage(small_problem, small_params, frozen_lr=frozen_lr, **options)
        assert stage.local_lr == pytest.approx(expected, rel=1e-12)
        if frozen_lr == "safe":
            run = la.run(
                la.fed_frozen(warmup_rounds=0, frozen_lr="safe"), small_problem, small_params,
                rounds=6, **options,
            )  # fmt: skip
            assert relative_error(run.params.value, stage.after(6)) < 1e-12
    small = frozen_stage(
        small_problem, small_params, local_steps=5, local_lr=1e-3, frozen_lr="safe"
    )
    assert small.local_lr == 1e-3


@pytest.mark.parametrize(("count", "share"), [(3, 6.0), (40, 4.0), (1000, 5.0), (3000, 40.0)])
def test_an_unstable_stage_says_so_without_nan_or_warning(count, share):
    *_, stage, _ = case(2, "merged", "token", 1, share)
    stage = FrozenStage(
        stage.weights, stage.hessians, stage.linears, stage.start, count, stage.local_lr
    )
    assert not stage.stable
    assert stage.rate > 1
    assert stage.drift_parts(4) == (np.inf,) * 3
    assert stage.bias_bound is None
    assert "unstable" in repr(stage)
    assert not np.isnan(stage.floor)
    assert not np.isnan(stage.rate)
    stage.after(5000)


def test_an_unstable_stage_follows_the_explicit_rounds_while_it_can():
    inst, theta, V, *_, eta, stage, _ = case(2, "merged", "token", 2, 3.0)
    assert not stage.stable
    values = ref.frozen_rounds(inst, theta, V, rounds=6, local_steps=2, step_size=eta)
    assert relative_error(stage.after(6), values[6]) < 1e-9


def test_representation_and_refusals(small_problem, small_params):
    stage = frozen_stage(small_problem, small_params, local_steps=5, local_lr=0.01)
    assert repr(stage).startswith("FrozenStage(stable, rate 0.")
    for ask, wrong in itertools.product((stage.after, stage.drift_parts), (-1, 1.5)):
        with pytest.raises(ValueError, match="rounds must be an integer >= 0"):
            ask(wrong)
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r"local_lr must be (a finite number )?> 0"):
            stage.at_step(wrong)
    cases = [
        ({"local_steps": 0, "local_lr": 0.1}, "local_steps must be an integer >= 1"),
        ({"local_steps": 1, "local_lr": -0.1}, "local_lr must be > 0"),
        ({"local_steps": 1, "local_lr": 0.1, "frozen_lr": "slow"}, "frozen_lr must be one of"),
        ({"local_steps": 1, "local_lr": 0.1, "frozen_lr": 0}, "frozen_lr must be > 0"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            frozen_stage(small_problem, small_params, **options)
    with pytest.raises(ValueError, match="params must have a value block"):
        frozen_stage(
            small_problem, la.Params.merged(np.eye(2), np.ones((2, 2))), local_steps=1, local_lr=1
        )


@pytest.mark.parametrize(("kind", "scale"), [("merged", 1e300), ("factored", 1e90)])
def test_a_kernel_beyond_floating_point_is_an_unstable_stage(kind, scale):
    *_, problem, params = make(3, kind)
    huge = la.Params(params.layout, scale * params.flat)
    with np.errstate(over="ignore", invalid="ignore"):
        stage = frozen_stage(problem, huge, local_steps=3, local_lr=0.1)
        assert not np.isfinite(stage.hessians).all()
        assert not stage.stable
        assert stage.rate == stage.floor == stage.gap == np.inf
        assert stage.bias_bound is None
        assert not np.isfinite(stage.after(2)).any()
        assert stage.drift_parts(2) == (np.inf,) * 3
    assert "unstable" in repr(stage)


@pytest.mark.parametrize("steps", [10**6, 10**9])
def test_the_cost_of_a_stage_does_not_grow_with_its_steps(steps):
    *_, problem, params = make(3)
    eta = 0.5 / la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
    stage = frozen_stage(problem, params, local_steps=steps, local_lr=eta)
    alone = np.linalg.solve(stage.hessians, stage.linears)
    mean = np.tensordot(stage.weights, alone, 1).reshape(stage.start.shape)
    assert relative_error(stage.fixed_point, mean) < 1e-15 * steps  # Σ p_i g_i* is zero to rounding
    bound = stage.bias_bound  # stays bounded as E → ∞
    assert np.linalg.norm(stage.bias) <= bound < 1e5 * np.linalg.norm(stage.bias)
