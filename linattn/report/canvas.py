"""A figure as data: panels of marks, which a CSV holds number by number and `draw` makes visible.

What is drawn is what the CSV says, because the drawing is made from it; so a figure can be drawn
again, in another style or width, from its CSV and the JSON beside it alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from linattn._typing import Array
from linattn.experiments.files import csv_bytes, open_folder, write_atomically
from linattn.experiments.find import PageLook
from linattn.report.looks import LOOKS, Look
from linattn.report.words import QUANTILES, bounded, spread

BAND = "10–90 % of seeds"
ALONG = ", along x"
"""Ends a band that spans x, not y."""
UNDRAWN = ("row name", "text")
"""Kinds of marks that only say something."""
FEW_SEEDS = 5
"""Below so many seeds a band says nothing: every seed is a thin line of its own."""
MOST_PANELS = 6
COLUMNS = ("panel", "x_label", "y_label", "series", "mark", "x", "y", "low", "high", "band")


class Axis(NamedTuple):
    """An axis of a panel.

    Attributes
    ----------
    label : str
        With the unit.
    scale : {"linear", "log", "symlog"}
    low, high : float, optional
        Limits; what cannot occur is not shown.
    threshold : float
        Of symlog: linear below it.
    names : tuple of str
        Of the rows 0, 1, … from the top, on an axis that counts rows.
    ticks : tuple of float
        Where the choice of matplotlib does not serve.
    """

    label: str
    scale: str = "linear"
    low: float | None = None
    high: float | None = None
    threshold: float = 1.0
    names: tuple[str, ...] = ()
    ticks: tuple[float, ...] = ()


def log(label: str, low: float | None = None, high: float | None = None) -> Axis:
    """Return a logarithmic axis."""
    return Axis(label, "log", low, high)


class Mark(NamedTuple):
    """One series of a panel, of one kind.

    Attributes
    ----------
    kind : str
        ``line``, ``seed N`` (the thin line of one seed), ``points``, ``bar``, ``horizontal``,
        ``vertical``, ``rim`` (points at the lower rim), ``row name`` and ``text`` (only said).
    x, y, low, high : array, shape (N,)
    band : str
        What low and high are; ends in `ALONG` if they span x.
    look : Look
    """

    kind: str
    x: Array
    y: Array
    low: Array
    high: Array
    band: str
    look: Look


@dataclass
class Panel:
    """Axes with a title of one line, and what is drawn there; every method adds a mark."""

    title: str
    x: Axis
    y: Axis
    marks: list[Mark] = field(default_factory=list)

    def add(
        self,
        kind: str,
        look: str | Look,
        x: ArrayLike,
        y: ArrayLike,
        *,
        ends: tuple[ArrayLike, ArrayLike] | None = None,
        band: str = BAND,
        **changes: Any,
    ) -> None:
        """Add a mark; `changes` are fields of its look."""
        shown = (LOOKS[look] if isinstance(look, str) else look)._replace(**changes)
        across, up = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (x, y))
        across, up = np.broadcast_arrays(across, up)
        low, high = (
            np.full(up.shape, np.nan) if ends is None else np.atleast_1d(np.asarray(end, float))
            for end in (ends or ((), ()))
        )
        self.marks.append(Mark(kind, across, up, low, high, band if ends else "", shown))

    def curve(self, look: str | Look, x: ArrayLike, values: ArrayLike, **changes: Any) -> None:
        """Draw a quantity of all seeds, (S, N), against x.

        The median with its 10–90 % band from five seeds on, a thin line per seed below; where
        something has diverged nothing is drawn.
        """
        self._over_seeds("line", look, x, np.atleast_2d(bounded(values)), **changes)

    def spots(self, look: str | Look, x: ArrayLike, values: ArrayLike, **changes: Any) -> None:
        """Draw a quantity of all seeds, (S, N), as points with bars, few seeds singly."""
        self._over_seeds("points", look, x, np.atleast_2d(bounded(values)), line="", **changes)

    def _over_seeds(
        self, kind: str, look: str | Look, x: ArrayLike, array: Array, **changes: Any
    ) -> None:
        if 1 < len(array) < FEW_SEEDS:
            for seed, row in enumerate(array):
                self.add(f"seed {seed}", look, x, _finite(row), **changes)
            return
        middle, (low, high) = spread(array)
        lost = ~np.isfinite(middle)
        low, high = (np.where(lost, np.nan, _finite(end)) for end in (low, high))
        ends = (low, high) if len(array) > 1 else None
        self.add(kind, look, x, _finite(middle), ends=ends, **changes)

    def row(self, look: str | Look, place: float, values: ArrayLike, **changes: Any) -> None:
        """Draw a quantity of all seeds, (S,), in a named row: its median with a bar, few singly.

        Seeds without a value are left out; nothing is drawn where the median has diverged.
        """
        array = np.asarray(values, dtype=float)
        array = bounded(array[~np.isnan(array)])
        if 1 < array.size < FEW_SEEDS:
            for seed, value in enumerate(array):
                self.add(f"seed {seed}", look, _finite(value), place, line="", **changes)
        elif array.size:
            middle, (low, high) = spread(array)
            if np.isfinite(middle):
                ends = ([low], [high if np.isfinite(high) else middle]) if array.size > 1 else None
                self.add("points", look, middle, place, ends=ends, band=BAND + ALONG, **changes)

    def level(
        self, look: str | Look, value: float, *, upright: bool = False, **changes: Any
    ) -> None:
        """Draw a line across the panel at y = value, or upright at x = value."""
        kind, x, y = ("vertical", value, np.nan) if upright else ("horizontal", np.nan, value)
        self.add(kind, look, x, y, **changes)

    def best(self, x: ArrayLike, values: ArrayLike, look: str | Look = "oracle") -> None:
        """Mark the lowest point of a curve on it, with the quantiles of where those of seeds lie.

        Parameters
        ----------
        x : array, shape (N,)
        values : array, shape (S, N)
            As for `curve`; few seeds have a mark each.
        """
        array, across = np.atleast_2d(bounded(values)), np.asarray(x, dtype=float)
        array = array[np.isfinite(array).any(axis=1)]
        if not len(array):
            return
        places = across[array.argmin(axis=1)]
        if 1 < len(array) < FEW_SEEDS:
            self.add("points", look, places, array.min(axis=1))
            return
        middle = spread(array)[0]
        low, high = np.quantile(places, QUANTILES)
        at = int(np.argmin(middle))
        self.add("points", look, across[at], middle[at], band=BAND + ALONG,
                 ends=(low, high) if len(array) > 1 else None)  # fmt: skip

    def rim(self, x: ArrayLike, values: ArrayLike, label: str = "unstable for some seeds") -> None:
        """Mark at the lower rim where some seed, (S, N), has diverged."""
        lost = ~np.isfinite(bounded(np.atleast_2d(values))).all(axis=0)
        if lost.any():
            across = np.asarray(x, dtype=float)[lost]
            self.add("rim", Look(label, "#D55E00", "", "x"), across, np.full(across.shape, np.nan))

    def say(self, name: str, values: ArrayLike) -> None:
        """Put a number that the caption states, over seeds, into the CSV."""
        array = np.asarray(values, dtype=float).ravel()
        array = array[~np.isnan(array)]
        if array.size:
            middle, (low, high) = spread(array)
            self.add("text", Look(name, INK_FREE), np.nan, middle, ends=([low], [high]))


INK_FREE = "none"


@dataclass
class Page:
    """A figure: its name, what the text beside it says, and up to six panels.

    Attributes
    ----------
    name : str
        Stem of the files.
    caption : str
        What a reader needs to read the panels.
    findings : sequence of str
        Up to three sentences with numbers; `details` are further ones, for the text only.
    columns : int
        Panels side by side at the width of two columns; at that of one there is one.
    height : float
        Inches of a row of panels.
    share : bool
        Whether all panels have the same y axis.
    """

    name: str
    caption: str = ""
    findings: Sequence[str] = ()
    details: Sequence[str] = ()
    columns: int = 3
    height: float = 2.0
    share: bool = False
    panels: list[Panel] = field(default_factory=list)

    def panel(self, title: str, x: str | Axis, y: str | Axis) -> Panel:
        """Return a new panel.

        Raises
        ------
        ValueError
            If there are six already, the title has two lines, or another panel has it.
        """
        if len(self.panels) == MOST_PANELS:
            raise ValueError(f"a page must have at most {MOST_PANELS} panels; begin another one.")
        if "\n" in title or title in (panel.title for panel in self.panels):
            raise ValueError(f"title must be one line, and not that of another panel: {title!r}.")
        across, up = (Axis(a) if isinstance(a, str) else a for a in (x, y))
        made = Panel(title, across, up)
        for place, name in enumerate(made.y.names):
            made.add("row name", Look(name, INK_FREE), np.nan, place)
        self.panels.append(made)
        return made

    def save(self, folder: Path, look: PageLook) -> list[Path]:
        """Write PNG, PDF, CSV, text and JSON into a folder and return their paths.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        from linattn.report.draw import images

        numbers = csv_bytes(COLUMNS, self._rows())
        files = {**images(self, look), "csv": numbers, "md": self._text(), "json": self._json()}
        paths = [open_folder(folder) / f"{self.name}.{suffix}" for suffix in files]
        for path, content in zip(paths, files.values(), strict=True):
            write_atomically(path, content)
        return paths

    def _rows(self) -> Iterable[tuple[Any, ...]]:
        for panel in self.panels:
            named = (panel.title, panel.x.label, panel.y.label)
            for mark in panel.marks:
                for numbers in zip(mark.x, mark.y, mark.low, mark.high, strict=True):
                    shown = ["" if v != v else float(v) for v in numbers]
                    yield (*named, mark.look.label, mark.kind, *shown, mark.band)

    def _text(self) -> bytes:
        parts = [f"# {self.name}", self.caption, *map(_listed, (self.findings, self.details))]
        return ("\n\n".join(part for part in parts if part) + "\n").encode()

    def _json(self) -> bytes:
        kept = {name: getattr(self, name) for name in _KEPT}
        panels = [
            {
                "title": panel.title,
                "x": panel.x._asdict(),
                "y": panel.y._asdict(),
                "marks": [[m.kind, len(m.x), m.band, *m.look] for m in panel.marks],
            }
            for panel in self.panels
        ]
        return (json.dumps(kept | {"panels": panels}, ensure_ascii=False, indent=1) + "\n").encode()


