"""The analytical side: closed forms and bounds. Never imports `linattn.federated`."""

from linattn.theory.frozen import FrozenStage, frozen_stage
from linattn.theory.scaffold import ScaffoldStage, scaffold_stage
from linattn.theory.symmetry import change_gauge, euler_identity

__all__ = [
    "FrozenStage",
    "ScaffoldStage",
    "change_gauge",
    "euler_identity",
    "frozen_stage",
    "scaffold_stage",
]
