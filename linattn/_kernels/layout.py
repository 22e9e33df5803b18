"""How statistics lie in memory for compiled code, and how minibatches are gathered."""

from typing import NamedTuple

import numpy as np

from linattn._kernels.jit import inner, outer
from linattn._kernels.views import cube, matrix, vector
from linattn._typing import Array, IntArray

# Doubles per block of one per-sequence quantity: a few such arrays stay in a level-2 cache.
BLOCK_ENTRIES = 4096
# Sequences per block of the one-query layout: rows long enough to vectorize, few enough to cache.
BLOCK_SEQUENCES = 128

# What `Data` holds: sequences with several queries or with one, moments of one head or of several.
QUERIES, ONE_QUERY, PAIRS, FOLDED = range(4)


class Data(NamedTuple):
    """Statistics in the order that compiled code reads them; unused arrays have size zero.

    Every block of n sequences of a client lies in its place as one matrix. Several queries: the
    Gram matrices side by side, (d, n·d), and so the M. One query per sequence: `gram`, `query` and
    `target` hold (f, n), (d, n) and (m, n), f = d(d + 1)/2, of every Gram matrix the lower half.
    """

    kind: int
    gram: Array  # (S·d·d,), several queries; (S·f,), one
    moment: Array  # (S·d·d,), several queries; the same array where M = G
    cross: Array  # (S, m, d), several queries
    query: Array  # (S·d,), one query
    target: Array  # (S·m,), one query
    moments: Array  # (C, rows · width); `linattn.objectives.packing` tells which
    linear: Array  # (C, rows · width)
    width: int  # of the moments
    pair: IntArray  # (d, d), several heads: index of the unordered pair (b, k) in the half of G
    energy: Array  # (C,): mean c of a client, in losses made of moments and of several queries
    offsets: IntArray  # (C + 1,)


class Shape(NamedTuple):
    """Sizes of the parameter blocks; rank 0 means a merged kernel."""

    heads: int
    dim: int
    outputs: int
    rank: int


class Ridges(NamedTuple):
    """λ and μ."""

    value: float
    kernel: float


class Client(NamedTuple):
    """The part of `Data` that one client, or one minibatch, owns."""

    kind: int
    size: int
    gram: Array
    moment: Array
    cross: Array
    query: Array
    target: Array
    moments: Array  # (rows · width,)
    linear: Array
    pair: IntArray
    energy: float


@inner
def client_of(data: Data, index: int) -> Client:
    """Views of what client `index` owns."""
    first, last, held = data.offsets[index], data.offsets[index + 1], 0
    size, (_, outputs, dim) = last - first, data.cross.shape
    if data.kind >= PAIRS:
        first, last, held = 0, 0, index
    entries = dim * dim if data.kind == QUERIES else dim * (dim + 1) // 2
    return Client(
        data.kind,
        size,
        data.gram[first * entries : last * entries],
        data.moment[first * dim * dim : last * dim * dim],
        data.cross[first:last],
        data.query[first * dim : last * dim],
        data.target[first * outputs : last * outputs],
        data.moments[held],
        data.linear[held],
        data.pair,
        data.energy[index],
    )


@inner
def scale(array: Array, factor: float) -> None:
    """array *= factor, and exactly zero for factor 0 whatever was there; it lies in one piece."""
    flat = vector(array, 0, array.size)
    for j in range(flat.size):
        flat[j] = flat[j] * factor if factor != 0.0 else 0.0


@outer
def queries_block_size(dim: int, outputs: int) -> int:
    """Sequences per block with several queries."""
    return max(1, BLOCK_ENTRIES // (dim * outputs))


@inner
def block_size(kind: int, dim: int, outputs: int) -> int:
    """Sequences per block."""
    return queries_block_size(dim, outputs) if kind == QUERIES else BLOCK_SEQUENCES


@inner
def block_of(flat: Array, start: int, stop: int, rows: int, width: int) -> Array:
    """The matrix (rows, n·width) of a block of sequences."""
    block: Array = matrix(flat, start * rows * width, rows, (stop - start) * width)
    return block


@inner
def queries_block(own: Client, start: int, stop: int) -> tuple[Array, Array, Array]:
    """G and M (d, n·d) and K (n, m, d) of a block, several queries per sequence."""
    _, outputs, dim = own.cross.shape
    gram = block_of(own.gram, start, stop, dim, dim)
    moment = block_of(own.moment, start, stop, dim, dim)
    cross: Array = cube(own.cross, start * outputs * dim, stop - start, outputs, dim)
    return gram, moment, cross


@inner
def gather(own: Client, chosen: IntArray, room: Client) -> Client:
    """Copy some sequences of a client, counted within it, into a buffer; return what is filled."""
    size, (_, outputs, dim) = chosen.size, own.cross.shape
    for k in range(size):
        s = chosen[k]
        if own.kind == QUERIES:
            _copy_columns(own, own.gram, s, room.gram, size, k, dim, dim)
            _copy_columns(own, own.moment, s, room.moment, size, k, dim, dim)
            for c in range(outputs):
                for a in range(dim):
                    room.cross[k, c, a] = own.cross[s, c, a]
        else:
            _copy_columns(own, own.gram, s, room.gram, size, k, dim * (dim + 1) // 2, 1)
            _copy_columns(own, own.query, s, room.query, size, k, dim, 1)
            _copy_columns(own, own.target, s, room.target, size, k, outputs, 1)
    # The energy of the minibatch is not known: its loss is not asked for.
    return Client(
        own.kind,
        size,
        room.gram,
        room.moment,
        room.cross,
        room.query,
        room.target,
        own.moments,
        own.linear,
        own.pair,
        np.nan,
    )


@inner
def _copy_columns(
    own: Client, held: Array, s: int, out: Array, size: int, k: int, rows: int, width: int
) -> None:
    """Copy the columns of sequence s of a client to those of number k of `size` in a buffer."""
    block = block_size(own.kind, own.cross.shape[2], own.cross.shape[1])
    start, place = s - s % block, k - k % block
    source = block_of(held, start, min(start + block, own.size), rows, width)
    target = block_of(out, place, min(place + block, size), rows, width)
    for a in range(rows):
        for b in range(width):
            target[a, (k - place) * width + b] = source[a, (s - start) * width + b]
