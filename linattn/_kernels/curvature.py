"""Compiled Hessian-vector products and normal equations over blocks of sequences.

Layouts are those of `sequences`. In the direction (D, W) (notes, Second derivatives),

    Z' = Σ_h D_h G V_h + B_h G W_h,   ∂B'_h = M Z' (G V_h)ᵀ + R (G W_h)ᵀ,
    ∂V'_h = G B_hᵀ M Z' + G D_hᵀ R

and, with the feature map Φ_h = B_h G before the queries are applied, H_hk = Φ_hᵀ M Φ_k and
C_h = Φ_hᵀ K.
"""

from typing import NamedTuple

import numpy as np

from linattn._kernels.jit import inner
from linattn._kernels.layout import QUERIES, Client, block_of, block_size, queries_block, scale
from linattn._kernels.products import add_product, multiply
from linattn._kernels.sequences import (
    PRODUCT_CHANNELS,
    BlockRoom,
    add_images,
    minus_cross,
    minus_target,
    multiply_grams,
    transpose,
)
from linattn._kernels.views import matrix
from linattn._typing import Array


class Direction(NamedTuple):
    """A direction (D, W), and room for what is transported along it."""

    kernels: Array  # (H, d, d), D_h
    value: Array  # (H, d, m), W_h
    mapped: Array  # (H, width), G W_h of every head, or G D_hᵀ u
    change: Array  # (width,), Z'
    image: Array  # (width,), M Z'


@inner
def direction_room(kernels: Array, value: Array, room: BlockRoom) -> Direction:
    """A direction with room beside that of a gradient."""
    width = room.product.size
    mapped = np.empty((len(kernels), width))
    return Direction(kernels, value, mapped, np.empty(width), np.empty(width))


@inner
def sequence_product(
    own: Client,
    kernels: Array,
    value: Array,
    along: Direction,
    room: BlockRoom,
    kernel_out: Array,
    value_out: Array,
) -> None:
    """Mean Hessian of the data loss over the sequences of a client, applied to a direction."""
    heads, dim, outputs = value.shape
    scale(kernel_out, 0.0)
    scale(room.value_gradient_t, 0.0)
    block = block_size(own.kind, dim, outputs)
    for start in range(0, own.size, block):
        stop = min(start + block, own.size)
        if own.kind == QUERIES:
            _queries_product(own, start, stop, kernels, value, along, room, kernel_out)
        else:
            _one_query_product(own, start, stop, kernels, value, along, room, kernel_out)
    mean = 1.0 / own.size
    scale(kernel_out, mean)
    for h in range(heads):
        transpose(room.value_gradient_t[h], value_out[h])
    scale(value_out, mean)


@inner
def _queries_product(
    own: Client,
    start: int,
    stop: int,
    kernels: Array,
    value: Array,
    along: Direction,
    room: BlockRoom,
    kernel_out: Array,
) -> None:
    """Add the sums of one block, several queries."""
    (heads, dim, outputs), count = value.shape, stop - start
    gram, moment, cross = queries_block(own, start, stop)
    rows, wide = outputs * count, count * dim
    product, change = matrix(room.product, 0, rows, dim), matrix(along.change, 0, rows, dim)
    image = matrix(along.image, 0, rows, dim)
    scale(product, 0.0)
    scale(change, 0.0)
    scale(image, 0.0)
    for h in range(heads):
        multiply(value[h].T, gram, matrix(room.mapped[h], 0, outputs, wide))
        multiply(along.value[h].T, gram, matrix(along.mapped[h], 0, outputs, wide))
        here, there = matrix(room.mapped[h], 0, rows, dim), matrix(along.mapped[h], 0, rows, dim)
        add_product(here, kernels[h].T, product)
        add_product(here, along.kernels[h].T, change)
        add_product(there, kernels[h].T, change)
    residual = matrix(room.residual, 0, rows, dim)
    minus_cross(cross, residual)
    add_images(moment, product, residual)
    add_images(moment, change, image)
    pulled = matrix(room.other, 0, rows, dim)
    for h in range(heads):
        add_product(image.T, matrix(room.mapped[h], 0, rows, dim), kernel_out[h])
        add_product(residual.T, matrix(along.mapped[h], 0, rows, dim), kernel_out[h])
        multiply(image, kernels[h], pulled)
        add_product(residual, along.kernels[h], pulled)
        add_product(matrix(pulled, 0, outputs, wide), gram.T, room.value_gradient_t[h])


