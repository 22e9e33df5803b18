"""How rounds are run, whatever the method: checked settings, participants, minibatches, work."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Required, TypedDict

import numpy as np

from linattn._checks import MOST_ENTRIES, positive_int
from linattn._settings import (
    EVERYBODY,
    LocalSteps,
    Sampling,
    Step,
    StepSize,
    check_local_steps,
    check_sampling,
    check_stragglers,
    step_schedule,
)
from linattn._typing import Array, IntArray
from linattn.streams import stream


class Settings(NamedTuple):
    """How rounds are run, whatever the method.

    Attributes
    ----------
    rounds : int
    local_steps : int or array of int, shape (C,)
    local_lr : float or callable (round) -> float
    batch_size : int or None
    seed, start_round : int
    sampling : Sampling
    stragglers : float
    """

    rounds: int
    local_steps: int | IntArray
    local_lr: Step
    batch_size: int | None
    seed: int
    start_round: int
    sampling: Sampling = EVERYBODY
    stragglers: float = 0.0


class RunSettings(TypedDict, total=False):
    """Keyword arguments of `run` that whatever repeats a run takes, too."""

    rounds: Required[int]
    local_steps: Required[LocalSteps]
    local_lr: Required[StepSize]
    batch_size: int | None
    participation: float
    sampling: str
    stragglers: float
    seed: int


def check_settings(
    *,
    rounds: int,
    local_steps: LocalSteps,
    local_lr: StepSize,
    batch_size: int | None = None,
    participation: float = 1.0,
    sampling: str = "uniform",
    stragglers: float = 0.0,
    seed: int = 0,
    start_round: int = 0,
) -> Settings:
    """Validate the arguments that all runs share."""
    rounds = positive_int("rounds", rounds, minimum=0, maximum=MOST_ENTRIES)
    start_round = positive_int("start_round", start_round, minimum=0)
    if start_round > rounds:
        raise ValueError(f"start_round must be <= rounds = {rounds}, got {start_round}.")
    return Settings(
        rounds,
        check_local_steps(local_steps),
        step_schedule("local_lr", local_lr, rounds=rounds),
        None if batch_size is None else positive_int("batch_size", batch_size),
        positive_int("seed", seed, minimum=0, maximum=None),
        start_round,
        check_sampling(participation, sampling),
        check_stragglers(stragglers),
    )


def choose_participants(num_clients: int, participation: float, seed: int, t: int) -> IntArray:
    """Return the sorted participants of round t, drawn uniformly without replacement."""
    count = Sampling(participation).draws(num_clients)
    if count == num_clients:
        return np.arange(num_clients, dtype=np.int64)
    if count > FEW:
        return _chosen(num_clients, count, seed, t)
    return _few_chosen(num_clients, count, seed, t).copy()


def _chosen(num_clients: int, count: int, seed: int, t: int) -> IntArray:
    drawn = stream(seed, "participation", t).choice(num_clients, count, replace=False)
    return np.sort(drawn).astype(np.int64)


# Runs of one seed draw the same clients at every step size, by every method.
_few_chosen = lru_cache(maxsize=2**15)(_chosen)
FEW = 64
"""Participants of a round that are worth remembering: 30 MB of them at most."""


def draw_participants(
    weights: Array, sampling: Sampling, *, seed: int, t: int
) -> tuple[IntArray, Array]:
    """Return the sorted participants of round t, (P,), and the w_i that average them, (P,)."""
    clients = len(weights)
    if sampling.scheme == "weighted":
        count = sampling.draws(clients)
        drawn = stream(seed, "participation", t).choice(clients, count, p=weights)
        participants, times = np.unique(drawn, return_counts=True)
        return participants.astype(np.int64), times / count
    participants = choose_participants(clients, sampling.participation, seed, t)
    chosen = weights[participants]
    return participants, chosen if len(chosen) == clients else chosen / chosen.sum()


def draw_local_steps(settings: Settings, participants: IntArray, t: int) -> IntArray:
    """Return how many local steps each participant takes in round t, (P,).

    A straggler, which a participant is with probability `stragglers`, stops after a number of steps
    that is uniform on 1..E_i; stream (seed, "stragglers", client, round).
    """
    planned = settings.local_steps
    if isinstance(planned, int):
        steps = np.full(len(participants), planned, dtype=np.int64)
    else:
        steps = planned[participants]
    if settings.stragglers == 0.0:
        return steps
    for k, i in enumerate(participants.tolist()):
        generator = stream(settings.seed, "stragglers", i, t)
        if generator.random() < settings.stragglers:
            steps[k] = generator.integers(1, steps[k], endpoint=True)
    return steps


def draw_batches(
    count: int, batch_size: int, local_steps: int, generator: np.random.Generator
) -> IntArray:
    """Return sorted minibatches of every local step, (E, min(batch_size, count))."""
    size = min(batch_size, count)
    drawn = [generator.choice(count, size, replace=False) for _ in range(local_steps)]
    return np.sort(np.stack(drawn), axis=1).astype(np.int64)
