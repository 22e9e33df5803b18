"""Statistics in the order that the compiled local solver reads.

All arrays are private, writable copies: read-only ones would be another type to the compiler, and
every type is another compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from linattn._typing import Array, IntArray
from linattn.objectives.forms import MomentForm
from linattn.types import Problem

if TYPE_CHECKING:
    from linattn._kernels.layout import LocalData

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
    from linattn._kernels.gradients import PRODUCT_CHANNELS

    dim, outputs = problem.dim, problem.num_outputs
    if problem.statistics.query is not None:
        return MOMENT_SPEED_ONE_QUERY * heads * (4 * dim**2 + 2 * dim * outputs)
    speed = MOMENT_SPEED_NARROW if dim < PRODUCT_CHANNELS else MOMENT_SPEED_WIDE
    return speed * (5 * heads + 1) * dim**2 * outputs


def moment_data(problem: Problem, heads: int) -> LocalData:
    """Return the moments of every client; no sequences."""
    forms = []
    for i in range(problem.num_clients):
        held = problem.statistics.take(problem.client(i))
        forms.append(MomentForm(held, np.full(len(held.energy), 1.0 / len(held.energy))))
    return pack_moments(problem, forms, heads)


def pack_moments(problem: Problem, forms: Sequence[MomentForm], heads: int) -> LocalData:
    """Return the moments of `forms`, one per client of `problem`, in the solver's order."""
    nothing = _no_data(problem)
    if heads == 1:
        pairs = [form.pairs() for form in forms]
        return nothing._replace(
            pair_moments=np.stack([moments for moments, _ in pairs]),
            pair_linear=np.stack([linear for _, linear in pairs]),
        )
    low, high = forms[0].folded[2:]
    pair = np.empty((problem.dim, problem.dim), dtype=np.int64)
    pair[low, high] = pair[high, low] = np.arange(len(low))
    return nothing._replace(
        moments=np.stack([form.folded[0] for form in forms]),
        moment_linear=np.stack([form.folded[1] for form in forms]),
        pair=pair,
    )


def sequence_data(problem: Problem) -> LocalData:
    """Return the statistics of every sequence."""
    from linattn._kernels.layout import side_by_side

    held, dim, outputs = problem.statistics, problem.dim, problem.num_outputs
    nothing, offsets = _no_data(problem), np.array(problem.offsets)
    if held.query is None:
        gram = np.array(held.gram.reshape(-1, dim))
        return nothing._replace(
            gram=gram,
            columns=side_by_side(gram, offsets, outputs),
            cross=np.array(held.cross_moments().transpose(0, 2, 1), order="C"),
        )
    assert held.target is not None
    low = np.tril_indices(dim)
    return nothing._replace(
        gram=_transposed_blocks(held.gram[:, low[0], low[1]], offsets),
        query=_transposed_blocks(held.query, offsets),
        target=_transposed_blocks(held.target, offsets),
        rank_one=True,
    )


def _no_data(problem: Problem) -> LocalData:
    """The offsets, and every array with size zero."""
    from linattn._kernels.layout import LocalData

    dim, outputs = problem.dim, problem.num_outputs
    return LocalData(
        gram=np.zeros((0, dim)),
        columns=np.zeros((0, dim)),
        cross=np.zeros((0, outputs, dim)),
        query=np.zeros((0, dim)),
        target=np.zeros((0, outputs)),
        pair_moments=np.zeros((0, 0, 0)),
        pair_linear=np.zeros((0, 0, 0)),
        moments=np.zeros((0, 0, 0)),
        moment_linear=np.zeros((0, 0, 0)),
        pair=np.zeros((0, 0), dtype=np.int64),
        offsets=np.array(problem.offsets),
        rank_one=False,
    )


def _transposed_blocks(rows: Array, offsets: IntArray) -> Array:
    """Rows of every sequence, each block of a client transposed in its place (`LocalData`)."""
    from linattn._kernels.layout import BLOCK_SEQUENCES

    out = np.empty(rows.shape)
    for first, last in pairwise(offsets.tolist()):
        for start in range(first, last, BLOCK_SEQUENCES):
            part = rows[start : min(start + BLOCK_SEQUENCES, last)]
            out[start : start + len(part)] = part.T.reshape(part.shape)
    return out


def batch_buffer(data: LocalData, size: int) -> LocalData:
    """Return room for one minibatch of `size` sequences."""
    dim, outputs = data.cross.shape[2], data.cross.shape[1]
    one_query, rows = (size, 0) if data.rank_one else (0, size)
    return data._replace(
        gram=np.empty((size, data.gram.shape[1]) if data.rank_one else (size * dim, dim)),
        columns=np.empty((rows * dim, dim)),
        cross=np.empty((rows, outputs, dim)),
        query=np.empty((one_query, dim)),
        target=np.empty((one_query, outputs)),
    )
