"""The trade-off predicted before any federated run, and every other route to the best length.

In regimes × (η, E) × parametrizations the curve F(B_T, V_R) is measured and predicted (C24), and
the lengths that predictions, the certificate and the freeze rules advise are judged by what they
cost. Run ``python simulations/response.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import linattn as la
from linattn._fields import Positive
from linattn.analysis.predicted import objective_at
from linattn.analysis.regret import best_length, has_tradeoff, relative_regret, stake
from linattn.data.worlds import InitialSpec
from linattn.experiments import Simulation
from linattn.experiments.predictions import PredictedSpec, Tables, compared, judged, spent
from linattn.experiments.specs import FACTORED, WORLDS, distinct, pairs, regimes
from linattn.experiments.tables import Variables, along, single

if TYPE_CHECKING:
    import xarray as xr

Route = Literal[
    "first_order", "log_law", "pass", "certificate", "profile", "observable", "certified"
]
RULES: tuple[Route, ...] = ("profile", "observable", "certified")
UNITS = {
    "reference": "loss",
    "warmup_star": "rounds",
    "predicted_star": "rounds",
    "route_length": "rounds",
    "route_rounds": "rounds",
    "law_rate": "curvature",
    "law_time": "1/curvature",
    "law_crossing": "loss × curvature",
}


class ResponseSpec(PredictedSpec):
    """A regime, its prediction at some tolerances, and further routes to the best length.

    At the tolerance `coarse` only the impulses of the predicted run are counted.
    """

    tolerances: tuple[Positive, ...] = (0.01,)
    coarse: Positive = 0.03
    routes: tuple[Route, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("tolerances", self.tolerances)
        if self.routes:
            distinct("routes", self.routes)


def run(spec: ResponseSpec) -> xr.Dataset:
    """Return the measured and the predicted curve, and what every route advises.

    Dimensions: `warmup`; `impulse`, the rounds at which drift was measured; `tolerance` of the
    prediction; `route`. ``objective``, ``profile`` are measured, ``predicted`` and
    ``predicted_at_impulse`` predicted at the last tolerance. By tolerance ``predicted_star`` is
    T̂, ``regret`` its relative regret, ``worst_error`` of the curve relative to its excess,
    ``num_impulses`` (with rejected ones; ``num_impulses_coarse`` at the tolerance `coarse`) and
    ``trusted``, ``reason``. By route the length that it advises, its relative regret and the rounds
    of all clients that it needs.
    """
    import xarray as xr

    tables = spec.tables()
    measured = tables.along(tables.measured_path())
    held = measured[["objective", "profile"]].drop_attrs(deep=False)
    values = {
        "reference": tables.world.reference.value,
        "warmup_star": best_length(measured),
        "tradeoff": has_tradeoff(measured),
        "stake": stake(measured),
        "saved": saved(measured),
        "num_impulses_coarse": spent(tables.predicted_run(spec.coarse)),
        **_law(tables),
    }
    found = [tables.predicted(tolerance) for tolerance in spec.tolerances]
    rows = [compared(measured, table) | judged(table) for table in found]
    path = tables.predicted_run(spec.tolerances[-1])
    at = tables.along(path.path, path.impulse_rounds.tolist())
    data: Variables = {
        "predicted": ("warmup", found[-1]["objective"].values, {"units": "loss"}),
        "impulse_round": ("impulse", at["warmup"].values, {"units": "rounds"}),
        "predicted_at_impulse": ("impulse", at["objective"].values, {"units": "loss"}),
    }
    data |= along("tolerance", rows, UNITS) | single(values, UNITS)
    coordinates: dict[str, Any] = {"tolerance": list(spec.tolerances)}
    if spec.routes:
        advice = [_advice(tables, measured, ROUTE[name]) for name in spec.routes]
        data |= along("route", advice, UNITS)
        coordinates["route"] = list(spec.routes)
    return xr.Dataset(dict(held.data_vars) | data, dict(held.coords) | coordinates)


def saved(table: xr.Dataset) -> float:
    """Share of the excess of never freezing that freezing at T* saves; NaN if nothing is stable."""
    above = np.where(table["stable"], table["objective"], np.inf) - table.attrs["reference"]
    best, never = float(above.min()), float(above[-1])
    if not np.isfinite(best):
        return float("nan")
    return 1.0 - best / never if np.isfinite(never) else 1.0


def _law(tables: Tables) -> dict[str, float]:
    """The constants of the log law, and what it says at the drift number of the run."""
    law = tables.law()
    if law is None:
        return dict.fromkeys(("law_rate", "law_crossing", "law_time"), float("nan"))
    return {
        "law_rate": law.rate,
        "law_crossing": law.crossing,
        "law_time": law.best_time(tables.drift),
    }


Advice = Callable[[Tables], tuple[int, float]]
"""Length that a route advises, and the rounds of all clients that it needs to know it; NaN where it
needs the clients' gradients along the centralized path instead."""


