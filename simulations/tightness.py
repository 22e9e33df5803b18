"""Every bound of the claim table on random instances: how tight it is, and how often refused.

Run ``python simulations/tightness.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import linattn as la
from linattn._fields import Count, Index
from linattn.claims.instances import random_instance
from linattn.claims.table import check_all
from linattn.experiments import Grid, Simulation, Spec

if TYPE_CHECKING:
    import xarray as xr

STATUSES = ("holds", "refused", "violated", "reported")


class TightnessSpec(Spec):
    """Every bound on random instances `first` .. `first + count` of a seed."""

    first: Index = 0
    count: Count = 20

    def cost(self) -> float:
        """Instances, in the unit of a gradient step on the base problem."""
        return 1e6 * self.count


def run(spec: TightnessSpec) -> xr.Dataset:
    """Return the tightness of every bound on every instance.

    Dimensions: `claim`, bounds that take a moment to check; `instance`. ``tightness`` is at least 1
    where the bound holds, NaN where it is refused or measures next to nothing; ``status`` is an
    index into `STATUSES`; ``recalled`` is 1 for bounds whose paper could not be compared.
    """
    import xarray as xr

    chosen = [c for c in la.claims() if c.kind in ("upper", "lower") and c.share == 1.0]
    places = range(spec.first, spec.first + spec.count)
    verdicts = [check_all(chosen, random_instance(spec.seed, k)) for k in places]
    tightness = [[v.tightness if v.status != "refused" else np.nan for v in row]
                 for row in verdicts]  # fmt: skip
    status = [[STATUSES.index(v.status) for v in row] for row in verdicts]
    recalled = [float(claim.provenance == "recalled") for claim in chosen]
    both = ("claim", "instance")
    return xr.Dataset(
        {
            "tightness": (both, np.array(tightness).T, {"units": "1"}),
            "status": (both, np.array(status, dtype=float).T, {"units": "1"}),
            "recalled": ("claim", np.array(recalled), {"units": "1"}),
        },
        coords={"claim": [claim.id for claim in chosen], "instance": np.array(places)},
    )


SIMULATION = Simulation(
    TightnessSpec,
    run,
    presets={
        "paper": [Grid(TightnessSpec(count=50), {"seed": range(10)})],
        "quick": [Grid(TightnessSpec(count=6), {"seed": range(3)})],
        "tiny": [Grid(TightnessSpec(count=2))],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
