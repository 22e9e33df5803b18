"""The conditions that several claims share, each with its name and its slack."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from linattn.analysis.applicable import AVERAGING, FULL_BATCHES, FULL_PARTICIPATION, PLAIN_STEPS
from linattn.analysis.trajectory import LocalPath
from linattn.claims.along import frozen_rounds, warmup_descent, warmup_rounds
from linattn.claims.frozen_runs import curvatures, stage_of
from linattn.claims.judge import VANISHING
from linattn.claims.record import Instance, Requirement

FED_AVG = (PLAIN_STEPS, AVERAGING)
CLOSED_FORM = (*FED_AVG, FULL_BATCHES, FULL_PARTICIPATION)
"""What the closed form of the frozen stage needs of a run."""
DIVERGED = "the run leaves the floating-point numbers"


def yes_or_no(
    name: str, holds: Callable[[Instance], bool], instead: str, *, essential: bool = False
) -> Requirement:
    """A condition that is no matter of more or less."""
    return Requirement(name, lambda at: 0.0 if holds(at) else -1.0, instead, essential)


def _finite(holds: Callable[[Instance], bool]) -> Requirement:
    return yes_or_no("finite trajectory", holds, DIVERGED, essential=True)


def _finite_rounds(rounds: Callable[[Instance], list[LocalPath]]) -> Requirement:
    return _finite(lambda at: len(rounds(at)) >= at.rounds)


FINITE_WARMUP = _finite_rounds(warmup_rounds)
FINITE_WARMUP_ROUND = _finite(lambda at: len(warmup_rounds(at)) >= 1)
FINITE_DESCENT = _finite(lambda at: warmup_descent(at).completed)
FINITE_FROZEN = _finite_rounds(frozen_rounds)
FINITE_FROZEN_ROUND = _finite(lambda at: len(frozen_rounds(at)) >= 1)

CONTRACTING = Requirement("ρ(M̂) < 1", lambda at: strict(1.0 - stage_of(at).rate))


def strict(slack: float) -> float:
    """The slack of "<" instead of "≤": none is left at zero."""
    return -5e-324 if slack == 0.0 else slack


def well_conditioned(limit: float) -> Requirement:
    """Cond(A) ≤ limit: what is solved for keeps digits."""
    name = f"cond(A) ≤ {limit:g}"
    return Requirement(name, lambda at: limit - float(np.linalg.cond(stage_of(at).hessian)))


def _at_most(limit: float, product: float) -> float:
    """Slack of a step size times a curvature; a product that underflows is no number."""
    return limit - product if product > VANISHING else float("nan")


def client_steps(limit: float) -> Requirement:
    """ηλ_max(A_i) ≤ limit for all clients."""
    name = f"ηλ_max(A_i) ≤ {limit:g}"
    return Requirement(name, lambda at: _at_most(limit, stage_of(at).largest_step_curvature))


NONEXPANSIVE = Requirement(
    "ηλ_max(A_i) < 2",
    lambda at: _at_most(2.0, stage_of(at).largest_step_curvature) - 1e-12,
    essential=True,
)
"""Local steps contract, beyond rounding."""


def mean_steps(limit: float) -> Requirement:
    """ηλ_max(A) ≤ limit."""
    name = f"ηλ_max(A) ≤ {limit:g}"
    return Requirement(name, lambda at: _at_most(limit, at.local_lr * curvatures(at).largest))
