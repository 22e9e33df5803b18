"""Compiled local training: all local steps of all participants of a round in one call."""

import numpy as np
from numba import njit

from linattn._kernels.gradients import data_gradient
from linattn._kernels.layout import (
    BLOCK_SEQUENCES,
    LocalData,
    LocalRule,
    LocalShape,
    gather,
    token_block_size,
)
from linattn._kernels.moments import moment_gradient, pair_gradient
from linattn._typing import Array, IntArray


@njit(cache=True)
def _kernels_of(flat: Array, shape: LocalShape, kernels: Array) -> None:
    """Write B_h, (H, d, d), from flat parameters."""
    heads, dim, rank = shape.heads, shape.dim, shape.rank
    size = heads * dim * dim
    if rank == 0:
        target = kernels.reshape(-1)
        for j in range(size):
            target[j] = flat[j]
        return
    half = heads * dim * rank
    query = flat[:half].reshape(heads, dim, rank)
    key = flat[half : 2 * half].reshape(heads, dim, rank)
    for h in range(heads):
        np.dot(query[h], key[h].T, kernels[h])


@njit(cache=True)
def _flat_gradient(
    flat: Array,
    shape: LocalShape,
    rule: LocalRule,
    kernel_gradient: Array,
    value_gradient_t: Array,
    need_kernel: bool,
    out: Array,
) -> None:
    """Write the full gradient, ridges included, in the order of the flat parameters."""
    heads, dim, outputs, rank = shape.heads, shape.dim, shape.outputs, shape.rank
    kernel_size = heads * dim * dim if rank == 0 else 2 * heads * dim * rank
    if not need_kernel:
        for j in range(kernel_size):
            out[j] = 0.0
    elif rank == 0:
        source = kernel_gradient.reshape(-1)
        for j in range(kernel_size):
            out[j] = source[j] + rule.kernel_ridge * flat[j]
    else:
        half = heads * dim * rank
        query = flat[:half].reshape(heads, dim, rank)
        key = flat[half:kernel_size].reshape(heads, dim, rank)
        query_out = out[:half].reshape(heads, dim, rank)
        key_out = out[half:kernel_size].reshape(heads, dim, rank)
        for h in range(heads):
            np.dot(kernel_gradient[h], key[h], query_out[h])
            np.dot(kernel_gradient[h].T, query[h], key_out[h])
        for j in range(kernel_size):
            out[j] += rule.kernel_ridge * flat[j]
    value = flat[kernel_size:].reshape(heads, dim, outputs)
    value_out = out[kernel_size:].reshape(heads, dim, outputs)
    for h in range(heads):
        for a in range(dim):
            for c in range(outputs):
                value_out[h, a, c] = value_gradient_t[h, c, a] + rule.value_ridge * value[h, a, c]


@njit(cache=True)
def _gradient(
    flat: Array,
    data: LocalData,
    client: int,
    first: int,
    last: int,
    shape: LocalShape,
    rule: LocalRule,
    kernels: Array,
    kernels_t: Array,
    value_t: Array,
    kernel_gradient: Array,
    value_gradient_t: Array,
    scratch: Array,
    tensor: Array,
    slope: Array,
    room: Array,
    block: int,
    need_kernel: bool,
    out: Array,
) -> None:
    """Gradient of the mean loss over first:last plus ridges, at flat parameters.

    With moments, of the whole client instead.
    """
    heads, dim, outputs = shape.heads, shape.dim, shape.outputs
    _kernels_of(flat, shape, kernels)
    value = flat[flat.size - heads * dim * outputs :].reshape(heads, dim, outputs)
    for h in range(heads):
        for a in range(dim):
            for c in range(outputs):
                value_t[h, c, a] = value[h, a, c]
    if client >= 0 and data.pair_moments.shape[0] > 0:
        pair_gradient(
            data.pair_moments[client],
            data.pair_linear[client],
            kernels[0],
            value_t[0],
            kernel_gradient[0],
            value_gradient_t[0],
            room,
        )
    elif client >= 0:
        moment_gradient(
            data.moments[client],
            data.moment_linear[client],
            data.pair,
            kernels,
            value_t,
            kernel_gradient,
            value_gradient_t,
            tensor,
            slope,
            need_kernel,
        )
    else:
        for h in range(heads):
            for a in range(dim):
                for b in range(dim):
                    kernels_t[h, b, a] = kernels[h, a, b]
        data_gradient(
            data,
            first,
            last,
            kernels,
            kernels_t,
            value_t,
            kernel_gradient,
            value_gradient_t,
            scratch,
            block,
            need_kernel,
        )
    _flat_gradient(flat, shape, rule, kernel_gradient, value_gradient_t, need_kernel, out)


