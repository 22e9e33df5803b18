"""The question in one call: how long to warm up on this problem, what is it worth, and why?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from linattn._checks import positive_int, real
from linattn._display import axes_or_new, facts_html
from linattn.analysis.bias_drift import PARTS, bias_drift
from linattn.analysis.certificate import descent_certificate, looseness
from linattn.analysis.predicted import objective_at, predict_trade_off
from linattn.analysis.regret import has_tradeoff, relative_regret
from linattn.analysis.study import Study, plateau, study_in_memory
from linattn.analysis.study_cell import default_grid
from linattn.federated.freeze import RULES, freeze_rule
from linattn.federated.methods import fed_avg, fed_frozen
from linattn.federated.rounds import run
from linattn.objectives.joint import Joint
from linattn.objectives.reference import Reference, reference_value
from linattn.objectives.starts import initial_params
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

IDENTITY_BUDGET = 1e-10
CERTIFICATE_ROUNDS = 20
FACTORS = tuple(2.0**k for k in range(-3, 4))
"""Steps of the tuned comparison, relative to the given one; extended until the best is interior."""
EXTENSIONS = 3
LENGTHS = 24
"""Warm-up lengths of the tuned comparison."""


class Check(NamedTuple):
    """One statement of the theory on this very problem.

    Attributes
    ----------
    claim : str
    statement : str
    measured, predicted : float
    holds : bool or None
        None where nothing could be compared.
    """

    claim: str
    statement: str
    measured: float
    predicted: float
    holds: bool | None


@dataclass(frozen=True, eq=False)
class Assessment:
    """Answer of `assess`; print it.

    Attributes
    ----------
    warmup_star : int or None
        Best warm-up length T* at the given step, None if no length is stable.
    plateau : (int, int) or None
        Smallest and largest length within 2 % of the stake of T*.
    objective_star, objective_never, objective_always : float
        F after R rounds when frozen at T*, never frozen (T = R), and frozen from the start (T = 0);
        +inf where it diverges, NaN if there is no T*.
    parts : dict of str to float
        The exact parts of the remaining loss at T*; they add up to F − reference.
    reference : float
        P_ref.
    certified : bool
        Whether P_ref is globally optimal for every number of heads.
    predicted : xarray.Dataset or None
        Of `predict_trade_off`; None where runs are sampled or schedules are used.
    tuned : Study or None
        FedAvg, FedFrozen and FedFrozen with one exact second stage, each at its best step for the
        same number of rounds; None if time was over.
    checks : list of Check
    table : xarray.Dataset
        Of `bias_drift`.
    """

    warmup_star: int | None
    plateau: tuple[int, int] | None
    objective_star: float
    objective_never: float
    objective_always: float
    parts: dict[str, float]
    reference: float
    certified: bool
    predicted: xr.Dataset | None
    tuned: Study | None
    checks: list[Check]
    table: xr.Dataset
    _more: Callable[[], dict[str, Any]]

    @property
    def holds(self) -> bool:
        """Whether a length was stable, something was compared, and nothing of it failed."""
        compared = [check.holds for check in self.checks if check.holds is not None]
        return self.warmup_star is not None and bool(compared) and all(compared)

    @property
    def predicted_star(self) -> int | None:
        """T̂, the predicted best warm-up length."""
        return None if self.predicted is None else self.predicted.attrs["warmup_star"]

    @property
    def predicted_regret(self) -> float:
        """(F(T̂) − F(T*))/(F_never − F(T*)); NaN without a trade-off or a prediction."""
        return self.regret_at(self.predicted_star)

    def regret_at(self, length: int | None) -> float:
        """Relative regret of freezing at a length of the table, NaN where there is no trade-off."""
        if length is None or self.warmup_star is None:
            return float("nan")
        return relative_regret(self.table, objective_at(self.table, length))

    @cached_property
    def details(self) -> dict[str, Any]:
        """Certificate and freeze rules with their regrets, the tables and checks; made when asked.

        ``certificate`` (Dataset), ``certificate_star`` and ``certificate_regret``; ``rules``, name
        to (round, relative regret); ``table``, ``predicted``, ``tuned``, ``checks``, ``parts``.
        """
        found = self._more()
        certificate = found.get("certificate")
        if certificate is not None:
            star = int(np.argmin(certificate["certificate"].values))
            found |= {"certificate_star": star, "certificate_regret": self._regret_near(star)}
        found["rules"] = {
            name: (star, self.regret_of(objective)) for name, (star, objective) in
            found["rules"].items()
        }  # fmt: skip
        held = ("table", "predicted", "tuned", "checks", "parts")
        return found | {name: getattr(self, name) for name in held}

    def regret_of(self, objective: float) -> float:
        """Relative regret of an objective."""
        return relative_regret(self.table, objective)

    def _regret_near(self, length: int) -> float:
        """Relative regret at the length of the table that is nearest."""
        lengths = self.table["warmup"].values
        return self.regret_at(int(lengths[np.argmin(np.abs(lengths - length))]))

    def __str__(self) -> str:
        return "\n".join(
            f"{name:<14}{words}"
            for name, words in (
                ("best warm-up", self._length_words()),
                ("tuned", self._tuned_words()),
                ("exact stage", self._exact_words()),
                ("predicted", self._predicted_words()),
                ("checked", self._check_words()),
            )
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = (line.split("  ", 1) for line in str(self).splitlines())
        return facts_html("Assessment", ((name, words.strip()) for name, words in lines))

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the excess over P_ref and its parts against the warm-up length.

        Returns
        -------
        matplotlib Axes
        """
        axes, lengths = axes_or_new(axes), self.table["warmup"].values
        excess = self.table["objective"].values - self.reference
        kept = np.where(np.isfinite(excess), excess, np.nan)
        axes.plot(lengths, kept, "k-", label="measured")
        if self.predicted is not None:
            away = self.predicted["objective"].values - self.reference
            axes.plot(self.predicted["warmup"].values, away, "k.", markersize=2, label="predicted")
        for name in PARTS:
            axes.plot(lengths, self.table[name].values, linewidth=1.0, label=name.replace("_", " "))
        if self.warmup_star is not None:
            axes.axvline(self.warmup_star, color="grey", linestyle="--", label="T*")
        shown = kept[kept > 0.0]
        if shown.size:
            axes.set(yscale="log", ylim=(0.1 * shown.min(), 2.0 * shown.max()))
        axes.set(xlabel="warm-up length T (rounds)", ylabel="F − P_ref (loss)")
        axes.legend()
        return axes

    def _excess(self, objective: float) -> str:
        return f"{objective - self.reference:.3g}" if np.isfinite(objective) else "diverged"

    def _length_words(self) -> str:
        rounds = int(self.table.attrs["rounds"])
        if self.warmup_star is None or self.plateau is None:
            return (
                f"none of R = {rounds} rounds: every length diverges at this step; lower local_lr"
            )
        low, high = self.plateau
        after = self.table["stable"].values & np.isfinite(self.table["objective"].values)
        last = int(self.table["warmup"].values[np.flatnonzero(after)[-1]])
        if not has_tradeoff(self.table):
            kind = "no trade-off: freezing earlier saves nothing"
        elif last > self.warmup_star:
            kind = f"plateau {low} to {high}"
        elif last > 0:
            kind = "the longest that does not diverge; lower local_lr"
        else:
            kind = "every longer warm-up diverges; lower local_lr"
        never = self._excess(self.objective_never)
        return (
            f"T* = {self.warmup_star} of R = {rounds} ({kind}): excess "
            f"{self._excess(self.objective_star)}, never frozen {never}"
        )

    def _tuned_words(self) -> str:
        if self.tuned is None:
            return "not compared: the time budget was used up"
        frozen, average = self.tuned.best("fed_frozen"), self.tuned.best("fed_avg")
        return (
            f"{self._excess(float(frozen.objective[0]))} by FedFrozen (η = {frozen.local_lr:.3g}, "
            f"T = {frozen.warmup[0]}), {self._excess(float(average.objective[0]))} by FedAvg "
            f"(η = {average.local_lr:.3g}): freezing {self._saved('fed_frozen')}"
        )

    def _exact_words(self) -> str:
        if self.tuned is None:
            return "not compared: the time budget was used up"
        exact = self.tuned.best("fed_frozen_exact")
        return (
            f"{self._excess(float(exact.objective[0]))} by one exact value round after "
            f"T = {exact.warmup[0]} (η = {exact.local_lr:.3g}): {self._saved('fed_frozen_exact')}"
        )

    def _saved(self, method: str) -> str:
        """What a method saves of FedAvg's excess, each at its best step."""
        assert self.tuned is not None
        other, average = (
            float(self.tuned.best(name).objective[0]) - self.reference
            for name in (method, "fed_avg")
        )
        if not np.isfinite(average):
            return "avoids the divergence of FedAvg" if np.isfinite(other) else "diverges, too"
        share = (average - other) / average if average > 0.0 else 0.0
        if abs(share) < 0.005:
            return "saves nothing"
        return f"{'saves' if share > 0.0 else 'costs'} {abs(share):.0%} of FedAvg's excess"

    def _predicted_words(self) -> str:
        if self.predicted is None:
            return "not predicted: the prediction is of full batches, all clients and one step size"
        held = self.predicted.attrs
        if held["warmup_star"] is None:
            return "every length diverges"
        regret = self.predicted_regret
        cost = "" if np.isnan(regret) else f", relative regret {regret:.2g}"
        trust = "" if held["trusted"] else f"; not trusted: {held['reason']}"
        count = held["num_impulses"]
        measured = f"{count} impulse{'s' if count != 1 else ''}"
        return f"T̂ = {held['warmup_star']} from {measured}{cost}{trust}"

    def _check_words(self) -> str:
        compared = [check for check in self.checks if check.holds is not None]
        good = sum(bool(check.holds) for check in compared)
        failed = ", ".join(check.claim for check in compared if not check.holds)
        names = ", ".join(check.claim for check in compared)
        verdict = f"VIOLATED: {failed}" if failed else (names or "nothing was compared")
        known = "certified optimal" if self.certified else "best known"
        apart = len(self.checks) - len(compared)
        rest = f", {apart} not compared" if apart else ""
        return (
            f"{good} of {len(compared)} hold ({verdict}){rest}; P_ref {self.reference:.6g} {known}"
        )


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
        Seconds after which the tuned comparison is left out.
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
    positive_int("rounds", rounds)
    if time_budget is not None:
        real("time_budget", time_budget, above=0.0)
    start = initial_params(problem, seed=seed) if params is None else params
    found = reference
    if found is None:
        found = reference_value(problem, like=start, num_starts=num_starts, seed=seed)
    asked = default_grid(rounds) if warmup_lengths is None else warmup_lengths
    lengths = sorted({0, rounds, *asked})
    settings: dict[str, Any] = {"local_steps": local_steps, "local_lr": local_lr}
    draws: dict[str, Any] = {
        "participation": participation, "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    warm = run(
        fed_avg(),
        problem,
        start,
        rounds=rounds,
        record_params=True,
        metrics=(),
        **settings,
        **draws,
    )
    path = [*warm.path, *[_lost(start)] * (rounds + 1 - len(warm.path))]
    common: dict[str, Any] = {
        "rounds": rounds, "warmup_lengths": lengths, "frozen_lr": frozen_lr, "reference": found,
    }  # fmt: skip
    table = bias_drift(problem, start, path=path, **settings, **draws, **common)
    exact = participation == 1.0 and batch_size is None
    predicted = predict_trade_off(problem, start, **settings, **common) if exact else None
    best = table.attrs["warmup_star"]
    checks = _checks(problem, table, path, settings, frozen_lr=frozen_lr, exact=exact, draws=draws)
    if isinstance(found, Reference) and found.lower_bound is not None:
        checks.append(_check_reference(found))
    tuned = None
    if time_budget is None or perf_counter() - began < time_budget:
        left = None if time_budget is None else time_budget - (perf_counter() - began)
        tuned = _tuned(problem, start, rounds, settings, draws, frozen_lr=frozen_lr, seconds=left)
    objective = table["objective"]
    return Assessment(
        best,
        None if best is None else plateau(objective.values, table["warmup"].values),
        float("nan") if best is None else float(objective.sel(warmup=best)),
        float(objective.sel(warmup=rounds)),
        float(objective.sel(warmup=0)),
        {} if best is None else {n: float(table[n].sel(warmup=best)) for n in _named(table)},
        float(table.attrs["reference"]),
        bool(table.attrs["certified"]),
        predicted,
        tuned,
        checks,
        table,
        lambda: _more(problem, start, rounds, settings, draws, frozen_lr),
    )


