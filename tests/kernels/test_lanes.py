"""Registers of eight numbers against NumPy."""

import numpy as np
import pytest
from numba import njit

from linattn._kernels.lanes import (
    WIDTH,
    load,
    padded,
    plus,
    spread,
    store,
    times,
    times_plus,
    total,
)


@njit
def combine(a, b, index, factor, out):
    x, y = load(a, index), load(b, index)
    store(out, index, plus(times(x, y), times_plus(spread(factor), x, y)))
    return total(x)


def test_lanes_against_numpy():
    rng = np.random.default_rng(0)
    a, b, out = rng.normal(size=20), rng.normal(size=20), np.zeros(20)
    found = combine(a, b, 3, 2.5, out)
    part = slice(3, 3 + WIDTH)
    np.testing.assert_allclose(out[part], (a * b + (2.5 * a + b))[part], rtol=1e-15, atol=1e-16)
    assert not out[:3].any()
    assert not out[3 + WIDTH :].any()
    # Pairs at distance four, two, one: the order is a promise.
    held = a[part]
    for half in (4, 2, 1):
        held = held[:half] + held[half:]
    assert found == held[0]


@njit
def fuse(a, b, c, out):
    store(out, 0, times_plus(load(a, 0), load(b, 0), load(c, 0)))


def test_products_are_rounded_once():
    small, out = 2.0**-30, np.empty(WIDTH)
    one = np.full(WIDTH, 1.0 + small)
    fuse(one, one, np.full(WIDTH, -1.0 - 2.0 * small), out)
    assert (out == small**2).all()  # a product that was rounded first has lost it


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_padded(size, expected):
    assert padded(size) == expected
