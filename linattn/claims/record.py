"""What a claim is, and how a measurement becomes a verdict.

To add a claim, write one file ``linattn/claims/cXX_name.py`` that ends in
``CLAIMS = (Claim(...),)`` and measures two numbers by different routes
(`linattn/claims/c01_gap.py` is the shortest example).
The registry finds it by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np

from linattn._display import facts_html, table_html
from linattn.types import Params, Problem

KINDS = ("identity", "upper", "lower", "report")
# Fixed before any run. Identities that hold by algebra get the first, statements that compare two
# long computations (many rounds, differences) the second.
ROUNDING_BUDGET = 1e-12
LONG_BUDGET = 1e-10
UNDEFINED_BELOW = 1e-12

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
    """

    problem: Problem
    params: Params
    rounds: int = 3
    local_steps: int = 5
    local_lr: float = 0.01
    batch_size: int | None = None
    participation: float = 1.0
    seed: int = 0


@contextmanager
def shared_runs() -> Iterator[None]:
    """Let claims that are checked in this block, on one and the same instance, share its runs."""
    token = _kept.set({})
    try:
        yield
    finally:
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
    """An assumption and its slack: met where the slack is ≥ 0."""

    name: str
    slack: float


class Measurement(NamedTuple):
    """The two numbers of a claim, by different routes.

    Attributes
    ----------
    measured, bound : float
        What was measured, and the analytical quantity.
    scale : float
        Sum of the absolute values of the terms, in which the rounding budget is counted.
    residual : float or None
        |measured − bound| where both are norms of arrays: the norm of the difference.
    conditions, constants : tuple
    budget : float
        Rounding budget relative to `scale`, at most 1e-10.
    """

    measured: float
    bound: float
    scale: float
    residual: float | None = None
    conditions: tuple[Condition, ...] = ()
    constants: tuple[Constant, ...] = ()
    budget: float = ROUNDING_BUDGET


@dataclass(frozen=True)
class Claim:
    """A statement of the theory with a measurement.

    Attributes
    ----------
    id : str
        Name in `paper_notes.md`, such as "C3".
    statement : str
        One line.
    kind : {"identity", "upper", "lower", "report"}
        How measured and bound compare; a report is never an exit status.
    source : str
    provenance : {"ours", "paper", "recalled"}
    assumptions : tuple of str
    measure : (Instance) -> Measurement
    share : float
        Share of the instances to check, below 1 for claims that take long.
    """

    id: str
    statement: str
    kind: str
    source: str
    measure: Callable[[Instance], Measurement]
    provenance: str = "ours"
    assumptions: tuple[str, ...] = ()
    share: float = 1.0

    def __repr__(self) -> str:
        return f"Claim({self.id}: {self.statement})"


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held on an instance, and how tightly.

    Attributes
    ----------
    claim, kind : str
    status : {"holds", "refused", "violated", "reported"}
    measured, bound : float
    tightness : float
        bound/measured for upper bounds, measured/bound for lower ones (1 is tight), NaN where
        undefined; for identities the residual relative to the sum of |terms|.
    unmet : tuple of Condition
        Conditions that failed, with (negative) slack.
    conditions, constants : tuple
    budget : float
    scale : float
        Sum of the absolute values of the terms, in which the budget is counted.
    """

    claim: str
    kind: str
    status: str
    measured: float
    bound: float
    tightness: float
    unmet: tuple[Condition, ...]
    conditions: tuple[Condition, ...]
    constants: tuple[Constant, ...]
    budget: float
    scale: float

    def __repr__(self) -> str:
        why = ", ".join(f"{c.name} (slack {c.slack:.2g})" for c in self.unmet)
        reason = f": {why}" if why else ""
        return (
            f"Verdict({self.claim} {self.status}{reason}; measured {self.measured:.6g}, "
            f"bound {self.bound:.6g}, tightness {self.tightness:.3g})"
        )

    def _repr_html_(self) -> str:
        facts = facts_html(
            f"{self.claim} ({self.kind}): {self.status}",
            [("measured", self.measured), ("bound", self.bound), ("tightness", self.tightness)],
        )
        conditions = [
            (c.name, c.slack, "met" if c.slack >= 0.0 else "unmet") for c in self.conditions
        ]
        parts = [(("condition", "slack", ""), conditions)] if conditions else []
        parts += [(("constant", "value", "how"), list(self.constants))] if self.constants else []
        return facts + "".join(table_html(heads, rows) for heads, rows in parts)


def judge(claim: Claim, measurement: Measurement, *, force: bool = False) -> Verdict:
    """Compare the two numbers of a measurement.

    Parameters
    ----------
    claim : Claim
    measurement : Measurement
    force : bool
        Judge even where a condition is unmet, to show that the condition is needed; what was not
        measured stays refused.
    """
    unmet = tuple(c for c in measurement.conditions if not c.slack >= 0.0)
    excess = _excess(claim.kind, measurement)
    allowed = measurement.budget * measurement.scale
    measured = bool(np.isfinite(measurement.measured) and np.isfinite(measurement.bound))
    if unmet and not (force and measured):
        status = "refused"
    elif claim.kind == "report":
        status = "reported"
    else:
        status = "holds" if excess <= allowed else "violated"
    return Verdict(
        claim.id,
        claim.kind,
        status,
        measurement.measured,
        measurement.bound,
        _tightness(claim.kind, measurement),
        unmet,
        measurement.conditions,
        measurement.constants,
        measurement.budget,
        measurement.scale,
    )


def _excess(kind: str, m: Measurement) -> float:
    """How far the claim fails, in the units of the measurement; NaN compares as failing."""
    if kind == "upper":
        return m.measured - m.bound
    if kind == "lower":
        return m.bound - m.measured
    return abs(m.measured - m.bound) if m.residual is None else m.residual


def _tightness(kind: str, m: Measurement) -> float:
    if kind == "identity":
        return _excess(kind, m) / m.scale if m.scale > 0.0 else 0.0
    small = UNDEFINED_BELOW * m.scale
    if kind == "report" or abs(m.measured) <= small or not np.isfinite(m.bound):
        return float("nan")
    if kind == "upper":
        return m.bound / m.measured
    return m.measured / m.bound if m.bound > 0.0 else float("nan")


def refused(*conditions: Condition) -> Measurement:
    """A measurement that was not made because a condition is unmet."""
    nan = float("nan")
    return Measurement(nan, nan, nan, conditions=conditions)


def merged_condition(params: Params) -> Condition:
    """The claim is about merged kernels."""
    return Condition("merged kernel", -1.0 if params.is_factored else 0.0)


def factored_condition(params: Params) -> Condition:
    """The claim is about factored kernels."""
    return Condition("factored kernel", 0.0 if params.is_factored else -1.0)
