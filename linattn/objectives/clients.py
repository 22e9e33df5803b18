"""What compiled code says of single clients: objectives, gradients, Hessian products, systems."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from linattn._threads import available_threads, in_threads, one_blas_thread
from linattn._typing import AnyArray, Array, IntArray
from linattn.objectives.forms import NormalEquations
from linattn.objectives.packing import batch_room
from linattn.types import Layout

if TYPE_CHECKING:
    from linattn._kernels.layout import Data, Shape
    from linattn._kernels.local import Batches, Course, Record, Rule

# Multiply-adds below which another thread costs more than it saves (about a millisecond).
WORK_PER_THREAD = 10**7
# Sums over many clients are taken in this many groups, whatever the number of threads.
MAX_GROUPS = 16


def full_work(data: Data, shape: Shape, clients: IntArray, *, steps: int) -> int:
    """Return about how many multiply-adds local steps of clients take, on full batches."""
    if data.width:
        return 2 * steps * len(clients) * int(data.moments.shape[1])
    sequences = int(np.diff(data.offsets)[clients].sum())
    return sequences * steps * (5 * shape.heads + 1) * shape.dim**2 * shape.outputs


def thread_bounds(data: Data, shape: Shape, clients: IntArray, *, steps: int = 1) -> list[int]:
    """Where to cut clients into parts of about equal work, one per thread that pays for itself.

    Every client is computed alone, so the bits do not depend on the parts.
    """
    if data.width or len(clients) == 1:
        return [0, len(clients)]  # moments take less time than a thread takes to start
    work = full_work(data, shape, clients, steps=steps)
    count = min(available_threads(), len(clients), work // WORK_PER_THREAD)
    if count <= 1:
        return [0, len(clients)]
    done = np.cumsum(np.diff(data.offsets)[clients])
    cuts = np.searchsorted(done, [done[-1] * k / count for k in range(1, count)]) + 1
    return sorted({0, *cuts.tolist(), len(clients)})


def client_gradients(
    data: Data,
    shape: Shape,
    clients: IntArray,
    points: Array,
    *,
    ridges: tuple[float, float] = (0.0, 0.0),
    kernel: bool = True,
    value: bool = True,
    batches: Sequence[IntArray] | None = None,
) -> tuple[Array, Array]:
    """Return F_i of clients[k] at points[k], (P,), and its gradient, (P, D).

    Parameters
    ----------
    data : Data
    shape : Shape
    clients : array of int, shape (P,)
    points : array, shape (P, D), or (1, D) for all
    ridges : tuple of float
        λ and μ.
    kernel, value : bool
        Whether the gradient in the kernel and in the value block is wanted; zeros if not.
    batches : sequence of array of int, optional
        One minibatch for each client; the loss is then not meant to be read.

    Notes
    -----
    Source: Model. Cost: of sequences (5H + 1) d² m multiply-adds each (token readout),
    H d² m less without the kernel part, 2H d² m less without the value part.
    """
    from linattn._kernels.layout import Ridges
    from linattn._kernels.local import Start, train
    from linattn._kernels.sequences import Wanted

    size, places = points.shape[1], plain(points)
    losses, out = np.empty(len(clients)), np.empty((len(clients), size))
    held, wanted, chosen = Ridges(*ridges), Wanted(True, kernel, value), plain(clients)
    drawn, (rule, record, course) = minibatches(data, batches), _no_steps(size)

    def part(of: slice) -> None:
        here = places[of] if len(places) > 1 else places
        start = Start(here, out[of], losses[of], False)
        train(data, shape, held, wanted, chosen[of], start, rule, 0, drawn, record, course)

    # A room for one minibatch cannot be shared by threads.
    bounds = [0, len(clients)] if batches else thread_bounds(data, shape, clients)
    with _alone(data):
        in_threads(part, bounds)
    return losses, out


@lru_cache(maxsize=16)
def _no_steps(size: int) -> tuple[Rule, Record, Course]:
    """A rule for nobody, a record of nothing, no rounds."""
    from linattn._kernels.local import Record, Rule

    nothing, rows = np.zeros((0, 0, size)), np.zeros((0, size))
    rule = Rule(0.0, 0.0, np.zeros(size), rows, rows)
    return rule, Record(nothing, nothing, nothing), no_rounds(size)


@lru_cache(maxsize=16)
def no_rounds(size: int) -> Course:
    """Return the course of no whole round."""
    return new_course(np.zeros(0), np.zeros(1, dtype=np.int64), np.zeros(size))


def new_course(
    weights: Array, offsets: IntArray, start: Array, pushes: Array | None = None
) -> Course:
    """Return room for N whole rounds from a server point (D,), of as many weights as take part.

    Every average is pushed by a row of `pushes`, (N, D), if there are any.

    Parameters
    ----------
    weights : array, shape (Σ P_t,)
    offsets : array of int, shape (N + 1,)
        Where those of every round begin.
    start : array, shape (D,)
    pushes : array, shape (N, D), optional
    """
    from linattn._kernels.local import Course

    size, count = start.size, len(offsets) - 1
    path = np.empty((count + 1, size))
    path[0] = start
    return Course(
        plain(weights),
        plain(offsets),
        path,
        np.empty(count),
        np.empty((count, size)),
        np.empty((count, 2)),
        np.empty((0, size)) if pushes is None else plain(pushes),
    )


def client_products(
    data: Data, shape: Shape, clients: IntArray, points: Array, directions: Array
) -> Array:
    """Return ∇²(data loss of clients[k]) at merged points[k] applied to directions[k], (P, D).

    Parameters
    ----------
    data : Data
    shape : Shape
        Of a merged kernel.
    clients : array of int, shape (P,)
    points, directions : array, shape (P, D), or (1, D) for all

    Notes
    -----
    Source: Second derivatives. Cost: about twice that of a gradient.
    """
    from linattn._kernels.second_order import products

    out = np.empty((len(clients), points.shape[1]))
    chosen, rows = plain(clients), [plain(points), plain(directions)]

    def part(of: slice) -> None:
        here, there = (held[of] if len(held) > 1 else held for held in rows)
        products(data, shape, chosen[of], here, there, out[of])

    with _alone(data):
        in_threads(part, thread_bounds(data, shape, clients, steps=2))
    return out


def plain(array: AnyArray) -> AnyArray:
    """Return the array, or a copy if it is read-only or not contiguous in C's order.

    Such arrays are other types, for which functions would be compiled once more; and numba 0.60
    computes wrong numbers from points in Fortran's order.
    """
    return array if array.flags.carray else np.array(array, order="C")


def _alone(data: Data) -> AbstractContextManager[None]:
    """BLAS on one thread, wherever compiled code calls it."""
    return nullcontext() if data.width and not data.pair.size else one_blas_thread()


def client_systems(
    data: Data, shape: Shape, kernels: Array, clients: IntArray, weights: Array | None = None
) -> NormalEquations:
    """Return H_i(B), (N, P, Hd, Hd), and C_i(B), (N, P, Hd, m), of clients at N kernels.

    With weights, (P,), return weighted sums over some groups of clients instead, (N, groups, …),
    which do not depend on the number of threads.

    Parameters
    ----------
    data : Data
    shape : Shape
    kernels : array, shape (N, H·d·d)
    clients : array of int, shape (P,)
    weights : array, shape (P,), optional

    Notes
    -----
    Source: Model. Cost: of sequences H(H + 5)/2 d³ multiply-adds each (token readout).
    """
    from linattn._kernels.second_order import systems

    (points, _), count, size = kernels.shape, len(clients), shape.heads * shape.dim
    groups = count if weights is None else min(count, MAX_GROUPS)
    hessians = np.zeros((points * groups, size, size))
    linears = np.zeros((points * groups, size, shape.outputs))
    slots, chosen, held = _slots(points, count, groups), plain(clients), plain(kernels)
    factors = np.ones(count) if weights is None else plain(weights)
    if points > 1:
        chosen, factors = np.tile(chosen, points), np.tile(factors, points)

    def part(of: slice) -> None:
        inside = slice(*slots.searchsorted((of.start, of.stop)))
        first = of.start // groups
        begin = of.start - first * groups
        systems(
            data,
            shape,
            chosen[inside],
            factors[inside],
            slots[inside] - of.start + begin,
            held[first:],
            groups,
            begin,
            hessians[of],
            linears[of],
        )

    with _alone(data):
        in_threads(part, _group_bounds(data, shape, chosen, slots))
    return NormalEquations(
        hessians.reshape(points, groups, size, size),
        linears.reshape(points, groups, size, shape.outputs),
    )


@lru_cache(maxsize=64)
def _slots(points: int, count: int, groups: int) -> IntArray:
    """To which system every client of every point is added."""
    group = np.arange(count) * groups // count
    return (np.arange(points)[:, None] * groups + group).reshape(-1)


def _group_bounds(data: Data, shape: Shape, clients: IntArray, slots: IntArray) -> list[int]:
    """Where to cut groups of clients into parts for threads."""
    each = shape.heads * (shape.heads + 5) // 2 * shape.dim / (5 * shape.heads + 1) / shape.outputs
    bounds = thread_bounds(data, shape, clients, steps=max(1, round(each)))
    return sorted({*(slots[bounds[:-1]].tolist()), int(slots[-1]) + 1})


def solve_systems(held: NormalEquations, ridge: float) -> tuple[Array, Array, Array]:
    """Return A = H + λI, its lower Cholesky factor and V* = A⁻¹C of N systems.

    Factor and V* are NaN where A is not positive definite to rounding, nor finite.

    Notes
    -----
    Source: Model. Cost: (Hd)³/3 + (Hd)² m multiply-adds each.
    """
    from linattn._kernels.solve import solve

    hessians, linears = np.array(held.hessian, order="C"), plain(held.linear)
    factors, solutions = np.empty_like(hessians), np.empty_like(linears)
    solve(hessians, linears, ridge, factors, solutions)
    return hessians, factors, solutions


def minibatches(data: Data, batches: Sequence[IntArray] | None) -> Batches:
    """Return minibatches (E, b) or (b,) of every participant as compiled code reads them."""
    from linattn._kernels.local import Batches

    if batches is None:
        return _no_batches(data.kind, *data.cross.shape[1:])
    flat = [np.ascontiguousarray(batch, dtype=np.int64).reshape(-1) for batch in batches]
    offsets = np.cumsum([0, *(batch.size for batch in flat)])
    largest = max(batch.shape[-1] for batch in batches)
    room = batch_room(data.kind, largest, *data.cross.shape[1:])
    return Batches(np.concatenate(flat), offsets, room)


@lru_cache(maxsize=16)
def _no_batches(kind: int, outputs: int, dim: int) -> Batches:
    """Full batches."""
    from linattn._kernels.local import Batches

    nothing = np.zeros(0, dtype=np.int64)
    return Batches(nothing, nothing, batch_room(kind, 0, outputs, dim))


@lru_cache(maxsize=64)
def shape_of(layout: Layout) -> Shape:
    """Return the sizes of the blocks of a single-layer model, for compiled code."""
    from linattn._kernels.layout import Shape

    heads, dim, outputs = layout.shapes["value"]
    return Shape(heads, dim, outputs, layout.shapes["query"][-1] if "query" in layout.shapes else 0)


def merged_shape(heads: int, dim: int, outputs: int) -> Shape:
    """Return the sizes of a value block and of a merged kernel."""
    from linattn._kernels.layout import Shape

    return Shape(heads, dim, outputs, 0)
