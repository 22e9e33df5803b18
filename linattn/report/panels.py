"""The CSV of a figure as panels that a page can draw: series with looks, and scales that show them.

A CSV says exactly which numbers a figure shows (`linattn.report.canvas.Page`), but not on which
scale; that is chosen here from the numbers. The looks are those of the JSON beside it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from math import floor, isfinite, log10
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from linattn.report.canvas import ALONG, COLUMNS, UNDRAWN
from linattn.report.looks import INK, LOOKS, Look

# The colours of Okabe and Ito, for series whose name no look has.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = {"": "solid", "-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
CYCLE = ("-", "--", ":", "-.")
SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "d": "diamond", "^": "triangle-up",
    "v": "triangle-down", "<": "triangle-left", ">": "triangle-right", "P": "cross", "*": "star",
    "X": "x", "x": "x-thin", "h": "hexagon", ".": "circle",
}  # fmt: skip
DIGITS = 7
WIDE = 100.0
"""Positive numbers whose largest is so many times the smallest are shown on a logarithmic axis."""
DEEPEST = 1e-14
"""Numbers that much below the largest are rounding: an axis does not begin with them."""
FAR = 1e3
"""Bands that reach so many times beyond their curves do not stretch the axis."""


class Scale(NamedTuple):
    """How an axis is shown.

    Attributes
    ----------
    kind : {"linear", "log", "symlog"}
    threshold : float
        Of symlog: log10(1 + |v|/threshold) with the sign of v.
    """

    kind: str
    threshold: float = 1.0


class Extent(NamedTuple):
    """Numbers along an axis: of curves and points, of levels across the panel, ends of bands."""

    middle: list[float]
    levels: list[float]
    ends: list[float]


def scale_of(middle: Sequence[float], levels: Sequence[float] = ()) -> Scale:
    """Return the scale on which numbers can be told apart.

    Examples
    --------
    >>> scale_of([1.0, 2.0]).kind, scale_of([1e-3, 1.0]).kind, scale_of([0, 1e-4, 1e-3, 5]).kind
    ('linear', 'log', 'symlog')
    """
    every = [*middle, *levels]
    sizes = sorted(abs(value) for value in every if value)
    if not sizes or sizes[-1] < WIDE * sizes[0]:
        return Scale("linear")
    if min(every) > 0.0:
        return Scale("log")
    if all(value == int(value) for value in middle):  # rounds, steps, counts
        return Scale("symlog", 1.0)
    if sizes[-1] < WIDE * median(sizes):
        return Scale("linear")
    low = max(sizes[len(sizes) // 5], 1e-5 * sizes[-1])
    return Scale("symlog", 10.0 ** floor(log10(low)))


def range_of(extent: Extent, kind: str) -> tuple[float, float] | None:
    """Return what an axis shows at first, or None for everything.

    Rounding below a logarithmic axis, and ends of bands that diverge while the middle does not, are
    there when one zooms out.
    """
    every = [*extent.middle, *extent.levels]
    if not every:
        return None
    low, high = min(every), max(every)
    largest = max(abs(low), abs(high))
    far = max((abs(end) for end in extent.ends), default=0.0) > FAR * largest > 0.0
    deep = kind == "log" and low < DEEPEST * high
    if not (far or deep) or low == high:
        return None
    return (max(low, DEEPEST * high) if kind == "log" else low), high


def read_panels(path: Path) -> list[dict[str, Any]]:
    """Return the panels of a figure's CSV as values that JSON holds.

    Each has title, axis labels, scales, the names of its rows if y counts rows, numbers stated in
    words, and series: name, mark, columns x, y, low, high, and its look.

    Raises
    ------
    ValueError
        If the file lacks a column.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not set(COLUMNS) <= set(rows[0] if rows else COLUMNS):
        raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}; it has not.")
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["panel"], row["x_label"], row["y_label"]), []).append(row)
    drawn = dict.fromkeys(row["series"] for row in rows if row["mark"] not in UNDRAWN)
    looks = _looks(drawn, path.with_suffix(".json"))
    panels = [_panel(names, held, looks) for names, held in groups.items()]
    for way, place in (("x", 1), ("y", 2)):
        extents = {names: _extent(held, way) for names, held in groups.items()}
        for panel, names in zip(panels, groups, strict=True):
            # Panels of one label share their scale, so that they can be compared.
            alike = [extents[other] for other in groups if other[place] == names[place]]
            middle, levels = ([v for part in alike for v in part[k]] for k in (0, 1))
            rows_named = way == "y" and panel["row_names"]
            scale = Scale("linear") if rows_named else scale_of(middle, levels)
            panel[f"{way}_scale"] = scale._asdict()
            panel[f"{way}_range"] = range_of(extents[names], scale.kind)
    return panels


