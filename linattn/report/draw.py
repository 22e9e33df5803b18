"""From a page to images, in the style of whoever draws it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from linattn.experiments.find import WIDTH, PageLook
from linattn.report.canvas import ALONG, UNDRAWN, Axis, Mark, Page, Panel
from linattn.report.looks import INK, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RC: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 4),
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
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
LEAST = 5.0
"""Points: a text is never made smaller to fit its panel."""
SLACK = 0.98
"""Width of the longest text, in that of its panel: neighbours never touch."""
FULL = 0.6
"""Share of the full width below which a page has one column of panels."""


@contextmanager
def style_of(look: PageLook) -> Iterator[None]:
    """Settings while a page is drawn: the style asked for, else what the user set, else ours."""
    import matplotlib as mpl
    from matplotlib import style

    usual, here = cast("dict[str, Any]", mpl.rcParamsDefault), cast("dict[str, Any]", mpl.rcParams)
    ours = {name: value for name, value in RC.items() if here[name] == usual[name]}
    with mpl.rc_context(cast("Any", ours)):
        if look.style:
            style.use(look.style)
        yield


def images(page: Page, look: PageLook) -> dict[str, bytes]:
    """Return the PNG and the PDF of a page; the same page and look give the same bytes."""
    with style_of(look):
        figure = drawn(page, look.width)
        return {suffix: _image(figure, suffix) for suffix in ("png", "pdf")}


def drawn(page: Page, width: float) -> Figure:
    """Return the matplotlib figure of a page, with the settings in force."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(page.columns, len(page.panels)) if width >= FULL * WIDTH else 1
    rows = -(-len(page.panels) // columns)
    figure = Figure(figsize=(width, page.height * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)  # measures texts
    paint = _Paint()
    placed = []
    for number, panel in enumerate(page.panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        paint.panel(axes, panel)
        letter = f"({chr(ord('a') + number)}) " if len(page.panels) > 1 else ""
        axes.set_title(letter + panel.title)
        placed.append((axes, panel))
    if page.share:
        _share(placed, columns)
    for axes, panel in placed:
        paint.open_bands(axes, panel)
    _outer(placed, columns)
    _legend(figure, placed)
    _fit(figure, [axes for axes, _ in placed])
    return figure


class _Paint:
    """Draws panels; the colours of a style that has its own are dealt out in order of labels."""

    def __init__(self) -> None:
        import matplotlib as mpl

        ours = mpl.rcParams["axes.prop_cycle"] == mpl.rcParamsDefault["axes.prop_cycle"]
        colours = mpl.rcParams["axes.prop_cycle"].by_key().get("color", [])
        self.cycle = None if ours or not colours else cycle(colours)
        self.dealt: dict[str, str] = {}
        self.ink: str = mpl.rcParams["text.color"]
        self.width: float = mpl.rcParams["lines.linewidth"]
        self.size: float = mpl.rcParams["lines.markersize"]

    def panel(self, axes: Axes, panel: Panel) -> None:
        for way, axis in (("x", panel.x), ("y", panel.y)):
            _scale(axes, way, axis)
        for mark in panel.marks:
            if mark.kind not in UNDRAWN:
                self.mark(axes, mark)
        for way, axis in (("x", panel.x), ("y", panel.y)):
            _limits(axes, way, axis)

    def colour(self, look: Look) -> str:
        if look.colour == INK:
            return self.ink
        if self.cycle is None:
            return look.colour
        key = look.label.lstrip("_")
        if key not in self.dealt:
            self.dealt[key] = next(self.cycle)
        return self.dealt[key]

    def mark(self, axes: Axes, mark: Mark) -> None:
        look, kind = mark.look, mark.kind.partition(" ")[0]
        colour, width = self.colour(look), self.width * look.weight
        if kind in ("horizontal", "vertical"):
            across = axes.axhline if kind == "horizontal" else axes.axvline
            level = float((mark.y if kind == "horizontal" else mark.x)[0])
            across(level, color=colour, linestyle=look.line or "-", linewidth=0.7 * width,
                   label=look.label, zorder=1.6)  # fmt: skip
            return
        if kind == "bar":
            axes.barh(mark.y, mark.x, color=colour, height=0.6, label=look.label)
            return
        style: dict[str, Any] = {"color": colour, "marker": look.marker, "linewidth": width,
                                 "linestyle": look.line, "markersize": self.size * look.weight,
                                 "label": look.label}  # fmt: skip
        if kind == "line":
            self.band(axes, mark, colour)
        elif kind == "seed":
            first = mark.kind == "seed 0"
            small = 0.7 if look.line else 1.0
            style |= {"linewidth": 0.6 * width, "markersize": small * self.size * look.weight,
                      "alpha": 0.85, "label": look.label if first else "_"}  # fmt: skip
        else:
            style |= {"linestyle": "", "marker": look.marker or "o", "zorder": 3.0}
            self.bars(axes, mark, colour, width)
        y = mark.y
        if kind == "rim":
            y = np.full(mark.x.shape, 0.03)
            style |= {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(mark.x, y, **style)

    def band(self, axes: Axes, mark: Mark, colour: str) -> None:
        """The band of a curve, with edges that are seen where it is as thin as the line."""
        if not mark.band:
            return
        axes.fill_between(mark.x, mark.low, mark.high, color=colour, alpha=0.16, linewidth=0,
                          zorder=1.5)  # fmt: skip
        for edge in (mark.low, mark.high):
            axes.plot(mark.x, edge, color=colour, linewidth=0.35 * self.width, alpha=0.8,
                      zorder=1.5, label="_")  # fmt: skip

    def open_bands(self, axes: Axes, panel: Panel) -> None:
        """Fill bands without an upper edge, that of seeds that diverge, up to the end of the axis.

        The last stretch of the edge goes on to the end, so the band is one.
        """
        bottom, top = axes.get_ylim()
        for mark in panel.marks:
            lost = np.isfinite(mark.y) & np.isfinite(mark.low) & ~np.isfinite(mark.high)
            if mark.kind != "line" or not lost.any():
                continue
            near = lost.copy()
            near[:-1] |= lost[1:]
            near[1:] |= lost[:-1]
            axes.fill_between(mark.x, mark.low, np.where(lost, top, mark.high), where=near,
                              color=self.colour(mark.look), alpha=0.16, linewidth=0,
                              zorder=1.5)  # fmt: skip
        axes.set_ylim(bottom, top)

    def bars(self, axes: Axes, mark: Mark, colour: str, width: float) -> None:
        if not mark.band:
            return
        if mark.band.endswith(ALONG):
            axes.hlines(mark.y, mark.low, mark.high, color=colour, linewidth=0.7 * width)
        else:
            axes.vlines(mark.x, mark.low, mark.high, color=colour, linewidth=0.7 * width)


def _scale(axes: Axes, way: str, axis: Axis) -> None:
    if axis.names:
        axes.set_yticks(range(len(axis.names)), axis.names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(axis.names) - 0.4, -0.6)
        return
    settings: dict[str, Any] = (
        {"linthresh": axis.threshold, "linscale": 0.6} if axis.scale == "symlog" else {}
    )
    getattr(axes, f"set_{way}scale")(axis.scale, **settings)
    getattr(axes, f"set_{way}label")(axis.label)


def _limits(axes: Axes, way: str, axis: Axis) -> None:
    """What the axis shows, and labels that can be read on it."""
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, NullFormatter

    if axis.names:
        return
    low, high = getattr(axes, f"get_{way}lim")()
    if axis.scale == "log" and axis.low is not None:  # margins count the decades below, too
        high = 1.5 * float(getattr(axes.dataLim, f"{way}1"))
    ends = (low if axis.low is None else axis.low, high if axis.high is None else axis.high)
    if ends[0] < ends[1] and (axis.low, axis.high) != (None, None):
        getattr(axes, f"set_{way}lim")(*ends)
    where = getattr(axes, f"{way}axis")
    low, high = getattr(axes, f"get_{way}lim")()
    ticks = axis.ticks or (_few_ticks(low, high) if axis.scale == "log" else ())
    if ticks:
        where.set_ticks([t for t in ticks if low <= t <= high])
        plain = axis.scale != "log" or (low >= 1e-3 and high < 1e4)
        where.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}")
            if plain
            else LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf))
        )
        where.set_minor_formatter(NullFormatter())
        where.set_ticks([], minor=True)


