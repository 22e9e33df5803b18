"""`run`: the one loop over rounds — participation, local steps, averaging, observers, outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from linattn._checks import positive_int
from linattn._settings import LocalSteps, StepSize
from linattn._threads import one_blas_thread
from linattn.federated.driver import RoundDriver
from linattn.federated.history import (
    ALL_METRICS,
    COST_METRICS,
    DRIFT_METRICS,
    EvaluateClients,
    History,
    check_metrics,
)
from linattn.federated.memory import Memory
from linattn.federated.method import Method
from linattn.federated.result import Result
from linattn.federated.round import Round
from linattn.federated.settings import (
    RunSettings,
    Settings,
    check_settings,
    choose_participants,
    draw_batches,
    draw_local_steps,
    draw_participants,
)
from linattn.federated.stretch import advance, may_stretch
from linattn.oracles.protocol import Outcome, oracle_of
from linattn.types import Federation, Params

__all__ = [
    "ALL_METRICS",
    "Memory",
    "Round",
    "RoundDriver",
    "RunSettings",
    "Settings",
    "check_settings",
    "choose_participants",
    "draw_batches",
    "draw_local_steps",
    "draw_participants",
    "run",
]


def run(
    method: Method,
    problem: Federation,
    params: Params,
    *,
    rounds: int,
    local_steps: LocalSteps,
    local_lr: StepSize,
    batch_size: int | None = None,
    participation: float = 1.0,
    sampling: str = "uniform",
    stragglers: float = 0.0,
    seed: int = 0,
    record_params: bool = False,
    metrics: Sequence[str] | None = None,
    evaluate: Callable[[Params], Mapping[str, float]] | None = None,
    evaluate_clients: EvaluateClients | None = None,
    every: int = 1,
    start_round: int = 0,
    memory: Any = None,
) -> Result:
    """Run a federated method by explicit local gradient steps.

    Every round all participants start at the server's parameters, take `local_steps` steps of size
    `local_lr` on F_i, and the server averages with weights w_i that sum to one.

    Parameters
    ----------
    method : Method
    problem : Problem, DeepProblem or any other `linattn.types.Federation`
    params : Params
        Start.
    rounds : int
        R; the run ends after round R − 1, whatever `start_round`.
    local_steps : int, or one int per client
        E, or the E_i of all clients.
    local_lr : float, array or callable (round) -> float
        η, for every trained parameter: constant, one entry per round, or a function of the round.
    batch_size : int, optional
        Each local step draws min(batch_size, n_i) of the client's sequences without replacement,
        from the stream (seed, "batch", client, round); default all.
    participation : float
        Share of the clients per round, K = max(1, round(participation·C)) draws from the stream
        (seed, "participation", round).
    sampling : {"uniform", "weighted"}
        ``"uniform"``: without replacement, every client alike, averaged with w_i = p_i / Σ_S p_j,
        as FedAvg is run in practice. With unequal p the mean of w_i is not p_i, so that sampled
        FedAvg aims at another average: p = (.048, .238, .571, .143), half of them sampled, has mean
        weights (.083, .292, .405, .221). ``"weighted"``: with replacement, client i with
        probability p_i, averaged with w_i = (times drawn)/K, whose mean is p_i; a client drawn
        twice runs once. All participation is K = C draws then, not everybody.
    stragglers : float
        Probability that a participant stops early, after a number of local steps that is uniform on
        1..E_i, from the stream (seed, "stragglers", client, round).
    seed : int
    record_params : bool
        Keep the server parameters of every round in ``result.path``.
    metrics : sequence of str, optional
        Which of `linattn.federated.rounds.ALL_METRICS` to compute; default all but the last three,
        the selection errors, which cost a gradient of every client per round, and
        `personal_objective` only where models are personal. A `DeepProblem` has neither profile
        nor gap.
    evaluate : callable (Params) -> dict, optional
        Test quantities added to the history.
    evaluate_clients : callable (list of Params) -> dict, optional
        The same from the models that the clients use: one per client, personal where the method
        makes them so, else the server's.
    every : int
        Rounds between entries of the history; the start and the last round always have one. Floats
        and multiply-adds of an entry are those since the one before. A divergence that parameters
        do not show is noticed at the next entry.
    start_round : int
        Continue a run at this round; with ``memory=result.memory`` it continues bit for bit.
    memory : Memory, optional
        ``Result.memory`` of the run that is continued, with the same method and settings.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If an argument is out of range, the parameters do not fit the problem, or the memory is of
        another run; at the round where a callable step is not positive.

    Notes
    -----
    Source: Warm-up; unequal work, C21. Cost: rounds · Σ_S E_i n_i (5H + 1) d² m
    multiply-adds (token readout), plus one evaluation of the metrics per round.
    """
    oracle = oracle_of(problem, params)
    settings = check_settings(
        rounds=rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        batch_size=batch_size,
        participation=participation,
        sampling=sampling,
        stragglers=stragglers,
        seed=seed,
        start_round=start_round,
    )
    driver = RoundDriver(method, problem, oracle, params, settings, memory=memory)
    names, every = check_metrics(driver, metrics), positive_int("every", every)
    history = History(driver, names, evaluate, evaluate_clients, every)
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        return _observe(driver, history, record_params)


def _observe(driver: RoundDriver, history: History, record_params: bool) -> Result:
    """Drive to the end or to divergence, filling the history."""
    settings, params = driver.settings, driver.params
    driver.counts_costs = history.reads(COST_METRICS)
    driver.measures_drift = history.reads(DRIFT_METRICS)
    history.start(params)
    path = [params]
    outcome = Outcome("completed", settings.rounds, "")
    plain = may_stretch(driver) and not history.needs_single_rounds
    t = settings.start_round
    while t < settings.rounds:
        try:
            done = advance(driver, t, settings.rounds - t if plain else 1)
        except FloatingPointError as error:
            count, trouble = 0, str(error)
        else:
            count, trouble = history.add(done)
            reached = [Params(params.layout, flat) for flat in done.path[:count]]
            params = reached[-1] if reached else params
            path += reached if record_params else []
        if trouble:
            outcome = Outcome("diverged", t + count, trouble)
            driver.revert(t)
            if count > 0:
                advance(driver, t, count)  # once more, to be left where the good rounds end
            break
        t += count
    models = driver.client_models(max(outcome.round - 1, settings.start_round))
    return Result(
        params=params,
        client_params=[Params(params.layout, flat) for flat in models],
        path=path if record_params else [],
        outcome=outcome,
        freeze_round=driver.freeze_round,
        start_round=settings.start_round,
        entries=np.array(history.rounds),
        columns=history.columns(),
        memory=driver.memory,
    )
