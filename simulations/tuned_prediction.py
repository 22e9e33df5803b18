"""The tuned optimum predicted: best step, length and second stage without a federated run (C24).

Run ``python simulations/tuned_prediction.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._fields import Count, NonNegative, Positive
from linattn.analysis.study_cell import TWO_STAGE
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
from linattn.experiments.tables import reference_variables

if TYPE_CHECKING:
    import xarray as xr

UNITS = {"local_lr": "1/curvature", "length": "rounds"}


class TunedPredictionSpec(SyntheticSpec):
    """A tuned comparison and its prediction: every step size and length, one budget of rounds."""

    problem: ProblemSpec = HETEROGENEOUS
    local_lrs: tuple[Positive, ...] = LOCAL_LRS
    local_steps: Count = 10
    rounds: Count = 100
    tolerance: NonNegative = 0.03
    num_starts: Count = 20

    def __post_init__(self) -> None:
        increasing("local_lrs", self.local_lrs)

    def num_steps(self) -> int:
        """Those of the warm-ups at every step size, measured and predicted."""
        return self.rounds * self.local_steps * len(self.local_lrs) * 2


def run(spec: TunedPredictionSpec) -> xr.Dataset:
    """Return what every method ends at with its best step and length; dimension `method`.

    ``measured`` is the tuned objective, ``predicted`` the tuned prediction of it, ``reached`` what
    is measured at the step and length that the prediction chooses; ``measured_local_lr``,
    ``measured_length`` and so on are the choices; ``interior``: whether the measured step is
    neither the smallest nor the largest.
    """
    import xarray as xr

    problem, params = spec.prepared()
    reference = spec.reference(spec.num_starts)
    settings: dict[str, Any] = {
        "methods": TWO_STAGE, "local_lrs": spec.local_lrs, "local_steps": spec.local_steps,
        "rounds": spec.rounds, "seeds": [spec.seed],
    }  # fmt: skip
    studies = {
        "measured": la.study(problem, params, **settings),
        "predicted": la.predict_study(problem, params, tolerance=spec.tolerance, **settings),
    }
    data: dict[str, Any] = {}
    for name, study in studies.items():
        best = [study.best(method) for method in TWO_STAGE]
        found = {
            "": [one.objective[0] for one in best],
            "_local_lr": [one.local_lr for one in best],
            "_length": [one.warmup[0] for one in best],
        }
        for end, values in found.items():
            told = {"units": UNITS.get(end.removeprefix("_"), "loss")}
            data[name + end] = ("method", np.array(values, dtype=float), told)
        inside = np.array([float(one.interior) for one in best])
        data["interior"] = ("method", inside, {"units": "1"})
    table = studies["measured"].table.isel(local_steps=0, seed=0)["objective"]
    chosen = zip(TWO_STAGE, *(data[f"predicted_{name}"][1] for name in UNITS), strict=True)
    reached = [float(table.sel({"method": m, "local_lr": step, "warmup": t}))
               for m, step, t in chosen]  # fmt: skip
    data["reached"] = ("method", np.array(reached), {"units": "loss"})
    return xr.Dataset(data | reference_variables(reference), {"method": list(TWO_STAGE)})


SIMULATION = Simulation(
    TunedPredictionSpec,
    run,
    presets={
        "paper": [
            Grid(TunedPredictionSpec(), {TARGET: [target], COVARIATE: [covariate],
                                         "local_steps": [10, 50], "seed": range(10)})
            for target, covariate in WORLDS
        ],
        "quick": [Grid(TunedPredictionSpec(rounds=30, local_lrs=(0.02, 0.04, 0.08), num_starts=4))],
        "tiny": [Grid(TunedPredictionSpec(problem=SMALL, rounds=4, local_steps=3,
                                          local_lrs=(0.01, 0.05, 0.1), num_starts=2))],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
