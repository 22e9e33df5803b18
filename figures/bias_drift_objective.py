"""Figure 2: the final objective against the warm-up length, beside its controls.

Controls: one local step (E = 1) for the same number of rounds; synchronized steps, E·T centralized
steps on everything and then E·(R − T) on the value block; identical clients, which must coincide
with synchronized steps. A U-shape should appear in none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    unstable_marks,
)
from linattn.report.style import LOOKS, PageLook, legend, sheet
from linattn.report.words import in_words

NAME = "bias_drift_objective"
SIMULATION = "bias_drift"
THRESHOLD = 1e-4
LINES = {
    "objective_synchronized": LOOKS["synchronized"],
    "objective_identical": LOOKS["identical"]._replace(line="", marker="d"),
    "objective_one_step": LOOKS["one_step"]._replace(label="E = 1, same number of rounds"),
    "objective": LOOKS["fed_frozen"]._replace(label="FedFrozen (at T = R: FedAvg)"),
}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    panels = [(regime, steps) for regime in found for steps in _local_steps(regime)]
    columns = max(len(_local_steps(found[0])), min(2, len(panels)))
    rows = -(-len(panels) // columns)
    height = 1.6 + 1.4 / rows
    with sheet(NAME, rows, columns, height=height, sharey=True, look=look) as drawn:
        low, high = _limits(found)
        for axes, (regime, steps) in zip(drawn.axes.flat, panels, strict=False):
            _panel(drawn, axes, regime, steps)
            signed_log_axis(axes, low, high, threshold=THRESHOLD)
        for axes in drawn.axes.flat[len(panels) :]:
            axes.set_visible(False)
        legend(drawn, columns=3)
        caption(
            drawn,
            "Final objective F after R rounds, T of them warm-up, above the best known P of each "
            "seed (P_ref; its median and 10–90 % quantiles above each panel). Lines: median over "
            "seeds, bands: 10–90 %. Target and covariate: how much the clients differ in them.",
        )
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return what the best length saves and how far the two equal controls are apart."""
    lines = []
    for regime in groups(results):
        same, equal = (regime.values(f"objective_{n}") for n in ("identical", "synchronized"))
        with np.errstate(invalid="ignore"):
            apart = np.nanmax(np.abs(same - equal) / np.abs(equal))
        for steps in _local_steps(regime):
            objective = regime.values("objective", steps)
            saved = objective[:, -1] - objective.min(axis=1)
            lines.append(
                f"{regime.title(steps)}: F falls by {in_words(objective[:, 0] - objective[:, -1])} "
                f"from T = 0 to R, T* saves {in_words(saved)} more"
            )
        lines.append(f"{regime.label}: controls that must coincide differ by {apart:.0e} of F")
    return "\n".join(lines)


def _local_steps(regime: Group) -> list[int]:
    """Every E but 1, which is a control here, unless there is nothing else."""
    return [steps for steps in regime.local_steps if steps > 1] or regime.local_steps


def _panel(drawn: Any, axes: Any, regime: Group, steps: int) -> None:
    lengths, reference = regime.coordinate("warmup"), regime.values("reference")
    known = f"P_ref = {in_words(reference)}"
    panel(drawn, axes, regime.title(steps), x=WARMUP, y="F − P_ref (loss)", below=known)
    best_length(drawn, axes, regime, steps)
    for name, look in LINES.items():
        above = regime.values(name, steps) - reference[:, None]
        median_line(drawn, axes, look, lengths, above)
    unstable_marks(drawn, axes, lengths, regime.values("objective", steps))
    rounds_axis(axes, lengths[-1])


def _limits(found: list[Group]) -> tuple[float, float]:
    """Smallest and largest number of all panels."""
    arrays = [
        regime.values(name, steps) - regime.values("reference")[:, None]
        for regime in found
        for steps in _local_steps(regime)
        for name in LINES
    ]
    return finite_range(arrays)
