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
    from linattn._kernels.local import LocalData

# All moments of all clients together, in doubles (256 MiB).
MAX_CLIENT_MOMENTS = 2**25
# One product with a moment matrix runs this much faster than the loops over short sequences.
MOMENT_SPEED = 2.0


def prefers_client_moments(problem: Problem, heads: int) -> bool:
    """Whether full batches are cheaper on moments: f'² m + 3H d³ m multiply-adds per gradient.

    Notes
    -----
    Source: theory section 8. For one head the token readout changes over near d⁴/(4(5H + 1))
    sequences per client; the speed of the two ways is counted besides.
    """
    dim, outputs = problem.dim, problem.num_outputs
    folded = dim * dim * (dim + 1) // 2
    if problem.num_clients * folded**2 > MAX_CLIENT_MOMENTS:
        return False
    mean_size = problem.num_sequences / problem.num_clients
    on_moments = folded**2 * outputs + 3 * heads * dim**3 * outputs
    if problem.statistics.query is None:
        on_sequences = MOMENT_SPEED * mean_size * (5 * heads + 1) * dim**2 * outputs
    else:
        on_sequences = mean_size * heads * (4 * dim**2 + 2 * dim * outputs)
    return on_moments < on_sequences


def moment_data(problem: Problem) -> LocalData:
    """Return the moments of every client; no sequences."""
    forms = []
    for i in range(problem.num_clients):
        held = problem.statistics.take(problem.client(i))
        forms.append(MomentForm(held, np.full(len(held.energy), 1.0 / len(held.energy))))
    return pack_moments(problem, forms)


def pack_moments(problem: Problem, forms: Sequence[MomentForm]) -> LocalData:
    """Return the moments of `forms`, one per client of `problem`, in the solver's order."""
    low, high = forms[0].folded[2:]
    pair = np.empty((problem.dim, problem.dim), dtype=np.int64)
    pair[low, high] = pair[high, low] = np.arange(len(low))
    return _no_data(problem)._replace(
        moments=np.stack([form.folded[0] for form in forms]),
        moment_linear=np.stack([form.folded[1] for form in forms]),
        pair=pair,
    )


def sequence_data(problem: Problem) -> LocalData:
    """Return the statistics of every sequence."""
    from linattn._kernels.local import side_by_side

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
    from linattn._kernels.local import LocalData

    dim, outputs = problem.dim, problem.num_outputs
    return LocalData(
        gram=np.zeros((0, dim)),
        columns=np.zeros((0, dim)),
        cross=np.zeros((0, outputs, dim)),
        query=np.zeros((0, dim)),
        target=np.zeros((0, outputs)),
        moments=np.zeros((0, 0, 0)),
        moment_linear=np.zeros((0, 0, 0)),
        pair=np.zeros((0, 0), dtype=np.int64),
        offsets=np.array(problem.offsets),
        rank_one=False,
    )


def _transposed_blocks(rows: Array, offsets: IntArray) -> Array:
    """Rows of every sequence, each block of a client transposed in its place (`LocalData`)."""
    from linattn._kernels.local import BLOCK_SEQUENCES

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
