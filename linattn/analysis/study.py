"""Tuned comparisons: every method at its best step, for one budget, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Required, TypedDict, Unpack

import numpy as np

from linattn._checks import is_listing, listing, positive_int, real
from linattn._display import axes_or_new, table_html
from linattn._typing import Array
from linattn.analysis.budget import Budget, one_budget
from linattn.analysis.study_cell import (
    WITH_LENGTHS,
    Cell,
    Setting,
    Warmup,
    method_map,
    simulated_warmup,
    study_cell,
)
from linattn.federated.method import Method
from linattn.objectives.joint import check_fits
from linattn.objectives.steps import check_frozen_lr
from linattn.streams import stream
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

PLATEAU = 0.02
"""Lengths within this share of the stake are as good as the best one."""
DRAWS = 1000
QUANTILES = (0.1, 0.9)
FEW_SEEDS = 5
"""Below so many seeds an interval over them says nothing."""

Problems = Problem | Callable[[int], Problem]
Starts = Params | Callable[[int], Params]


class Best(NamedTuple):
    """A method at its best step.

    Attributes
    ----------
    method : str
    local_lr : float
        η with the smallest median over seeds of the loss at the best length.
    local_steps : int
    interior : bool
        Whether η is neither the smallest nor the largest tried at this E.
    warmup : array of int, shape (S,)
        T* of every seed.
    plateau : array of int, shape (S, 2)
        Smallest and largest length, around T*, within 2 % of the stake.
    objective : array, shape (S,)
        Loss at T*, units of the loss; +inf where the method diverges at every step.
    """

    method: str
    local_lr: float
    local_steps: int
    interior: bool
    warmup: Array
    plateau: Array
    objective: Array


class Comparison(NamedTuple):
    """Two methods, each at its best step, paired over seeds.

    Attributes
    ----------
    first, second : Best
    differences : array, shape (S,)
        Loss of the first minus that of the second, by seed.
    median, low, high : float
        Median with the 10–90 % interval of its bootstrap; equal where seeds vary nothing.
    wins : int
        Seeds in which the first is lower.
    """

    first: Best
    second: Best
    differences: Array
    median: float
    low: float
    high: float
    wins: int

    def __str__(self) -> str:
        count = len(self.differences)
        interval = (
            f" ({self.low:.3g} to {self.high:.3g})"
            if count >= FEW_SEEDS
            else f" ({count} seed{'s' * (count > 1)}: no interval)"
        )
        return (
            f"{self.first.method} − {self.second.method} = {self.median:.3g}{interval}, lower in "
            f"{self.wins} of {count}"
        )


@dataclass(frozen=True)
class Study:
    """What `study` found.

    Attributes
    ----------
    table : xarray.Dataset
        ``objective`` and ``rounds`` over `method`, `local_steps`, `local_lr`, `seed`, `warmup`;
        NaN where a method has no such length (one without lengths has the largest), an objective
        of +inf where a run diverges or the budget does not reach. Select a method by
        ``.sel({"method": name})``: the keyword ``method`` of ``sel`` is xarray's own.
    budget : Budget
    cut : tuple of str
        What the time budget left out, in sentences.
    """

    table: xr.Dataset
    budget: Budget
    cut: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        """Names of the methods."""
        return [str(name) for name in self.table["method"].values]

    def losses(self, method: str) -> Array:
        """Loss of a method by (E, η, seed, T); NaN where there is no such length."""
        if method not in self.methods:
            raise ValueError(f"method must be one of {', '.join(self.methods)}, got {method!r}.")
        return np.asarray(self.table["objective"].values[self.methods.index(method)])

    def best(self, method: str) -> Best:
        """Return a method at its own best step for this budget.

        Raises
        ------
        ValueError
            If the study has no such method.
        """
        losses, lengths = self.losses(method), self.table["warmup"].values
        medians = np.median(_at_best(losses), axis=-1)
        e, k = np.unravel_index(int(np.argmin(medians)), medians.shape)
        chosen = losses[e, k]
        return Best(
            method,
            float(self.table["local_lr"].values[k]),
            int(self.table["local_steps"].values[e]),
            bool(0 < k < losses.shape[1] - 1),
            lengths[np.nan_to_num(chosen, nan=np.inf).argmin(axis=-1)],  # a known one of inf
            np.array([plateau(row, lengths) for row in chosen]),
            _at_best(chosen),
        )

    def compare(self, first: str, second: str) -> Comparison:
        """Return the paired differences of two methods, each at its best step.

        Notes
        -----
        Source: Seeds (median of paired differences, bootstrap of the stream (0, "bootstrap",
        number of seeds)).
        """
        one, two = self.best(first), self.best(second)
        apart = one.objective - two.objective
        low, high = bootstrapped(apart)
        wins = int((apart < 0.0).sum())
        return Comparison(one, two, apart, float(np.median(apart)), low, high, wins)

    def __str__(self) -> str:
        seeds = self.table.sizes["seed"]
        lines = [f"study for {self.budget}, {seeds} seed{'s' * (seeds > 1)}, each at its best step"]
        for name in self.methods:
            best = self.best(name)
            edge = (
                "" if best.interior or self.table.sizes["local_lr"] < 3 else " (edge of the grid)"
            )
            several = np.isfinite(self.losses(name)).any(axis=(0, 1, 2)).sum() > 1
            lines.append(
                f"  {name:<18} {np.median(best.objective):.6g} at η = {best.local_lr:.3g}{edge}, "
                f"E = {best.local_steps}{_lengths_in_words(best) if several else ''}"
            )
        return "\n".join([*lines, *self.cut])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (b.method, float(np.median(b.objective)), f"{b.local_lr:.3g}", b.local_steps,
             f"{np.median(b.warmup):g}")
            for b in map(self.best, self.methods)
        ]  # fmt: skip
        return table_html(("method", "loss", "η", "E", "T*"), rows, caption=str(self.budget))

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the loss at the best length against the step size, one line per method and E.

        Returns
        -------
        matplotlib Axes
        """
        axes = axes_or_new(axes)
        steps = self.table["local_lr"].values
        for name in self.methods:
            medians = np.median(_at_best(self.losses(name)), axis=-1)
            for count, shown in zip(self.table["local_steps"].values, medians, strict=True):
                label = name if len(medians) == 1 else f"{name}, E = {count}"
                kept = np.where(np.isfinite(shown), shown, np.nan)
                axes.plot(steps, kept, marker="o", markersize=3, label=label)
        axes.set(xscale="log", yscale="log", xlabel="local step η", ylabel="loss at the best T")
        axes.legend()
        return axes


