"""Numbers over seeds in words, and whether a claim was reproduced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from linattn._typing import Array
from linattn.analysis.study import bootstrapped

T = TypeVar("T")
QUANTILES = (0.1, 0.9)
"""Ends of every band over seeds."""
OF_SEEDS = "median, 10–90 % of seeds"
OF_RUNS = "median, 10–90 % of runs"
"""What `in_words` says of values by seed, or of runs of several settings."""
OF_BOOTSTRAP = "median, 10–90 % interval of its bootstrap over seeds"
"""What `paired` says."""
SHARE = 0.9
"""Share of seeds in which a claim must hold, the upper end of the bands."""
HUGE = 1e300
DIVERGED = 1e30
LARGE = 2.0 * float(np.log(DIVERGED))
"""Of the logarithm of a ratio without bound."""
ROUNDING = 1e-9


def spread(values: ArrayLike) -> tuple[Any, tuple[Any, Any]]:
    """Return median and band over seeds, where +inf (unstable, diverged) is worse than anything.

    A median or a quantile that falls on an unstable seed is +inf.

    Examples
    --------
    >>> middle, (low, high) = spread([1.0, 2.0, float("inf")])
    >>> float(middle), round(float(low), 3), float(high)
    (2.0, 1.2, inf)
    """
    array = np.nan_to_num(np.asarray(values, dtype=float), nan=np.nan, posinf=HUGE)
    low, middle, high = np.quantile(array, (QUANTILES[0], 0.5, QUANTILES[1]), axis=0)
    lifted = [np.where(edge > HUGE**0.5, np.inf, edge) for edge in (middle, low, high)]
    return lifted[0], (lifted[1], lifted[2])


def in_words(
    values: ArrayLike, *, digits: int = 3, percent: bool = False, whole: bool = False
) -> str:
    """Return ``median (low to high)``, or the value alone if there is one; below 1e-9 is 0.

    Counts are `whole` numbers, though quantiles may lie between them; no values are undefined.

    Examples
    --------
    >>> in_words([0.1, 0.2, 0.3], percent=True)
    '20 % (12 to 28 %)'
    >>> in_words([14.0]), in_words([14.0, 15.0, 21.0], whole=True)
    ('14', '15 (14 to 20)')
    """
    array = np.atleast_1d(np.asarray(values, dtype=float))
    if not array.size:
        return "undefined"
    array = np.where(np.abs(array) < ROUNDING, 0.0, array)
    middle, (low, high) = spread(100.0 * array if percent else array)
    if whole:
        middle, low, high = np.round([middle, low, high])
    unit = " %" if percent else ""
    first, *ends = (number(edge, digits) for edge in (middle, low, high))
    alone = array.size == 1 or ends[0] == ends[1]
    return f"{first}{unit}" if alone else f"{first}{unit} ({ends[0]} to {ends[1]}{unit})"


def paired(ratios: ArrayLike) -> str:
    """Return the median of paired ratios with its bootstrap interval, and how many are below 1.

    +inf and unknown ratios are worse than anything.

    Examples
    --------
    >>> paired([0.5, 0.5, 0.5]), paired([2.0])
    ('0.5 [0.5, 0.5], below 1 in 3 of 3', '2, below 1 in 0 of 1')
    """
    array = bounded(np.atleast_1d(np.asarray(ratios, dtype=float)))
    with np.errstate(divide="ignore"):
        logs = np.clip(np.log(array), -LARGE, LARGE)
    ends = ", ".join(number(float(bounded(np.exp(end)))) for end in bootstrapped(logs))
    interval = f" [{ends}]" if array.size > 1 else ""
    below = int((array < 1.0).sum())
    return f"{number(float(np.median(array)))}{interval}, below 1 in {below} of {array.size}"


def number(value: float, digits: int = 3) -> str:
    """Return a number with a few digits, without an exponent where it can be read without.

    Examples
    --------
    >>> number(163.4), number(0.01234), number(float("inf"))
    ('163', '0.0123', '∞')
    """
    if not np.isfinite(value):
        return "∞" if value > 0 else "undefined"
    whole = abs(value) >= 10 ** (digits - 1) and abs(value) < 1e6
    return f"{value:.0f}" if whole else f"{value:.{digits}g}"


def reproduced(hits: Sequence[bool], what: str = "world") -> str:
    """Say whether a claim was reproduced, from one truth value per case.

    Examples
    --------
    >>> reproduced([True, True]), reproduced([False]), reproduced([True, False], "setting")
    ('reproduced in both worlds', 'not reproduced', 'reproduced in 1 of 2 settings')
    """
    yes, count = sum(map(bool, hits)), len(hits)
    if not count:
        return "not tested"
    if yes == 0:
        return "not reproduced" + ("" if count == 1 else f" in any of {count} {what}s")
    if yes < count:
        return f"reproduced in {yes} of {count} {what}s"
    ends = {1: "", 2: f" in both {what}s"}
    return "reproduced" + ends.get(count, f" in all {count} {what}s")


def bounded(values: ArrayLike) -> Array:
    """Return values with +inf for what has diverged but has not overflowed yet, or is unknown."""
    array = np.asarray(values, dtype=float)
    return np.where(~(np.abs(array) <= DIVERGED), np.inf, array)


def mostly(seeds: ArrayLike) -> bool:
    """Whether something is true in at least nine of ten seeds.

    Examples
    --------
    >>> mostly([True] * 9 + [False]), mostly([True, False])
    (True, False)
    """
    return bool(np.mean(np.asarray(seeds, dtype=bool)) >= SHARE - 1e-12)


def pages(found: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Return the items in runs of at most `size`."""
    for first in range(0, len(found), size):
        yield found[first : first + size]


def page_name(name: str, number: int) -> str:
    """Stem of the files of page `number`, counted from 0."""
    return name if number == 0 else f"{name}_{number + 1}"
