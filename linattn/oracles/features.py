"""Representations of the single-layer model, computed from sequence statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from linattn._typing import Array, IntArray
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
                values, vectors = np.linalg.eigh(held.query_moments()[part])
                roots = np.sqrt(np.maximum(values, 0.0))
                self._queries[client] = (vectors * roots[:, None]) @ vectors.transpose(0, 2, 1)
        return self._queries[client]

    def rows(
        self, client: int, flat: Array, batch: IntArray | None = None
    ) -> tuple[Array, Callable[[Array], Array]]:
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
            return _to_flat(params, stacked.T @ sides)

        return features.reshape(len(gram), -1), pull_back

    def work(self, trained: frozenset[str]) -> Work:
        """Two products per head and sequence, and two more for the gradient in the kernel."""
        heads, dim, _ = self.layout.shapes["value"]
        queries = dim if self.problem.statistics.query is None else 1
        products = 2 if trained & self.layout.kernel_blocks else 1
        return Work(0, 2 * products * heads * queries * dim * dim, 0)


def _to_flat(params: Params, kernel_gradient: Array) -> Array:
    """The flat gradient from that in B: ∂Q_h = ∂B_h K_h, ∂K_h = ∂B_hᵀ Q_h; zero in V."""
    out = np.zeros(params.layout.size)
    parts = {"kernel": kernel_gradient}
    if params.is_factored:
        parts = {
            "query": kernel_gradient @ params["key"],
            "key": kernel_gradient.transpose(0, 2, 1) @ params["query"],
        }
    for name, part in parts.items():
        out[params.layout.slices[name]] = part.reshape(-1)
    return out
