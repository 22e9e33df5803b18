"""Figure 16: freezing where the certificate is lowest, against the oracle (C4).

One point per run (seed, regime, E). Left: argmin of the certificate against the best warm-up length
T*. Middle: relative regret of freezing there, sorted; runs without a trade-off are counted and left
out. Right: looseness of the certificate at T = argmin P against the largest ηL_K of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from linattn._typing import Array, BoolArray
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import caption, panel, record, signed_log_axis
from linattn.report.style import Look, PageLook, legend, sheet
from linattn.report.words import in_words

NAME = "certificate_argmin"
SIMULATION = "certificate"
TARGET = 0.10
BINS = (0.0, 0.15, 0.3, 0.6, 1.0, 2.0, float("inf"))
MERGED = Look("merged", "#0072B2", "", "o")
FACTORED = Look("factored", "#D55E00", "", "s")
MEDIAN = Look("median of a bin", "#222222", "-")


class Runs(NamedTuple):
    """One entry per run."""

    argmin: Array
    oracle: Array
    regret: Array
    looseness: Array
    eta_curvature: Array
    factored: Array

    def of(self, kept: BoolArray) -> Runs:
        """Some of the runs."""
        return Runs._make(column[kept] for column in self)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    runs = collect(groups(results))
    with sheet(NAME, 1, 3, height=2.6, look=look) as drawn:
        _argmin(drawn, drawn.axes[0, 0], runs)
        _regret(drawn, drawn.axes[0, 1], runs)
        _looseness(drawn, drawn.axes[0, 2], runs)
        legend(drawn)
        caption(
            drawn,
            "Freezing at the argmin of the certificate: one point per seed, regime and E. Regret 0 "
            "is the best warm-up length, 1 is never freezing. Looseness is taken where P is "
            "lowest.",
        )
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return regret with quantiles, and looseness in bins of ηL_K."""
    runs = collect(groups(results))
    known = runs.regret[~np.isnan(runs.regret)]
    lines = [
        f"relative regret {in_words(known)} in {known.size} of {runs.regret.size} runs with a "
        "trade-off"
    ]
    for look, part in _kinds(runs):
        known = part.regret[~np.isnan(part.regret)]
        lines.append(f"  {look.label} kernels: {in_words(known)} in {known.size}")
    lines += [
        f"looseness at max ηL_K in ({low:g}, {high:g}]: {in_words(loose)} in {loose.size} runs"
        for low, high, loose in _bins(runs)
    ]
    unknown = int((~np.isfinite(runs.looseness)).sum())
    if unknown:
        lines.append(f"no looseness where P never fell or the run diverged: {unknown} runs")
    return "\n".join(lines)


def _bins(runs: Runs) -> Iterator[tuple[float, float, Array]]:
    """Every bin of max ηL_K that has runs, with their looseness."""
    for low, high in pairwise(BINS):
        kept = (runs.eta_curvature > low) & (runs.eta_curvature <= high)
        loose = runs.looseness[kept & np.isfinite(runs.looseness)]
        if loose.size:
            yield low, high, loose


def collect(found: Sequence[Group]) -> Runs:
    """Return the runs of all regimes and numbers of local steps."""
    parts = []
    for regime in found:
        for steps in regime.local_steps:
            names = ("argmin_certificate", "warmup_star", "regret", "looseness")
            columns = [regime.values(name, steps) for name in names]
            finite = regime.values("eta_L", steps)
            largest = np.where(np.isfinite(finite), finite, 0.0).max(axis=1)
            factored = np.full(regime.seeds, float(regime.factored))
            parts.append(Runs._make((*columns, largest, factored)))
    return Runs._make(np.concatenate(column) for column in zip(*parts, strict=True))


def _kinds(runs: Runs) -> list[tuple[Look, Runs]]:
    kinds = ((MERGED, runs.factored == 0.0), (FACTORED, runs.factored == 1.0))
    return [(look, runs.of(kept)) for look, kept in kinds if kept.any()]


def _argmin(drawn: Any, axes: Any, runs: Runs) -> None:
    panel(
        drawn, axes, "argmin of certificate and oracle", x="best length T* (rounds)",
        y="argmin (rounds)", outer=False,
    )  # fmt: skip
    known = runs.of(runs.oracle >= 0)
    top = float(max(known.oracle.max(initial=1.0), known.argmin.max(initial=1.0)))
    drawn.line(axes, Look("equal", "#7F7F7F", "--"), [0.0, top], [0.0, top], linewidth=0.8)
    for look, part in _kinds(known):
        drawn.points(axes, look, part.oracle, part.argmin, alpha=0.6, markersize=3)


def _regret(drawn: Any, axes: Any, runs: Runs) -> None:
    known = runs.of(~np.isnan(runs.regret))
    without = runs.regret.size - known.regret.size
    panel(
        drawn, axes, "relative regret of the argmin", x="share of runs (1)", y="regret (1)",
        below=f"{in_words(known.regret)}; {without} runs without a trade-off", outer=False, wrap=30,
    )  # fmt: skip
    for look, part in _kinds(known):
        share = (np.arange(part.regret.size) + 0.5) / part.regret.size
        drawn.points(axes, look, share, np.sort(part.regret), markersize=3)
    drawn.level(axes, "reference", TARGET, label="0.10")
    high = float(known.regret.max(initial=1.0))
    signed_log_axis(axes, 0.0, high, threshold=TARGET / 10.0)
    record(drawn, axes, "relative regret (1)", known.regret)


def _looseness(drawn: Any, axes: Any, runs: Runs) -> None:
    known = runs.of(np.isfinite(runs.looseness) & (runs.eta_curvature > 0.0))
    panel(
        drawn, axes, "looseness of the certificate", x="largest ηL_K of the run (1)",
        y="looseness (1)", outer=False, wrap=30,
    )  # fmt: skip
    for look, part in _kinds(known):
        drawn.points(axes, look, part.eta_curvature, part.looseness, alpha=0.6, markersize=3)
    largest = float(known.eta_curvature.max(initial=BINS[1]))
    for low, high, loose in _bins(known):
        ends, middle = [low, min(high, largest)], float(np.median(loose))
        drawn.line(axes, MEDIAN, ends, [middle, middle], linewidth=1.4)
    axes.set_yscale("log")
    drawn.level(axes, "reference", TARGET, label="0.10")
