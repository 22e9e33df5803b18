"""Figure 3: simulated frozen rounds against the closed form, and the bias as ηE grows (C7, C8).

Every point called simulated comes from explicit local gradient steps. Null controls must vanish to
rounding: E = 1, shared tokens, identical clients, targets for which no client disagrees with V*.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import caption, median_line, panel, power
from linattn.report.style import LOOKS, Look, PageLook, sheet
from linattn.report.words import in_words, spread

NAME = "frozen_stage"
SIMULATION = "frozen_stage"
COLUMNS = 4
NEGLIGIBLE = 1e-12
STEP = "ηE (1/curvature)"
SHADES = ("#440154", "#31688E", "#35B779", "#E3C800")  # viridis: light and dark differ in grey too
MEASURED = LOOKS["measured"]
CLOSED = LOOKS["value_floor"]._replace(label="exact formula")
BIAS = {
    "bias_bound": LOOKS["bound"]._replace(label="bound", line="--"),
    "bias_first_order": Look("first order", "#DDAA33", "-."),
    "bias": CLOSED,
}
SIMULATED = MEASURED._replace(label="simulated", line="", marker="o")
CONTROLS = {
    "shared_tokens": Look("shared tokens", "#AA3377", "-", "o"),
    "identical_clients": LOOKS["identical"]._replace(marker="s"),
    "consistent_targets": Look("consistent targets", "#AA7744", "--", "^"),
}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    rows = 1 - (-len(found) // COLUMNS)
    with sheet(NAME, rows, COLUMNS, height=2.1 + 0.5 / rows, look=look) as drawn:
        top = drawn.axes[0]
        _rounds(drawn, top[0], _strongest(found))
        _agreement(drawn, top[1], found)
        _controls(drawn, top[2], found)
        _first_order(drawn, top[3], found)
        ends = _ends(found)
        for axes, regime in zip(drawn.axes[1:].flat, found, strict=False):
            _bias(drawn, axes, regime, ends)
        drawn.axes[1, 0].legend(fontsize=6, loc="upper left", handlelength=2.4, labelspacing=0.25)
        for axes in drawn.axes[1:].flat[len(found) :]:
            axes.set_visible(False)
        caption(
            drawn,
            "Frozen rounds: explicit simulation against the closed form, and the bias of the fixed "
            "point V∞ against V*. Lines: median over seeds, bands: 10–90 %. Simulated bias: after "
            "settling from V*. Unstable stages and refused bounds are not drawn; E = 1 has no "
            "bias.",
        )
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return how far simulation and closed form are apart, and how the formulas compare."""
    found = groups(results)
    apart = np.concatenate([r.values("relative_error").ravel() for r in found])
    nulls = np.concatenate([r.values("null_simulated").ravel() for r in found])
    lines = [
        f"simulated and closed form differ by at most {np.nanmax(apart):.0e} of the scale; "
        f"null controls move by at most {np.nanmax(nulls):.0e} of V*"
    ]
    for regime in found:
        kept = _shown(regime)
        bias, bound, first = (
            regime.values(n)[:, kept] for n in ("bias", "bias_bound", "bias_first_order")
        )
        lines.append(
            f"{regime.label}: bound / bias {in_words(_finite(bound / bias))}, first order / bias "
            f"{in_words(_finite(first / bias))} over E = "
            f"{', '.join(str(e) for e in np.array(regime.local_steps)[kept])}"
        )
    return "\n".join(lines)


