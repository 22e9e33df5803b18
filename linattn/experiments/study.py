"""`study`: tuned comparisons in memory, or stored and resumed on the engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Unpack

from linattn._checks import positive_int, real
from linattn._progress import is_terminal
from linattn.analysis.budget import Budget, one_budget
from linattn.analysis.study import (
    Problems,
    Starts,
    Study,
    StudySettings,
    assembled,
    at_seed,
    cells_in_order,
    checked,
    study_in_memory,
)
from linattn.analysis.study_cell import Cell
from linattn.experiments.arrays import keep_params, keep_problem
from linattn.experiments.engine import compute_tasks
from linattn.experiments.find import load_simulation
from linattn.experiments.own import is_own, own_object, pinned
from linattn.experiments.progress import reporter
from linattn.experiments.simulation import Task
from linattn.experiments.store import read_result
from linattn.federated.method import Method

CELLS = Path(__file__).with_name("study_cells.py")


def study(
    problem: Problems,
    params: Starts,
    *,
    methods: Sequence[str | Method] = ("fed_avg", "fed_frozen", "fed_frozen_exact"),
    local_lrs: Sequence[float],
    local_steps: int | Sequence[int],
    rounds: int | None = None,
    floats: float | None = None,
    multiply_adds: float | None = None,
    warmup_lengths: Sequence[int] | None = None,
    participation: float = 1.0,
    frozen_participation: float | None = None,
    batch_size: int | None = None,
    frozen_lr: float | str | None = None,
    seeds: Iterable[int] = range(1),
    store: str | os.PathLike[str] | None = None,
    workers: int = 1,
    time_budget: float | None = None,
) -> Study:
    """Compare methods for one budget, each at its own best step size and warm-up length.

    Parameters
    ----------
    problem : Problem, or callable (seed) -> Problem
    params : Params, or callable (seed) -> Params
        Start. A fixed problem, full batches and a fixed start have nothing that seeds vary.
    methods : sequence of str or Method
        ``fed_avg``, ``fed_frozen`` (averaging after the warm-up) and ``fed_frozen_exact`` (one
        exact value round after it) share one warm-up; so does ``frozen_scaffold``, by explicit
        rounds. Any other name of the table of methods, or a method of your own, is run as it is;
        with `store`, your own as ``"PATH.py:NAME"``.
    local_lrs : sequence of float
        Step sizes η to try.
    local_steps : int or sequence of int
        Numbers E to try.
    rounds, floats, multiply_adds : number
        The budget, exactly one of them: rounds; floats sent both ways; multiply-adds of clients.
    warmup_lengths : sequence of int, optional
        Default every length up to 200, else 200 of them.
    participation, frozen_participation : float
        Of the warm-up and of averaging after it (default the same).
    batch_size : int, optional
    frozen_lr : None, float or "safe"
    seeds : iterable of int
    store : path, optional
        Cells are stored there and not computed again.
    workers : int
        Processes.
    time_budget : float, optional
        Seconds; what matters least is cut: later seeds, then steps far from the middle.

    Returns
    -------
    Study
        ``.table``, ``.best(method)``, ``.compare(a, b)``, ``.plot()``.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; one sentence.

    Notes
    -----
    Source: C7, C9 for frozen rounds of all clients on full batches, which are exact; all else is
    simulated. Cost: one warm-up run per step, E and seed, an eigendecomposition per length, and one
    run per cell for every other method.

    Examples
    --------
    >>> import linattn as la
    >>> problem = la.synthetic_problem(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3,
    ...     num_outputs=2, value_heterogeneity=1.0, value_ridge=0.05, kernel_ridge=0.01)
    >>> found = la.study(problem, la.initial_params(problem), local_lrs=[0.02, 0.05, 0.1],
    ...     local_steps=5, rounds=10)
    >>> bool(found.compare("fed_frozen", "fed_avg").median <= 1e-12)
    True
    """
    if time_budget is not None:
        real("time_budget", time_budget, above=0.0)
    settings: StudySettings = {
        "local_lrs": local_lrs,
        "local_steps": local_steps,
        "warmup_lengths": warmup_lengths,
        "participation": participation,
        "frozen_participation": frozen_participation,
        "batch_size": batch_size,
        "frozen_lr": frozen_lr,
        "seeds": seeds,
    }
    if store is None and positive_int("workers", workers) == 1:
        with _bar() as observe:
            return study_in_memory(
                problem,
                params,
                methods=[_loaded(method) for method in methods],
                rounds=rounds,
                floats=floats,
                multiply_adds=multiply_adds,
                time_budget=time_budget,
                observe=observe,
                **settings,
            )
    budget = one_budget(rounds, floats, multiply_adds)
    with TemporaryDirectory() if store is None else nullcontext(store) as folder:
        return _stored(
            problem, params, methods, budget, Path(folder), workers, time_budget, **settings
        )


def _loaded(method: str | Method) -> str | Method:
    """The method that ``PATH.py:NAME`` names; others as they are."""
    if not isinstance(method, str) or not is_own(method):
        return method
    found: Method = own_object(pinned("methods", method))
    return found


def _stored(
    problem: Problems,
    params: Starts,
    methods: Sequence[str | Method],
    budget: Budget,
    folder: Path,
    workers: int,
    time_budget: float | None,
    **settings: Unpack[StudySettings],
) -> Study:
    """Seed by seed on the engine, until the time is over."""
    began = perf_counter()
    names = []
    for method in methods:
        if not isinstance(method, str):
            raise ValueError(
                f"methods must be names or 'PATH.py:NAME' where cells are stored or computed by "
                f"several workers, got {method!r}."
            )
        names.append(pinned("methods", method))
    loaded = [_loaded(name) for name in names]
    setting, steps, counts, every = checked(loaded, budget, **settings)
    simulation = load_simulation(CELLS)

    def task(count: int, step: float, seed: int) -> Task:
        held, start = at_seed(problem, params, seed)
        return simulation.task(
            simulation.spec(
                seed=seed,
                problem=str(keep_problem(folder, held)),
                start=str(keep_params(folder, start)),
                methods=tuple(names),
                budget=budget.kind,
                amount=budget.amount,
                local_steps=count,
                local_lr=step,
                warmup_lengths=setting.lengths or (),
                participation=setting.participation,
                frozen_participation=setting.frozen_participation,
                batch_size=setting.batch_size,
                frozen_lr=setting.frozen_lr,
            )
        )

    from linattn.experiments.study_cells import as_cell

    found: dict[tuple[int, float, int], Cell] = {}
    for seed in every:
        if time_budget is not None and found and perf_counter() - began > time_budget:
            break
        tasks = {cell: task(*cell) for cell in cells_in_order(steps, counts, [seed])}
        report = compute_tasks(tasks.values(), folder, workers=workers, observe=reporter)
        if report.failures:
            raise RuntimeError(report.failures[0].sentence)
        if report.interrupted:
            raise KeyboardInterrupt
        for cell, one in tasks.items():
            found[cell] = as_cell(read_result(folder / one.file).dataset)
    return assembled(found, setting, steps=steps, counts=counts, seeds=every)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("study")
        yield lambda done, total: bar.update(line, completed=done, total=total)
