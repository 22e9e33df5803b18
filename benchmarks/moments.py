"""Exact moments of the sampled frozen stage against the plain recursion of C20.

    python benchmarks/moments.py

Both give E F(B, V_R) − P(B) under client sampling and minibatches. The recursion steps through
every local step of every client with one congruence per sequence. It is timed over one round, for
its rounds all cost the same, and must agree to 1e-10 there. Both take turns; the median time and
the least, median and largest ratio of the repeats are printed.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

import linattn as la
from linattn._settings import Sampling
from linattn._threads import one_blas_thread
from linattn.linalg import stack_heads
from linattn.objectives.forms import sequence_equations
from linattn.theory.weights import weight_moments

RUN = {"local_steps": 10, "participation": 0.25, "batch_size": 8}


def federation(clients: int, rows: int) -> tuple[la.Problem, la.Params]:
    """Clients with 64 sequences, one head with d = rows, four outputs."""
    problem = la.synthetic_problem(
        num_clients=clients, sequences_per_client=64, num_tokens=16, dim=rows, num_outputs=4,
        covariate_heterogeneity=0.3, value_heterogeneity=0.75, noise=0.1,
        value_ridge=0.05, kernel_ridge=0.01,
    )  # fmt: skip
    return problem, la.initial_params(problem, value="normal")


def recursion(problem: la.Problem, params: la.Params, step: float, rounds: int) -> float:
    """The expected gap by the recursion of C20, sequence by sequence (equal weights)."""
    block = la.ValueBlock(problem, params)
    star = stack_heads(block.minimizer())
    size, outputs = star.shape
    drawn = weight_moments(problem.weights, Sampling(RUN["participation"]))
    second = drawn.covariance + np.outer(drawn.mean, drawn.mean)
    error = stack_heads(params.value) - star
    state = np.concatenate([error, np.eye(outputs)])
    state = state @ state.T
    maps = []
    for i in range(problem.num_clients):
        hessians, linears = sequence_equations(problem, params.kernels(), i)
        hessians = hessians + problem.value_ridge * np.eye(size)
        each = np.tile(np.eye(size + outputs), (len(hessians), 1, 1))
        each[:, :size, :size] -= step * hessians
        each[:, :size, size:] = step * (linears - hessians @ star)
        mean, count, batch = each.mean(axis=0), len(each), RUN["batch_size"]
        spread = (each - mean) * np.sqrt((count - batch) / (batch * (count - 1) * count))
        maps.append((mean, spread, np.linalg.matrix_power(mean, RUN["local_steps"])))
    for _ in range(rounds):
        ends = []
        for mean, spread, _ in maps:
            here = state
            for _ in range(RUN["local_steps"]):
                here = mean @ here @ mean.T + np.einsum(
                    "sab,bc,sdc->ad", spread, here, spread, optimize=True
                )
            ends.append(here)
        powers = np.stack([power for *_, power in maps])
        total = np.tensordot(np.diag(second), np.stack(ends), 1)
        cross = second - np.diag(np.diag(second))
        mixed = np.tensordot(cross, powers, 1)
        total += np.einsum("iab,bc,idc->ad", powers, state, mixed, optimize=True)
        state = total
    return 0.5 * float(np.vdot(block.hessian, state[:size, :size]))


def main() -> None:
    """Time both, print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=["8:6", "8:16", "20:32", "100:32"])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    for size in given.sizes:
        clients, rows = map(int, size.split(":"))
        problem, params = federation(clients, rows)
        top = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
        step, ours, theirs = 0.2 / top, [], []
        for _ in range(given.repeats):
            with one_blas_thread():
                began = time.perf_counter()
                moments = la.frozen_moments(problem, params, local_lr=step, **RUN)
                moments.expected_gap(given.rounds)
                ours.append(time.perf_counter() - began)
                began = time.perf_counter()
                stepped = recursion(problem, params, step, 1)
                theirs.append((time.perf_counter() - began) * given.rounds)
        assert abs(stepped / moments.expected_gap(1) - 1.0) < 1e-10
        ratios = np.array(theirs) / np.array(ours)
        print(json.dumps({
            "clients": clients, "rows": rows, "rounds": given.rounds,
            "seconds": round(float(np.median(ours)), 3),
            "recursion_over_moments": np.quantile(ratios, (0, 0.5, 1)).round(1).tolist(),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