def _few_ticks(low: float, high: float) -> tuple[float, ...]:
    """Ticks of a logarithmic axis of less than two decades; none where powers of ten do."""
    if not 0.0 < low < high < 100.0 * low:
        return ()
    first = int(np.floor(np.log10(low)))
    powers = [10.0**k for k in range(first, first + 4) if low <= 10.0**k <= high]
    if (high >= 1e4 or low < 1e-3) and len(powers) > 1:
        return ()
    steps = (1.0, 2.0, 5.0) if high > 4.0 * low else (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0)
    every = [float(f"{s * 10.0 ** (first + k):g}") for k in range(4) for s in steps]
    shown = tuple(t for t in every if low <= t <= high)
    if len(shown) > 1:
        return shown
    # Fewer than two of them: round numbers at equal distances, as on a linear axis.
    from matplotlib.ticker import MaxNLocator

    return tuple(float(t) for t in MaxNLocator(3).tick_values(low, high) if low <= t <= high)


def _share(placed: list[tuple[Axes, Panel]], columns: int) -> None:
    """Give all panels the widest limits of y, and numbers on the left alone."""
    limits = np.array([axes.get_ylim() for axes, _ in placed])
    for number, (axes, _) in enumerate(placed):
        axes.set_ylim(float(limits[:, 0].min()), float(limits[:, 1].max()))
        axes.tick_params(labelleft=number % columns == 0)


