"""One cell of a study: every method and warm-up length at one step size, E and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from linattn._checks import one_of, positive_int, shown
from linattn._settings import MOST_STEPS
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.analysis.bias_drift import SecondStage, loss_after
from linattn.analysis.budget import Budget, TwoStageCost, affordable, bought
from linattn.analysis.synchronized import finite_profile
from linattn.federated import fed_avg, fed_frozen
from linattn.federated.method import Method
from linattn.federated.methods.table import METHODS, Choices, make_method
from linattn.federated.rounds import check_settings, run
from linattn.linalg import finite_or_inf
from linattn.objectives.population import population
from linattn.types import Params, Problem

INF = float("inf")
MOST_LENGTHS = 200
TWO_STAGE = ("fed_avg", "fed_frozen", "fed_frozen_exact")
"""Read off one warm-up: its end, averaging after every T, and one exact value round after it."""
SECOND_STAGES = {"frozen_scaffold": "scaffold"}
"""Forked from the same warm-up at every T, by explicit rounds."""
WITH_LENGTHS = (*TWO_STAGE[1:], *SECOND_STAGES)
"""Methods that end otherwise after every warm-up length."""


Warmup = Callable[..., list[Params]]
"""(problem, params, rounds, settings of `run` by name) -> parameters after 0, 1, … rounds."""


def simulated_warmup(
    problem: Problem, params: Params, *, rounds: int, **settings: Any
) -> list[Params]:
    """Return the path of FedAvg, up to a divergence."""
    result = run(
        fed_avg(), problem, params, rounds=rounds, record_params=True, metrics=(), **settings
    )
    return result.path


class Setting(NamedTuple):
    """What all cells of a study share.

    Attributes
    ----------
    methods : mapping of str to Method or None
        None for those of `TWO_STAGE` and `SECOND_STAGES`.
    budget : Budget
    lengths : tuple of int, or None
        Warm-up lengths; None for every one up to 200, else 200 of them.
    participation, frozen_participation : float
    batch_size : int or None
    frozen_lr : None, float or "safe"
    """

    methods: dict[str, Method | None]
    budget: Budget
    lengths: tuple[int, ...] | None
    participation: float
    frozen_participation: float
    batch_size: int | None
    frozen_lr: float | str | None


class Cell(NamedTuple):
    """What a cell found.

    Attributes
    ----------
    lengths : array of int, shape (L,)
    objective : mapping of str to array, shape (L,)
        F at the end of the budget, +inf where a run diverges or is not affordable. Methods without
        warm-up length have one entry, at the largest length, and +inf at the others.
    rounds : mapping of str to array, shape (L,)
        Rounds that the budget bought.
    """

    lengths: tuple[int, ...]
    objective: dict[str, Array]
    rounds: dict[str, Array]


def study_cell(
    problem: Problem,
    params: Params,
    setting: Setting,
    *,
    local_steps: int,
    local_lr: float,
    seed: int,
    warmup: Warmup = simulated_warmup,
) -> Cell:
    """Return the end of the budget for every method and warm-up length.

    Frozen rounds of averaging are exact (C7), in expectation given the warm-up where clients or
    minibatches are drawn (C20); everything else is simulated, and frozen rounds are where
    `frozen_moments` refuses.

    Notes
    -----
    Source: C7, C9, C20. Cost: one warm-up run, an eigendecomposition per length, and one run for
    every other method (one per length for other second stages).
    """
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        return _Cell(problem, params, setting, local_steps, local_lr, seed, warmup).cell()


class _Cell:
    """The warm-up of a cell and what is read off it."""

    def __init__(
        self,
        problem: Problem,
        params: Params,
        setting: Setting,
        local_steps: int,
        local_lr: float,
        seed: int,
        warmup: Warmup,
    ) -> None:
        self.problem, self.params, self.setting = problem, params, setting
        self.run: dict[str, Any] = {
            "local_steps": local_steps,
            "local_lr": local_lr,
            "batch_size": setting.batch_size,
            "participation": setting.participation,
            "seed": seed,
        }
        self.cost = TwoStageCost(
            problem,
            params,
            setting.budget.kind,
            local_steps=local_steps,
            participation=setting.participation,
            frozen_participation=setting.frozen_participation,
            seed=seed,
            batch_size=setting.batch_size,
        )
        amount = setting.budget.amount
        guess = int(amount / self.cost.warmup(1)[1]) + 1  # as if every round cost the same
        self.most = bought(lambda rounds: self.cost.warmup(rounds)[1:], amount, guess)
        self.spent = self.cost.warmup(self.most)
        asked = setting.lengths or default_grid(self.most)
        self.lengths = tuple(t for t in asked if t <= self.most)
        if not self.lengths:
            raise ValueError(
                f"warmup_lengths must have one of at most {self.most} rounds, which are all that "
                f"the budget buys, got {', '.join(map(str, asked))}."
            )
        self.path = warmup(problem, params, rounds=self.most, **self.run)
        self.second = self._closed_form()

    def cell(self) -> Cell:
        objective: dict[str, Array] = {}
        rounds: dict[str, Array] = {}
        for name, method in self.setting.methods.items():
            if name in TWO_STAGE:
                pairs = [self._two_stage(name, t) for t in self.lengths]
            elif name in SECOND_STAGES:
                pairs = [self._second_stage(SECOND_STAGES[name], t) for t in self.lengths]
            else:
                pairs = [(INF, 0)] * (len(self.lengths) - 1) + [self._other(name, method)]
            objective[name] = np.array([value for value, _ in pairs])
            rounds[name] = np.array([float(count) for _, count in pairs])
        return Cell(self.lengths, objective, rounds)

    def _closed_form(self) -> SecondStage | None:
        """The frozen stage; None where its moments are refused: it is then simulated."""
        setting, settings = self.setting, check_settings(rounds=1, **self.run)
        share, step = setting.frozen_participation, setting.frozen_lr
        try:
            return SecondStage.checked(self.problem, self.params, settings, step, share)
        except ValueError:
            return None

    def _left(self, t: int) -> float:
        return self.setting.budget.amount - float(self.spent[t])

    def _two_stage(self, name: str, t: int) -> tuple[float, int]:
        if name == "fed_avg":
            return self._end() if t == self.lengths[-1] else (INF, t)
        if t >= len(self.path):
            return INF, t
        here = self.path[t]
        if name == "fed_frozen_exact":
            affordable_here = self.cost.exact <= self._left(t) * (1.0 + 1e-12)
            return (finite_profile(self.problem, here), t + 1) if affordable_here else (INF, t)
        if self.second is None:
            return self._second_stage("fed_avg", t)
        rounds = bought(partial(self.cost.frozen, t), self._left(t))
        return self._averaged(here, rounds, self.second), t + rounds

    def _end(self) -> tuple[float, int]:
        """FedAvg, which has no length, as far as the budget reaches."""
        whole = len(self.path) > self.most
        return self._loss(self.path[-1]) if whole else INF, self.most

    def _averaged(self, here: Params, rounds: int, second: SecondStage) -> float:
        """E F after frozen rounds of averaging, in closed form."""
        if not np.isfinite(finite_profile(self.problem, here)):
            return INF
        stage, moments = second.at(self.problem, here)
        noise = 0.0 if moments is None else moments.noise(rounds)
        return loss_after(self.problem, here, stage, rounds) + noise

    def _loss(self, params: Params) -> float:
        return finite_or_inf(population(self.problem).value_and_gradient(params)[0])

    def _second_stage(self, stage: str, t: int) -> tuple[float, int]:
        """Another second stage than averaging, forked from the warm-up."""
        if t >= len(self.path) or not np.isfinite(self._loss(self.path[t])):
            return INF, t
        method = fed_frozen(warmup_rounds=t, frozen=stage, frozen_lr=self.setting.frozen_lr)
        return self._explicit(method, t, self.setting.frozen_participation)

    def _other(self, name: str, method: Method | None) -> tuple[float, int]:
        """A method without lengths."""
        made = method or make_method(name, Choices(self.params, self.run["local_steps"]))
        return self._explicit(made, 0, self.setting.participation)

    def _explicit(self, method: Method, first: int, participation: float) -> tuple[float, int]:
        """Rounds by simulation from round `first` on, as far as the budget reaches by their own
        accounts.
        """
        kind, left = self.setting.budget.kind, self._left(first)
        measured = "objective" if method.personal is None else "personal_objective"
        settings = self.run | {"participation": participation}
        at, memory, end, length = self.path[first], None, first, self.most - first
        if kind == "rounds":
            result = run(method, self.problem, at, rounds=self.most, start_round=first,
                         metrics=(measured,), every=max(1, length), **settings)  # fmt: skip
            good = result.outcome.status == "completed"
            return (float(result.columns[measured][-1]) if good else INF), result.outcome.round
        accounts = ("floats_up", "floats_down") if kind == "floats" else (kind,)
        losses, spent, length = np.empty(0), np.zeros(1), max(1, length)
        while True:
            result = run(method, self.problem, at, rounds=end + length, start_round=end,
                         memory=memory, metrics=(measured, *accounts), **settings)  # fmt: skip
            losses = np.append(losses[:-1], result.columns[measured])
            each = np.sum([result.columns[name][1:] for name in accounts], axis=0)
            spent = np.append(spent, spent[-1] + np.cumsum(each))
            count = affordable(spent[1:], left)
            if count == len(losses) - 1 and result.outcome.status == "diverged":
                return INF, result.outcome.round
            if count < len(losses) - 1:
                return float(losses[count]), first + count
            at, memory, end = result.params, result.memory, result.outcome.round
            if not each.any():  # it has stopped: no round is bought any more
                if np.ptp(losses[-len(each) - 1 :]) > 0.0:
                    raise ValueError(
                        f"{method.name} goes on training without any {kind}: no budget of them "
                        "ends it."
                    )
                return float(losses[-1]), first + int(spent.searchsorted(spent[-1]))
            # As many rounds as the rest buys at the price of the last one, and one to see the end.
            if each[-1] > 0.0:
                length = min(int((left - spent[-1]) / each[-1]) + 1, max(1, end - first))


def default_grid(rounds: int) -> tuple[int, ...]:
    """Return every warm-up length up to 200, else 200 of them, nearly evenly in their square roots.

    Examples
    --------
    >>> default_grid(4)
    (0, 1, 2, 3, 4)
    >>> len(default_grid(5000)) <= 200
    True
    """
    if positive_int("rounds", rounds, minimum=0, maximum=MOST_STEPS) <= MOST_LENGTHS - 1:
        return tuple(range(rounds + 1))
    spaced = np.linspace(0.0, np.sqrt(rounds), MOST_LENGTHS) ** 2
    return tuple(sorted({round(t) for t in spaced}))


def method_map(methods: Sequence[str | Method]) -> dict[str, Method | None]:
    """Return the methods of a study by name.

    Raises
    ------
    ValueError
        If the list is empty, a name is unknown or two methods have the same name.
    TypeError
        If an entry is neither a name nor a method.
    """
    known = (*TWO_STAGE, *(n for n, row in METHODS.items() if row.single and n not in TWO_STAGE))
    found: dict[str, Method | None] = {}
    for entry in methods:
        if isinstance(entry, Method):
            name, value = entry.name, entry
        elif isinstance(entry, str):
            name, value = one_of("methods", entry, known), None
        else:
            raise TypeError(
                f"methods must be names or methods, got {shown(entry)}; a maker such as "
                "la.fed_prox must be called."
            )
        if name in found:
            raise ValueError(f"methods must be distinct, got {name!r} twice.")
        found[name] = value
    if not found:
        raise ValueError("methods must not be empty.")
    return found
