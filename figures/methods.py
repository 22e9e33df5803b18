"""Figure 7: every method on the same clients, and what it costs to be as good as FedAvg.

One row per method, one marker per world: final objective, test accuracy, client drift, mismatch of
outputs, and rounds, floats and multiply-adds until FedAvg's final objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import caption, name_rows, record, sideways
from linattn.report.style import LOOKS, PageLook, sheet
from linattn.report.words import in_words, last_known, mostly, page_name, pages, reproduced

NAME = "methods"
SIMULATION = "methods"
MARKERS = ("o", "s", "^", "D")
PERSONAL = ("fed_tp", "local_attention", "fine_tuned")
ZERO = {"mismatch": 1e-5, "drift": 0.1}
"""Where axes that show 0 become linear."""
TICKS = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
RATIO = "relative to FedAvg"
PANELS = {
    "objective": "final objective",
    "accuracy": "test accuracy",
    "drift": "client drift, last round",
    "mismatch": "output mismatch",
    "rounds_to_target": "rounds to target",
    "floats_to_target": "floats to target",
    "work_to_target": "multiply-adds to target",
}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    made: list[Path] = []
    for number, page in enumerate(pages(found, len(MARKERS))):
        made += _page(page, page_name(NAME, number), folder, _claims(found), look)
    return made


def summary(results: Sequence[Result]) -> str:
    """Return final objectives relative to FedAvg and accuracies, then the claims."""
    found = groups(results)
    lines = []
    for world in found:
        named = [
            f"{LOOKS[m].label} {in_words(_values(world, 'objective', m), digits=3)}"
            for m in _methods([world])
            if m != "fed_avg"
        ]
        lines.append(f"{world.label}: objective relative to FedAvg: {'; '.join(named)}")
        if np.isfinite(_accuracy(world, "fed_avg")).all():
            named = [
                f"{LOOKS[m].label} {in_words(_accuracy(world, m) / 100, percent=True, digits=2)}"
                for m in _methods([world])
            ]
            lines.append(f"{world.label}: test accuracy {'; '.join(named)}")
    return "\n".join([*lines, _claims(found)])


def _page(page: Any, name: str, folder: Path, claims: str, look: PageLook) -> list[Path]:
    methods = _methods(page)
    height = 2.2 + 0.19 * len(methods)
    with sheet(name, 1, len(PANELS), height=height, width=9.6, look=look) as drawn:
        for axes, (kind, title) in zip(drawn.axes[0], PANELS.items(), strict=True):
            drawn.panel(axes, title, x=_unit(kind), y="")
            axes.set_title(title.replace(", ", ",\n").replace(" to ", "\nto "), fontsize=7)
            axes.xaxis.label.set_fontsize(6.5)
            _rows(drawn, axes, page, methods, kind)
        _markers(drawn, page)
        caption(
            drawn,
            "All methods from one start on the same clients; points: median over seeds, bars: "
            f"10–90 %. Target: FedAvg's final objective + 1 % of its gain; no point: never there. "
            f"* judged by the models that clients keep, which fit their own data only. {claims}",
        )
        return drawn.save(folder)


def _rows(drawn: Any, axes: Any, page: Any, methods: list[str], kind: str) -> None:
    names = [LOOKS[m].label + ("*" if m in PERSONAL else "") for m in methods]
    name_rows(drawn, axes, names, labels=axes is drawn.axes[0, 0])
    shifts = np.linspace(-0.24, 0.24, len(page)) if len(page) > 1 else [0.0]
    for world, shift, marker in zip(page, shifts, MARKERS, strict=False):
        for row, method in enumerate(methods):
            if method in world.results[0].dataset["method"].values:
                values = _values(world, kind, method)
                style = {"label": f"{LOOKS[method].label}, {world.label}", "marker": marker}
                sideways(drawn, axes, method, row + shift, values, markersize=3.0, **style)
    _scale(axes, kind)
    if kind not in ("accuracy", "mismatch"):
        drawn.level(axes, "fed_avg", 1.0, across=False, linewidth=0.6)


def _scale(axes: Any, kind: str) -> None:
    """A logarithmic axis with 0 where something may vanish, and ticks that can be read."""
    from matplotlib.ticker import NullFormatter, NullLocator

    if kind == "accuracy":
        return
    zero = ZERO.get(kind)
    axes.set_xscale("log") if zero is None else axes.set_xscale("symlog", linthresh=zero)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    if kind == "mismatch":
        axes.set_xticks([0, 1e-4, 1e-2], ["0", "10⁻⁴", "10⁻²"])
        return
    low, high = (min(low, 0.8) if zero is None else -0.02), max(high, 1.25)
    axes.set_xlim(low, high)
    wanted = TICKS if high / max(low, 1e-9) < 5.0 else (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
    ticks = [t for t in wanted if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])


def _markers(drawn: Any, page: Any) -> None:
    """One grey marker per world below all panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=marker, color="#444444", label=world.label)
        for world, marker in zip(page, MARKERS, strict=False)
    ]
    drawn.figure.legend(handles=handles, loc="outside lower center", ncols=2)
    for world in page:
        record(drawn, drawn.axes[0, 0], f"target, {world.label}", world.values("target"))


