"""Compiled gradients of the data loss over blocks of sequences.

Every per-sequence (d, m) quantity is kept as (output c, sequence s, channel a) over a block of
sequences that fits the caches. Then, with stacked Gram matrices,

    U_h = V_hᵀ [G_1 … G_S],   Zᵀ = Σ_h U_h B_hᵀ,   ∂B_h = Rᵀ U_h,   ∂V_hᵀ = (R B_h) [G_1; …; G_S]

are plain matrix products on contiguous memory, and only R = M Z − K is a loop over sequences (with
one product per sequence where it is large enough). The Gram matrices are kept twice, side by side
and stacked, because the library that multiplies is twice as fast on untransposed operands.

With one query per sequence (mean and last) everything is kept as (channel a, sequence s) instead,
and of every Gram matrix the lower half: g_ab holds the entry (a, b) of all sequences of a block,
and G_s x_s for all of them is a sum over a ≥ b of long products of rows.
"""

import numpy as np
from numba import njit

from linattn._kernels.layout import LocalData
from linattn._typing import Array

# From this many channels on a matrix product per sequence beats a loop.
PRODUCT_CHANNELS = 12


@njit(cache=True)
def _add(part: Array, total: Array) -> None:
    """total += part. Plain loops compile several times faster than array expressions."""
    rows, columns = part.shape
    for i in range(rows):
        for j in range(columns):
            total[i, j] += part[i, j]


@njit(cache=True)
def _scale(flat: Array, factor: float) -> None:
    """flat *= factor, and exactly zero for factor 0 whatever was there."""
    for j in range(flat.size):
        flat[j] = flat[j] * factor if factor != 0.0 else 0.0


@njit(cache=True)
def _token_block(
    gram: Array,
    columns: Array,
    cross: Array,
    kernels: Array,
    kernels_t: Array,
    value_t: Array,
    kernel_gradient: Array,
    value_gradient_t: Array,
    scratch: Array,
    need_kernel: bool,
) -> None:
    """Add the gradient sums of one block of sequences, token readout (M = G)."""
    heads, outputs, dim = value_t.shape
    count = cross.shape[0]
    size = outputs * count * dim
    product = scratch[heads, :size].reshape(outputs * count, dim)
    residual = scratch[heads + 1, :size].reshape(outputs * count, dim)
    pulled = scratch[heads + 2, :size].reshape(outputs * count, dim)
    for h in range(heads):
        np.dot(value_t[h], columns, scratch[h, :size].reshape(outputs, count * dim))
        rows = scratch[h, :size].reshape(outputs * count, dim)
        if h == 0:
            np.dot(rows, kernels_t[h], product)
        else:
            np.dot(rows, kernels_t[h], pulled)
            _add(pulled, product)
    small = scratch[heads + 3, : dim * dim].reshape(dim, dim)
    small_value = scratch[heads + 3, : outputs * dim].reshape(outputs, dim)
    _residual(gram, cross, product, residual, scratch[heads + 2], small_value)
    wide = scratch[heads + 2, :size].reshape(outputs, count * dim)
    for h in range(heads):
        if need_kernel:
            rows = scratch[h, :size].reshape(outputs * count, dim)
            np.dot(residual.T, rows, small)
            _add(small, kernel_gradient[h])
        np.dot(residual, kernels[h], pulled)
        np.dot(wide, gram, small_value)
        _add(small_value, value_gradient_t[h])


@njit(cache=True)
def _residual(
    gram: Array, cross: Array, product: Array, residual: Array, room: Array, image: Array
) -> None:
    """R = G Z − K of every sequence, rows (output, sequence)."""
    count, outputs, dim = cross.shape
    if dim >= PRODUCT_CHANNELS:
        here = room[: outputs * dim].reshape(outputs, dim)
        for s in range(count):
            for c in range(outputs):
                for a in range(dim):
                    here[c, a] = product[c * count + s, a]
            np.dot(here, gram[s * dim : (s + 1) * dim], image)
            for c in range(outputs):
                for a in range(dim):
                    residual[c * count + s, a] = image[c, a] - cross[s, c, a]
        return
    for c in range(outputs):
        for s in range(count):
            row = c * count + s
            for a in range(dim):
                residual[row, a] = -cross[s, c, a]
            for b in range(dim):
                z = product[row, b]
                for a in range(dim):
                    residual[row, a] += z * gram[s * dim + b, a]


