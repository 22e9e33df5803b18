"""Final loss against step size at one budget: FedAvg, FedFrozen and two other second stages.

Run ``python simulations/step_size.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import linattn as la
from linattn._fields import Count, Fraction, Index, Positive
from linattn.data.worlds import ProblemSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import (
    COVARIATE,
    HETEROGENEOUS,
    LOCAL_LRS,
    SMALL,
    TARGET,
    WORLDS,
    SyntheticSpec,
    increasing,
)
from linattn.experiments.tables import reference_variables, single

if TYPE_CHECKING:
    import xarray as xr

METHODS = ("fed_avg", "fed_frozen", "fed_frozen_exact", "frozen_scaffold")


class StepSizeSpec(SyntheticSpec):
    """A tuned comparison: every step size, every warm-up length, one budget of rounds or floats.

    The budget of floats is what FedAvg sends, both ways, in `rounds` rounds; for "floats" warm-ups
    go on after `rounds` where a method sends less.
    """

    problem: ProblemSpec = HETEROGENEOUS
    local_lrs: tuple[Positive, ...] = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
    local_steps: Count = 10
    rounds: Count = 100
    budget: Literal["rounds", "floats"] = "rounds"
    participation: Fraction = 1.0
    warmup_lengths: tuple[Index, ...] = (0, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 99, 100)
    num_starts: Count = 20

    def __post_init__(self) -> None:
        increasing("local_lrs", self.local_lrs)
        increasing("warmup_lengths", self.warmup_lengths, most=self.rounds)

    def num_steps(self) -> int:
        """Those of the warm-ups at every step size."""
        return self.rounds * self.local_steps * len(self.local_lrs) * 4


def run(spec: StepSizeSpec) -> xr.Dataset:
    """Return the objective at the end of the budget; dimensions `method`, `local_lr`, `warmup`.

    ``objective`` is +inf where a method has no such length, diverges or the budget does not reach;
    ``rounds`` are those that the budget bought. ``interior`` by method: whether the
    best step is neither the smallest nor the largest.
    """
    problem, params = spec.prepared()
    reference = spec.reference(spec.num_starts)
    clients = max(1, round(spec.participation * problem.num_clients))
    floats = 2.0 * clients * params.layout.size * spec.rounds
    budget = {"rounds": spec.rounds} if spec.budget == "rounds" else {"floats": floats}
    study = la.study(
        problem,
        params,
        methods=METHODS,
        local_lrs=spec.local_lrs,
        local_steps=spec.local_steps,
        warmup_lengths=spec.warmup_lengths,
        participation=spec.participation,
        seeds=[spec.seed],
        **budget,
    )
    inside = [float(study.best(name).interior) for name in METHODS]
    found = study.table.isel(local_steps=0, seed=0, drop=True)
    # FedAvg has no length but the largest.
    found = found.fillna({"objective": np.inf, "rounds": found["warmup"]})
    return found.assign(
        single({"floats": floats}, {"floats": "floats"}) | reference_variables(reference)
    ).assign(interior=("method", np.array(inside), {"units": "1"}))


EASY = {(0.75, 0.0): (*LOCAL_LRS, 0.25, 0.4, 0.63)}
"""Worlds that bear larger steps: without covariate heterogeneity clients share their curvature."""
SEEDS: dict[str, Any] = {"seed": range(10)}
BOTH: dict[str, list[Any]] = {"budget": ["rounds", "floats"], "participation": [1.0, 0.25]}
SIMULATION = Simulation(
    StepSizeSpec,
    run,
    presets={
        "paper": [
            Grid(StepSizeSpec(local_lrs=EASY.get(world, LOCAL_LRS)),
                 {TARGET: [world[0]], COVARIATE: [world[1]],
                  **(BOTH if world in WORLDS[2:4] else {}), **SEEDS})
            for world in WORLDS
        ],
        "quick": [Grid(StepSizeSpec(rounds=50, warmup_lengths=(0, 5, 10, 20, 30, 40, 49, 50),
                                    local_lrs=(0.005, 0.01, 0.02, 0.04, 0.08, 0.16), num_starts=4),
                       BOTH)],
        "tiny": [Grid(StepSizeSpec(problem=SMALL, rounds=4, local_steps=3, local_lrs=(0.01, 0.05),
                                   warmup_lengths=(0, 2, 3, 4), num_starts=2), BOTH)],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
