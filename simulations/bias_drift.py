"""The bias-drift trade-off: final loss against warm-up length, in all its exact parts (C9).

Every run carries its controls: identical clients, one local step, and synchronized steps.
Run ``python simulations/bias_drift.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

import linattn as la
from linattn._fields import Count, Index, Positive
from linattn.analysis.bias_drift import PARTS
from linattn.analysis.regret import best_length
from linattn.claims import Verdict
from linattn.data.worlds import InitialSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.checks import Column, worst
from linattn.experiments.specs import (
    SyntheticSpec,
    increasing,
    warmup_grid,
)
from linattn.experiments.tables import (
    reference_variables,
    stacked,
)

if TYPE_CHECKING:
    import xarray as xr


class BiasDriftSpec(SyntheticSpec):
    """The exact decomposition C9 over warm-up lengths, with all controls.

    `warmup_lengths` may list the lengths; left empty, there are `num_lengths` from 0 to `rounds`.
    """

    frozen_lr: Positive | Literal["safe"] | None = None
    num_lengths: Annotated[int, Meta(ge=2)] = 12
    warmup_lengths: tuple[Index, ...] = ()
    num_starts: Count = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_lengths:
            increasing("warmup_lengths", self.warmup_lengths, most=self.rounds)

    def lengths(self) -> tuple[int, ...]:
        """The warm-up lengths of this run."""
        return self.warmup_lengths or warmup_grid(self.rounds, self.num_lengths)


def run(spec: BiasDriftSpec) -> xr.Dataset:
    """Return the table of C9 for every number of local steps, and the three controls.

    Dimensions: `local_steps`, `warmup`. Besides the columns of `linattn.bias_drift`:
    ``objective_one_step`` (E = 1, same number of rounds), ``objective_identical`` and
    ``profile_identical`` (identical clients), ``objective_synchronized`` (E·T centralized steps,
    then E·(R − T) on the value block); per number of local steps ``warmup_star`` and
    ``warmup_star_identical`` (−1 if nothing is stable); the reference value of P.
    """
    problem, params = spec.prepared()
    reference = la.reference_value(problem, like=params, num_starts=spec.num_starts, seed=spec.seed)
    alone = la.pool(problem).subset([0])  # identical clients move identically
    every = sorted({1, *spec.local_steps})
    descents = [la.CentralizedDescent(p, params, spec.local_lr) for p in (problem, alone)]
    for descent in descents:  # once, for every E and T
        descent.at(steps * length for steps in every for length in spec.lengths())
    table = partial(_table, spec, params=params, reference=reference)
    tables = {steps: table(problem, descent=descents[0], local_steps=steps) for steps in every}
    parts = []
    for steps in spec.local_steps:
        identical = table(alone, descent=descents[1], local_steps=steps)
        synchronized = la.synchronized_control(
            problem,
            params,
            warmup_lengths=spec.lengths(),
            rounds=spec.rounds,
            local_steps=steps,
            local_lr=spec.local_lr,
            descent=descents[0],
        )
        part = tables[steps].assign(
            objective_one_step=tables[1]["objective"],
            objective_identical=identical["objective"],
            profile_identical=identical["profile"],
            objective_synchronized=("warmup", synchronized, {"units": "loss"}),
            warmup_star=((), best_length(tables[steps]), {"units": "rounds"}),
            warmup_star_identical=((), best_length(identical), {"units": "rounds"}),
        )
        parts.append(part)
    return stacked(parts, spec.local_steps).assign(reference_variables(reference))


def _table(
    spec: BiasDriftSpec,
    clients: la.Problem,
    *,
    params: la.Params,
    reference: la.Reference,
    descent: la.CentralizedDescent,
    local_steps: int,
) -> xr.Dataset:
    return la.bias_drift(
        clients,
        params,
        warmup_lengths=spec.lengths(),
        rounds=spec.rounds,
        local_steps=local_steps,
        local_lr=spec.local_lr,
        frozen_lr=spec.frozen_lr,
        reference=reference,
        descent=descent,
    )


FACTORED = InitialSpec(kernel="factored", rank=3)


def _decomposition(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        parts = [run[name].values for name in PARTS]
        size = abs(run["reference"].values) + sum(abs(part) for part in parts)
        return run["objective"].values, run["reference"].values + sum(parts), size

    return worst("C9 stored", "F − P_ref is the sum of its parts", "identity", map(column, runs))


def _reference(runs: Sequence[xr.Dataset]) -> Verdict:
    columns = [
        (run["reference"].values, run["reference_lower_bound"].values, abs(run["reference"].values))
        for run in runs
    ]
    return worst("C15 stored", "lower bound ≤ reference value", "lower", columns)


SIMULATION = Simulation(
    BiasDriftSpec,
    run,
    presets={
        "paper": [
            Grid(
                BiasDriftSpec(rounds=400, num_lengths=20, local_steps=(1, 10, 50)),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
            Grid(
                BiasDriftSpec(
                    rounds=400, num_lengths=20, local_steps=(1, 10, 50), initial=FACTORED
                ),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.75],
                    "problem.covariate_heterogeneity": [0.3],
                    "problem.kernel_heterogeneity": [0.0, 0.5],
                },
            ),
        ],
        "quick": [
            Grid(
                BiasDriftSpec(rounds=200, num_lengths=12, local_steps=(1, 20)),
                {
                    "seed": range(3),
                    "problem.value_heterogeneity": [0.0, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
        ],
        "tiny": [
            Grid(
                BiasDriftSpec(rounds=20, num_lengths=8, local_steps=(1, 5), num_starts=4),
                {
                    "problem.value_heterogeneity": [1.5],
                    "problem.covariate_heterogeneity": [0.3],
                },
            ),
        ],
    },
    checks=(_decomposition, _reference),
)


if __name__ == "__main__":
    SIMULATION.main()