def _unit(kind: str) -> str:
    return {"accuracy": "%", "mismatch": "relative (1)"}.get(kind, RATIO)


def _values(world: Group, kind: str, method: str) -> Array:
    """What a panel shows of a method, one value per seed; NaN counts as worst."""
    if kind == "accuracy":
        return _accuracy(world, method)
    if kind == "mismatch":
        return _of(world, "mismatch", method)
    if kind == "drift":
        return _drift(world, method) / _drift(world, "fed_avg")
    if kind == "objective":
        return last_known(_ratio(world, "final_objective", method))
    return last_known(_ratio(world, kind, method))


def _of(world: Group, name: str, method: str) -> Array:
    place = list(world.results[0].dataset["method"].values).index(method)
    return world.values(name)[:, place]


def _ratio(world: Group, name: str, method: str) -> Array:
    return _of(world, name, method) / _of(world, name, "fed_avg")


def _drift(world: Group, method: str) -> Array:
    parts = [_of(world, name, method)[:, -1] for name in ("kernel_drift", "value_drift")]
    return np.asarray(np.hypot(*parts))


def _accuracy(world: Group, method: str) -> Array:
    return 100.0 * _of(world, "test_accuracy", method)


def _methods(page: Any) -> list[str]:
    """Methods of any world of the page, in the order of the shared looks."""
    held = {str(m) for world in page for m in world.results[0].dataset["method"].values}
    order = list(LOOKS)
    shared = sorted(held - set(PERSONAL), key=lambda m: (m != "fed_avg", order.index(m)))
    return shared + sorted(held & set(PERSONAL), key=order.index)


def _claims(found: list[Group]) -> str:
    """The papers' headline claims, in our words, against the stored numbers."""
    better = [mostly(_ratio(w, "final_objective", "fed_frozen") < 1.0) for w in found]
    real = [w for w in found if np.isfinite(_accuracy(w, "fed_avg")).all()]
    finer = [mostly(_accuracy(w, "fed_frozen") > _accuracy(w, "fed_avg")) for w in real]
    cheaper = [mostly(_ratio(w, "floats_to_target", "fed_part") < 1.0) for w in found]
    drift = [mostly(_drift(w, "fed_prox") < _drift(w, "fed_avg")) for w in found]
    return (
        f"Claim (FedFrozen): freezing beats full training under heterogeneity: in the objective "
        f"{reproduced(better)}; in test accuracy {reproduced(finer)}. Claim (FedPart): as good "
        f"for less communication: {reproduced(cheaper)}. Claim (FedProx): less client drift: "
        f"{reproduced(drift)}. A world counts if at least 90 % of its seeds agree."
    )
