"""The history of a run: which quantities, computed when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from linattn._checks import one_of
from linattn._typing import Array, BoolArray, IntArray
from linattn.federated.driver import Round, RoundDriver
from linattn.federated.selection import selection_errors
from linattn.oracles.protocol import METRICS
from linattn.types import Params

DRIVER_METRICS = (
    "kernel_drift",
    "value_drift",
    "kernel_trained",
    "local_lr",
    "floats_up",
    "floats_down",
    "multiply_adds",
)
# Of the models that clients use, computed by default where a method makes them personal.
PERSONAL_METRICS = ("personal_objective",)
# One gradient of every client per round, so only on demand.
SELECTION_METRICS = ("unselected_gradient", "selection_skew", "selection_error")
ALL_METRICS = (*METRICS, *DRIVER_METRICS, *PERSONAL_METRICS, *SELECTION_METRICS)

EvaluateClients = Callable[[Sequence[Params]], Mapping[str, float]]


def check_metrics(driver: RoundDriver, metrics: Sequence[str] | None) -> tuple[str, ...]:
    """Return the metrics that were asked for, by default all that are cheap and make sense."""
    oracle = driver.oracle
    own = () if driver.method.personal is None else PERSONAL_METRICS
    chosen = (*oracle.metric_names, *DRIVER_METRICS, *own) if metrics is None else tuple(metrics)
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
        driver: RoundDriver,
        names: tuple[str, ...],
        evaluate: Callable[[Params], Mapping[str, float]] | None,
        evaluate_clients: EvaluateClients | None = None,
    ) -> None:
        self.driver = driver
        self.names = names
        self.evaluate = evaluate
        self.evaluate_clients = evaluate_clients
        self.rows: list[dict[str, float]] = []

    def start(self, params: Params) -> None:
        """Entry 0: the start, before any training."""
        try:
            row = self._global(params, self.driver.settings.start_round)
        except FloatingPointError as error:
            raise ValueError(
                f"params must have a finite objective at the start: {error}."
            ) from None
        bad = _not_finite(row)
        if bad:
            raise ValueError(f"params must have a finite objective at the start, got a {bad}.")
        nothing = {"kernel_trained": False, "floats_up": 0, "floats_down": 0, "multiply_adds": 0}
        for name in (*DRIVER_METRICS, *SELECTION_METRICS):
            if name in self.names:
                row[name] = nothing.get(name, np.nan)
        self.rows.append(row)

    def _global(self, params: Params, t: int) -> dict[str, float]:
        row = self.driver.oracle.metrics(params, self.names)
        if self.evaluate is not None:
            row.update({name: float(x) for name, x in self.evaluate(params).items()})
        if self.evaluate_clients is not None or set(PERSONAL_METRICS) & set(self.names):
            row.update(self._personal(params, t))
        return row

    def _personal(self, params: Params, t: int) -> dict[str, float]:
        """Σ p_i F_i(θ_i) at the models that clients use, and what the caller makes of them."""
        models, driver = self.driver.client_models(t), self.driver
        row = {}
        if "personal_objective" in self.names:
            parts = [driver.oracle.objective(i, flat) for i, flat in enumerate(models)]
            row["personal_objective"] = float(driver.problem.weights @ np.array(parts))
        if self.evaluate_clients is not None:
            held = [Params(params.layout, flat) for flat in models]
            row.update({name: float(x) for name, x in self.evaluate_clients(held).items()})
        return row

    def add(self, done: Round, params: Params) -> str:
        """Append the entry after a round; return why it diverged, or nothing."""
        if not np.isfinite(done.flat).all():
            return "non-finite parameters"
        row = self._global(params, done.context.round)
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
            "multiply_adds": done.multiply_adds,
        }
        if set(SELECTION_METRICS) & set(self.names):
            row.update(zip(SELECTION_METRICS, selection_errors(done.context), strict=True))
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
