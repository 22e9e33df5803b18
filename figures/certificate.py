"""The warm-up as inexact descent on the kernel profile: the certificate and its ledger (C4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page, log
from linattn.report.groups import Group
from linattn.report.looks import LOOKS, TERMS
from linattn.report.regimes import TIME, by_drift, excess, time, with_tradeoff, worlds
from linattn.report.words import in_words

NAME = "certificate"
SIMULATION = "certificate"
WORLD = (0.75, 0.3, 0.0)
CAPTION = (
    "Warm-up as inexact descent on the kernel profile P, target 0.75, covariate 0.3. Top: the "
    "certificate, a bound without any assumed constant, and P itself, above the best known value; "
    "stars mark the argmin of each. Bottom: what the certificate is made of, summed over all local "
    "steps so far."
)
ARGMIN = LOOKS["oracle"]._replace(label="argmin")
LEDGER = {
    "descent_paid": (-1.0, TERMS["paid"]._replace(label="− descent paid")),
    "tracking_cost": (1.0, TERMS["tracking"]._replace(label="+ tracking cost")),
    "drift_cost": (1.0, TERMS["drift"]._replace(label="+ drift cost")),
    "cross_term": (1.0, TERMS["cross"]._replace(label="+ cross term")),
    "step_term": (-1.0, TERMS["step"]._replace(label="− step term")),
}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    parts = _shown(results)
    page = Page(NAME, CAPTION, summary(results).splitlines(), columns=len(parts))
    page.details = [line for world in worlds(results) for line in _lines(world)]
    for s, part in parts:
        title = f"s = {s:g} (η = {part.fields['local_lr']:g}, E = {part.fields['local_steps']})"
        panel = page.panel(title, TIME, log("P − P_ref (loss)"))
        for name, shown in (("certificate", "bound"), ("profile", "measured")):
            panel.curve(shown, time(part, "round"), excess(part, name))
            panel.best(time(part, "round"), excess(part, name), ARGMIN)
    for s, part in parts:
        panel = page.panel(f"ledger, s = {s:g}", TIME, "sum so far (loss)")
        for name, (sign, term) in LEDGER.items():
            panel.curve(term, time(part, "round"), sign * part.values(name))
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return violations, looseness and the regret of freezing at the argmin, over all runs."""
    parts = [part for world in worlds(results) for part in world.split("local_lr", "local_steps")]
    regret, loose = (_known(np.concatenate([p.values(n) for p in parts]))
                     for n in ("regret", "looseness"))  # fmt: skip
    count = sum(int(np.nansum(part.values("violations"))) for part in parts)
    steps = sum(part.seeds * int(time(part, "round")[-1] / part.fields["local_lr"])
                for part in parts)  # fmt: skip
    return "\n".join(
        [
            f"the descent inequality is violated in {count} of {steps:,} local steps",
            f"looseness of the certificate where P is lowest: {in_words(loose, percent=True)}",
            with_tradeoff(
                regret,
                "freezing at the certificate's argmin has relative regret {} in {} runs with a "
                f"trade-off, at most 0.02 in {int((regret <= 0.02).sum())}",
            ),
        ]
    )


def _shown(results: Sequence[Result]) -> list[tuple[float, Group]]:
    """Up to three drift numbers of one world."""
    found = worlds(results)
    world = next((w for w in found if w.heterogeneity == WORLD), found[-1])
    return by_drift(world, (0.05, 0.1, 0.2))[-3:]


def _lines(world: Group) -> list[str]:
    """Looseness and regret of every drift number of a world."""
    return [
        f"{world.label}, s = {s:g}: looseness "
        f"{in_words(_known(part.values('looseness')), percent=True, digits=2)}, "
        f"{with_tradeoff(_known(part.values('regret')), 'relative regret {}')}; freezing at "
        f"{in_words(part.values('argmin_certificate'), whole=True)} rounds, T* "
        f"{in_words(part.values('warmup_star'), whole=True)}"
        for s, part in by_drift(world, ())
    ]


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]
