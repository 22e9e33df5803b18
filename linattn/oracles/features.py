"""Representations of the single-layer model, computed from sequence statistics."""

from __future__ import annotations

import numpy as np

from linattn._typing import Array, IntArray
from linattn.linalg import square_root
from linattn.objectives.population import kernel_slope
from linattn.oracles.protocol import Features
from linattn.oracles.work import Work
from linattn.types import Layout, Params, Problem


class StatisticsFeatures:
    """U B_h G, heads side by side: the features that the value block multiplies.

    Tokens are gone, but inner products of features need M = UᵀU/q alone: rows N B_h G with NᵀN = M
    have all inner products (divided by q) of the true ones. N is uᵀ where there is one query per
    sequence and the symmetric square root of M otherwise.
    """

    def __init__(self, problem: Problem, layout: Layout) -> None:
        self.problem = problem
        self.layout = layout
        self._queries: dict[int, Array] = {}

    def _query_rows(self, client: int) -> Array:
        """N of every sequence of a client, (S, q', d)."""
        if client not in self._queries:
            held, part = self.problem.statistics, self.problem.client(client)
            if held.query is not None:
                self._queries[client] = held.query[part][:, None, :]
            else:
                self._queries[client] = square_root(held.query_moments()[part])
        return self._queries[client]

    def of(self, client: int, flat: Array, batch: IntArray | None = None) -> Features:
        """Return rows (S, q'·H·d) and their pull-back to a flat gradient."""
        chosen = slice(None) if batch is None else batch
        queries = self._query_rows(client)[chosen]
        gram = self.problem.statistics.gram[self.problem.client(client)][chosen]
        params = Params(self.layout, flat)
        kernels = params.kernels()
        features = queries[:, None] @ (kernels @ gram[:, None])  # (S, H, q', d)

        def pull_back(cotangent: Array) -> Array:
            through = cotangent.reshape(features.shape) @ gram[:, None]
            # Heads first, so that one product of each sums over sequences and queries.
            stacked = queries.reshape(-1, queries.shape[-1])
            sides = through.transpose(1, 0, 2, 3).reshape(len(kernels), *stacked.shape)
            slope = kernel_slope(params, stacked.T @ sides)
            return np.concatenate([slope, np.zeros(params.value.size)])

        return Features(features.reshape(len(gram), -1), pull_back)

    def work(self, trained: frozenset[str]) -> Work:
        """Two products per head and sequence, and two more for the gradient in the kernel."""
        heads, dim, _ = self.layout.shapes["value"]
        queries = dim if self.problem.statistics.query is None else 1
        products = 2 if trained & self.layout.kernel_blocks else 1
        return Work(0, 2 * products * heads * queries * dim * dim, 0)
