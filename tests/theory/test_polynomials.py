"""Scalar functions of local gradient descent against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from bridge import over
from hypothesis import strategies as st

from linattn.theory.polynomials import contraction, power_sums, slope

steps = st.integers(1, 60)
# Below 1, above 1, near both, tiny.
arguments = st.one_of(
    st.floats(1e-12, 2.5),
    st.floats(1e-9, 1e-3).map(lambda t: 1.0 - t),
    st.floats(1e-9, 1e-3).map(lambda t: 1.0 + t),
    st.floats(1e-9, 1e-3).map(lambda t: 2.0 - t),
    st.sampled_from([1.0, 2.0, 1e-300]),
)


@over(arguments, steps, examples=60)
def test_contraction_keeps_its_digits(x, count):
    exact = 1 - (1 - Fraction(x)) ** count
    got = float(contraction(np.array(x), count))
    if exact == 0:
        assert abs(got) < 1e-15 * count
    else:
        # Between 1 and 2 the answer may cancel against 1 for even E; there 1e-15 is absolute.
        tolerance = 4e-15 * count * (abs(float(exact)) if x <= 1 else max(abs(float(exact)), 1e-2))
        assert abs(Fraction(got) - exact) <= tolerance


@over(arguments, steps, examples=60)
def test_weighted_sum_term_by_term(x, count):
    y = 1 - Fraction(x)
    exact = sum(((count - 1 - k) * y**k for k in range(count)), Fraction(0))
    size = sum(((count - 1 - k) * abs(y) ** k for k in range(count)), Fraction(0))
    got = Fraction(float(power_sums(np.array(x), count).weighted))
    assert abs(got - exact) <= 1e-14 * count * float(size)


def test_weighted_sum_vanishes_at_one_step():
    assert not power_sums(np.array([0.1, 1.0, 3.0]), 1).weighted.any()


@over(st.floats(1e-6, 1.0), steps, examples=60)
def test_slope_is_the_derivative_of_the_averaged_power(x, count):
    """s(a) = (1/E) Σ_k (1 − ηa)^k at η = 1: |s'| by exact differentiation."""
    y = 1 - Fraction(x)
    exact = sum((k * y ** (k - 1) for k in range(1, count)), Fraction(0)) / count
    assert slope(x, count, 1.0) == pytest.approx(float(exact), rel=1e-12, abs=1e-300)
    assert slope(x, count, 0.1) == pytest.approx(0.1 * float(exact), rel=1e-12, abs=1e-300)
    assert slope(x, count, 1.0) <= (count - 1) / 2 * (1 + 1e-12)


@pytest.mark.parametrize("x", [1e-12, 1e-9, 0.3, 1.0])
def test_slope_of_a_billion_steps_needs_no_memory(x):
    """Against its limits: (E − 1)/2 where xE is small, 1/(x²E) where it is large."""
    steps = 10**9
    limit = 0.5 * (steps - 1) if x * steps < 1e-2 else 1.0 / (x * x * steps)
    rel = 1e-3 if x == 1e-12 else 1e-12
    if x == 1e-9:
        limit, rel = (1.0 - 2.0 / np.e) / (x * x * steps), 1e-6
    assert slope(x, steps, 1.0) == pytest.approx(limit, rel=rel)


def test_overflow_is_infinite_and_silent():
    assert np.isinf(contraction(np.array([1e10]), 200)).all()
    assert not np.isfinite(power_sums(np.array([1e10]), 200).weighted).any()