def _advice(tables: Tables, measured: xr.Dataset, route: Advice) -> dict[str, float]:
    """A route judged; a length off the grid counts as the nearest on it."""
    length, rounds = route(tables)
    grid = measured["warmup"].values
    near = int(grid[np.argmin(np.abs(grid - length))])
    return {
        "route_length": length,
        "route_regret": relative_regret(measured, objective_at(measured, near)),
        "route_rounds": rounds,
    }


def _by_first_order(tables: Tables) -> tuple[int, float]:
    """The tangent of the centralized path in the drift number (C18)."""
    return tables.rounds_to(float(tables.response().best_time(tables.drift))), np.nan


def _by_log_law(tables: Tables) -> tuple[int, float]:
    """The slowest mode alone (C18); never where it has nothing to say."""
    law = tables.law()
    return tables.rounds_to(np.inf if law is None else law.best_time(tables.drift)), np.nan


def _by_pass(tables: Tables) -> tuple[int, int]:
    """Impulses measured along the centralized path (C23, k = 1)."""
    run = tables.predicted_run(0.01, passes=1)
    return best_length(tables.along(run.path)), spent(run)


def _by_certificate(tables: Tables) -> tuple[int, int]:
    """Where the certificate is smallest (C4)."""
    world = tables.world
    certificate = la.descent_certificate(world.problem, world.params, **tables.settings)
    return int(np.argmin(certificate["certificate"].values)), tables.rounds


def _by_rule(tables: Tables, name: str) -> tuple[int, int]:
    """Where a rule freezes (C13); the round that it discards counts."""
    world, method = tables.world, la.fed_frozen(warmup_rounds=la.freeze_rule(name))
    result = la.run(method, world.problem, world.params, metrics=(), **tables.settings)
    if result.freeze_round is None:
        return tables.rounds, tables.rounds
    return result.freeze_round, result.freeze_round + 1


ROUTE: Mapping[Route, Advice] = {
    "first_order": _by_first_order,
    "log_law": _by_log_law,
    "pass": _by_pass,
    "certificate": _by_certificate,
    **{name: partial(_by_rule, name=name) for name in RULES},
}
DRIFTS = (0.02, 0.05, 0.1, 0.2, 0.5)
MAIN = [(0.75, 0.3)]
REST = [world for world in WORLDS if world not in MAIN]
FINER = [(0.2, 0.3), (0.6, 0.3), (1.0, 0.3)]
ROUTES: tuple[Route, ...] = ("first_order", "log_law", "pass", *RULES)
ALL: tuple[Route, ...] = (*ROUTES, "certificate")
JUDGED = pairs((0.05, 0.2), 0.02)
OTHERS = (
    ResponseSpec(initial=FACTORED),
    ResponseSpec(initial=InitialSpec(num_heads=2)),
    ResponseSpec(weights="rising"),
)
QUICK: dict[str, Any] = {"num_lengths": 50, "num_starts": 4}
SHOWN = (0.02, 0.05, 0.2, 0.5)

SIMULATION = Simulation(
    ResponseSpec,
    run,
    presets={
        "paper": [
            *regimes(ResponseSpec(routes=ALL), JUDGED, seeds=10, worlds=MAIN),
            *regimes(ResponseSpec(routes=ROUTES), JUDGED, seeds=10, worlds=REST),
            *(grid for base in OTHERS for grid in regimes(base, JUDGED, seeds=10)),
            *regimes(ResponseSpec(), pairs((0.02, 0.1, 0.5), 0.02), seeds=10),
            *regimes(ResponseSpec(), pairs((0.05, 0.2), 0.005), seeds=5),
            *regimes(ResponseSpec(), JUDGED, seeds=3, worlds=FINER),
            *regimes(ResponseSpec(), [(0.02, 1)], seeds=3),
            *regimes(ResponseSpec(identical=True), pairs(DRIFTS, 0.02), seeds=3, worlds=MAIN),
        ],
        "quick": [
            *regimes(ResponseSpec(routes=ROUTES, **QUICK), pairs(SHOWN[1:], 0.02), worlds=MAIN),
            *regimes(
                ResponseSpec(**QUICK),
                [*pairs(SHOWN[:1], 0.02), *pairs((0.05, 0.2), 0.01)],
                worlds=MAIN,
            ),
            *regimes(ResponseSpec(**QUICK), [(0.02, 1), (0.02, 11)], worlds=WORLDS[1:3]),
            *regimes(ResponseSpec(identical=True, **QUICK), [(0.02, 11)], worlds=MAIN),
        ],
        "tiny": regimes(
            ResponseSpec(horizon=5.0, routes=ALL, num_lengths=10, num_starts=1),
            [(0.02, 21)],
            worlds=MAIN,
        ),
    },
)


if __name__ == "__main__":
    SIMULATION.main()
