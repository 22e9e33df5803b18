"""From tokens to a `Problem`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from linattn._checks import as_float64, one_of, real
from linattn._typing import Array
from linattn.attention import (
    by_length,
    check_tokens,
    sequence_statistics,
    stack_statistics,
)
from linattn.types import READOUTS, Problem, Statistics, check_weights

# Doubles of tokens that are stacked at a time (32 MiB).
CHUNK_ENTRIES = 2**22

ClientData = tuple[Any, Any]


def problem_from_tokens(
    clients: Iterable[ClientData],
    *,
    value_ridge: float,
    kernel_ridge: float,
    readout: str = "token",
    weights: Sequence[float] | str | None = None,
) -> Problem:
    """Return the federated problem of the given data.

    Parameters
    ----------
    clients : iterable of (tokens, targets)
        One pair per client: tokens (S, n, d) or a list of (n_s, d); targets (S, q, m), or (S, m)
        when q = 1, or a list; memory-mapped arrays are read a few sequences at a time. q is n for
        the token readout and 1 otherwise. Clients are read one at a time and their tokens are not
        kept.
    value_ridge : float
        λ > 0 of (λ/2)‖V‖².
    kernel_ridge : float
        μ ≥ 0 of (μ/2)‖kernel parameters‖². With μ = 0 the kernel profile need not have a minimizer.
    readout : {"token", "mean", "last"}
        Which tokens are queries.
    weights : None, "equal" or sequence of float
        p_i: proportional to the numbers of sequences, equal, or given (positive, summing to one).

    Raises
    ------
    TypeError, ValueError
        If data is not finite float64, a shape does not fit, a client is empty, or a weight or ridge
        is out of range.

    Notes
    -----
    Source: theory section 1. Cost: O(S n d (d + m)) once; nothing afterwards depends on n.

    Examples
    --------
    One client, one sequence of one token x = 2 with target 3: G = 4, K = 6, c = 9.

    >>> problem = problem_from_tokens([([[[2.0]]], [[[3.0]]])], value_ridge=1, kernel_ridge=1)
    >>> problem.statistics.gram.item(), problem.statistics.cross.item()
    (4.0, 6.0)
    """
    one_of("readout", readout, READOUTS)
    value_ridge = real("value_ridge", value_ridge, above=0.0)
    kernel_ridge = real("kernel_ridge", kernel_ridge, minimum=0.0)
    parts: list[Statistics] = []
    shape: tuple[int, int] | None = None
    for i, client in enumerate(clients):
        held = _client_statistics(*read_client(f"clients[{i}]", client, readout), readout)
        dim, outputs = held.gram.shape[1], held.cross_moments().shape[2]
        if shape is not None and (dim, outputs) != shape:
            raise ValueError(
                f"clients[{i}] must have {shape[0]} channels and {shape[1]} outputs like the "
                f"others, got {dim} and {outputs}."
            )
        shape = (dim, outputs)
        parts.append(held)
    if not parts:
        raise ValueError("clients must hold at least one client, got none.")
    sizes = np.array([len(part.energy) for part in parts], dtype=np.int64)
    return Problem(
        stack_statistics(parts),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        check_weights(weights, sizes),
        value_ridge,
        kernel_ridge,
        readout,
    )


def read_client(name: str, client: Any, readout: str) -> tuple[list[Array], list[Array]]:
    """Return the sequences (n_s, d) and targets (q, m) of one client, checked.

    Raises
    ------
    TypeError, ValueError
        If the client is not a pair, is empty, or its data is not finite float64 of fitting shapes.
    """
    if not isinstance(client, (tuple, list)) or len(client) != 2:
        raise ValueError(f"{name} must be a pair (tokens, targets), got {type(client).__name__}.")
    tokens, targets = client
    for part, data in (("tokens", tokens), ("targets", targets)):
        if not hasattr(data, "__len__"):
            raise ValueError(f"{name} {part} must be an array or a list of arrays, got {data!r}.")
    if len(tokens) == 0:
        raise ValueError(f"{name} must hold at least one sequence, got none.")
    sequences = check_tokens(f"{name} tokens", tokens)
    return sequences, _check_targets(f"{name} targets", targets, sequences, readout)


def _client_statistics(sequences: list[Array], answers: list[Array], readout: str) -> Statistics:
    """Statistics of one client, sequences in their order.

    Sequences of one length are stacked a few at a time, so that a memory-mapped client never lies
    in memory as a whole.
    """
    groups = [
        index[start : start + step]
        for index in by_length([len(x) for x in sequences])
        for step in [max(1, CHUNK_ENTRIES // sequences[index[0]].size)]
        for start in range(0, len(index), step)
    ]
    parts = [
        sequence_statistics(
            np.stack([sequences[s] for s in index]),
            np.stack([answers[s] for s in index]),
            readout,
        )
        for index in groups
    ]
    if len(parts) == 1:
        return parts[0]
    return stack_statistics(parts).take(np.argsort(np.concatenate(groups)))


def _check_targets(name: str, targets: Any, sequences: list[Array], readout: str) -> list[Array]:
    """Return targets as one (q, m) array per sequence."""
    if len(targets) != len(sequences):
        raise ValueError(
            f"{name} must hold {len(sequences)} entries, one per sequence, got {len(targets)}."
        )
    if isinstance(targets, np.ndarray) and targets.dtype != object:
        as_float64(name, targets, ndim=(2, 3))
    answers: list[Array] = []
    for s, (x, y) in enumerate(zip(sequences, targets, strict=True)):
        answer = as_float64(f"{name}[{s}]", y, ndim=(1, 2))
        num_queries = len(x) if readout == "token" else 1
        if answer.ndim == 1 and num_queries == 1:
            answer = answer[None]
        outputs = answers[0].shape[-1] if answers else answer.shape[-1]
        if answer.shape != (num_queries, outputs) or outputs == 0:
            raise ValueError(
                f"{name}[{s}] must have shape {(num_queries, outputs)} (queries, outputs), "
                f"got {np.shape(y)}."
            )
        answers.append(answer)
    return answers
