"""Simulated frozen rounds against the closed form, and the bias as ηE grows (C7, C8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS, Look, shaded
from linattn.report.words import in_words, page_name, pages, spread

NAME = "frozen_stage"
SIMULATION = "frozen_stage"
NEGLIGIBLE = 1e-12
TINY = 1e-17
PICKS = 4
"""Numbers of local steps that are drawn along rounds."""
MEASURED = LOOKS["measured"]
BIAS = {
    "bias_bound": LOOKS["bound"]._replace(label="bound"),
    "bias_first_order": Look("first order", "#DDAA33", "-."),
    "bias": LOOKS["value_floor"]._replace(label="exact formula", line="-"),
}
SIMULATED = MEASURED._replace(label="simulated", line="", marker="o")
CONTROLS = {
    "shared_tokens": Look("shared tokens", "#AA3377", "-", "o"),
    "identical_clients": LOOKS["identical"]._replace(marker="s"),
    "consistent_targets": Look("consistent targets", "#AA7744", "--", "^"),
}
CAPTION = (
    "Frozen rounds by explicit local gradient steps against the closed form, and the bias of their "
    "fixed point V∞ against V*. Points: simulated; lines along rounds: closed form. Simulated bias "
    "is measured after settling from V*. Unstable stages and refused bounds are not drawn; E = 1 "
    "has no bias; controls are without it by construction and move by rounding alone."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = sorted(groups(results), key=_strength, reverse=True)
    stable = [w for w in found if _stable(w).any()]
    page = Page(NAME, CAPTION, summary(results).splitlines(), _lines(found))
    _rounds(page, (stable or found)[0])
    _agreement(page, found)
    _controls(page, found)
    _first_order(page, found)
    for world in found[:2]:
        _bias(page, world)
    made = page.save(folder, look)
    for place, part in enumerate(pages(found[2:], 6)):
        page = Page(page_name(NAME, place + 1), CAPTION, columns=2)
        for world in part:
            _bias(page, world)
        made += page.save(folder, look)
    return made


def summary(results: Sequence[Result]) -> str:
    """Return how far simulation and closed form are apart, and how the formulas compare."""
    found = groups(results)
    apart = np.concatenate([w.values("relative_error").ravel() for w in found])
    nulls = np.concatenate([w.values("null_simulated").ravel() for w in found])
    bound, first = (np.concatenate([_over_bias(w, n) for w in found])
                    for n in ("bias_bound", "bias_first_order"))  # fmt: skip
    return "\n".join(
        [
            f"simulated and closed form differ by at most {np.nanmax(apart):.0e} of the scale; "
            f"null controls move by at most {np.nanmax(nulls):.0e} of V*",
            f"over all E > 1: bound / bias {in_words(bound)}, first order / bias {in_words(first)}",
        ]
    )


def _lines(found: Sequence[Group]) -> list[str]:
    return [
        f"{world.label}: bound / bias {in_words(_over_bias(world, 'bias_bound'))}, first order / "
        f"bias {in_words(_over_bias(world, 'bias_first_order'))}"
        for world in found
    ]


def _rounds(page: Page, world: Group) -> None:
    """Distance to the fixed point, simulated and in closed form, for a few E."""
    panel = page.panel("distance to V∞", "frozen round", log("‖V − V∞‖ / start (1)", 1e-14, 3.0))
    rounds = world.coordinate("round")
    usable = world.coordinate("local_steps")[_stable(world)]
    picks = sorted({float(usable[round(k)]) for k in np.linspace(0, len(usable) - 1, PICKS)}
                   if len(usable) else set())  # fmt: skip
    every = max(1, len(rounds) // 10)
    for steps, look in zip(picks, shaded(f"E = {e:g}" for e in picks), strict=True):
        closed, simulated = (
            _above(world.values(f"distance_{how}", local_steps=steps))
            for how in ("closed", "simulated")
        )
        panel.curve(look, rounds, closed)
        panel.add("points", look._replace(line="", marker="o"), rounds[::every],
                  spread(simulated)[0][::every])  # fmt: skip


def _agreement(page: Page, found: Sequence[Group]) -> None:
    """Largest disagreement of simulation and closed form, over rounds."""
    panel = page.panel("simulated − closed form", log("local steps E"),
                       log("largest / scale (1)", TINY, 1e-11))  # fmt: skip
    for world in found:
        worst = world.values("relative_error").max(axis=2)
        worst = np.where(world.values("stable") > 0, worst, np.inf)
        look = MEASURED._replace(label="a world", weight=0.6)
        panel.curve(look, world.coordinate("local_steps"), worst)
    panel.level("reference", NEGLIGIBLE, label="promised")


def _controls(page: Page, found: Sequence[Group]) -> None:
    """Bias of the null controls, simulated, beside the bias of the problems themselves."""
    panel = page.panel("bias of null controls", log("local steps E"),
                       log("‖V∞ − V*‖ / ‖V*‖ (1)", TINY, 10.0))  # fmt: skip
    steps = found[0].coordinate("local_steps")
    same = [w for w in found if np.array_equal(w.coordinate("local_steps"), steps)]
    panel.curve(MEASURED._replace(label="no control"), steps,
                np.concatenate([_relative_bias(w) for w in same]))  # fmt: skip
    for name in found[0].names("control"):
        moved = np.concatenate([w.values("null_simulated", control=name) for w in same])
        panel.curve(CONTROLS[name], steps, _positive(moved))


def _first_order(page: Page, found: Sequence[Group]) -> None:
    """Relative error of the first-order formula: slope 1 in its small parameter."""
    panel = page.panel(
        "error of the first order", log("η(E − 1)λ_max (1)"), log("error / bias (1)")
    )
    top = 1.0
    for world in found:
        kept = _shown(world)
        error = (world.values("first_order_error") / _positive(world.values("bias")))[:, kept]
        across = spread(world.values("largest_step_curvature")[:, kept])[0]
        across = across * (world.coordinate("local_steps")[kept] - 1)
        panel.curve(MEASURED._replace(label="a world", weight=0.6), across, error)
        top = max([top, *across])
    guide = top * np.array([1e-3, 1.0])
    panel.add("line", Look("slope 1", "#7F7F7F", ":"), guide, 0.3 * guide)


def _bias(page: Page, world: Group) -> None:
    """Measured bias, exact formula, first order and bound as ηE grows."""
    panel = page.panel(world.label, log("ηE (1/curvature)"), log("‖V∞ − V*‖ (norm)"))
    kept = _shown(world)
    across = (world.values("step")[0] * world.coordinate("local_steps"))[kept]
    for name, look in BIAS.items():
        panel.curve(look, across, _positive(world.values(name))[:, kept])
    panel.add("points", SIMULATED, across,
              spread(_positive(world.values("bias_simulated"))[:, kept])[0])  # fmt: skip


def _stable(world: Group) -> NDArray[np.bool_]:
    """Which E are stable for every seed."""
    return np.asarray((world.values("stable") > 0).all(axis=0))


def _shown(world: Group) -> NDArray[np.bool_]:
    """Which E have a bias to draw: more than one local step, stable for every seed."""
    return _stable(world) & (world.coordinate("local_steps") > 1)


def _strength(world: Group) -> tuple[bool, float, tuple[float, ...]]:
    """The most heterogeneous world is the greatest, merged kernels before factored ones."""
    return not world.factored, sum(world.heterogeneity), world.heterogeneity


def _over_bias(world: Group, name: str) -> Array:
    ratio = (world.values(name) / _positive(world.values("bias")))[:, _shown(world)]
    return np.asarray(ratio[np.isfinite(ratio)])


def _relative_bias(world: Group) -> Array:
    """Simulated bias over V*, +inf where the stage is unstable."""
    relative = world.values("bias_simulated") / world.values("minimizer_norm")
    return np.where(world.values("stable") > 0, _positive(relative), np.inf)


def _above(distances: Array) -> Array:
    """Distances over the first one, without what is rounding."""
    relative = distances / distances[:, :1]
    return np.where(relative > NEGLIGIBLE, relative, np.inf)


def _positive(values: Array) -> Array:
    """Zero has no place on a logarithmic axis."""
    return np.where(values > 0.0, values, np.nan)
