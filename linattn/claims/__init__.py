"""The claim table: two stated numbers per claim, conditions, tightness, verdict."""

from linattn.claims.record import Claim, Condition, Constant, Instance, Measurement, Verdict
from linattn.claims.table import Summary, check, claims, get_claim, summarize

__all__ = [
    "Claim",
    "Condition",
    "Constant",
    "Instance",
    "Measurement",
    "Summary",
    "Verdict",
    "check",
    "claims",
    "get_claim",
    "summarize",
]
