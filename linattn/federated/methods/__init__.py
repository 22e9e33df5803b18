"""The methods of the toolkit, each a small `Method` record; one file per family."""

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

__all__ = [
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
    "local_attention",
    "moon",
    "scaffold",
    "selective",
]
