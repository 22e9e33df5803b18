"""How a `DeepProblem` answers for its clients: gradients from tokens, local steps in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from linattn._typing import Array, BoolArray, IntArray
from linattn.data.deep_tokens import DeepProblem, Rows
from linattn.deep import Trace
from linattn.linalg import row_norms
from linattn.oracles.protocol import (
    Evaluated,
    Features,
    LocalTask,
    LocalTrace,
    explicit_steps,
    steps_together,
)
from linattn.oracles.work import Work, deep_work
from linattn.types import Params

FEW_NUMBERS = 2**16
"""Tokens of all participants that fit into a cache together."""
DEEP_METRICS = ("objective", "kernel_gradient_norm", "value_gradient_norm")


class DeepOracle:
    """Oracle of a `DeepProblem`.

    Parameters
    ----------
    problem : DeepProblem
    structural : Params, optional
        Fixes the gates of ReLU features: they are those of the structural parameters' own forward
        pass, whatever is trained (the DualCopy of FedSQ). For φ = identity there are no gates and
        nothing changes.

    Raises
    ------
    TypeError, ValueError
        If the structural parameters are not of the problem's model.
    """

    metric_names: tuple[str, ...] = DEEP_METRICS

    def __init__(self, problem: DeepProblem, *, structural: Params | None = None) -> None:
        self.problem = problem
        self.model = problem.model
        self.layout = problem.model.layout
        self.num_clients = problem.num_clients
        self._kernel = self.layout.mask(self.layout.kernel_blocks)
        self._gates = None if structural is None else self._structure(structural)

    def _structure(self, structural: Params) -> list[BoolArray] | None:
        """Gates of every group of sequences."""
        self.model.check_params(structural)
        if self.model.feature_map != "relu":
            return None
        traces = (self.model.trace(structural.flat, g.tokens) for g in self.problem.groups)
        return [self.model.open_gates(trace) for trace in traces]

    def batch_limit(self, client: int) -> int:
        """Number of sequences of a client."""
        return int(self.problem.client_sizes[client])

    def traces(
        self, client: int, flat: Array, batch: IntArray | None = None
    ) -> Iterator[tuple[Trace, Array]]:
        """Forward passes over the client's sequences, one per length, each with its targets.

        For methods that add a loss on predictions or features: pull its gradient back through the
        trace with ``model.pull_back``.
        """
        for trace, targets, _ in self._passes(flat, self.problem.rows(client, batch)):
            yield trace, targets

    def gradient(self, client: int, flat: Array, batch: IntArray | None = None) -> Array:
        """∇F_i, (D,): mean sequence loss over all or some sequences, ridges included.

        Notes
        -----
        Cost: about three forward passes of the model over these sequences.
        """
        return self._of_client(client, flat, batch)[1]

    def train(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Local steps one after the other, of all participants at once where that pays."""
        held = self._even_gradients(task)
        return explicit_steps(self, task) if held is None else steps_together(held, task)

    def _even_gradients(self, task: LocalTask) -> Callable[[Array], Array] | None:
        """The gradients of all participants, each at its own point, (P, D) -> (P, D).

        None unless full batches are equally many sequences of one length, and few: passes over
        them cost more calls than arithmetic then.
        """
        if task.batches is not None:
            return None
        places = [self.problem.rows(i) for i in task.participants.tolist()]
        groups = {k for rows in places for k, _ in rows}
        if len(groups) > 1 or any(len(rows) > 1 for rows in places):
            return None
        number = groups.pop()
        own = [np.arange(len(self.problem.groups[number].tokens))[p] for ((_, p),) in places]
        tokens, targets, _ = self.problem.groups[number]
        if len({len(part) for part in own}) > 1 or tokens[own[0]].size * len(own) > FEW_NUMBERS:
            return None
        chosen = np.stack(own)
        gates = None if self._gates is None else self._gates[number][chosen]
        tokens, targets = tokens[chosen], targets[chosen]
        share = 1.0 / chosen.shape[1] / targets.shape[-2]

        def gradients(points: Array) -> Array:
            trace = self.model.trace(points, tokens, gates=gates)
            error = trace.predictions - targets
            slopes = self.model.pull_back(trace, predictions=share * error)
            return np.asarray(slopes + self.problem.ridges * points)

        return gradients

    def gradients(self, clients: IntArray, points: Array) -> tuple[Array, Array]:
        """F_i of clients[k] at points[k], (P,), and its gradient there, (P, D)."""
        found = [self._of_client(i, at) for i, at in zip(clients.tolist(), points, strict=True)]
        objectives, slopes = zip(*found, strict=True)
        return np.array(objectives), np.stack(slopes)

    def metrics(
        self,
        points: Array,
        names: tuple[str, ...],
        *,
        known: Evaluated | None = None,
        next_round: bool = False,
    ) -> dict[str, Array]:
        """Those of `DEEP_METRICS` that are asked for, (N,) each, at server points (N, D)."""
        wanted = [name for name in names if name in DEEP_METRICS]
        if not wanted:
            return {}
        objectives, gradients = zip(*map(self._global, points), strict=True)
        slopes = np.stack(gradients)
        out = {
            "objective": np.array(objectives),
            "kernel_gradient_norm": row_norms(slopes[:, self._kernel]),
            "value_gradient_norm": row_norms(slopes[:, ~self._kernel]),
        }
        return {name: out[name] for name in wanted}

    def _global(self, flat: Array) -> tuple[float, Array]:
        """F and ∇F."""
        everything: Rows = [(k, slice(None)) for k in range(len(self.problem.groups))]
        return self._evaluated(flat, everything, self.problem.sequence_weights)

    def objective(self, client: int, flat: Array) -> float:
        """F_i: mean sequence loss plus ridges."""
        return self._of_client(client, flat)[0]

    def _of_client(
        self, client: int, flat: Array, batch: IntArray | None = None
    ) -> tuple[float, Array]:
        """F_i and ∇F_i."""
        count = self.batch_limit(client) if batch is None else len(batch)
        return self._evaluated(flat, self.problem.rows(client, batch), 1.0 / count)

    def features(
        self, client: int, flat: Array, batch: IntArray | None = None
    ) -> Iterator[Features]:
        """The features that W_O reads, flattened over the tokens of a sequence."""
        for trace, _ in self.traces(client, flat, batch):
            shape = trace.features.shape

            def pull_back(cotangent: Array, trace: Trace = trace) -> Array:
                return self.model.pull_back(trace, features=cotangent.reshape(trace.features.shape))

            yield Features(trace.features.reshape(shape[0], -1), pull_back)

    def predictions(self, client: int, flat: Array) -> Array:
        """W_O times the features, sequences of equal length together: (S·q, m) per group, joined.

        Rows are those of `features`, so the order is that of its groups.
        """
        last = Params(self.layout, flat)["readout"]
        made = [
            (group.rows.reshape(len(group.rows), -1, len(last)) @ last).reshape(-1, last.shape[1])
            for group in self.features(client, flat)
        ]
        return np.concatenate(made)

    def with_gates(self, structural: Params) -> DeepOracle:
        """The same oracle with gates fixed by structural parameters."""
        return DeepOracle(self.problem, structural=structural)

    def amount(self, client: int, batch: IntArray | None = None) -> tuple[int, int]:
        """Numbers of tokens and sequences, whatever the number of minibatches in `batch`."""
        lengths = self._lengths[self.problem.offsets[client] : self.problem.offsets[client + 1]]
        chosen = lengths if batch is None else lengths[batch]
        return int(chosen.sum()), int(chosen.size)

    @cached_property
    def _lengths(self) -> IntArray:
        """Tokens of every sequence, (S,)."""
        groups = np.array([group.tokens.shape[1] for group in self.problem.groups])
        return np.asarray(groups[self.problem.places[:, 0]], dtype=np.int64)

    def gradient_work(self, trained: frozenset[str]) -> Work:
        """Multiply-adds of forward and backward pass, restricted to what the blocks need."""
        return deep_work(self.model, trained)

    def feature_work(self, trained: frozenset[str]) -> Work:
        """The same for a loss on the features."""
        return deep_work(self.model, trained, predictions=False)

    def _passes(self, flat: Array, rows: Rows) -> Iterator[tuple[Trace, Array, IntArray]]:
        """Forward passes with targets and sequence numbers."""
        for k, part in rows:
            tokens, targets, numbers = self.problem.groups[k]
            gates = None if self._gates is None else self._gates[k][part]
            trace = self.model.trace(flat, tokens[part], gates=gates)
            yield trace, targets[part], numbers[part]

    def _evaluated(self, flat: Array, rows: Rows, weights: Array | float) -> tuple[float, Array]:
        """Σ_s weights_s ℓ_s over some sequences plus ridges, and its gradient (D,).

        Weights are one for all, or an array over all sequences of the problem.
        """
        loss, gradient = 0.0, np.zeros(self.layout.size)
        for trace, targets, numbers in self._passes(flat, rows):
            error = trace.predictions - targets
            share = weights[numbers] if isinstance(weights, np.ndarray) else weights
            scale = np.broadcast_to(share / error.shape[1], len(numbers))
            loss += 0.5 * float(scale @ np.einsum("sqm,sqm->s", error, error))
            gradient += self.model.pull_back(trace, predictions=scale[:, None, None] * error)
        ridges = self.problem.ridges
        return loss + 0.5 * float(ridges @ (flat * flat)), gradient + ridges * flat
