"""A problem of another kind: clients that pull the parameters to zero, F_i = ½c_i‖θ‖²."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from linattn._typing import Array, IntArray
from linattn.oracles.protocol import Evaluated, LocalTask, LocalTrace, explicit_steps
from linattn.oracles.work import NO_WORK, Work
from linattn.types import Layout, Params


class AddedOracle:
    """What such clients answer."""

    metric_names = ("objective",)

    def __init__(self, layout: Layout, pulls: Sequence[float]) -> None:
        self.layout, self.pulls, self.num_clients = layout, np.array(pulls), len(pulls)

    def batch_limit(self, client: int) -> int:
        """One sequence each."""
        return 1

    def amount(self, client: int, batch: IntArray | None = None) -> tuple[int, int]:
        """One token of one sequence."""
        return 1, 1

    def gradient_work(self, trained: frozenset[str]) -> Work:
        """Not counted."""
        return NO_WORK

    def gradient(self, client: int, flat: Array, batch: IntArray | None = None) -> Array:
        """c_iθ."""
        return np.asarray(self.pulls[client] * flat)

    def objective(self, client: int, flat: Array) -> float:
        """½c_i‖θ‖²."""
        return 0.5 * float(self.pulls[client] * (flat @ flat))

    def gradients(self, clients: IntArray, points: Array) -> tuple[Array, Array]:
        """Both, of many clients."""
        slopes = self.pulls[clients][:, None] * points
        return 0.5 * (slopes * points).sum(axis=1), slopes

    def train(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Explicit steps."""
        return explicit_steps(self, task)

    def metrics(
        self,
        points: Array,
        names: tuple[str, ...],
        *,
        known: Evaluated | None = None,
        next_round: bool = False,
    ) -> dict[str, Array]:
        """F of equal weights."""
        return {name: 0.5 * self.pulls.mean() * (points**2).sum(axis=1) for name in names}


@dataclass(frozen=True)
class Added:
    """Clients of equal weight."""

    pulls: tuple[float, ...]
    has_profile = False

    @property
    def num_clients(self) -> int:
        """C."""
        return len(self.pulls)

    @property
    def weights(self) -> Array:
        """1/C."""
        return np.full(self.num_clients, 1.0 / self.num_clients)

    @property
    def client_sizes(self) -> IntArray:
        """One sequence each."""
        return np.ones(self.num_clients, dtype=np.int64)

    @property
    def num_sequences(self) -> int:
        """One per client."""
        return self.num_clients

    def oracle(self, params: Params) -> AddedOracle:
        """What its clients answer."""
        return AddedOracle(params.layout, self.pulls)

    def rearranged(self, index: IntArray, offsets: IntArray, weights: Array) -> Added:
        """Some of the clients."""
        return Added(tuple(np.array(self.pulls)[index].tolist()))
