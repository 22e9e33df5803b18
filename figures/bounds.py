"""The bias of the frozen stage between its bounds, and what rate it buys (C8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS, Look
from linattn.report.words import bounded, in_words, page_name, pages, spread

NAME = "bounds"
SIMULATION = "bounds"
SERIES = {
    "bias": LOOKS["value_floor"]._replace(label="exact bias", line="-"),
    "lower": Look("lower bound Eρ/λ_max", "#44AA99", ":"),
    "certified": LOOKS["bound"]._replace(label="C8 bound"),
    "crude": Look("C8 bound, any η < 2/λ_max", "#CC79A7", ":"),
    "operator": Look("Malinovsky et al.", "#117733", "-."),
    "alignment": Look("Charles–Konečný (recalled)", "#D55E00", "--"),
}
FRONT = {
    "rate": Look("ρ of a round", "#0072B2", "-", "o"),
    "condition": Look("1 − 1/condition number", "#7F7F7F", "--", "s"),
}
CAPTION = (
    "The fixed point V∞ of frozen rounds at one kernel. Top: its distance to V* against ηE, with "
    "bounds; a bound is drawn where it is not refused. Bottom: the contraction of a round against "
    "that distance, a point per E: more local steps buy speed with bias."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    made: list[Path] = []
    for place, found in enumerate(pages(groups(results), 3)):
        page = Page(page_name(NAME, place), CAPTION, summary(results).splitlines(),
                    [f"{w.label}: {_ratios([w])}" for w in found], max(2, len(found)))  # fmt: skip
        for world in found:
            _bias(page, world)
        for world in found:
            _front(page, world)
        made += page.save(folder, look)
    return made


def summary(results: Sequence[Result]) -> str:
    """Return bound / bias of every bound, over all worlds, E and seeds."""
    return f"bound over exact bias: {_ratios(groups(results))}"


def _ratios(found: Sequence[Group]) -> str:
    words = []
    for name in list(SERIES)[1:]:
        ratios = np.concatenate([(w.values(name) / w.values("bias")).ravel() for w in found])
        words.append(f"{SERIES[name].label} {in_words(ratios[np.isfinite(ratios)])}")
    return ", ".join(words)


def _bias(page: Page, world: Group) -> None:
    curvature = float(np.median(world.values("largest_step_curvature")))
    panel = page.panel(f"{world.label}, ηL = {curvature:.2g}", log("ηE (1/curvature)"),
                       log("‖V∞ − V*‖ (norm)"))  # fmt: skip
    steps = world.coordinate("local_steps")
    across = world.values("step")[0] * steps
    for name, look in SERIES.items():
        panel.curve(look, across, world.values(name))
    panel.level("one_step", across[0] / steps[0] / curvature, upright=True, label="ηLE = 1")
    panel.rim(across, np.where(world.values("stable") > 0, 0.0, np.inf))


def _front(page: Page, world: Group) -> None:
    panel = page.panel(f"rate, {world.label}", log("‖V∞ − V*‖ / ‖V*‖ (1)"), "contraction (1)")
    bias = spread(bounded(world.values("bias")) / world.values("minimizer_norm"))[0]
    for name, look in FRONT.items():
        values = world.values(name)
        shown = values if name == "rate" else 1.0 - 1.0 / values
        panel.curve(look, np.where(np.isfinite(bias), bias, np.nan), shown)
