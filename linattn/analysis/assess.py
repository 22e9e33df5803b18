"""The question in one call: how long to warm up on this problem, and did the theory hold?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from linattn._checks import positive_int
from linattn.analysis.bias_drift import PARTS, bias_drift
from linattn.analysis.certificate import descent_certificate, looseness
from linattn.federated.methods import fed_frozen
from linattn.federated.rounds import run
from linattn.objectives.reference import Reference, reference_value
from linattn.objectives.starts import initial_params
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr

IDENTITY_BUDGET = 1e-10
CERTIFICATE_ROUNDS = 50


@dataclass(frozen=True)
class Check:
    """One prediction of the theory beside what was measured."""

    claim: str
    statement: str
    measured: float
    predicted: float
    holds: bool


@dataclass(frozen=True)
class Assessment:
    """Answer of `assess`; its repr is the table to read.

    Attributes
    ----------
    warmup_star : int or None
        Best warm-up length T* on the grid.
    objective_star, objective_never, objective_always : float
        F after R rounds when frozen at T*, never frozen (T = R), and frozen from the start (T = 0).
    parts : dict of str to float
        The exact parts of the remaining loss at T*: kernel_bias, value_transient, value_floor,
        value_cross; they add up to F − reference.
    reference : Reference
    checks : list of Check
    holds : bool
        Whether every check held.
    table : xarray.Dataset
        The full warm-up table.
    """

    warmup_star: int | None
    objective_star: float
    objective_never: float
    objective_always: float
    parts: dict[str, float]
    reference: Reference
    checks: list[Check]
    table: xr.Dataset

    @property
    def holds(self) -> bool:
        """Whether every prediction held."""
        return all(check.holds for check in self.checks)

    def __repr__(self) -> str:
        rounds = int(self.table.attrs["rounds"])
        if self.warmup_star is None:
            return f"Assessment(no stable warm-up length up to R = {rounds}; lower local_lr)"
        interior = 0 < self.warmup_star < rounds
        kind = "interior" if interior else "at the edge: no interior optimum"
        gain_never = self.objective_never - self.objective_star
        gain_always = self.objective_always - self.objective_star
        lines = [
            f"best warm-up       T* = {self.warmup_star} of R = {rounds} ({kind})",
            f"objective          {self.objective_star:.6g}",
            f"  gain over never freezing (T = R)        {_gain(gain_never)}",
            f"  gain over never training the kernel     {_gain(gain_always)}",
            f"remaining loss     {sum(self.parts.values()):.4g} above the reference "
            f"{self.reference.value:.6g}",
        ]
        lines += [f"  {_PART_NAMES[name]:<40}{part:.4g}" for name, part in self.parts.items()]
        lines.append(f"theory             {'held' if self.holds else 'VIOLATED'}")
        lines += [
            f"  {check.claim:<5}{check.statement:<44}{check.measured:.6g} vs "
            f"{check.predicted:.6g}  {'holds' if check.holds else 'VIOLATED'}"
            for check in self.checks
        ]
        return "\n".join(lines)


_PART_NAMES = {
    "kernel_bias": "kernel bias",
    "value_transient": "value drift: transient",
    "value_floor": "value drift: frozen floor",
    "value_cross": "value drift: cross term",
}


def _gain(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "unbounded (the other diverged)"


def assess(
    problem: Problem,
    *,
    local_steps: int,
    local_lr: float,
    rounds: int,
    params: Params | None = None,
    warmup_lengths: Sequence[int] | None = None,
    frozen_lr: float | str | None = None,
    seed: int = 0,
) -> Assessment:
    """Return the best warm-up length on a problem and whether the theory's predictions held.

    Checked on this very problem: the exact decomposition C9, the closed form of the frozen stage
    against an explicitly simulated run (C7), the descent certificate of the warm-up (C4), and the
    lower bound of the reference (C15).

    Parameters
    ----------
    problem : Problem
    local_steps : int
        E.
    local_lr : float
        η; `safe_step(problem, params)` is a sensible first choice.
    rounds : int
        R.
    params : Params, optional
        Start; default `initial_params(problem, seed=seed)`, one merged head.
    warmup_lengths : sequence of int, optional
        Default: 0, 1, 2, 3, 5, 8, 13, ..., R.
    frozen_lr : None, float or "safe"
        Step size of the frozen stage, as in `fed_frozen`.
    seed : int
        Of the default start and of the reference value.

    Raises
    ------
    ValueError
        If an argument is out of range; the sentence names it.

    Notes
    -----
    Source: C4, C7, C9, C15. Cost: a warm-up run, one explicit run of R rounds, a certificate of at
    most 50 rounds, and 20 L-BFGS starts; seconds at the sizes of the simulations.
    """
    positive_int("rounds", rounds)
    start = initial_params(problem, seed=seed) if params is None else params
    lengths = default_lengths(rounds) if warmup_lengths is None else warmup_lengths
    reference = reference_value(problem, like=start, seed=seed)
    table = bias_drift(
        problem,
        start,
        warmup_lengths=sorted({0, rounds, *lengths}),
        rounds=rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        frozen_lr=frozen_lr,
        reference=reference,
    )
    best = table.attrs["warmup_star"]
    names = list(_PART_NAMES)
    parts = {} if best is None else {n: float(table[n].sel(warmup=best)) for n in names}
    checks: list[Check] = []
    if best is not None:
        checks.append(_check_decomposition(table, best))
        checks.append(
            _check_frozen_stage(problem, start, table, best, local_steps, local_lr, frozen_lr)
        )
    checks.append(
        _check_certificate(problem, start, min(rounds, CERTIFICATE_ROUNDS), local_steps, local_lr)
    )
    if reference.lower_bound is not None:
        checks.append(_check_reference(reference))
    objective = table["objective"]
    return Assessment(
        best,
        float("nan") if best is None else float(objective.sel(warmup=best)),
        float(objective.sel(warmup=rounds)),
        float(objective.sel(warmup=0)),
        parts,
        reference,
        checks,
        table,
    )


def default_lengths(rounds: int) -> list[int]:
    """Return warm-up lengths that grow like Fibonacci numbers, with 0 and R."""
    lengths, a, b = [0], 1, 2
    while a < rounds:
        lengths.append(a)
        a, b = b, a + b
    return [*lengths, rounds]


def _check_decomposition(table: xr.Dataset, best: int) -> Check:
    row = table.sel(warmup=best)
    predicted = float(table.attrs["reference"]) + sum(float(row[n]) for n in PARTS)
    measured = float(row["objective"])
    scale = abs(measured) + sum(abs(float(row[n])) for n in PARTS)
    holds = abs(measured - predicted) <= IDENTITY_BUDGET * scale
    return Check("C9", "loss = reference + bias + drift parts", measured, predicted, holds)


def _check_frozen_stage(
    problem: Problem,
    params: Params,
    table: xr.Dataset,
    best: int,
    local_steps: int,
    local_lr: float,
    frozen_lr: float | str | None,
) -> Check:
    result = run(
        fed_frozen(warmup_rounds=best, frozen_lr=frozen_lr),
        problem,
        params,
        rounds=int(table.attrs["rounds"]),
        local_steps=local_steps,
        local_lr=local_lr,
        metrics=("objective",),
    )
    measured = float(result.columns["objective"][-1])
    predicted = float(table["objective"].sel(warmup=best))
    holds = abs(measured - predicted) <= IDENTITY_BUDGET * abs(predicted)
    return Check("C7", "simulated rounds = closed form", measured, predicted, holds)


def _check_certificate(
    problem: Problem, params: Params, rounds: int, local_steps: int, local_lr: float
) -> Check:
    certificate = descent_certificate(
        problem, params, rounds=rounds, local_steps=local_steps, local_lr=local_lr
    )
    t = int(np.argmin(certificate["profile"].values))
    measured = float(certificate["profile"].values[t])
    bound = float(certificate["certificate"].values[t])
    loose = looseness(certificate)
    note = "" if np.isnan(loose) else f", looseness {loose:.2g}"
    return Check(
        "C4",
        f"profile below certificate{note}",
        measured,
        bound,
        int(certificate["violations"].sum()) == 0,
    )


def _check_reference(reference: Reference) -> Check:
    assert reference.lower_bound is not None
    slack = IDENTITY_BUDGET * abs(reference.value)
    return Check(
        "C15",
        "lower bound below best known value",
        reference.value,
        reference.lower_bound,
        reference.lower_bound <= reference.value + slack,
    )
