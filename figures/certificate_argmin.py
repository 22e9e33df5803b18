"""Freezing where the certificate is lowest, against the oracle: one point per run (C4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.groups import groups
from linattn.report.looks import INK, Look
from linattn.report.regimes import with_tradeoff
from linattn.report.words import in_words

NAME = "certificate_argmin"
SIMULATION = "certificate"
TARGET = 0.02
BINS = (0.0, 0.05, 0.1, 0.15, 0.3, 0.6, float("inf"))
CAPTION = (
    "Freezing at the argmin of the certificate: one point per seed, world and (η, E). Regret 0 is "
    "the best warm-up length, 1 is never freezing; runs without a trade-off have none. Looseness: "
    "certificate minus P where P is lowest, relative to how far P has fallen there."
)
KINDS = (Look("merged", "#0072B2", "", "o", 0.8), Look("factored", "#D55E00", "", "s", 0.8))


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    page = Page(NAME, CAPTION, summary(results).splitlines(), height=2.4)
    time = page.panel("argmin and oracle", "τ of T* (1/curvature)", "τ of the argmin (1/curvature)")
    regret = page.panel("regret of the argmin", Axis("share of runs (1)", low=0.0, high=1.0),
                        Axis("relative regret (1)", "symlog", low=0.0, threshold=0.01))  # fmt: skip
    loose = page.panel("looseness", "largest ηL_K of the run (1)", log("looseness (1)"))
    for factored, shown in enumerate(KINDS):
        oracle, argmin, costs, slack, curvature = _runs(results, bool(factored))
        if not oracle.size:
            continue
        kept = oracle >= 0
        time.add("points", shown, oracle[kept], argmin[kept])
        known = np.sort(costs[~np.isnan(costs)])
        if known.size:
            regret.add("points", shown, (np.arange(known.size) + 0.5) / known.size, known)
        usable = np.isfinite(slack) & (slack > 0.0) & (curvature > 0.0)
        loose.add("points", shown, curvature[usable], slack[usable])
    top = max(float(mark.x.max(initial=0.0)) for mark in time.marks)
    time.add("line", Look("equal", INK, "--", "", 0.7), [0.0, top], [0.0, top])
    regret.level("reference", TARGET, label=f"{TARGET:g}")
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return regret by parametrization, and looseness in bins of ηL_K."""
    lines = []
    for factored, shown in enumerate(KINDS):
        costs = _runs(results, bool(factored))[2]
        known = costs[~np.isnan(costs)]
        if costs.size:
            told = with_tradeoff(
                known, f"relative regret {{}} in {{}} of {costs.size} runs with a trade-off"
            )
            lines.append(f"{shown.label} kernels: {told}")
    slack, curvature = (np.concatenate(c) for c in zip(
        *(_runs(results, factored)[3:] for factored in (False, True)), strict=True))  # fmt: skip
    bins = []
    for low, high in pairwise(BINS):
        kept = slack[(curvature > low) & (curvature <= high) & np.isfinite(slack)]
        if kept.size:
            bins.append(f"{in_words(kept, digits=2)} up to {high:g}")
    if bins:
        lines.append(f"looseness by max ηL_K: {'; '.join(bins)}")
    return "\n".join(lines)


def _runs(results: Sequence[Result], factored: bool) -> list[Array]:
    """τ of T* (−1 if nothing is stable) and argmin, regret, looseness, largest ηL_K; by run."""
    rows = []
    for part in groups(results):
        if part.factored != factored:
            continue
        scale = part.fields["local_lr"] * part.fields["local_steps"]
        star = part.values("warmup_star")
        curvature = np.nan_to_num(part.values("eta_L"), posinf=0.0).max(axis=1)
        rows.append([np.where(star < 0, -1.0, scale * star),
                     scale * part.values("argmin_certificate"), part.values("regret"),
                     part.values("looseness"), curvature])  # fmt: skip
    return [np.concatenate(column) for column in zip(*rows, strict=True)] or [np.array([])] * 5
