"""Figure 10: FedPart's schedules at depth three against rounds, floats and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import caption, median_line, panel
from linattn.report.style import LOOKS, Look, PageLook, legend, sheet
from linattn.report.words import in_words, last_known, mostly, reproduced

NAME = "part_schedule"
SIMULATION = "part_schedule"
PRICES = {"round": "round", "floats": "floats, both ways", "multiply_adds": "multiply-adds"}
ORDERS = {
    "sequential": LOOKS["fed_part"]._replace(marker=""),
    "reverse": LOOKS["fed_part"]._replace(marker="", colour="#DDCC77", line="--"),
    "random": LOOKS["fed_part"]._replace(marker="", colour="#44AA99", line=":"),
}
INITIAL = ("#332288", "#CC6677", "#999933", "#88CCEE")


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found, lost = _comparable(results)
    with sheet(NAME, len(found), 3, height=2.5, sharey="row", look=look) as drawn:
        for world, row in zip(found, drawn.axes, strict=True):
            for axes, (price, label) in zip(row, PRICES.items(), strict=True):
                y = "F / final F of FedAvg" if price == "round" else ""
                panel(drawn, axes, f"{world.label}: {label}", x=label, y=y, outer=False)
                shown = fill(world.label, 34) if price == "round" else f"per {label}"
                axes.set_title(shown, fontsize=7)
                _curves(drawn, axes, world, price)
        legend(drawn, columns=3)
        caption(drawn, "FedPart with W full rounds before every cycle over the groups; floats and "
                "multiply-adds counted by the accountant. Lines: median over seeds, bands: "
                f"10–90 %. {_claims(found)}{lost}")  # fmt: skip
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return final objectives, floats and multiply-adds of every schedule, then the claims."""
    found, lost = _comparable(results)
    lines = []
    for world in found:
        for name in _schedules(world):
            floats, work = (_price(world, price, name) for price in ("floats", "multiply_adds"))
            end = in_words(_end(world, name))
            lines.append(
                f"{world.label}: {_look(world, name).label}: final F {end}, floats "
                f"{in_words(floats, percent=True)} and multiply-adds "
                f"{in_words(work, percent=True)} of FedAvg's"
            )
    return "\n".join([*lines, _claims(found) + lost])


def _comparable(results: Sequence[Result]) -> tuple[list[Group], str]:
    """Worlds without the seeds in which FedAvg diverged, and a sentence on them."""
    found = groups(results)
    kept = []
    for world in found:
        ended = np.isfinite(_of(world, "objective", "fed_avg")[:, -1])
        results = [r for r, known in zip(world.results, ended, strict=True) if known]
        kept.append(replace(world, results=results or world.results))
    lost = sum(a.seeds - b.seeds for a, b in zip(found, kept, strict=True))
    return kept, f" Seeds left out because FedAvg diverged: {lost}." if lost else ""


def _curves(drawn: Any, axes: Any, world: Group, price: str) -> None:
    """Median of F over FedAvg's last F of the same seed; prices differ at random orders only."""
    axes.set_yscale("log")
    for name in _schedules(world):
        x = (
            world.coordinate("round")
            if price == "round"
            else np.median(_of(world, price, name), axis=0)
        )
        relative = _of(world, "objective", name) / _of(world, "objective", "fed_avg")[:, -1:]
        median_line(drawn, axes, _look(world, name), x, relative)
    _plain_ticks(axes)


def _plain_ticks(axes: Any) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    low, high = axes.get_ylim()
    ticks = [t for t in (0.5, 0.7, 1, 1.2, 1.5, 2, 3, 5, 10) if low <= t <= high]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _schedules(world: Group) -> list[str]:
    return [str(name) for name in world.results[0].dataset["schedule"].values]


def _look(world: Group, name: str) -> Look:
    """FedAvg; orders at the first W; other W in colours of their own."""
    if name == "fed_avg":
        return LOOKS["fed_avg"]._replace(marker="", line="-")
    order, first = name.split(", ")
    names = _schedules(world)[1:]
    if first == names[0].split(", ")[1]:
        return ORDERS[order]._replace(label=f"{order}, W = {first}")
    others = [n for n in names if n.split(", ")[1] != names[0].split(", ")[1]]
    colour = INITIAL[others.index(name) % len(INITIAL)]
    return Look(f"{order}, W = {first}", colour, "-.")


def _of(world: Group, name: str, schedule: str) -> Array:
    return world.values(name)[:, _schedules(world).index(schedule)]


def _end(world: Group, schedule: str) -> Array:
    return last_known(_of(world, "objective", schedule)[:, -1])


def _price(world: Group, price: str, schedule: str) -> Array:
    return _of(world, price, schedule)[:, -1] / _of(world, price, "fed_avg")[:, -1]


def _at_equal_price(world: Group, price: str, schedule: str) -> Array:
    """FedAvg's objective when it has spent what the schedule spends in all, per seed."""
    spent = _of(world, price, schedule)[:, -1]
    full = _of(world, price, "fed_avg")
    objective = _of(world, "objective", "fed_avg")
    return np.array(
        [o[max(int(np.searchsorted(f, s, "right")) - 1, 0)]
         for f, o, s in zip(full, objective, spent, strict=True)]
    )  # fmt: skip


def _claims(found: list[Group]) -> str:
    """FedPart's claims in our words against the stored numbers."""
    words = []
    equal: dict[str, list[bool]] = {"floats": [], "multiply_adds": []}
    rounds, order, initial = [], [], []
    for world in found:
        names = _schedules(world)[1:]
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
    words.append(f"at equal rounds {reproduced(rounds)}")
    words.append(f"at equal floats {reproduced(equal['floats'])}")
    words.append(f"at equal multiply-adds {reproduced(equal['multiply_adds'])}")
    return (
        f"Claims (FedPart): it ends at least as low as full training: {', '.join(words)}; first "
        f"to last layer is the best order: {reproduced(order, 'comparison')}; more full rounds "
        f"first end lower: {reproduced(initial, 'comparison')}."
    )
