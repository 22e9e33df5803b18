"""The work that is timed, and the measurement itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

import linattn as la
from linattn._threads import one_blas_thread
from linattn.objectives.forms import SequenceForm
from linattn.oracles.statistics import LocalTask, StatisticsOracle

REPEATS = 9
TURN = 0.03
# Idle threads of the previous candidate spin for some milliseconds before they sleep.
PAUSE = 0.03
STEP = 1e-3
RIDGES = (0.05, 0.01)


class Case(NamedTuple):
    """One round: C clients × S sequences of n tokens, d channels, m outputs, E local steps."""

    name: str
    clients: int
    sequences: int
    tokens: int
    dim: int
    outputs: int
    local_steps: int

    @property
    def flops(self) -> float:
        """(10H + 2) d² m per sequence and step, H = 1, whatever the code does."""
        each = 12.0 * self.dim**2 * self.outputs
        return each * self.clients * self.sequences * self.local_steps


ROUNDS = (
    Case("d = 6, 8 × 64", 8, 64, 16, 6, 4, 10),
    Case("d = 16, 10 × 128", 10, 128, 64, 16, 10, 20),
    Case("d = 32, 10 × 128", 10, 128, 64, 32, 10, 5),
    Case("d = 64, 10 × 128", 10, 128, 64, 64, 10, 2),
)
TOKEN_CASES = ROUNDS[:2]


class Data(NamedTuple):
    """Tokens and statistics of a case, and where it starts."""

    problem: la.Problem
    params: la.Params
    tokens: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]


def draw(case: Case) -> Data:
    """Return random data of a case (only its size matters for time)."""
    rng = np.random.default_rng(0)
    shape = (case.clients, case.sequences, case.tokens)
    tokens = rng.normal(size=(*shape, case.dim))
    targets = rng.normal(size=(*shape, case.outputs))
    problem = la.problem_from_tokens(
        list(zip(tokens, targets, strict=True)), value_ridge=RIDGES[0], kernel_ridge=RIDGES[1]
    )
    params = la.initial_params(problem, scale=0.5, value="normal")
    return Data(problem, params, tokens, targets)


def statistics(data: Data, by_client: Case | None = None) -> tuple[Any, Any]:
    """Return G and K as JAX takes them, of all clients or stacked by client of a case."""
    held = data.problem.statistics
    gram, cross = held.gram, held.cross_moments()
    if by_client is None:
        return gram, cross
    shape = (by_client.clients, by_client.sequences)
    return gram.reshape(*shape, *gram.shape[1:]), cross.reshape(*shape, *cross.shape[1:])


def library_round(data: Data, local_steps: int) -> Callable[[], np.ndarray[Any, Any]]:
    """One round of this library: ends of all clients, (C, D)."""
    oracle = StatisticsOracle(data.problem, data.params.layout)
    count, size = data.problem.num_clients, data.params.layout.size
    task = LocalTask(
        participants=np.arange(count),
        starts=np.tile(data.params.flat, (count, 1)),
        anchor=data.params.flat,
        mask=np.ones((count, size), dtype=bool),
        local_steps=local_steps,
        local_lr=STEP,
        prox=0.0,
        shift=np.zeros((0, size)),
        batches=None,
        record=False,
    )

    def call() -> np.ndarray[Any, Any]:
        with one_blas_thread():
            return oracle.train(task)[0]

    return call


def numpy_round(data: Data, local_steps: int) -> Callable[[], np.ndarray[Any, Any]]:
    """The same round by the NumPy twin: objectives of single clients, a Python loop of steps."""
    problem, params = data.problem, data.params
    forms = []
    for i in range(problem.num_clients):
        held = problem.statistics.take(problem.client(i))
        forms.append(SequenceForm(held, np.full(len(held.energy), 1.0 / len(held.energy))))
    start = (params["kernel"], params.value)

    def call() -> np.ndarray[Any, Any]:
        ends = []
        for form in forms:
            b, v = start
            for _ in range(local_steps):
                slope = form.gradient(b, v)
                b = b - STEP * (slope.kernel + RIDGES[1] * b)
                v = v - STEP * (slope.value + RIDGES[0] * v)
            ends.append(np.concatenate([b.reshape(-1), v.reshape(-1)]))
        return np.stack(ends)

    return call


def agree(name: str, reference: Any, found: Any) -> float:
    """Largest difference relative to the largest entry; refused above 1e-10."""
    error = float(np.abs(np.asarray(found) - reference).max() / np.abs(reference).max())
    if not error <= 1e-10:
        raise RuntimeError(f"{name} must agree to 1e-10 before it is timed, got {error:.1e}.")
    return error


def interleave(
    calls: Mapping[str, Callable[[], Any]], repeats: int = REPEATS
) -> dict[str, np.ndarray[Any, Any]]:
    """Return wall times of one call in seconds, (repeats,), all calls taking turns.

    A turn begins with a pause and an untimed call, then repeats a short call until it has taken
    `TURN` seconds: every candidate finds the caches as its own previous call left them, as in a run
    of many rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    counts = {}
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        counts[name] = max(1, round(TURN / (time.perf_counter() - began)))
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(PAUSE)
            call()
            began = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - began) / counts[name])
    return {name: np.array(values) for name, values in times.items()}


def dgemm_call(size: int = 1200) -> tuple[Callable[[], Any], float]:
    """Return a square matrix product and its flops: the machine's own rate in the same run."""
    a, b = np.random.default_rng(0).normal(size=(2, size, size))
    out = np.empty_like(a)
    return (lambda: np.dot(a, b, out=out)), 2.0 * size**3
