"""Where a run and the theory of that run are put side by side."""

from linattn.analysis.assess import Assessment, assess
from linattn.analysis.bias_drift import bias_drift
from linattn.analysis.centralized import CentralizedDescent
from linattn.analysis.certificate import descent_certificate, looseness
from linattn.analysis.describe import Description, describe
from linattn.analysis.mismatch import aggregation_mismatch
from linattn.analysis.predicted import predict_trade_off
from linattn.analysis.predicted_study import predict_study
from linattn.analysis.study import Study
from linattn.analysis.synchronized import synchronized_control

__all__ = [
    "Assessment",
    "CentralizedDescent",
    "Description",
    "Study",
    "aggregation_mismatch",
    "assess",
    "bias_drift",
    "descent_certificate",
    "describe",
    "looseness",
    "predict_study",
    "predict_trade_off",
    "synchronized_control",
]
