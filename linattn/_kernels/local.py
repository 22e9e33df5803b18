"""Compiled local training: all local steps of all participants of a round in one call.

Every per-sequence (d, m) quantity is kept as (output c, sequence s, channel a) over a block of
sequences that fits the caches. Then, with stacked Gram matrices,

    U_h = V_hᵀ [G_1 … G_S],   Zᵀ = Σ_h U_h B_hᵀ,   ∂B_h = Rᵀ U_h,   ∂V_hᵀ = (R B_h) [G_1; …; G_S]

are plain matrix products on contiguous memory, and only R = M Z − K is a loop over sequences (with
one product per sequence where it is large enough). The Gram matrices are kept twice, side by side
and stacked, because the library that multiplies is twice as fast on untransposed operands.

With one query per sequence (mean and last) everything is kept as (channel a, sequence s) instead,
and of every Gram matrix the lower half: g_ab holds the entry (a, b) of all sequences of a block,
and G_s x_s for all of them is a sum over a ≥ b of long products of rows.

Where clients have many sequences of few channels, full batches run on the client's moments: the
loss is a quadratic in W = Σ_h B_h ⊗ V_h (theory section 8). With several heads W is formed, folded
because G is symmetric; with one head the moments are contracted with V Vᵀ and with B ⊗ B instead.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from linattn._typing import Array, IntArray

# Doubles per block of one per-sequence quantity: a few such arrays stay in a level-2 cache.
BLOCK_ENTRIES = 4096
# Sequences per block of the one-query layout: rows long enough to vectorize, few enough to cache.
BLOCK_SEQUENCES = 128
# From this many channels on a matrix product per sequence beats a loop.
PRODUCT_CHANNELS = 12


class LocalData(NamedTuple):
    """Statistics in the order the compiled solver reads them; unused arrays have size zero.

    With one query per sequence, every block of `BLOCK_SEQUENCES` sequences of a client is stored
    transposed in its place: its n rows of `gram`, `query` and `target` hold arrays (f, n), (d, n)
    and (m, n), f = d(d + 1)/2.
    """

    gram: Array  # (S·d, d), token readout; (S, f), mean and last
    columns: Array  # (S·d, d), token readout: every block of n sequences as (d, n·d) in its place
    cross: Array  # (S, m, d), token readout
    query: Array  # (S, d), mean and last
    target: Array  # (S, m), mean and last
    pair_moments: Array  # (C, v, w), v = d(d + 1)/2, w = d²(d² + 1)/2, one head; see `pack_pairs`
    pair_linear: Array  # (C, d·m, d²)
    moments: Array  # (C, f', f'), f' = d·v, several heads
    moment_linear: Array  # (C, f', m)
    pair: IntArray  # (d, d): index of the unordered pair (b, k) in the upper half of G
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


# Sums may be reordered here, which lets them vectorize; NaN and infinity still behave.
@njit(cache=True, fastmath={"reassoc", "contract"})
def _contract_pairs(
    moments: Array, left: Array, right: Array, by_row: Array, by_column: Array
) -> None:
    """by_row = moments @ right and by_column = left @ moments, in one pass over the moments."""
    rows, width = moments.shape
    for j in range(width):
        by_column[j] = 0.0
    fours = rows - rows % 4
    for r in range(0, fours, 4):
        a, b, c, d = moments[r], moments[r + 1], moments[r + 2], moments[r + 3]
        y0, y1, y2, y3 = left[r], left[r + 1], left[r + 2], left[r + 3]
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for j in range(width):
            x = right[j]
            s0 += a[j] * x
            s1 += b[j] * x
            s2 += c[j] * x
            s3 += d[j] * x
            by_column[j] += (y0 * a[j] + y1 * b[j]) + (y2 * c[j] + y3 * d[j])
        by_row[r], by_row[r + 1], by_row[r + 2], by_row[r + 3] = s0, s1, s2, s3
    for r in range(fours, rows):
        a, y0, s0 = moments[r], left[r], 0.0
        for j in range(width):
            s0 += a[j] * right[j]
            by_column[j] += y0 * a[j]
        by_row[r] = s0


@njit(cache=True, fastmath={"reassoc", "contract"})
def _pair_gradient(
    moments: Array,
    linear: Array,
    kernel: Array,
    value_t: Array,
    kernel_gradient: Array,
    value_gradient_t: Array,
    room: Array,
) -> None:
    """Mean data gradient of one head: ∂B = 𝓚(V)B − κV and ∂V = H(B)V − κB from pair moments.

    A row of `moments` belongs to k ≤ k' and holds Φ_kk' + Φ_k'k (Φ_kk on the diagonal), a column
    to i ≥ j among the pairs i = (a, b), of which the matrix is symmetric.
    """
    outputs, dim = value_t.shape
    rows, width = moments.shape
    flat, slope = kernel.reshape(-1), kernel_gradient.reshape(-1)
    left, by_row = room[0, :rows], room[1, :rows]
    right, by_column = room[2, :width], room[3, :width]
    r = 0
    for k in range(dim):
        for other in range(k, dim):
            total = 0.0
            for c in range(outputs):
                total += value_t[c, k] * value_t[c, other]
            left[r] = total
            r += 1
    for i in range(dim * dim):
        part, x = right[i * (i + 1) // 2 :], 2.0 * flat[i]
        for other in range(i):
            part[other] = x * flat[other]
        part[i] = flat[i] * flat[i]
    _contract_pairs(moments, left, right, by_row, by_column)
    for i in range(dim * dim):
        part, x, total = by_column[i * (i + 1) // 2 :], flat[i], 0.0
        for other in range(i):
            total += part[other] * flat[other]
            slope[other] += part[other] * x
        slope[i] = total + part[i] * x
    for k in range(dim):
        for c in range(outputs):
            row, v, total = linear[k * outputs + c], value_t[c, k], 0.0
            for i in range(dim * dim):
                slope[i] -= v * row[i]
                total += row[i] * flat[i]
            value_gradient_t[c, k] = -total
    r = 0
    for k in range(dim):
        for other in range(k, dim):
            x = by_row[r] if other == k else 0.5 * by_row[r]
            r += 1
            for c in range(outputs):
                value_gradient_t[c, k] += x * value_t[c, other]
                if other != k:
                    value_gradient_t[c, other] += x * value_t[c, k]


@njit(cache=True)
def _moment_gradient(
    moments: Array,
    linear: Array,
    pair: IntArray,
    kernels: Array,
    value_t: Array,
    kernel_gradient: Array,
    value_gradient_t: Array,
    tensor: Array,
    slope: Array,
    need_kernel: bool,
) -> None:
    """Mean data gradient from folded moments: slope = Φ w − κ, contracted with V and B."""
    heads, outputs, dim = value_t.shape
    half = moments.shape[0] // dim
    for j in range(tensor.shape[0]):
        for c in range(outputs):
            tensor[j, c] = 0.0
    for h in range(heads):
        for a in range(dim):
            for b in range(dim):
                x = kernels[h, a, b]
                for k in range(dim):
                    row = a * half + pair[b, k]
                    for c in range(outputs):
                        tensor[row, c] += x * value_t[h, c, k]
    np.dot(moments, tensor, slope)
    for j in range(tensor.shape[0]):
        for c in range(outputs):
            slope[j, c] -= linear[j, c]
    _scale(value_gradient_t.reshape(-1), 0.0)
    for h in range(heads):
        for a in range(dim):
            for b in range(dim):
                x, total = kernels[h, a, b], 0.0
                for k in range(dim):
                    row = a * half + pair[b, k]
                    for c in range(outputs):
                        total += slope[row, c] * value_t[h, c, k]
                        value_gradient_t[h, c, k] += slope[row, c] * x
                if need_kernel:
                    kernel_gradient[h, a, b] = total


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
        _pair_gradient(
            data.pair_moments[client],
            data.pair_linear[client],
            kernels[0],
            value_t[0],
            kernel_gradient[0],
            value_gradient_t[0],
            room,
        )
    elif client >= 0:
        _moment_gradient(
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
        _data_gradient(
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
    block = token_block_size(dim, data.cross.shape[1])
    for start in range(0, index.size, block):
        _side_by_side(out.gram, out.columns, start, min(start + block, index.size))


@njit(cache=True)
def token_block_size(dim: int, outputs: int) -> int:
    """Sequences per block of the token readout."""
    return max(1, BLOCK_ENTRIES // (dim * outputs))


@njit(cache=True)
def _side_by_side(gram: Array, columns: Array, start: int, stop: int) -> None:
    """Write [G_start … G_stop] as (d, n·d) into the place of these sequences."""
    dim, count = gram.shape[1], stop - start
    block = columns[start * dim : stop * dim].reshape(dim, count * dim)
    for s in range(count):
        for a in range(dim):
            for b in range(dim):
                block[a, s * dim + b] = gram[(start + s) * dim + a, b]


@njit(cache=True)
def side_by_side(gram: Array, offsets: IntArray, outputs: int) -> Array:
    """All Gram matrices (S·d, d), every block of a client side by side in its place."""
    columns = np.empty(gram.shape)
    block = token_block_size(gram.shape[1], outputs)
    for i in range(offsets.size - 1):
        for start in range(offsets[i], offsets[i + 1], block):
            _side_by_side(gram, columns, start, min(start + block, offsets[i + 1]))
    return columns


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
                _gather(data, first, last, batches[at : at + batch_size], buffer)
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
