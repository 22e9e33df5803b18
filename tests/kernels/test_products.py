"""Matrix products on views against NumPy."""

import numpy as np
import pytest
from numba import njit

from linattn._kernels.products import add_product, multiply


@njit
def both(left, right, out, total):
    multiply(left, right, out)
    add_product(left, right, total)


def views(rng, rows, columns):
    """The same kind of matrix by rows, by columns, and as parts of larger ones."""
    wide, tall = rng.normal(size=(rows, columns + 3)), rng.normal(size=(columns + 2, rows + 1))
    yield np.ascontiguousarray(wide[:, :columns])
    yield np.ascontiguousarray(tall[:columns, :rows]).T
    yield wide[:, 2 : 2 + columns]
    yield tall[1 : 1 + columns, 1:].T


@pytest.mark.parametrize(
    "sizes", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (2, 0, 3)]
)
def test_products_of_views(sizes):
    rows, inner, columns = sizes
    rng = np.random.default_rng(0)
    for left in views(rng, rows, inner):
        for right in views(rng, inner, columns):
            held = rng.normal(size=(2, rows, columns + 2))
            out, total = held[0, :, :columns], held[1, :, 1 : 1 + columns]
            before, around = total.copy(), held.copy()
            both(left, right, out, total)
            np.testing.assert_allclose(out, left @ right, rtol=1e-14, atol=1e-14)
            np.testing.assert_allclose(total, before + left @ right, rtol=1e-14, atol=1e-14)
            assert np.array_equal(held[0, :, columns:], around[0, :, columns:])
            assert np.array_equal(held[1, :, [0, -1]], around[1, :, [0, -1]])
