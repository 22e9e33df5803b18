"""The claim table: two stated numbers per claim, what it needs, tightness, verdict."""

from linattn.claims.judge import Verdict, judge
from linattn.claims.record import Claim, Condition, Constant, Instance, Measurement, Requirement
from linattn.claims.table import check, claims, get_claim

__all__ = [
    "Claim",
    "Condition",
    "Constant",
    "Instance",
    "Measurement",
    "Requirement",
    "Verdict",
    "check",
    "claims",
    "get_claim",
    "judge",
]
