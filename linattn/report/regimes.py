"""Regimes of the trade-off in figures: worlds, drift numbers, warm-up time, the best length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.canvas import Axis
from linattn.report.groups import Group, field, groups
from linattn.report.words import in_words

TIME = Axis("warm-up time ηET (1/curvature)", low=0.0)
PAIR = ("local_lr", "local_steps")
DRIFTS = (0.0, 0.05, 0.1, 0.2)
"""Drift numbers that are shown where there are many."""
HORIZON = 60.0
"""Of the regimes; runs beyond it are about what is unstable."""


def worlds(results: Sequence[Result]) -> list[Group]:
    """Return the worlds, each with all its (η, E)."""
    return groups(results, *PAIR)


def tame_worlds(results: Sequence[Result]) -> list[Group]:
    """Return the worlds of the regimes, without runs that are about what is unstable."""
    return worlds([result for result in results if field(result, "horizon") <= HORIZON])


def drift(part: Group) -> float:
    """The drift number s = η(E − 1)/2 of a part with one (η, E), rounded because E is."""
    step, count = (part.fields[name] for name in PAIR)
    return float(round(0.5 * step * (count - 1), 4))


def by_drift(world: Group, chosen: Sequence[float] = DRIFTS) -> list[tuple[float, Group]]:
    """Return one part of a world for every drift number, that of the largest η.

    Parameters
    ----------
    chosen : sequence of float
        Drift numbers to keep, where the world has some of them.
    """
    found = {drift(part): part for part in world.split(*PAIR)}  # η rises
    kept = {s: part for s, part in found.items() if any(abs(s - c) < 1e-3 for c in chosen)}
    return sorted((kept or found).items(), key=lambda item: item[0])


def time(part: Group, along: str = "warmup") -> Array:
    """τ = ηET of warm-up lengths."""
    step, count = (part.fields[name] for name in PAIR)
    return np.asarray(step * count * part.coordinate(along))


def excess(part: Group, name: str = "objective") -> Array:
    """A loss above the reference value of its seed, (S, …)."""
    values = part.values(name)
    reference = part.values("reference").reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values - reference)


def saved(part: Group) -> Array:
    """Excess at T* over that of never freezing, (S,): 1 where freezing gains nothing."""
    above = excess(part)
    return np.asarray(above.min(axis=1) / above[:, -1])


def tradeoffs(parts: Sequence[Group]) -> str:
    """Return in how many runs of how many freezing before the end is best, in words."""
    inside = [held for part in parts for held in part.values("tradeoff") > 0]
    return f"{sum(inside)} of {len(inside)}"


def with_tradeoff(values: Array, words: str) -> str:
    """Return words about runs with a trade-off, or that there is none.

    Parameters
    ----------
    values : array, shape (N,)
        A quantity of these runs alone.
    words : str
        The first ``{}`` becomes the values in words, the second their number.
    """
    return words.format(in_words(values), values.size) if values.size else "no run has a trade-off"


def star_in_words(part: Group) -> str:
    """Return T* in rounds with its quantiles, and in how many seeds it is neither 0 nor R."""
    stars = part.values("warmup_star")
    known = stars[stars >= 0]
    last = part.coordinate("warmup")[-1]
    inside = int(((known > 0) & (known < last)).sum())
    if not inside:
        return f"no interior T* (R = {last:g})"
    return f"T* = {in_words(known, whole=True)} of {last:g}, interior in {inside} of {stars.size}"
