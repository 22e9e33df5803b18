"""When to freeze without knowing the answer: three rules against the best length (C13)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS
from linattn.report.regimes import drift, tradeoffs
from linattn.report.words import in_words

NAME = "freeze_rule"
SIMULATION = "freeze_rule"
TARGET = 0.02
CAPTION = (
    "Where three rules freeze and what it costs, over all worlds and seeds with a trade-off. "
    "Left: rounds of warm-up over the best length T*. Middle: relative regret, 0 at T*, 1 for "
    "never freezing, against the share of runs that have no more. Right: median regret by drift "
    "number s = η(E − 1)/2."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    cost = Axis("relative regret (1)", "symlog", low=0.0, threshold=TARGET / 2)
    share = Axis("share of runs (1)", low=0.0, high=1.0)
    page = Page(NAME, CAPTION, summary(results).splitlines(), height=2.4, details=_lines(found))
    when = page.panel("where they freeze", "T / T* (1)", share)
    regret = page.panel("what it costs", cost, share)
    grows = page.panel("with drift", "drift number s (1)", cost)
    drifts = sorted({drift(part) for part in found})
    for rule in _rules(found):
        shown = LOOKS[f"{rule}_rule"]._replace(marker="")
        ratio = np.sort(_all(found, rule, "rule_round") / _all(found, rule, "warmup_star"))
        costs = np.sort(_all(found, rule, "rule_regret"))
        for panel, values in ((when, ratio), (regret, costs)):
            if values.size:
                panel.add("line", shown, values, (np.arange(values.size) + 1.0) / values.size)
        held = {s: _all([p for p in found if drift(p) == s], rule, "rule_regret") for s in drifts}
        places = [s for s in drifts if held[s].size]
        middle = [float(np.median(held[s])) for s in places]
        if places:
            grows.add("line", LOOKS[f"{rule}_rule"], places, middle)
    when.level("reference", 1.0, upright=True, label="T*")
    regret.level("fed_avg", 1.0, upright=True, label="never freezing", line=":")
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return the relative regret of every rule, and how many runs have a trade-off."""
    found = groups(results)
    words = []
    for rule in _rules(found):
        regret = _all(found, rule, "rule_regret")
        good = int((regret <= TARGET).sum())
        if regret.size:
            words.append(f"{rule} {in_words(regret)}, at most {TARGET:g} in {good}")
    lines = [f"{tradeoffs(found)} runs have a trade-off"]
    return "\n".join([*lines, f"relative regret there: {'; '.join(words)}"] if words else lines)


def _lines(found: Sequence[Group]) -> list[str]:
    return [
        f"{part.label}: " + ", ".join(
            f"{rule} {in_words(_all([part], rule, 'rule_regret'))}" for rule in _rules([part])
        )
        for part in found if (part.values("tradeoff") > 0).any()
    ]  # fmt: skip


def _rules(found: Sequence[Group]) -> list[str]:
    """The rules that were run."""
    return found[0].names("rule")


def _all(found: Sequence[Group], rule: str, name: str) -> Array:
    """A quantity of one rule over all runs with a trade-off."""
    parts = []
    for part in found:
        values = part.values(name, rule=rule) if name != "warmup_star" else part.values(name)
        parts.append(values[part.values("tradeoff") > 0])
    return np.concatenate(parts)
