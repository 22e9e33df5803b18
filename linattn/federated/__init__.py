"""Federated methods as records, and the one loop over rounds."""

from linattn.federated.freeze import FreezeRule, freeze_rule
from linattn.federated.method import Cost, Direction, Method, Plan, Proposal, RoundContext
from linattn.federated.methods.adaptive import fed_adam, fed_yogi
from linattn.federated.methods.averaging import fed_avg, fed_nova, fed_prox
from linattn.federated.methods.fed_tp import fed_tp, fed_tp_newcomers
from linattn.federated.methods.frozen import fed_frozen
from linattn.federated.methods.gated import fed_sq
from linattn.federated.methods.moon import moon
from linattn.federated.methods.part import fed_part, fed_part_cost
from linattn.federated.methods.personal import fine_tuned, local_attention
from linattn.federated.methods.scaffold import scaffold
from linattn.federated.methods.selective import selective
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
