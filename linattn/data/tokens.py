"""From tokens to a `Problem`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from linattn._checks import as_float64, one_of, real
from linattn._threads import one_blas_thread
from linattn._typing import Array, IntArray
from linattn.attention import (
    as_answer,
    by_length,
    check_queries,
    check_tokens,
    sequence_statistics,
    stack_statistics,
)
from linattn.clients import check_weights
from linattn.types import OWN_QUERIES, READOUTS, Problem, Statistics

# Doubles of tokens that are stacked at a time (32 MiB).
CHUNK_ENTRIES = 2**22

ClientData = tuple[Any, ...]
Stacked = tuple[Array, Array, Array | None]


class ClientArrays(NamedTuple):
    """One client's sequences: tokens (n_s, d), targets (q_s, m), queries (q_s, d) of their own."""

    tokens: list[Array]
    targets: list[Array]
    queries: list[Array] | None


def problem_from_tokens(
    clients: Iterable[ClientData],
    *,
    value_ridge: float,
    kernel_ridge: float,
    readout: str | None = None,
    weights: Sequence[float] | str | None = None,
) -> Problem:
    """Return the federated problem of the given data.

    Parameters
    ----------
    clients : iterable of (tokens, targets) or of (tokens, targets, queries)
        One per client: tokens (S, n, d) or a list of (n_s, d); targets (S, q, m), or (S, m) when
        q = 1, or (S, q) when m = 1, or a list; memory-mapped arrays are read a few sequences at a
        time. q is n for the token readout and 1 for mean and last; queries (S, q, d) or a list of
        (q_s, d) replace those of a readout. Clients are read one at a time and their tokens are
        not kept.
    value_ridge : float
        λ > 0 of (λ/2)‖V‖².
    kernel_ridge : float
        μ ≥ 0 of (μ/2)‖kernel parameters‖². With μ = 0 the kernel profile need not have a minimizer.
    readout : {"token", "mean", "last", "queries"}
        Which tokens are queries. Default ``queries`` where clients bring them, else ``token``.
    weights : None, "equal" or sequence of float
        p_i: proportional to the numbers of sequences, equal, or given (positive, summing to one).

    Raises
    ------
    TypeError, ValueError
        If data is not finite float64, a shape does not fit, a client is empty, or a weight or ridge
        is out of range.

    Notes
    -----
    Source: Model. Cost: O(S n d (d + m)) once; nothing afterwards depends on n. One
    query per sequence keeps u and y of rank one, several keep M = UᵀU/q. BLAS runs on one thread,
    so that bits do not depend on how many there are.

    Examples
    --------
    One client, one sequence of one token x = 2 with target 3: G = 4, K = 6, c = 9.

    >>> problem = problem_from_tokens([([[[2.0]]], [[[3.0]]])], value_ridge=1, kernel_ridge=1)
    >>> problem.statistics.gram.item(), problem.statistics.cross.item()
    (4.0, 6.0)
    """
    if readout is not None:
        one_of("readout", readout, (*READOUTS, OWN_QUERIES))
    value_ridge = real("value_ridge", value_ridge, above=0.0)
    kernel_ridge = real("kernel_ridge", kernel_ridge, minimum=0.0)
    parts: list[Statistics] = []
    shape: tuple[int, int] | None = None
    if not np.iterable(clients):
        raise ValueError(f"clients must be an iterable of tuples, got {clients!r}.")
    for i, client in enumerate(clients):
        if readout is None:
            brings = isinstance(client, (tuple, list)) and len(client) == 3
            readout = OWN_QUERIES if brings else READOUTS[0]
        held = _client_statistics(read_client(f"clients[{i}]", client, readout), readout)
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
        str(readout),
    )


