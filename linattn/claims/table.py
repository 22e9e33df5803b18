"""The claim table: every claim, one check, and the run over many instances."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from linattn._checks import one_of, positive_int
from linattn.claims.instances import random_instance
from linattn.claims.record import (
    Claim,
    Condition,
    Instance,
    Measurement,
    Verdict,
    judge,
    refused,
    shared_runs,
)
from linattn.claims.tally import worst_of
from linattn.objectives.starts import initial_params
from linattn.types import Params, Problem


@lru_cache(maxsize=1)
def claims() -> tuple[Claim, ...]:
    """Return every claim, in the order of the files ``linattn/claims/c*.py``."""
    # Not ``import linattn.claims``: the package exports this function under that name.
    package = importlib.import_module("linattn.claims")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] == "c")
    found: list[Claim] = []
    for name in names:
        found.extend(importlib.import_module(f"linattn.claims.{name}").CLAIMS)
    return tuple(found)


def get_claim(name: str) -> Claim:
    """Return the claim of an id.

    Raises
    ------
    ValueError
        If there is none; the sentence names the nearest.
    """
    table = {claim.id: claim for claim in claims()}
    return table[one_of("claim", name, table)]


def check(
    claim: str | Claim,
    problem: Problem,
    params: Params | None = None,
    *,
    rounds: int = 3,
    local_steps: int = 5,
    local_lr: float = 0.01,
    batch_size: int | None = None,
    participation: float = 1.0,
    seed: int = 0,
    force: bool = False,
) -> Verdict:
    """Check one claim on a problem.

    Parameters
    ----------
    claim : str or Claim
        Id such as "C3", see `claims`.
    problem : Problem
    params : Params, optional
        Default `initial_params(problem, value="normal", seed=seed)`.
    rounds, local_steps, local_lr, batch_size, participation, seed
        Of the runs that the claim simulates, if any; claims about full batches ignore the last
        three.
    force : bool
        Judge even where a condition is unmet.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If there is no such claim, or the parameters do not fit the problem.

    Notes
    -----
    The claim names its source. Cost: that of the claim; a few milliseconds to a second at the sizes
    of the simulations.
    """
    start = initial_params(problem, value="normal", seed=seed) if params is None else params
    instance = Instance(
        problem, start, rounds, local_steps, local_lr, batch_size, participation, seed
    )
    return check_instance(get_claim(claim) if isinstance(claim, str) else claim, instance, force)


def check_instance(claim: Claim, instance: Instance, force: bool = False) -> Verdict:
    """Measure and judge one claim; overflow or a singular matrix of a diverging run is no error.

    Where a run leaves the numbers in which the claim can be evaluated, the claim is refused.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            measurement = claim.measure(instance)
        except (FloatingPointError, np.linalg.LinAlgError) as error:
            measurement = refused(Condition(f"a run within floating-point range: {error}", -1.0))
        return judge(claim, _within_range(measurement), force=force)


def check_all(chosen: Iterable[Claim], instance: Instance) -> list[Verdict]:
    """Check claims on one instance; they share its runs, which is most of the cost."""
    with shared_runs():
        return [check_instance(claim, instance) for claim in chosen]


def _within_range(measurement: Measurement) -> Measurement:
    """Refuse a comparison whose terms have overflowed, though no iterate has."""
    if np.isfinite(measurement.scale) or any(c.slack < 0.0 for c in measurement.conditions):
        return measurement
    overflow = Condition("terms within floating-point range", -1.0)
    return measurement._replace(conditions=(*measurement.conditions, overflow))


@dataclass(frozen=True)
class Summary:
    """A claim over many instances.

    Attributes
    ----------
    claim : Claim
    verdicts : list of Verdict
    """

    claim: Claim
    verdicts: list[Verdict]

    def count(self, status: str) -> int:
        """Number of verdicts with this status."""
        return sum(v.status == status for v in self.verdicts)

    @property
    def status(self) -> str:
        """violated if any is; else holds or reported; refused only if all were."""
        for status in ("violated", "holds", "reported"):
            if self.count(status):
                return status
        return "refused"

    @property
    def worst(self) -> Verdict | None:
        """The violated verdict, else the least tight one (largest residual for identities)."""
        return worst_of([v for v in self.verdicts if v.status != "refused"])

    @property
    def median_tightness(self) -> float:
        """Median over verdicts where it is defined."""
        values = [v.tightness for v in self.verdicts if v.status != "refused"]
        finite = [t for t in values if np.isfinite(t)]
        return float(np.median(finite)) if finite else float("nan")


def summarize(
    *,
    instances: int = 20,
    seed: int = 0,
    chosen: Iterable[Claim] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Summary]:
    """Check claims on fresh random instances.

    Parameters
    ----------
    instances : int
        Instances per claim.
    seed : int
    chosen : iterable of Claim, optional
        Default all.
    progress : callable (claim id), optional
        Called when a claim is done.
    """
    positive_int("instances", instances)
    drawn = [random_instance(seed, index) for index in range(instances)]
    out = []
    for claim in claims() if chosen is None else chosen:
        part = drawn[: max(1, round(claim.share * instances))]
        out.append(Summary(claim, [check_instance(claim, instance) for instance in part]))
        if progress is not None:
            progress(claim.id)
    return out
