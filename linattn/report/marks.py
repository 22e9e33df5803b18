"""Marks that the figures of simulations share: axes of rounds, T*, numbers in words, named rows.

What is drawn here is recorded in the CSV of the sheet as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from linattn._typing import Array
from linattn.report.groups import Group
from linattn.report.style import BAND, LOOKS, Look, Sheet
from linattn.report.words import in_words, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = (0, 1, 10, 100, 1000, 10000)
WARMUP = "warm-up length T (rounds)"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
DIVERGED = 1e30
SQUEEZE = 0.35
"""Height of a decade below 0, relative to one above."""


# Terms of a descent step, in colours of Tol that no method has.
TERMS = {
    "paid": Look("paid", "#332288"),
    "tracking": Look("tracking", "#CC6677", "--"),
    "drift": Look("drift", "#661100", "-."),
    "cross": Look("cross term", "#999933", ":"),
    "step": Look("step", "#44AA99", (0, (5, 1, 1, 1, 1, 1))),
    "resolve": Look("re-solve", "#6699CC", ":"),
}


def panel(
    drawn: Sheet,
    axes: Axes,
    title: str,
    *,
    x: str,
    y: str,
    below: str = "",
    wrap: int = 40,
    outer: bool = True,
) -> None:
    """Name a panel as `Sheet.panel` does: a long title in lines, with a result below it."""
    drawn.panel(axes, title, x=x, y=y, outer=outer)
    kept = title.replace("E = ", "E\u00a0=\u00a0")  # not broken there
    lines = [*textwrap.wrap(kept, wrap), *textwrap.wrap(below, wrap + 6)]
    axes.set_title("\n".join(lines), fontsize=7)


def caption(drawn: Sheet, words: str) -> None:
    """Write a caption above all panels."""
    drawn.figure.suptitle("\n".join(textwrap.wrap(words.replace(" %", "\u00a0%"), 118)), fontsize=8)


def rounds_axis(axes: Axes, last: float) -> None:
    """Make x a logarithmic axis of rounds that shows 0 as well."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("symlog", linthresh=1.0, linscale=0.5)
    ticks = [t for t in TICKS if t <= last]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-0.15, last * 1.15)