def _rounds(drawn: Any, axes: Any, regime: Group) -> None:
    """Distance to the fixed point, simulated and in closed form, for a few E."""
    named: dict[str, Any] = {"x": "frozen round", "y": "‖V − V∞‖ / start (1)", "outer": False}
    panel(drawn, axes, "simulated (points), closed form", wrap=24, **named)
    rounds = regime.coordinate("round")
    stable = np.asarray((regime.values("stable") > 0).all(axis=0))
    usable = [e for e, ok in zip(regime.local_steps, stable, strict=True) if ok]
    picks = _few(usable)
    every = max(1, len(rounds) // 10)
    for steps, shade in zip(picks, SHADES, strict=False):
        closed, simulated = (
            _above(regime.values(f"distance_{how}", steps)) for how in ("closed", "simulated")
        )
        median_line(drawn, axes, CLOSED, rounds, closed, color=shade, label=f"closed, E = {steps}")
        middle = spread(simulated)[0][::every]
        look = SIMULATED._replace(label=f"simulated, E = {steps}")
        drawn.points(axes, look, rounds[::every], middle, color=shade, markersize=2.8)
        axes.plot([], [], color=shade, marker="o", label=f"E = {steps}")
    _log(axes, "y")
    axes.set_ylim(NEGLIGIBLE * 1e-6, 3.0)
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    chosen = [f"E = {steps}" for steps in picks]
    axes.legend([handles[name] for name in chosen], chosen, fontsize=6, loc="lower left", ncols=2)


def _agreement(drawn: Any, axes: Any, found: list[Group]) -> None:
    """Largest disagreement of simulation and closed form, over rounds."""
    named: dict[str, Any] = {"x": "local steps E", "y": "largest / scale (1)", "outer": False}
    panel(drawn, axes, "simulated − closed form, a line per regime", wrap=24, **named)
    for regime in found:
        worst = regime.values("relative_error").max(axis=2)
        worst = np.where(regime.values("stable") > 0, worst, np.inf)
        look = MEASURED._replace(label=regime.label)
        median_line(drawn, axes, look, regime.local_steps, worst, linewidth=0.8)
    drawn.level(axes, "reference", 1e-12, label="promised: 1e-12")
    axes.annotate("promised", (0.04, 1e-12), (0, -8), axes.get_yaxis_transform(),
                  textcoords="offset points", fontsize=6)  # fmt: skip
    _log(axes, "x", "y")
    _steps_axis(axes, found[0].local_steps)
    axes.set_ylim(1e-17, 1e-11)


def _controls(drawn: Any, axes: Any, found: list[Group]) -> None:
    """Bias of the null controls, simulated, beside the bias of the problems themselves."""
    named: dict[str, Any] = {"x": "local steps E", "y": "‖V∞ − V*‖ / ‖V*‖ (1)", "outer": False}
    panel(drawn, axes, "bias of null controls, simulated", wrap=24, **named)
    names = [str(name) for name in found[0].results[0].dataset["control"].values]
    steps = found[0].local_steps
    same = [regime for regime in found if regime.local_steps == steps]
    moved = np.concatenate([regime.values("null_simulated") for regime in same])
    own = np.concatenate([_relative_bias(regime) for regime in same])
    median_line(drawn, axes, MEASURED, steps, own, label="no control")
    for place, name in enumerate(names):
        median_line(drawn, axes, CONTROLS[name], steps, moved[:, :, place], markersize=2)
    _log(axes, "x", "y")
    _steps_axis(axes, steps)
    axes.set_ylim(1e-17, 10.0)
    axes.legend(fontsize=6, loc="center", bbox_to_anchor=(0.5, 0.55))


def _first_order(drawn: Any, axes: Any, found: list[Group]) -> None:
    """Relative error of the first-order formula: slope 1 in its small parameter."""
    named: dict[str, Any] = {"x": "η(E − 1)λ_max (1)", "y": "error / bias (1)", "outer": False}
    panel(drawn, axes, "first-order formula, a line per regime", wrap=24, **named)
    top = 0.0
    for regime in found:
        kept = _shown(regime)
        steps = np.array(regime.local_steps)[kept]
        error = (regime.values("first_order_error") / _positive(regime.values("bias")))[:, kept]
        middle = spread(regime.values("largest_step_curvature")[:, kept])[0] * (steps - 1)
        look = MEASURED._replace(label=regime.label)
        median_line(drawn, axes, look, middle, error, linewidth=0.8, marker=".", markersize=2.5)
        top = max(top, float(middle.max(initial=0.0)))
    guide = top * np.array([1e-3, 1.0]) if top else np.array([1e-3, 1.0])
    drawn.line(axes, Look("slope 1", "#7F7F7F", ":"), guide, 0.3 * guide, linewidth=0.9)
    _log(axes, "x", "y")
    axes.legend(*_only(axes, "slope 1"), fontsize=6, loc="lower right")


def _bias(drawn: Any, axes: Any, regime: Group, ends: tuple[float, float]) -> None:
    """Measured bias, exact formula, first order and bound as ηE grows."""
    panel(drawn, axes, regime.label, x=STEP, y="‖V∞ − V*‖ (parameter norm)", wrap=30)
    kept = _shown(regime)
    across = (regime.values("step") * np.array(regime.local_steps))[0][kept]
    for name, look in BIAS.items():
        values = _positive(regime.values(name))[:, kept]
        median_line(drawn, axes, look, across, values, marker=".", markersize=2.5)
    middle = spread(_positive(regime.values("bias_simulated"))[:, kept])[0]
    drawn.points(axes, SIMULATED, across, middle, markersize=3)
    _log(axes, "x", "y")
    axes.set_ylim(*ends)


def _ends(found: list[Group]) -> tuple[float, float]:
    """Common limits of the panels of the bias."""
    arrays = [_positive(r.values(name))[:, _shown(r)].ravel() for r in found for name in BIAS]
    every = _finite(np.concatenate(arrays))
    return (float(every.min()) / 2, float(every.max()) * 10) if every.size else (1e-3, 1.0)


def _shown(regime: Group) -> Array:
    """Which E have a bias to draw: more than one local step, stable for every seed."""
    several = np.array(regime.local_steps) > 1
    return np.asarray(several & (regime.values("stable") > 0).all(axis=0))


def _strongest(found: list[Group]) -> Group:
    """The most heterogeneous regime with stable stages, merged kernels first."""
    stable = [r for r in found if (r.values("stable") > 0).all(axis=0).any()]
    return max(
        stable or found, key=lambda r: (not r.factored, sum(r.heterogeneity), r.heterogeneity)
    )


def _few(steps: list[int]) -> list[int]:
    """At most four numbers of local steps, from the first to the last."""
    places = np.linspace(0, len(steps) - 1, len(SHADES))
    return sorted({steps[round(k)] for k in places}) if steps else []


def _steps_axis(axes: Any, steps: list[int]) -> None:
    shown = _few(steps)
    axes.set_xticks(shown, [str(count) for count in shown])


def _relative_bias(regime: Group) -> Array:
    """Simulated bias relative to V*, +inf where the stage is unstable."""
    relative = regime.values("bias_simulated") / regime.values("minimizer_norm")
    return np.where(regime.values("stable") > 0, relative, np.inf)


def _above(distances: Array) -> Array:
    """Distances relative to the first one, without what is rounding."""
    relative = distances / distances[:, :1]
    return np.where(relative > NEGLIGIBLE, relative, np.nan)


def _positive(values: Array) -> Array:
    return np.where(values > 0.0, values, np.nan)


def _finite(values: Array) -> Array:
    return values[np.isfinite(values)]


def _only(axes: Any, *names: str) -> tuple[list[Any], list[str]]:
    pairs = zip(*axes.get_legend_handles_labels(), strict=True)
    kept = [(handle, name) for handle, name in pairs if name in names]
    return [handle for handle, _ in kept], [name for _, name in kept]


def _log(axes: Any, *sides: str) -> None:
    """Make axes logarithmic, with few and readable labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for side in sides:
        if not np.isfinite(getattr(axes.dataLim, f"minpos{side}")):
            getattr(axes, f"set_{side}lim")(0.1, 1.0)  # nothing to draw
        getattr(axes, f"set_{side}scale")("log")
        axis = getattr(axes, f"{side}axis")
        axis.set_major_locator(LogLocator(numticks=5 if side == "y" else 4))
        axis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
        axis.set_minor_locator(NullLocator())
