"""The analytical side: closed forms and bounds. Never imports `linattn.federated`."""

from linattn.theory.ensemble import PredictedEnsemble, predict_ensemble
from linattn.theory.frozen import FrozenStage, frozen_stage
from linattn.theory.impulse import drift_impulse
from linattn.theory.in_context import InContextOptimum, in_context_optimum
from linattn.theory.moments import FrozenMoments, frozen_moments
from linattn.theory.prediction import PredictedRun, predict_run
from linattn.theory.response import DriftResponse, drift_response
from linattn.theory.scaffold import ScaffoldStage, scaffold_stage
from linattn.theory.symmetry import change_gauge, euler_identity

__all__ = [
    "DriftResponse",
    "FrozenMoments",
    "FrozenStage",
    "InContextOptimum",
    "PredictedEnsemble",
    "PredictedRun",
    "ScaffoldStage",
    "change_gauge",
    "drift_impulse",
    "drift_response",
    "euler_identity",
    "frozen_moments",
    "frozen_stage",
    "in_context_optimum",
    "predict_ensemble",
    "predict_run",
    "scaffold_stage",
]