def _lost(like: Params) -> Params:
    return Params(like.layout, np.full(like.flat.size, np.nan))


def _named(table: xr.Dataset) -> list[str]:
    """The parts of C9 that a table has."""
    return [*PARTS, *(["value_noise"] if float(np.nansum(table["value_noise"])) else [])]


def _tuned(
    problem: Problem,
    start: Params,
    rounds: int,
    settings: dict[str, Any],
    draws: dict[str, Any],
    *,
    frozen_lr: float | str | None,
    seconds: float | None,
) -> Study | None:
    """The comparison at the best steps, with more steps until both are interior."""
    began = perf_counter()
    step, factors = float(settings["local_lr"]), list(FACTORS)
    grid = np.unique(np.linspace(0, len(default_grid(rounds)) - 1, LENGTHS).astype(int))
    lengths = [default_grid(rounds)[k] for k in grid]
    found = None
    for _ in range(EXTENSIONS + 1):
        if seconds is not None and perf_counter() - began > seconds:
            return found
        found = study_in_memory(
            problem,
            start,
            methods=("fed_avg", "fed_frozen", "fed_frozen_exact"),
            local_lrs=[factor * step for factor in factors],
            local_steps=settings["local_steps"],
            rounds=rounds,
            warmup_lengths=lengths,
            participation=draws["participation"],
            batch_size=draws["batch_size"],
            frozen_lr=frozen_lr,
            seeds=[draws["seed"]],
        )
        chosen = [found.best(name).local_lr / step for name in found.methods]
        below = [factors[0] / 4.0, factors[0] / 2.0] if min(chosen) <= factors[0] * 1.01 else []
        above = [factors[-1] * 2.0, factors[-1] * 4.0] if max(chosen) >= factors[-1] * 0.99 else []
        if not below and not above:
            break
        factors = [*below, *factors, *above]
    return found


