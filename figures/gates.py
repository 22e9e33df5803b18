"""Do ReLU gates settle before weights, and what does fixing them remove? (FedSQ)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS, Look
from linattn.report.words import bounded, in_words, mostly, reproduced

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
CAPTION = (
    "Gates of a deep ReLU model along FedAvg at its best step. Left: share of the distance to the "
    "last round that is left. Middle: mismatch of outputs after averaging, and its two parts. "
    "Right: FedSQ over FedAvg, both continued from as many rounds, each at its best step."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    page = Page(NAME, CAPTION, summary(results).splitlines(), _lines(found))
    for world in found[:2]:
        rounds = world.coordinate("round")
        settle = page.panel(world.label, "round", Axis("share left (1)", low=0.0))
        parts = page.panel(f"mismatch, {_short(world)}", "round", log("relative (1)"))
        after = page.panel(f"FedSQ, {_short(world)}", "rounds of pre-training",
                           "F of FedSQ / F of FedAvg (1)")  # fmt: skip
        for name, shown in DISTANCES.items():
            settle.curve(shown, rounds, world.values(name))
        for name, shown in PARTS.items():
            parts.curve(shown, rounds[1:], world.values(name)[:, 1:])
        after.curve("fed_sq", world.coordinate("pretraining"), _ratios(world))
        after.level("fed_avg", 1.0)
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return FedSQ's premise and promise against the stored numbers."""
    found = groups(results)
    first, lower, start = [], [], []
    for world in found:
        gates, weights = (world.values(name)[:, 1:-1].mean(axis=1) for name in DISTANCES)
        first.append(mostly(gates < weights))
        trained, ratios = world.coordinate("pretraining") > 0, _ratios(world)
        lower += [mostly(column < 1.0) for column in ratios[:, trained].T]
        start += [mostly(column > 1.0) for column in ratios[:, ~trained].T]
    share = np.concatenate([_share(world) for world in found])
    return "\n".join(
        [
            "premise (FedSQ): gates settle before weights (less of their distance is left, mean "
            f"over rounds): {reproduced(first)}",
            "fixing gates removes the gate flips, "
            f"{in_words(share, percent=True, digits=2)} of the squared mismatch",
            "promise: from a pre-trained start it ends lower than FedAvg: "
            f"{reproduced(lower, 'setting')}; our prediction that it loses from a random start: "
            f"{reproduced(start)}",
        ]
    )


def _lines(found: Sequence[Group]) -> list[str]:
    """Half-way distances, and final objectives of FedSQ."""
    lines = []
    for world in found:
        half = len(world.coordinate("round")) // 2
        gates, weights = (in_words(world.values(n)[:, half], percent=True) for n in DISTANCES)
        lines.append(f"{world.label}: half-way {gates} of the gates' and {weights} of the weights' "
                     "distance is left")  # fmt: skip
        for length, ratio in zip(world.coordinate("pretraining"), _ratios(world).T, strict=True):
            lines.append(f"{world.label}: after {length:.0f} rounds of pre-training FedSQ ends at "
                         f"{in_words(ratio)} of FedAvg's objective")  # fmt: skip
    return lines


def _short(world: Group) -> str:
    return f"target {world.heterogeneity[0]:g}"


def _ratios(world: Group) -> Array:
    """Final objective of FedSQ over that of FedAvg, (seeds, pre-training)."""
    sq, avg = (bounded(world.values(name)[..., -1]) for name in ("fed_sq", "fed_avg"))
    with np.errstate(invalid="ignore"):
        return np.asarray(sq / avg)


def _share(world: Group) -> Array:
    """Squared norm of the gate-flip part over the sum of both squared parts, mean over rounds."""
    flip, rest = (world.values(name)[:, 1:] ** 2 for name in ("gate_flip", "multilinear"))
    return np.asarray((flip / (flip + rest)).mean(axis=1))
