"""linattn: does the theory of two-stage federated training of linear attention hold, how tightly?

>>> import linattn as la
>>> problem = la.synthetic_problem(num_clients=4, sequences_per_client=8, num_tokens=6, dim=3,
...     num_outputs=2, value_heterogeneity=1.0, value_ridge=0.05, kernel_ridge=0.01)
>>> problem
Problem(4 clients, 32 sequences, dim 3, 2 outputs, readout 'token', value_ridge 0.05, \
kernel_ridge 0.01)
"""

from inspect import isfunction

from linattn._doors import door
from linattn.analysis import (
    Assessment,
    CentralizedDescent,
    Description,
    Study,
    aggregation_mismatch,
    assess,
    bias_drift,
    descent_certificate,
    describe,
    looseness,
    predict_study,
    predict_trade_off,
    synchronized_control,
)
from linattn.attention import accuracy, loss, predict
from linattn.claims import Claim, Verdict, check, claims
from linattn.data.datasets import load_dataset
from linattn.data.deep_tokens import DeepProblem, deep_problem
from linattn.data.frames import problem_from_frame
from linattn.data.in_context import (
    in_context_clients,
    in_context_covariances,
    in_context_problem,
)
from linattn.data.partition import partition
from linattn.data.saving import save_dataset
from linattn.data.schools import schools_split
from linattn.data.splits import digits_split, watch_split
from linattn.data.synthetic import synthetic_problem
from linattn.data.tokens import problem_from_tokens
from linattn.deep import DeepAttention
from linattn.experiments.store import load_results
from linattn.experiments.study import study
from linattn.federated import (
    Cost,
    Direction,
    FreezeRule,
    Method,
    Nature,
    Plan,
    Proposal,
    Result,
    RoundContext,
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
    freeze_rule,
    local_attention,
    moon,
    run,
    scaffold,
    selection_errors,
    selective,
    solve_selection,
)
from linattn.objectives import (
    Joint,
    KernelProfile,
    Reference,
    ValueBlock,
    initial_params,
    reference_value,
    safe_step,
)
from linattn.theory import (
    DriftResponse,
    FrozenMoments,
    FrozenStage,
    InContextOptimum,
    PredictedEnsemble,
    PredictedRun,
    ScaffoldStage,
    change_gauge,
    drift_impulse,
    drift_response,
    euler_identity,
    frozen_moments,
    frozen_stage,
    in_context_optimum,
    predict_ensemble,
    predict_run,
    scaffold_stage,
)
from linattn.types import Layout, Params, Problem, Statistics, pool

__version__ = "0.1.0"

__all__ = [
    "Assessment",
    "CentralizedDescent",
    "Claim",
    "Cost",
    "DeepAttention",
    "DeepProblem",
    "Description",
    "Direction",
    "DriftResponse",
    "FreezeRule",
    "FrozenMoments",
    "FrozenStage",
    "InContextOptimum",
    "Joint",
    "KernelProfile",
    "Layout",
    "Method",
    "Nature",
    "Params",
    "Plan",
    "PredictedEnsemble",
    "PredictedRun",
    "Problem",
    "Proposal",
    "Reference",
    "Result",
    "RoundContext",
    "ScaffoldStage",
    "Statistics",
    "Study",
    "ValueBlock",
    "Verdict",
    "__version__",
    "accuracy",
    "aggregation_mismatch",
    "assess",
    "bias_drift",
    "change_gauge",
    "check",
    "claims",
    "deep_problem",
    "descent_certificate",
    "describe",
    "digits_split",
    "drift_impulse",
    "drift_response",
    "euler_identity",
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
    "frozen_moments",
    "frozen_stage",
    "in_context_clients",
    "in_context_covariances",
    "in_context_optimum",
    "in_context_problem",
    "initial_params",
    "load_dataset",
    "load_results",
    "local_attention",
    "looseness",
    "loss",
    "moon",
    "partition",
    "pool",
    "predict",
    "predict_ensemble",
    "predict_run",
    "predict_study",
    "predict_trade_off",
    "problem_from_frame",
    "problem_from_tokens",
    "reference_value",
    "run",
    "safe_step",
    "save_dataset",
    "scaffold",
    "scaffold_stage",
    "schools_split",
    "selection_errors",
    "selective",
    "solve_selection",
    "study",
    "synchronized_control",
    "synthetic_problem",
    "watch_split",
]

for _name in __all__:
    if isfunction(globals()[_name]):
        globals()[_name] = door(_name, globals()[_name])
del _name
