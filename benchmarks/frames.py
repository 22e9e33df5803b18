"""A table of a million rows becomes a problem: time and peak memory.

    python benchmarks/frames.py [--library pandas|polars] [--rows 1000000] [--length 10]

Run in a process of its own, so that the peak is this table's and this problem's.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import time

import numpy as np

import linattn as la

CLIENTS, CHANNELS = 200, 10


def main() -> None:
    """Print how long the problem took and the peak of memory before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", default="pandas")
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--length", type=int, default=10, help="mean length of a sequence")
    chosen = parser.parse_args()
    rng, rows = np.random.default_rng(0), chosen.rows
    names = [f"x{k}" for k in range(CHANNELS)]
    columns = {name: rng.normal(size=rows) for name in [*names, "y"]}
    columns["client"] = np.array([f"client {i}" for i in range(CLIENTS)])[
        rng.integers(0, CLIENTS, rows)
    ]
    columns["sequence"] = rng.integers(0, max(1, rows // CLIENTS // chosen.length), rows)
    frame = importlib.import_module(chosen.library).DataFrame(columns)
    before, began = peak_gib(), time.perf_counter()
    problem = la.problem_from_frame(
        frame, client="client", sequence="sequence", features=names, target="y",
        value_ridge=0.1, kernel_ridge=0.1,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    print(f"{problem!r}\n{seconds:.2f} s, peak {before:.2f} GiB before, {peak_gib():.2f} after")


def peak_gib() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
