"""From tokens to a `DeepProblem`: the federated regression problem of a deep model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from linattn._checks import real
from linattn._typing import Array, IntArray
from linattn.attention import by_length
from linattn.clients import Clients, check_weights
from linattn.data.tokens import ClientData, read_client
from linattn.deep import DeepAttention
from linattn.types import Params

if TYPE_CHECKING:
    from linattn.oracles.deep import DeepOracle

RIDGE_GROUPS = ("kernel", "value")
# Where sequences lie: pairs of a group and rows in it.
Rows: TypeAlias = list[tuple[int, IntArray | slice]]


class SequenceGroup(NamedTuple):
    """All sequences of one length.

    Attributes
    ----------
    tokens : array, shape (S, n, d)
    targets : array, shape (S, q, m)
    numbers : array of int, shape (S,)
        Which sequences of the problem they are, increasing.
    """

    tokens: Array
    targets: Array
    numbers: IntArray


@dataclass(frozen=True, eq=False)
class DeepProblem(Clients):
    """A federated regression problem for a deep model: data, weights, ridges; no method.

    Make one with `deep_problem`. The objective of client i is the mean over its sequences of
    ℓ = (1/2q)‖Ŷ − Y‖² plus (μ/2)‖kernel blocks‖² + (λ/2)‖value blocks and readout‖², and
    F = Σ p_i F_i.

    Attributes
    ----------
    model : DeepAttention
    groups : tuple of SequenceGroup
        One per sequence length. A model of several layers has no statistics that replace tokens.
    offsets : array of int, shape (C + 1,)
        Client i owns the sequences offsets[i]:offsets[i + 1].
    weights : array, shape (C,)
        p_i > 0, summing to one.
    kernel_ridge, value_ridge : float
        μ and λ, units of loss per squared parameter.
    """

    model: DeepAttention
    groups: tuple[SequenceGroup, ...]
    offsets: IntArray
    weights: Array
    kernel_ridge: float
    value_ridge: float

    has_profile = False

    def __post_init__(self) -> None:
        for array in (self.offsets, self.weights, *(a for group in self.groups for a in group)):
            array.setflags(write=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, because an unpickled array is writable again.
        values = (self.model, self.groups, self.offsets, self.weights)
        return (DeepProblem, (*values, self.kernel_ridge, self.value_ridge))

    @cached_property
    def ridges(self) -> Array:
        """Ridge of every parameter, (D,): μ on kernel blocks, λ on all others."""
        layout = self.model.layout
        return np.where(layout.mask(layout.kernel_blocks), self.kernel_ridge, self.value_ridge)

    @cached_property
    def places(self) -> IntArray:
        """Group and row of every sequence, (S, 2)."""
        out = np.empty((self.num_sequences, 2), dtype=np.int64)
        for k, group in enumerate(self.groups):
            out[group.numbers, 0] = k
            out[group.numbers, 1] = np.arange(len(group.numbers))
        return out

    @cached_property
    def _client_rows(self) -> list[Rows]:
        """Where all sequences of each client lie; numbers increase, so its rows are adjacent."""
        out: list[Rows] = [[] for _ in range(self.num_clients)]
        for k, group in enumerate(self.groups):
            cuts = np.searchsorted(group.numbers, self.offsets).tolist()
            for client, (start, stop) in enumerate(pairwise(cuts)):
                if start < stop:
                    out[client].append((k, slice(start, stop)))
        return out

    def rows(self, client: int, batch: IntArray | None = None) -> Rows:
        """Where the sequences of a client lie: (group, rows in it), groups increasing.

        Parameters
        ----------
        client : int
        batch : array of int, optional
            Some of the client's sequences, counted from 0 within the client; default all.
        """
        if batch is None:
            return self._client_rows[client]
        place = self.places[self.offsets[client] + batch]
        held = np.unique(place[:, 0]).tolist()
        return [(int(k), place[place[:, 0] == k, 1]) for k in held]

    def oracle(self, params: Params) -> DeepOracle:
        """Return what answers for the clients.

        Raises
        ------
        TypeError, ValueError
            If `params` are not of the problem's model.
        """
        from linattn.oracles.deep import DeepOracle

        self.model.check_params(params)
        return DeepOracle(self)

    def rearranged(self, index: IntArray, offsets: IntArray, weights: Array) -> DeepProblem:
        """Return the problem whose clients hold the sequences `index`, cut at `offsets`."""
        place, groups = self.places[index], []
        for k in np.unique(place[:, 0]).tolist():
            numbers = np.flatnonzero(place[:, 0] == k)
            rows = place[numbers, 1]
            held = self.groups[k]
            groups.append(SequenceGroup(held.tokens[rows], held.targets[rows], numbers))
        ridges = (self.kernel_ridge, self.value_ridge)
        return DeepProblem(self.model, tuple(groups), offsets, weights, *ridges)

    def __repr__(self) -> str:
        lengths = [group.tokens.shape[1] for group in self.groups]
        span = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]}–{lengths[-1]}"
        return (
            f"DeepProblem({self.num_clients} clients, {self.num_sequences} sequences of {span} "
            f"tokens, {self.model!r}, kernel_ridge {self.kernel_ridge:g}, "
            f"value_ridge {self.value_ridge:g})"
        )


def deep_problem(
    model: DeepAttention,
    clients: Iterable[ClientData],
    *,
    ridge: float | Mapping[str, float],
    weights: Sequence[float] | str | None = None,
) -> DeepProblem:
    """Return the federated problem of the given data for a deep model.

    Parameters
    ----------
    model : DeepAttention
        Its readout decides the shape of the targets.
    clients : iterable of (tokens, targets)
        One pair per client: tokens (S, n, d) or a list of (n_s, d); targets (S, q, m), or (S, m)
        when q = 1, or a list. q is n for the token readout and 1 otherwise. Tokens are kept.
    ridge : float or mapping
        ≥ 0, on all parameters, or ``{"kernel": μ, "value": λ}`` for the query and key blocks, and
        the value blocks and the readout.
    weights : None, "equal" or sequence of float
        p_i: proportional to the numbers of sequences, equal, or given (positive, summing to one).

    Raises
    ------
    TypeError, ValueError
        If data is not finite float64, a shape does not fit the model, a client is empty, or a
        weight or ridge is out of range.

    Notes
    -----
    Source: Model, as `DeepAttention` stacks it. Cost: a copy of the data.

    Examples
    --------
    >>> model = DeepAttention(num_layers=2, dim=1, inner_dim=1, num_outputs=1, readout="last")
    >>> problem = deep_problem(model, [([[[2.0]]], [[3.0]])], ridge=0.1)
    >>> problem.num_sequences, problem.groups[0].targets.tolist()
    (1, [[[3.0]]])
    """
    if not isinstance(model, DeepAttention):
        raise TypeError(f"model must be a DeepAttention, got {type(model).__name__}.")
    kernel_ridge, value_ridge = _check_ridge(ridge)
    tokens: list[Array] = []
    targets: list[Array] = []
    sizes: list[int] = []
    for i, client in enumerate(clients):
        sequences, answers, _ = read_client(f"clients[{i}]", client, model.readout)
        model.check_tokens(f"clients[{i}] tokens", sequences)
        if answers[0].shape[1] != model.num_outputs:
            raise ValueError(
                f"clients[{i}] targets must have {model.num_outputs} outputs like the model, "
                f"got {answers[0].shape[1]}."
            )
        tokens, targets, sizes = tokens + sequences, targets + answers, [*sizes, len(sequences)]
    if not sizes:
        raise ValueError("clients must hold at least one client, got none.")
    groups = (
        SequenceGroup(np.stack([tokens[s] for s in k]), np.stack([targets[s] for s in k]), k)
        for k in by_length([len(x) for x in tokens])
    )
    counts = np.array(sizes, dtype=np.int64)
    return DeepProblem(
        model,
        tuple(groups),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        check_weights(weights, counts),
        kernel_ridge,
        value_ridge,
    )


def _check_ridge(ridge: Any) -> tuple[float, float]:
    """The ridges of kernel and value blocks."""
    if not isinstance(ridge, Mapping):
        both = real("ridge", ridge, minimum=0.0)
        return both, both
    if set(ridge) != set(RIDGE_GROUPS):
        raise ValueError(f"ridge must name exactly 'kernel' and 'value', got {sorted(ridge)}.")
    kernel, value = (real(f"ridge[{n!r}]", ridge[n], minimum=0.0) for n in RIDGE_GROUPS)
    return kernel, value
