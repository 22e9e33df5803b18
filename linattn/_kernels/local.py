"""Compiled local training: all local steps of all participants of a round in one call."""

from typing import NamedTuple

import numpy as np

from linattn._kernels.gradients import client_gradient, kernel_size, make_room
from linattn._kernels.jit import inner, outer
from linattn._kernels.layout import Client, Data, Ridges, Shape, client_of, gather
from linattn._kernels.products import multiply
from linattn._kernels.sequences import Wanted
from linattn._kernels.views import matrix, vector
from linattn._typing import Array, IntArray


class Rule(NamedTuple):
    """What a local step does: w -= lr · mask · (g + prox (w − anchor) + shift)."""

    local_lr: float
    prox: float
    anchor: Array  # (D,), server parameters of the proximal term
    mask: Array  # (P, D), 0 or 1
    shift: Array  # (P, D), or (0, D) for none


class Batches(NamedTuple):
    """Minibatches of all participants; of size zero for full batches.

    Participant k uses the sequences chosen[offsets[k]:offsets[k + 1]], counted within the client
    and split into as many equal parts as it takes local steps, one for a gradient.
    """

    chosen: IntArray
    offsets: IntArray  # (P + 1,)
    room: Client  # for the largest


class Start(NamedTuple):
    """Where clients start, with F_i and its gradient there."""

    points: Array  # (P, D), or (1, D) for all
    gradients: Array  # (P, D), or (0, D) where nobody wants to know
    losses: Array  # (P,)
    known: bool  # read what is there, or fill it


class Record(NamedTuple):
    """What is kept of every local step, (E, P, D), or (0, P, D) for nothing."""

    iterates: Array  # w_{i,e}
    gradients: Array  # what was applied there, without prox and shift
    full_gradients: Array  # the same on full batches, where these are minibatches


@inner
def _move(flat: Array, step: Array, rule: Rule, k: int) -> None:
    """Take one local step of participant k along the gradient in `step`, which is overwritten."""
    if rule.prox != 0.0:
        for j in range(flat.size):
            step[j] += rule.prox * (flat[j] - rule.anchor[j])
    if rule.shift.shape[0] > 0:
        for j in range(flat.size):
            step[j] += rule.shift[k, j]
    for j in range(flat.size):
        flat[j] -= rule.local_lr * (rule.mask[k, j] * step[j])


@inner
def _copy(source: Array, target: Array) -> None:
    for j in range(source.size):
        target[j] = source[j]


class Course(NamedTuple):
    """What N whole rounds leave; with N = 0 clients end, and nobody averages.

    Round t is of the clients and weights [offsets[t]:offsets[t + 1]].
    """

    weights: Array  # of the averages
    offsets: IntArray  # (N + 1,)
    path: Array  # (N + 1, D), server parameters; entry 0 is given
    objectives: Array  # (N,), Σ w_i F_i at the start of every round, if `Start` asks for it
    gradients: Array  # (N, D), Σ w_i ∇F_i there
    drifts: Array  # (N, 2), (Σ w_i ‖·_i − mean‖²)^½ of kernel and value entries before averaging
    pushes: Array  # (N, D), added to the average of every round, or (0, D) for nothing


@inner
def _weighted_sum(weights: Array, rows: Array, out: Array) -> None:
    """Σ_k weights[k] · rows[k] in this order, as `linattn.linalg.weighted_sum` does."""
    for j in range(out.size):
        out[j] = weights[0] * rows[0, j]
    for k in range(1, weights.size):
        for j in range(out.size):
            out[j] += weights[k] * rows[k, j]


@inner
def _spread(weights: Array, rows: Array, mean: Array, first: int, last: int) -> float:
    """(Σ w_i ‖row_i − mean‖²)^½ over some entries, as `linattn.linalg.weighted_spread` does."""
    total = 0.0
    for j in range(first, last):
        apart = rows[0, j] - mean[j]
        entry = weights[0] * (apart * apart)
        for k in range(1, weights.size):
            apart = rows[k, j] - mean[j]
            entry += weights[k] * (apart * apart)
        total += entry
    return float(np.sqrt(total))


@inner
def _average(
    weights: Array, ends: Array, mask: Array, split: int, start: Array, out: Array, drifts: Array
) -> None:
    """Write the mean of what was trained, and how far the ends were apart."""
    _weighted_sum(weights, ends, out)
    drifts[0] = _spread(weights, ends, out, 0, split)
    drifts[1] = _spread(weights, ends, out, split, out.size)
    for j in range(out.size):
        if mask[j] == 0.0:
            out[j] = start[j]


