"""The exact decomposition C9 over warm-up lengths, beside its controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._typing import Array
from linattn.analysis.bias_drift import BiasDrift, bias_drift
from linattn.analysis.centralized import centralized_path
from linattn.experiments.jobs.common import (
    one_of_identical,
    prepared,
    reference_variables,
    stacked,
    table_variables,
)
from linattn.experiments.specs import BiasDriftSpec
from linattn.theory import frozen_stage

if TYPE_CHECKING:
    import xarray as xr


def run(spec: BiasDriftSpec) -> xr.Dataset:
    """Return the table of C9 for every number of local steps, and the three controls.

    Dimensions: `local_steps`, `warmup`. Besides the columns of `linattn.bias_drift`:
    ``objective_one_step`` (E = 1, same number of rounds), ``objective_identical`` and
    ``profile_identical`` (identical clients), ``objective_synchronized`` (E·T centralized steps,
    then E·(R − T) on the value block).
    """
    problem, params = prepared(spec)
    reference = la.reference_value(problem, like=params, num_starts=spec.num_starts, seed=spec.seed)
    alone = one_of_identical(problem)

    def table(clients: la.Problem, local_steps: int) -> BiasDrift:
        return bias_drift(
            clients,
            params,
            warmup_lengths=spec.lengths(),
            rounds=spec.rounds,
            local_steps=local_steps,
            local_lr=spec.local_lr,
            frozen_lr=spec.frozen_lr,
            reference=reference,
        )

    tables = {steps: table(problem, steps) for steps in sorted({1, *spec.local_steps})}
    parts = []
    for steps in spec.local_steps:
        identical = table(alone, steps)
        controls = {
            "objective_one_step": tables[1]["objective"],
            "objective_identical": identical["objective"],
            "profile_identical": identical["profile"],
            "objective_synchronized": _synchronized(spec, alone, params, steps),
        }
        parts.append(_panel(tables[steps], identical, controls))
    return stacked(parts, spec.local_steps).assign(reference_variables(reference))


def _panel(table: BiasDrift, identical: BiasDrift, controls: dict[str, Any]) -> xr.Dataset:
    import xarray as xr

    data = table_variables(table)
    data |= {name: ("warmup", column, {"units": "loss"}) for name, column in controls.items()}
    star = identical.warmup_star
    data["warmup_star_identical"] = ((), -1 if star is None else star, {"units": "rounds"})
    return xr.Dataset(data, coords={"warmup": table.warmup})


def _synchronized(
    spec: BiasDriftSpec, alone: la.Problem, params: la.Params, local_steps: int
) -> Array:
    """F after E·T centralized steps on everything and E·(R − T) on the value block.

    The first stage descends on the moments of all data, the second is the closed form of one
    client, so that nothing is shared with the identical-clients control but the theory.
    """
    lengths = spec.lengths()
    marks = [local_steps * length for length in lengths]
    path = centralized_path(alone, params, marks=marks, step_size=spec.local_lr)
    objective = la.Joint(alone)
    found = []
    for length, reached in zip(lengths, path, strict=True):
        if not np.isfinite(reached.flat).all():
            found.append(np.inf)
            continue
        stage = frozen_stage(
            alone,
            reached,
            local_steps=local_steps,
            local_lr=spec.local_lr,
            frozen_lr=spec.frozen_lr,
        )
        last = stage.after(spec.rounds - length)
        finite = bool(np.isfinite(last).all())
        found.append(objective.value(reached.replace(value=last)) if finite else np.inf)
    return np.array(found)
