"""Compiled gradients of the data loss over blocks of sequences.

Every per-sequence (d, m) quantity is kept as (output c, sequence s, channel a) over a block of
sequences that fits the caches. Then, with the Gram matrices side by side,

    U_h = V_hᵀ [G_1 … G_S],   Zᵀ = Σ_h U_h B_hᵀ,   ∂B_h = Rᵀ U_h,   ∂V_hᵀ = (R B_h) [G_1 … G_S]ᵀ

are plain matrix products on contiguous memory, and only R = M Z − K is a loop over sequences (with
one product per sequence where it is large enough).

With one query per sequence (mean and last) everything is kept as (channel a, sequence s) instead,
and of every Gram matrix the lower half: g_ab holds the entry (a, b) of all sequences of a block,
and G_s x_s for all of them is a sum over a ≥ b of long products of rows.
"""

from typing import NamedTuple

import numpy as np

from linattn._kernels.jit import inner
from linattn._kernels.layout import QUERIES, Client, block_of, block_size, queries_block, scale
from linattn._kernels.products import add_product, multiply
from linattn._kernels.views import cube, matrix, vector
from linattn._typing import Array

# From this many channels on a matrix product per sequence beats a loop.
PRODUCT_CHANNELS = 12


class BlockRoom(NamedTuple):
    """Room for one block of sequences, and the gradient in the order of products."""

    mapped: Array  # (H, width), U_h of every head, or G B_hᵀ u
    product: Array  # (width,)
    residual: Array  # (width,)
    other: Array  # (width,)
    value_gradient_t: Array  # (H, m, d)


class Wanted(NamedTuple):
    """What is wanted of a loss and its gradient."""

    loss: bool
    kernel: bool
    value: bool


@inner
def block_room(kind: int, heads: int, dim: int, outputs: int) -> BlockRoom:
    """Room for blocks of either layout."""
    entries = dim * outputs if kind == QUERIES else max(dim, outputs)
    width = block_size(kind, dim, outputs) * entries
    return BlockRoom(
        np.empty((heads, width)),
        np.empty(width),
        np.empty(width),
        np.empty(width),
        np.empty((heads, outputs, dim)),
    )