def _at_best(losses: Array) -> Array:
    """The smallest losses over warm-up lengths, the last axis; +inf where there is none."""
    return np.asarray(np.nan_to_num(losses, nan=np.inf, posinf=np.inf).min(axis=-1))


def _lengths_in_words(best: Best) -> str:
    low, high = best.plateau[:, 0].min(), best.plateau[:, 1].max()
    return f", T* = {np.median(best.warmup):g} (plateau {low} to {high})"


def plateau(losses: Array, lengths: Array) -> tuple[int, int]:
    """Return the smallest and largest length around T* within 2 % of the stake.

    The stake is the loss of the largest length minus that of the best one.

    Parameters
    ----------
    losses : array, shape (L,)
        NaN where there is no such length.
    lengths : array of int, shape (L,)

    Examples
    --------
    >>> plateau(np.array([9.0, 1.0, 1.01, 2.0]), np.arange(4))
    (1, 2)
    """
    known = np.flatnonzero(~np.isnan(losses))
    values = np.where(np.isfinite(losses[known]), losses[known], np.inf)
    at = int(np.argmin(values))
    if not np.isfinite(values[at]):
        return int(lengths[known[0]]), int(lengths[known[-1]])
    stake = values[-1] - values[at]
    slack = PLATEAU * stake if np.isfinite(stake) else PLATEAU * abs(values[at])
    worse = np.flatnonzero(values > values[at] + slack)
    low = worse[worse < at].max(initial=-1) + 1
    high = worse[worse > at].min(initial=len(values)) - 1
    return int(lengths[known[low]]), int(lengths[known[high]])


def bootstrapped(differences: Array) -> tuple[float, float]:
    """Return the 10–90 % interval of the bootstrapped median of paired differences."""
    count = len(differences)
    drawn = stream(0, "bootstrap", count).integers(0, count, size=(DRAWS, count))
    low, high = np.quantile(np.median(differences[drawn], axis=1), QUANTILES)
    return float(low), float(high)


class StudySettings(TypedDict, total=False):
    """Keyword arguments of `linattn.study` that are the same wherever it is computed."""

    local_lrs: Required[Sequence[float]]
    local_steps: Required[int | Sequence[int]]
    warmup_lengths: Sequence[int] | None
    participation: float
    frozen_participation: float | None
    batch_size: int | None
    frozen_lr: float | str | None
    seeds: Iterable[int]


def study_in_memory(
    problem: Problems,
    params: Starts,
    *,
    methods: Sequence[str | Method],
    rounds: int | None = None,
    floats: float | None = None,
    multiply_adds: float | None = None,
    time_budget: float | None = None,
    observe: Callable[[int, int], None] | None = None,
    warmup: Warmup = simulated_warmup,
    **settings: Unpack[StudySettings],
) -> Study:
    """Return the study of `linattn.study`, computed in this process; `warmup` makes the paths."""
    began = perf_counter()
    budget = one_budget(rounds, floats, multiply_adds)
    setting, steps, counts, every = checked(methods, budget, **settings)
    order = cells_in_order(steps, counts, every)
    found: dict[tuple[int, float, int], Cell] = {}
    for done, (count, step, seed) in enumerate(order):
        if time_budget is not None and done and perf_counter() - began > time_budget:
            break
        held, start = at_seed(problem, params, seed)
        found[count, step, seed] = study_cell(
            held, start, setting, local_steps=count, local_lr=step, seed=seed, warmup=warmup
        )
        if observe is not None:
            observe(done + 1, len(order))
    return assembled(found, setting, steps=steps, counts=counts, seeds=every)


