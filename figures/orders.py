"""Figure 17: published O-forms as slopes: how drift, bias and mismatch grow with η and with E.

Papers do not state the constants inside O( ), so only exponents can be compared. Left against the
step size, right against the local steps at the smallest of these; both axes relative to the first
point, so that a power law is a straight line through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import caption, median_line, panel
from linattn.report.style import Look, PageLook, legend, sheet
from linattn.report.words import in_words

NAME = "orders"
SIMULATION = "orders"
FITTED = 3
"""The slope is fitted to so many points with the smallest ηE, where O-forms speak."""


class Order(NamedTuple):
    """A quantity with the exponent of its O-form, in η and in E − `less`."""

    look: Look
    exponent: int
    less: int
    source: str


ORDERS = {
    "bias": Order(Look("bias ‖V∞ − V*‖", "#D55E00", "-", "o"), 1, 1, "C8 first order"),
    "round_error": Order(Look("round error ‖e‖", "#0072B2", "-", "s"), 1, 1, "local drift"),
    "excess": Order(
        Look("excess F(V∞) − F(V*)", "#CC79A7", "-", "^"), 2, 1, "Khaled et al., Koloskova et al."
    ),
    "drift_sq": Order(Look("drift Σp‖V_i − V̄‖²", "#117733", "-", "D"), 2, 0, "field guide"),
    "covariance": Order(Look("‖Cov(Q, K)‖", "#332288", "-", "v"), 2, 0, "factor drift"),
}
GUIDES = {
    1: Look("slope 1", "#7F7F7F", "--"),
    2: Look("slope 2", "#7F7F7F", ":"),
}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    with sheet(NAME, len(found), 2, height=2.4 + 0.6 / len(found), look=look) as drawn:
        for axes, regime in zip(drawn.axes, found, strict=True):
            _panel(drawn, axes[0], regime, by_step=True)
            _panel(drawn, axes[1], regime, by_step=False)
        legend(drawn, columns=4)
        caption(
            drawn,
            "Published O-forms as slopes: drift, bias and mismatch relative to their first values. "
            "Lines: median over seeds, bands: 10–90 %; grey: slopes 1 and 2.",
        )
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return the fitted slope of every quantity beside its published exponent."""
    lines = []
    for regime in groups(results):
        for name, order in ORDERS.items():
            if not regime.values(f"{name}_by_step").all():
                continue
            by_step, by_count = (in_words(slopes(regime, name, by_step=b)) for b in (True, False))
            lines.append(
                f"{regime.label}: {order.look.label}: slope in η {by_step}, in "
                f"{'E − 1' if order.less else 'E'} {by_count}; published {order.exponent} "
                f"({order.source})"
            )
    return "\n".join(lines)


def slopes(regime: Group, name: str, *, by_step: bool) -> Array:
    """Return the slope of log(quantity) where ηE is smallest, one per seed."""
    across, values = _rows(regime, name, by_step=by_step)
    x, y = np.log(across[:FITTED]), np.log(values[:, :FITTED])
    return np.asarray(np.polyfit(x, y.T, 1)[0])


def _rows(regime: Group, name: str, *, by_step: bool) -> tuple[Array, Array]:
    """η or E (or E − 1) and the quantity there, both relative to the first: (n,), (seeds, n)."""
    if by_step:
        across = regime.coordinate("step_size")[::-1]
        values = regime.values(f"{name}_by_step")[:, ::-1]
    else:
        across = regime.coordinate("local_steps") - ORDERS[name].less
        values = regime.values(f"{name}_by_count")
    return across / across[0], values / values[:, :1]


def _panel(drawn: Any, axes: Any, regime: Group, *, by_step: bool) -> None:
    eta, counts = regime.coordinate("step_size").min(), regime.coordinate("local_steps")
    curvature = float(np.median(regime.values("curvature")))
    across = (
        f"η / {eta:.1g} (1)" if by_step
        else f"E / {counts[0]:g}, or (E − 1) / {counts[0] - 1:g} for bias, error and excess (1)"
    )  # fmt: skip
    panel(
        drawn, axes, regime.label, x=across, y="relative to the first (1)", outer=False, wrap=60,
        below="growth with the step size" if by_step
        else f"growth with the local steps at ηL = {eta * curvature:.1g}",
    )  # fmt: skip
    for name, order in ORDERS.items():
        if regime.values(f"{name}_by_step").all():
            x, values = _rows(regime, name, by_step=by_step)
            median_line(drawn, axes, order.look, x, values, markersize=2.5)
    longest, _ = _rows(regime, "bias", by_step=by_step)
    for exponent, look in GUIDES.items():
        drawn.line(axes, look, longest, longest**exponent, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
