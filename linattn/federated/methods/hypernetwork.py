"""A hypernetwork from client embeddings to parameter blocks, with its vector–Jacobian products."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.streams import stream


class Hypernetwork(NamedTuple):
    """h(z_i) = a(z_i) head + head_bias with a(z) = z, or ReLU(z hidden + hidden_bias).

    Attributes
    ----------
    embeddings : array, shape (C, e)
    hidden : array, shape (e, k)
        Empty, (e, 0), for a linear hypernetwork, where k = e.
    hidden_bias : array, shape (k,)
    head : array, shape (k, G)
        G is the number of generated entries.
    head_bias : array, shape (G,)
    """

    embeddings: Array
    hidden: Array
    hidden_bias: Array
    head: Array
    head_bias: Array

    @property
    def is_linear(self) -> bool:
        """Whether there is no hidden layer."""
        return bool(self.hidden.shape[1] == 0)

    def activations(self) -> Array:
        """a(z_i) of every client, (C, k)."""
        if self.is_linear:
            return self.embeddings
        return np.maximum(self.embeddings @ self.hidden + self.hidden_bias, 0.0)

    def generate(self) -> Array:
        """h(z_i) of every client, (C, G)."""
        return self.activations() @ self.head + self.head_bias

    def pull_back(self, cotangents: Array) -> Hypernetwork:
        """Return Σ_i (∂h(z_i)/∂·)ᵀ c_i in every part, cotangents (C, G)."""
        active = self.activations()
        to_active = cotangents @ self.head.T
        head, bias = active.T @ cotangents, cotangents.sum(axis=0)
        if self.is_linear:
            return Hypernetwork(to_active, self.hidden, self.hidden_bias, head, bias)
        through = to_active * (active > 0)
        return Hypernetwork(
            through @ self.hidden.T, self.embeddings.T @ through, through.sum(axis=0), head, bias
        )

    def plus(self, other: Hypernetwork, factor: float) -> Hypernetwork:
        """This + factor · other, part by part."""
        return Hypernetwork(*(a + factor * b for a, b in zip(self, other, strict=True)))

    def only(self, names: Collection[str]) -> Hypernetwork:
        """The named parts; zero in all others."""
        parts = {n: a if n in names else np.zeros_like(a) for n, a in self._asdict().items()}
        return Hypernetwork(**parts)


def draw_embeddings(num_clients: int, size: int, seed: int) -> Array:
    """Return z_i with entries N(0, 1/e), so that E‖z_i‖² = 1; client i has its own stream."""
    rows = [stream(seed, "embedding", i).normal(size=size) for i in range(num_clients)]
    return np.asarray(np.stack(rows) / np.sqrt(size))


def make_hypernetwork(
    embeddings: Array, target: Array, *, hidden_dim: int, bias: bool, seed: int
) -> Hypernetwork:
    """Return a hypernetwork that generates `target` for every client, or as nearly as it can.

    With bias it does so exactly: head zero, bias `target`. Without, the head is target ⊗ v with
    the least-squares v of ⟨a(z_i), v⟩ = 1, exact when the activations of all clients are
    independent or all equal (and not zero).

    Parameters
    ----------
    embeddings : array, shape (C, e)
    target : array, shape (G,)
    hidden_dim : int
        k of the hidden layer; 0 is linear. Its weights are N(0, 2/e), stream (seed, "hidden").
    bias : bool
    seed : int
    """
    size = embeddings.shape[1]
    hidden = stream(seed, "hidden").normal(size=(size, hidden_dim)) * np.sqrt(2.0 / size)
    width = hidden_dim or size
    empty = Hypernetwork(
        embeddings, hidden, np.zeros(hidden_dim), np.zeros((width, target.size)), target
    )
    if bias:
        return empty
    active = empty.activations()
    share = np.linalg.lstsq(active, np.ones(len(active)), rcond=None)[0]
    return empty._replace(head=np.outer(share, target), head_bias=np.zeros(target.size))
