"""Runs on digits and of deep models predicted without them: path and objective (C24).

Run ``python simulations/predicted_worlds.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

import linattn as la
from linattn._fields import Positive
from linattn.data.worlds import InitialSpec, ModelSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.predictions import path_error, spent
from linattn.experiments.specs import HETEROGENEOUS, SMALL, WorldSpec, distinct
from linattn.experiments.tables import along, single
from linattn.oracles.protocol import oracle_of

if TYPE_CHECKING:
    import xarray as xr

UNITS = {"rounds": "rounds", "drift": "1/curvature", "outcome_round": "rounds"}
SHOWN = 60
"""Rounds at which objectives are compared."""


class PredictedWorldSpec(WorldSpec):
    """FedAvg of `rounds` rounds at `factor` times the unit step, predicted at some tolerances."""

    factor: Positive = 1.0
    tolerances: tuple[Positive, ...] = (0.03, 0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("tolerances", self.tolerances)

    def cost(self) -> float:
        """One run at one step instead of all."""
        return super().cost() * 3.0 / len(self.factors)


def run(spec: PredictedWorldSpec) -> xr.Dataset:
    """Return errors of the predicted run and its impulses, dimension `tolerance`.

    ``path_error`` is the largest ‖θ̂ − θ‖/‖θ‖ over rounds, ``objective_error`` the largest
    |F(θ̂) − F(θ)| over the whole fall of F, ``num_impulses`` counts rejected ones. ``drift`` is the
    drift number.
    """
    import xarray as xr

    world = spec.world()
    step = spec.factor * world.local_lr
    measured = spec.train(
        la.fed_avg(), world, local_lr=step, record_params=True, metrics=("objective",)
    )
    objective, oracle = measured.columns["objective"], oracle_of(world.problem, world.params)
    fall = float(objective[0] - objective[-1])
    rows: list[dict[str, Any]] = []
    for tolerance in spec.tolerances:
        found = la.predict_run(
            world.problem, world.params, rounds=spec.rounds, local_steps=spec.local_steps,
            local_lr=step, tolerance=tolerance, check_chaos=False,
        )  # fmt: skip
        both = min(len(measured.path), len(found.path))
        at = np.unique(np.linspace(0, both - 1, SHOWN).round().astype(int))
        points = np.stack([found.path[t].flat for t in at])
        apart = np.abs(oracle.metrics(points, ("objective",))["objective"] - objective[at])
        rows.append({
            "path_error": path_error(measured.path, found.path),
            "objective_error": float(apart.max()) / fall,
            "num_impulses": spent(found),
            "outcome_round": found.outcome.round,
        })  # fmt: skip
    values = {
        "rounds": spec.rounds,
        "drift": 0.5 * step * (spec.local_steps - 1),
        "parameters": world.params.flat.size,
        "completed": measured.outcome.status == "completed",
    }
    data = along("tolerance", rows, UNITS) | single(values, UNITS)
    return xr.Dataset(data, {"tolerance": list(spec.tolerances)})


DIGITS = PredictedWorldSpec(data="digits", alpha=0.1, rounds=200, most_rounds=200)
DEEP = PredictedWorldSpec(
    problem=HETEROGENEOUS, deep=True, rounds=200, most_rounds=200, local_steps=6, deep_step=0.02
)
MAPS = {"model.feature_map": ["identity", "relu"]}

SIMULATION = Simulation(
    PredictedWorldSpec,
    run,
    presets={
        "paper": [
            Grid(DIGITS, {"factor": [1.0, 5.0], "seed": range(2)}),
            Grid(DEEP, MAPS | {"seed": range(2)}),
        ],
        "quick": [Grid(replace(DIGITS, rounds=50, most_rounds=50))],
        "tiny": [
            Grid(PredictedWorldSpec(problem=SMALL, initial=InitialSpec(scale=0.5),
                                    model=ModelSpec(), rounds=6, most_rounds=6)),
        ],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
