"""Figure 5: when to freeze without knowing the answer (C13).

Three rules against the best length T* (relative regret 0) and never freezing (relative regret 1),
and how many runs have no trade-off worth the name, where regret is not defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn._typing import Array, BoolArray
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import (
    caption,
    name_rows,
    record,
    rounds_axis,
    sideways,
    signed_log_axis,
)
from linattn.report.style import PageLook, legend, sheet
from linattn.report.words import in_words

NAME = "freeze_rule"
SIMULATION = "freeze_rule"
THRESHOLD = 1e-2
ALL = "all runs"


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    rows = [(regime, steps) for regime in found for steps in regime.local_steps]
    names = [regime.title(steps) for regime, steps in rows]
    height = 1.5 + 0.3 * len(rows)
    ratios = {"width_ratios": [1.0, 1.0, 0.6]}
    with sheet(NAME, 1, 3, height=height, gridspec_kw=ratios, look=look) as drawn:
        when, regret, share = drawn.axes[0]
        _when(drawn, when, rows, [*names, ALL])
        _regret(drawn, regret, found, rows, [*names, ALL])
        _share(drawn, share, found, rows, [*names, ALL])
        legend(drawn, columns=3)
        caption(
            drawn,
            "Where three rules freeze and what it costs. Relative regret: 0 is the best length T*, "
            "1 is never freezing; defined only where freezing in time saves at least 0.1 % of what "
            "training the kernel gains. A rule that never fires is at R. Points: median over "
            "seeds, bars: 10–90 %.",
        )
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return relative regret and excess loss of every rule with quantiles, and the shares."""
    found = groups(results)
    inside = _tradeoff(found)
    lines = [
        f"{int(inside.sum())} of {inside.size} runs have a trade-off; "
        f"{100 * (1 - inside.mean()):.0f} % have none and are left out of the regret."
    ]
    for rule in _rules(found):
        regret, excess = (_all(found, rule, name) for name in ("rule_regret", "rule_excess"))
        below = int((regret[inside] < 1.0).sum())
        lines.append(
            f"{rule} rule: relative regret {in_words(regret[inside])}, better than never freezing "
            f"in {below} of {int(inside.sum())}; "
            f"loss above that of T* in all runs {in_words(excess, percent=True)}"
        )
    return "\n".join(lines)


def _when(drawn: Any, axes: Any, rows: list[tuple[Group, int]], names: list[str]) -> None:
    drawn.panel(axes, "where they freeze", x="warm-up rounds", y="")
    name_rows(drawn, axes, names, labels=True)
    last = max(regime.coordinate("warmup")[-1] for regime, _ in rows)
    rounds_axis(axes, last)
    for row, (regime, steps) in enumerate(rows):
        stars = regime.values("warmup_star", steps)
        sideways(drawn, axes, "oracle", row - 0.3, stars[stars >= 0], markersize=5)
        for rule, shift in _shifts([regime]).items():
            place = _rules([regime]).index(rule)
            rounds = regime.values("rule_round", steps)[:, place]
            sideways(drawn, axes, f"{rule}_rule", row + shift, rounds)


def _regret(
    drawn: Any,
    axes: Any,
    found: list[Group],
    rows: list[tuple[Group, int]],
    names: list[str],
) -> None:
    drawn.panel(axes, "what it costs", x="relative regret (1)", y="")
    name_rows(drawn, axes, names, labels=False)
    inside = _tradeoff(found)
    drawn.level(axes, "oracle", 0.0, across=False)
    drawn.level(axes, "fed_avg", 1.0, across=False, label="never freezing (FedAvg)")
    every = [_all(found, rule, "rule_regret")[inside] for rule in _rules(found)]
    high = max((float(v[np.isfinite(v)].max(initial=1.0)) for v in every), default=1.0)
    signed_log_axis(axes, 0.0, high, threshold=THRESHOLD, upright=False)
    for rule, shift in _shifts(found).items():
        for row, (regime, steps) in enumerate(rows):
            kept = regime.values("tradeoff", steps) > 0
            values = regime.values("rule_regret", steps)[kept, _rules([regime]).index(rule)]
            sideways(drawn, axes, f"{rule}_rule", row + shift, values)
        pooled = _all(found, rule, "rule_regret")[inside]
        sideways(drawn, axes, f"{rule}_rule", len(rows) + shift, pooled)
        record(drawn, axes, f"relative regret of the {rule} rule, {ALL}", pooled)


def _share(
    drawn: Any,
    axes: Any,
    found: list[Group],
    rows: list[tuple[Group, int]],
    names: list[str],
) -> None:
    drawn.panel(axes, "no trade-off", x="share of seeds (%)", y="")
    name_rows(drawn, axes, names, labels=False)
    axes.set_xlim(0.0, 100.0)
    lacking = [100.0 * (1.0 - regime.values("tradeoff", steps).mean()) for regime, steps in rows]
    lacking.append(100.0 * (1.0 - _tradeoff(found).mean()))
    axes.barh(range(len(lacking)), lacking, color="#BBBBBB", height=0.6, label="no trade-off")
    named = drawn.panels[axes]
    for row, value in enumerate(lacking):
        drawn.rows.append((*named, "no trade-off", "bar", value, float(row), *[np.nan] * 2, ""))


def _rules(found: list[Group]) -> list[str]:
    """The rules that were run."""
    return [str(rule) for rule in found[0].results[0].dataset["rule"].values]


def _shifts(found: list[Group]) -> dict[str, float]:
    """How far the rules of a row are drawn from its middle."""
    rules = _rules(found)
    return dict(zip(rules, np.linspace(-0.1, 0.3, len(rules)).tolist(), strict=True))


def _tradeoff(found: list[Group]) -> BoolArray:
    """Which of all runs (regime, seed, E) have a trade-off."""
    return np.concatenate([regime.values("tradeoff").ravel() for regime in found]) > 0


def _all(found: list[Group], rule: str, name: str) -> Array:
    """A quantity of one rule over all runs, in the order of `_tradeoff`."""
    values = [r.values(name)[..., _rules([r]).index(rule)].ravel() for r in found]
    return np.concatenate(values)
