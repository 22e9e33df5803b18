"""Objectives of clients, and the data part of F, by compiled kernels.

The forms of NumPy in `linattn.objectives.forms` are the twins that tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from linattn._threads import available_threads, in_threads, one_blas_thread
from linattn._typing import AnyArray, Array, IntArray
from linattn.linalg import weighted_sum
from linattn.objectives.forms import LossGradient, MomentForm, NormalEquations, data_form
from linattn.objectives.packing import batch_room, pack_moments, sequence_data
from linattn.types import Layout, Problem

if TYPE_CHECKING:
    from linattn._kernels.layout import Data, Shape
    from linattn._kernels.local import Batches, Record, Rule

# Multiply-adds below which another thread costs more than it saves (about a millisecond).
WORK_PER_THREAD = 10**7
# Sums over many clients are taken in this many groups, whatever the number of threads.
MAX_GROUPS = 16


def thread_bounds(data: Data, shape: Shape, clients: IntArray, *, steps: int = 1) -> list[int]:
    """Where to cut clients into parts of about equal work, one per thread that pays for itself.

    Every client is computed alone, so the bits do not depend on the parts.
    """
    if data.moments.size:
        return [0, len(clients)]  # moments take less time than a thread takes to start
    done = np.cumsum(np.diff(data.offsets)[clients]).tolist()
    each = steps * (5 * shape.heads + 1) * shape.dim**2 * shape.outputs
    count = min(available_threads(), len(clients), done[-1] * each // WORK_PER_THREAD)
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
    Source: theory section 1. Cost: of sequences (5H + 1) d² m multiply-adds each (token readout),
    H d² m less without the kernel part, 2H d² m less without the value part.
    """
    from linattn._kernels.layout import Ridges
    from linattn._kernels.local import Start, train
    from linattn._kernels.sequences import Wanted

    size, places = points.shape[1], _plain(points)
    losses, out = np.empty(len(clients)), np.empty((len(clients), size))
    held, wanted, chosen = Ridges(*ridges), Wanted(True, kernel, value), _plain(clients)
    drawn, (rule, record) = minibatches(data, batches), _no_steps(size)

    def part(of: slice) -> None:
        here = places[of] if len(places) > 1 else places
        start = Start(here, out[of], losses[of], False)
        train(data, shape, held, wanted, chosen[of], start, rule, 0, drawn, record)

    # A room for one minibatch cannot be shared by threads.
    bounds = [0, len(clients)] if batches else thread_bounds(data, shape, clients)
    with _alone(data):
        in_threads(part, bounds)
    return losses, out


