"""FedPart's schedules: order of the groups and number of full rounds, against three prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn.experiments.jobs.worlds import make_world, padded, train
from linattn.experiments.method_specs import PartScheduleSpec

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = {"objective": "loss", "floats_up": "floats", "floats_down": "floats",
           "multiply_adds": "multiply-adds"}  # fmt: skip


def run(spec: PartScheduleSpec) -> xr.Dataset:
    """Return FedAvg and FedPart under every schedule.

    Dimensions: `schedule`, "fed_avg" or "order, W"; `round` = 0..rounds. ``objective``, and
    ``floats`` (both ways) and ``multiply_adds`` summed up to that round.
    """
    import xarray as xr

    world = make_world(spec)
    found = {
        name: train(method, world, spec, metrics=tuple(COLUMNS)).columns
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
