"""Figure 15: the bias of the frozen stage between its bounds, and what rate it buys.

One row per regime. Left: exact bias, lower bound, the bounds of C8 and published ones against ηE,
with the marks ηLE = 1 and (where it is reached) the end of stability; ηL stands above. Right: rate
against bias, one point per E: the front along which more local steps trade accuracy for speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import caption, median_line, panel
from linattn.report.style import LOOKS, Look, PageLook, legend, sheet
from linattn.report.words import in_words, spread

NAME = "bounds"
SIMULATION = "bounds"
SERIES = {
    "bias": LOOKS["value_floor"]._replace(label="exact bias"),
    "lower": Look("lower bound Eρ/λ_max", "#44AA99", ":"),
    "certified": LOOKS["bound"]._replace(label="C8 bound"),
    "crude": Look("C8 bound, any η < 2/λ_max", "#CC79A7", ":"),
    "operator": Look("Malinovsky et al.", "#117733", "-."),
    "alignment": Look("Charles–Konečný (recalled)", "#D55E00", "--"),
}
FRONT = {
    "rate": Look("ρ of a round", "#0072B2", "-", "o"),
    "condition": Look("1 − 1/condition number", "#7F7F7F", "--", "s"),
}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    with sheet(NAME, len(found), 2, height=2.2 + 0.6 / len(found), look=look) as drawn:
        for axes, regime in zip(drawn.axes, found, strict=True):
            _bias(drawn, axes[0], regime)
            _front(drawn, axes[1], regime)
        legend(drawn, columns=3)
        caption(
            drawn,
            "The fixed point of frozen rounds: its distance to V* with bounds (left), and the "
            "convergence that each bias buys (right, one point per E). Lines: median over seeds, "
            "bands: 10–90 %. Refused bounds are not drawn.",
        )
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return bound / bias of every bound, over all E and seeds."""
    lines = []
    for regime in groups(results):
        bias = regime.values("bias")
        ratios = {name: regime.values(name) / bias for name in SERIES if name != "bias"}
        words = (f"{SERIES[n].label} {in_words(r[np.isfinite(r)])}" for n, r in ratios.items())
        lines.append(f"{regime.label}: over the exact bias: {', '.join(words)}")
    return "\n".join(lines)


def _bias(drawn: Any, axes: Any, regime: Group) -> None:
    curvature = float(np.median(regime.values("largest_step_curvature")))
    panel(
        drawn, axes, regime.label, x="ηE (1/curvature)", y="‖V∞ − V*‖ (norm)", outer=False,
        below=f"ηL = {curvature:.2g}",
    )  # fmt: skip
    across = _across(regime)
    for name, look in SERIES.items():
        values = regime.values(name)
        if np.isfinite(values).any():
            median_line(drawn, axes, look, across, values, marker=".", markersize=2.5)
    drawn.level(
        axes, "reference", across[0] / regime.local_steps[0] / curvature, across=False,
        label="ηLE = 1",
    )  # fmt: skip
    unstable = across[~(regime.values("stable") > 0).all(axis=0)]
    if unstable.size:
        drawn.level(axes, "one_step", float(unstable[0]), across=False, label="unstable from here")
    axes.set_xscale("log")
    axes.set_yscale("log")


def _front(drawn: Any, axes: Any, regime: Group) -> None:
    panel(
        drawn,
        axes,
        f"{regime.label}: rate against bias",
        x="‖V∞ − V*‖ / ‖V*‖ (1)",
        y="contraction (1)",
        wrap=60,
        outer=False,
    )
    bias = spread(regime.values("bias") / regime.values("minimizer_norm"))[0]
    for name, look in FRONT.items():
        values = regime.values(name)
        shown = values if name == "rate" else 1.0 - 1.0 / values
        median_line(drawn, axes, look, bias, shown, markersize=2.5)


def _across(regime: Group) -> Array:
    return np.asarray(regime.values("step")[0] * np.array(regime.local_steps))
