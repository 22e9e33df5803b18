"""FedPart at depth three: order of the groups, number of full rounds, three prices.

Run ``python simulations/part_schedule.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import linattn as la
from linattn._fields import Count, Index
from linattn.data.worlds import ModelSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import FEW_CLIENTS, FEW_SEQUENCES, SMALL, WorldSpec, distinct
from linattn.experiments.tables import along, padded

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
    """Return FedAvg and FedPart under every schedule, each at its best step.

    Dimensions: `schedule`, "fed_avg" or "order, W"; `round` = 0..rounds. ``objective``, and
    ``floats`` (both ways) and ``multiply_adds`` summed up to that round; ``factor`` of the unit
    step, and whether it is ``interior``.
    """
    import xarray as xr

    made = schedules(spec)
    found = spec.tuned_in_turn(made.values(), spec.world(), metrics=tuple(COLUMNS))
    tuned = dict(zip(made, found, strict=True))
    full = {
        name: np.stack([padded(t.found.columns[name], spec.rounds + 1) for t in tuned.values()])
        for name in COLUMNS
    }
    sums = {"floats": full["floats_up"] + full["floats_down"],
            "multiply_adds": full["multiply_adds"]}  # fmt: skip
    dims = ("schedule", "round")
    data: dict[str, Any] = {"objective": (dims, full["objective"], {"units": "loss"})}
    for name, each in sums.items():
        data[name] = (dims, np.cumsum(each, axis=1), {"units": name.replace("_", "-")})
    data |= along("schedule", [t.said() for t in tuned.values()], {})
    return xr.Dataset(data, {"schedule": list(tuned), "round": np.arange(spec.rounds + 1)})


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


SIMULATION = Simulation(
    PartScheduleSpec,
    run,
    version=2,
    presets={
        "paper": [Grid(PartScheduleSpec(rounds=100, most_rounds=100, problem=FEW_SEQUENCES,
                                        initial_rounds=(5, 0, 30)),
                       {"groups": ["layer", "block"], "seed": range(10)})],
        "quick": [Grid(PartScheduleSpec(rounds=20, most_rounds=20, local_steps=2,
                                        factors=(10.0, 30.0), problem=FEW_CLIENTS,
                                        initial_rounds=(5, 0, 10)), {"seed": range(2)})],
        "tiny": [Grid(PartScheduleSpec(rounds=6, most_rounds=6, local_steps=2, rounds_per_group=1,
                                       factors=(10.0, 30.0), initial_rounds=(2, 0), problem=SMALL,
                                       model=ModelSpec(num_layers=3, inner_dim=2)),
                      {"seed": range(2)})],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
