"""How records show themselves in a notebook: tables as HTML, axes made only when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def table_html(heads: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """Return an HTML table; every cell is escaped, floats get six digits.

    Examples
    --------
    >>> table_html(["n"], [[0.5]])
    '<table><thead><tr><th>n</th></tr></thead><tbody><tr><td>0.5</td></tr></tbody></table>'
    """
    head = f"<thead>{_row('th', heads)}</thead>" if heads else ""
    body = "".join(_row("td", row) for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}{head}<tbody>{body}</tbody></table>"


def facts_html(title: str, facts: Iterable[tuple[str, object]]) -> str:
    """Return a two-column table of names and values; a value that is None is left out."""
    return table_html((), [fact for fact in facts if fact[1] is not None], caption=title)


def spread(values: Iterable[float]) -> str:
    """Return ``low to high``, or the value alone if all are equal.

    Examples
    --------
    >>> spread([2, 5, 3]), spread([0.25, 0.25])
    ('2 to 5', '0.25')
    """
    every = [float(value) for value in values]
    low, high = f"{min(every):.4g}", f"{max(every):.4g}"
    return low if low == high else f"{low} to {high}"


def axes_or_new(axes: Axes | None) -> Axes:
    """Return the axes, or those of a new pyplot figure, which a notebook then shows."""
    if axes is not None:
        return axes
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def draw_gaps(axes: Axes | None, gaps: Sequence[float], floor: float, label: str) -> Axes:
    """Draw what is left above P(B) after 0, 1, … frozen rounds, and the floor if it is finite."""
    axes = axes_or_new(axes)
    axes.plot(range(len(gaps)), gaps, label=label)
    if isfinite(floor):
        axes.axhline(floor, color="grey", linestyle=":", label="floor")
    axes.set(xlabel="frozen round t", ylabel="loss", yscale="log")
    axes.legend()
    return axes


def _row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(_said(cell))}</{tag}>" for cell in cells) + "</tr>"


def _said(cell: object) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
