"""The compiled objective of a client with its gradient, at flat parameters."""

from typing import NamedTuple

import numpy as np

from linattn._kernels.jit import inner
from linattn._kernels.layout import PAIRS, Client, Data, Ridges, Shape
from linattn._kernels.moments import Places, moment_gradient, pair_gradient, pair_room, places_of
from linattn._kernels.products import multiply
from linattn._kernels.sequences import BlockRoom, Wanted, block_room, sequence_gradient
from linattn._kernels.views import cube, matrix, vector
from linattn._typing import Array


class Room(NamedTuple):
    """Everything that a gradient writes besides its result; made once per call."""

    kernels: Array  # (H·d·d,), B_h
    kernel_gradient: Array  # (H·d·d,)
    blocks: BlockRoom
    pairs: Array  # one head on moments
    at: Places
    tensor: Array  # (f', m), w of several heads on moments
    slope: Array  # (f', m)


@inner
def make_room(data: Data, shape: Shape) -> Room:
    """Room for gradients of any client of `data`."""
    heads, dim, outputs = shape.heads, shape.dim, shape.outputs
    folded = data.width if data.kind > PAIRS else 0
    at = places_of(dim, outputs, data.width if data.kind == PAIRS else 0)
    return Room(
        np.empty(heads * dim * dim),
        np.empty(heads * dim * dim),
        block_room(data.kind, heads, dim, outputs),
        pair_room(at),
        at,
        np.empty((folded, outputs)),
        np.empty((folded, outputs)),
    )


@inner
def kernel_size(shape: Shape) -> int:
    """Number of kernel parameters, which come first in flat parameters."""
    return shape.heads * shape.dim * (2 * shape.rank if shape.rank > 0 else shape.dim)


@inner
def kernels_of(flat: Array, shape: Shape, kernels: Array) -> None:
    """Write all B_h from flat parameters."""
    heads, dim, rank = shape.heads, shape.dim, shape.rank
    if rank == 0:
        for j in range(kernels.size):
            kernels[j] = flat[j]
        return
    half = heads * dim * rank
    query, key = cube(flat, 0, heads, dim, rank), cube(flat, half, heads, dim, rank)
    for h in range(heads):
        multiply(query[h], key[h].T, matrix(kernels, h * dim * dim, dim, dim))


@inner
def chain(flat: Array, shape: Shape, kernel_gradient: Array, out: Array) -> None:
    """Write the gradient in the kernel parameters from that in B: ∂Q = ∂B K and ∂K = ∂Bᵀ Q."""
    heads, dim, rank = shape.heads, shape.dim, shape.rank
    if rank == 0:
        for j in range(kernel_gradient.size):
            out[j] = kernel_gradient[j]
        return
    slope = cube(kernel_gradient, 0, heads, dim, dim)
    half = heads * dim * rank
    query, key = cube(flat, 0, heads, dim, rank), cube(flat, half, heads, dim, rank)
    query_out, key_out = cube(out, 0, heads, dim, rank), cube(out, half, heads, dim, rank)
    for h in range(heads):
        multiply(slope[h], key[h], query_out[h])
        multiply(slope[h].T, query[h], key_out[h])


@inner
def client_gradient(
    flat: Array,
    own: Client,
    shape: Shape,
    ridges: Ridges,
    wanted: Wanted,
    room: Room,
    out: Array,
) -> float:
    """F_i at flat parameters, if wanted, with its gradient, ridges included; else zeros."""
    split = kernel_size(shape)
    kernels_of(flat, shape, room.kernels)
    if own.kind == PAIRS:
        for j in range(room.kernels.size):
            room.pairs[room.at.kernel + j] = room.kernels[j]
        for j in range(flat.size - split):
            room.pairs[room.at.value + j] = flat[split + j]
        loss = 0.5 * own.energy + pair_gradient(
            own.moments,
            own.linear,
            shape,
            room.at,
            room.pairs,
            room.kernel_gradient,
            vector(out, split, out.size - split),
        )
    else:
        heads, dim = shape.heads, shape.dim
        kernels = cube(room.kernels, 0, heads, dim, dim)
        kernel_gradient = cube(room.kernel_gradient, 0, heads, dim, dim)
        value = cube(flat, split, heads, dim, shape.outputs)
        value_gradient = cube(out, split, heads, dim, shape.outputs)
        if own.kind < PAIRS:
            loss = sequence_gradient(
                own, kernels, value, wanted, room.blocks, kernel_gradient, value_gradient
            )
        else:
            loss = moment_gradient(
                own, kernels, value, room.tensor, room.slope, kernel_gradient, value_gradient
            )
    if wanted.kernel:
        chain(flat, shape, room.kernel_gradient, out)
    kernel_sq, value_sq = 0.0, 0.0
    for j in range(split):
        kernel_sq += flat[j] * flat[j]
        out[j] = out[j] + ridges.kernel * flat[j] if wanted.kernel else 0.0
    for j in range(split, flat.size):
        value_sq += flat[j] * flat[j]
        out[j] = out[j] + ridges.value * flat[j] if wanted.value else 0.0
    return loss + 0.5 * (ridges.kernel * kernel_sq + ridges.value * value_sq)
