"""Experiments: what to run (specs, sweeps), running it, and the store of results.

Importing this loads neither xarray nor the compiled code.
"""

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
    "CertificateSpec",
    "FreezeRuleSpec",
    "FrozenStageSpec",
    "Grid",
    "InitialSpec",
    "ProblemSpec",
    "RealDataSpec",
    "Result",
    "Spec",
    "Sweep",
    "SweepReport",
    "combine",
    "digest",
    "load_results",
    "register",
    "run_sweep",
]
