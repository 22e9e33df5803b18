"""The model: single-layer linear attention, its sequence statistics and its predictions.

    Ŷ = Σ_h U B_h G V_h,   G = XᵀX/n      (theory section 1)

A sequence has tokens X (n, d); the readout chooses the queries U: every token, the mean token, or
the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from linattn._checks import as_float64, one_of
from linattn._typing import AnyArray, Array
from linattn.types import READOUTS, Params, Statistics

Tokens = Array | Sequence[Array]
Predictions = Array | Sequence[Array]


def queries(tokens: Array, readout: str) -> Array:
    """Return the queries U of stacked sequences.

    Parameters
    ----------
    tokens : array, shape (S, n, d)
    readout : {"token", "mean", "last"}

    Returns
    -------
    array, shape (S, q, d)
        q = n for ``token``, 1 otherwise.
    """
    if readout == "token":
        return tokens
    return tokens.mean(axis=1, keepdims=True) if readout == "mean" else tokens[:, -1:]


def gram_matrices(tokens: Array) -> Array:
    """Return G = XᵀX/n of stacked sequences (S, n, d) as (S, d, d), exactly symmetric."""
    gram = tokens.transpose(0, 2, 1) @ tokens / tokens.shape[1]
    return np.asarray(0.5 * (gram + gram.transpose(0, 2, 1)))


def sequence_statistics(tokens: Array, targets: Array, readout: str) -> Statistics:
    """Return the statistics of sequences of one length.

    Parameters
    ----------
    tokens : array, shape (S, n, d)
    targets : array, shape (S, q, m)
    readout : {"token", "mean", "last"}

    Notes
    -----
    Source: theory section 1. Cost: O(S n d (d + m)); nothing after it depends on n.
    """
    gram = gram_matrices(tokens)
    energy = np.einsum("sqm,sqm->s", targets, targets) / targets.shape[1]
    chosen = queries(tokens, readout)
    if readout == "token":
        cross = chosen.transpose(0, 2, 1) @ targets / targets.shape[1]
        return Statistics(gram, np.ascontiguousarray(cross), None, None, energy)
    query = np.ascontiguousarray(chosen[:, 0])
    return Statistics(gram, None, query, np.ascontiguousarray(targets[:, 0]), energy)


def stack_statistics(parts: Iterable[Statistics]) -> Statistics:
    """Join statistics of the same readout, in order."""
    held = list(parts)

    def joined(arrays: list[Array | None]) -> Array | None:
        present = [a for a in arrays if a is not None]
        return np.concatenate(present) if present else None

    return Statistics(
        np.concatenate([part.gram for part in held]),
        joined([part.cross for part in held]),
        joined([part.query for part in held]),
        joined([part.target for part in held]),
        np.concatenate([part.energy for part in held]),
    )


def by_length(lengths: Sequence[int]) -> list[AnyArray]:
    """Index arrays of the sequences of equal length, so each group is one stacked array."""
    sizes = np.asarray(lengths)
    return [np.flatnonzero(sizes == n) for n in np.unique(sizes)]


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
        sequences = [as_float64(f"{name}[{s}]", x, ndim=2) for s, x in enumerate(tokens)]
    if not sequences:
        raise ValueError(f"{name} must hold at least one sequence, got none.")
    for s, x in enumerate(sequences):
        if 0 in x.shape or x.shape[1] != sequences[0].shape[1]:
            raise ValueError(
                f"{name}[{s}] must have shape (n >= 1, {sequences[0].shape[1]}), got {x.shape}."
            )
    return sequences


def predict(params: Params, tokens: Tokens, *, readout: str = "token") -> Array | list[Array]:
    """Return the predictions Ŷ = Σ_h U B_h G V_h.

    Parameters
    ----------
    params : Params
        Merged or factored.
    tokens : array, shape (S, n, d), or list of arrays (n_s, d)
    readout : {"token", "mean", "last"}

    Returns
    -------
    array, shape (S, q, m), or list of arrays (n_s, m)
        A list only for ragged sequences under the token readout; q = 1 for mean and last.

    Raises
    ------
    TypeError, ValueError
        If the tokens are not finite float64, or their width is not the d of `params`.

    Notes
    -----
    Source: theory section 1. Cost: O(S (n d² + H d² m)).
    """
    one_of("readout", readout, READOUTS)
    sequences = check_tokens("tokens", tokens)
    if "value" not in params.layout.slices:
        raise ValueError(
            "params must be of the single-layer model (a block 'value'), got those of another one; "
            "use its own predict."
        )
    dim = params.value.shape[1]
    if sequences[0].shape[1] != dim:
        raise ValueError(f"tokens must have {dim} channels, got {sequences[0].shape[1]}.")
    out: list[Array] = [np.empty(0)] * len(sequences)
    for index in by_length([len(x) for x in sequences]):
        stacked = np.stack([sequences[s] for s in index])
        values = gram_matrices(stacked)[:, None] @ params.value
        product = queries(stacked, readout) @ (params.kernels() @ values).sum(axis=1)
        for s, prediction in zip(index, product, strict=True):
            out[s] = prediction
    same = len({len(y) for y in out}) == 1
    return np.stack(out) if same else out


def _pairs(predictions: Predictions, targets: Any) -> list[Any]:
    if len(targets) != len(predictions):
        raise ValueError(
            f"targets must hold {len(predictions)} entries, one per sequence, got {len(targets)}."
        )
    return list(zip(predictions, targets, strict=True))


def loss(params: Params, tokens: Tokens, targets: Any, *, readout: str = "token") -> float:
    """Return the mean over sequences of ℓ = (1/2q)‖Ŷ − Y‖², without ridges.

    Parameters
    ----------
    params : Params
    tokens : array, shape (S, n, d), or list of arrays (n_s, d)
    targets : array, shape (S, q, m), or (S, m) when q = 1, or a list
    readout : {"token", "mean", "last"}

    Raises
    ------
    TypeError, ValueError
        If a target is not finite float64 or does not fit its prediction.

    Notes
    -----
    Source: theory section 1.
    """
    return mean_loss(predict(params, tokens, readout=readout), targets)


def mean_loss(predictions: Predictions, targets: Any) -> float:
    """Return the mean over sequences of (1/2q)‖Ŷ − Y‖² of given predictions; see `loss`."""
    total = 0.0
    pairs = _pairs(predictions, targets)
    for s, (prediction, target) in enumerate(pairs):
        answer = as_float64(f"targets[{s}]", target)
        if answer.ndim == 1 and len(prediction) == 1:
            answer = answer[None]
        if answer.shape != prediction.shape:
            raise ValueError(
                f"targets[{s}] must have shape {prediction.shape} (queries, outputs), "
                f"got {np.shape(target)}."
            )
        error = prediction - answer
        total += 0.5 * float(np.vdot(error, error)) / len(prediction)
    return total / len(pairs)


def accuracy(params: Params, tokens: Tokens, labels: Any, *, readout: str = "mean") -> float:
    """Return the share of queries whose largest output is the right class, in [0, 1].

    Parameters
    ----------
    params : Params
    tokens : array, shape (S, n, d), or list of arrays (n_s, d)
    labels : array of int, shape (S,), or one-hot targets of shape (S, m) or (S, q, m)
    readout : {"token", "mean", "last"}

    Raises
    ------
    ValueError
        If there is not one label (or one-hot row) per query.
    """
    return share_right(predict(params, tokens, readout=readout), labels)


def share_right(predictions: Predictions, labels: Any) -> float:
    """Return the share of right queries of given predictions; see `accuracy`."""
    right = total = 0
    for prediction, target in _pairs(predictions, labels):
        answer = np.asarray(target)
        classes = answer.reshape(-1) if answer.size == len(prediction) else answer.argmax(axis=-1)
        guess = prediction.argmax(axis=-1)
        if np.size(classes) != guess.size:
            raise ValueError(
                f"labels must give {guess.size} classes per sequence, got {np.size(classes)}."
            )
        right += int((guess == np.reshape(classes, guess.shape)).sum())
        total += guess.size
    return right / total