@inner
def transpose(matrix: Array, out: Array) -> None:
    """out = matrixᵀ."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            out[j, i] = matrix[i, j]


@inner
def sequence_gradient(
    own: Client,
    kernels: Array,
    value: Array,
    wanted: Wanted,
    room: BlockRoom,
    kernel_gradient: Array,
    value_gradient: Array,
) -> float:
    """Mean data gradient over the sequences of a client, in B and V; return the loss, if wanted."""
    heads, dim, outputs = value.shape
    scale(kernel_gradient, 0.0)
    scale(room.value_gradient_t, 0.0)
    block, loss = block_size(own.kind, dim, outputs), 0.0
    for start in range(0, own.size, block):
        stop = min(start + block, own.size)
        if own.kind == QUERIES:
            loss += _queries_block(own, start, stop, kernels, value, wanted, room, kernel_gradient)
        else:
            loss += _one_query_block(
                own, start, stop, kernels, value, wanted, room, kernel_gradient
            )
    mean = 1.0 / own.size
    scale(kernel_gradient, mean)
    for h in range(heads):
        transpose(room.value_gradient_t[h], value_gradient[h])
    scale(value_gradient, mean)
    loss *= mean
    return 0.5 * (loss + own.energy) if own.kind == QUERIES else 0.5 * loss


@inner
def _queries_block(
    own: Client,
    start: int,
    stop: int,
    kernels: Array,
    value: Array,
    wanted: Wanted,
    room: BlockRoom,
    kernel_gradient: Array,
) -> float:
    """Add the gradient sums of one block, several queries; return Σ ⟨Z, MZ − 2K⟩."""
    (heads, dim, outputs), count = value.shape, stop - start
    gram, moment, cross = queries_block(own, start, stop)
    rows, wide = outputs * count, count * dim
    size = rows * dim
    product = matrix(room.product, 0, rows, dim)
    residual = matrix(room.residual, 0, rows, dim)
    pulled = matrix(room.other, 0, rows, dim)
    scale(vector(room.product, 0, size), 0.0)
    for h in range(heads):
        multiply(value[h].T, gram, matrix(room.mapped[h], 0, outputs, wide))
        add_product(matrix(room.mapped[h], 0, rows, dim), kernels[h].T, product)
    minus_cross(cross, residual)
    add_images(moment, product, residual)
    loss = queries_loss(cross, product, residual) if wanted.loss else 0.0
    for h in range(heads):
        if wanted.kernel:
            mapped = matrix(room.mapped[h], 0, rows, dim)
            add_product(residual.T, mapped, kernel_gradient[h])
        if wanted.value:
            multiply(residual, kernels[h], pulled)
            add_product(matrix(pulled, 0, outputs, wide), gram.T, room.value_gradient_t[h])
    return loss


@inner
def minus_cross(cross: Array, residual: Array) -> None:
    """residual = −K of every sequence of a block, rows (output, sequence)."""
    count, outputs, dim = cross.shape
    for c in range(outputs):
        for s in range(count):
            for a in range(dim):
                residual[c * count + s, a] = -cross[s, c, a]


@inner
def add_images(moment: Array, product: Array, out: Array) -> None:
    """Add M Z of every sequence, rows (output, sequence)."""
    dim = moment.shape[0]
    count = moment.shape[1] // dim
    outputs = product.shape[0] // count
    if dim >= PRODUCT_CHANNELS:
        stacked, images = cube(product, 0, outputs, count, dim), cube(out, 0, outputs, count, dim)
        for s in range(count):
            add_product(stacked[:, s], moment[:, s * dim : (s + 1) * dim], images[:, s])
        return
    for row in range(outputs * count):
        first = row % count * dim
        for b in range(dim):
            z = product[row, b]
            for a in range(dim):
                out[row, a] += z * moment[b, first + a]


@inner
def queries_loss(cross: Array, product: Array, residual: Array) -> float:
    """Σ ⟨Z, R − K⟩ = Σ ⟨Z, MZ − 2K⟩ of a block."""
    count, outputs, dim = cross.shape
    loss = 0.0
    for c in range(outputs):
        for s in range(count):
            row = c * count + s
            for a in range(dim):
                loss += product[row, a] * (residual[row, a] - cross[s, c, a])
    return loss


@inner
def _one_query_block(
    own: Client,
    start: int,
    stop: int,
    kernels: Array,
    value: Array,
    wanted: Wanted,
    room: BlockRoom,
    kernel_gradient: Array,
) -> float:
    """Add the gradient sums of one block, one query each (M = u uᵀ); return Σ error²."""
    (heads, dim, outputs), count = value.shape, stop - start
    gram = block_of(own.gram, start, stop, dim * (dim + 1) // 2, 1)
    query = block_of(own.query, start, stop, dim, 1)
    pulled = matrix(room.other, 0, dim, count)
    error = matrix(room.residual, 0, outputs, count)
    minus_target(own, start, stop, error)
    for h in range(heads):
        features = matrix(room.mapped[h], 0, dim, count)
        multiply(kernels[h].T, query, pulled)
        multiply_grams(gram, pulled, features)
        add_product(value[h].T, features, error)
    loss = 0.0
    if wanted.loss:
        for c in range(outputs):
            for s in range(count):
                loss += error[c, s] * error[c, s]
    back = matrix(room.product, 0, dim, count)
    for h in range(heads):
        if wanted.value:
            features = matrix(room.mapped[h], 0, dim, count)
            add_product(error, features.T, room.value_gradient_t[h])
        if wanted.kernel:
            multiply(value[h], error, pulled)
            multiply_grams(gram, pulled, back)
            add_product(query, back.T, kernel_gradient[h])
    return loss


@inner
def minus_target(own: Client, start: int, stop: int, error: Array) -> None:
    """error = −y of the sequences of a block, (m, n)."""
    target = block_of(own.target, start, stop, error.shape[0], 1)
    for c in range(error.shape[0]):
        for s in range(error.shape[1]):
            error[c, s] = -target[c, s]


@inner
def multiply_grams(gram: Array, rows: Array, out: Array) -> None:
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
