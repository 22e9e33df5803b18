"""What users call, as ratios of calls that take turns: runs, history, objectives, threads.

``python benchmarks/calls.py --json FILE``; with JAX installed also against it. Every ratio is given
with its quartiles, and the file tells versions, threads and the machine's own rate.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
from cases import (
    RIDGES,
    ROUNDS,
    STEP,
    Case,
    Data,
    agree,
    dgemm_call,
    draw,
    interleave,
    library_round,
    statistics,
)

import linattn as la
from linattn.experiments.provenance import provenance

Calls = dict[str, Callable[[], Any]]
# Rounds of a whole run, by case: some tenths of a second each.
RUN_ROUNDS = (200, 10, 5)


def run_call(data: Data, rounds: int, local_steps: int, **options: Any) -> Callable[[], Any]:
    """A whole run of FedAvg."""
    return lambda: la.run(
        la.fed_avg(), data.problem, data.params,
        rounds=rounds, local_steps=local_steps, local_lr=STEP, **options,
    )  # fmt: skip


def run_calls(case: Case, data: Data, rounds: int, peers: bool) -> Calls:
    """A run with and without history, every tenth entry, one thread, and in JAX."""
    plain = run_call(data, rounds, case.local_steps)
    calls: Calls = {
        "run": plain,
        "without history": run_call(data, rounds, case.local_steps, metrics=()),
        "objective only": run_call(data, rounds, case.local_steps, metrics=("objective",)),
        "every tenth round": run_call(data, rounds, case.local_steps, every=10),
        "one thread": patch.dict(os.environ, NUMBA_NUM_THREADS="1")(plain),
    }
    if peers:
        import peers_jax

        kernel, value = data.params["kernel"][0], data.params.value[0]
        held = statistics(data, case)
        end = plain().params
        for name, run in peers_jax.RUNS.items():
            call = peers_jax.bind(
                run, kernel, value, held,
                ridges=RIDGES, step=STEP, local_steps=case.local_steps, rounds=rounds,
            )  # fmt: skip
            found = [np.asarray(block) for block in call()]
            agree(name, end["kernel"][0], found[0])
            agree(name, end.value[0], found[1])
            calls[f"jax {name}"] = call
    return calls


def objective_calls(case: Case, data: Data, peers: bool) -> Calls:
    """Gradient, Hessian product, profile and its gradient; a round of local steps beside them."""
    joint, profile, params = la.Joint(data.problem), la.KernelProfile(data.problem), data.params
    calls: Calls = {
        "gradient": lambda: joint.value_and_gradient(params),
        "product": lambda: joint.hvp(params, params),
        "profile gradient": lambda: profile.value_and_gradient(params),
        "one local step": library_round(data, 1),
        "20 local steps": library_round(data, 20),
    }
    if peers:
        import peers_jax

        kernel, value = params["kernel"][0], params.value[0]
        held = statistics(data)
        bound = peers_jax.bind_objective(kernel, value, held, ridges=RIDGES)
        ours = {"gradient": joint.gradient(params), "product": joint.hvp(params, params)}
        for name, call in bound.items():
            for block, found in zip(("kernel", "value"), call(), strict=True):
                agree(name, ours[name][block][0], np.asarray(found))
            calls[f"jax {name}"] = call
    return calls


def small_calls(data: Data) -> Calls:
    """One round and a thousand of them with E = 1, and the arithmetic in them."""
    step = library_round(data, 1)
    return {
        "start": run_call(data, 1, 1),
        "1,000 rounds": run_call(data, 1000, 1),
        "1,000 rounds without history": run_call(data, 1000, 1, metrics=()),
        "1,001 local steps": library_round(data, 1001),
        "one local step": step,
    }


def length_calls(case: Case, data: Data, peers: bool) -> Calls:
    """Twenty warm-up lengths and the certificate against one run of the same rounds."""
    options = {"rounds": 100, "local_steps": 10, "local_lr": STEP}
    lengths = np.linspace(0, 100, 20).astype(int).tolist()
    calls: Calls = {
        "one run": run_call(data, 100, 10),
        "20 lengths": lambda: la.bias_drift(
            data.problem, data.params, warmup_lengths=lengths, reference=0.0, **options
        ),
        "certificate": lambda: la.descent_certificate(data.problem, data.params, **options),
    }
    if peers:
        import peers_jax

        call = peers_jax.bind(
            peers_jax.certificate, data.params["kernel"][0], data.params.value[0],
            statistics(data, case),
            ridges=RIDGES, step=STEP, local_steps=10, rounds=100,
        )  # fmt: skip
        ours = calls["certificate"]()
        agree("certificate", ours["certificate"][-1] - ours["profile"][0], np.asarray(call()))
        calls["jax certificate"] = call
    return calls


def cost_calls(field: str, values: tuple[int, ...]) -> Calls:
    """A run with its history against one size."""
    base = ROUNDS[0]._replace(tokens=8)
    cases = {str(v): base._replace(**{field: v}) for v in values}
    return {name: run_call(draw(case), 20, case.local_steps) for name, case in cases.items()}


def rows(part: str, case: str, calls: Calls, base: str, repeats: int) -> list[dict[str, Any]]:
    """Time the calls in turns; times and ratios to one of them."""
    seconds = interleave(calls, repeats)
    out = []
    for name, values in seconds.items():
        low, middle, high = np.quantile(values / seconds[base], (0.25, 0.5, 0.75))
        out.append(
            {
                "part": part,
                "case": case,
                "call": name,
                "base": base,
                "seconds": values.tolist(),
                "ratio": middle,
                "low": low,
                "high": high,
            }
        )
        print(f"{part:10} {case:18} {name:30} {1e3 * np.median(values):10.4f} ms"
              f"  {middle:7.3f} ({low:.3f} to {high:.3f}) x {base}", flush=True)  # fmt: skip
    return out


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-peers", action="store_true")
    chosen = parser.parse_args()
    peers, repeats = not chosen.no_peers, chosen.repeats
    found: list[dict[str, Any]] = []
    for case, rounds in zip(ROUNDS, RUN_ROUNDS, strict=False):
        data = draw(case)
        found += rows("run", case.name, run_calls(case, data, rounds, peers), "run", repeats)
        calls = objective_calls(case, data, peers)
        found += rows("objective", case.name, calls, "gradient", repeats)
    data = draw(ROUNDS[0])
    found += rows("E = 1", ROUNDS[0].name, small_calls(data), "1,001 local steps", repeats)
    found += rows(
        "lengths", ROUNDS[0].name, length_calls(ROUNDS[0], data, peers), "one run", repeats
    )
    for field, values in (("clients", (2, 8, 32)), ("sequences", (16, 64, 256)),
                          ("dim", (4, 8, 16)), ("local_steps", (1, 5, 25))):  # fmt: skip
        base = str(values[1])
        found += rows(field, ROUNDS[0].name, cost_calls(field, values), base, repeats)
    multiply, flops = dgemm_call()
    rate = flops / float(np.median(interleave({"dgemm": multiply}, 5)["dgemm"]))
    with open(chosen.json, "w", encoding="utf-8") as file:
        json.dump({"rows": found, "dgemm_flops": rate, "provenance": provenance()}, file)


if __name__ == "__main__":
    main()