def _outer(placed: list[tuple[Axes, Panel]], columns: int) -> None:
    """Leave labels out that the neighbour to the left or below has as well."""
    for number, (axes, panel) in enumerate(placed):
        left = placed[number - 1][1] if number % columns else None
        below = placed[number + columns][1] if number + columns < len(placed) else None
        if left is not None and left.y == panel.y:
            axes.set_ylabel("")
            if panel.y.names:
                axes.tick_params(labelleft=False)
        if below is not None and below.x == panel.x:
            axes.set_xlabel("")


def _legend(figure: Figure, placed: list[tuple[Axes, Panel]]) -> None:
    """One legend below all panels, each label once, in as many columns as fit."""
    handles: dict[str, Any] = {}
    for axes, _ in placed:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles[label] = _both(handles[label], handle) if label in handles else handle
    if len(handles) < 2:
        return
    canvas: Any = figure.canvas
    for columns in range(min(6, len(handles)), 0, -1):
        made = figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=columns
        )
        if columns == 1 or made.get_window_extent(canvas.get_renderer()).width < figure.bbox.width:
            return
        made.remove()


def _both(one: Any, other: Any) -> Any:
    """A handle with the line and the marker that a label has in any panel."""
    from matplotlib.lines import Line2D

    if not (isinstance(one, Line2D) and isinstance(other, Line2D)):
        return one
    drawn = one if one.get_linestyle() != "None" else other
    marked = one if one.get_marker() not in ("", "None", None) else other
    both = Line2D([], [])
    both.update_from(drawn)
    both.set_marker(marked.get_marker())
    both.set_markersize(marked.get_markersize())
    return both


def _fit(figure: Figure, every: list[Axes]) -> None:
    """Arrange panels once for all formats; make texts that are too long for a panel smaller."""
    import matplotlib as mpl

    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        by_hand = {"figure.autolayout": False, "figure.constrained_layout.use": False}
        with mpl.rc_context(cast("Any", by_hand)):  # otherwise saving draws twice, once to arrange
            figure.set_layout_engine(None)
    canvas: Any = figure.canvas
    renderer = canvas.get_renderer()
    for axes in every:
        room = axes.get_window_extent(renderer)
        for text, side in ((axes.title, "width"), (axes.xaxis.label, "width"),
                           (axes.yaxis.label, "height")):  # fmt: skip
            needed = getattr(text.get_window_extent(renderer), side)
            share = SLACK * getattr(room, side) / max(needed, 1.0)
            if share < 1.0:
                text.set_fontsize(max(LEAST, share * text.get_fontsize()))
    smallest = min(axes.title.get_fontsize() for axes in every)
    for axes in every:
        axes.title.set_fontsize(smallest)


def _image(figure: Figure, suffix: str) -> bytes:
    # Time stamps and versions would make equal figures differ.
    silent = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, metadata=silent[suffix])
    return buffer.getvalue()
