"""How two numbers become a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from linattn._display import facts_html, table_html
from linattn.claims.record import (
    ORDER_SLACK,
    UNJUDGED,
    Claim,
    Condition,
    Constant,
    Measurement,
)

STATUSES = ("holds", "refused", "violated", "reported", "not applicable", "vacuous")
UNDEFINED_BELOW = 1e-12
VANISHING = 1e-150
"""Terms below this have squares that underflow."""
OUT_OF_RANGE = "terms within floating-point range"
MEASURABLE = "terms that can be measured"
NOTHING = Measurement(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held on an instance, and how tightly.

    Attributes
    ----------
    claim : str
    kind : str
    status : str
        ``"holds"`` or ``"violated"``; ``"refused"``: a condition is unmet; ``"not applicable"``:
        the claim does not speak of this method or setting; ``"vacuous"``: nothing was measured;
        ``"reported"``: never judged (on one instance).
    measured, bound : float
    tightness : float
        bound/measured for upper bounds, measured/bound for lower ones (1 is tight), NaN where
        undefined; for identities the residual relative to the sum of |terms|; for statistical
        claims |measured − bound| in standard errors; for orders bound − measured, by how much it
        falls short.
    unmet : tuple of Condition
        What the claim needs and the instance lacks.
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

    @property
    def reason(self) -> str:
        """Why there is no judgement, as a sentence; empty where there is one."""
        lacking = "; ".join(condition.failure for condition in self.unmet)
        if self.status == "not applicable":
            return f"It does not speak of this setting; it needs: {lacking}."
        if self.status == "refused":
            return f"It was not judged; it needs: {lacking}."
        if self.status != "vacuous":
            return ""
        if self.kind == "order":
            return "Nothing was fitted: the errors are rounding."
        if np.isinf(self.bound):
            return "Nothing was compared: the bound is infinite."
        return (
            f"Nothing was compared: what was measured, {self.measured:.2g}, is within the rounding "
            f"budget of {self.budget * self.scale:.2g}."
        )

    def __repr__(self) -> str:
        numbers = ""
        if np.isfinite(self.scale):
            numbers = f"; measured {self.measured:.6g}, bound {self.bound:.6g}"
        if np.isfinite(self.tightness):
            numbers += f", tightness {self.tightness:.3g}"
        reason = f": {self.reason.rstrip('.')}" if self.reason else ""
        return f"Verdict({self.claim} {self.status}{reason}{numbers})"

    def _repr_html_(self) -> str:
        facts = facts_html(
            f"{self.claim} ({self.kind}): {self.status}",
            [("measured", self.measured), ("bound", self.bound), ("tightness", self.tightness)],
        )
        conditions = [(c.name, c.slack, "met" if c.met else "unmet") for c in self.conditions]
        parts = [(("condition", "slack", ""), conditions)] if conditions else []
        parts += [(("constant", "value", "how"), list(self.constants))] if self.constants else []
        return facts + "".join(table_html(heads, rows) for heads, rows in parts)


def judge(
    claim: Claim,
    measurement: Measurement,
    conditions: Sequence[Condition] = (),
    *,
    force: bool = False,
) -> Verdict:
    """Compare the two numbers of a measurement.

    Parameters
    ----------
    claim : Claim
    measurement : Measurement
    conditions : sequence of Condition
        As found on the instance, met or not.
    force : bool
        Judge even where a condition is unmet, to show that it is needed.
    """
    if not _comparable(measurement):
        beyond = Condition(OUT_OF_RANGE, float("nan"), "some are no finite numbers")
        return without_measurement(claim, "refused", (*conditions, beyond))
    judged = force or all(condition.met for condition in conditions)
    status = _status(claim, measurement) if judged else "refused"
    return _verdict(claim, status, measurement, conditions)


def without_measurement(claim: Claim, status: str, conditions: Sequence[Condition]) -> Verdict:
    """The verdict where nothing could be measured, because of some of the conditions."""
    return _verdict(claim, status, NOTHING, conditions)


def _verdict(
    claim: Claim, status: str, found: Measurement, conditions: Sequence[Condition]
) -> Verdict:
    return Verdict(
        claim.id,
        claim.kind,
        status,
        found.measured,
        found.bound,
        _tightness(claim.kind, found),
        tuple(condition for condition in conditions if not condition.met),
        tuple(conditions),
        found.constants,
        claim.budget,
        found.scale,
    )


def _status(claim: Claim, m: Measurement) -> str:
    if claim.kind in UNJUDGED:
        return "reported"
    allowed = claim.budget * m.scale
    if abs(m.scale) < VANISHING:
        return "vacuous"
    if _excess(claim.kind, m) > allowed:
        return "violated"
    return "vacuous" if _says_nothing(claim.kind, m, allowed) else "holds"


def _comparable(m: Measurement) -> bool:
    """Whether all are numbers, and finite but for a bound, which may say nothing."""
    residual = 0.0 if m.residual is None else m.residual
    return bool(np.isfinite([m.measured, m.scale, residual]).all() and not np.isnan(m.bound))


def _says_nothing(kind: str, m: Measurement, allowed: float) -> bool:
    """Whether the comparison could not have failed: of rounding, or with an infinite bound."""
    size = max(abs(m.measured), abs(m.bound)) if kind == "identity" else abs(m.measured)
    return size <= allowed or bool(np.isinf(m.bound))


def _excess(kind: str, m: Measurement) -> float:
    """How far the claim fails, in the units of the measurement."""
    if kind == "upper":
        return m.measured - m.bound
    if kind == "lower":
        return m.bound - m.measured
    if kind == "order":
        return m.bound - ORDER_SLACK - m.measured
    return abs(m.measured - m.bound) if m.residual is None else m.residual


def _tightness(kind: str, m: Measurement) -> float:
    if kind == "order":
        return m.bound - m.measured if m.scale > 0.0 else float("nan")
    if kind in ("identity", "statistical"):
        return 0.0 if m.scale == 0.0 else _excess(kind, m) / m.scale
    small = UNDEFINED_BELOW * m.scale
    if kind == "report" or not abs(m.measured) > small or not np.isfinite(m.bound):
        return float("nan")
    if kind in ("upper", "mostly"):
        return m.bound / m.measured
    return m.measured / m.bound if m.bound > 0.0 else float("nan")