_KEPT = ("name", "caption", "findings", "details", "columns", "height", "share")


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _finite(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array), array, np.nan)


def read_page(path: Path) -> Page:
    """Return the page of a JSON file and the CSV beside it, to be saved in another look.

    Raises
    ------
    OSError
        If one of the files is not there.
    ValueError
        If they do not belong together.
    """
    held = json.loads(path.read_text(encoding="utf-8"))
    with open(path.with_suffix(".csv"), encoding="utf-8", newline="") as file:
        rows = [[float(v or "nan") for v in row[5:9]] for row in list(csv.reader(file))[1:]]
    page = Page(**{name: held[name] for name in _KEPT})
    first = 0
    for part in held["panels"]:
        panel = Panel(part["title"], _axis(part["x"]), _axis(part["y"]))
        for kind, count, band, *look in part["marks"]:
            x, y, low, high = np.array(rows[first : first + count]).reshape(count, 4).T
            panel.marks.append(Mark(kind, x, y, low, high, band, Look(*look)))
            first += count
        page.panels.append(panel)
    if first != len(rows):
        raise ValueError(f"{path} and its CSV must be of one figure: {first} and {len(rows)} rows.")
    return page


def _axis(fields: dict[str, Any]) -> Axis:
    names, ticks = tuple(fields["names"]), tuple(fields["ticks"])
    return Axis(**fields | {"names": names, "ticks": ticks})
