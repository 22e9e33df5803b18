"""Compiled Hessian-vector products and normal equations of clients, at merged kernels."""

import numpy as np

from linattn._kernels.curvature import (
    add_sequence_system,
    direction_room,
    sequence_product,
    system_room,
)
from linattn._kernels.gradients import make_room
from linattn._kernels.jit import inner, outer
from linattn._kernels.layout import PAIRS, Data, Shape, client_of, scale
from linattn._kernels.moment_curvature import (
    add_moment_system,
    add_pair_system,
    moment_product,
    pair_product,
)
from linattn._kernels.views import cube, vector
from linattn._typing import Array, IntArray


@outer
def products(
    data: Data, shape: Shape, clients: IntArray, points: Array, directions: Array, out: Array
) -> None:
    """out[k] = ∇²(data loss of clients[k]) at points[k], applied to directions[k]; all (P, D).

    One point, and one direction, may stand for all.
    """
    heads, dim, outputs = shape.heads, shape.dim, shape.outputs
    room, split, rest = make_room(data, shape), heads * dim * dim, heads * dim * outputs
    for k in range(clients.size):
        own, result = client_of(data, clients[k]), out[k]
        flat = points[min(k, points.shape[0] - 1)]
        along = directions[min(k, directions.shape[0] - 1)]
        kernels, kernel_direction = cube(flat, 0, heads, dim, dim), cube(along, 0, heads, dim, dim)
        if own.kind == PAIRS:
            for j in range(split):
                room.pairs[room.at.kernel + j] = flat[j]
                room.pairs[room.at.direction + j] = along[j]
            for j in range(rest):
                room.pairs[room.at.value + j] = flat[split + j]
                room.pairs[room.at.value_direction + j] = along[split + j]
            kernel_part, value_part = vector(result, 0, split), vector(result, split, rest)
            pair_product(
                own.moments, own.linear, shape, room.at, room.pairs, kernel_part, value_part
            )
            continue
        value = cube(flat, split, heads, dim, outputs)
        value_direction = cube(along, split, heads, dim, outputs)
        kernel_out = cube(result, 0, heads, dim, dim)
        value_out = cube(result, split, heads, dim, outputs)
        if own.kind < PAIRS:
            direction = direction_room(kernel_direction, value_direction, room.blocks)
            sequence_product(own, kernels, value, direction, room.blocks, kernel_out, value_out)
        else:
            moment_product(
                own,
                kernels,
                value,
                kernel_direction,
                value_direction,
                room.tensor,
                room.slope,
                kernel_out,
                value_out,
            )


@inner
def _add_scaled(part: Array, weight: float, total: Array) -> None:
    """total += weight · part."""
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            total[i, j] += weight * part[i, j]


@outer
def systems(
    data: Data,
    shape: Shape,
    clients: IntArray,
    weights: Array,
    slots: IntArray,
    kernels: Array,
    groups: int,
    first: int,
    hessians: Array,
    linears: Array,
) -> None:
    """Add weights[k] · (H_i(B), C_i(B)) of i = clients[k] to the systems number slots[k].

    Parameters
    ----------
    kernels : array, shape (N, H·d·d)
        There are `groups` systems per kernel; the first system is number `first` of its kernel.
    hessians : array, shape (slots, Hd, Hd)
    linears : array, shape (slots, Hd, m)
    """
    room, dim, size = make_room(data, shape), shape.dim, shape.heads * shape.dim
    heads = shape.heads
    held = system_room(data.kind, heads, dim, shape.outputs)
    hessian, linear = np.empty((size, size)), np.empty((size, shape.outputs))
    for k in range(clients.size):
        own, mean, flat = client_of(data, clients[k]), weights[k], kernels[slots[k] // groups]
        blocks = cube(flat, 0, heads, dim, dim)
        scale(hessian, 0.0)
        scale(linear, 0.0)
        if own.kind < PAIRS:
            mean /= own.size
            add_sequence_system(own, blocks, held, hessian, linear)
        elif own.kind == PAIRS:
            add_pair_system(own, flat, shape, room.at, room.pairs, hessian, linear)
        else:
            add_moment_system(own, blocks, hessian, linear)
        _add_scaled(hessian, mean, hessians[slots[k] - first])
        _add_scaled(linear, mean, linears[slots[k] - first])
    for slot in range(hessians.shape[0]):
        hessian = hessians[slot]
        for i in range(hessian.shape[0]):
            for j in range(i):
                # Of sequences, blocks below the diagonal are missing, and rounding shows in it.
                same = i // dim == j // dim
                x = 0.5 * (hessian[i, j] + hessian[j, i]) if same else hessian[j, i]
                hessian[i, j], hessian[j, i] = x, x