@njit(cache=True)
def _rank_one_block(
    gram: Array,
    query: Array,
    target: Array,
    kernels: Array,
    value_t: Array,
    kernel_gradient: Array,
    value_gradient_t: Array,
    scratch: Array,
    need_kernel: bool,
) -> None:
    """Add the gradient sums of one block of sequences, one query per sequence (M = u uᵀ).

    gram (f, n), query (d, n) and target (m, n) have sequences along the last axis.
    """
    heads, outputs, dim = value_t.shape
    count = query.shape[1]
    pulled = scratch[heads + 2, : dim * count].reshape(dim, count)
    error = scratch[heads, : outputs * count].reshape(outputs, count)
    for c in range(outputs):
        for s in range(count):
            error[c, s] = -target[c, s]
    part = scratch[heads + 1, : outputs * count].reshape(outputs, count)
    for h in range(heads):
        features = scratch[h, : dim * count].reshape(dim, count)
        np.dot(kernels[h].T, query, pulled)
        _multiply_grams(gram, pulled, features)
        np.dot(value_t[h], features, part)
        _add(part, error)
    small = scratch[heads + 3, : dim * dim].reshape(dim, dim)
    small_value = scratch[heads + 3, : outputs * dim].reshape(outputs, dim)
    back = scratch[heads + 1, : dim * count].reshape(dim, count)
    for h in range(heads):
        features = scratch[h, : dim * count].reshape(dim, count)
        np.dot(error, features.T, small_value)
        _add(small_value, value_gradient_t[h])
        if need_kernel:
            np.dot(value_t[h].T, error, pulled)
            _multiply_grams(gram, pulled, back)
            np.dot(query, back.T, small)
            _add(small, kernel_gradient[h])


@njit(cache=True)
def _multiply_grams(gram: Array, rows: Array, out: Array) -> None:
    """out_s = G_s rows_s for every sequence s, the last axis of all arrays; gram is (f, n)."""
    dim, count = rows.shape
    k = 0
    for a in range(dim):
        row, total, entry = rows[a], out[a], gram[k + a]
        for s in range(count):
            total[s] = entry[s] * row[s]
        for b in range(a):
            other, other_total, entry = rows[b], out[b], gram[k + b]
            for s in range(count):
                total[s] += entry[s] * other[s]
                other_total[s] += entry[s] * row[s]
        k += a + 1


@njit(cache=True)
def data_gradient(
    data: LocalData,
    first: int,
    last: int,
    kernels: Array,
    kernels_t: Array,
    value_t: Array,
    kernel_gradient: Array,
    value_gradient_t: Array,
    scratch: Array,
    block: int,
    need_kernel: bool,
) -> None:
    """Mean data gradient over the sequences first:last, in B and Vᵀ."""
    _, outputs, dim = value_gradient_t.shape
    _scale(kernel_gradient.reshape(-1), 0.0)
    _scale(value_gradient_t.reshape(-1), 0.0)
    for start in range(first, last, block):
        stop = min(start + block, last)
        if data.rank_one:
            count = stop - start
            _rank_one_block(
                data.gram[start:stop].reshape(data.gram.shape[1], count),
                data.query[start:stop].reshape(dim, count),
                data.target[start:stop].reshape(outputs, count),
                kernels,
                value_t,
                kernel_gradient,
                value_gradient_t,
                scratch,
                need_kernel,
            )
        else:
            _token_block(
                data.gram[start * dim : stop * dim],
                data.columns[start * dim : stop * dim].reshape(dim, (stop - start) * dim),
                data.cross[start:stop],
                kernels,
                kernels_t,
                value_t,
                kernel_gradient,
                value_gradient_t,
                scratch,
                need_kernel,
            )
    mean = 1.0 / (last - first)
    _scale(kernel_gradient.reshape(-1), mean)
    _scale(value_gradient_t.reshape(-1), mean)
