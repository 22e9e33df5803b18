"""Statistics in the order that compiled code reads them.

All arrays are private, writable copies: read-only ones would be another type to the compiler, and
every type is another compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from linattn._typing import Array, IntArray
from linattn.objectives.moment_form import MomentForm
from linattn.types import Problem

if TYPE_CHECKING:
    from linattn._kernels.layout import Client, Data

# All moments of all clients together, in doubles (256 MiB).
MAX_CLIENT_MOMENTS = 2**25
# Multiply-adds per second on moments against those on sequences, measured: loops over sequences of
# few channels are slow, products over sequences of many channels fast.
MOMENT_SPEED_NARROW = 2.0
MOMENT_SPEED_WIDE = 0.6
MOMENT_SPEED_ONE_QUERY = 1.5


def prefers_client_moments(problem: Problem, heads: int) -> bool:
    """Whether full batches are cheaper on moments than on sequences.

    Multiply-adds per gradient: with one head 2vw + 3d⁴ + 2d³m (v = d(d + 1)/2, w = d²(d² + 1)/2),
    with several f'²m + 3H d³ m (f' = d·v).

    Notes
    -----
    Source: Moments. The speed of the two ways is counted besides.
    """
    dim, outputs = problem.dim, problem.num_outputs
    pairs, folded = dim * (dim + 1) // 2, dim * dim * (dim + 1) // 2
    held = pairs * dim**2 * (dim**2 + 1) // 2 if heads == 1 else folded**2
    if problem.num_clients * held > MAX_CLIENT_MOMENTS:
        return False
    if heads == 1:
        on_moments = 2 * held + 3 * dim**4 + 2 * dim**3 * outputs
    else:
        on_moments = held * outputs + 3 * heads * dim**3 * outputs
    mean_size = problem.num_sequences / problem.num_clients
    return bool(on_moments < mean_size * _sequence_cost(problem, heads))


def _sequence_cost(problem: Problem, heads: int) -> float:
    """Multiply-adds of one sequence, in those of moments that take as long."""
    from linattn._kernels.sequences import PRODUCT_CHANNELS

    dim, outputs = problem.dim, problem.num_outputs
    if problem.statistics.query is not None:
        return MOMENT_SPEED_ONE_QUERY * heads * (4 * dim**2 + 2 * dim * outputs)
    speed = MOMENT_SPEED_NARROW if dim < PRODUCT_CHANNELS else MOMENT_SPEED_WIDE
    return speed * (5 * heads + 1) * dim**2 * outputs


def client_data(problem: Problem, heads: int) -> Data:
    """Return the cheaper form for full batches of single clients, kept with the problem."""
    if prefers_client_moments(problem, heads):
        return problem.derived(moment_data, heads == 1)
    return problem.derived(sequence_data)


def moment_data(problem: Problem, one_head: bool) -> Data:
    """Return the moments of every client; no sequences."""
    forms = []
    for i in range(problem.num_clients):
        held = problem.statistics.take(problem.client(i))
        forms.append(MomentForm(held, np.full(len(held.energy), 1.0 / len(held.energy))))
    return pack_moments(forms, one_head, problem.offsets)


def pack_moments(forms: Sequence[MomentForm], one_head: bool, offsets: IntArray) -> Data:
    """Return the moments of `forms`, one per client, in the order of the compiled kernels.

    Of one head (v, w) and (d·m, d²), padded to whole registers; of several (f', f') and (f', m).
    """
    from linattn._kernels.lanes import padded
    from linattn._kernels.layout import FOLDED, PAIRS

    dim, outputs = forms[0].dim, forms[0].outputs
    nothing = _no_data(dim, outputs, offsets)
    nothing = nothing._replace(energy=np.array([form.energy for form in forms]))
    if one_head:
        size = dim * dim
        # The last row of pairs is read in whole registers, and must end in the same row of moments.
        width = padded(size * (size - 1) // 2 + padded(size))
        pairs = [form.pairs() for form in forms]
        return nothing._replace(
            kind=PAIRS,
            moments=np.stack([_padded(moments, width) for moments, _ in pairs]),
            linear=np.stack([_padded(linear, padded(size)) for _, linear in pairs]),
            width=width,
        )
    low, high = forms[0].folded[2:]
    pair = np.empty((dim, dim), dtype=np.int64)
    pair[low, high] = pair[high, low] = np.arange(len(low))
    return nothing._replace(
        kind=FOLDED,
        moments=np.stack([form.folded[0].reshape(-1) for form in forms]),
        linear=np.stack([form.folded[1].reshape(-1) for form in forms]),
        width=len(forms[0].folded[0]),
        pair=pair,
    )


def _padded(matrix: Array, width: int) -> Array:
    out = np.zeros((len(matrix), width))
    out[:, : matrix.shape[1]] = matrix
    return out.reshape(-1)


def sequence_data(problem: Problem) -> Data:
    """Return the statistics of every sequence."""
    from linattn._kernels.layout import BLOCK_SEQUENCES, ONE_QUERY, QUERIES, queries_block_size

    held, dim, outputs = problem.statistics, problem.dim, problem.num_outputs
    offsets = np.array(problem.offsets)
    nothing = _no_data(dim, outputs, offsets)
    nothing = nothing._replace(
        energy=np.add.reduceat(held.energy, offsets[:-1]) / problem.client_sizes
    )
    if held.query is None:
        block = queries_block_size(dim, outputs)
        gram = _side_by_side(held.gram, offsets, block)
        own = held.moment
        return nothing._replace(
            kind=QUERIES,
            gram=gram,
            moment=gram if own is None else _side_by_side(own, offsets, block),
            cross=np.array(held.cross_moments().transpose(0, 2, 1), order="C"),
        )
    assert held.target is not None
    low = np.tril_indices(dim)
    arrays = held.gram[:, low[0], low[1]], held.query, held.target
    gram, query, target = (_side_by_side(a[..., None], offsets, BLOCK_SEQUENCES) for a in arrays)
    return nothing._replace(kind=ONE_QUERY, gram=gram, query=query, target=target)


def _side_by_side(matrices: Array, offsets: IntArray, block: int) -> Array:
    """Matrices (S, r, w), every block of n of them as (r, n·w) in its place; flat."""
    out = np.empty(matrices.size)
    each = matrices.shape[1] * matrices.shape[2]
    for first, last in pairwise(offsets.tolist()):
        for start in range(first, last, block):
            part = matrices[start : min(start + block, last)]
            place = out[start * each : (start + len(part)) * each]
            place.reshape(part.shape[1], len(part), -1)[...] = part.transpose(1, 0, 2)
    return out


def _no_data(dim: int, outputs: int, offsets: IntArray) -> Data:
    """The offsets, and every array with size zero."""
    from linattn._kernels.layout import QUERIES, Data

    return Data(
        kind=QUERIES,
        gram=np.zeros(0),
        moment=np.zeros(0),
        cross=np.zeros((0, outputs, dim)),
        query=np.zeros(0),
        target=np.zeros(0),
        moments=np.zeros((1, 0)),
        linear=np.zeros((1, 0)),
        width=0,
        pair=np.zeros((0, 0), dtype=np.int64),
        energy=np.zeros(len(offsets) - 1),
        offsets=np.array(offsets),
    )


def batch_room(kind: int, size: int, outputs: int, dim: int) -> Client:
    """Return room for one minibatch of `size` sequences."""
    from linattn._kernels.layout import ONE_QUERY, Client

    alone, many = (size, 0) if kind == ONE_QUERY else (0, size)
    return Client(
        kind=kind,
        size=size,
        gram=np.empty(alone * (dim * (dim + 1) // 2) + many * dim * dim),
        moment=np.empty(many * dim * dim),
        cross=np.empty((many, outputs, dim)),
        query=np.empty(alone * dim),
        target=np.empty(alone * outputs),
        moments=np.zeros(0),
        linear=np.zeros(0),
        pair=np.zeros((0, 0), dtype=np.int64),
        energy=float("nan"),
    )
