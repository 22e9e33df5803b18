"""The exact decomposition C9 over warm-up lengths, beside its controls."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import linattn as la
from linattn.experiments.jobs.common import (
    best_length,
    one_of_identical,
    prepared,
    reference_variables,
    stacked,
)
from linattn.experiments.specs import BiasDriftSpec

if TYPE_CHECKING:
    import xarray as xr


def run(spec: BiasDriftSpec) -> xr.Dataset:
    """Return the table of C9 for every number of local steps, and the three controls.

    Dimensions: `local_steps`, `warmup`. Besides the columns of `linattn.bias_drift`:
    ``objective_one_step`` (E = 1, same number of rounds), ``objective_identical`` and
    ``profile_identical`` (identical clients), ``objective_synchronized`` (E·T centralized steps,
    then E·(R − T) on the value block); per number of local steps ``warmup_star`` and
    ``warmup_star_identical`` (−1 if nothing is stable); the reference value of P.
    """
    problem, params = prepared(spec)
    reference = la.reference_value(problem, like=params, num_starts=spec.num_starts, seed=spec.seed)
    alone = one_of_identical(problem)
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
