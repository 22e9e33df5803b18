"""Compiled local training: all local steps of all participants of a round in one call.

Every per-sequence (d, m) quantity is kept as (output c, sequence s, channel a) over a block of
sequences that fits the caches. Then, with stacked Gram matrices,

    U_h = V_hᵀ [G_1 … G_S],   Zᵀ = Σ_h U_h B_hᵀ,   ∂B_h = Rᵀ U_h,   ∂V_hᵀ = (R B_h) [G_1; …; G_S]

are plain matrix products on contiguous memory, and only R = M Z − K is a loop over sequences.

With one query per sequence (mean and last) everything is kept as (channel a, sequence s) instead,
and of every Gram matrix the lower half: g_ab holds the entry (a, b) of all sequences of a block,
and G_s x_s for all of them is a sum over a ≥ b of long products of rows.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from linattn._typing import Array, IntArray

# Doubles per block of one per-sequence quantity: a few such arrays stay in a level-2 cache.
BLOCK_ENTRIES = 4096
# Sequences per block of the one-query layout: rows long enough to vectorize, few enough to cache.
BLOCK_SEQUENCES = 128


class LocalData(NamedTuple):
    """Statistics in the order the compiled solver reads them; unused arrays have size zero.

    With one query per sequence, every block of `BLOCK_SEQUENCES` sequences of a client is stored
    transposed in its place: its n rows of `gram`, `query` and `target` hold arrays (f, n), (d, n)
    and (m, n), f = d(d + 1)/2.
    """

    gram: Array  # (S·d, d), token readout; (S, f), mean and last
    cross: Array  # (S, m, d), token readout
    query: Array  # (S, d), mean and last
    target: Array  # (S, m), mean and last
    offsets: IntArray  # (C + 1,)
    rank_one: bool


class LocalShape(NamedTuple):
    """Sizes of the parameter blocks; rank 0 means a merged kernel."""

    heads: int
    dim: int
    outputs: int
    rank: int


class LocalRule(NamedTuple):
    """What a local step does: w -= lr · mask · (g + prox (w − anchor) + shift)."""

    value_ridge: float
    kernel_ridge: float
    local_lr: float
    prox: float
    mask: Array  # (P, D), 0 or 1
    shift: Array  # (P, D), or (0, D) for none


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
def _token_block(
    gram: Array,
    cross: Array,
    kernels: Array,
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
        mapped = scratch[h, :size].reshape(outputs, count * dim)
        np.dot(value_t[h], gram.T, mapped)
        rows = scratch[h, :size].reshape(outputs * count, dim)
        if h == 0:
            np.dot(rows, kernels[h].T, product)
        else:
            np.dot(rows, kernels[h].T, pulled)
            _add(pulled, product)
    for c in range(outputs):
        for s in range(count):
            row = c * count + s
            for a in range(dim):
                residual[row, a] = -cross[s, c, a]
            for b in range(dim):
                z = product[row, b]
                for a in range(dim):
                    residual[row, a] += z * gram[s * dim + b, a]
    wide = scratch[heads + 2, :size].reshape(outputs, count * dim)
    small = scratch[heads + 3, : dim * dim].reshape(dim, dim)
    small_value = scratch[heads + 3, : outputs * dim].reshape(outputs, dim)
    for h in range(heads):
        if need_kernel:
            rows = scratch[h, :size].reshape(outputs * count, dim)
            np.dot(residual.T, rows, small)
            _add(small, kernel_gradient[h])
        np.dot(residual, kernels[h], pulled)
        np.dot(wide, gram, small_value)
        _add(small_value, value_gradient_t[h])


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
def _data_gradient(
    data: LocalData,
    first: int,
    last: int,
    kernels: Array,
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
                data.cross[start:stop],
                kernels,
                value_t,
                kernel_gradient,
                value_gradient_t,
                scratch,
                need_kernel,
            )
    mean = 1.0 / (last - first)
    _scale(kernel_gradient.reshape(-1), mean)
    _scale(value_gradient_t.reshape(-1), mean)


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
    first: int,
    last: int,
    shape: LocalShape,
    rule: LocalRule,
    kernels: Array,
    value_t: Array,
    kernel_gradient: Array,
    value_gradient_t: Array,
    scratch: Array,
    block: int,
    need_kernel: bool,
    out: Array,
) -> None:
    """Gradient of the mean loss over first:last plus ridges, at flat parameters."""
    heads, dim, outputs = shape.heads, shape.dim, shape.outputs
    _kernels_of(flat, shape, kernels)
    value = flat[flat.size - heads * dim * outputs :].reshape(heads, dim, outputs)
    for h in range(heads):
        for a in range(dim):
            for c in range(outputs):
                value_t[h, c, a] = value[h, a, c]
    _data_gradient(
        data,
        first,
        last,
        kernels,
        value_t,
        kernel_gradient,
        value_gradient_t,
        scratch,
        block,
        need_kernel,
    )
    _flat_gradient(flat, shape, rule, kernel_gradient, value_gradient_t, need_kernel, out)


@njit(cache=True)
def _gather(data: LocalData, first: int, last: int, index: IntArray, out: LocalData) -> None:
    """Copy the sequences of a minibatch of the client that owns first:last into a buffer."""
    if data.rank_one:
        for k in range(index.size):
            s = index[k] - first
            _copy_column(data.gram, first, last, s, out.gram, index.size, k)
            _copy_column(data.query, first, last, s, out.query, index.size, k)
            _copy_column(data.target, first, last, s, out.target, index.size, k)
        return
    dim = data.gram.shape[1]
    for k in range(index.size):
        s = index[k]
        for a in range(dim):
            for b in range(dim):
                out.gram[k * dim + a, b] = data.gram[s * dim + a, b]
        for c in range(data.cross.shape[1]):
            for a in range(dim):
                out.cross[k, c, a] = data.cross[s, c, a]


@njit(cache=True)
def _copy_column(held: Array, first: int, last: int, s: int, out: Array, size: int, k: int) -> None:
    """Copy sequence s of a client's transposed blocks to place k of `size` in a buffer's blocks."""
    width = held.shape[1]
    start, place = s - s % BLOCK_SEQUENCES, k - k % BLOCK_SEQUENCES
    count = min(BLOCK_SEQUENCES, last - first - start)
    room = min(BLOCK_SEQUENCES, size - place)
    source = held[first + start : first + start + count].reshape(width, count)
    target = out[place : place + room].reshape(width, room)
    for a in range(width):
        target[a, k - place] = source[a, s - start]


@njit(cache=True)
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
    block = BLOCK_SEQUENCES if data.rank_one else max(1, BLOCK_ENTRIES // (dim * outputs))
    entries = max(dim, outputs) if data.rank_one else dim * outputs
    width = max(block * entries, dim * dim, dim * outputs) + 8
    scratch = np.empty((heads + 4, width))
    kernels = np.empty((heads, dim, dim))
    value_t = np.empty((heads, outputs, dim))
    kernel_gradient = np.empty((heads, dim, dim))
    value_gradient_t = np.empty((heads, outputs, dim))
    step, full_step = np.empty(starts.shape[1]), np.empty(starts.shape[1])
    ends = starts.copy()
    recorded, minibatch = iterates.shape[0] > 0, batches.size > 0
    passes = 2 if full_gradients.shape[0] > 0 else 1
    for k in range(participants.size):
        flat = ends[k]
        first = data.offsets[participants[k]]
        last = data.offsets[participants[k] + 1]
        batch_size = (batch_offsets[k + 1] - batch_offsets[k]) // local_steps if minibatch else 0
        for e in range(local_steps):
            if minibatch:
                at = batch_offsets[k] + e * batch_size
                _gather(data, first, last, batches[at : at + batch_size], buffer)
            # One call site: a second pass over the full data only where it is recorded.
            for full in range(passes):
                on_batch = minibatch and full == 0
                _gradient(
                    flat,
                    buffer if on_batch else data,
                    0 if on_batch else first,
                    batch_size if on_batch else last,
                    shape,
                    rule,
                    kernels,
                    value_t,
                    kernel_gradient,
                    value_gradient_t,
                    scratch,
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
