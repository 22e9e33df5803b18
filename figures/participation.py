"""Few clients in the warm-up and one exact value round of everybody, on both worlds (C9, C20).

Left: loss at the budget of client work. Middle: test accuracy on digits. Right: how much better
than FedAvg of everybody, and than everybody with an exact round, in every regime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import INK, LOOKS, Look
from linattn.report.words import OF_BOOTSTRAP, OF_SEEDS, bounded, in_words, paired

NAME = "participation"
SIMULATION = "participation"
BUDGETS = {"rounds": "rounds", "floats": "floats", "multiply_adds": "client work"}
SHOWN = "multiply_adds"
BASE = (0.75, 0.3, 0.0)
ENDS = {
    "fed_avg": LOOKS["fed_avg"],
    "fed_frozen": LOOKS["fed_frozen"]._replace(label="then frozen rounds, as many clients"),
    "fed_frozen_all": LOOKS["refit"]._replace(label="then frozen rounds, everybody"),
    "fed_frozen_exact": LOOKS["frozen_one_shot"]._replace(label="then one exact value round"),
}
AGAINST = {
    "fed_avg": Look("FedAvg of everybody", LOOKS["fed_avg"].colour, "", "s"),
    "fed_frozen_exact": Look("everybody, then one exact value round", INK, "", "o"),
}
CAPTION = (
    "FedAvg with a share of the clients in every round, alone and as warm-up of a second stage "
    "of the value block, each at its best step and length, at the client work of {0} rounds of "
    "FedAvg of everybody. Left: {1}, loss above P_ref in units of that of FedAvg of everybody. "
    "Middle: digits, Dirichlet split among fourteen clients, test accuracy at the smallest "
    "training loss. Right: loss of a warm-up with {2:g} of the clients and one exact value "
    "round of everybody, in units of that of two others, by target and covariate heterogeneity "
    "and E: medians, 10–90 % of seeds. "
    f"In the sentences, square brackets: {OF_BOOTSTRAP}; round ones: {OF_SEEDS}."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    main, digits = _main(results), _digits(results)
    told = (main.fields["rounds"], main.label, _few(main))
    lines = _findings(results)
    page = Page(NAME, CAPTION.format(*told), lines[:3], lines[3:], height=2.6)
    _losses(page, main)
    if digits is not None:
        _accuracy(page, digits)
    _regimes(page, _synthetic(results))
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return what few clients and one exact round reach at equal client work, on both worlds."""
    return "\n".join(_findings(results)[:3])


def _findings(results: Sequence[Result]) -> list[str]:
    main, digits = _main(results), _digits(results)
    alone = _ratio(main, SHOWN, "fed_avg", "fed_avg")
    others = [g for g in _synthetic(results) if g is not main and g.label != main.label]
    lost = max(float(1.0 - group.values("interior").mean()) for group in groups(results))
    return [
        _compared(main, SHOWN),
        *([_accuracies(digits)] if digits is not None else []),
        f"FedAvg of {_few(main):g} of the clients itself: {paired(alone)}, of everybody's loss",
        *[_compared(main, budget) for budget in BUDGETS if budget != SHOWN],
        *[_compared(group, SHOWN) for group in others],
        f"ends whose best step is not inside: {100.0 * lost:.2g} % at most",
    ]


def _accuracies(digits: Group) -> str:
    ends = (("fed_avg", 1.0), ("fed_avg", _few(digits)), ("fed_frozen_exact", _few(digits)))
    told = [in_words(100.0 * _at(digits, "score", SHOWN, end, share)) for end, share in ends]
    return (
        f"digits: accuracy of FedAvg with everybody {told[0]} %, with {_few(digits):g} of the "
        f"clients {told[1]} %, of these with one exact value round {told[2]} %"
    )


def _synthetic(results: Sequence[Result]) -> list[Group]:
    return [group for group in groups(results) if group.fields["data"] == "synthetic"]


