"""One look for all figures: colours that mean the same method everywhere, and a recording sheet.

A figure is drawn on a `Sheet`. Whatever is drawn through it is also a row of the CSV that is saved
beside the PNG and the PDF, so that the CSV holds exactly what the figure shows. The same stored
results give the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike

from linattn.experiments.files import open_folder, write_atomically
from linattn.experiments.find import PageLook as PageLook
from linattn.report.looks import LOOKS as LOOKS
from linattn.report.looks import Look as Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND = "10–90 % of seeds"
COLUMNS = ("panel", "x_label", "y_label", "series", "mark", "x", "y", "low", "high", "band")

RC: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 4),
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "figure.constrained_layout.use": True,
    "figure.titlesize": 9,
    "font.size": 8,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}


class Panel(NamedTuple):
    """Title and full axis labels of a panel; labels of shared axes may be hidden in the drawing."""

    title: str
    x_label: str
    y_label: str


@dataclass
class Sheet:
    """A figure and the rows of its CSV.

    Attributes
    ----------
    name : str
        Stem of the files.
    figure : matplotlib Figure
    axes : array of Axes, shape (rows, columns)
    rows : list of tuple
        What was drawn so far, in the order of `COLUMNS`.
    """

    name: str
    figure: Figure
    axes: Any
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    panels: dict[Axes, Panel] = field(default_factory=dict)

    def panel(self, axes: Axes, title: str, *, x: str, y: str, outer: bool = False) -> None:
        """Name a panel and its axes; units belong into `x` and `y`.

        With ``outer=True`` only the panels at the rim show their axis labels.
        """
        self.panels[axes] = Panel(title, x, y)
        axes.set(title=title, xlabel=x, ylabel=y)
        if outer:
            axes.label_outer()

    def line(
        self,
        axes: Axes,
        look: str | Look,
        x: ArrayLike,
        y: ArrayLike,
        *,
        band: tuple[ArrayLike, ArrayLike] | None = None,
        band_name: str = BAND,
        label: str | None = None,
        **style: Any,
    ) -> None:
        """Draw a curve, with a band from low to high if given."""
        shown = LOOKS[look] if isinstance(look, str) else look
        name = shown.label if label is None else label
        ends, across = (np.asarray(v, dtype=float) for v in (y, x))
        settings = {"color": shown.colour, "linestyle": shown.line, "marker": shown.marker} | style
        axes.plot(across, ends, label=name, **settings)
        low = high = np.full(ends.shape, np.nan)
        if band is not None:
            low, high = (np.asarray(edge, dtype=float) for edge in band)
            axes.fill_between(
                across, low, high, color=settings["color"], alpha=0.18, linewidth=0, zorder=1.5
            )
        self._note(axes, name, "line", across, ends, low, high, band_name if band else "")

    def points(
        self,
        axes: Axes,
        look: str | Look,
        x: ArrayLike,
        y: ArrayLike,
        *,
        band: tuple[ArrayLike, ArrayLike] | None = None,
        band_name: str = BAND,
        label: str | None = None,
        **style: Any,
    ) -> None:
        """Draw points, with bars from low to high if given."""
        shown = LOOKS[look] if isinstance(look, str) else look
        name = shown.label if label is None else label
        across, ends = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (x, y))
        settings = {"color": shown.colour, "marker": shown.marker or "o"} | style
        low = high = np.full(ends.shape, np.nan)
        if band is not None:
            low, high = (np.atleast_1d(np.asarray(edge, dtype=float)) for edge in band)
            axes.vlines(across, low, high, color=settings["color"], linewidth=0.9)
        axes.plot(across, ends, linestyle="", label=name, **settings)
        self._note(axes, name, "points", across, ends, low, high, band_name if band else "")

    def area(
        self,
        axes: Axes,
        look: str | Look,
        x: ArrayLike,
        low: ArrayLike,
        high: ArrayLike,
        *,
        label: str | None = None,
        **style: Any,
    ) -> None:
        """Fill between two curves (one layer of a stack); the CSV has its height as y."""
        shown = LOOKS[look] if isinstance(look, str) else look
        name = shown.label if label is None else label
        across, bottom, top = (np.asarray(v, dtype=float) for v in (x, low, high))
        settings: dict[str, Any] = {"color": shown.colour, "alpha": 0.75, "linewidth": 0} | style
        axes.fill_between(across, bottom, top, label=name, **settings)
        self._note(axes, name, "area", across, top - bottom, bottom, top, "")

    def level(
        self,
        axes: Axes,
        look: str | Look,
        value: float,
        *,
        band: tuple[float, float] | None = None,
        band_name: str = BAND,
        across: bool = True,
        label: str | None = None,
        **style: Any,
    ) -> None:
        """Draw a line at y = value, or an upright one at x = value (``across=False``)."""
        shown = LOOKS[look] if isinstance(look, str) else look
        name = shown.label if label is None else label
        settings = {"color": shown.colour, "linestyle": shown.line, "linewidth": 1.0} | style
        draw, fill = (axes.axhline, axes.axhspan) if across else (axes.axvline, axes.axvspan)
        draw(value, label=name, **settings)
        low, high = (np.nan, np.nan) if band is None else band
        if band is not None:
            fill(low, high, color=settings["color"], alpha=0.12, linewidth=0, zorder=1.0)
        x, y = (np.nan, value) if across else (value, np.nan)
        mark = "horizontal" if across else "vertical"
        self._note(axes, name, mark, [x], [y], [low], [high], band_name if band else "")

    def _note(
        self,
        axes: Axes,
        series: str,
        mark: str,
        x: Iterable[float],
        y: Iterable[float],
        low: Iterable[float],
        high: Iterable[float],
        band: str,
    ) -> None:
        if axes not in self.panels:
            raise ValueError("axes must be named by `Sheet.panel` before anything is drawn there.")
        panel = self.panels[axes]
        labels = (panel.title, panel.x_label, panel.y_label, series, mark)
        for point in zip(x, y, low, high, strict=True):
            self.rows.append((*labels, *(float(v) for v in point), band))

    def save(self, output: Path) -> list[Path]:
        """Write ``<name>.png``, ``.pdf`` and ``.csv`` into a folder and return their paths.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        folder = open_folder(output)
        self._arrange()
        files = {"png": self._image("png"), "pdf": self._image("pdf"), "csv": self._table()}
        paths = [folder / f"{self.name}.{suffix}" for suffix in files]
        for path, content in zip(paths, files.values(), strict=True):
            write_atomically(path, content)
        return paths

    def _arrange(self) -> None:
        # The layout costs as much as drawing: once for both formats.
        engine = self.figure.get_layout_engine()
        if engine is not None:
            engine.execute(self.figure)
            self.figure.set_layout_engine("none")

    def _image(self, suffix: str) -> bytes:
        # Time stamps and versions would make equal figures differ.
        silent = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format=suffix, metadata=silent[suffix])
        return buffer.getvalue()

    def _table(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows:
            writer.writerow(["" if v != v else v for v in row])
        return text.getvalue().encode()


@contextmanager
def sheet(
    name: str,
    rows: int = 1,
    columns: int = 1,
    *,
    look: PageLook,
    height: float = 2.4,
    width: float | None = None,
    **settings: Any,
) -> Iterator[Sheet]:
    """Give an empty sheet, with the shared look while it is drawn and saved.

    Parameters
    ----------
    name : str
        Stem of the files.
    rows, columns : int
        Grid of panels.
    look : PageLook
        Style and width.
    height, width : float
        Inches: height of one row of panels, width of the whole figure; default that of `look`.
    **settings
        As for `matplotlib.figure.Figure.subplots`, like ``sharex=True``.
    """
    import matplotlib as mpl
    from matplotlib import style as plt_style
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(cast(Any, RC))
        if look.style:
            plt_style.use(look.style)
        figure = Figure(figsize=(width or look.width, height * rows))
        yield Sheet(name, figure, figure.subplots(rows, columns, squeeze=False, **settings))


def legend(drawn: Sheet, axes: Sequence[Axes] | None = None, *, columns: int = 4) -> None:
    """Put one legend below all panels, each label once, in the order of its first appearance."""
    handles: dict[str, Any] = {}
    for panel in drawn.panels if axes is None else axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    drawn.figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=columns
    )
