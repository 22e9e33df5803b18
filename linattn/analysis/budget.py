"""What two-stage training costs, round by round, and how many rounds a budget buys."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from linattn._checks import real, shown
from linattn._settings import MOST_STEPS
from linattn._typing import Array, IntArray
from linattn.federated.settings import choose_participants
from linattn.types import Params, Problem

KINDS = ("rounds", "floats", "multiply_adds")


class Budget(NamedTuple):
    """How much a run may use of one thing.

    Attributes
    ----------
    kind : {"rounds", "floats", "multiply_adds"}
        Floats are counted both ways, multiply-adds over all clients.
    amount : float
    """

    kind: str
    amount: float

    def __str__(self) -> str:
        return f"{self.amount:g} {self.kind.replace('_', '-')}"


def one_budget(rounds: float | None, floats: float | None, multiply_adds: float | None) -> Budget:
    """Return the one budget that is given.

    Raises
    ------
    ValueError
        If none or several are given, or it is not positive, or rounds are not whole.
    """
    given = {
        name: value
        for name, value in zip(KINDS, (rounds, floats, multiply_adds), strict=True)
        if value is not None
    }
    if len(given) != 1:
        names = ", ".join(given) or "none"
        raise ValueError(f"one of rounds, floats and multiply_adds must be given, got {names}.")
    ((kind, value),) = given.items()
    amount = real(kind, value, above=0.0, maximum=float(MOST_STEPS))
    if kind == "rounds" and not amount.is_integer():
        raise ValueError(f"rounds must be a whole number, got {shown(value)}.")
    return Budget(kind, amount)


class TwoStageCost:
    """Floats or multiply-adds of a warm-up and of frozen rounds after it, as the accountant counts.

    A client fetches what changed since it last had it: everything in the warm-up, the value block
    in the frozen stage, and the final kernel once, when it first takes part in that stage.

    Parameters
    ----------
    problem : Problem
    params : Params
        Gives the sizes of the blocks.
    kind : {"rounds", "floats", "multiply_adds"}
    local_steps : int
        E.
    participation, frozen_participation : float
        Of the two stages.
    seed : int
        Of the draws of participants.
    batch_size : int, optional

    Notes
    -----
    Source: The other methods in the same test-bed (what the accountant of `linattn.run` counts).
    """

    def __init__(
        self,
        problem: Problem,
        params: Params,
        kind: str,
        *,
        local_steps: int,
        participation: float,
        frozen_participation: float,
        seed: int,
        batch_size: int | None = None,
    ) -> None:
        self.problem, self.kind, self.local_steps = problem, kind, local_steps
        self.batch_size = batch_size
        self.shares, self.seed = (participation, frozen_participation), seed
        self.value_size = params.value.size
        self.kernel_size = params.layout.size - self.value_size
        self.shape = params.layout.shapes["value"]
        work = problem.oracle(params).gradient_work
        self._work = [work(frozenset(params.layout.names)), work(frozenset({"value"}))]
        self._drawn: dict[float, list[IntArray]] = {}

    def _participants(self, stage: int, rounds: int) -> IntArray:
        share, clients = self.shares[stage], self.problem.num_clients
        drawn = self._drawn.setdefault(share, [])
        drawn += [
            choose_participants(clients, share, self.seed, t) for t in range(len(drawn), rounds)
        ]
        return np.stack(drawn[:rounds]) if rounds else np.zeros((0, 1), dtype=np.int64)

    def _client_work(self, stage: int) -> Array:
        """Multiply-adds of E gradients of every client, (C,)."""
        work, steps = self._work[stage], self.local_steps
        sizes = [min(self.batch_size or n, n) for n in self.problem.client_sizes.tolist()]
        return np.array([float(work.total(0, n * steps, steps)) for n in sizes])

    def warmup(self, rounds: int) -> Array:
        """Cumulative cost after 0, 1, …, `rounds` warm-up rounds, (rounds + 1,)."""
        if self.kind == "rounds":
            return np.arange(rounds + 1, dtype=float)
        chosen = self._participants(0, rounds)
        if self.kind == "floats":
            each = np.full(rounds, 2.0 * chosen.shape[1] * (self.kernel_size + self.value_size))
        else:
            each = self._client_work(0)[chosen].sum(axis=1)
        return np.concatenate([[0.0], np.cumsum(each)])

    def frozen(self, warmup: int, rounds: int) -> Array:
        """Cumulative cost after 1, …, `rounds` frozen rounds that follow `warmup` others."""
        if self.kind == "rounds":
            return np.arange(1, rounds + 1, dtype=float)
        chosen = self._participants(1, warmup + rounds)[warmup:]
        if self.kind == "multiply_adds":
            return np.cumsum(self._client_work(1)[chosen].sum(axis=1))
        fresh = np.zeros(rounds)
        held: set[int] = set()
        for k, row in enumerate(chosen.tolist()):
            fresh[k] = len(set(row) - held)
            held.update(row)
            if len(held) == self.problem.num_clients:
                break
        return np.cumsum(2.0 * chosen.shape[1] * self.value_size + fresh * self.kernel_size)

    @cached_property
    def exact(self) -> float:
        """Of the one exact value round: every client fetches the model, sends A_i and C_i."""
        heads, dim, outputs = self.shape
        size, clients = heads * dim, self.problem.num_clients
        if self.kind == "rounds":
            return 1.0
        if self.kind == "floats":
            sent = size * (size + 1) // 2 + size * outputs
            return float(clients * (sent + self.kernel_size + self.value_size))
        products = size * size + 2 * size * dim + size * outputs
        rank_one = self.problem.statistics.query is not None
        return float((products if rank_one else dim * products) * self.problem.num_sequences)


def affordable(costs: Array, amount: float) -> int:
    """Return how many of a rising sequence of costs stay within an amount."""
    return int(np.searchsorted(costs, amount * (1.0 + 1e-12), side="right"))


def bought(costs: Callable[[int], Array], amount: float, guess: int = 64) -> int:
    """Return how many rounds an amount buys, where `costs` gives the costs of the first so many."""
    while (count := affordable(costs(guess), amount)) == guess:
        guess *= 4
    return count
