"""How tight every bound of the claim table is over random instances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.claims.judge import STATUSES
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.looks import Look
from linattn.report.words import in_words, number, page_name, pages

NAME = "tightness"
SIMULATION = "claims"
MOST = 45
"""Rows of a page."""
OURS = Look("proved here", "#0072B2", "", "o")
RECALLED = Look("recalled from a paper", "#D55E00", "", "s")
EXTREMES = Look("tightest, loosest", "#7F7F7F", "", "|")
CAPTION = (
    "Every upper and lower bound on the same random instances, the tightest first: bound/measured "
    "(measured/bound of lower bounds; 1 is tight) where it is not refused, median with 10–90 % of "
    "the instances. Beside each name: how often it was refused / violated. Bounds whose paper "
    "could not be compared are marked as recalled."
)


class Row(NamedTuple):
    """A bound over all instances."""

    claim: str
    recalled: bool
    tightness: Array
    refused: int
    violated: int
    instances: int


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    made: list[Path] = []
    found = rows(results)
    for place, part in enumerate(pages(found, MOST)):
        lines = [_line(row) for row in part]
        page = Page(page_name(NAME, place), CAPTION, summary(results).splitlines(), lines, 1,
                    0.5 + 0.14 * len(part))  # fmt: skip
        names = tuple(f"{row.claim}  {row.refused}/{row.violated}" for row in part)
        count = max(row.instances for row in part)
        panel = page.panel(f"bound / measured, up to {count} random instances",
                           log("tightness (1)"), Axis("", names=names))  # fmt: skip
        panel.level("one_step", 1.0, upright=True, label="tight")
        for k, row in enumerate(part):
            if row.tightness.size:
                panel.add("points", EXTREMES, [row.tightness.min(), row.tightness.max()], k)
                panel.row(RECALLED if row.recalled else OURS, k, row.tightness)
        made += page.save(folder, look)
    return made


def summary(results: Sequence[Result]) -> str:
    """Return how tight bounds are, those proved here and those recalled, and how many failed."""
    found = rows(results)
    violated = [row.claim for row in found if row.violated]
    lines = []
    for words, recalled in (("proved here", False), ("recalled", True)):
        kept = [row for row in found if row.recalled is recalled and row.tightness.size]
        middles = [float(np.median(row.tightness)) for row in kept]
        if kept:
            lines.append(
                f"{len(kept)} bounds {words}: median tightness {in_words(middles)} over bounds, "
                f"from {kept[0].claim} to {kept[-1].claim}"
            )
    return "\n".join([*lines, f"violated: {', '.join(violated) or 'none'}"])


def rows(results: Sequence[Result]) -> list[Row]:
    """Return every bound over the instances of all runs, the tightest first."""
    names = dict.fromkeys(
        str(claim)
        for result in results
        for place, claim in enumerate(result.dataset["claim"].values)
        if result.dataset["bound_kind"].values[place]
    )
    found = [_row_of(name, results) for name in names]
    return sorted(
        found, key=lambda r: float(np.median(r.tightness)) if r.tightness.size else np.inf
    )


def _row_of(name: str, results: Sequence[Result]) -> Row:
    parts = [r.dataset.sel(claim=name) for r in results if name in r.dataset["claim"].values]
    tightness = np.concatenate([part["tightness"].values for part in parts])
    status = np.concatenate([part["status"].values for part in parts]).astype(int)
    unjudged = [STATUSES.index(state) for state in ("refused", "not applicable", "vacuous")]
    return Row(
        name,
        bool(parts[0]["recalled"]),
        tightness[np.isfinite(tightness)],
        int(np.isin(status, unjudged).sum()),
        int((status == STATUSES.index("violated")).sum()),
        status.size,
    )


def _line(row: Row) -> str:
    middle = number(float(np.median(row.tightness))) if row.tightness.size else "undefined"
    return (
        f"{row.claim}{' (recalled)' if row.recalled else ''}: median {middle}, {row.refused} "
        f"refused, {row.violated} violated of {row.instances}"
    )