@lru_cache(maxsize=16)
def _no_steps(size: int) -> tuple[Rule, Record]:
    """A rule for nobody and a record of nothing."""
    from linattn._kernels.local import Record, Rule

    nothing, rows = np.zeros((0, 0, size)), np.zeros((0, size))
    return Rule(0.0, 0.0, np.zeros(size), rows, rows), Record(nothing, nothing, nothing)


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
    Source: theory section 8. Cost: about twice that of a gradient.
    """
    from linattn._kernels.second_order import products

    out = np.empty((len(clients), points.shape[1]))
    chosen, rows = _plain(clients), [_plain(points), _plain(directions)]

    def part(of: slice) -> None:
        here, there = (held[of] if len(held) > 1 else held for held in rows)
        products(data, shape, chosen[of], here, there, out[of])

    with _alone(data):
        in_threads(part, thread_bounds(data, shape, clients, steps=2))
    return out


def _plain(array: AnyArray) -> AnyArray:
    """The array itself, or a copy if it is read-only or not contiguous: another compiled type."""
    return array if array.flags.carray else np.array(array, order="C")


def _alone(data: Data) -> AbstractContextManager[None]:
    """BLAS on one thread, wherever compiled code calls it."""
    return nullcontext() if data.width and not data.pair.size else one_blas_thread()


def client_systems(
    data: Data, kernels: Array, clients: IntArray, *, weights: Array | None = None
) -> NormalEquations:
    """Return H_i(B), (P, Hd, Hd), and C_i(B), (P, Hd, m), of clients.

    With weights, (P,), return weighted sums over some groups of them, (groups, Hd, Hd) and
    (groups, Hd, m), which do not depend on the number of threads.

    Notes
    -----
    Source: theory section 1. Cost: of sequences H(H + 5)/2 d³ multiply-adds each (token readout).
    """
    from linattn._kernels.layout import Shape
    from linattn._kernels.second_order import systems

    heads, dim = kernels.shape[:2]
    shape, count = Shape(heads, dim, data.cross.shape[1], 0), len(clients)
    chosen = np.ascontiguousarray(clients, dtype=np.int64)
    slots = np.arange(count)
    if weights is None:
        weights = np.ones(count)
    else:
        slots = slots * min(count, MAX_GROUPS) // count
    groups = int(slots[-1]) + 1
    hessians = np.zeros((groups, heads * dim, heads * dim))
    linears = np.zeros((groups, heads * dim, shape.outputs))
    held = np.array(kernels)

    def part(of: slice) -> None:
        inside = slice(*np.searchsorted(slots, [of.start, of.stop]))
        systems(
            data,
            shape,
            chosen[inside],
            weights[inside],
            slots[inside] - of.start,
            held,
            hessians[of],
            linears[of],
        )

    with _alone(data):
        in_threads(part, _group_bounds(data, shape, chosen, slots))
    return NormalEquations(hessians, linears)


def _group_bounds(data: Data, shape: Shape, clients: IntArray, slots: IntArray) -> list[int]:
    """Where to cut groups of clients into parts for threads."""
    each = shape.heads * (shape.heads + 5) // 2 * shape.dim / (5 * shape.heads + 1) / shape.outputs
    bounds = thread_bounds(data, shape, clients, steps=max(1, round(each)))
    return sorted({*(slots[bounds[:-1]].tolist()), int(slots[-1]) + 1})


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


def value_steps(
    hessians: Array,
    linears: Array,
    starts: Array,
    *,
    local_lr: float,
    local_steps: int,
    prox: float = 0.0,
    anchor: Array | None = None,
    shift: Array | None = None,
    record: tuple[Array, Array] | None = None,
) -> Array:
    """Return where gradient steps on ½⟨V, A_iV⟩ − ⟨C_i, V⟩ + prox/2 ‖V − anchor‖² + ⟨shift_i, V⟩
    end.

    Parameters
    ----------
    hessians : array, shape (P, Hd, Hd)
    linears : array, shape (P, Hd, m)
    starts, shift : array, shape (P, Hd·m)
    local_lr : float
    local_steps : int
    prox : float
    anchor : array, shape (Hd·m,)
    record : tuple of array, shape (E, P, Hd·m) or (0, P, Hd·m)
        Filled with the places and the gradients there, without prox and shift.

    Notes
    -----
    Source: theory section 4, whose closed form tests compare with these steps. Cost: (Hd)² m
    multiply-adds per step.
    """
    from linattn._kernels.local import Record, Rule, value_round

    nothing = np.zeros((0, *starts.shape))
    places, slopes = (nothing, nothing) if record is None else record
    rule = Rule(
        float(local_lr),
        float(prox),
        np.zeros(starts.shape[1]) if anchor is None else np.array(anchor),
        np.ones(starts.shape),
        nothing[:, 0] if shift is None else np.ascontiguousarray(shift),
    )
    with one_blas_thread():
        return np.asarray(
            value_round(
                np.ascontiguousarray(hessians),
                np.ascontiguousarray(linears),
                np.array(starts),
                rule,
                local_steps,
                Record(places, slopes, nothing),
            )
        )


class CompiledForm:
    """The data part of F: compiled on the cheaper of sequences and moments."""

    def __init__(self, problem: Problem) -> None:
        self.twin = data_form(problem.statistics, problem.sequence_weights)
        self.energy = self.twin.energy
        self._problem = problem
        self._moments: dict[bool, Data] = {}

    def data(self, heads: int) -> tuple[Data, Array]:
        """Packed data and the weights of its clients; moments are those of one client."""
        if not isinstance(self.twin, MomentForm):
            return self._problem.derived(sequence_data), self._problem.weights
        one_head = heads == 1
        if one_head not in self._moments:
            offsets = np.array([0, self._problem.num_sequences])
            self._moments[one_head] = pack_moments([self.twin], one_head, offsets)
        return self._moments[one_head], np.ones(1)

    def objective(
        self, layout: Layout, flat: Array, ridges: tuple[float, float]
    ) -> tuple[float, Array]:
        """F and its gradient (D,) at flat parameters, ridges λ and μ included."""
        return self._evaluate(shape_of(layout), flat, ridges)

    def gradient(
        self, kernel: Array, value: Array, *, kernel_part: bool = True, value_part: bool = True
    ) -> LossGradient:
        """Loss and gradients (theory section 1); parts that are not wanted are zero."""
        loss, slope = self._evaluate(
            _merged(value), _joined(kernel, value), kernel=kernel_part, value=value_part
        )
        return LossGradient(loss, *_split(slope, kernel, value))

    def _evaluate(
        self,
        shape: Shape,
        flat: Array,
        ridges: tuple[float, float] = (0.0, 0.0),
        *,
        kernel: bool = True,
        value: bool = True,
    ) -> tuple[float, Array]:
        data, weights = self.data(shape.heads)
        losses, slopes = client_gradients(
            data,
            shape,
            np.arange(len(weights)),
            flat[None],
            ridges=ridges,
            kernel=kernel,
            value=value,
        )
        return float(weighted_sum(weights, losses)), weighted_sum(weights, slopes)

    def normal_equations(self, kernel: Array) -> NormalEquations:
        """H(B) and C(B)."""
        data, weights = self.data(len(kernel))
        held = client_systems(data, kernel, np.arange(len(weights)), weights=weights)
        return NormalEquations(held.hessian.sum(axis=0), held.linear.sum(axis=0))

    def kernel_hessian(self, value: Array) -> Array:
        """𝓚(V) without μ."""
        return self.twin.kernel_hessian(value)

    def hvp(
        self, kernel: Array, value: Array, kernel_direction: Array, value_direction: Array
    ) -> tuple[Array, Array]:
        """Hessian-vector product of the loss."""
        data, weights = self.data(len(kernel))
        here, there = _joined(kernel, value), _joined(kernel_direction, value_direction)
        images = client_products(
            data, _merged(value), np.arange(len(weights)), here[None], there[None]
        )
        return _split(weighted_sum(weights, images), kernel, value)

    def tensor_gradient(self, kernel: Array, value: Array) -> Array:
        """𝒢 (C15)."""
        return self.twin.tensor_gradient(kernel, value)


def _joined(kernel: Array, value: Array) -> Array:
    return np.concatenate([kernel.reshape(-1), value.reshape(-1)])


def _split(flat: Array, kernel: Array, value: Array) -> tuple[Array, Array]:
    """Kernel and value entries in the shapes of two blocks."""
    return flat[: kernel.size].reshape(kernel.shape), flat[kernel.size :].reshape(value.shape)


def _merged(value: Array) -> Shape:
    """Sizes of a value block and of a merged kernel."""
    from linattn._kernels.layout import Shape

    heads, dim, outputs = value.shape
    return Shape(heads, dim, outputs, 0)


@lru_cache(maxsize=64)
def shape_of(layout: Layout) -> Shape:
    """Return the sizes of the blocks of a single-layer model, for compiled code."""
    from linattn._kernels.layout import Shape

    heads, dim, outputs = layout.shapes["value"]
    return Shape(heads, dim, outputs, layout.shapes["query"][-1] if "query" in layout.shapes else 0)
