"""How good a prediction is for how many measurements of drift (C23, C24)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import shaded
from linattn.report.words import in_words

NAME = "response_errors"
SIMULATION = "impulses"
CAPTION = (
    "Largest error of the predicted loss over warm-up lengths, relative to its excess over P_ref, "
    "for runs of several lengths. Left: impulses interpolated along the predicted run (C24), a "
    "point per tolerance. Right: whole passes, each along the path of the one before (C23); pass 0 "
    "is the centralized path."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = _runs(results)
    page = Page(NAME, CAPTION, summary(results).splitlines(), columns=2, height=2.6)
    left = page.panel("interpolated impulses", log("impulses measured (1)"), log("worst error (1)"))
    right = page.panel(
        "passes", Axis("passes (1)", low=-0.2, ticks=(0.0, 1.0, 2.0, 3.0)), log("worst error (1)")
    )
    names = [f"R = {_rounds(part)}, E = {part.fields['local_steps']}" for part in found]
    for part, shown in zip(found, shaded(names), strict=True):
        counts = np.median(part.values("num_impulses"), axis=0)
        left.spots(shown, counts, part.values("worst_error"), marker="o")
        left.add("line", shown, counts, np.median(part.values("worst_error"), axis=0))
        right.curve(shown, part.coordinate("passes"), part.values("pass_worst_error"))
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return errors and impulses of interpolation, and what passes reach."""
    found = _runs(results)
    tolerances = found[0].coordinate("tolerance")
    place = int(np.argmin(np.abs(tolerances - 0.01)))
    error, count = (
        np.concatenate([part.values(name)[:, place] for part in found])
        for name in ("worst_error", "num_impulses")
    )
    last = np.concatenate([part.values("pass_worst_error")[:, -1] for part in found])
    passes = int(found[0].coordinate("passes")[-1])
    return "\n".join(
        [
            f"at tolerance {tolerances[place]:g} {in_words(count, whole=True)} impulses give the "
            f"curve within {in_words(error, percent=True)}",
            f"{passes} passes give it within {in_words(last, percent=True)}",
        ]
    )


def _runs(results: Sequence[Result]) -> list[Group]:
    """The world with most lengths, by number of rounds."""
    held = max(groups(results, "local_lr", "local_steps"), key=lambda one: len(one.results))
    return sorted(held.split("local_lr", "local_steps"), key=_rounds)


def _rounds(part: Group) -> int:
    return int(part.values("rounds")[0])
