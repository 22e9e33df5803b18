"""Experiments: what to run (specs, sweeps), running it, and the store of results.

Importing this loads neither xarray nor the compiled code.
"""

from linattn.experiments.claim_specs import BoundsSpec, OrdersSpec, TightnessSpec
from linattn.experiments.method_specs import (
    GatesSpec,
    MethodsSpec,
    ModelSpec,
    PartScheduleSpec,
    PersonalAttentionSpec,
    SecondStageSpec,
    SelectionSpec,
    UpdateJumpSpec,
)
from linattn.experiments.runner import SweepReport, run_sweep
from linattn.experiments.specs import (
    NUMERICS,
    BiasDriftSpec,
    CertificateSpec,
    FreezeRuleSpec,
    FrozenStageSpec,
    InitialSpec,
    ProblemSpec,
    RealDataSpec,
    Spec,
    digest,
    register,
)
from linattn.experiments.store import Result, combine, load_results
from linattn.experiments.sweep import Grid, Sweep

__all__ = [
    "NUMERICS",
    "BiasDriftSpec",
    "BoundsSpec",
    "CertificateSpec",
    "FreezeRuleSpec",
    "FrozenStageSpec",
    "GatesSpec",
    "Grid",
    "InitialSpec",
    "MethodsSpec",
    "ModelSpec",
    "OrdersSpec",
    "PartScheduleSpec",
    "PersonalAttentionSpec",
    "ProblemSpec",
    "RealDataSpec",
    "Result",
    "SecondStageSpec",
    "SelectionSpec",
    "Spec",
    "Sweep",
    "SweepReport",
    "TightnessSpec",
    "UpdateJumpSpec",
    "combine",
    "digest",
    "load_results",
    "register",
    "run_sweep",
]
