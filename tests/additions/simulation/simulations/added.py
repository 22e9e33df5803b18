"""The distance of a start from zero (added).

Run ``python simulations/added.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

import xarray as xr

from linattn.experiments import Count, Grid, Simulation, Spec
from linattn.streams import stream


class AddedSpec(Spec):
    """A standard normal vector of some length."""

    size: Count = 4


def run(spec: AddedSpec) -> xr.Dataset:
    """Return its squared entries."""
    draws = stream(spec.seed, "added").normal(size=spec.size)
    return xr.Dataset({"squared": ("entry", draws**2, {"units": "1"})})


SIMULATION = Simulation(
    AddedSpec,
    run,
    presets={name: [Grid(AddedSpec(), {"seed": range(2)})] for name in ("paper", "quick", "tiny")},
)


if __name__ == "__main__":
    SIMULATION.main()
