"""The instance on which a bound is tightest: one optimizer from random points of its own.

``linattn tightness`` chooses the runs and joins what they found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from linattn._fields import Count
from linattn.claims.adversary import search
from linattn.experiments import Grid, Own, Simulation, Spec
from linattn.experiments.verification import chosen_claims, source_of

if TYPE_CHECKING:
    import xarray as xr


class TightestSpec(Spec):
    """Which bound, which optimizer, how long; `source` and `own` as in the simulation claims."""

    claim: str = "C3 bound"
    source: str = ""
    own: Own = ""
    factored: bool = False
    optimizer: Literal["differential evolution", "dual annealing", "Nelder–Mead"] = "Nelder–Mead"
    evaluations: Count = 1000

    def cost(self) -> float:
        """Evaluations, in the unit of a gradient step on the base problem."""
        return 1e5 * self.evaluations


def run(spec: TightestSpec) -> xr.Dataset:
    """Return the best point and log(tightness) there and at the random points."""
    import xarray as xr

    (claim,) = chosen_claims([spec.claim], spec.own)
    part = search(
        claim,
        spec.optimizer,
        evaluations=spec.evaluations,
        factored=spec.factored,
        seed=spec.seed,
    )
    return xr.Dataset(
        {
            "vector": ("coordinate", part.vector),
            "value": ((), part.value),
            "at_random": ((), part.at_random),
            "random": ("point", part.random),
            "evaluations": ((), part.evaluations),
        },
        {"coordinate": np.arange(part.vector.size)},
    )


SHORT = TightestSpec(source=source_of("C3 bound"), evaluations=40)
SIMULATION = Simulation(
    TightestSpec,
    run,
    presets={
        "paper": [Grid(SHORT, {"evaluations": [1000], "seed": range(4)})],
        "quick": [Grid(SHORT)],
        "tiny": [Grid(SHORT)],
    },
)

if __name__ == "__main__":
    SIMULATION.main()
