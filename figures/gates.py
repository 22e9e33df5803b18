"""Figure 12: do ReLU gates settle before weights, and what does fixing them remove? (FedSQ)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import caption, median_line, panel
from linattn.report.style import LOOKS, Look, PageLook, legend, sheet
from linattn.report.words import in_words, mostly, reproduced

NAME = "gates"
SIMULATION = "gates"
DISTANCES = {
    "gate_distance": Look("gates that still differ", "#332288", "-"),
    "weight_distance": Look("distance of weights", "#CC6677", "--"),
}
PARTS = {
    "mismatch": LOOKS["measured"]._replace(label="mismatch of FedAvg"),
    "multilinear": Look("under fixed gates (left by FedSQ)", "#44AA99", "--"),
    "gate_flip": Look("gate flips (removed by FedSQ)", "#882255", ":"),
}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    with sheet(NAME, len(found), 3, height=3.0, width=8.4, look=look) as drawn:
        for world, (settle, parts, after) in zip(found, drawn.axes, strict=True):
            _settling(drawn, settle, world)
            _parts(drawn, parts, world)
            _after(drawn, after, world)
        legend(drawn, columns=4)
        caption(drawn, f"Lines: median over seeds, bands: 10–90 %. {_claims(found)}")
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return half-way distances, shares of the mismatch and final objectives, then the claims."""
    found = groups(results)
    lines = []
    for world in found:
        half = len(world.coordinate("round")) // 2
        gates, weights = (in_words(world.values(name)[:, half], percent=True) for name in DISTANCES)
        lines.append(
            f"{world.label}: half-way {gates} of the gates' and {weights} of the weights' distance "
            f"is left; gate flips are {in_words(_share(world), percent=True)} of the mismatch"
        )
        for length, ratio in zip(world.coordinate("pretraining"), _ratios(world).T, strict=True):
            lines.append(
                f"{world.label}: after {length:.0f} rounds of pre-training FedSQ ends at "
                f"{in_words(ratio)} of FedAvg's objective"
            )
    return "\n".join([*lines, _claims(found)])


def _settling(drawn: Any, axes: Any, world: Group) -> None:
    y = "share of the distance left"
    panel(drawn, axes, f"{world.label}: settling", x="round", y=y, outer=False)
    axes.set_title(f"{world.label}:\ndistance to the last round", fontsize=7)
    for name, look in DISTANCES.items():
        median_line(drawn, axes, look, world.coordinate("round"), world.values(name))
    axes.set_ylim(bottom=0.0)


def _parts(drawn: Any, axes: Any, world: Group) -> None:
    panel(drawn, axes, f"{world.label}: mismatch", x="round", y="relative norm", outer=False)
    axes.set_title("output mismatch after averaging", fontsize=7)
    axes.set_yscale("log")
    for name, look in PARTS.items():
        median_line(drawn, axes, look, world.coordinate("round")[1:], world.values(name)[:, 1:])


def _after(drawn: Any, axes: Any, world: Group) -> None:
    y = "F of FedSQ / F of FedAvg"
    panel(drawn, axes, f"{world.label}: {y}", x="rounds of pre-training", y=y, outer=False)
    axes.set_title("both continued from pre-training", fontsize=7)
    median_line(drawn, axes, "fed_sq", world.coordinate("pretraining"), _ratios(world))
    drawn.level(axes, "fed_avg", 1.0, linewidth=0.8)


def _ratios(world: Group) -> Array:
    """Final objective of FedSQ over that of FedAvg, (seeds, pre-training)."""
    sq, avg = (world.values(name)[..., -1] for name in ("fed_sq", "fed_avg"))
    return np.asarray(np.where(np.isnan(sq), np.inf, sq) / avg)


def _share(world: Group) -> Array:
    """Squared norm of the gate-flip part over the sum of both squared parts, mean over rounds."""
    flip, rest = (world.values(name)[:, 1:] ** 2 for name in ("gate_flip", "multilinear"))
    return np.asarray((flip / (flip + rest)).mean(axis=1))


def _claims(found: list[Group]) -> str:
    """FedSQ's premise and promise in our words against the stored numbers."""
    first, lower, start = [], [], []
    for world in found:
        gates, weights = (world.values(name)[:, 1:-1].mean(axis=1) for name in DISTANCES)
        first.append(mostly(gates < weights))
        trained = world.coordinate("pretraining") > 0
        ratios = _ratios(world)
        lower += [mostly(column < 1.0) for column in ratios[:, trained].T]
        start += [mostly(column > 1.0) for column in ratios[:, ~trained].T]
    share = np.concatenate([_share(world) for world in found])
    return (
        "Premise (FedSQ): gates settle before weights (less of their distance to the end is left, "
        f"mean over rounds): {reproduced(first)}. Fixing gates removes the gate flips, "
        f"{in_words(share, percent=True, digits=2)} of the squared mismatch. Promise: from a "
        f"pre-trained start it ends lower than FedAvg: {reproduced(lower, 'setting')}; our "
        f"prediction that it loses from a random start: {reproduced(start)}."
    )
