"""How rounds are run, whatever the method: checked settings, participants, minibatches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._checks import positive_int, real
from linattn._typing import IntArray
from linattn.streams import stream


class Settings(NamedTuple):
    """How rounds are run, whatever the method."""

    rounds: int
    local_steps: int
    local_lr: float
    batch_size: int | None
    participation: float
    seed: int
    start_round: int


def check_settings(
    *,
    rounds: int,
    local_steps: int,
    local_lr: float,
    batch_size: int | None = None,
    participation: float = 1.0,
    seed: int = 0,
    start_round: int = 0,
) -> Settings:
    """Validate the arguments that all runs share."""
    if batch_size is not None:
        batch_size = positive_int("batch_size", batch_size)
    rounds = positive_int("rounds", rounds, minimum=0)
    start_round = positive_int("start_round", start_round, minimum=0)
    if start_round > rounds:
        raise ValueError(f"start_round must be <= rounds = {rounds}, got {start_round}.")
    return Settings(
        rounds,
        positive_int("local_steps", local_steps),
        real("local_lr", local_lr, above=0.0),
        batch_size,
        real("participation", participation, above=0.0, maximum=1.0),
        positive_int("seed", seed, minimum=0),
        start_round,
    )


def choose_participants(num_clients: int, participation: float, seed: int, t: int) -> IntArray:
    """Return the sorted participants of round t."""
    count = max(1, round(participation * num_clients))
    if count == num_clients:
        return np.arange(num_clients, dtype=np.int64)
    drawn = stream(seed, "participation", t).choice(num_clients, count, replace=False)
    return np.sort(drawn).astype(np.int64)


def draw_batches(
    count: int, batch_size: int, local_steps: int, generator: np.random.Generator
) -> IntArray:
    """Return sorted minibatches of every local step, (E, min(batch_size, count))."""
    size = min(batch_size, count)
    drawn = [generator.choice(count, size, replace=False) for _ in range(local_steps)]
    return np.sort(np.stack(drawn), axis=1).astype(np.int64)
