"""Figure 14: how tight every bound of the claim table is over random instances.

One row per bound, tightest first: median, 10–90 % and extremes of bound/measured (1 is tight), how
often the bound was refused, and how often it was violated. Bounds whose paper could not be compared
are marked as recalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.claims.judge import STATUSES
from linattn.experiments.store import Result
from linattn.report.marks import caption, name_rows, panel
from linattn.report.style import Look, PageLook, legend, sheet
from linattn.report.words import QUANTILES, number

NAME = "tightness"
SIMULATION = "claims"
OURS = Look("proved here", "#0072B2", "", "o")
RECALLED = Look("recalled from a paper", "#D55E00", "", "s")
EXTREMES = Look("tightest, loosest", "#7F7F7F", "", "|")


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
    found = rows(results)
    with sheet(NAME, 1, 1, height=0.9 + 0.17 * len(found), look=look) as drawn:
        axes = drawn.axes[0, 0]
        count = max((row.instances for row in found), default=0)
        panel(
            drawn,
            axes,
            f"bound / measured, up to {count} random instances",
            x="tightness (1)",
            y="",
            wrap=60,
            outer=False,
        )
        drawn.level(axes, "reference", 1.0, across=False, label="tight")
        for place, row in enumerate(found):
            _row(drawn, axes, place, row)
        name_rows(drawn, axes, [_label(row) for row in found], labels=True)
        axes.set_xscale("log")
        legend(drawn)
        caption(
            drawn,
            "Every upper and lower bound on the same random instances: median, 10–90 % and "
            "extremes over instances where it is not refused. Beside each name: refused / "
            "violated.",
        )
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return the median tightness of every bound, and how many were refused or violated."""
    return "\n".join(
        f"{row.claim}{' (recalled)' if row.recalled else ''}: median {_middle(row)}, "
        f"{row.refused} refused, {row.violated} violated of {row.instances}"
        for row in rows(results)
    )


def rows(results: Sequence[Result]) -> list[Row]:
    """Return every bound over the instances of all runs, the tightest first."""
    names = dict.fromkeys(
        (str(claim), place)
        for result in results
        for place, claim in enumerate(result.dataset["claim"].values)
        if result.dataset["bound_kind"].values[place]
    )
    found = [_row_of(name, results) for name in dict.fromkeys(name for name, _ in names)]
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


def _median(row: Row) -> float:
    return float(np.median(row.tightness)) if row.tightness.size else np.inf


def _row(drawn: Any, axes: Any, place: int, row: Row) -> None:
    if not row.tightness.size:
        return
    look = RECALLED if row.recalled else OURS
    low, middle, high = np.quantile(row.tightness, (QUANTILES[0], 0.5, QUANTILES[1]))
    drawn.line(
        axes, look._replace(marker="", line="-"), [low, high], [place, place], linewidth=1.0,
        label="_10–90 %",
    )  # fmt: skip
    ends = [row.tightness.min(), row.tightness.max()]
    drawn.points(axes, EXTREMES, ends, [place, place], markersize=3)
    drawn.points(axes, look, [middle], [place], markersize=3.5)


def _label(row: Row) -> str:
    return f"{row.claim}  {row.refused}/{row.violated}"


def _middle(row: Row) -> str:
    return number(_median(row)) if row.tightness.size else "undefined"
