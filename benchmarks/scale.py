"""100,000 clients from an iterator, 100 participants per round: time and peak memory."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import linattn as la


def clients(count: int, sequences: int, dim: int, outputs: int) -> Iterator[tuple[Any, Any]]:
    """Clients one at a time; only the current one is in memory."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        tokens = rng.normal(size=(sequences, 8, dim))
        yield tokens, rng.normal(size=(sequences, 8, outputs))


def peak_mib() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run in a process of its own, so that the peak is this problem's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True)
    parser.add_argument("--clients", type=int, default=100_000)
    chosen = parser.parse_args()
    began = time.perf_counter()
    problem = la.problem_from_tokens(
        clients(chosen.clients, 4, 8, 4), value_ridge=0.05, kernel_ridge=0.01
    )
    built, memory = time.perf_counter(), peak_mib()
    params = la.initial_params(problem, scale=0.5)
    result = la.run(
        la.fed_avg(), problem, params, rounds=10, local_steps=5, local_lr=0.01,
        participation=100 / chosen.clients,
    )  # fmt: skip
    found = {
        "clients": chosen.clients,
        "build_seconds": built - began,
        "build_peak_mib": memory,
        "run_seconds": time.perf_counter() - built,
        "peak_mib": peak_mib(),
        "status": result.outcome.status,
    }
    with open(chosen.json, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
