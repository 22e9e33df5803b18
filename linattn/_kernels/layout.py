"""How statistics lie in memory for the compiled solver, and how minibatches are gathered."""

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
def gather(data: LocalData, first: int, last: int, index: IntArray, out: LocalData) -> None:
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