@njit(cache=True, nogil=True)
def local_round(
    data: LocalData,
    shape: LocalShape,
    rule: LocalRule,
    participants: IntArray,
    starts: Array,
    anchor: Array,
    local_steps: int,
    need_kernel: bool,
    batches: IntArray,
    batch_offsets: IntArray,
    buffer: LocalData,
    iterates: Array,
    gradients: Array,
    full_gradients: Array,
) -> Array:
    """Return the parameters of every participant after its local steps, (P, D).

    Parameters
    ----------
    starts : array, shape (P, D)
        Where each participant starts.
    anchor : array, shape (D,)
        The server parameters of the proximal term.
    batches, batch_offsets : array of int
        Participant k uses the sequences batches[batch_offsets[k]:batch_offsets[k + 1]], split into
        `local_steps` equal parts; size zero for full batches.
    buffer : LocalData
        Room for one minibatch.
    iterates, gradients, full_gradients : array, shape (E, P, D) or (0, P, D)
        If not empty, filled with w_{i,e}, the gradient that was applied there (without prox and
        shift), and the full-batch gradient there.
    """
    heads, dim, outputs = shape.heads, shape.dim, shape.outputs
    block = BLOCK_SEQUENCES if data.rank_one else token_block_size(dim, outputs)
    entries = max(dim, outputs) if data.rank_one else dim * outputs
    width = max(block * entries, dim * dim, dim * outputs) + 8
    scratch = np.empty((heads + 4, width))
    tensor = np.empty((data.moments.shape[1], outputs))
    slope = np.empty((data.moments.shape[1], outputs))
    room = np.empty((4, data.pair_moments.shape[2]))
    kernels, kernels_t = np.empty((heads, dim, dim)), np.empty((heads, dim, dim))
    value_t = np.empty((heads, outputs, dim))
    kernel_gradient = np.empty((heads, dim, dim))
    value_gradient_t = np.empty((heads, outputs, dim))
    step, full_step = np.empty(starts.shape[1]), np.empty(starts.shape[1])
    ends = starts.copy()
    recorded, minibatch = iterates.shape[0] > 0, batches.size > 0
    passes = 2 if full_gradients.shape[0] > 0 else 1
    on_moments = data.moments.shape[0] + data.pair_moments.shape[0] > 0
    for k in range(participants.size):
        flat = ends[k]
        first = data.offsets[participants[k]]
        last = data.offsets[participants[k] + 1]
        batch_size = (batch_offsets[k + 1] - batch_offsets[k]) // local_steps if minibatch else 0
        for e in range(local_steps):
            if minibatch:
                at = batch_offsets[k] + e * batch_size
                gather(data, first, last, batches[at : at + batch_size], buffer)
            # One call site: a second pass over the full data only where it is recorded.
            for full in range(passes):
                on_batch = minibatch and full == 0
                _gradient(
                    flat,
                    buffer if on_batch else data,
                    participants[k] if on_moments and not on_batch else -1,
                    0 if on_batch else first,
                    batch_size if on_batch else last,
                    shape,
                    rule,
                    kernels,
                    kernels_t,
                    value_t,
                    kernel_gradient,
                    value_gradient_t,
                    scratch,
                    tensor,
                    slope,
                    room,
                    block,
                    need_kernel,
                    full_step if full == 1 else step,
                )
            if recorded:
                for j in range(flat.size):
                    iterates[e, k, j] = flat[j]
                    gradients[e, k, j] = step[j]
                    if passes == 2:
                        full_gradients[e, k, j] = full_step[j]
            if rule.prox != 0.0:
                for j in range(flat.size):
                    step[j] += rule.prox * (flat[j] - anchor[j])
            if rule.shift.shape[0] > 0:
                for j in range(flat.size):
                    step[j] += rule.shift[k, j]
            for j in range(flat.size):
                flat[j] -= rule.local_lr * (rule.mask[k, j] * step[j])
    return ends


@njit(cache=True)
def value_round(
    hessians: Array,
    linears: Array,
    starts: Array,
    anchor: Array,
    local_lr: float,
    prox: float,
    shift: Array,
    local_steps: int,
    iterates: Array,
    gradients: Array,
) -> Array:
    """Local steps on the value block alone: F_i is ½⟨V, A_iV⟩ − ⟨C_i, V⟩ + const at a fixed kernel.

    Parameters
    ----------
    hessians : array, shape (P, Hd, Hd)
        A_i of the participants.
    linears : array, shape (P, Hd, m)
        C_i of the participants.
    starts, anchor, shift : array
        As in `local_round`, for the value entries only, (P, Hd·m) or (Hd·m,).
    """
    participants, size, outputs = linears.shape
    ends = starts.copy()
    step = np.empty((size, outputs))
    recorded = iterates.shape[0] > 0
    for k in range(participants):
        value = ends[k].reshape(size, outputs)
        flat, flat_step = ends[k], step.reshape(-1)
        for e in range(local_steps):
            np.dot(hessians[k], value, step)
            linear = linears[k].reshape(-1)
            for j in range(flat.size):
                flat_step[j] -= linear[j]
            if recorded:
                for j in range(flat.size):
                    iterates[e, k, j] = flat[j]
                    gradients[e, k, j] = flat_step[j]
            if prox != 0.0:
                for j in range(flat.size):
                    flat_step[j] += prox * (flat[j] - anchor[j])
            if shift.shape[0] > 0:
                for j in range(flat.size):
                    flat_step[j] += shift[k, j]
            for j in range(flat.size):
                flat[j] -= local_lr * flat_step[j]
    return ends