def _main(results: Sequence[Result]) -> Group:
    """The base world at E = 10, or what comes nearest to it.

    Raises
    ------
    ValueError
        If all runs are of real data.
    """

    def near(group: Group) -> tuple[bool, bool, int]:
        steps = int(group.fields["local_steps"])
        return steps > 1, group.heterogeneity == BASE, -abs(steps - 10)

    found = _synthetic(results)
    if not found:
        raise ValueError("runs must be of a synthetic problem too, but all are of real data.")
    return max(found, key=near)


def _digits(results: Sequence[Result]) -> Group | None:
    found = [g for g in groups(results) if g.fields["data"] != "synthetic"]
    return found[0] if found else None


def _few(group: Group) -> float:
    """A quarter of the clients where it was tried, else the smallest share."""
    shares = group.coordinate("participation")
    return 0.25 if 0.25 in shares and group.fields["data"] == "synthetic" else float(shares.min())


def _at(group: Group, name: str, budget: str, end: str, share: float | None = None) -> Array:
    """A variable, (S, participations), or (S,) at one."""
    values = group.values(name, budget=budget, end=end)
    if share is None:
        return values
    return np.asarray(values[:, list(group.coordinate("participation")).index(share)])


def _above(group: Group, budget: str, end: str, share: float | None = None) -> Array:
    """Loss above P_ref."""
    values = _at(group, "loss", budget, end, share)
    return values - group.values("reference").reshape(-1, *[1] * (values.ndim - 1))


def _ratio(group: Group, budget: str, end: str, other: str) -> Array:
    """Loss of few clients over that of everybody, (S,); +inf where few clients diverge."""
    return bounded(_above(group, budget, end, _few(group)) / _above(group, budget, other, 1.0))


def _compared(group: Group, budget: str) -> str:
    first, kernel = (_ratio(group, budget, "fed_frozen_exact", other) for other in AGAINST)
    return (
        f"{_named(group)}, equal {BUDGETS[budget]}, warm-up with {_few(group):g} of the clients "
        f"and one exact value round: {paired(first)}, of the loss of FedAvg of everybody; "
        f"{paired(kernel)}, of everybody with that round"
    )


def _named(group: Group) -> str:
    return f"{group.label.partition(', E')[0]}, E = {group.fields['local_steps']}"


def _short(group: Group) -> str:
    target, covariate, _ = group.heterogeneity
    return f"{target:g}, {covariate:g}, E {group.fields['local_steps']}"


def _losses(page: Page, main: Group) -> None:
    shares = main.coordinate("participation")
    unit = _above(main, SHOWN, "fed_avg", 1.0)[:, None]
    panel = page.panel("synthetic, equal client work", _shares(shares),
                       log("loss / FedAvg of everybody"))  # fmt: skip
    for end, shown in ENDS.items():
        panel.curve(shown, shares, _above(main, SHOWN, end) / unit)


def _accuracy(page: Page, digits: Group) -> None:
    shares = digits.coordinate("participation")
    panel = page.panel("digits, equal client work", _shares(shares), "test accuracy (%)")
    for end in ("fed_avg", "fed_frozen_exact"):
        panel.curve(ENDS[end], shares, 100.0 * _at(digits, "score", SHOWN, end))


def _shares(shares: Array) -> Axis:
    return Axis("participation in the warm-up", "log", ticks=tuple(float(s) for s in shares))


def _regimes(page: Page, found: Sequence[Group]) -> None:
    names = tuple(_short(group) for group in found)
    panel = page.panel("few clients against others", log("ratio of losses (1)"),
                       Axis("", names=names))  # fmt: skip
    for place, group in enumerate(found):
        for k, (other, shown) in enumerate(AGAINST.items()):
            ratio = _ratio(group, SHOWN, "fed_frozen_exact", other)
            panel.row(shown, place + 0.2 * (2 * k - 1), ratio)
    panel.level(Look("equal", INK, ":"), 1.0, upright=True)
