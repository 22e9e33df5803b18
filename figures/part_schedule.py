"""FedPart's schedules at depth three against rounds, floats and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS, Look
from linattn.report.words import bounded, in_words, mostly, page_name, pages, reproduced

NAME = "part_schedule"
SIMULATION = "part_schedule"
PRICES = {"round": "round", "floats": "floats, both ways", "multiply_adds": "multiply-adds"}
ORDERS = {
    "sequential": LOOKS["fed_part"]._replace(marker=""),
    "reverse": LOOKS["fed_part"]._replace(marker="", colour="#DDCC77", line="--"),
    "random": LOOKS["fed_part"]._replace(marker="", colour="#44AA99", line=":"),
}
INITIAL = ("#332288", "#CC6677", "#999933", "#88CCEE")
CAPTION = (
    "FedPart with W full rounds before every cycle over the groups, every schedule at its best "
    "step; objective over the last of FedAvg on the same seed. Floats and multiply-adds are "
    "counted by the accountant."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    made: list[Path] = []
    for place, found in enumerate(pages(groups(results), 2)):
        lines = [line for world in found for line in _lines(world)]
        page = Page(page_name(NAME, place), CAPTION, summary(results).splitlines(), lines)
        for count, world in enumerate(found):
            kind = world.fields["groups"]
            before = sum(other.fields["groups"] == kind for other in found[:count])
            for price, label in PRICES.items():
                bought = f"{kind} by {kind}: {label}{' again' * before}"
                title = world.label if price == "round" else bought
                panel = page.panel(title, Axis(label, low=0.0), log("F / last F of FedAvg (1)"))
                last = _of(world, "objective", "fed_avg")[:, -1:]
                for name in world.names("schedule"):
                    # Prices differ between seeds at random orders only.
                    x = (world.coordinate("round") if price == "round"
                         else np.median(_of(world, price, name), axis=0))  # fmt: skip
                    panel.curve(_look(world, name), x, _of(world, "objective", name) / last)
        made += page.save(folder, look)
    return made


def summary(results: Sequence[Result]) -> str:
    """Return FedPart's claims against the stored numbers."""
    rounds, order, initial = [], [], []
    equal: dict[str, list[bool]] = {"floats": [], "multiply_adds": []}
    for world in groups(results):
        names = world.names("schedule")[1:]
        base = names[0]
        rounds.append(mostly(_end(world, base) <= _end(world, "fed_avg")))
        for price, hits in equal.items():
            hits.append(mostly(_end(world, base) < _at_equal_price(world, price, base)))
        rivals = [n for n in names if n.endswith(base.split(", ")[1]) and n != base]
        order += [mostly(_end(world, base) < _end(world, n)) for n in rivals]
        held = sorted((int(n.split(", ")[1]), n) for n in names if n.startswith("sequential"))
        initial += [
            mostly(_end(world, more) < _end(world, less)) for (_, less), (_, more) in pairwise(held)
        ]
    return "\n".join(
        [
            "claim (FedPart): it ends at least as low as full training at equal rounds: "
            f"{reproduced(rounds)}; floats: {reproduced(equal['floats'])}; multiply-adds: "
            f"{reproduced(equal['multiply_adds'])}",
            f"first to last layer is the best order: {reproduced(order, 'comparison')}",
            f"more full rounds first end lower: {reproduced(initial, 'comparison')}",
        ]
    )


def _lines(world: Group) -> list[str]:
    """Final objectives, floats and multiply-adds of every schedule."""
    lines = []
    for name in world.names("schedule"):
        floats, work = (
            in_words(_of(world, p, name)[:, -1] / _of(world, p, "fed_avg")[:, -1], percent=True)
            for p in ("floats", "multiply_adds")
        )
        lines.append(
            f"{world.label}: {_look(world, name).label}: final F {in_words(_end(world, name))}, "
            f"floats {floats} and multiply-adds {work} of FedAvg's; step "
            f"{in_words(world.values('factor', schedule=name), digits=2)} units"
        )
    return lines


def _look(world: Group, name: str) -> Look:
    """FedAvg; orders at the first W; other W in colours of their own."""
    if name == "fed_avg":
        return LOOKS["fed_avg"]._replace(marker="")
    order, first = name.split(", ")
    names = world.names("schedule")[1:]
    if first == names[0].split(", ")[1]:
        return ORDERS[order]._replace(label=f"{order}, W = {first}")
    others = [n for n in names if n.split(", ")[1] != names[0].split(", ")[1]]
    return Look(f"{order}, W = {first}", INITIAL[others.index(name) % len(INITIAL)], "-.")


def _of(world: Group, name: str, schedule: str) -> Array:
    return world.values(name, schedule=schedule)


def _end(world: Group, schedule: str) -> Array:
    return bounded(_of(world, "objective", schedule)[:, -1])


def _at_equal_price(world: Group, price: str, schedule: str) -> Array:
    """FedAvg's objective when it has spent what the schedule spends in all, per seed."""
    spent = _of(world, price, schedule)[:, -1]
    full, objective = (_of(world, name, "fed_avg") for name in (price, "objective"))
    return np.array(
        [o[max(int(np.searchsorted(f, s, "right")) - 1, 0)]
         for f, o, s in zip(full, objective, spent, strict=True)]
    )  # fmt: skip
