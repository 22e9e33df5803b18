"""Federated methods as records, and the one loop over rounds."""

from linattn.federated.freeze import FreezeRule, freeze_rule
from linattn.federated.method import Cost, Direction, Method, Plan, Proposal, RoundContext
from linattn.federated.methods import fed_avg, fed_frozen
from linattn.federated.result import Outcome, Result
from linattn.federated.rounds import run

__all__ = [
    "Cost",
    "Direction",
    "FreezeRule",
    "Method",
    "Outcome",
    "Plan",
    "Proposal",
    "Result",
    "RoundContext",
    "fed_avg",
    "fed_frozen",
    "freeze_rule",
    "run",
]
