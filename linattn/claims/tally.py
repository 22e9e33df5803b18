"""A claim over many instances: counts, every tightness, the worst verdict; parts add up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import bdtrc

from linattn.claims.judge import STATUSES, Verdict
from linattn.claims.record import Claim, Condition, Constant

JUDGED = ("holds", "violated", "reported")
# Below this share of its scale a measured quantity says little about a bound.
RESOLVED = 1e-8
FALSE_ALARM = 1e-3
"""Probability that a true claim judged over its whole record is called violated by it."""
MOSTLY = 0.95
"""Share of instances on which a claim that holds mostly does."""


@dataclass(frozen=True)
class Tally:
    """Verdicts of one claim, in a form that can be stored and merged.

    Attributes
    ----------
    claim : str
    kind : str
        Empty without any verdict.
    counts : dict
        Number of verdicts of every status.
    resolved : int
        Judged or reported verdicts whose measured quantity is above 1e-8 of its scale.
    tightness : tuple of float
        Of these verdicts where it is defined (residuals for identities, standard errors for
        statistical claims, shortfalls for orders).
    worst : Verdict or None
        A violated verdict, else the least tight one (largest residual for identities).
    """

    claim: str
    kind: str
    counts: dict[str, int]
    resolved: int
    tightness: tuple[float, ...]
    worst: Verdict | None

    @property
    def total(self) -> int:
        """Number of instances."""
        return sum(self.counts.values())

    @property
    def status(self) -> str:
        """violated if any is; else holds, reported, why nothing was judged, or not checked.

        A statistical claim is judged here, over its record, and so is one that holds mostly: by
        whether more exceptions than these are likely at their largest share.
        """
        if self.kind == "statistical" and self.tightness:
            return "holds" if max(self.tightness) <= self.allowed_errors else "violated"
        if self.kind == "mostly" and self.tightness:
            return "holds" if self.chance_of_exceptions > FALSE_ALARM else "violated"
        for status in ("violated", "holds", "reported", "vacuous", "refused", "not applicable"):
            if self.counts[status]:
                return status
        return "not checked"

    @property
    def allowed_errors(self) -> float:
        """Standard errors that the largest of all deviations exceeds by chance once in 1,000."""
        return -NormalDist().inv_cdf(0.5 * FALSE_ALARM / max(1, len(self.tightness)))

    @property
    def exceptions(self) -> int:
        """Instances on which an upper bound does not hold."""
        return sum(t < 1.0 for t in self.tightness)

    @property
    def chance_of_exceptions(self) -> float:
        """Probability of at least as many exceptions where 5 % of instances are ones."""
        return float(bdtrc(self.exceptions - 1, len(self.tightness), 1.0 - MOSTLY))

    def quantile(self, share: float) -> float:
        """Quantile of the tightness, NaN if it is defined nowhere."""
        return float(np.quantile(self.tightness, share)) if self.tightness else float("nan")


def tally(claim: str, verdicts: Iterable[Verdict]) -> Tally:
    """Return the tally of verdicts of one claim."""
    listed = list(verdicts)
    judged = [v for v in listed if v.status in JUDGED]
    return Tally(
        claim,
        listed[0].kind if listed else "",
        {status: sum(v.status == status for v in listed) for status in STATUSES},
        sum(bool(abs(v.measured) > RESOLVED * v.scale) for v in judged),
        tuple(float(v.tightness) for v in judged if np.isfinite(v.tightness)),
        worst_of(judged),
    )


def worst_of(judged: Sequence[Verdict]) -> Verdict | None:
    """Return a violated verdict, else the least tight one; None if there is none."""
    violated = [v for v in judged if v.status == "violated"]
    return max(violated or judged, key=_looseness, default=None)


def _looseness(verdict: Verdict) -> float:
    if np.isnan(verdict.tightness):
        return -np.inf
    return -verdict.tightness if verdict.kind == "mostly" else verdict.tightness


def merged(claim: Claim, parts: Iterable[Tally]) -> Tally:
    """Return the tally of a claim over all instances of its parts."""
    listed = list(parts)
    return Tally(
        claim.id,
        claim.kind,
        {status: sum(part.counts[status] for part in listed) for status in STATUSES},
        sum(part.resolved for part in listed),
        tuple(t for part in listed for t in part.tightness),
        worst_of([part.worst for part in listed if part.worst is not None]),
    )


def to_record(part: Tally) -> dict[str, Any]:
    """Return the tally as numbers, strings, lists and dicts."""
    return asdict(part)


def from_record(record: dict[str, Any]) -> Tally:
    """Return the tally that `to_record` wrote.

    Raises
    ------
    KeyError, TypeError
        If the record is of another version.
    """
    held = record["worst"]
    worst = None if held is None else Verdict(**(held | _tuples(held)))
    counts = {status: int(record["counts"][status]) for status in STATUSES}
    return Tally(
        **(record | {"counts": counts, "tightness": tuple(record["tightness"]), "worst": worst})
    )


def _tuples(held: dict[str, Any]) -> dict[str, Any]:
    """The named tuples of a verdict, which became lists."""
    conditions = {k: tuple(Condition(*c) for c in held[k]) for k in ("unmet", "conditions")}
    return conditions | {"constants": tuple(Constant(*c) for c in held["constants"])}