def signed_log_axis(
    axes: Axes, low: float, high: float, *, threshold: float, upright: bool = True
) -> None:
    """Make an axis logarithmic in 1 + |value|/threshold, 0 shown, the negative side squeezed."""
    from matplotlib.ticker import NullLocator

    name = "y" if upright else "x"
    scale, limits, ticks, axis = (
        getattr(axes, part)
        for part in (f"set_{name}scale", f"set_{name}lim", f"set_{name}ticks", f"{name}axis")
    )

    def forward(values: ArrayLike) -> Array:
        array = np.asarray(values, dtype=float)
        scaled = np.log10(1.0 + np.abs(array) / threshold)
        return np.asarray(np.where(array < 0.0, -SQUEEZE * scaled, scaled))

    def inverse(values: ArrayLike) -> Array:
        array = np.asarray(values, dtype=float)
        grown = np.where(array < 0.0, -array / SQUEEZE, array)
        return np.asarray(np.copysign(threshold * (10.0**grown - 1.0), array))

    scale("function", functions=(forward, inverse))
    top, bottom = max(high, 20.0 * threshold), min(low, 0.0)
    decades = 10.0 ** np.arange(round(np.log10(threshold)) + 1, np.floor(np.log10(top)) + 1)
    shown = [0.0, *decades[:: 1 + (len(decades) - 1) // 5]]
    if bottom < -300.0 * threshold:
        shown.append(-(10.0 ** np.floor(np.log10(-bottom))))
    ticks(shown, [power(value) for value in shown])
    axis.set_minor_locator(NullLocator())
    limits(1.5 * bottom - 0.3 * threshold, 1.5 * top)


def power(value: float) -> str:
    """Return a tick label: 0, plain numbers from 0.01 to 1000, else a power of ten.

    Examples
    --------
    >>> power(-0.1), power(1e-12)
    ('−0.1', '10⁻¹²')
    """
    sign = "−" if value < 0 else ""
    if value == 0.0 or 0.01 <= abs(value) <= 1000.0:
        return f"{sign}{abs(value):g}"
    return f"{sign}10" + str(round(np.log10(abs(value)))).translate(SUPERSCRIPT)


def finite_range(arrays: Sequence[Array]) -> tuple[float, float]:
    """Smallest and largest finite number, diverged ones (far above the first entries) left out."""
    first = np.concatenate([array[..., 0].ravel() for array in arrays])
    cap = 1e3 * max(np.abs(first[np.isfinite(first)]).max(initial=0.0), 1e-3)
    every = np.concatenate([array.ravel() for array in arrays])
    kept = every[np.isfinite(every) & (np.abs(every) <= cap)]
    return float(kept.min(initial=0.0)), float(kept.max(initial=0.0))


def keep_view(axes: Axes, low: float, high: float) -> None:
    """Keep the view within limits, so that what diverges does not hide everything else."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, low), min(top, high))


def bounded(values: ArrayLike) -> Array:
    """Return values with +inf for what has diverged but has not overflowed yet."""
    array = np.asarray(values, dtype=float)
    return np.where(np.abs(array) > DIVERGED, np.inf, array)


def median_line(
    drawn: Sheet, axes: Axes, look: str | Look, x: ArrayLike, values: ArrayLike, **style: Any
) -> None:
    """Draw the median over seeds with its band; where it is unstable nothing is drawn."""
    array = bounded(values)
    middle, (low, high) = spread(array)
    known = np.isfinite(middle)
    middle = np.where(known, middle, np.nan)
    band = None
    if len(array) > 1:
        band = (np.where(known, low, np.nan), np.where(known & np.isfinite(high), high, np.nan))
    drawn.line(axes, look, x, middle, band=band, **style)


def best_length(drawn: Sheet, axes: Axes, regime: Group, local_steps: int) -> None:
    """Mark T* with its interval over seeds."""
    stars = regime.values("warmup_star", local_steps)
    stars = stars[stars >= 0]
    if stars.size:
        upright(drawn, axes, "oracle", stars, label="best length T*")


def upright(drawn: Sheet, axes: Axes, look: str | Look, values: Array, **style: Any) -> None:
    """Mark the median of rounds over seeds by an upright line, their quantiles by a band."""
    middle, (low, high) = spread(values)
    band = (float(low), float(high)) if values.size > 1 else None
    drawn.level(axes, look, float(middle), band=band, across=False, **style)


def star_in_words(regime: Group, local_steps: int, last: float) -> str:
    """Return T* of a regime with its quantiles, and in how many seeds it is neither 0 nor R."""
    stars = regime.values("warmup_star", local_steps)
    known = stars[stars >= 0]
    inside = int(((known > 0) & (known < last)).sum())
    if not known.size:
        return "no T*: nothing is stable"
    if not inside:
        return f"no interior T* (T* = {in_words(known, digits=2)})"
    share = "" if stars.size == 1 else f", interior in {inside} of {stars.size}"
    return f"T* = {in_words(known, digits=2)}{share}"


def unstable_marks(drawn: Sheet, axes: Axes, x: ArrayLike, values: ArrayLike) -> None:
    """Mark at the lower rim where some seed is unstable and so not in the median as a number."""
    lost = ~np.isfinite(bounded(values)).all(axis=0)
    if not lost.any():
        return
    across = np.asarray(x, dtype=float)[lost]
    label = "unstable for some seeds"
    axes.plot(
        across,
        np.full(across.shape, 0.04),
        "x",
        color="#D55E00",
        transform=axes.get_xaxis_transform(),
        label=label,
        clip_on=False,
    )
    for place in across:
        _note(drawn, axes, label, "rim", float(place), np.nan)


def record(drawn: Sheet, axes: Axes, series: str, values: ArrayLike) -> None:
    """Put the median and the quantiles that a panel states in words into the CSV."""
    array = np.atleast_1d(np.asarray(values, dtype=float))
    if array.size:
        middle, (low, high) = spread(array)
        _note(drawn, axes, series, "text", np.nan, float(middle), float(low), float(high), BAND)


def name_rows(drawn: Sheet, axes: Axes, names: Sequence[str], *, labels: bool) -> None:
    """Give the rows y = 0, 1, … of a panel their names, first row on top."""
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), list(names) if labels else [""] * len(names))
    axes.tick_params(axis="y", length=0)
    for row, name in enumerate(names):
        _note(drawn, axes, name, "row name", np.nan, float(row))


def sideways(
    drawn: Sheet,
    axes: Axes,
    look: str,
    row: float,
    values: ArrayLike,
    *,
    label: str | None = None,
    **style: Any,
) -> None:
    """Draw median and quantiles over seeds as a point with a bar in a named row, if finite."""
    if not np.size(values):
        return
    shown, (middle, (low, high)) = LOOKS[look], spread(values)
    if not np.isfinite(middle):
        return
    settings = {"color": shown.colour, "marker": shown.marker or "o"} | style
    alone = np.size(values) == 1 or not np.isfinite(high)
    if not alone:
        axes.hlines(row, low, high, color=settings["color"], linewidth=0.9)
    name = shown.label if label is None else label
    axes.plot([middle], [row], linestyle="", label=name, **settings)
    ends = (np.nan, np.nan, "") if alone else (float(low), float(high), f"{BAND}, along x")
    _note(drawn, axes, name, "points", float(middle), row, *ends)


def _note(
    drawn: Sheet,
    axes: Axes,
    series: str,
    mark: str,
    x: float,
    y: float,
    low: float = np.nan,
    high: float = np.nan,
    band: str = "",
) -> None:
    named = drawn.panels[axes]
    drawn.rows.append((*named, series, mark, x, y, low, high, band))
