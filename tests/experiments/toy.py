"""A simulation of somebody's own: quick, seeded, and able to crash, die or take its time."""

import os
import time
from typing import Literal

from linattn.experiments import Count, Grid, NonNegative, Simulation, Spec


class ToySpec(Spec):
    """`size` normal draws after `delay` seconds, unless `mode` says otherwise."""

    size: Count = 3
    delay: NonNegative = 0.0
    mode: Literal["draw", "raise", "die", "threads"] = "draw"

    def cost(self):
        """The more the longer."""
        return float(self.size)


def run(spec):
    """Compute a toy run."""
    import numpy as np
    import xarray as xr

    time.sleep(spec.delay)
    if spec.mode == "raise":
        raise ArithmeticError("seven is\nnot a square")
    if spec.mode == "die":
        os.kill(os.getpid(), 9)
    draws = np.random.default_rng(spec.seed).normal(size=spec.size)
    if spec.mode == "threads":
        from threadpoolctl import threadpool_info

        draws = np.array([pool["num_threads"] for pool in threadpool_info()], dtype=float)
    return xr.Dataset(
        {"draws": ("index", draws), "stable": ((), True)},
        coords={"index": np.arange(len(draws)), "name": ("pair", ["a", "bcd"])},
    )


SIMULATION = Simulation(
    ToySpec,
    run,
    presets={
        "quick": [Grid(ToySpec(delay=0.05), {"seed": range(30)})],
        "few": [Grid(ToySpec(), {"seed": range(2)})],
        "bad": [
            Grid(ToySpec(), {"mode": ["draw", "raise", "die"]}),
            Grid(ToySpec(), {"seed": [1, 2]}),
        ],
    },
)

if __name__ == "__main__":
    SIMULATION.main()
