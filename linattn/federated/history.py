"""The history of a run: which quantities, computed when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from linattn._checks import one_of
from linattn._typing import Array, BoolArray, IntArray
from linattn.federated.driver import Round
from linattn.federated.oracle import METRICS, Oracle
from linattn.types import Params

DRIVER_METRICS = (
    "kernel_drift",
    "value_drift",
    "kernel_trained",
    "local_lr",
    "floats_up",
    "floats_down",
)
ALL_METRICS = (*METRICS, *DRIVER_METRICS)


def check_metrics(oracle: Oracle, metrics: Sequence[str] | None) -> tuple[str, ...]:
    """Return the metrics that were asked for, by default all that the problem has."""
    chosen = (*oracle.metric_names, *DRIVER_METRICS) if metrics is None else tuple(metrics)
    for name in chosen:
        one_of("metrics", name, ALL_METRICS)
        if name in METRICS and name not in oracle.metric_names:
            raise ValueError(
                f"metrics must leave out {name!r} for a deep problem, which has only "
                f"{', '.join(map(repr, oracle.metric_names))}: the kernel profile needs one layer."
            )
    return chosen


class History:
    """Columns of the history, one entry per round and one for the start."""

    def __init__(
        self,
        oracle: Oracle,
        names: tuple[str, ...],
        evaluate: Callable[[Params], Mapping[str, float]] | None,
    ) -> None:
        self.oracle = oracle
        self.names = names
        self.evaluate = evaluate
        self.rows: list[dict[str, float]] = []

    def start(self, params: Params) -> None:
        """Entry 0: the start, before any training."""
        try:
            row = self._global(params)
        except FloatingPointError as error:
            raise ValueError(
                f"params must have a finite objective at the start: {error}."
            ) from None
        bad = _not_finite(row)
        if bad:
            raise ValueError(f"params must have a finite objective at the start, got a {bad}.")
        nothing = {"kernel_trained": False, "floats_up": 0, "floats_down": 0}
        for name in DRIVER_METRICS:
            if name in self.names:
                row[name] = nothing.get(name, np.nan)
        self.rows.append(row)

    def _global(self, params: Params) -> dict[str, float]:
        row = self.oracle.metrics(params, self.names)
        if self.evaluate is not None:
            row.update({name: float(x) for name, x in self.evaluate(params).items()})
        return row

    def add(self, done: Round, params: Params) -> str:
        """Append the entry after a round; return why it diverged, or nothing."""
        if not np.isfinite(done.flat).all():
            return "non-finite parameters"
        row = self._global(params)
        bad = _not_finite(row)
        if bad:
            return bad
        row.update(self._local(done))
        self.rows.append(row)
        return ""

    def _local(self, done: Round) -> dict[str, float]:
        layout = done.context.params.layout
        kernel = layout.mask(layout.kernel_blocks)
        spread = done.ends - done.context.weights @ done.ends
        row = {
            "kernel_drift": weighted_norm(done.context.weights, spread[:, kernel]),
            "value_drift": weighted_norm(done.context.weights, spread[:, ~kernel]),
            "kernel_trained": bool(done.plan.trained & layout.kernel_blocks),
            "local_lr": done.plan.local_lr,
            "floats_up": done.floats_up,
            "floats_down": done.floats_down,
        }
        return {name: x for name, x in row.items() if name in self.names}

    def columns(self) -> dict[str, Array | BoolArray | IntArray]:
        """The history as arrays."""
        return {name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}


def _not_finite(row: Mapping[str, float]) -> str:
    """The first global quantity that is NaN or infinite, if any."""
    bad = [name for name in METRICS if not np.isfinite(row.get(name, 0.0))]
    return f"non-finite {bad[0]}" if bad else ""


def weighted_norm(weights: Array, rows: Array) -> float:
    """(Σ w_i ‖row_i‖²)^½."""
    return float(np.sqrt(weights @ np.einsum("ij,ij->i", rows, rows)))
