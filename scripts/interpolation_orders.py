"""How impulses are best interpolated: chords, parabolas, cubics, and a second corrector (C24).

    python scripts/interpolation_orders.py

Writes ``docs/record/response/orders.csv``: impulses, rejected and repeated ones counted, and the
error of θ of every scheme at several tolerances, on the main regime.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from kept import write_rows
from response_record import FOLDER, Rows, column
from response_record import rows as recorded

import linattn as la
from linattn._typing import Array
from linattn.experiments.predictions import PredictedSpec, path_error, spent
from linattn.experiments.specs import HETEROGENEOUS, pairs
from linattn.report.words import in_words
from linattn.theory import interpolation

ORDERS = {"chords": 1, "parabolas": 2, "cubics": 3, "parabolas, two correctors": 2}
TOLERANCES = (0.1, 0.03, 0.01, 0.003)
SEEDS = range(5)
DRIFTS = (0.05, 0.2)
AIM = 1e-3
"""Error of θ at which schemes are compared."""


class TwiceCorrected(interpolation._Walk):
    """Measures again at the corrected end of an interval, and corrects with that."""

    repeated = 0

    def _accept(self, ahead: Array) -> None:
        stop = self.t + len(ahead)
        if len(ahead) > 1 and len(self.errors) + 1 == len(self.nodes):
            nodes = self.nodes[-interpolation.ORDER - 1 :]
            end = self.course.correct(self.state, self.t, ahead, nodes)[-1]
            if not self.course.trouble(end):
                self.nodes[-1] = self.course.measure(end, stop)
                TwiceCorrected.repeated += 1
        super()._accept(ahead)


def rows() -> Iterator[dict[str, Any]]:
    """Every scheme at every tolerance on every run."""
    for seed in SEEDS:
        for step, count in pairs(DRIFTS, 0.02):
            spec = PredictedSpec(
                problem=HETEROGENEOUS, local_lr=step, local_steps=count, seed=seed, num_starts=1
            )
            tables = spec.tables()
            measured = tables.measured_path()
            for name, order in ORDERS.items():
                for tolerance in TOLERANCES:
                    found, repeated = predicted(tables, name, order, tolerance)
                    yield {
                        "scheme": name,
                        "seed": seed,
                        "drift": tables.drift,
                        "tolerance": tolerance,
                        "num_impulses": spent(found) + repeated,
                        "path_error": path_error(measured, found.path),
                    }


def predicted(tables: Any, name: str, order: int, tolerance: float) -> tuple[la.PredictedRun, int]:
    """The predicted run of a scheme, and how many impulses it measured again."""
    kept = interpolation.ORDER, interpolation._Walk
    TwiceCorrected.repeated = 0
    interpolation.ORDER = order
    if name.endswith("two correctors"):
        interpolation._Walk = TwiceCorrected  # type: ignore[misc]
    try:
        return tables.predicted_run(tolerance), TwiceCorrected.repeated
    finally:
        interpolation.ORDER, interpolation._Walk = kept  # type: ignore[misc]


def trials() -> list[str]:
    """Return how many impulses each scheme needs for one error, over parabolas, paired by run."""
    held = recorded("orders")
    schemes = list(dict.fromkeys(row["scheme"] for row in held))
    needed = {name: _needed([row for row in held if row["scheme"] == name]) for name in schemes}
    base = needed.get("parabolas", {})
    told = []
    for name in schemes:
        shared = [key for key in base if key in needed[name]]
        ratio = [needed[name][key] / base[key] for key in shared]
        words = in_words([base[key] for key in shared]) if name == "parabolas" else ""
        told.append(f"{name} {words or in_words(ratio) + ' times as many'}")
    if not told:
        return []
    return [
        f"*Trials of the interpolation* (main regime, {len(base)} runs of seeds and drift numbers; "
        f"impulses for an error of θ of {AIM:g}, between tolerances by the power law through "
        f"them): {', '.join(told)}."
    ]


def _needed(held: Rows) -> dict[tuple[float, float], float]:
    """Impulses for the aim by run, where tolerances on both sides of it were tried."""
    found = {}
    for key in {(row["seed"], row["drift"]) for row in held}:
        some = [row for row in held if (row["seed"], row["drift"]) == key]
        error, count = (np.log(column(some, name)) for name in ("path_error", "num_impulses"))
        if error.min() <= np.log(AIM) <= error.max():
            order = np.argsort(error)
            found[key] = float(np.exp(np.interp(np.log(AIM), error[order], count[order])))
    return found


def main() -> int:
    """Write the record."""
    held = list(rows())
    write_rows(FOLDER / "orders.csv", held, digits=6)
    for name in ORDERS:
        for tolerance in TOLERANCES:
            some = [r for r in held if (r["scheme"], r["tolerance"]) == (name, tolerance)]
            count, error = (np.median([r[k] for r in some]) for k in ("num_impulses", "path_error"))
            print(f"{name}, {tolerance:g}: {count:g} impulses, error of θ {error:.2g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
