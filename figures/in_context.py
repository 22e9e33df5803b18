"""In-context regression: the trade-off above an optimum that is known without any fit (C22)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS, shaded
from linattn.report.regimes import PAIR, TIME, by_drift, time, tradeoffs
from linattn.report.words import in_words

NAME = "in_context"
SIMULATION = "in_context"
APART = "covariance_heterogeneity"
LEARNED = LOOKS["value_floor"]._replace(label="best model of the drawn sequences", line=":")
CAPTION = (
    "In-context linear regression; clients differ in the covariance of their inputs by a factor "
    "exp(az). Top: loss after R rounds, T of them warm-up, in exact moments above the best model, "
    "which a formula knows; stars mark the best warm-up, the dotted line what a best fit to the "
    "drawn sequences leaves. Bottom: how far the kernel with its best value block is from the "
    "optimum on the features. Without local steps (s = 0) or with alike clients (a = 0) there is "
    "no trade-off."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = _worlds(results)
    page = Page(NAME, CAPTION, summary(results).splitlines(), columns=len(found))
    drifts = [s for s, _ in by_drift(found[-1], ())]
    looks = dict(zip(drifts, shaded([f"s = {s:g}" for s in drifts]), strict=True))
    for world in found:
        panel = page.panel(f"a = {_spread(world):g}", TIME, log("F − F* in exact moments (loss)"))
        for s, part in by_drift(world, ()):
            panel.curve(looks[s], time(part), _excess(part))
            panel.best(time(part), _excess(part))
        panel.level(LEARNED, float(np.median(_learned(world))))
    for world in found:
        panel = page.panel(
            f"kernel, a = {_spread(world):g}", TIME, log("‖vB − θ*‖/‖θ*‖ on features (1)")
        )
        for s, part in by_drift(world, ()):
            panel.curve(looks[s], time(part), part.values("apart"))
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return where there is a trade-off, what it saves, and what the sequences do not tell."""
    parts = [part for world in _worlds(results) for _, part in by_drift(world, ())]
    apart = [p for p in parts if p.fields["local_steps"] > 1 and _spread(p) > 0.0]
    controls = [p for p in parts if p not in apart]
    saved = [_excess(p).min(axis=1) / _excess(p)[:, -1] for p in apart]
    learned = np.concatenate([_learned(part) for part in parts])
    still = f"with E = 1 or alike clients {tradeoffs(controls)} runs have one"
    lines = [
        f"{tradeoffs(apart)} runs with E > 1 and clients that differ have a trade-off; the excess "
        f"over the known optimum at the best length is {in_words(np.concatenate(saved))} of that "
        "of never freezing" if saved else "no run has E > 1 and clients that differ",
        *([still] if controls else []),
        f"the best model of the drawn sequences is {in_words(learned)} above the "
        "optimum in exact moments",
    ]  # fmt: skip
    return "\n".join(lines)


def _worlds(results: Sequence[Result]) -> list[Group]:
    return sorted(groups(results, *PAIR), key=_spread)[:3]


def _spread(world: Group) -> float:
    return float(world.fields[APART])


def _excess(part: Group) -> Array:
    return part.values("objective_exact") - part.values("optimum")[:, None]


def _learned(part: Group) -> Array:
    return part.values("learned") - part.values("optimum")