def _looks(names: Iterable[str], page: Path) -> dict[str, Look]:
    """The look of every series: of the figure or by name, else from the palette in turn."""
    known = {look.label: look for look in LOOKS.values()}
    if page.is_file():
        panels = json.loads(page.read_text(encoding="utf-8"))["panels"]
        found_looks = (Look(*mark[3:]) for panel in panels for mark in panel["marks"])
        known |= {look.label: look for look in found_looks}
    found: dict[str, Look] = {}
    for name in names:
        number = len(found.keys() - known.keys())
        colour, line = PALETTE[number % len(PALETTE)], CYCLE[number // len(PALETTE) % len(CYCLE)]
        found[name] = known.get(name, Look(name, colour, line))
    return found


def _panel(
    names: tuple[str, str, str], rows: Sequence[dict[str, str]], looks: dict[str, Look]
) -> dict[str, Any]:
    labels = {float(row["y"]): row["series"] for row in rows if row["mark"] == "row name"}
    series: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["mark"] not in UNDRAWN:
            series.setdefault((row["series"], row["mark"], row["band"]), []).append(row)
    return {
        "title": names[0],
        "x_label": names[1],
        "y_label": names[2],
        "row_names": [[place, name] for place, name in labels.items()],
        "stated": [_stated(row) for row in rows if row["mark"] == "text"],
        "series": [_series(*key, held, looks[key[0]]) for key, held in series.items()],
    }


def _extent(rows: Sequence[dict[str, str]], way: str) -> Extent:
    """The numbers of a panel along one of its axes."""
    found = Extent([], [], [])
    across = way == "x"
    for row in rows:
        mark = row["mark"]
        if mark in UNDRAWN or (mark == "rim" and not across):
            continue
        level = mark == ("vertical" if across else "horizontal")
        part = found.levels if level else found.middle
        sideways = row["band"].endswith(ALONG) or mark == "vertical"
        part += [float(row[way])] if row[way] else []
        found.ends.extend(
            float(row[name]) for name in ("low", "high") if row[name] and sideways == across
        )
    return Extent(*([v for v in part if isfinite(v)] for part in found))


def _series(
    name: str, mark: str, band: str, rows: Sequence[dict[str, str]], look: Look
) -> dict[str, Any]:
    columns = {key: [_number(row[key]) for row in rows] for key in ("x", "y", "low", "high")}
    if all(value is None for value in columns["low"]):
        columns |= {"low": [], "high": []}
    return {
        "name": name,
        "mark": mark if look.line or not mark.startswith("seed") else "points",
        "band": band.removesuffix(ALONG),
        "sideways": band.endswith(ALONG),
        "colour": "#000000" if look.colour == INK else look.colour,
        "dash": DASHES.get(look.line, "longdash"),
        "symbol": SYMBOLS.get(look.marker, "circle"),
        "dotted": bool(look.marker),
        **columns,
    }


def _stated(row: dict[str, str]) -> str:
    middle, low, high = (_number(row[key]) for key in ("y", "low", "high"))
    ends = "" if low is None or low == high else f" ({low:.4g} to {high:.4g})"
    return f"{row['series']}: {'undefined' if middle is None else f'{middle:.4g}'}{ends}"


def _number(text: str) -> float | None:
    """A number with as many digits as a page shows; None for what is no finite number."""
    value = float(text or "nan")
    return float(f"{value:.{DIGITS}g}") if isfinite(value) else None
