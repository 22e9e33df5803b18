"""Federated methods as records, and the one loop over rounds."""

from linattn.federated.freeze import FreezeRule, freeze_rule
from linattn.federated.method import Cost, Direction, Method, Plan, Proposal, RoundContext
from linattn.federated.methods import (
    fed_adam,
    fed_avg,
    fed_frozen,
    fed_nova,
    fed_part,
    fed_part_cost,
    fed_prox,
    fed_sq,
    fed_tp,
    fed_tp_newcomers,
    fed_yogi,
    fine_tuned,
    local_attention,
    moon,
    scaffold,
    selective,
)
from linattn.federated.nature import Nature
from linattn.federated.result import Outcome, Result
from linattn.federated.rounds import run
from linattn.federated.selection import SelectionErrors, selection_errors, solve_selection

__all__ = [
    "Cost",
    "Direction",
    "FreezeRule",
    "Method",
    "Nature",
    "Outcome",
    "Plan",
    "Proposal",
    "Result",
    "RoundContext",
    "SelectionErrors",
    "fed_adam",
    "fed_avg",
    "fed_frozen",
    "fed_nova",
    "fed_part",
    "fed_part_cost",
    "fed_prox",
    "fed_sq",
    "fed_tp",
    "fed_tp_newcomers",
    "fed_yogi",
    "fine_tuned",
    "freeze_rule",
    "local_attention",
    "moon",
    "run",
    "scaffold",
    "selection_errors",
    "selective",
    "solve_selection",
]
