"""Selective training along λ: E1 (blocks nobody trains) against E2 (blocks only some train)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS, MARKERS, SHADES, Look
from linattn.report.words import bounded, in_words, mostly, reproduced

NAME = "selection"
SIMULATION = "selection"
ERRORS = {
    "unselected_gradient": LOOKS["kernel_bias"]._replace(label="E1: blocks nobody trains"),
    "selection_skew": LOOKS["fed_part"]._replace(label="E2: blocks only some train", marker=""),
    "selection_error": LOOKS["measured"]._replace(label="what E2 bounds", line=":"),
}
CAPTION = (
    "Selective layer training against λ, the price of clients that choose alike, each at its best "
    "step. Left: final objective over that of FedAvg, one line per world. Middle: the two errors "
    "of the masks and what the second bounds, means over rounds, in {0}. Right: share of the "
    "choices that are value blocks."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    world, least = found[-1], _least(found)
    ticks = (0.0, *(t for t in (0.01, 0.1, 1.0, 10.0, 100.0) if t >= least))
    weight = Axis("consistency λ (1)", "symlog", low=0.0, threshold=least, ticks=ticks)
    page = Page(NAME, CAPTION.format(world.label), summary(results).splitlines(), _lines(found),
                height=2.4)  # fmt: skip
    losses = page.panel("final objective", weight, "F / F of FedAvg (1)")
    errors = page.panel("errors of the masks", weight, Axis("squared gradient", low=0.0))
    blocks = page.panel("value blocks chosen", weight, Axis("share (%)", low=0.0, high=100.0))
    for number, each in enumerate(found):
        shown = Look(each.label, SHADES[number % 6], "-", MARKERS[number % len(MARKERS)])
        across = each.coordinate("consistency")
        losses.curve(shown, across, _ends(each))
        blocks.curve(shown, across, 100.0 * _chosen(each))
    for name, shown in ERRORS.items():
        errors.curve(shown, world.coordinate("consistency"), _mean(world, name))
    losses.level("fed_avg", 1.0)
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return the claims on the trade-off against the stored numbers."""
    found = groups(results)
    bound, trade, inside, close = [], [], [], []
    for world in found:
        skew, error = (world.values(n)[..., 1:] for n in ("selection_skew", "selection_error"))
        bound.append(bool(np.all(~(error > skew * (1 + 1e-9) + 1e-300))))
        one, two = (_mean(world, n) for n in ("unselected_gradient", "selection_skew"))
        trade.append(mostly((one[:, -1] > one[:, 0]) & (two[:, -1] < two[:, 0])))
        ends = _ends(world)
        best = ends[:, 1:-1].min(axis=1) if ends.shape[1] > 2 else np.full(len(ends), np.inf)
        inside.append(mostly((best < ends[:, 0]) & (best < ends[:, -1])))
        close.append(mostly(ends.min(axis=1) < 1.05))
    return "\n".join(
        [
            f"bound (ours): E2 is never below the error it bounds: {reproduced(bound)}",
            f"claim (selective): λ trades E2 for E1: {reproduced(trade)}; so the loss is lowest in "
            f"between: {reproduced(inside)}",
            f"a few blocks per client come within 5 % of full training: {reproduced(close)}",
        ]
    )


def _lines(found: Sequence[Group]) -> list[str]:
    return [
        f"{world.label}, λ = {weight:g}: {in_words(_ends(world)[:, k])} of FedAvg's objective, E1 "
        f"{in_words(_mean(world, 'unselected_gradient')[:, k])}, E2 "
        f"{in_words(_mean(world, 'selection_skew')[:, k])}"
        for world in found
        for k, weight in enumerate(world.coordinate("consistency"))
    ]


def _least(found: Sequence[Group]) -> float:
    every = np.concatenate([world.coordinate("consistency") for world in found])
    return float(every[every > 0].min(initial=1.0))


def _ends(world: Group) -> Array:
    """Final objective over FedAvg's, (seeds, λ)."""
    ends = bounded(world.values("objective")[..., -1])
    return np.asarray(ends / world.values("fed_avg")[:, -1:])


def _mean(world: Group, name: str) -> Array:
    return np.asarray(np.nanmean(world.values(name)[..., 1:], axis=-1))


def _chosen(world: Group) -> Array:
    """Share of all choices that are value blocks, (seeds, λ)."""
    held = [name.endswith("value") for name in world.names("block")]
    chosen = world.values("chosen")
    with np.errstate(invalid="ignore"):
        return np.asarray(chosen[..., held].sum(axis=-1) / chosen.sum(axis=-1))
