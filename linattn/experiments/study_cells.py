"""Cells of a study as runs of the engine: what `linattn.study` stores and resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from linattn._fields import Count, Fraction, Index, Positive
from linattn.analysis.budget import Budget
from linattn.analysis.study_cell import Cell, Setting, method_map, study_cell
from linattn.experiments.arrays import read_problem
from linattn.experiments.own import is_own, own_file, own_object
from linattn.experiments.simulation import Own, Simulation, Spec
from linattn.federated.method import Method
from linattn.types import Params

if TYPE_CHECKING:
    import xarray as xr


class CellSpec(Spec):
    """One step size, number of local steps and seed; problem and start by their SHA-256."""

    problem: Own = ""
    start: Own = ""
    methods: tuple[Own, ...] = ("fed_avg",)
    budget: Literal["rounds", "floats", "multiply_adds"] = "rounds"
    amount: Positive = 100.0
    local_steps: Count = 1
    local_lr: Positive = 0.05
    warmup_lengths: tuple[Index, ...] = ()
    participation: Fraction = 1.0
    frozen_participation: Fraction = 1.0
    batch_size: Count | None = None
    frozen_lr: Positive | Literal["safe"] | None = None

    def setting(self) -> Setting:
        """What all cells of the study share."""
        methods: list[str | Method] = [
            own_object(name) if is_own(name) else name for name in self.methods
        ]
        return Setting(
            method_map(methods),
            Budget(self.budget, self.amount),
            self.warmup_lengths or None,
            self.participation,
            self.frozen_participation,
            self.batch_size,
            self.frozen_lr,
        )


def run(spec: CellSpec) -> xr.Dataset:
    """Return the loss at the end of the budget, and the rounds it bought.

    Dimensions: `method`; `warmup`. +inf where a run diverges or is not affordable.
    """
    import xarray as xr

    cell = study_cell(
        read_problem(own_file(spec.problem)[0]),
        Params.load(own_file(spec.start)[0]),
        spec.setting(),
        local_steps=spec.local_steps,
        local_lr=spec.local_lr,
        seed=spec.seed,
    )
    both = ("method", "warmup")
    return xr.Dataset(
        {
            "objective": (both, np.stack(list(cell.objective.values())), {"units": "loss"}),
            "rounds": (both, np.stack(list(cell.rounds.values())), {"units": "rounds"}),
        },
        {"method": list(cell.objective), "warmup": np.array(cell.lengths)},
    )


def as_cell(found: xr.Dataset) -> Cell:
    """Return the cell that `run` stored."""
    names = [str(name) for name in found["method"].values]
    lengths = tuple(int(t) for t in found["warmup"].values)
    tables = [found[name].values for name in ("objective", "rounds")]
    objective, rounds = (dict(zip(names, values, strict=True)) for values in tables)
    return Cell(lengths, objective, rounds)


SIMULATION = Simulation(CellSpec, run, presets={})