def checked(
    methods: Sequence[str | Method],
    budget: Budget,
    *,
    local_lrs: Sequence[float],
    local_steps: int | Sequence[int],
    warmup_lengths: Sequence[int] | None = None,
    participation: float = 1.0,
    frozen_participation: float | None = None,
    batch_size: int | None = None,
    frozen_lr: float | str | None = None,
    seeds: Iterable[int] = range(1),
) -> tuple[Setting, list[float], list[int], list[int]]:
    """Validate the arguments of a study; return setting, steps, numbers of local steps, seeds."""
    check_frozen_lr(frozen_lr)
    share = real("participation", participation, above=0.0, maximum=1.0)
    frozen = share if frozen_participation is None else frozen_participation
    counts = listing("local_steps", local_steps) if is_listing(local_steps) else [local_steps]
    lengths = None
    if warmup_lengths is not None:
        lengths = tuple(
            sorted({positive_int("warmup_lengths", t, minimum=0) for t in warmup_lengths})
        )
    setting = Setting(
        method_map(methods),
        budget,
        lengths,
        share,
        real("frozen_participation", frozen, above=0.0, maximum=1.0),
        None if batch_size is None else positive_int("batch_size", batch_size),
        frozen_lr,
    )
    steps = sorted({real("local_lrs", step, above=0.0) for step in local_lrs})
    every = sorted({positive_int("seeds", seed, minimum=0, maximum=None) for seed in seeds})
    tidy = sorted({positive_int("local_steps", count) for count in counts})
    for name, values in (("local_lrs", steps), ("local_steps", tidy), ("seeds", every)):
        if not values:
            raise ValueError(f"{name} must not be empty.")
    return setting, steps, tidy, every


def cells_in_order(
    steps: Sequence[float], counts: Sequence[int], seeds: Sequence[int]
) -> list[tuple[int, float, int]]:
    """All cells, what matters most first: seed by seed, the steps from the middle outwards."""
    middle = (len(steps) - 1) / 2
    places = sorted(range(len(steps)), key=lambda k: (abs(k - middle), k))
    return [(count, steps[k], seed) for seed in seeds for k in places for count in counts]


def at_seed(problem: Problems, params: Starts, seed: int) -> tuple[Problem, Params]:
    """The problem and the start of a seed."""
    held = problem(seed) if callable(problem) else problem
    start = params(seed) if callable(params) else params
    check_fits(held, start)
    return held, start


def assembled(
    found: dict[tuple[int, float, int], Cell],
    setting: Setting,
    *,
    steps: Sequence[float],
    counts: Sequence[int],
    seeds: Sequence[int],
) -> Study:
    """The cells as one table; seeds that were not finished are cut."""
    import xarray as xr

    whole = [s for s in seeds if all((e, k, s) in found for e in counts for k in steps)]
    kept_seeds = whole or list(seeds[:1])
    kept_steps = [k for k in steps if all((e, k, s) in found for e in counts for s in kept_seeds)]
    lengths = sorted({t for cell in found.values() for t in cell.lengths})
    names = list(setting.methods)
    shape = (len(names), len(counts), len(kept_steps), len(kept_seeds), len(lengths))
    losses, rounds = np.full(shape, np.nan), np.full(shape, np.nan)
    cells = product(enumerate(counts), enumerate(kept_steps), enumerate(kept_seeds))
    for (a, count), (b, step), (c, seed) in cells:
        cell = found[count, step, seed]
        places = np.searchsorted(lengths, cell.lengths)
        for m, name in enumerate(names):
            known = slice(None) if name in WITH_LENGTHS else slice(-1, None)
            losses[m, a, b, c, places[known]] = cell.objective[name][known]
            rounds[m, a, b, c, places[known]] = cell.rounds[name][known]
    dims = ("method", "local_steps", "local_lr", "seed", "warmup")
    table = xr.Dataset(
        {
            "objective": (dims, losses, {"units": "loss"}),
            "rounds": (dims, rounds, {"units": "rounds"}),
        },
        {
            "method": names,
            "local_steps": list(counts),
            "local_lr": ("local_lr", kept_steps, {"units": "1/curvature"}),
            "seed": kept_seeds,
            "warmup": lengths,
        },
    )
    cut = []
    if len(kept_seeds) < len(seeds):
        cut.append(f"time cut {len(seeds) - len(kept_seeds)} of {len(seeds)} seeds.")
    if len(kept_steps) < len(steps):
        cut.append(f"time cut {len(steps) - len(kept_steps)} of {len(steps)} step sizes.")
    return Study(table, setting.budget, tuple(cut))