def _checks(
    problem: Problem,
    table: xr.Dataset,
    path: Sequence[Params],
    settings: dict[str, Any],
    *,
    frozen_lr: float | str | None,
    exact: bool,
    draws: dict[str, Any],
) -> list[Check]:
    """C9, C7 (full batches and participation) and C4."""
    best, rounds = table.attrs["warmup_star"], int(table.attrs["rounds"])
    found = [_check_certificate(problem, path[0], min(rounds, CERTIFICATE_ROUNDS), settings, draws)]
    if best is None:
        return found
    if exact:
        found.insert(0, _check_frozen_stage(problem, path[best], table, settings, frozen_lr))
    return [_check_decomposition(table, best), *found]


def _check_decomposition(table: xr.Dataset, best: int) -> Check:
    row = table.sel(warmup=best)
    parts = [float(row[name]) for name in (*PARTS, "value_noise")]
    predicted = float(table.attrs["reference"]) + sum(parts)
    measured = float(row["objective"])
    scale = abs(measured) + sum(map(abs, parts))
    holds = abs(measured - predicted) <= IDENTITY_BUDGET * scale
    return Check("C9", "loss = reference + bias + drift parts", measured, predicted, holds)


def _check_frozen_stage(
    problem: Problem,
    reached: Params,
    table: xr.Dataset,
    settings: dict[str, Any],
    frozen_lr: float | str | None,
) -> Check:
    """The frozen rounds after T* by explicit local steps; nothing to compare if there are none."""
    best, rounds = table.attrs["warmup_star"], int(table.attrs["rounds"])
    predicted = float(table["objective"].sel(warmup=best))
    statement = "simulated rounds = closed form"
    if best == rounds:
        return Check("C7", statement, float("nan"), predicted, None)
    method = fed_frozen(warmup_rounds=best, frozen_lr=frozen_lr)
    ended = run(
        method,
        problem,
        reached,
        rounds=rounds,
        start_round=best,
        metrics=("objective",),
        **settings,
    )
    measured = float(ended.columns["objective"][-1])
    holds = abs(measured - predicted) <= IDENTITY_BUDGET * abs(predicted)
    return Check("C7", statement, measured, predicted, holds)


