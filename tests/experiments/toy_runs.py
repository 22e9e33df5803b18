"""A run kind for tests: quick, seeded, and able to crash, die or take its time."""

import os
import time
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from linattn.experiments import (
    BiasDriftSpec,
    CertificateSpec,
    FreezeRuleSpec,
    FrozenStageSpec,
    Grid,
    ProblemSpec,
    Spec,
    Sweep,
    register,
)

SMALL = ProblemSpec(
    num_clients=3, sequences_per_client=8, num_tokens=6, dim=3, num_outputs=2,
    value_heterogeneity=1.0, covariate_heterogeneity=0.3,
)  # fmt: skip
WIDE = ProblemSpec(num_clients=2, sequences_per_client=3, num_tokens=4, dim=160, num_outputs=2)


@register
class ToySpec(
    Spec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="toy"
):
    """`size` normal draws after `delay` seconds, unless `mode` says otherwise."""

    job: ClassVar[str] = "experiments.toy_runs:run"

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
        "real": [
            Grid(
                CertificateSpec(problem=SMALL, rounds=12, local_steps=(1, 8), num_starts=2),
                {"seed": range(24)},
            )
        ],
        "kinds": [
            Grid(BiasDriftSpec(problem=SMALL, rounds=8, num_lengths=4, num_starts=2)),
            Grid(CertificateSpec(problem=SMALL, rounds=8, num_starts=2)),
            Grid(FreezeRuleSpec(problem=SMALL, rounds=8)),
            Grid(FrozenStageSpec(problem=SMALL, rounds=8, local_steps=(1, 5), settle_rounds=9)),
            # Wide enough for BLAS to use threads if it were allowed to.
            Grid(
                FrozenStageSpec(
                    problem=WIDE, rounds=2, local_steps=(3,), warmup_rounds=2, settle_rounds=3
                )
            ),
        ],
        "few": [Grid(ToySpec(), {"seed": range(2)})],
        "bad": [
            Grid(ToySpec(), {"mode": ["draw", "raise", "die"]}),
            Grid(ToySpec(), {"seed": [1, 2]}),
        ],
    },
)

if __name__ == "__main__":
    from experiments import toy_runs

    from linattn.cli import simulation_main

    simulation_main(toy_runs.SWEEP)
