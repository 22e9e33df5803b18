"""All methods in one world: objective, accuracy, drift, mismatch, and the price of a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._typing import Array
from linattn.experiments.jobs.common import along, single
from linattn.experiments.jobs.worlds import (
    World,
    make_world,
    padded,
    relative_mismatch,
    share_right,
    train,
)
from linattn.experiments.method_specs import MethodName, MethodsSpec

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = {
    "objective": "loss",
    "personal_objective": "loss",
    "kernel_drift": "parameter norm",
    "value_drift": "parameter norm",
    "floats_up": "floats",
    "floats_down": "floats",
    "multiply_adds": "multiply-adds",
}
PRICES = {
    "rounds_to_target": "rounds",
    "floats_to_target": "floats",
    "work_to_target": "multiply-adds",
}
UNITS = PRICES | {"final_objective": "loss"}


def run(spec: MethodsSpec) -> xr.Dataset:
    """Return every method's run, from one start on the same clients.

    Dimensions: `method`; `round` = 0..rounds. The columns of the history; ``mismatch``,
    ‖F(w̄) − Σ w_i F(w_i)‖/‖Σ w_i F(w_i)‖ of the last round's averaging (NaN where a block is not
    averaged); ``final_objective`` and ``test_accuracy`` of the models that clients use, the latter
    on their own test sequences (NaN if diverged). The target is FedAvg's final objective plus one
    per cent of what it gained; ``*_to_target`` are rounds, floats both ways and multiply-adds until
    a method is there, NaN if it never is.
    """
    import xarray as xr

    world = make_world(spec)
    made = {name: _one(spec, world, name) for name in spec.names()}
    base = made["fed_avg"]["personal_objective"]
    target = float(base[-1] + 0.01 * (base[0] - base[-1]))
    rows = [_row(columns, target) for columns in made.values()]
    data: dict[str, Any] = {
        name: (("method", "round"), np.stack([c[name] for c in made.values()]), {"units": unit})
        for name, unit in COLUMNS.items()
    }
    data |= along("method", rows, UNITS)
    data |= single({"target": target, "step": world.local_lr}, {"target": "loss"})
    coordinates = {"method": list(made), "round": np.arange(spec.rounds + 1)}
    return xr.Dataset(data, coordinates)


def build_method(spec: MethodsSpec, world: World, name: MethodName) -> la.Method:
    """Return the method of a name with the settings of a spec."""
    kernel = tuple(world.params.layout.kernel_blocks)
    length = spec.warmup_rounds
    made = {
        "fed_avg": lambda: la.fed_avg(),
        "fed_avg_momentum": lambda: la.fed_avg(server_momentum=spec.server_momentum),
        "fed_prox": lambda: la.fed_prox(prox=spec.prox),
        "scaffold": lambda: la.scaffold(),
        "moon": lambda: la.moon(weight=spec.contrast),
        "fed_frozen": lambda: la.fed_frozen(warmup_rounds=length),
        "frozen_scaffold": lambda: la.fed_frozen(warmup_rounds=length, frozen="scaffold"),
        "frozen_one_shot": lambda: la.fed_frozen(warmup_rounds=length, frozen="one_shot"),
        "freeze_value": lambda: la.fed_frozen(warmup_rounds=length, freeze="value"),
        "freeze_start": lambda: la.fed_frozen(warmup_rounds=0),
        "fed_part": lambda: la.fed_part(initial_rounds=5, rounds_per_group=2),
        "selective": lambda: la.selective(budget=spec.budget),
        "fed_tp": lambda: la.fed_tp(
            embedding_dim=spec.embedding_dim, blocks=kernel, server_lr=spec.server_lr
        ),
        "local_attention": lambda: la.local_attention(blocks=kernel),
        "fine_tuned": lambda: la.fine_tuned(steps=spec.local_steps),
        "fed_sq": lambda: la.fed_sq(structural=world.params),
    }
    return made[name]()


def _one(spec: MethodsSpec, world: World, name: MethodName) -> dict[str, Any]:
    """Columns of one method at full length, and what it ends with."""
    last: list[float] = []

    def observe(context: la.RoundContext, proposal: Any) -> None:
        if context.round == spec.rounds - 1:
            last.append(relative_mismatch(context, proposal))

    result = train(
        build_method(spec, world, name), world, spec, observe=observe, metrics=tuple(COLUMNS)
    )
    columns: dict[str, Any] = {
        name: padded(result.columns[name], spec.rounds + 1) for name in COLUMNS
    }
    columns["mismatch"] = last[0] if last else np.nan
    completed = result.outcome.status == "completed"
    columns["test_accuracy"] = share_right(world, result.client_params) if completed else np.nan
    return columns


def _row(columns: dict[str, Any], target: float) -> dict[str, float]:
    """What a method ends with, and its price of the target."""
    used: Array = columns["personal_objective"]
    reached = np.flatnonzero(used <= target)
    floats = np.cumsum(columns["floats_up"] + columns["floats_down"])
    prices = (np.arange(len(used)), floats, np.cumsum(columns["multiply_adds"]))
    return {
        "final_objective": float(used[-1]),
        "mismatch": columns["mismatch"],
        "test_accuracy": columns["test_accuracy"],
        "diverged": bool(np.isnan(used[-1])),
        **{
            name: float(price[reached[0]]) if reached.size else float("nan")
            for name, price in zip(PRICES, prices, strict=True)
        },
    }