@inner
def _end_round(course: Course, t: int, ends: Array, start: Start, mask: Array, split: int) -> None:
    """Average, and note what the round began with."""
    weights = course.weights[course.offsets[t] : course.offsets[t + 1]]
    _average(weights, ends, mask, split, course.path[t], course.path[t + 1], course.drifts[t])
    if course.pushes.shape[0] > 0:
        for j in range(course.pushes.shape[1]):
            course.path[t + 1, j] += course.pushes[t, j]
    if start.gradients.shape[0] > 0:
        _weighted_sum(weights, start.gradients, course.gradients[t])
        objective = weights[0] * start.losses[0]
        for k in range(1, weights.size):
            objective += weights[k] * start.losses[k]
        course.objectives[t] = objective


@outer
def train(
    data: Data,
    shape: Shape,
    ridges: Ridges,
    wanted: Wanted,
    clients: IntArray,
    start: Start,
    rule: Rule,
    local_steps: int,
    batches: Batches,
    record: Record,
    course: Course,
) -> Array:
    """Return the parameters of every client after the local steps of the last round, (P, D).

    Without local steps the objectives and gradients at the start are all that is computed; of
    minibatches (several queries) the objectives are NaN, because nobody asks for them. In whole
    rounds clients start at `course.path`, on full batches; those of all rounds stand one after the
    other, and the mask has a row for as many as take part at once.
    """
    rounds = course.drifts.shape[0]
    most = rule.mask.shape[0] if rounds > 0 else clients.size
    room, ends = make_room(data, shape), np.empty((most, start.points.shape[1]))
    step, asked = np.empty(ends.shape[1]), start.gradients.shape[0] > 0
    recorded, minibatch = record.iterates.shape[0] > 0, batches.chosen.size > 0
    for t in range(max(rounds, 1)):
        known = start.known and t == 0
        first = course.offsets[t] if rounds > 0 else 0
        last = course.offsets[t + 1] if rounds > 0 else clients.size
        for k in range(last - first):
            flat, own, each = ends[k], client_of(data, clients[first + k]), 0
            begin = start.points[min(k, start.points.shape[0] - 1)]
            _copy(course.path[t] if rounds > 0 else begin, flat)
            if minibatch:
                each = (batches.offsets[k + 1] - batches.offsets[k]) // max(local_steps, 1)
            for e in range(max(local_steps, 1)):
                # One call site: a second pass over the full data only where it is recorded.
                for full in range(2 if recorded and minibatch else 1):
                    if e == 0 and known:
                        _copy(start.gradients[k], step)
                        continue
                    used = own
                    if minibatch and full == 0:
                        at = batches.offsets[k] + e * each
                        used = gather(own, batches.chosen[at : at + each], batches.room)
                    target = record.full_gradients[e, k] if full == 1 else step
                    asks = Wanted(wanted.loss and e == 0, wanted.kernel, wanted.value)
                    loss = client_gradient(flat, used, shape, ridges, asks, room, target)
                    if asked and e == 0 and full == 0:
                        start.losses[k] = loss
                        _copy(step, start.gradients[k])
                if e == local_steps:
                    break
                if recorded:
                    _copy(flat, record.iterates[e, k])
                    _copy(step, record.gradients[e, k])
                _move(flat, step, rule, k)
        if rounds > 0:
            _end_round(course, t, ends, start, rule.mask[0], kernel_size(shape))
    return ends


@outer
def train_values(
    hessians: Array,
    linears: Array,
    clients: IntArray,
    starts: Array,
    rule: Rule,
    local_steps: int,
    record: Record,
    course: Course,
) -> Array:
    """`train` on the value block alone: F_i is ½⟨V, A_iV⟩ − ⟨C_i, V⟩ + const at a fixed kernel.

    Parameters
    ----------
    hessians : array, shape (C, Hd, Hd)
        A_i.
    linears : array, shape (C, Hd, m)
        C_i.
    clients : array of int, shape (P,), or (Σ P_t,) of all rounds one after the other
    starts : array, shape (P, Hd·m)
        Value entries only, as in `rule`, `record` and `course`.
    """
    _, size, outputs = linears.shape
    ends, step = np.empty((rule.mask.shape[0], size * outputs)), np.empty((size, outputs))
    recorded, flat_step = record.iterates.shape[0] > 0, vector(step, 0, step.size)
    rounds, nothing = course.drifts.shape[0], ends[:0]
    for t in range(max(rounds, 1)):
        first = course.offsets[t] if rounds > 0 else 0
        last = course.offsets[t + 1] if rounds > 0 else clients.size
        for k in range(last - first):
            i, flat = clients[first + k], ends[k]
            linear = vector(linears[i], 0, size * outputs)
            _copy(course.path[t] if rounds > 0 else starts[k], flat)
            for e in range(local_steps):
                multiply(hessians[i], matrix(flat, 0, size, outputs), step)
                for j in range(flat.size):
                    flat_step[j] -= linear[j]
                if recorded:
                    _copy(flat, record.iterates[e, k])
                    _copy(flat_step, record.gradients[e, k])
                _move(flat, flat_step, rule, k)
        if rounds > 0:
            start = Start(starts, nothing, course.objectives, False)
            _end_round(course, t, ends, start, rule.mask[0], 0)
    return ends
