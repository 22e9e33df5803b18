"""Rounds in which participants take different numbers of local steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from linattn._typing import Array, IntArray
from linattn.oracles.protocol import LocalTask, LocalTrace

Train = Callable[[LocalTask], tuple[Array, LocalTrace | None]]


def train_unequal(
    train: Train, task: LocalTask, steps: IntArray
) -> tuple[Array, LocalTrace | None]:
    """Train every participant for its own number of local steps, (P, D) ends.

    Those with equal numbers train together; every client is computed alone, so the bits are those
    of one client at a time. A client that has finished stays where it ended in the iterates of the
    trace, and its gradients there are zero: it contributes nothing to later local steps.

    Parameters
    ----------
    train : callable (LocalTask) -> (ends, trace)
    task : LocalTask
        Its `local_steps` is the largest number; the minibatches of participant k are E_k.
    steps : array of int, shape (P,)

    Notes
    -----
    Source: C21. Cost: one call of `train` per distinct number.
    """
    ends, trace = np.empty_like(task.starts), None
    if task.record:
        shape = (task.local_steps, *ends.shape)
        zeros = np.zeros(shape)
        trace = LocalTrace(np.empty(shape), zeros, zeros if task.batches is None else zeros.copy())
    for count in np.unique(steps).tolist():
        where = np.flatnonzero(steps == count)
        ends[where], part = train(task.of(where)._replace(local_steps=count))
        if trace is not None and part is not None:
            trace.iterates[:count, where] = part.iterates
            trace.iterates[count:, where] = ends[where]
            trace.gradients[:count, where] = part.gradients
            trace.full_gradients[:count, where] = part.full_gradients
    return ends, trace
