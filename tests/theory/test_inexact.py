"""Inexact descent: recursions by hand, validity on random functions, sharpness at the extremes."""

import numpy as np
import pytest

from linattn.theory.inexact import (
    composite_bound,
    descent_chain,
    effective_step,
    measured_moduli,
    pl_rate,
    relative_decrease,
    relative_rate,
)


def test_moduli_are_clipped_and_ignore_points_below_the_reference():
    excess, slopes = np.array([2.0, 0.0, -1.0, 1e-12]), np.array([1.0, 5.0, 5.0, 5.0])
    assert measured_moduli(excess, slopes, 0.25).tolist() == [0.25, 0.0, 0.0, 4.0]


def test_chain_is_the_recursion():
    found = descent_chain(1.0, 0.1, np.array([1.0, 2.0]), np.array([0.2, 0.3]))
    first = 0.9 * 1.0 + 0.05 * 0.2
    assert found == pytest.approx([first, 0.8 * first + 0.05 * 0.3])


def test_chain_is_attained_at_step_one_over_curvature():
    """f = x²/2, η = 1: x⁺ = −e, so f⁺ = e²/2, exactly the bound."""
    errors = np.array([0.3, -0.7])
    chain = descent_chain(2.0, 1.0, np.ones(2), errors**2)
    assert chain == pytest.approx(errors**2 / 2)


@pytest.mark.parametrize("x", [0.3, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("relative", [0.0, 0.2, 0.5])
def test_relative_decrease_is_attained_by_a_parabola(x, relative):
    """On f = Lx²/2 with e = ∓ε∇f the bound is an equality, on either side of ηL = 1."""
    curvature, place = 2.5, 1.7
    step = x / curvature
    slope = curvature * place
    sign = -1.0 if x <= 1.0 else 1.0
    after = place - step * (1 + sign * relative) * slope
    predicted = curvature / 2 * place**2 - relative_decrease(step, curvature, relative) * slope**2
    assert curvature / 2 * after**2 == pytest.approx(predicted, abs=1e-12)


def test_relative_decrease_holds_for_every_direction_of_the_error():
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = rng.uniform(-1.0, 1.0, size=4)
        smoothness = np.abs(values).max()
        x, relative = rng.normal(size=4), rng.uniform(0.0, 0.9)
        step = rng.uniform(0.0, 2.0 / (smoothness * (1 + relative)))
        slope = values * x
        error = rng.normal(size=4)
        error *= relative * np.linalg.norm(slope) / np.linalg.norm(error)
        after = x - step * (slope + error)
        bound = 0.5 * values @ x**2 - relative_decrease(step, smoothness, relative) * slope @ slope
        assert 0.5 * values @ after**2 <= bound + 1e-12


@pytest.mark.parametrize(("step", "relative"), [(0.5, 0.2), (0.8, 0.0), (1.2, 0.3)])
def test_relative_rate_is_attained_where_both_curvatures_are_equal(step, relative):
    """On f = x²/2, μ = L = 1 and e = ∓ε∇f: f⁺/f = (1 − η_e)²."""
    effective = step * (1 - relative) if step <= 1.0 else step * (1 + relative)
    rate = relative_rate(step, 1.0, 1.0, relative_error=relative)
    assert rate == pytest.approx((1 - effective) ** 2, abs=1e-14)
    half = relative_rate(step, 1.0, 0.5, relative_error=relative)
    assert half == pytest.approx(0.5 * (1 + rate), abs=1e-14)


def test_relative_rate_is_refused_where_the_step_may_ascend_and_would_be_violated():
    """f = (μx² + Ly²)/2 at x = 0, step 2.4/L: f grows by 1.4², the formula says 1 + 0.96μ/L."""
    smoothness, modulus, step = 1.0, 0.01, 2.4
    with pytest.raises(ValueError, match="step_size must be < 2/"):
        relative_rate(step, smoothness, modulus, relative_error=0.0)
    forced = 1.0 - 2.0 * modulus * relative_decrease(step, smoothness, 0.0)
    assert (1 - step * smoothness) ** 2 > forced > 1.0
    assert effective_step(0.5, 1.0, 0.1) == pytest.approx(0.45)
    assert effective_step(1.5, 1.0, 0.1) == pytest.approx(1.65)


@pytest.mark.parametrize(
    ("start", "relative", "splits", "accuracy"),
    [
        (3.0, 0.4, np.geomspace(1e-4, 5.2, 4000), 1e-5),
        # At ε = 0.9 only s < 0.235 is valid, and the best is close to it.
        (1e-6, 0.9, np.linspace(1e-3, 0.234567, 3000), 1e-4),
    ],
)
def test_composite_bound_is_the_best_split(start, relative, splits, accuracy):
    options = {"step_size": 0.5, "modulus": 0.3, "absolute": 0.2}
    found = composite_bound(start, 8, relative=relative, **options)
    kept = 1 - (1 + splits) * relative**2
    rate, floor = 1 - 0.15 * kept, (1 + 1 / splits) * 0.04 / (0.6 * kept)
    values = rate**8 * start + floor * (1 - rate**8)
    assert found.value == pytest.approx(values.min(), rel=accuracy)
    assert found.value <= values.min() * (1 + 1e-9)
    assert composite_bound(start, 8, relative=1.0, **options) is None


@pytest.mark.parametrize("short", [1e-6, 1e-8, 1e-12, 1e-16])
def test_composite_bound_with_an_error_of_nearly_the_gradient(short):
    """Where 1 − ε² is rounding there is no descent to speak of, and no division by zero."""
    options = {"step_size": 0.5, "modulus": 0.3, "relative": 1.0 - short, "absolute": 0.2}
    found = composite_bound(3.0, 8, **options)
    assert found is None or found.value > 3.0


def test_composite_bound_has_the_pure_cases_as_limits():
    """Only absolute: the chain with a constant error. Only relative: 1 − ημ(1 − ε²)."""
    options = {"step_size": 0.5, "modulus": 0.3}
    absolute = composite_bound(3.0, 6, relative=0.0, absolute=0.2, **options)
    chain = descent_chain(3.0, 0.5, np.full(6, 0.3), np.full(6, 0.04))
    assert absolute.value == pytest.approx(chain[-1], rel=1e-9)
    relative = composite_bound(3.0, 6, relative=0.4, absolute=0.0, **options)
    assert relative.rate == pytest.approx(1 - 0.15 * (1 - 0.16), rel=1e-9)
    assert relative.floor == 0.0


def test_composite_bound_holds_on_random_quadratics():
    rng = np.random.default_rng(1)
    for _ in range(200):
        values = np.sort(rng.uniform(0.1, 1.0, size=3))
        relative, absolute = rng.uniform(0.0, 0.8), rng.uniform(0.0, 0.5)
        x, steps = rng.normal(size=3), 5
        start = 0.5 * values @ x**2
        for _ in range(steps):
            slope = values * x
            # The worst error points down the gradient with full length.
            length = relative * np.linalg.norm(slope) + absolute
            x = x - (slope - length * slope / np.linalg.norm(slope)) / values[-1]
        bound = composite_bound(
            start, steps, step_size=1 / values[-1], modulus=values[0],
            relative=relative, absolute=absolute,
        )  # fmt: skip
        assert 0.5 * values @ x**2 <= bound.value * (1 + 1e-12)


@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.9])
def test_pl_rate_is_one_at_both_ends_and_continuous_at_the_joints(ratio):
    smoothness = 3.0
    modulus = ratio * smoothness
    assert pl_rate(0.0, smoothness, modulus) == pytest.approx(1.0, abs=1e-14)
    assert pl_rate(2.0 / smoothness, smoothness, modulus) == pytest.approx(1.0, abs=1e-14)
    for joint in (1.0, np.sqrt(3.0)):
        left, right = (
            pl_rate((joint + shift) / smoothness, smoothness, modulus) for shift in (-1e-10, 1e-10)
        )
        assert left == pytest.approx(right, abs=1e-8)


