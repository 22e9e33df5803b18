"""FedPart at depth three: order of the groups, number of full rounds, three prices.

Run ``python simulations/part_schedule.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import linattn as la
from linattn._fields import Count, Index
from linattn.data.worlds import ModelSpec, ProblemSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import (
    WorldSpec,
    distinct,
)
from linattn.experiments.tables import (
    padded,
)

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = {"objective": "loss", "floats_up": "floats", "floats_down": "floats",
           "multiply_adds": "multiply-adds"}  # fmt: skip


class PartScheduleSpec(WorldSpec):
    """FedPart: orders at the first of `initial_rounds`, numbers of initial rounds in sequence."""

    deep: bool = True
    model: ModelSpec = ModelSpec(num_layers=3)
    groups: Literal["block", "layer", "kernel_value"] = "layer"
    initial_rounds: tuple[Index, ...] = (5, 0, 15)
    rounds_per_group: Count = 2
    orders: tuple[Literal["sequential", "reverse", "random"], ...] = (
        "sequential",
        "reverse",
        "random",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("initial_rounds", self.initial_rounds)
        distinct("orders", self.orders)


def run(spec: PartScheduleSpec) -> xr.Dataset:
    """Return FedAvg and FedPart under every schedule.

    Dimensions: `schedule`, "fed_avg" or "order, W"; `round` = 0..rounds. ``objective``, and
    ``floats`` (both ways) and ``multiply_adds`` summed up to that round.
    """
    import xarray as xr

    world = spec.world()
    found = {
        name: spec.train(method, world, metrics=tuple(COLUMNS)).columns
        for name, method in schedules(spec).items()
    }
    full = {
        name: np.stack([padded(columns[name], spec.rounds + 1) for columns in found.values()])
        for name in COLUMNS
    }
    dims = ("schedule", "round")
    floats = np.cumsum(full["floats_up"] + full["floats_down"], axis=1)
    data: dict[str, Any] = {
        "objective": (dims, full["objective"], {"units": "loss"}),
        "floats": (dims, floats, {"units": "floats"}),
        "multiply_adds": (
            dims, np.cumsum(full["multiply_adds"], axis=1), {"units": "multiply-adds"},
        ),
    }  # fmt: skip
    return xr.Dataset(data, {"schedule": list(found), "round": np.arange(spec.rounds + 1)})


def schedules(spec: PartScheduleSpec) -> dict[str, la.Method]:
    """FedAvg, every order at the first W, and every other W in the first order."""
    first, order = spec.initial_rounds[0], spec.orders[0]
    pairs = [(o, first) for o in spec.orders] + [(order, w) for w in spec.initial_rounds[1:]]
    made = {
        f"{o}, {w}": la.fed_part(
            groups=spec.groups, initial_rounds=w, rounds_per_group=spec.rounds_per_group, order=o
        )
        for o, w in pairs
    }
    return {"fed_avg": la.fed_avg()} | made


SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=12, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)


SIMULATION = Simulation(
    PartScheduleSpec,
    run,
    presets={
        "paper": [
            Grid(
                PartScheduleSpec(rounds=195, local_lr=0.02, initial_rounds=(5, 0, 60)),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75],
                    "groups": ["layer", "block"],
                },
            ),
        ],
        "quick": [
            Grid(
                PartScheduleSpec(
                    rounds=26,
                    local_steps=2,
                    problem=SMALL,
                    initial_rounds=(5, 0, 10),
                ),
                {"seed": range(2)},
            ),
        ],
        "tiny": [
            Grid(
                PartScheduleSpec(
                    rounds=6,
                    local_steps=2,
                    rounds_per_group=1,
                    initial_rounds=(2, 0),
                    model=ModelSpec(num_layers=3, inner_dim=2),
                    problem=ProblemSpec(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3),
                ),
                {"seed": range(2)},
            ),
        ],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
