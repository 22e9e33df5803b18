"""How a single-layer problem answers for its clients: gradients, local training, objectives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from linattn._typing import Array, IntArray
from linattn.linalg import row_norms, square_root, weighted_sum
from linattn.objectives.population import kernel_slope, population
from linattn.oracles.protocol import METRICS, Evaluated, Features, Oracle
from linattn.oracles.training import CompiledTraining
from linattn.oracles.work import Work, statistics_work
from linattn.types import Layout, Params, Problem

if TYPE_CHECKING:
    from linattn._kernels.layout import Data


class StatisticsOracle(CompiledTraining):
    """Oracle of a single-layer `Problem`: compiled local steps on the sequence statistics."""

    metric_names: tuple[str, ...] = METRICS

    def __init__(self, problem: Problem, layout: Layout, *, data: Data | None = None) -> None:
        super().__init__(problem, layout, data)
        self.num_clients = problem.num_clients
        self._queries: dict[int, Array] = {}

    def batch_limit(self, client: int) -> int:
        """Number of sequences of a client."""
        return int(self.problem.client_sizes[client])

    def gradient(self, client: int, flat: Array, batch: IntArray | None = None) -> Array:
        """∇F_i, (D,)."""
        batches = None if batch is None else [batch]
        return np.asarray(self.gradients(np.array([client]), flat[None], batches)[1][0])

    def objective(self, client: int, flat: Array) -> float:
        """F_i from the client's statistics."""
        return float(self.gradients(np.array([client]), flat[None])[0][0])

    def metrics(
        self,
        points: Array,
        names: tuple[str, ...],
        *,
        known: Evaluated | None = None,
        next_round: bool = False,
    ) -> dict[str, Array]:
        """Those of `METRICS` that are asked for, (N,) each; gaps by C1, never by subtraction."""
        wanted, out, value = set(names), {}, self.value
        if {"objective", "kernel_gradient_norm", "value_gradient_norm"} & wanted:
            objectives, slopes = self._evaluated(points, known, next_round)
            out["objective"] = objectives
            out["kernel_gradient_norm"] = row_norms(slopes[:, self.kernel])
            out["value_gradient_norm"] = row_norms(slopes[:, value])
        if {"profile", "gap"} & wanted:
            held, params = population(self.problem), [Params(self.layout, x) for x in points]
            systems = held.value_systems(np.stack([one.kernels() for one in params]))
            out["profile"] = held.profiles_of(params, systems.saved)
            out["gap"] = systems.gaps(points[:, value].reshape(systems.minimizers.shape))
        return {name: out[name] for name in names if name in out}

    def _evaluated(self, points: Array, known: Evaluated | None, next_round: bool) -> Evaluated:
        """F and ∇F at points, at the last of them from what the next round needs anyway."""
        done = 0 if known is None else len(known.objectives)
        parts = [] if known is None else [known]
        last = len(points) - 1 if next_round and done < len(points) else len(points)
        if done < last:
            held = population(self.problem)
            parts.append(Evaluated(*held.values_and_gradients(self.layout, points[done:last])))
        if last < len(points):
            own, weights = self.everybody(points[-1]), self.problem.weights
            objective = weighted_sum(weights, own.objectives[:, None])
            parts.append(Evaluated(objective, weighted_sum(weights, own.gradients)[None]))
        return Evaluated(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def features(
        self, client: int, flat: Array, batch: IntArray | None = None
    ) -> Iterator[Features]:
        """U B_h G of every sequence, heads side by side, (S, q'·H·d): what V multiplies.

        Tokens are gone, but inner products of features need M = UᵀU/q alone: rows N B_h G with
        NᵀN = M have all inner products (divided by q) of the true ones.
        """
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

        yield Features(features.reshape(len(gram), -1), pull_back)

    def _query_rows(self, client: int) -> Array:
        """N, (S, q', d): uᵀ where there is one query per sequence, else the root of M."""
        if client not in self._queries:
            held, part = self.problem.statistics, self.problem.client(client)
            if held.query is not None:
                self._queries[client] = held.query[part][:, None, :]
            else:
                self._queries[client] = square_root(held.query_moments()[part])
        return self._queries[client]

    def predictions(self, client: int, flat: Array) -> Array:
        """Σ_h N B_h G V_h of every sequence, NᵀN = M, (S·q', m)."""
        heads, dim, outputs = self.layout.shapes["value"]
        value = flat[self.value].reshape(heads, dim, outputs)
        (group,) = self.features(client, flat)
        made = (group.rows.reshape(len(group.rows), heads, -1, dim) @ value).sum(axis=1)
        return np.asarray(made.reshape(-1, outputs))

    def with_gates(self, structural: Params) -> Oracle:
        """One layer has no gates."""
        raise TypeError("problem must be a DeepProblem for fed_sq: one layer has no gates.")

    def amount(self, client: int, batch: IntArray | None = None) -> tuple[int, int]:
        """Statistics have no tokens."""
        return 0, self.batch_limit(client) if batch is None else int(batch.size)

    def gradient_work(self, trained: frozenset[str]) -> Work:
        """Multiply-adds on the statistics of sequences, whatever path the code takes."""
        rank_one = self.problem.statistics.query is not None
        return statistics_work(self.layout, trained, rank_one=rank_one)

    def feature_work(self, trained: frozenset[str]) -> Work:
        """Two products per head and sequence, and two more for the gradient in the kernel."""
        heads, dim, _ = self.layout.shapes["value"]
        queries = dim if self.problem.statistics.query is None else 1
        products = 2 if trained & self.layout.kernel_blocks else 1
        return Work(0, 2 * products * heads * queries * dim * dim, 0)
