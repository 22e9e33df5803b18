"""Published O-forms as slopes: how drift, bias and mismatch grow with η and with E.

Papers do not state the constants inside O( ), so only exponents can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import Look
from linattn.report.words import in_words

NAME = "orders"
SIMULATION = "orders"
FITTED = 3
"""The slope is fitted to so many points with the smallest ηE, where O-forms speak."""
CLOSE = 0.1
CAPTION = (
    "Drift, bias and mismatch at one kernel, over their first values, against the step size (left) "
    "and against the local steps at the smallest of these (right; E − 1 for bias, error and "
    "excess). A power law is a straight line; grey lines have slopes 1 and 2."
)


class Order(NamedTuple):
    """A quantity with the exponent of its O-form, in η and in E − `less`."""

    look: Look
    exponent: int
    less: int
    source: str


ORDERS = {
    "bias": Order(Look("bias ‖V∞ − V*‖", "#D55E00", "-", "o"), 1, 1, "C8 first order"),
    "round_error": Order(Look("round error ‖e‖", "#0072B2", "-", "s"), 1, 1, "local drift"),
    "excess": Order(
        Look("excess F(V∞) − F(V*)", "#CC79A7", "-", "^"), 2, 1, "Khaled et al., Koloskova et al."
    ),
    "drift_sq": Order(Look("drift Σp‖V_i − V̄‖²", "#117733", "-", "D"), 2, 0, "field guide"),
    "covariance": Order(Look("‖Cov(Q, K)‖", "#332288", "-", "v"), 2, 0, "factor drift"),
}
GUIDES = {1: Look("slope 1", "#7F7F7F", "--"), 2: Look("slope 2", "#7F7F7F", ":")}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)[:3]
    page = Page(NAME, CAPTION, summary(results).splitlines(), _lines(found), columns=2)
    for world in found:
        eta, count = world.coordinate("step_size").min(), world.coordinate("local_steps")[0]
        across = (f"η / {eta:.1g} (1)", f"E / {count:g}, or (E − 1) / {count - 1:g} (1)")
        for by_step, title, axis in zip((True, False), ("η", "E"), across, strict=True):
            panel = page.panel(f"{title}: {world.label}", log(axis), log("over the first (1)"))
            for name in _measured(world):
                panel.curve(ORDERS[name].look, *rows(world, name, by_step=by_step))
            longest, _ = rows(world, "bias", by_step=by_step)
            for exponent, guide in GUIDES.items():
                panel.add("line", guide, longest, longest**exponent)
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return how many fitted slopes are the published exponents."""
    found = groups(results)
    apart = np.concatenate(
        [
            np.median(slopes(world, name, by_step=by_step), keepdims=True) - ORDERS[name].exponent
            for world in found for name in _measured(world) for by_step in (True, False)
        ]
    )  # fmt: skip
    return (
        f"{int((np.abs(apart) < CLOSE).sum())} of {apart.size} slopes (quantity, η or E) are "
        f"within {CLOSE} of the published exponents; the largest difference is "
        f"{np.abs(apart).max():.2g}"
    )


def _lines(found: Sequence[Group]) -> list[str]:
    lines = []
    for world in found:
        for name in _measured(world):
            order = ORDERS[name]
            by_step, by_count = (in_words(slopes(world, name, by_step=b)) for b in (True, False))
            lines.append(
                f"{world.label}: {order.look.label}: slope in η {by_step}, in "
                f"{'E − 1' if order.less else 'E'} {by_count}; published {order.exponent} "
                f"({order.source})"
            )
    return lines


def _measured(world: Group) -> list[str]:
    """Quantities that are not zero, as the covariance of merged kernels is."""
    return [name for name in ORDERS if world.values(f"{name}_by_step").all()]


def slopes(world: Group, name: str, *, by_step: bool) -> Array:
    """Return the slope of log(quantity) where ηE is smallest, one per seed."""
    across, values = rows(world, name, by_step=by_step)
    x, y = np.log(across[:FITTED]), np.log(values[:, :FITTED])
    return np.asarray(np.polyfit(x, y.T, 1)[0])


def rows(world: Group, name: str, *, by_step: bool) -> tuple[Array, Array]:
    """Return η or E (or E − 1) and the quantity there, over their first: (n,), (seeds, n)."""
    if by_step:
        across = world.coordinate("step_size")[::-1]
        values = world.values(f"{name}_by_step")[:, ::-1]
    else:
        across = world.coordinate("local_steps") - ORDERS[name].less
        values = world.values(f"{name}_by_count")
    return across / across[0], values / values[:, :1]
