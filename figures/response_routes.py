"""Every route to the best warm-up length: what its advice costs and needs (C4, C13, C23, C24)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page
from linattn.report.looks import INK, Look
from linattn.report.words import in_words

NAME = "response_routes"
SIMULATION = "response"
LEAST = 1e-4
WORDS = {
    "predicted": "predicted (C24)",
    "pass": "one pass (C23)",
    "first_order": "first order (C18)",
    "log_law": "log law (C18)",
    "certificate": "certificate argmin (C4)",
    "profile": "profile rule",
    "certified": "certified rule",
    "observable": "observable rule",
}
POINT = Look("median, 10–90 %", INK, "", "o")
CAPTION = (
    "Runs with a trade-off. Left: what freezing at the advised length loses, in units of what the "
    "best length gains over never freezing. Right: rounds of all clients that the advice needs, as "
    "a share of the rounds of the run; first order and log law need the clients' gradients along "
    "the centralized path instead."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = _routes(results)
    names = tuple(WORDS[name] for name in found)
    page = Page(NAME, CAPTION, summary(results).splitlines(), columns=2, height=2.2)
    rows = Axis("", names=names)
    lost = Axis("relative regret (1)", "symlog", low=-0.1 * LEAST, threshold=LEAST)
    left = page.panel("relative regret", lost, rows)
    right = page.panel("rounds needed", Axis("rounds of all clients / R (1)", low=0.0), rows)
    for place, (regret, share) in enumerate(found.values()):
        left.row(POINT, place, regret)
        right.row(POINT, place, share)
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return the regret of every route, best first, three lines at most."""
    found = sorted(_routes(results).items(), key=lambda item: float(np.median(item[1][0])))
    lines = [
        f"{WORDS[name]}: relative regret {in_words(regret)}{_needed(share)}"
        for name, (regret, share) in found
    ]
    if not lines:
        return "no run with further routes has a trade-off"
    return "\n".join("; ".join(lines[k : k + 2]) for k in range(0, len(lines), 2))


def _needed(share: Array) -> str:
    return f" for {in_words(share)} of the rounds" if np.isfinite(share).all() else ""


def _routes(results: Sequence[Result]) -> dict[str, tuple[Array, Array]]:
    """Relative regrets and shares of the rounds of every route, over runs with a trade-off."""
    held: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        data = result.dataset
        if not data["tradeoff"] or "route" not in data:
            continue
        rounds = float(data["warmup"][-1])
        told = float(data["num_impulses"][-1]) / rounds
        held.setdefault("predicted", []).append((float(data["regret"][-1]), told))
        for name in data["route"].values:
            at = data.sel(route=name)
            pair = (float(at["route_regret"]), float(at["route_rounds"]) / rounds)
            held.setdefault(str(name), []).append(pair)
    return {name: tuple(np.array(rows).T) for name in WORDS if (rows := held.get(name))}
