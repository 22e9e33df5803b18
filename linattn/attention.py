"""The model: single-layer linear attention, its sequence statistics and its predictions.

    Ŷ = Σ_h U B_h G V_h,   G = XᵀX/n      (notes, Model)

A sequence has tokens X (n, d); the readout chooses the queries U: every token, the mean token, the
last one, or queries that the data bring themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from linattn._checks import as_float64, listing, one_of, refuse_masked
from linattn._threads import one_blas_thread
from linattn._typing import AnyArray, Array
from linattn.linalg import finite_or_inf
from linattn.params import is_single_layer
from linattn.types import OWN_QUERIES, READOUTS, Params, Statistics

Tokens = Array | Sequence[Array]
Predictions = Array | Sequence[Array]


def check_readout(readout: Any, queries_given: bool, *, usual: str = "token") -> str:
    """Return the readout: ``queries`` if and only if queries are given, `usual` if nothing is said.

    Raises
    ------
    ValueError
        If it is no readout, or asks for queries that are not there, or the other way round.
    """
    if readout is None:
        return OWN_QUERIES if queries_given else usual
    chosen = one_of("readout", readout, (*READOUTS, OWN_QUERIES))
    if (chosen == OWN_QUERIES) != queries_given:
        given = "were" if queries_given else "were not"
        raise ValueError(
            f"readout must be {OWN_QUERIES!r} exactly where queries are given, got {chosen!r} and "
            f"queries {given} given."
        )
    return chosen


def readout_queries(tokens: Array, readout: str) -> Array:
    """Return the queries U of stacked sequences.

    Parameters
    ----------
    tokens : array, shape (..., n, d)
    readout : {"token", "mean", "last"}

    Returns
    -------
    array, shape (..., q, d)
        q = n for ``token``, 1 otherwise.
    """
    if readout == "token":
        return tokens
    return tokens.mean(axis=-2, keepdims=True) if readout == "mean" else tokens[..., -1:, :]


def gram_matrices(tokens: Array) -> Array:
    """Return G = XᵀX/n of stacked sequences (S, n, d) as (S, d, d), exactly symmetric."""
    gram = tokens.transpose(0, 2, 1) @ tokens / tokens.shape[1]
    return np.asarray(0.5 * (gram + gram.transpose(0, 2, 1)))


def sequence_statistics(
    tokens: Array, targets: Array, readout: str, own: Array | None = None
) -> Statistics:
    """Return the statistics of sequences of one length.

    Parameters
    ----------
    tokens : array, shape (S, n, d)
    targets : array, shape (S, q, m)
    readout : {"token", "mean", "last", "queries"}
    own : array, shape (S, q, d)
        The queries of their own (``queries``).

    Notes
    -----
    Source: Model. Cost: O(S n d (d + m)); nothing after it depends on n.
    """
    gram = gram_matrices(tokens)
    energy = np.einsum("sqm,sqm->s", targets, targets) / targets.shape[1]
    chosen = readout_queries(tokens, readout) if own is None else own
    if readout != "token" and chosen.shape[1] == 1:
        query = np.ascontiguousarray(chosen[:, 0])
        return Statistics(gram, None, query, np.ascontiguousarray(targets[:, 0]), energy)
    cross = np.ascontiguousarray(chosen.transpose(0, 2, 1) @ targets / targets.shape[1])
    moment = None if readout == "token" else gram_matrices(chosen)
    return Statistics(gram, cross, None, None, energy, moment)


def stack_statistics(parts: Iterable[Statistics]) -> Statistics:
    """Join statistics of the same readout, in order.

    Where some have one query of their own and others several, M and K are written out for all.
    """
    held = list(parts)
    if any(part.moment is not None for part in held):
        held = [part.spelled_out() for part in held]
    columns = zip(*held, strict=True)
    return Statistics._make(None if c[0] is None else np.concatenate(c) for c in columns)


def by_length(lengths: Sequence[int] | AnyArray) -> list[AnyArray]:
    """Index arrays of the sequences of equal length, so each group is one stacked array.

    Lengths (S,), or rows (S, k) of several that must all be equal.
    """
    kinds, kind = np.unique(np.asarray(lengths), axis=0, return_inverse=True)
    kind = kind.reshape(-1)  # a column in NumPy 2.0.0
    order = np.argsort(kind, kind="stable")
    return np.split(order, np.cumsum(np.bincount(kind, minlength=len(kinds)))[:-1])


def check_tokens(name: str, tokens: Any) -> list[Array]:
    """Return sequences as a list of (n_s, d) arrays of one width.

    Raises
    ------
    TypeError, ValueError
        If the tokens are not finite float64, empty, or of different widths.
    """
    if isinstance(tokens, np.ndarray) and tokens.dtype != object:
        sequences = list(as_float64(name, tokens, ndim=3))
    else:
        given = listing(name, tokens)
        sequences = [as_float64(f"{name}[{s}]", x, ndim=2) for s, x in enumerate(given)]
    if not sequences:
        raise ValueError(f"{name} must hold at least one sequence, got none.")
    for s, x in enumerate(sequences):
        if 0 in x.shape or x.shape[1] != sequences[0].shape[1]:
            raise ValueError(
                f"{name}[{s}] must have shape (n >= 1, {sequences[0].shape[1] or 'd >= 1'}), got "
                f"{x.shape}."
            )
    return sequences


def check_queries(name: str, own: Any, sequences: Sequence[Array]) -> list[Array]:
    """Return queries as a list of (q_s, d) arrays, one per sequence and as wide as its tokens.

    Raises
    ------
    TypeError, ValueError
        If they are not finite float64, their number is another, or a shape does not fit.
    """
    if not hasattr(own, "__len__"):
        raise ValueError(f"{name} must be an array or a list of arrays, got {own!r}.")
    if len(own) != len(sequences):
        raise ValueError(
            f"{name} must hold {len(sequences)} entries, one per sequence, got {len(own)}."
        )
    checked = check_tokens(name, own)
    dim = sequences[0].shape[1]
    if checked[0].shape[1] != dim:
        raise ValueError(f"{name} must have {dim} channels like the tokens, got "
                         f"{checked[0].shape[1]}.")  # fmt: skip
    return checked


def predict(
    params: Params, tokens: Tokens, *, readout: str | None = None, queries: Tokens | None = None
) -> Array | list[Array]:
    """Return the predictions Ŷ = Σ_h U B_h G V_h.

    Parameters
    ----------
    params : Params
        Merged or factored.
    tokens : array, shape (S, n, d), or list of arrays (n_s, d)
    readout : {"token", "mean", "last", "queries"}
        Default ``token``, or ``queries`` where queries are given.
    queries : array, shape (S, q, d), or list of arrays (q_s, d)
        Queries U of their own, in place of the readout's.

    Returns
    -------
    array, shape (S, q, m), or list of arrays (q_s, m)
        A list only where the numbers of queries differ; q = n for token, 1 for mean and last. Not
        finite beyond the range of floating-point numbers.

    Raises
    ------
    TypeError, ValueError
        If the tokens are not finite float64, or their width is not the d of `params`.

    Notes
    -----
    Source: Model. Cost: O(S (n d² + H d² m)). BLAS runs on one thread, so that bits do
    not depend on how many there are.
    """
    readout = check_readout(readout, queries is not None)
    sequences = check_tokens("tokens", tokens)
    if not is_single_layer(params.layout):
        raise ValueError(
            "params must be of the single-layer model (a block 'value'), got those of another one; "
            "use its own predict."
        )
    dim = params.value.shape[1]
    if sequences[0].shape[1] != dim:
        raise ValueError(f"tokens must have {dim} channels, got {sequences[0].shape[1]}.")
    own = None if queries is None else check_queries("queries", queries, sequences)
    shapes = np.array([(len(x), len(u)) for x, u in zip(sequences, own or sequences, strict=True)])
    out: list[Array] = [np.empty(0)] * len(sequences)
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        for index in by_length(shapes):
            stacked = np.stack([sequences[s] for s in index])
            chosen = None if own is None else np.stack([own[s] for s in index])
            for s, prediction in zip(
                index, _predict(params, stacked, readout, chosen), strict=True
            ):
                out[s] = prediction
    same = len({len(y) for y in out}) == 1
    return np.stack(out) if same else out


def _predict(params: Params, tokens: Array, readout: str, own: Array | None) -> Array:
    """Predictions (S, q, m) of stacked sequences (S, n, d)."""
    mapped = params.kernels() @ (gram_matrices(tokens)[:, None] @ params.value)
    chosen = readout_queries(tokens, readout) if own is None else own
    return np.asarray(chosen @ mapped.sum(axis=1))


def _pairs(predictions: Predictions, name: str, answers: Any) -> list[Any]:
    given = listing(name, answers)
    if len(given) != len(predictions):
        raise ValueError(
            f"{name} must hold {len(predictions)} entries, one per sequence, got {len(given)}."
        )
    return list(zip(predictions, given, strict=True))


def loss(
    params: Params,
    tokens: Tokens,
    targets: Any,
    *,
    readout: str | None = None,
    queries: Tokens | None = None,
) -> float:
    """Return the mean over sequences of ℓ = (1/2q)‖Ŷ − Y‖², without ridges.

    +inf beyond the range of floating-point numbers.

    Parameters
    ----------
    params : Params
    tokens : array, shape (S, n, d), or list of arrays (n_s, d)
    targets : array, shape (S, q, m), or (S, m) when q = 1, or (S, q) when m = 1, or a list
    readout : {"token", "mean", "last", "queries"}
        As in `predict`.
    queries : array, shape (S, q, d), or list of arrays (q_s, d)

    Raises
    ------
    TypeError, ValueError
        If a target is not finite float64 or does not fit its prediction.

    Notes
    -----
    Source: Model. Cost: that of `predict`.
    """
    return mean_loss(predict(params, tokens, readout=readout, queries=queries), targets)


def as_answer(name: str, target: Any, num_queries: int) -> Array:
    """Return the targets of a sequence with both axes: (m,) of one query, or (q,) of one output.

    Raises
    ------
    TypeError, ValueError
        If they are not finite float64 or have another number of axes.
    """
    answer = as_float64(name, target, ndim=(1, 2))
    if answer.ndim == 2:
        return answer
    return answer[None] if num_queries == 1 else answer[:, None]


def mean_loss(predictions: Predictions, targets: Any) -> float:
    """Return the mean over sequences of (1/2q)‖Ŷ − Y‖² of given predictions; see `loss`."""
    total = 0.0
    pairs = _pairs(predictions, "targets", targets)
    for s, (prediction, target) in enumerate(pairs):
        answer = as_answer(f"targets[{s}]", target, len(prediction))
        if answer.shape != prediction.shape:
            raise ValueError(
                f"targets[{s}] must have shape {prediction.shape} (queries, outputs), "
                f"got {np.shape(target)}."
            )
        error = prediction - answer
        total += 0.5 * float(np.vdot(error, error)) / len(prediction)
    return finite_or_inf(total / len(pairs))


def accuracy(
    params: Params,
    tokens: Tokens,
    labels: Any,
    *,
    readout: str | None = None,
    queries: Tokens | None = None,
) -> float:
    """Return the share of queries whose largest output is the right class, in [0, 1].

    Predictions of a query that are not finite are wrong, whatever its class.

    Parameters
    ----------
    params : Params
    tokens : array, shape (S, n, d), or list of arrays (n_s, d)
    labels : array of int, shape (S,) or (S, q), or one-hot targets of shape (S, m) or (S, q, m)
    readout : {"token", "mean", "last", "queries"}
        Default ``mean``, or ``queries`` where queries are given.
    queries : array, shape (S, q, d), or list of arrays (q_s, d)

    Raises
    ------
    TypeError, ValueError
        If there is not one class 0..m − 1 (or row of m with one largest entry) per query, or labels
        are masked, float32 or not finite.

    Notes
    -----
    Source: Model (prediction). Cost: that of `predict`.
    """
    chosen = check_readout(readout, queries is not None, usual="mean")
    return share_right(predict(params, tokens, readout=chosen, queries=queries), labels)


def share_right(predictions: Predictions, labels: Any) -> float:
    """Return the share of right queries of given predictions; see `accuracy`."""
    refuse_masked("labels", labels)
    right = total = 0
    pairs = _pairs(predictions, "labels", labels)
    if isinstance(predictions, np.ndarray) and isinstance(labels, np.ndarray):
        rows = predictions.reshape(-1, predictions.shape[-1])
        if labels.size in (len(rows), rows.size):
            pairs = [(rows, labels)]  # all at once
    for s, (prediction, label) in enumerate(pairs):
        name = "labels" if label is labels else f"labels[{s}]"
        classes = _classes(name, label, *prediction.shape)
        known = np.isfinite(prediction).all(axis=-1)
        right += int((known & (prediction.argmax(axis=-1) == classes)).sum())
        total += len(classes)
    return right / total


def _classes(name: str, label: Any, queries: int, outputs: int) -> Array:
    """The classes (q,) that a label gives, itself or by one-hot rows."""
    answer = as_float64(name, label)
    one_hot = answer.size != queries
    classes = np.asarray(answer.argmax(axis=-1) if one_hot else answer).reshape(-1)
    if len(classes) != queries:
        raise ValueError(f"labels must give {queries} classes per sequence, got {len(classes)}.")
    if one_hot:
        if answer.shape[-1] != outputs:
            raise ValueError(f"{name} must have rows of {outputs} entries, got {answer.shape[-1]}.")
        tied = answer[(answer == answer.max(axis=-1, keepdims=True)).sum(axis=-1) > 1]
        if len(tied):
            raise ValueError(f"{name} must have one largest entry per row, got {tied[0].tolist()}.")
        return classes
    wrong = classes[(classes < 0) | (classes >= outputs) | (classes % 1.0 != 0.0)]
    if wrong.size:
        raise ValueError(f"{name} must be a class from 0 to {outputs - 1}, got {wrong[0]:g}.")
    return classes
