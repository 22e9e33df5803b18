"""All methods on the same clients, each at its best step: synthetic, a deep model, digits, watch.

Run ``python simulations/methods.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta

import linattn as la
from linattn._fields import Count, Index, NonNegative, Positive
from linattn._typing import Array
from linattn.data.worlds import InitialSpec, ModelSpec, World
from linattn.experiments import Grid, Simulation
from linattn.experiments.own import is_own, own_name, own_object
from linattn.experiments.simulation import Own
from linattn.experiments.specs import (
    COVARIATE,
    FACTORED,
    FEW_CLIENTS,
    FEW_SEQUENCES,
    KERNEL,
    SMALL,
    TARGET,
    WorldSpec,
)
from linattn.experiments.tables import along, single
from linattn.experiments.tuning import Tuned, near
from linattn.federated.method import Method
from linattn.federated.methods.table import Choices, make_method, method_names

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = ("objective", "kernel_drift", "floats_up", "floats_down", "multiply_adds")
PARAMETERS = {
    "fed_avg_momentum": "server_momentum",
    "fed_prox": "prox",
    "moon": "contrast",
    "fed_frozen": "warmup_rounds",
    "frozen_scaffold": "warmup_rounds",
    "frozen_one_shot": "warmup_rounds",
    "freeze_value": "warmup_rounds",
    "fed_part": "initial_rounds",
    "selective": "budget",
    "fed_tp": "server_lr",
}
"""The setting of a method that has a small grid of its own."""
PRICES = {
    "rounds_to_target": "rounds",
    "floats_to_target": "floats",
    "work_to_target": "multiply-adds",
}
UNITS = PRICES | {"final_objective": "loss", "kernel_drift": "parameter norm", "target": "loss",
                  "start": "loss", "rounds": "rounds", "unit_step": "1/curvature"}  # fmt: skip
Share = Annotated[float, Meta(ge=0, lt=1)]


class MethodsSpec(WorldSpec):
    """All methods in one world, each at its best step and setting.

    `methods` are names of the table of methods or your own, ``PATH.py:NAME``, where NAME is a
    method or a function of `Choices` that makes one; left empty, all that the world's model allows.
    Lists are the grids of settings; `warmup_shares` are T/R.
    """

    methods: tuple[Own, ...] = ()
    warmup_shares: tuple[Share, ...] = (0.1, 0.25, 0.5, 0.75)
    prox: tuple[NonNegative, ...] = (0.01, 0.1, 1.0)
    server_momentum: tuple[Share, ...] = (0.5, 0.9)
    contrast: tuple[NonNegative, ...] = (0.1, 1.0)
    initial_rounds: tuple[Index, ...] = (0, 5, 20)
    budget: tuple[Count, ...] = (1, 2)
    server_lr: tuple[Positive, ...] = (1.0, 2.0)
    embedding_dim: Count = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = method_names(deep=self.deep)
        for name in self.methods:
            if name not in allowed and not is_own(name):
                raise ValueError(
                    f"methods must be among {', '.join(allowed)} where deep is {self.deep}, or "
                    f"your own as PATH.py:NAME, got {name!r}."
                )
        if self.methods and "fed_avg" not in self.methods:
            raise ValueError("methods must have fed_avg, which the others are compared with.")
        called = tuple(own_name(name) for name in self.methods)
        if len(set(called)) < len(called):
            raise ValueError(f"methods must have names of their own, got {', '.join(called)}.")

    def names(self) -> tuple[str, ...]:
        """The methods of this run."""
        return self.methods or method_names(deep=self.deep, common=True)

    def cost(self) -> float:
        """As one trajectory, for every method."""
        return super().cost() * len(self.names())

    def variants(self, name: str, world: World, rounds: int) -> Iterator[tuple[float, Method]]:
        """Yield a method at every value of its setting, NaN where it has none."""
        field = PARAMETERS.get(name, "")
        lengths = sorted({round(share * rounds) for share in self.warmup_shares})
        values = lengths if field == "warmup_rounds" else getattr(self, field, (float("nan"),))
        plain = Choices(world.params, self.local_steps, embedding_dim=self.embedding_dim)
        for value in values:
            settings: dict[str, Any] = {field: value} if field else {}
            choices = plain._replace(**settings)
            own = own_object(name) if is_own(name) else make_method(name, choices)
            made = own(choices) if callable(own) else own
            if not isinstance(made, Method):
                raise ValueError(
                    f"methods must be Methods or functions of Choices that make one, but "
                    f"{own_name(name)} is {type(made).__name__}."
                )
            yield float(value), made


def run(spec: MethodsSpec) -> xr.Dataset:
    """Return what every method ends with at its best step and setting, from one start.

    Dimension `method`. ``final_objective`` and ``test_accuracy`` of the models that clients use,
    the latter on their own test sequences (NaN if diverged); ``kernel_drift`` of the last round;
    ``factor`` of the unit step, whether it is ``interior``, and the ``setting`` (NaN if a method
    has none). The target is FedAvg's final objective plus one per cent of what it gained;
    ``*_to_target`` are rounds, floats both ways and multiply-adds until a method is there, NaN if
    it never is. ``rounds``, after which FedAvg has settled.
    """
    import xarray as xr

    world = spec.world()
    rounds = spec.settled(world)
    average = _best(spec, world, "fed_avg", rounds, spec.factors)
    factors = near(average[1].factor)
    best = {
        name: average if name == "fed_avg" else _best(spec, world, name, rounds, factors)
        for name in spec.names()
    }
    base = _used(average[1])
    target = float(base[-1] + 0.01 * (base[0] - base[-1]))
    rows = [_row(world, setting, tuned, target) for setting, tuned in best.values()]
    values = {"target": target, "start": base[0], "rounds": rounds, "unit_step": world.local_lr}
    data: dict[str, Any] = along("method", rows, UNITS) | single(values, UNITS)
    return xr.Dataset(data, {"method": [own_name(name) for name in best]})


def _best(
    spec: MethodsSpec, world: World, name: str, rounds: int, factors: Sequence[float]
) -> tuple[float, Tuned[la.Result]]:
    """The setting of the smallest loss, each at its best step, and the run there."""
    values, variants = zip(*spec.variants(name, world, rounds), strict=True)
    found = spec.tuned_in_turn(variants, world, factors=factors, rounds=rounds, metrics=COLUMNS)
    return min(zip(values, found, strict=True), key=lambda pair: pair[1].loss)


def _used(tuned: Tuned[la.Result]) -> Array:
    """The objective, round by round, of the models that clients use."""
    columns = tuned.found.columns
    return np.asarray(columns.get("personal_objective", columns["objective"]))


def _row(world: World, setting: float, tuned: Tuned[la.Result], target: float) -> dict[str, float]:
    """What a method ends with, and its price of the target."""
    columns, used = tuned.found.columns, _used(tuned)
    completed = bool(np.isfinite(tuned.loss))
    reached = np.flatnonzero(used <= target)
    floats = np.cumsum(columns["floats_up"] + columns["floats_down"])
    prices = (np.arange(len(used)), floats, np.cumsum(columns["multiply_adds"]))
    return {
        "final_objective": tuned.loss,
        "test_accuracy": world.share_right(tuned.found.client_params) if completed else np.nan,
        "kernel_drift": float(columns["kernel_drift"][-1]) if completed else np.nan,
        "setting": setting,
        **tuned.said(),
        **{
            name: float(price[reached[0]]) if reached.size else np.nan
            for name, price in zip(PRICES, prices, strict=True)
        },
    }


REAL = InitialSpec(scale=1.0)
SOME = ("fed_avg", "fed_frozen", "frozen_one_shot", "scaffold", "fed_prox", "local_attention")
FEW_SETTINGS: dict[str, Any] = {
    "warmup_shares": (0.25, 0.5), "prox": (0.1,), "server_momentum": (0.9,), "contrast": (0.1,),
    "initial_rounds": (0, 5), "server_lr": (1.0,),
}  # fmt: skip
SIMULATION = Simulation(
    MethodsSpec,
    run,
    version=2,
    presets={
        "paper": [
            Grid(MethodsSpec(rounds=50, most_rounds=400),
                 {TARGET: [0.4, 0.75, 1.5], COVARIATE: [0.3], "seed": range(10)}),
            Grid(MethodsSpec(rounds=50, most_rounds=400, initial=FACTORED),
                 {KERNEL: [0.5], "seed": range(10)}),
            Grid(MethodsSpec(deep=True, rounds=60, most_rounds=60, problem=FEW_SEQUENCES,
                             **FEW_SETTINGS), {"seed": range(10)}),
            Grid(MethodsSpec(rounds=50, most_rounds=400, initial=REAL, contrast=(0.1,)),
                 {"data": ["digits", "watch"], "seed": range(10)}),
        ],
        "quick": [
            Grid(MethodsSpec(problem=FEW_CLIENTS, factors=(0.1, 0.3, 1.0), **FEW_SETTINGS),
                 {"seed": range(2)}),
            Grid(MethodsSpec(deep=True, rounds=6, most_rounds=6, local_steps=3,
                             problem=FEW_CLIENTS, factors=(10.0, 30.0), methods=SOME[:2]),
                 {"seed": range(2)}),
            Grid(MethodsSpec(rounds=12, most_rounds=12, local_steps=5, initial=REAL, methods=SOME,
                             factors=(3.0, 10.0)), {"data": ["digits", "watch"], "seed": range(2)}),
        ],
        "tiny": [
            Grid(MethodsSpec(deep=deep, rounds=4, most_rounds=8, local_steps=2, problem=SMALL,
                             factors=(1.0, 3.0), model=ModelSpec(inner_dim=2), prox=(0.1,),
                             server_momentum=(0.5,), contrast=(0.1,), initial_rounds=(1,),
                             budget=(1,), server_lr=(1.0,), warmup_shares=(0.25, 0.5)),
                 {"seed": range(2)})
            for deep in (False, True)
        ],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
