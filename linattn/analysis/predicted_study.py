"""The tuned optimum predicted: best step, best length and second stage, without a federated run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from linattn._checks import one_of, real
from linattn.analysis.study import Problems, Starts, Study, study_in_memory
from linattn.analysis.study_cell import TWO_STAGE
from linattn.theory.prediction import predict_run
from linattn.types import Params, Problem


def predict_study(
    problem: Problems,
    params: Starts,
    *,
    methods: Sequence[str] = TWO_STAGE,
    local_lrs: Sequence[float],
    local_steps: int | Sequence[int],
    rounds: int | None = None,
    floats: float | None = None,
    multiply_adds: float | None = None,
    warmup_lengths: Sequence[int] | None = None,
    tolerance: float = 0.03,
    frozen_lr: float | str | None = None,
    seeds: Iterable[int] = range(1),
) -> Study:
    """Return what `study` would find for FedAvg and FedFrozen, from predicted warm-ups.

    For a budget and every step η the warm-up is `predict_run`; what follows a length T, rounds of
    averaging or one exact value round, is exact. So ``best("fed_frozen")`` minimizes

        F(B_T, V_R) over η and T,        ``best("fed_frozen_exact")``: P(B_T),

    and ``best("fed_avg")`` is never freezing at its own best step.

    Parameters
    ----------
    problem, params, local_lrs, local_steps, rounds, floats, multiply_adds, warmup_lengths
        As in `study`; all clients take part with full batches.
    methods : sequence of {"fed_avg", "fed_frozen", "fed_frozen_exact"}
    tolerance : float
        Of `predict_run`.
    frozen_lr : None, float or "safe"
        Step size of averaging after the warm-up.
    seeds : iterable of int
        For problems or starts that are functions of the seed.

    Returns
    -------
    Study
        As `study` does.

    Raises
    ------
    TypeError, ValueError
        As `study` and `predict_run` do, and for other methods.

    Notes
    -----
    Source: C24, C7, C9. Cost: per step, E and seed E·R centralized steps and some dozens of rounds
    of all clients, and an eigendecomposition per length.

    Examples
    --------
    >>> import linattn as la
    >>> problem = la.synthetic_problem(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3,
    ...     num_outputs=2, value_heterogeneity=1.0, value_ridge=0.05, kernel_ridge=0.01)
    >>> found = la.predict_study(problem, la.initial_params(problem), local_steps=5, rounds=100,
    ...     local_lrs=[0.02, 0.05, 0.1])
    >>> bool(found.best("fed_frozen_exact").objective <= found.best("fed_avg").objective)
    True
    """
    tolerance = real("tolerance", tolerance, minimum=0.0)
    return study_in_memory(
        problem,
        params,
        methods=[one_of("methods", name, TWO_STAGE) for name in methods],
        local_lrs=local_lrs,
        local_steps=local_steps,
        rounds=rounds,
        floats=floats,
        multiply_adds=multiply_adds,
        warmup_lengths=warmup_lengths,
        frozen_lr=frozen_lr,
        seeds=seeds,
        warmup=partial(predicted_warmup, tolerance=tolerance),
    )


def predicted_warmup(
    problem: Problem,
    params: Params,
    *,
    rounds: int,
    local_steps: int,
    local_lr: float,
    tolerance: float,
    **_: Any,
) -> list[Params]:
    """The path of `predict_run`; all clients take part with full batches, whatever else is said."""
    return predict_run(
        problem,
        params,
        rounds=rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        tolerance=tolerance,
        check_chaos=False,
    ).path
