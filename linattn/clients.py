"""What every problem kind knows of its clients: offsets, weights, sizes, and a part of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np

from linattn._checks import as_float64, shown
from linattn._typing import Array, IntArray

WEIGHT_SUM_TOLERANCE = 1e-9


class Clients:
    """Clients that own adjacent sequences; a problem kind adds what the sequences are.

    Attributes
    ----------
    offsets : array of int, shape (C + 1,)
        Client i owns the sequences offsets[i]:offsets[i + 1].
    weights : array, shape (C,)
        p_i > 0, summing to one.
    """

    offsets: IntArray
    weights: Array

    @property
    def num_clients(self) -> int:
        """Number of clients C."""
        return len(self.weights)

    @property
    def num_sequences(self) -> int:
        """Number of sequences of all clients, S."""
        return int(self.offsets[-1])

    @cached_property
    def client_sizes(self) -> IntArray:
        """Number of sequences of each client, (C,)."""
        return np.diff(self.offsets)

    @cached_property
    def sequence_weights(self) -> Array:
        """Weight p_i/n_i of every sequence in F, (S,); sums to one."""
        return np.repeat(self.weights / self.client_sizes, self.client_sizes)

    def client(self, index: int) -> slice:
        """Slice of the sequences of client `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def subset(self, clients: Sequence[int]) -> Self:
        """Return the problem of some clients, with their weights scaled to sum to one.

        Parameters
        ----------
        clients : sequence of int
            Distinct client numbers in the order wanted.

        Raises
        ------
        ValueError
            If the list is empty, repeats a client or names one that does not exist.
        """
        chosen = list(clients)
        whole = all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in chosen)
        known = whole and all(i in range(self.num_clients) for i in chosen)
        if not known or not len(set(chosen)) == len(chosen) > 0:
            raise ValueError(
                f"clients must be distinct numbers in 0..{self.num_clients - 1}, got "
                f"{shown(chosen)}."
            )
        spans = [np.arange(self.num_sequences)[self.client(i)] for i in chosen]
        offsets = np.cumsum([0, *map(len, spans)], dtype=np.int64)
        weights = self.weights[chosen]
        return self.rearranged(np.concatenate(spans), offsets, weights / weights.sum())

    def rearranged(self, index: IntArray, offsets: IntArray, weights: Array) -> Self:
        """Return the problem whose clients hold the sequences `index`, cut at `offsets`."""
        raise NotImplementedError


def check_weights(weights: Any, sizes: IntArray) -> Array:
    """Return client weights p: proportional to `sizes`, equal, or the given ones checked.

    Raises
    ------
    ValueError
        If given weights have the wrong length, are not positive, or do not sum to one within 1e-9.
    """
    num_clients = len(sizes)
    if weights is None:
        return np.asarray(sizes / sizes.sum(), dtype=np.float64)
    if isinstance(weights, str):
        if weights != "equal":
            raise ValueError(f"weights must be None, 'equal' or an array, got {weights!r}.")
        return np.full(num_clients, 1.0 / num_clients)
    array = as_float64("weights", weights, ndim=1).copy()
    if array.size != num_clients:
        raise ValueError(f"weights must have {num_clients} entries, got {array.size}.")
    if not (array > 0).all():
        raise ValueError(f"weights must be positive, got a minimum of {array.min():g}.")
    if abs(array.sum() - 1.0) > WEIGHT_SUM_TOLERANCE:
        raise ValueError(
            f"weights must sum to 1 within {WEIGHT_SUM_TOLERANCE:g}, got {array.sum():.12g}."
        )
    return array
