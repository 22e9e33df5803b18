"""Where the best warm-up lies, what it saves, and where freezing becomes unstable (C9, C18, C24).

Left: ηET* of every (η, E) against the drift number s alone. Middle: the excess at T* over that of
never freezing. Right: the step from which on averaging with a frozen kernel is unstable, along the
warm-up, where a step beyond it was taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.groups import Group, field
from linattn.report.looks import INK, MARKERS, SHADES, Look
from linattn.report.regimes import (
    HORIZON,
    PAIR,
    TIME,
    drift,
    excess,
    saved,
    tame_worlds,
    time,
    with_tradeoff,
    worlds,
)
from linattn.report.words import in_words

NAME = "best_length"
SIMULATION = "bias_drift"
S = log("drift number s = η(E − 1)/2 (1)")
CAPTION = (
    "One point per world and (η, E), medians over seeds. Left: warm-up time of the best length; "
    "worlds differ, but for each the points of all η and E lie on one curve of s. Middle: loss "
    "above P_ref at T* over that of never freezing. Right: {0}, η = {1:g}, E = {2}: the step from "
    "which on averaging at the frozen kernel is unstable, and the step 2/max λ_max(A_i) that is "
    "always stable, along the warm-up; freezing where the curve is below η diverges."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    beyond = _unstable(results)
    told = (beyond.label, *(beyond.fields[name] for name in PAIR)) if beyond else ("", 0.0, 0)
    page = Page(NAME, CAPTION.format(*told), summary(results).splitlines(), height=2.4)
    where = page.panel("best warm-up time", S, Axis("τ* = ηET* (1/curvature)", low=0.0))
    what = page.panel("what freezing leaves", S, log("excess at T* / never freezing (1)", high=1.2))
    for number, world in enumerate(tame_worlds(results)):
        found = list(_points(world))
        shown = Look(world.label, SHADES[number % 6], "", MARKERS[number % len(MARKERS)])
        for panel, place in ((where, 1), (what, 2)):
            if found:
                rows = [np.median(point[place]) for point in found]
                panel.add("points", shown, [point[0] for point in found], rows)
    if beyond:
        _boundary(page, beyond)
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return how well s alone tells τ*, how good the predicted length is, and the boundary."""
    found = tame_worlds(results)
    every = [part for world in found for part in world.split(*PAIR)]
    known = [p for p in every if "regret_predicted" in p.results[0].dataset]
    regret = (
        np.concatenate([p.values("regret_predicted") for p in known]) if known else np.array([])
    )
    regret = regret[~np.isnan(regret)]
    counts = [p.values("num_impulses") for p in known]
    count = in_words(np.concatenate(counts), whole=True) if known else "no"
    lines = [
        with_tradeoff(
            regret,
            f"the predicted length (C24, {count} impulses) has relative regret {{}} in {{}} runs "
            f"with a trade-off, at most {regret.max(initial=0.0):.2g}",
        )
    ]
    apart = [value for world in found for value in _collapse(world)]
    if apart:
        lines.insert(0, f"τ* at equal s differs between steps η by {in_words(apart, percent=True)}")
    beyond = _unstable(results)
    if beyond:
        step = beyond.values("critical_step").min(axis=1, initial=np.inf, where=_known(beyond))
        lines.append(
            f"{beyond.label}, E = {beyond.fields['local_steps']}: frozen rounds are unstable from "
            f"η = {in_words(step)} on at the worst length; η = {beyond.fields['local_lr']:g} was "
            "taken"
        )
    return "\n".join(lines)


def _unstable(results: Sequence[Result]) -> Group | None:
    found = worlds([r for r in results if field(r, "horizon") > HORIZON])
    return replace(found[0].split(*PAIR)[0], label=found[0].label) if found else None


def _points(world: Group) -> Iterator[tuple[float, Array, Array]]:
    """Drift number, τ* and what is left, of every (η, E) where most seeds have a trade-off."""
    for part in world.split(*PAIR):
        inside = part.values("tradeoff") > 0
        if part.fields["local_steps"] > 1 and inside.mean() > 0.5:
            scale = part.fields["local_lr"] * part.fields["local_steps"]
            yield drift(part), scale * part.values("warmup_star")[inside], saved(part)[inside]


def _collapse(world: Group) -> Iterator[float]:
    """Spread of the median τ* over steps of equal drift number, relative."""
    held: dict[float, list[float]] = {}
    for s, stars, _ in _points(world):
        held.setdefault(s, []).append(float(np.median(stars)))
    for values in held.values():
        if len(values) > 1:
            yield (max(values) - min(values)) / float(np.mean(values))


def _known(part: Group) -> NDArray[np.bool_]:
    return ~np.isnan(part.values("critical_step"))


def _boundary(page: Page, part: Group) -> None:
    panel = page.panel("boundary of stability", TIME, log("step (1/curvature)"))
    kept = _known(part).any(axis=0)
    across = time(part)[kept]
    for name, shown in (
        ("critical_step", Look("unstable from here on", "#882255", "-", "o", 0.8)),
        ("safe_step", Look("2/max λ_max(A_i)", "#009E73", "--")),
    ):
        panel.curve(shown, across, part.values(name)[:, kept])
    panel.level(Look("η of the run", INK, ":"), float(part.fields["local_lr"]))
    lost = ~np.isfinite(excess(part))
    panel.rim(time(part)[lost.any(axis=0)], np.where(lost, np.inf, 1.0)[:, lost.any(axis=0)],
              "freezing here diverges")  # fmt: skip
