"""What a claim is: a statement, what it needs, and two numbers measured by different routes.

To add a claim, write one file in ``linattn/claims/ours`` (or, for a bound of a paper, in
``linattn/claims/published``) that ends in ``CLAIMS = (Claim(...),)``;
`linattn/claims/ours/c01_gap.py` is the shortest example. The table finds it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np

from linattn._checks import one_of, positive_int, real
from linattn.federated.method import Method
from linattn.types import Params, Problem

KINDS = ("identity", "upper", "lower", "order", "mostly", "report", "statistical")
UNJUDGED = ("mostly", "report", "statistical")
"""Kinds that one instance says nothing about."""
PROVENANCES = ("ours", "paper", "recalled")
# Fixed before any run. Identities that hold by algebra get the first, statements that compare two
# long computations (many rounds, differences) the second, which is also the most there is.
ROUNDING_BUDGET = 1e-12
LONG_BUDGET = 1e-10
NO_SLACK = 1e-150
"""Conditions with > in place of ≥ miss by less than this."""
ORDER_SLACK = 0.2
"""By how much a fitted order may fall short of that of the theory."""

T = TypeVar("T")
_kept: ContextVar[dict[Any, Any] | None] = ContextVar("kept", default=None)


class Instance(NamedTuple):
    """A problem with everything a claim may need to run it.

    Attributes
    ----------
    problem : Problem
    params : Params
    rounds, local_steps : int
    local_lr : float
    batch_size : int or None
    participation : float
    seed : int
    method : Method or None
        None is averaging of plain gradient steps, which most claims need.
    """

    problem: Problem
    params: Params
    rounds: int = 3
    local_steps: int = 5
    local_lr: float = 0.01
    batch_size: int | None = None
    participation: float = 1.0
    seed: int = 0
    method: Method | None = None


@contextmanager
def shared_runs() -> Iterator[None]:
    """Let what is checked in this block, on one and the same instance, share its runs."""
    token = _kept.set({}) if _kept.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _kept.reset(token)


def shared(function: Callable[[Instance], T]) -> Callable[[Instance], T]:
    """Compute once per instance within `shared_runs`; the result must not be changed."""

    @wraps(function)
    def once(instance: Instance) -> T:
        kept = _kept.get()
        if kept is None:
            return function(instance)
        key = (function, id(instance))
        if key not in kept:
            # Holding the instance keeps its id from being given to another one.
            kept[key] = instance, function(instance)
        result: T = kept[key][1]
        return result

    return once


class Constant(NamedTuple):
    """A constant of a bound and how it was obtained: exact, safe upper bound, secant, ..."""

    name: str
    value: float
    how: str


class Condition(NamedTuple):
    """An assumption as it was found on an instance.

    Attributes
    ----------
    name : str
    slack : float
        Met where it is ≥ 0.
    instead : str
        What is the case where it is unmet, for those that are no matter of more or less.
    """

    name: str
    slack: float
    instead: str = ""

    @property
    def met(self) -> bool:
        """Whether the assumption holds; NaN does not."""
        return bool(self.slack >= 0.0)

    @property
    def failure(self) -> str:
        """Why it is unmet, for people."""
        missed = f"missed by {-self.slack:.2g}" if np.isfinite(self.slack) else "beyond any number"
        missed = "at the limit" if abs(self.slack) < NO_SLACK else missed
        return f"{self.name} ({self.instead or missed})"


class Requirement(NamedTuple):
    """An assumption of a claim, judged on an instance before anything is measured.

    Attributes
    ----------
    name : str
        As it is printed: "ηλ_max(A_i) ≤ 2".
    slack : (Instance) -> float
        Met where it is ≥ 0.
    instead : str
        See `Condition`.
    essential : bool
        Without it there is nothing to measure: no forced verdict, and what is listed after it is
        not judged.
    """

    name: str
    slack: Callable[[Instance], float]
    instead: str = ""
    essential: bool = False

    def judged(self, instance: Instance) -> Condition:
        """The assumption on an instance."""
        condition = Condition(self.name, float(self.slack(instance)))
        return condition if condition.met else condition._replace(instead=self.instead)


class Measurement(NamedTuple):
    """The two numbers of a claim, by different routes.

    Attributes
    ----------
    measured, bound : float
        What was measured, and the analytical quantity; for ``"order"`` claims the fitted order of
        an error, and the least it should be.
    scale : float
        Sum of the absolute values of the terms, in which the rounding budget is counted; for
        ``"statistical"`` claims the standard error of `measured`.
    residual : float or None
        |measured − bound| where both are norms of arrays: the norm of the difference.
    constants : tuple
    """

    measured: float
    bound: float
    scale: float
    residual: float | None = None
    constants: tuple[Constant, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A statement of the theory with a measurement.

    Attributes
    ----------
    id : str
        Name in `paper_notes.md`, such as "C3".
    statement : str
        One line.
    kind : {"identity", "upper", "lower", "order", "mostly", "report", "statistical"}
        How measured and bound compare. A report is never judged; a statistical claim, about
        ensembles, and one that holds mostly, an upper bound on 95 % of instances, are judged over
        their records (`linattn.claims.tally`).
    source : str
        Heading of `paper_notes.md`, or paper.
    measure : (Instance) -> Measurement
        Called where everything below is met, or when a verdict is forced.
    needs : tuple of str
        What it takes for granted of a run, see `linattn.analysis.applicable`; without it the claim
        does not speak of the instance.
    conditions : tuple of Requirement
        Judged in this order; where one is unmet the claim is refused.
    provenance : {"ours", "paper", "recalled"}
    budget : float
        Rounding budget relative to the scale of a measurement, at most 1e-10.
    share : float
        Share of the instances to check, below 1 for claims that take long.
    record : int
        Resolved verdicts after which a claim is checked no further.
    suit : (Instance) -> Instance
        Makes of a random instance one that can be measured, such as one of fewer clients where all
        draws are listed; an instance of one's own is never changed.

    Raises
    ------
    ValueError
        If a kind or provenance does not exist, or a number is out of range.
    """

    id: str
    statement: str
    kind: str
    source: str
    measure: Callable[[Instance], Measurement]
    needs: tuple[str, ...] = ()
    conditions: tuple[Requirement, ...] = ()
    provenance: str = "ours"
    budget: float = ROUNDING_BUDGET
    share: float = 1.0
    record: int = 10_000
    suit: Callable[[Instance], Instance] | None = None

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        one_of("provenance", self.provenance, PROVENANCES)
        real("budget", self.budget, minimum=0.0, maximum=LONG_BUDGET)
        real("share", self.share, above=0.0, maximum=1.0)
        positive_int("record", self.record)

    def __repr__(self) -> str:
        return f"Claim({self.id}: {self.statement})"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Everything it needs, in words."""
        return (*self.needs, *(requirement.name for requirement in self.conditions))