def _check_certificate(
    problem: Problem,
    start: Params,
    rounds: int,
    settings: dict[str, Any],
    draws: dict[str, Any],
) -> Check:
    certificate = descent_certificate(problem, start, rounds=rounds, **settings, **draws)
    profile = certificate["profile"].values
    t = int(np.argmin(profile))
    loose = looseness(certificate)
    note = "" if np.isnan(loose) else f", looseness {loose:.2g}"
    whole = certificate.attrs["diverged_round"] is None and len(profile) > 1
    return Check(
        "C4",
        f"profile below certificate{note}",
        float(profile[t]),
        float(certificate["certificate"].values[t]),
        int(certificate["violations"].sum()) == 0 if whole else None,
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


def _more(
    problem: Problem,
    start: Params,
    rounds: int,
    settings: dict[str, Any],
    draws: dict[str, Any],
    frozen_lr: float | str | None,
) -> dict[str, Any]:
    """The certificate of the whole warm-up, and where every freeze rule stops with which loss."""
    rules = {}
    for name in RULES:
        method = fed_frozen(warmup_rounds=freeze_rule(name), frozen_lr=frozen_lr)
        ended = run(method, problem, start, rounds=rounds, metrics=(), **settings, **draws)
        done = ended.outcome.status == "completed"
        objective = Joint(problem).value(ended.params) if done else float("inf")
        rules[name] = (rounds if ended.freeze_round is None else ended.freeze_round, objective)
    certificate = descent_certificate(problem, start, rounds=rounds, **settings, **draws)
    return {"certificate": certificate, "rules": rules}
