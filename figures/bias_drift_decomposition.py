"""What every warm-up length costs, split into its exact parts (C9), as the drift number grows.

F(B_T, V_R) − P_ref = kernel bias + value drift (transient + frozen floor + cross term)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page, log
from linattn.report.groups import Group
from linattn.report.looks import LOOKS
from linattn.report.regimes import TIME, by_drift, excess, saved, star_in_words, tame_worlds, time
from linattn.report.words import in_words

NAME = "bias_drift_decomposition"
SIMULATION = "bias_drift"
WORLD = (0.75, 0.3, 0.0)
TOTAL = LOOKS["fed_frozen"]._replace(label="F − P_ref = sum of both", marker="", weight=1.5)
CAPTION = (
    "What is left of the loss above the best known profile value P_ref after T warm-up and R − T "
    "frozen rounds, split exactly: kernel bias (what the kernel has not learned, or lost to "
    "client drift) and value drift (what averaging leaves of the value block), at several drift "
    "numbers s = η(E − 1)/2 and one horizon; stars mark the best warm-up. Beside them the "
    "kernel bias of as many centralized steps."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    world = _world(results)
    page = Page(NAME, f"{CAPTION} World: {world.label}.", summary(results).splitlines(), columns=4,
                height=2.3, share=True)  # fmt: skip
    for s, part in by_drift(world):
        title = f"s = {s:g} (η = {part.fields['local_lr']:g}, E = {part.fields['local_steps']})"
        panel = page.panel(title, TIME, log("loss above P_ref", low=_lowest(world)))
        across = time(part)
        drifted = sum(part.values(f"value_{n}") for n in ("transient", "floor", "cross"))
        centralized = excess(part, "profile_synchronized")
        panel.curve(
            "synchronized", across, centralized, weight=0.7, label="centralized kernel bias"
        )
        panel.curve("kernel_bias", across, part.values("kernel_bias"))
        panel.curve("value_drift", across, drifted)
        panel.curve(TOTAL, across, excess(part))
        panel.best(across, excess(part))
        page.details = [
            *page.details,
            f"s = {s:g}: {star_in_words(part)}; " + "; ".join(
                f"{LOOKS[n].label} at T* {in_words(_at_best(part, part.values(n)))}"
                for n in ("kernel_bias", "value_transient", "value_floor", "value_cross")
            ),
        ]  # fmt: skip
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return what drift costs the kernel, and what the parts are at the best length."""
    world = _world(results)
    s, part = by_drift(world)[-1]
    never, best = excess(part)[:, -1], saved(part)
    kept = np.isfinite(never)
    lost = part.values("kernel_bias")[kept, -1] / never[kept]
    certified = world.values("reference_certified")
    there = f"; the excess there is {in_words(best)} of that of never freezing"
    share = f", {in_words(lost)} of it kernel bias"
    return "\n".join(
        [
            f"{world.label}, s = {s:g}: {star_in_words(part)}"
            f"{there if (part.values('tradeoff') > 0).any() else ''}",
            f"never freezing ends {in_words(never)} above P_ref{share if lost.size else ''}",
            f"P_ref is certified optimal in {int(certified.sum())} of {certified.size} runs",
        ]
    )


def _world(results: Sequence[Result]) -> Group:
    """The world of the figure, or the most heterogeneous there is."""
    found = tame_worlds(results)
    return next((w for w in found if w.heterogeneity == WORLD), found[-1])


def _lowest(world: Group) -> float:
    """A decade below the lowest total: parts far below it are not worth an axis."""
    return 0.1 * min(float(np.nanmin(np.median(excess(p), axis=0))) for _, p in by_drift(world))


def _at_best(part: Group, values: np.ndarray) -> np.ndarray:
    places = excess(part).argmin(axis=1)
    return np.asarray(values[np.arange(len(values)), places])
