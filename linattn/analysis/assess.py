"""The question in one call: how long to warm up on this problem, what is it worth, and why?"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from linattn._checks import MOST_ENTRIES, positive_int, real
from linattn._progress import stage
from linattn.analysis.assessment import Assessment
from linattn.analysis.bias_drift import bias_drift
from linattn.analysis.certificate import descent_certificate
from linattn.analysis.checked import compare
from linattn.analysis.predicted import filled, predict_trade_off
from linattn.analysis.study import Study, study_in_memory
from linattn.analysis.study_cell import TWO_STAGE, default_grid, simulated_warmup
from linattn.federated import fed_frozen
from linattn.federated.freeze import RULES, freeze_rule
from linattn.federated.rounds import run
from linattn.federated.settings import RunSettings
from linattn.objectives.joint import Joint
from linattn.objectives.reference import Reference, reference_value
from linattn.objectives.starts import initial_params
from linattn.types import Params, Problem

FACTORS = tuple(2.0**k for k in range(-3, 4))
"""Steps of the tuned comparison, relative to the given one; extended until the best is interior."""
EXTENSIONS = 3
LENGTHS = 24
"""Warm-up lengths of the tuned comparison."""


def assess(
    problem: Problem,
    *,
    local_steps: int,
    local_lr: float,
    rounds: int,
    params: Params | None = None,
    warmup_lengths: Sequence[int] | None = None,
    frozen_lr: float | str | None = None,
    participation: float = 1.0,
    batch_size: int | None = None,
    reference: float | Reference | None = None,
    num_starts: int = 20,
    time_budget: float | None = None,
    seed: int = 0,
) -> Assessment:
    """Return the best warm-up length on a problem, what it is worth, and whether the theory held.

    Five lines: the best length at the given step, with its plateau; what freezing gains with both
    FedAvg and FedFrozen at their best steps; what one exact second stage gains; what the theory
    predicted without the run; and what was checked on this very problem: the exact decomposition
    C9, the closed form of the frozen stage against an explicitly simulated run (C7), the descent
    certificate of the warm-up (C4), and the lower bound of the reference (C15).

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
        Default every length up to 200, else 200 of them.
    frozen_lr : None, float or "safe"
        Step size of the frozen stage, as in `fed_frozen`.
    participation, batch_size
        As in `run`; losses of the frozen stage are then expectations given the warm-up.
    reference : float or Reference, optional
        P_ref; default `reference_value` with `num_starts` starts.
    num_starts : int
    time_budget : float, optional
        Seconds after which the prediction and the tuned comparison are left out.
    seed : int
        Of the default start, of the reference value and of the draws.

    Raises
    ------
    ValueError
        If an argument is out of range; the sentence names it.

    Notes
    -----
    Source: C4, C7, C9, C15, C24. Cost: a warm-up run, the frozen rounds after T*, a certificate of
    at most 20 rounds, a prediction, `num_starts` L-BFGS starts, and seven or more steps of the
    tuned comparison, each a warm-up run; seconds at the sizes of the simulations.
    """
    began = perf_counter()
    positive_int("rounds", rounds, maximum=MOST_ENTRIES)
    budget = np.inf if time_budget is None else real("time_budget", time_budget, above=0.0)
    start = initial_params(problem, seed=seed) if params is None else params
    if reference is None:
        with stage("reference value"):
            reference = reference_value(problem, like=start, num_starts=num_starts, seed=seed)
    settings = RunSettings(
        rounds=rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        participation=participation,
        batch_size=batch_size,
        seed=seed,
    )
    with stage(f"warm-up of {rounds} rounds"):
        path = filled(simulated_warmup(problem, start, **settings), rounds)
    asked = default_grid(rounds) if warmup_lengths is None else warmup_lengths
    common: dict[str, Any] = {
        **settings,
        "warmup_lengths": sorted({0, rounds, *asked}),
        "frozen_lr": frozen_lr,
        "reference": reference,
    }
    with stage(f"second stages of {len(common['warmup_lengths'])} warm-up lengths"):
        table = bias_drift(problem, start, path=path, **common)
    with stage("checks of the theory"):
        checks = compare(problem, path, table, settings, frozen_lr=frozen_lr, reference=reference)
    predicted = tuned = None
    if perf_counter() - began < budget:
        del common["seed"]
        with stage("prediction without the run"):
            predicted = predict_trade_off(problem, start, **common)
        seconds = budget - (perf_counter() - began)
        tuned = _tuned(problem, start, settings, frozen_lr=frozen_lr, seconds=seconds)
    return Assessment(
        table, predicted, tuned, checks, lambda: _more(problem, start, settings, frozen_lr)
    )


def _tuned(
    problem: Problem,
    start: Params,
    settings: RunSettings,
    *,
    frozen_lr: float | str | None,
    seconds: float,
) -> Study | None:
    """The comparison at the best steps, with more steps until both are interior."""
    began = perf_counter()
    given: dict[str, Any] = {**settings}
    step, seed, factors = float(given.pop("local_lr")), given.pop("seed"), list(FACTORS)
    lengths = default_grid(settings["rounds"])
    chosen = np.unique(np.linspace(0, len(lengths) - 1, LENGTHS).astype(int))
    found = None
    for _ in range(EXTENSIONS + 1):
        if perf_counter() - began > seconds:
            return found
        with stage(f"comparison at {len(factors)} step sizes"):
            found = study_in_memory(
                problem,
                start,
                methods=TWO_STAGE,
                local_lrs=[at for factor in factors if 0.0 < (at := factor * step) < np.inf],
                warmup_lengths=[lengths[k] for k in chosen],
                frozen_lr=frozen_lr,
                seeds=[seed],
                **given,
            )
        best = [found.best(name).local_lr / step for name in found.methods]
        below = [factors[0] / 4.0, factors[0] / 2.0] if min(best) <= factors[0] * 1.01 else []
        above = [factors[-1] * 2.0, factors[-1] * 4.0] if max(best) >= factors[-1] * 0.99 else []
        if not below and not above:
            break
        factors = [*below, *factors, *above]
    return found


def _more(
    problem: Problem, start: Params, settings: RunSettings, frozen_lr: float | str | None
) -> dict[str, Any]:
    """The certificate of the whole warm-up, and where every freeze rule stops with which loss."""
    rules = {}
    for name in RULES:
        method = fed_frozen(warmup_rounds=freeze_rule(name), frozen_lr=frozen_lr)
        ended = run(method, problem, start, metrics=(), **settings)
        done = ended.outcome.status == "completed"
        frozen = settings["rounds"] if ended.freeze_round is None else ended.freeze_round
        rules[name] = (frozen, Joint(problem).value(ended.params) if done else float("inf"))
    return {"certificate": descent_certificate(problem, start, **settings), "rules": rules}
