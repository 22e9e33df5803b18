"""All methods on the same clients: synthetic regimes, a deep ReLU model, digits and watch.

Run ``python simulations/methods.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta

import linattn as la
from linattn._fields import Count, Index, NonNegative, Positive
from linattn._typing import Array
from linattn.analysis.outputs import relative_mismatch
from linattn.data.worlds import InitialSpec, ModelSpec, ProblemSpec, World
from linattn.experiments import Grid, Simulation
from linattn.experiments.own import is_own, own_object
from linattn.experiments.simulation import Own
from linattn.experiments.specs import (
    WorldSpec,
)
from linattn.experiments.tables import (
    along,
    padded,
    single,
)
from linattn.federated.method import Method
from linattn.federated.methods.table import Choices, make_method, method_names

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


class MethodsSpec(WorldSpec):
    """All methods in one world.

    `methods` are names of the table of methods or your own, ``PATH.py:NAME``, where NAME is a
    method or a function of `Choices` that makes one; left empty, all that the world's model allows.
    """

    methods: tuple[Own, ...] = ()
    warmup_rounds: Index = 10
    prox: NonNegative = 0.1
    server_momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    contrast: NonNegative = 0.1
    budget: Count = 1
    embedding_dim: Count = 4
    server_lr: Positive = 1.0

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
            raise ValueError("methods must have fed_avg, whose final objective is the target.")

    def names(self) -> tuple[str, ...]:
        """The methods of this run."""
        return self.methods or method_names(deep=self.deep, common=True)

    def cost(self) -> float:
        """As one trajectory, for every method."""
        return super().cost() * len(self.names())

    def method(self, name: str, world: World) -> Method:
        """Return the method of a name with the settings of this spec."""
        fields = {name: getattr(self, name) for name in Choices._fields if hasattr(self, name)}
        choices = Choices(params=world.params, **fields)
        if not is_own(name):
            return make_method(name, choices)
        own = own_object(name)
        return own if isinstance(own, Method) else own(choices)


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

    world = spec.world()
    made = {shown_name(name): _one(spec, world, name) for name in spec.names()}
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


def _one(spec: MethodsSpec, world: World, name: str) -> dict[str, Any]:
    """Columns of one method at full length, and what it ends with."""
    last: list[float] = []

    def observe(context: la.RoundContext, proposal: Any) -> None:
        if context.round == spec.rounds - 1:
            last.append(relative_mismatch(context, proposal))

    result = spec.train(spec.method(name, world), world, observe=observe, metrics=tuple(COLUMNS))
    columns: dict[str, Any] = {
        name: padded(result.columns[name], spec.rounds + 1) for name in COLUMNS
    }
    columns["mismatch"] = last[0] if last else np.nan
    completed = result.outcome.status == "completed"
    columns["test_accuracy"] = world.share_right(result.client_params) if completed else np.nan
    return columns


def shown_name(name: str) -> str:
    """A method of your own by its name alone, without path and digest."""
    return name.rpartition(":")[2] if is_own(name) else name


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


REAL = InitialSpec(scale=1.0)
HETEROGENEITY = {
    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
    "problem.covariate_heterogeneity": [0.0, 0.3],
}
SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=16, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)


SIMULATION = Simulation(
    MethodsSpec,
    run,
    presets={
        "paper": [
            Grid(
                MethodsSpec(rounds=200, local_steps=20, warmup_rounds=40),
                {"seed": range(10), **HETEROGENEITY},
            ),
            Grid(
                MethodsSpec(
                    rounds=200,
                    local_steps=20,
                    warmup_rounds=40,
                    initial=InitialSpec(kernel="factored", rank=3),
                ),
                {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
            Grid(
                MethodsSpec(deep=True, rounds=150, local_steps=10, local_lr=0.02, warmup_rounds=40),
                {"seed": range(10)},
            ),
            Grid(
                MethodsSpec(
                    rounds=100, local_steps=20, warmup_rounds=25, initial=REAL, step_factor=0.5
                ),
                {"seed": range(10), "data": ["digits", "watch"]},
            ),
        ],
        "quick": [
            Grid(MethodsSpec(rounds=16, warmup_rounds=8, problem=SMALL), {"seed": range(2)}),
            Grid(
                MethodsSpec(deep=True, rounds=6, local_steps=2, warmup_rounds=3, problem=SMALL),
                {"seed": range(2)},
            ),
            Grid(
                MethodsSpec(rounds=6, local_steps=3, warmup_rounds=3, initial=REAL),
                {"seed": range(2), "data": ["digits", "watch"]},
            ),
        ],
        "tiny": [
            Grid(
                MethodsSpec(
                    deep=deep,
                    rounds=4,
                    local_steps=2,
                    warmup_rounds=2,
                    problem=ProblemSpec(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3),
                    model=ModelSpec(inner_dim=2),
                ),
                {"seed": range(2)},
            )
            for deep in (False, True)
        ],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
