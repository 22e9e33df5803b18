"""Every bound on random instances: its tightness, or that it was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import linattn as la
from linattn.claims.instances import random_instance
from linattn.claims.judge import STATUSES
from linattn.claims.table import check_all
from linattn.experiments.claim_specs import TightnessSpec

if TYPE_CHECKING:
    import xarray as xr


def run(spec: TightnessSpec) -> xr.Dataset:
    """Return the tightness of every bound on every instance.

    Dimensions: `claim`, bounds that take a moment to check; `instance`. ``tightness`` is at least 1
    where the bound holds, NaN where it is not judged or measures next to nothing; ``status`` is an
    index into `STATUSES`; ``recalled`` is 1 for bounds whose paper could not be compared.
    """
    import xarray as xr

    chosen = [c for c in la.claims() if c.kind in ("upper", "lower") and c.share == 1.0]
    places = range(spec.first, spec.first + spec.count)
    verdicts = [check_all(chosen, random_instance(spec.seed, k)) for k in places]
    tightness = [[v.tightness for v in row] for row in verdicts]
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
