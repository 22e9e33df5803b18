"""What freezing saves over the drift number, in worlds of several heterogeneity (C18)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page
from linattn.report.groups import Group, groups, spec_fields
from linattn.report.looks import shaded
from linattn.report.regimes import PAIR, drift
from linattn.report.words import in_words

NAME = "freezing_map"
SIMULATION = "response"
S = Axis("drift number s = η(E − 1)/2 (1/curvature)", "symlog", low=0.0, threshold=0.02)
BASE = {"initial.kernel": "merged", "initial.num_heads": 1, "weights": "sequences"}
"""The model of all worlds where there are several."""
CAPTION = (
    "What freezing at the best length saves of the excess that never freezing leaves, at the step "
    "size and number of local steps of the run, in worlds by heterogeneity of targets and "
    "covariates. With one local step (s = 0), and where all clients hold the same data, there is "
    "no drift and nothing to save."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    page = Page(NAME, CAPTION, summary(results).splitlines(), columns=1, height=2.8)
    panel = page.panel(
        "what freezing saves", S, Axis("share of the excess (1)", low=-0.02, high=1.0)
    )
    found = [(_words(world), world) for world in _worlds(results, identical=False)]
    found += [("identical clients", world) for world in _worlds(results, identical=True)]
    for (_, world), shown in zip(found, shaded(name for name, _ in found), strict=True):
        at = np.array([(s, float(np.median(saved))) for s, saved in _by_drift(world)])
        panel.add("line", shown, *at.T, marker="o")
    return page.save(folder, look)


def _by_drift(world: Group) -> list[tuple[float, Array]]:
    """What is saved at every drift number, whatever η and E have it."""
    parts = sorted(world.split(*PAIR), key=drift)
    return [
        (s, np.concatenate([_saved(part) for part in some])) for s, some in groupby(parts, drift)
    ]


def _words(world: Group) -> str:
    target, covariate, _ = world.heterogeneity
    return f"target {target:g}, covariate {covariate:g}"


def summary(results: Sequence[Result]) -> str:
    """Return what is saved with drift, and that controls save nothing."""
    parts = [p for w in _worlds(results, identical=False) for p in w.split(*PAIR)]
    moving = [_saved(p) for p in parts if drift(p) > 0.0]
    still = [_saved(p) for p in parts if drift(p) == 0.0]
    still += [_saved(p) for w in _worlds(results, identical=True) for p in w.split(*PAIR)]
    lines = []
    if moving:
        lines.append(
            "with drift and clients that differ, freezing saves "
            f"{in_words(np.concatenate(moving), percent=True)} of the excess"
        )
    if still:
        most = float(np.concatenate(still).max())
        lines.append(f"with one local step or identical clients it saves {most:.2g} at most")
    return "\n".join(lines)


def _worlds(results: Sequence[Result], *, identical: bool) -> list[Group]:
    plain = [result for result in results if BASE.items() <= spec_fields(result).items()]
    held = groups(plain or results, *PAIR, "routes")
    return [world for world in held if world.fields.get("identical", False) == identical]


def _saved(part: Group) -> Array:
    return np.maximum(part.values("saved"), 0.0)
