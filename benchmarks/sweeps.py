"""The whole bias_drift sweep against a plain PyTorch script, and two workers against one."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import linattn as la
from linattn.data.worlds import InitialSpec
from linattn.experiments import compute_tasks
from linattn.experiments.find import find_script, load_simulation
from linattn.experiments.simulation import Task

SHARE = 0.05


def time_sweep(tasks: list[Task], workers: int) -> dict[str, float]:
    """Wall time of a sweep into an empty store, start-up reported apart."""
    with TemporaryDirectory() as folder:
        report = compute_tasks(tasks, Path(folder), workers=workers)
    if not report.complete:
        raise RuntimeError(f"the sweep must complete, got {report}.")
    return {
        "workers": workers,
        "seconds": report.seconds,
        "startup": report.startup_seconds,
        "work": report.seconds - report.startup_seconds,
    }


def sampled(spec: Any) -> bool:
    """Whether clients or sequences are drawn, which the plain script does not."""
    return spec.participation < 1.0 or spec.batch_size is not None


def time_plain(specs: list[Any], share: float, budget: float) -> dict[str, Any]:
    """Time a random share of the runs and extrapolate by the number of gradient steps.

    Every warm-up length of a spec is one run of a plain script. A run of R rounds and E local steps
    costs R·E gradient evaluations whatever the warm-up length, up to the kernel's part of a frozen
    gradient, so runs are stratified by E. Long runs are timed on their first rounds: `rounds` per
    run are chosen so that the sample fits the budget.
    """
    import plain_torch

    rng = np.random.default_rng(0)
    runs = [(s, s.local_steps, t) for s in specs for t in s.lengths()]
    merged = [run for run in runs if run[0].initial == InitialSpec() and not sampled(run[0])]
    count = max(1, round(share * len(runs)))
    sample = [merged[i] for i in rng.choice(len(merged), count, replace=False)]
    steps = sum(spec.rounds * e for spec, e, _ in sample)
    rows, began = [], time.perf_counter()
    for spec, e, warmup in sample:
        tokens, targets, params = tokens_of(spec)
        rounds = max(1, min(spec.rounds, round(spec.rounds * budget * 600 / steps)))
        start = time.perf_counter()
        plain_torch.run(
            tokens, targets, params["kernel"][0], params.value[0],
            ridges=(spec.problem.value_ridge, spec.problem.kernel_ridge), step=spec.local_lr,
            local_steps=e, rounds=rounds, warmup=round(warmup * rounds / spec.rounds),
        )  # fmt: skip
        rows.append((e, (time.perf_counter() - start) / (rounds * e)))
    by_steps = {e: float(np.mean([s for k, s in rows if k == e])) for e in {k for k, _ in rows}}
    usual = float(np.mean([seconds for _, seconds in rows]))
    total = sum(by_steps.get(e, usual) * spec.rounds * e for spec, e, _ in runs)
    return {
        "sampled": len(sample),
        "runs": len(runs),
        "measured": time.perf_counter() - began,
        "extrapolated": total,
        "step_by_local_steps": {str(k): v for k, v in by_steps.items()},
    }


def tokens_of(spec: Any) -> tuple[Any, Any, la.Params]:
    """Random tokens of the spec's sizes (time does not depend on their values) and its start."""
    p = spec.problem
    rng = np.random.default_rng(spec.seed)
    shape = (p.num_clients, p.sequences_per_client, p.num_tokens)
    _, params = spec.prepared()
    return rng.normal(size=(*shape, p.dim)), rng.normal(size=(*shape, p.num_outputs)), params


def multiply_for(seconds: float, queue: Any) -> None:
    """Count square matrix products for some seconds."""
    a = np.random.default_rng(0).normal(size=(600, 600))
    out, done, end = np.empty_like(a), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        np.dot(a, a, out=out)
        done += 1
    queue.put(done)


def dgemm_scaling(seconds: float = 5.0) -> float:
    """Products per second of two independent processes over those of one, in this run."""
    counts = []
    for processes in (1, 2):
        queue: Any = multiprocessing.Queue()
        workers = [
            multiprocessing.Process(target=multiply_for, args=(seconds, queue))
            for _ in range(processes)
        ]
        for worker in workers:
            worker.start()
        counts.append(sum(queue.get() for _ in workers))
        for worker in workers:
            worker.join()
    return counts[1] / counts[0]


def main() -> None:
    """Run in a process of its own, started by `run.py` with one thread each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds for the plain script")
    chosen = parser.parse_args()
    simulation = load_simulation(find_script("bias_drift"))
    specs = simulation.specs(chosen.preset)
    found: dict[str, Any] = {"preset": chosen.preset, "specs": len(specs)}
    for workers in (2, 1):
        print(f"  sweep with {workers} workers", flush=True)
        found[f"workers_{workers}"] = time_sweep(list(map(simulation.task, specs)), workers)
    found["dgemm_scaling"] = dgemm_scaling()
    print("  plain script", flush=True)
    found["plain"] = time_plain(specs, SHARE, chosen.budget)
    with open(chosen.json, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
