"""Figure 8: what averaging leaves of the value problem after freezing, and who recovers it.

Per world: F − P(B_T) along the rounds of every second stage, and the share of the remaining loss
F − P_ref that is frozen value drift.
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
from linattn.report.style import LOOKS, PageLook, legend, sheet
from linattn.report.words import in_words, last_known, mostly, page_name, pages, reproduced

NAME = "second_stage"
SIMULATION = "second_stage"
STAGES = {
    "fed_avg": LOOKS["fed_frozen"]._replace(label="averaging (FedFrozen)", marker="o"),
    "scaffold": LOOKS["frozen_scaffold"]._replace(label="SCAFFOLD", marker="D"),
    "one_shot": LOOKS["frozen_one_shot"]._replace(label="one exact round", marker="*"),
}
FLOOR = LOOKS["value_floor"]._replace(label="frozen floor of averaging (exact formula)", line=":")
LOWEST = 1e-7
"""Below this share of the largest gap nothing is shown."""


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    words = _claims(found)
    made: list[Path] = []
    for number, page in enumerate(pages(found, 4)):
        name = page_name(NAME, number)
        with sheet(name, 2, len(page), height=2.1, look=look) as drawn:
            for world, (top, bottom) in zip(page, drawn.axes.T, strict=True):
                _along_rounds(drawn, top, world, first=world is page[0])
                _shares(drawn, bottom, world, first=world is page[0])
            legend(drawn)
            caption(
                drawn,
                "Second stages of FedFrozen from one warm-up. Lines: median over seeds, bands: "
                f"10–90 %. {words}",
            )
            made += drawn.save(folder)
    return made


def summary(results: Sequence[Result]) -> str:
    """Return shares of value drift and what is recovered of it, with quantiles."""
    found = groups(results)
    lines = []
    for world in found:
        place = _middle(world)
        length = int(world.coordinate("warmup")[place])
        share = in_words(_share(world, "fed_avg")[:, place], percent=True)
        with np.errstate(invalid="ignore"):
            floor = world.values("floor")[:, place] / _ends(world, "fed_avg")[:, place]
        left = in_words(_known(floor))
        parts = [f"T = {length}: value drift {share} of F − P_ref, its floor {left} of it"]
        for stage in _stages(world)[1:]:
            recovered = in_words(_known(_recovered(world, stage)[:, place]), percent=True)
            parts.append(f"{STAGES[stage].label} recovers {recovered} of it")
        accuracy = world.values("test_accuracy")
        if np.isfinite(accuracy).all():
            for s, stage in enumerate(_stages(world)):
                right = in_words(accuracy[:, s, place], percent=True)
                parts.append(f"test accuracy {STAGES[stage].label} {right}")
        lines.append(f"{world.label}, {'; '.join(parts)}")
    return "\n".join([*lines, _claims(found)])


def _along_rounds(drawn: Any, axes: Any, world: Group, *, first: bool) -> None:
    """The gap of every stage from the middle warm-up length on."""
    place = _middle(world)
    length = int(world.coordinate("warmup")[place])
    title = f"{world.label}, T = {length}"
    panel(drawn, axes, title, x="round", y="F − P(B_T) (loss)" if first else "", outer=False,
          wrap=30)  # fmt: skip
    rounds = world.coordinate("round")[length:]
    gap = last_known(world.values("gap")[:, :, place, length:])  # diverged where it ends
    axes.set_yscale("log")
    for s, stage in enumerate(_stages(world)):
        median_line(drawn, axes, STAGES[stage], rounds, gap[:, s], marker="")
    floor = world.values("floor")[:, place]
    if np.isfinite(floor).all():
        drawn.level(axes, FLOOR, float(np.median(floor)))
    top = float(gap[..., 0].max())
    top = top if np.isfinite(top) else 1.0
    axes.set_ylim(LOWEST * top, 2.0 * top)


def _shares(drawn: Any, axes: Any, world: Group, *, first: bool) -> None:
    y = "share of F − P_ref (%)" if first else ""
    panel(drawn, axes, f"{world.label}: value drift left", x="warm-up length T", y=y, outer=False,
          wrap=30)  # fmt: skip
    axes.set_title("frozen value drift at the end", fontsize=7)
    lengths = world.coordinate("warmup")
    for stage in _stages(world):
        median_line(drawn, axes, STAGES[stage], lengths, 100.0 * _share(world, stage))
    with np.errstate(invalid="ignore"):
        floor = world.values("floor") / (_ends(world, "fed_avg") + world.values("kernel_bias"))
    median_line(drawn, axes, FLOOR, lengths, 100.0 * floor, linewidth=1.0)
    axes.set_ylim(-4.0, 104.0)


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]


def _stages(world: Group) -> list[str]:
    return [str(stage) for stage in world.results[0].dataset["stage"].values]


def _middle(world: Group) -> int:
    """Place of the middle warm-up length."""
    return len(world.coordinate("warmup")) // 2


def _ends(world: Group, stage: str) -> Array:
    """F − P(B_T) after the last round, (seeds, lengths)."""
    return last_known(world.values("gap")[:, _stages(world).index(stage), :, -1])


def _share(world: Group, stage: str) -> Array:
    """Part of F − P_ref that is F − P(B_T), all of it where the stage diverged."""
    end, bias = _ends(world, stage), world.values("kernel_bias")
    finite = np.where(np.isfinite(end), end, 0.0)
    return np.asarray(np.where(np.isfinite(end), finite / (finite + bias), 1.0))


def _recovered(world: Group, stage: str) -> Array:
    """Part of what averaging leaves that another stage removes in the same rounds, at least −1."""
    end, base = _ends(world, stage), _ends(world, "fed_avg")
    with np.errstate(invalid="ignore"):  # both diverged: nothing to recover
        return np.asarray(np.maximum(1.0 - end / base, -1.0))


def _claims(found: list[Group]) -> str:
    """The predictions against the stored numbers."""
    words = []
    for stage in ("scaffold", "one_shot"):
        cases = [
            mostly(_ends(w, stage)[:, k] < 0.1 * w.values("floor")[:, k])
            for w in found
            for k in range(len(w.coordinate("warmup")))
            if stage in _stages(w)
        ]
        words.append(f"{STAGES[stage].label} is there in these rounds: "
                     f"{reproduced(cases, 'setting')}")  # fmt: skip
    return (
        "Prediction (ours, after the SCAFFOLD paper): averaging stops at a floor of client drift; "
        "control variates or one exact round go through it, here to below a tenth of it. "
        f"{'; '.join(words)}. Above the floor averaging is still under way."
    )
