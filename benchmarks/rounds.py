"""Rounds against peers and twins, cost against every size; one process, one number of threads."""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import (
    RIDGES,
    ROUNDS,
    STEP,
    TOKEN_CASES,
    Case,
    Data,
    agree,
    dgemm_call,
    draw,
    interleave,
    library_round,
    numpy_round,
    statistics,
)

import linattn as la


def flat_ends(pair: Any) -> np.ndarray[Any, Any]:
    """Kernel and value of every client as rows."""
    kernel, value = (np.asarray(block) for block in pair)
    return np.concatenate([kernel.reshape(len(kernel), -1), value.reshape(len(value), -1)], axis=1)


def peers(case: Case, data: Data) -> dict[str, Callable[[], Any]]:
    """JAX on statistics and on tokens (every variant), PyTorch on tokens."""
    import peers_jax

    kernel, value = data.params["kernel"][0], data.params.value[0]
    settings = {"ridges": RIDGES, "step": STEP, "local_steps": case.local_steps}
    groups = [("statistics", peers_jax.STATISTICS, statistics(data, case))]
    tokens = (data.tokens, data.targets)
    if case in TOKEN_CASES:
        groups += [("tokens", peers_jax.TOKENS, tokens), ("hoisted", peers_jax.HOISTED, tokens)]
    calls = {
        f"jax {group} {name}": peers_jax.bind(run, kernel, value, held, **settings)
        for group, runs, held in groups
        for name, run in runs.items()
    }
    if case in TOKEN_CASES:
        import peers_torch

        calls["torch tokens"] = peers_torch.bind(kernel, value, tokens, **settings)
    return calls


def time_case(case: Case, repeats: int, with_peers: bool) -> dict[str, Any]:
    """Check that all agree, then time them taking turns."""
    data = draw(case)
    multiply, flops = dgemm_call()
    ours = library_round(data, case.local_steps)
    twin = numpy_round(data, case.local_steps)
    reference = twin()
    errors = {"linattn": agree("linattn", reference, ours())}
    calls: dict[str, Callable[[], Any]] = {"dgemm": multiply, "linattn": ours, "numpy": twin}
    if with_peers:
        for name, call in peers(case, data).items():
            errors[name] = agree(name, reference, flat_ends(call()))
            calls[name] = call
    times = interleave(calls, repeats)
    rate = flops / times["dgemm"]
    share = case.flops / times["linattn"] / rate
    return {
        "case": case.name,
        "seconds": {name: values.tolist() for name, values in times.items()},
        "share": share.tolist(),
        "errors": errors,
        "flops": case.flops,
    }


def length_cost(repeats: int) -> list[dict[str, Any]]:
    """The round after the statistics, for growing sequence length n."""
    base = ROUNDS[0]
    lengths = (16, 64, 256, 1024, 4096)
    calls = {
        str(n): library_round(draw(base._replace(tokens=n)), base.local_steps) for n in lengths
    }
    times = interleave(calls, 5 * repeats)
    return [{"tokens": int(n), "seconds": values.tolist()} for n, values in times.items()]


def size_cost(repeats: int) -> list[dict[str, Any]]:
    """Cost of a round against S, d, E and clients, one changed at a time."""
    base = ROUNDS[1]._replace(tokens=8)
    grids = {
        "sequences": (16, 32, 64, 128, 256),
        "dim": (4, 6, 8, 12, 16, 24, 32, 48),
        "local_steps": (1, 5, 10, 20, 50),
        "clients": (1, 2, 5, 10, 20),
    }
    rows = []
    for field, values in grids.items():
        cases = {str(v): base._replace(**{field: v}) for v in values}
        calls = {k: library_round(draw(c), c.local_steps) for k, c in cases.items()}
        for key, times in interleave(calls, repeats).items():
            rows.append({"field": field, "value": int(key), "seconds": times.tolist(),
                         "flops": cases[key].flops})  # fmt: skip
    return rows


def warmup_cost(repeats: int) -> list[dict[str, Any]]:
    """Twenty warm-up lengths against one FedAvg run of the same rounds."""
    problem = la.synthetic_problem(
        num_clients=8, sequences_per_client=64, num_tokens=16, dim=6, num_outputs=4, noise=0.1,
        value_heterogeneity=0.75, value_ridge=0.05, kernel_ridge=0.01,
    )  # fmt: skip
    params = la.initial_params(problem, scale=0.3 * 6**0.5)
    lengths = np.unique(np.round(np.geomspace(1, 401, 24)).astype(int) - 1)[:20].tolist()
    lengths[-1] = 400
    rows = []
    for steps in (10, 50):
        options = {"rounds": 400, "local_steps": steps, "local_lr": 0.05}
        calls = {
            "one run": lambda o=options: la.run(la.fed_avg(), problem, params, metrics=(), **o),
            "one run, metrics": lambda o=options: la.run(la.fed_avg(), problem, params, **o),
            "20 lengths": lambda o=options: la.bias_drift(
                problem, params, warmup_lengths=lengths, reference=1.0, **o
            ),
        }
        for name, times in interleave(calls, repeats).items():
            rows.append({"local_steps": steps, "what": name, "seconds": times.tolist()})
    return rows


def main() -> None:
    """Run in a process of its own, started by `run.py` with its threads set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--all", action="store_true", help="also cost against sizes")
    chosen = parser.parse_args()
    found: dict[str, Any] = {"rounds": []}
    for case in ROUNDS:
        print(f"  {case.name}", flush=True)
        found["rounds"].append(time_case(case, chosen.repeats, not chosen.no_peers))
    if chosen.all:
        found["length"] = length_cost(chosen.repeats)
        found["sizes"] = size_cost(chosen.repeats)
        found["warmups"] = warmup_cost(min(chosen.repeats, 5))
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with open(chosen.json, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
