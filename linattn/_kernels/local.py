"""Compiled local training: all local steps of all participants of a round in one call."""

from typing import NamedTuple

import numpy as np

from linattn._kernels.gradients import client_gradient, make_room
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
) -> Array:
    """Return the parameters of every client after its local steps, (P, D).

    Without local steps the objectives and gradients at the start are all that is computed; of
    minibatches (several queries) the objectives are NaN, because nobody asks for them.
    """
    room, ends = make_room(data, shape), np.empty((clients.size, start.points.shape[1]))
    step, asked = np.empty(ends.shape[1]), start.gradients.shape[0] > 0
    recorded, minibatch = record.iterates.shape[0] > 0, batches.chosen.size > 0
    for k in range(clients.size):
        flat, own = ends[k], client_of(data, clients[k])
        _copy(start.points[min(k, start.points.shape[0] - 1)], flat)
        each = 0
        if minibatch:
            each = (batches.offsets[k + 1] - batches.offsets[k]) // max(local_steps, 1)
        for e in range(max(local_steps, 1)):
            # One call site: a second pass over the full data only where it is recorded.
            for full in range(2 if recorded and minibatch else 1):
                if e == 0 and start.known:
                    _copy(start.gradients[k], step)
                    continue
                used = own
                if minibatch and full == 0:
                    at = batches.offsets[k] + e * each
                    used = gather(own, batches.chosen[at : at + each], batches.room)
                target = record.full_gradients[e, k] if full == 1 else step
                loss = client_gradient(flat, used, shape, ridges, wanted, room, target)
                if asked and e == 0 and full == 0:
                    start.losses[k] = loss
                    _copy(step, start.gradients[k])
            if e == local_steps:
                break
            if recorded:
                _copy(flat, record.iterates[e, k])
                _copy(step, record.gradients[e, k])
            _move(flat, step, rule, k)
    return ends


@outer
def value_round(
    hessians: Array,
    linears: Array,
    starts: Array,
    rule: Rule,
    local_steps: int,
    record: Record,
) -> Array:
    """Local steps on the value block alone: F_i is ½⟨V, A_iV⟩ − ⟨C_i, V⟩ + const at a fixed kernel.

    Parameters
    ----------
    hessians : array, shape (P, Hd, Hd)
        A_i of the participants.
    linears : array, shape (P, Hd, m)
        C_i of the participants.
    starts : array, shape (P, Hd·m)
        Value entries only, as in `rule` and `record`.
    """
    participants, size, outputs = linears.shape
    ends, step = starts.copy(), np.empty((size, outputs))
    recorded, flat_step = record.iterates.shape[0] > 0, vector(step, 0, step.size)
    for k in range(participants):
        flat, linear = ends[k], vector(linears[k], 0, size * outputs)
        for e in range(local_steps):
            multiply(hessians[k], matrix(flat, 0, size, outputs), step)
            for j in range(flat.size):
                flat_step[j] -= linear[j]
            if recorded:
                _copy(flat, record.iterates[e, k])
                _copy(flat_step, record.gradients[e, k])
            _move(flat, flat_step, rule, k)
    return ends