def test_pl_rate_at_one_over_curvature():
    assert pl_rate(1.0, 1.0, 0.2) == pytest.approx(0.7272727272727273, rel=1e-14)


@pytest.mark.parametrize("step", [0.2, 0.8, 1.1, 1.5, 1.8, 1.95])
def test_pl_rate_is_below_the_descent_lemma_and_above_quadratics(step):
    modulus = 0.2
    rate = pl_rate(step, 1.0, modulus)
    assert rate <= relative_rate(step, 1.0, modulus, relative_error=0.0) + 1e-14
    # A parabola of curvature between μ and L is in the class.
    assert rate >= max((1 - step * c) ** 2 for c in np.linspace(modulus, 1.0, 50)) - 1e-14


def test_pl_rate_holds_on_a_function_that_is_not_convex():
    """f = x² + 3 sin²x: L = 8, PL constant about 1/32 (checked on a grid)."""
    grid = np.linspace(-20.0, 20.0, 400001)
    values, slopes = grid**2 + 3 * np.sin(grid) ** 2, 2 * grid + 3 * np.sin(2 * grid)
    far = values > 1e-6
    modulus = float(np.min(slopes[far] ** 2 / (2 * values[far])))
    for step in np.linspace(0.01, 0.25, 25):
        after = grid - step * slopes
        ratio = (after**2 + 3 * np.sin(after) ** 2)[far] / values[far]
        assert ratio.max() <= pl_rate(step, 8.0, modulus) + 1e-12


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [0.3, 1.0, 1.3, 1.9])
def test_pl_rate_is_the_value_of_its_semidefinite_program(step):
    """The performance-estimation problem with smoothness and PL at both points of a step."""
    pepit = pytest.importorskip("PEPit")
    functions = pytest.importorskip("PEPit.functions")
    modulus, program = 0.2, pepit.PEP()
    f = program.declare_function(functions.SmoothFunction, L=1.0)
    lowest = f(f.stationary_point())
    start = program.set_initial_point()
    slope, value = f.oracle(start)
    program.set_initial_condition(value - lowest <= 1)
    after = f.oracle(start - step * slope)
    program.set_performance_metric(after[1] - lowest)
    for gradient, height in ((slope, value), after):
        program.add_constraint(height - lowest <= gradient**2 / (2 * modulus))
        program.add_constraint(height >= lowest)
    assert program.solve(verbose=0) == pytest.approx(pl_rate(step, 1.0, modulus), abs=2e-5)


def test_pl_rate_is_refused_beyond_its_range():
    with pytest.raises(ValueError, match="step_size"):
        pl_rate(2.01, 1.0, 0.5)
    with pytest.raises(ValueError, match="modulus"):
        pl_rate(1.0, 1.0, 1.5)