@inner
def _one_query_product(
    own: Client,
    start: int,
    stop: int,
    kernels: Array,
    value: Array,
    along: Direction,
    room: BlockRoom,
    kernel_out: Array,
) -> None:
    """Add the sums of one block, one query per sequence."""
    (heads, dim, outputs), count = value.shape, stop - start
    gram = block_of(own.gram, start, stop, dim * (dim + 1) // 2, 1)
    query = block_of(own.query, start, stop, dim, 1)
    pulled, back = matrix(room.other, 0, dim, count), matrix(room.product, 0, dim, count)
    error = matrix(room.residual, 0, outputs, count)
    moved = matrix(along.change, 0, outputs, count)
    minus_target(own, start, stop, error)
    scale(moved, 0.0)
    for h in range(heads):
        here = matrix(room.mapped[h], 0, dim, count)
        there = matrix(along.mapped[h], 0, dim, count)
        multiply(kernels[h].T, query, pulled)
        multiply_grams(gram, pulled, here)
        multiply(along.kernels[h].T, query, pulled)
        multiply_grams(gram, pulled, there)
        add_product(value[h].T, here, error)
        add_product(value[h].T, there, moved)
        add_product(along.value[h].T, here, moved)
    for h in range(heads):
        here = matrix(room.mapped[h], 0, dim, count)
        there = matrix(along.mapped[h], 0, dim, count)
        add_product(moved, here.T, room.value_gradient_t[h])
        add_product(error, there.T, room.value_gradient_t[h])
        multiply(value[h], moved, pulled)
        add_product(along.value[h], error, pulled)
        multiply_grams(gram, pulled, back)
        add_product(query, back.T, kernel_out[h])


class SystemRoom(NamedTuple):
    """Room for normal equations over blocks."""

    mapped: Array  # (H·width,), B_h G as (a, (s, i)), or G B_hᵀ u as (i, s), of every head
    image: Array  # (width,), M B_k G, or B_kᵀ u
    targets: Array  # (K as ((a, s), c))


@inner
def system_room(kind: int, heads: int, dim: int, outputs: int) -> SystemRoom:
    """Room for blocks of either layout."""
    count = block_size(kind, dim, outputs)
    width = count * dim * dim if kind == QUERIES else count * dim
    return SystemRoom(np.empty(heads * width), np.empty(width), np.empty(count * dim * outputs))


@inner
def add_sequence_system(
    own: Client, kernels: Array, room: SystemRoom, hessian: Array, linear: Array
) -> None:
    """Add (Σ ΦᵀMΦ, Σ ΦᵀK) over the sequences of a client; blocks h > k are left out."""
    dim, outputs = kernels.shape[1], linear.shape[1]
    block = block_size(own.kind, dim, outputs)
    for start in range(0, own.size, block):
        stop = min(start + block, own.size)
        if own.kind == QUERIES:
            _queries_system(own, start, stop, kernels, room, hessian, linear)
        else:
            _one_query_system(own, start, stop, kernels, room, hessian, linear)


@inner
def _queries_system(
    own: Client,
    start: int,
    stop: int,
    kernels: Array,
    room: SystemRoom,
    hessian: Array,
    linear: Array,
) -> None:
    """Add one block, several queries: with B_h G and M B_k G as rows (a, s), plain products."""
    (heads, dim, _), outputs, count = kernels.shape, linear.shape[1], stop - start
    gram, moment, cross = queries_block(own, start, stop)
    rows, wide = dim * count, count * dim
    each, targets = room.mapped.size // heads, matrix(room.targets, 0, rows, outputs)
    for s in range(count):
        for c in range(outputs):
            for a in range(dim):
                targets[a * count + s, c] = cross[s, c, a]
    image = matrix(room.image, 0, rows, dim)
    for k in range(heads):
        here, columns = matrix(room.mapped, k * each, dim, wide), slice(k * dim, (k + 1) * dim)
        multiply(kernels[k], gram, here)
        _apply_moments(moment, here, matrix(image, 0, dim, wide))
        for h in range(k + 1):
            features = matrix(room.mapped, h * each, rows, dim)
            add_product(features.T, image, hessian[h * dim : (h + 1) * dim, columns])
        add_product(matrix(here, 0, rows, dim).T, targets, linear[columns])


@inner
def _apply_moments(moment: Array, mapped: Array, image: Array) -> None:
    """image = M_s X_s for the X_s side by side in `mapped`, side by side."""
    dim = moment.shape[0]
    for s in range(moment.shape[1] // dim):
        own = slice(s * dim, (s + 1) * dim)
        if dim >= PRODUCT_CHANNELS:
            multiply(moment[:, own], mapped[:, own], image[:, own])
            continue
        for a in range(dim):
            for i in range(own.start, own.stop):
                image[a, i] = 0.0
            for b in range(dim):
                x = moment[a, own.start + b]
                for i in range(own.start, own.stop):
                    image[a, i] += x * mapped[b, i]


@inner
def _one_query_system(
    own: Client,
    start: int,
    stop: int,
    kernels: Array,
    room: SystemRoom,
    hessian: Array,
    linear: Array,
) -> None:
    """Add one block, one query per sequence: the features are G B_hᵀ u."""
    (heads, dim, _), outputs, count = kernels.shape, linear.shape[1], stop - start
    gram = block_of(own.gram, start, stop, dim * (dim + 1) // 2, 1)
    query = block_of(own.query, start, stop, dim, 1)
    pulled = matrix(room.image, 0, dim, count)
    features = matrix(room.mapped, 0, heads * dim, count)
    for h in range(heads):
        multiply(kernels[h].T, query, pulled)
        multiply_grams(gram, pulled, matrix(features, h * dim * count, dim, count))
    add_product(features, features.T, hessian)
    add_product(features, block_of(own.target, start, stop, outputs, 1).T, linear)
