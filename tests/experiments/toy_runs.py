"""A run kind for tests: quick, seeded, and able to crash, die or take its time."""

import os
import time
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from linattn.experiments import Grid, Spec, Sweep, register


@register
class ToySpec(
    Spec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="toy"
):
    """`size` normal draws after `delay` seconds, unless `mode` says otherwise."""

    job: ClassVar[str] = "toy_runs:run"

    size: Annotated[int, Meta(ge=1)] = 3
    delay: Annotated[float, Meta(ge=0)] = 0.0
    mode: Literal["draw", "raise", "die", "threads"] = "draw"


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


SWEEP = Sweep(
    "toy",
    {
        "quick": [Grid(ToySpec(delay=0.05), {"seed": range(30)})],
        "bad": [Grid(ToySpec(), {"mode": ["draw", "raise", "die"]})],
    },
)

if __name__ == "__main__":
    import toy_runs

    from linattn.cli import simulation_main

    simulation_main(toy_runs.SWEEP)
