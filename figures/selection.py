"""Figure 13: selective training along λ, with E1 and E2 of the masks that were sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import caption, median_line, panel
from linattn.report.style import Look, PageLook, legend, sheet
from linattn.report.words import in_words, last_known, mostly, page_name, pages, reproduced

NAME = "selection"
SIMULATION = "selection"
WEIGHT = "consistency λ, scores of mean 1"
ERRORS = {
    "unselected_gradient": Look("E1: nobody trains", "#332288", "-", "o"),
    "selection_skew": Look("E2: only some train (bound)", "#CC6677", "--", "s"),
    "selection_error": Look("what E2 bounds (measured)", "#000000", ":", "."),
}
BLOCKS = {
    "query": Look("query", "#0072B2", "-", "^"),
    "key": Look("key", "#E69F00", "--", "v"),
    "value": Look("value", "#009E73", "-.", "D"),
}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    made: list[Path] = []
    for number, page in enumerate(pages(found, 3)):
        name = page_name(NAME, number)
        with sheet(name, len(page), 3, height=2.8, width=8.4, look=look) as drawn:
            for world, (loss, errors, blocks) in zip(page, drawn.axes, strict=True):
                _losses(drawn, loss, world)
                _errors(drawn, errors, world)
                _blocks(drawn, blocks, world)
            legend(drawn, columns=4)
            caption(drawn, f"Lines: median over seeds, bands: 10–90 %. {_claims(found)}")
            made += drawn.save(folder)
    return made


def summary(results: Sequence[Result]) -> str:
    """Return final objective, E1 and E2 at the ends of the sweep, then the claims."""
    found = groups(results)
    lines = []
    for world in found:
        weights = world.coordinate("consistency")
        for place in (0, len(weights) - 1):
            one, two, _ = (in_words(_mean(world, name)[:, place]) for name in ERRORS)
            end = in_words(_ends(world)[:, place])
            lines.append(
                f"{world.label}, λ = {weights[place]:g}: final F {end} of FedAvg's, "
                f"E1 {one}, E2 {two}"
            )
    return "\n".join([*lines, _claims(found)])


def _losses(drawn: Any, axes: Any, world: Group) -> None:
    y = "F / F of FedAvg, at the end"
    panel(drawn, axes, f"{world.label}: {y}", x=WEIGHT, y=y, outer=False)
    axes.set_title(world.label, fontsize=7)
    median_line(drawn, axes, "selective", world.coordinate("consistency"), _ends(world))
    drawn.level(axes, "fed_avg", 1.0, linewidth=0.8)
    _weights(axes, world)


def _errors(drawn: Any, axes: Any, world: Group) -> None:
    panel(drawn, axes, f"{world.label}: errors", x=WEIGHT, y="squared gradient", outer=False)
    axes.set_title("errors of the masks, mean over rounds", fontsize=7)
    for name, look in ERRORS.items():
        median_line(drawn, axes, look, world.coordinate("consistency"), _mean(world, name))
    axes.set_ylim(bottom=0.0)
    _weights(axes, world)


def _blocks(drawn: Any, axes: Any, world: Group) -> None:
    panel(drawn, axes, f"{world.label}: who is chosen", x=WEIGHT, y="share of choices (%)",
          outer=False)  # fmt: skip
    axes.set_title("blocks that clients train", fontsize=7)
    names = [str(name) for name in world.results[0].dataset["block"].values]
    chosen = world.values("chosen")
    for kind, look in BLOCKS.items():
        held = [place for place, name in enumerate(names) if name.endswith(kind)]
        share = 100.0 * chosen[..., held].mean(axis=-1)
        median_line(drawn, axes, look, world.coordinate("consistency"), share)
    axes.set_ylim(-4.0, 104.0)
    _weights(axes, world)


def _weights(axes: Any, world: Group) -> None:
    """A logarithmic axis of λ that shows 0."""
    from matplotlib.ticker import NullLocator

    weights = world.coordinate("consistency")
    least = float(weights[weights > 0].min(initial=np.inf))
    axes.set_xscale("symlog", linthresh=least, linscale=0.5)
    axes.set_xlim(-0.3 * least, 1.2 * float(weights[-1]))
    ticks = [0.0, *(t for t in (0.01, 0.1, 1.0, 10.0, 100.0) if least <= t <= weights[-1])]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _ends(world: Group) -> Array:
    """Final objective over FedAvg's, (seeds, λ)."""
    ends = last_known(world.values("objective")[..., -1])
    return np.asarray(ends / world.values("fed_avg")[:, -1:])


def _mean(world: Group, name: str) -> Array:
    return np.asarray(np.nanmean(world.values(name)[..., 1:], axis=-1))


def _claims(found: list[Group]) -> str:
    """The claims on the trade-off in our words against the stored numbers."""
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
    return (
        f"Bound (ours): E2 is never below the error it bounds: {reproduced(bound)}. Claim "
        f"(selective): λ trades E2 for E1: {reproduced(trade)}; so the loss is lowest in between: "
        f"{reproduced(inside)}; a few blocks per client come within 5 % of full training: "
        f"{reproduced(close)}."
    )
