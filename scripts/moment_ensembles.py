"""Exact moments of the sampled frozen stage against ensembles of explicit runs (C20).

Draws random federations and settings (sampling of clients with equal and unequal weights, with and
without replacement; minibatches; unequal work; stragglers; one and two heads; merged and factored
kernels; all readouts), runs every one of them from many seeds, and compares the mean gap with
`linattn.frozen_moments`. Writes one row per setting and a summary.

    python scripts/moment_ensembles.py --output docs/record/moments

Exit status 1 if a mean is further than four standard errors from its expectation.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
from kept import write_rows

import linattn as la
from linattn.analysis.outcomes import frozen_ensemble
from linattn.streams import stream

LIMIT = 4.0


class Setting(NamedTuple):
    """A federation, a start and how rounds are run."""

    problem: la.Problem
    params: la.Params
    rounds: int
    run: dict[str, Any]

    def row(self) -> dict[str, Any]:
        """What distinguishes it, for the table."""
        steps = np.asarray(self.run["local_steps"])
        return {
            "clients": self.problem.num_clients,
            "sequences": self.problem.num_sequences,
            "rows": self.params.value.shape[0] * self.params.value.shape[1],
            "readout": self.problem.readout,
            "equal_weights": bool(np.ptp(self.problem.weights) < 1e-12),
            "rounds": self.rounds,
            "local_steps": " ".join(map(str, np.atleast_1d(steps))),
            **{k: self.run[k] for k in SHOWN},
        }


SHOWN = ("participation", "sampling", "batch_size", "stragglers", "local_lr")


def random_setting(seed: int) -> Setting:
    """Draw setting number `seed`; the step stays below 0.9/max λ_max(A_i)."""
    draw = stream(seed, "moment ensembles")
    clients = int(draw.integers(3, 9))
    problem = la.synthetic_problem(
        num_clients=clients,
        sequences_per_client=int(draw.integers(3, 13)),
        num_tokens=int(draw.integers(2, 9)),
        dim=int(draw.integers(2, 5)),
        num_outputs=int(draw.integers(1, 4)),
        covariate_heterogeneity=float(draw.uniform(0.0, 0.6)),
        kernel_heterogeneity=float(draw.uniform(0.0, 0.5)),
        value_heterogeneity=float(draw.uniform(0.0, 1.5)),
        noise=float(draw.uniform(0.0, 0.5)),
        value_ridge=float(np.exp(draw.uniform(np.log(0.02), np.log(0.5)))),
        kernel_ridge=0.01,
        readout=str(draw.choice(["token", "mean", "last"])),
        weights="equal" if draw.random() < 0.4 else draw.dirichlet(np.full(clients, 2.0)),
        seed=seed,
    )
    params = la.initial_params(
        problem,
        num_heads=int(draw.integers(1, 3)),
        kernel=str(draw.choice(["merged", "factored"])),
        scale=float(draw.uniform(0.5, 1.0)),
        value=str(draw.choice(["zeros", "normal", "minimizer"])),
        seed=seed,
    )
    top = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
    most = int(draw.integers(1, 7))
    unequal = draw.random() < 0.4
    steps = draw.integers(1, most + 1, clients).tolist() if unequal else most
    batches = draw.random() < 0.6
    run = {
        "local_steps": steps,
        "local_lr": float(draw.uniform(0.1, 0.9)) / top,
        "participation": float(draw.uniform(0.1, 1.0)),
        "sampling": str(draw.choice(["uniform", "weighted"])),
        "batch_size": int(draw.integers(1, 5)) if batches else None,
        "stragglers": float(draw.choice([0.0, 0.0, 0.3, 0.8])),
    }
    return Setting(problem, params, int(draw.integers(1, 11)), run)


def measured(setting: Setting, runs: int) -> dict[str, Any]:
    """The row of a setting: expected and mean gap, and their distance in standard errors."""
    moments = la.frozen_moments(setting.problem, setting.params, **setting.run)
    found = frozen_ensemble(
        setting.problem, setting.params, num_runs=runs, rounds=setting.rounds, **setting.run
    )
    expected, error = moments.expected_gap(setting.rounds), found.standard_error
    return setting.row() | {
        "expected_gap": expected,
        "noise_share": moments.noise(setting.rounds) / expected,
        "mean_gap": found.mean,
        "standard_error": error,
        "z": (found.mean - expected) / error,
    }


def main() -> int:
    """Run all settings, write the record, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, default=48)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    rows, seed, began = [], 0, time.time()
    while len(rows) < given.settings:
        setting = random_setting(seed)
        seed += 1
        random = frozen_ensemble(
            setting.problem, setting.params, num_runs=8, rounds=setting.rounds, **setting.run
        )
        if np.ptp(random.gaps) == 0.0:  # everybody, full batches, no stragglers
            continue
        rows.append({"setting": seed - 1} | measured(setting, given.runs))
        print(f"{len(rows):3d}/{given.settings}  z = {rows[-1]['z']:+.2f}", flush=True)
    sizes = np.abs([row["z"] for row in rows])
    summary = {
        "settings": len(rows),
        "runs_per_setting": given.runs,
        "outside_two_errors": int((sizes > 2.0).sum()),
        "outside_four_errors": int((sizes > LIMIT).sum()),
        "largest": float(sizes.max()),
        "root_mean_square": float(np.sqrt(np.mean(sizes**2))),
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "scipy": scipy.__version__, "linattn": la.__version__},
    }  # fmt: skip
    write_rows(given.output / "ensembles.csv", rows, digits=12)
    text = json.dumps(summary, indent=1)
    (given.output / "summary.json").write_text(text + "\n", encoding="utf-8")
    print(text, f"{time.time() - began:.0f} s")
    return 1 if summary["outside_four_errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
