"""Figure 1: what every warm-up length costs, split into its exact parts (C9).

    F(B_T, V_R) − P_ref = kernel bias + transient + frozen floor + cross term

One panel per regime and number of local steps; T* with its interval over seeds. The kernel bias of
as many synchronized steps shows what client drift did to the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linattn.analysis.bias_drift import PARTS
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import (
    WARMUP,
    best_length,
    caption,
    finite_range,
    median_line,
    panel,
    rounds_axis,
    signed_log_axis,
    star_in_words,
    unstable_marks,
)
from linattn.report.style import LOOKS, PageLook, legend, sheet

NAME = "bias_drift_decomposition"
SIMULATION = "bias_drift"
THRESHOLD = 1e-3
EXPLAINED = "Target and covariate: how much the clients differ in them."
TOTAL = LOOKS["fed_frozen"]._replace(label="final loss above P_ref = sum of the parts", marker="o")
SYNCHRONIZED = LOOKS["synchronized"]._replace(label="kernel bias of synchronized steps")


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    columns = max(len(regime.local_steps) for regime in found)
    height = 1.45 + 1.4 / len(found)
    with sheet(NAME, len(found), columns, height=height, sharey=True, look=look) as drawn:
        low, high = _limits(found)
        for row, regime in zip(drawn.axes, found, strict=True):
            for axes, steps in zip(row, regime.local_steps, strict=False):
                _panel(drawn, axes, regime, steps)
                signed_log_axis(axes, low, high, threshold=THRESHOLD)
            for axes in row[len(regime.local_steps) :]:
                axes.set_visible(False)
        legend(drawn, columns=3)
        caption(
            drawn,
            "What is left of the loss after T warm-up rounds and R − T frozen rounds, in parts "
            "that add up exactly for each seed. Lines: median over seeds, bands: 10–90 %. "
            f"{EXPLAINED} {_known(found)}",
        )
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return T* of every regime, with quantiles over seeds, one line each."""
    lines = []
    for regime in groups(results):
        rounds = regime.coordinate("warmup")[-1]
        for steps in regime.local_steps:
            lines.append(f"{regime.title(steps)}: {star_in_words(regime, steps, rounds)}")
    return "\n".join(lines)


def _panel(drawn: Any, axes: Any, regime: Group, steps: int) -> None:
    lengths = regime.coordinate("warmup")
    found = star_in_words(regime, steps, lengths[-1])
    panel(drawn, axes, regime.title(steps), x=WARMUP, y="loss above P_ref", below=found)
    best_length(drawn, axes, regime, steps)
    reference = regime.values("reference")[:, None]
    total = regime.values("objective", steps) - reference
    smooth = regime.values("profile_synchronized", steps) - reference
    median_line(drawn, axes, SYNCHRONIZED, lengths, smooth, linewidth=0.9)
    for part in PARTS:
        median_line(drawn, axes, part, lengths, regime.values(part, steps))
    median_line(drawn, axes, TOTAL, lengths, total, linewidth=1.6, markersize=2.0)
    unstable_marks(drawn, axes, lengths, total)
    rounds_axis(axes, lengths[-1])


def _limits(found: list[Group]) -> tuple[float, float]:
    """Smallest and largest number of all panels."""
    arrays = [regime.values(part) for regime in found for part in PARTS]
    totals = [r.values("objective") - r.values("reference")[:, None, None] for r in found]
    return finite_range([*totals, *arrays])


def _known(found: list[Group]) -> str:
    """Say how good the reference value is."""
    certified = sum(int(regime.values("reference_certified").sum()) for regime in found)
    runs = sum(regime.seeds for regime in found)
    return f"P_ref: best known P, certified optimal in {certified} of {runs} runs."
