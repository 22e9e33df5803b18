"""Selective training along λ: E1 (blocks nobody trains) against E2 (blocks only some train).

Run ``python simulations/selection.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._fields import Count, NonNegative
from linattn._typing import Array
from linattn.data.worlds import ModelSpec, World
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import FEW_CLIENTS, FEW_SEQUENCES, SMALL, WorldSpec, increasing
from linattn.experiments.tables import along, padded, single
from linattn.experiments.tuning import Tuned, near
from linattn.federated.method import Proposal

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = {
    "objective": "loss",
    "unselected_gradient": "squared gradient",
    "selection_skew": "squared gradient",
    "selection_error": "squared gradient",
}


class SelectionSpec(WorldSpec):
    """Selective training along λ; scores are divided by their mean, so λ has no units."""

    deep: bool = True
    budget: Count = 2
    consistency: tuple[NonNegative, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 10.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        increasing("consistency", self.consistency)


def run(spec: SelectionSpec) -> xr.Dataset:
    """Return selective training at every λ, and FedAvg beside it, each at its best step.

    Dimensions: `consistency` (λ); `block`; `round` = 0..rounds. The columns of the history:
    ``unselected_gradient`` is E1, ``selection_skew`` E2, ``selection_error`` what E2 bounds.
    ``chosen``: share of clients that trained a block, over all rounds. ``fed_avg``: its objective.
    ``factor`` of the unit step, and whether it is ``interior``.
    """
    import xarray as xr

    world = spec.world()
    names = world.params.layout.names
    base = spec.tuned(la.fed_avg(), world)
    rows = [_one(spec, world, weight, base.factor) for weight in spec.consistency]
    data: dict[str, Any] = {
        name: (
            ("consistency", "round"),
            np.stack([padded(best.found.columns[name], spec.rounds + 1) for _, best in rows]),
            {"units": unit},
        )
        for name, unit in COLUMNS.items()
    }
    chosen = np.stack([shares for shares, _ in rows])
    data["chosen"] = (("consistency", "block"), chosen, {"units": "1"})
    objective = padded(base.found.columns["objective"], spec.rounds + 1)
    data["fed_avg"] = ("round", objective, {"units": "loss"})
    data |= along("consistency", [best.said() for _, best in rows], {}) | single(
        {"factor_fed_avg": base.factor}, {}
    )
    coordinates = {
        "consistency": list(spec.consistency),
        "block": list(names),
        "round": np.arange(spec.rounds + 1),
    }
    return xr.Dataset(data, coordinates)


def _one(
    spec: SelectionSpec, world: World, weight: float, factor: float
) -> tuple[Array, Tuned[la.Result]]:
    """Share of clients that trained each block, and the run at its best step."""
    names = world.params.layout.names
    method = la.selective(budget=spec.budget, consistency=weight, normalize=True)
    best = spec.tuned(method, world, factors=near(factor), metrics=tuple(COLUMNS))
    shares: list[list[float]] = []

    def observe(context: la.RoundContext, proposal: Proposal) -> None:
        sent = [proposal.plan.trained_by(k) for k in range(len(context.participants))]
        shares.append([float(np.mean([name in own for own in sent])) for name in names])

    step = best.factor * world.local_lr
    spec.train(method, world, observe=observe, local_lr=step, metrics=())
    return np.mean(shares, axis=0), best


SIMULATION = Simulation(
    SelectionSpec,
    run,
    presets={
        "paper": [Grid(SelectionSpec(rounds=50, most_rounds=50, problem=FEW_SEQUENCES,
                                     consistency=(0.0, 0.03, 0.3, 10.0)),
                       {"budget": [1, 2], "seed": range(10)})],
        "quick": [Grid(SelectionSpec(rounds=6, most_rounds=6, local_steps=4, problem=FEW_CLIENTS,
                                     factors=(3.0, 10.0, 30.0), consistency=(0.0, 0.3, 10.0)),
                       {"seed": range(2)})],
        "tiny": [Grid(SelectionSpec(rounds=3, most_rounds=3, local_steps=2, factors=(10.0, 30.0),
                                    consistency=(0.0, 1.0), model=ModelSpec(inner_dim=2),
                                    problem=SMALL), {"seed": range(2)})],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
