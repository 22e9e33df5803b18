"""What averaging leaves of the value problem after freezing, and who recovers it (C8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS
from linattn.report.regimes import TIME, time
from linattn.report.words import bounded, in_words, mostly, reproduced

NAME = "second_stage"
SIMULATION = "second_stage"
SHOWN = ((0.75, 0.0, 0.0), (0.75, 0.3, 0.0), (1.5, 0.3, 0.0))
STAGES = {
    "fed_avg": LOOKS["fed_frozen"]._replace(label="averaging (FedFrozen)"),
    "scaffold": LOOKS["frozen_scaffold"]._replace(label="control variates (SCAFFOLD)"),
    "one_shot": LOOKS["frozen_one_shot"]._replace(label="one exact round"),
}
FLOOR = LOOKS["value_floor"]._replace(label="frozen floor of averaging (exact formula)", line=":")
LOWEST = 1e-7
"""Below this share of the largest gap nothing is shown."""
CAPTION = (
    "Second stages of FedFrozen from one warm-up. Top: what is left of the value problem, along "
    "the rounds after a warm-up of time {0:g}. Bottom: its share of the final loss above P_ref, "
    "against the warm-up time."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    most = max(world.fields["local_steps"] for world in found)
    shown = [w for w in found if w.fields["local_steps"] == most and w.heterogeneity in SHOWN
             and not w.factored][:3] or found[:3]  # fmt: skip
    place = _middle(shown[0])
    caption = CAPTION.format(shown[0].coordinate("time")[place])
    page = Page(NAME, caption, summary(results).splitlines(), _lines(found), columns=len(shown))
    for world in shown:
        gap = bounded(world.values("gap")[:, :, place])
        first = int(world.values("length")[0, place])
        top = float(np.median(gap[:, :, first]))
        panel = page.panel(world.label, Axis("time ηE of the rounds so far (1/curvature)", low=0.0),
                           log("F − P(B_T) (loss)", LOWEST * top, 2.0 * top))  # fmt: skip
        for s, name in enumerate(world.names("stage")):
            panel.curve(STAGES[name], time(world, "round")[first:], gap[:, s, first:], marker="")
        floor = world.values("floor")[:, place]
        if np.isfinite(floor).all():
            panel.level(FLOOR, float(np.median(floor)))
    for world in shown:
        panel = page.panel(f"left at the end: {world.label}", TIME,
                           Axis("share of F − P_ref (%)", low=0.0, high=100.0))  # fmt: skip
        for name in world.names("stage"):
            panel.curve(STAGES[name], world.coordinate("time"), 100.0 * _share(world, name))
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return whether averaging leaves a floor, and who recovers it."""
    found = [world for world in groups(results) if world.heterogeneity[1] > 0.0]
    if not found:
        return "covariates differ in no world"
    drift = np.concatenate([_share(w, "fed_avg")[:, _middle(w)] for w in found])
    closed = []
    for world in found:
        with np.errstate(invalid="ignore"):
            ratio = (world.values("floor") / _ends(world, "fed_avg"))[:, _middle(world)]
        closed.append(mostly((ratio > 0.5) & (ratio < 2.0)))
    variates, exact = (
        [mostly(_recovered(w, n)[:, _middle(w)] > 0.5) for w in found if n in w.names("stage")]
        for n in ("scaffold", "one_shot")
    )
    return "\n".join(
        [
            f"after averaging {in_words(drift, percent=True)} of the loss above P_ref is value "
            "drift, where covariates differ",
            f"prediction: it is the frozen floor of the closed form: {reproduced(closed)}",
            f"prediction: control variates recover most of it: {reproduced(variates)}; one exact "
            f"round does: {reproduced(exact)}",
        ]
    )


def _lines(found: Sequence[Group]) -> list[str]:
    return [
        f"{world.label}: value drift {in_words(_share(world, 'fed_avg')[:, _middle(world)])} of "
        "F − P_ref; recovered by "
        + ", ".join(
            f"{STAGES[n].label} {in_words(_recovered(world, n)[:, _middle(world)], percent=True)}"
            for n in world.names("stage")[1:]
        )
        for world in found
    ]


def _middle(world: Group) -> int:
    """Place of the middle warm-up time."""
    return len(world.coordinate("time")) // 2


def _ends(world: Group, stage: str) -> Array:
    """F − P(B_T) after the last round, (seeds, times)."""
    return bounded(world.values("gap", stage=stage)[..., -1])


def _share(world: Group, stage: str) -> Array:
    """Part of F − P_ref that is F − P(B_T), all of it where the stage diverged."""
    gap = _ends(world, stage)
    with np.errstate(invalid="ignore"):
        share = gap / (gap + np.maximum(world.values("kernel_bias"), 0.0))
    return np.where(np.isfinite(gap), share, 1.0)


def _recovered(world: Group, stage: str) -> Array:
    """Share of the value drift of averaging that a stage removes, of the whole scale at least 0."""
    left, gap = _ends(world, stage), _ends(world, "fed_avg")
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(gap), 1.0 - left / gap, np.isfinite(left).astype(float))
