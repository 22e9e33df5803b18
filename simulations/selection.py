"""Selective training along λ: E1 (blocks nobody trains) against E2 (blocks only some train).

Run ``python simulations/selection.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._fields import Count, NonNegative
from linattn.data.worlds import ModelSpec, ProblemSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import (
    WorldSpec,
    increasing,
)
from linattn.experiments.tables import (
    padded,
)
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
    """Return selective training at every λ, and FedAvg beside it.

    Dimensions: `consistency` (λ); `block`; `round` = 0..rounds. The columns of the history:
    ``unselected_gradient`` is E1, ``selection_skew`` E2, ``selection_error`` what E2 bounds.
    ``chosen``: share of clients that trained a block, over all rounds. ``fed_avg``: its objective.
    """
    import xarray as xr

    world = spec.world()
    names = world.params.layout.names
    columns: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, "chosen")}
    for weight in spec.consistency:
        shares: list[list[float]] = []

        def observe(
            context: la.RoundContext, proposal: Proposal, shares: list[list[float]] = shares
        ) -> None:
            sent = [proposal.plan.trained_by(k) for k in range(len(context.participants))]
            shares.append([float(np.mean([name in own for own in sent])) for name in names])

        method = la.selective(budget=spec.budget, consistency=weight, normalize=True)
        result = spec.train(method, world, observe=observe, metrics=tuple(COLUMNS))
        for name in COLUMNS:
            columns[name].append(padded(result.columns[name], spec.rounds + 1))
        columns["chosen"].append(np.mean(shares, axis=0))
    base = spec.train(la.fed_avg(), world, metrics=("objective",)).columns["objective"]
    data: dict[str, Any] = {
        name: (("consistency", "round"), np.stack(columns[name]), {"units": unit})
        for name, unit in COLUMNS.items()
    }
    data["chosen"] = (("consistency", "block"), np.stack(columns["chosen"]), {"units": "1"})
    data["fed_avg"] = ("round", padded(base, spec.rounds + 1), {"units": "loss"})
    return xr.Dataset(
        data,
        {
            "consistency": list(spec.consistency),
            "block": list(names),
            "round": np.arange(spec.rounds + 1),
        },
    )


SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=16, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)


SIMULATION = Simulation(
    SelectionSpec,
    run,
    presets={
        "paper": [
            Grid(
                SelectionSpec(
                    rounds=100,
                    local_lr=0.02,
                    consistency=(0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
                ),
                {
                    "seed": range(10),
                    "budget": [1, 2],
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                },
            ),
        ],
        "quick": [
            Grid(
                SelectionSpec(
                    rounds=6,
                    local_steps=4,
                    problem=SMALL,
                    consistency=(0.0, 0.1, 0.3, 10.0),
                ),
                {"seed": range(2)},
            ),
        ],
        "tiny": [
            Grid(
                SelectionSpec(
                    rounds=3,
                    local_steps=2,
                    consistency=(0.0, 1.0),
                    model=ModelSpec(inner_dim=2),
                    problem=ProblemSpec(
                        num_clients=3,
                        sequences_per_client=6,
                        num_tokens=5,
                        dim=3,
                        value_heterogeneity=0.75,
                    ),
                ),
                {"seed": range(2)},
            ),
        ],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
