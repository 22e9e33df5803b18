"""Claims on random instances: the two numbers of every claim, and the verdict.

A run is some claims of one file on instances `first` .. `first + count` of a seed; they share what
they simulate. ``linattn verify`` chooses the runs. Run ``python simulations/claims.py --preset
quick``; results go to ``./results``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from linattn._fields import Count, Index
from linattn.analysis.applicable import FULL_BATCHES, FULL_PARTICIPATION
from linattn.claims.instances import random_instance, suited
from linattn.claims.judge import STATUSES
from linattn.claims.record import shared_runs
from linattn.claims.table import check_instance
from linattn.claims.tally import tally, to_record
from linattn.experiments import Grid, Own, Simulation, Spec
from linattn.experiments.verification import chosen_claims, families, share_of

if TYPE_CHECKING:
    import xarray as xr

    from linattn.claims import Claim, Instance, Verdict

NUMBERS = ("measured", "bound", "scale", "tightness")


class ClaimsSpec(Spec):
    """Which claims on which instances.

    `source` is the SHA-256 of the file that declares the claims, so that another text of it is
    another run; `own` is that file where it is your own.
    """

    claims: tuple[str, ...] = ("C1",)
    source: str = ""
    own: Own = ""
    first: Index = 0
    count: Count = 50

    def cost(self) -> float:
        """Instances, in the unit of a gradient step on the base problem, and slow claims more."""
        slow = sum(1.0 / share_of(name) for name in self.claims) if not self.own else 1.0
        return 1e6 * self.count * slow


def run(spec: ClaimsSpec) -> xr.Dataset:
    """Return the numbers and the verdict of every claim on every instance.

    Dimensions: `claim`; `instance`. ``tightness`` is at least 1 where a bound holds, NaN where it
    is not judged or measures next to nothing, for identities the relative residual; ``status`` is
    an index into `linattn.claims.judge.STATUSES`; ``bound_kind`` is 1 for upper and lower bounds,
    ``recalled`` for bounds whose paper could not be compared; ``tally`` the claim over these
    instances, with its worst verdict, as JSON.
    """
    import xarray as xr

    chosen = chosen_claims(spec.claims, spec.own)
    places = np.arange(spec.first, spec.first + spec.count)
    found = [_verdicts(chosen, random_instance(spec.seed, int(k))) for k in places]
    both = ("claim", "instance")
    numbers = {
        name: (both, np.array([[getattr(v, name) for v in row] for row in found], float).T)
        for name in NUMBERS
    }
    status = np.array([[STATUSES.index(v.status) for v in row] for row in found], float).T
    tallies = [
        json.dumps(to_record(tally(claim.id, [row[k] for row in found])))
        for k, claim in enumerate(chosen)
    ]
    return xr.Dataset(
        numbers
        | {
            "status": (both, status),
            "recalled": ("claim", [float(claim.provenance == "recalled") for claim in chosen]),
            "bound_kind": ("claim", [float(c.kind in ("upper", "lower")) for c in chosen]),
            "tally": ("claim", tallies),
        },
        {"claim": list(spec.claims), "instance": places},
    )


def _verdicts(chosen: Sequence[Claim], drawn: Instance) -> list[Verdict]:
    """Claims on one instance, each as it suits; runs shared."""
    alike: dict[tuple[object, ...], Instance] = {}
    pairs = []
    for claim in chosen:
        key = (FULL_BATCHES in claim.needs, FULL_PARTICIPATION in claim.needs, claim.suit)
        pairs.append((claim, alike.setdefault(key, suited(drawn, claim))))
    with shared_runs():
        return [_verdict(claim, instance) for claim, instance in pairs]


def _verdict(claim: Claim, instance: Instance) -> Verdict:
    """The verdict; an error of the claim is told with its id."""
    try:
        return check_instance(claim, instance)
    except Exception as error:
        raise RuntimeError(f"claim {claim.id!r}: {type(error).__name__}: {error}") from error


def grids(count: int) -> list[Grid]:
    """Every claim on the first instances, slow ones on their share."""
    return [
        Grid(
            ClaimsSpec(
                claims=family.claims,
                source=family.source,
                count=max(1, round(family.share * count)),
            )
        )
        for family in families()
    ]


SIMULATION = Simulation(
    ClaimsSpec, run, presets={"paper": grids(200), "quick": grids(8), "tiny": grids(2)}
)

if __name__ == "__main__":
    SIMULATION.main()