def read_client(name: str, client: Any, readout: str) -> ClientArrays:
    """Return the sequences, targets and queries of one client, checked.

    Raises
    ------
    TypeError, ValueError
        If the client has other parts than the readout asks for, is empty, or its data is not finite
        float64 of fitting shapes.
    """
    parts = ("tokens", "targets", "queries")[: 3 if readout == OWN_QUERIES else 2]
    if not isinstance(client, (tuple, list)) or len(client) != len(parts):
        count = f" of {len(client)}" if isinstance(client, (tuple, list)) else ""
        raise ValueError(
            f"{name} must be {'a pair' if len(parts) == 2 else 'three'} ({', '.join(parts)}), got "
            f"{type(client).__name__}{count} for readout {readout!r}."
        )
    for part, data in zip(parts, client, strict=True):
        if not hasattr(data, "__len__"):
            raise ValueError(f"{name} {part} must be an array or a list of arrays, got {data!r}.")
    if len(client[0]) == 0:
        raise ValueError(f"{name} must hold at least one sequence, got none.")
    tokens = check_tokens(f"{name} tokens", client[0])
    own = None if len(parts) == 2 else check_queries(f"{name} queries", client[2], tokens)
    if own is not None:
        counts = [len(u) for u in own]
    else:
        counts = [len(x) if readout == "token" else 1 for x in tokens]
    return ClientArrays(tokens, _check_targets(f"{name} targets", client[1], counts), own)


def _client_statistics(client: ClientArrays, readout: str) -> Statistics:
    """Statistics of one client, sequences in their order."""
    shapes = np.array([(len(x), len(y)) for x, y in zip(*client[:2], strict=True)])

    def stack(index: IntArray) -> Stacked:
        tokens, targets = (np.stack([part[s] for s in index]) for part in client[:2])
        own = client.queries
        return tokens, targets, None if own is None else np.stack([own[s] for s in index])

    return grouped_statistics(shapes, client.tokens[0].shape[1], stack, readout)


def grouped_statistics(
    shapes: IntArray, dim: int, stack: Callable[[IntArray], Stacked], readout: str
) -> Statistics:
    """Return the statistics of sequences, in their order.

    Those of one shape are stacked a few at a time, so that data on disk never lie in memory as a
    whole.

    Parameters
    ----------
    shapes : array of int, shape (S, 2)
        n and q of every sequence.
    dim : int
        d.
    stack : callable (index (k,)) -> tokens (k, n, d), targets (k, q, m), queries (k, q, d) or None
        Called with sequences of one shape.
    readout : {"token", "mean", "last", "queries"}
    """
    largest = np.maximum(shapes.max(axis=1), dim) * dim  # a Gram matrix counts as well
    groups = [
        index[start : start + step]
        for index in by_length(shapes)
        for step in [max(1, CHUNK_ENTRIES // int(largest[index[0]]))]
        for start in range(0, len(index), step)
    ]
    several = readout == OWN_QUERIES and bool((shapes[:, 1] > 1).any())
    whole: Statistics | None = None
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        for index in groups:
            tokens, targets, own = stack(index)
            part = sequence_statistics(tokens, targets, readout, own)
            _refuse_overflow(part)
            part = part.spelled_out() if several else part
            if len(groups) == 1:
                return part
            if whole is None:
                whole = Statistics._make(
                    None if a is None else np.empty((len(shapes), *a.shape[1:])) for a in part
                )
            for array, rows in zip(whole, part, strict=True):
                if array is not None:
                    array[index] = rows
    assert whole is not None
    return whole


def _refuse_overflow(part: Statistics) -> None:
    for array in part:
        if array is not None and not np.isfinite(array).all():
            raise ValueError(
                "tokens, targets and queries must be so small that sums of their products are "
                "finite, got an overflow; scale them."
            )


def _check_targets(name: str, targets: Any, counts: Sequence[int]) -> list[Array]:
    """Return targets as one (q, m) array per sequence, q given by `counts`."""
    if len(targets) != len(counts):
        raise ValueError(
            f"{name} must hold {len(counts)} entries, one per sequence, got {len(targets)}."
        )
    if isinstance(targets, np.ndarray) and targets.dtype != object:
        as_float64(name, targets, ndim=(2, 3))
    answers: list[Array] = []
    for s, (num_queries, target) in enumerate(zip(counts, targets, strict=True)):
        answer = as_answer(f"{name}[{s}]", target, num_queries)
        outputs = answers[0].shape[-1] if answers else answer.shape[-1]
        if answer.shape != (num_queries, outputs) or outputs == 0:
            raise ValueError(
                f"{name}[{s}] must have shape ({num_queries}, {outputs or 'm >= 1'}) "
                f"(queries, outputs), got {np.shape(target)}."
            )
        answers.append(answer)
    return answers
