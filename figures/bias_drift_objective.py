"""The final loss against the warm-up time: a panel per world, a curve per drift number (C9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page, log
from linattn.report.groups import Group
from linattn.report.looks import shaded
from linattn.report.regimes import (
    DRIFTS,
    TIME,
    by_drift,
    excess,
    saved,
    star_in_words,
    tame_worlds,
    time,
    tradeoffs,
)
from linattn.report.words import in_words, page_name, pages

NAME = "bias_drift_objective"
SIMULATION = "bias_drift"
CAPTION = (
    "Loss above the best known profile value P_ref after R rounds, T of them warm-up, at several "
    "drift numbers s = η(E − 1)/2 and one horizon τ = ηER. Stars mark the best warm-up, bars the "
    "best of the seeds; the right end of a curve is FedAvg, which never freezes. At s = 0 (E = 1) "
    "there is no drift and no trade-off. Target and covariate: how much clients differ in them."
)
SHADES = dict(zip(DRIFTS, shaded([f"s = {s:g}" for s in DRIFTS]), strict=True))


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    made: list[Path] = []
    for number, found in enumerate(pages(tame_worlds(results), 6)):
        page = Page(page_name(NAME, number), CAPTION, summary(results).splitlines(), columns=2)
        page.details = [
            f"{world.label}, s = {s:g}: {star_in_words(part)}; excess at T* over never freezing "
            f"{in_words(saved(part))}"
            for world in found
            for s, part in by_drift(world)
        ]
        for world in found:
            panel = page.panel(world.label, TIME, log("F − P_ref (loss)"))
            for s, part in by_drift(world):
                look_of = SHADES.get(s) or shaded([f"s = {s:g}"])[0]
                panel.curve(look_of, time(part), excess(part))
                panel.best(time(part), excess(part))
        made += page.save(folder, look)
    return made


def summary(results: Sequence[Result]) -> str:
    """Return how many runs have a trade-off, what it saves, and whether controls coincide."""
    parts = [part for world in tame_worlds(results) for _, part in by_drift(world, ())]
    drifting = [part for part in parts if part.fields["local_steps"] > 1 and _different(part)]
    kept = [saved(p)[p.values("tradeoff") > 0] for p in drifting]
    others = [part for part in parts if part not in drifting]
    inside = np.concatenate([*kept, np.array([])])
    there = f"; there the excess at T* is {in_words(inside)} of that of never freezing"
    lines = []
    if drifting:
        lines.append(
            f"{tradeoffs(drifting)} runs with E > 1 and heterogeneous clients have a trade-off"
            f"{there if inside.size else ''}"
        )
    if others:
        have = f"{tradeoffs(others)} runs have {'one' if drifting else 'a trade-off'}"
        lines.append(f"without drift or heterogeneity of targets {have}")
    return "\n".join([*lines, *_controls(drifting)])


def _different(part: Group) -> bool:
    return part.heterogeneity[0] > 0.0 or part.heterogeneity[2] > 0.0


def _controls(parts: Sequence[Group]) -> list[str]:
    """Whether identical clients and synchronized steps end alike, and are best without freezing."""
    held = [p for p in parts if "objective_identical" in p.results[0].dataset]
    if not held:
        return []
    apart = max(
        float(np.nanmax(np.abs(p.values("objective_identical") / p.values("objective_synchronized")
                               - 1.0))) for p in held
    )  # fmt: skip
    last = np.concatenate(
        [p.values("warmup_identical") == p.coordinate("warmup")[-1] for p in held]
    )
    return [
        f"identical clients and synchronized steps differ by {apart:.0e}; with identical clients "
        f"never freezing is best in {int(last.sum())} of {last.size} runs"
    ]
