"""Figure 4: the warm-up as inexact descent on the kernel profile (C4).

For the most heterogeneous problem, one column per number of local steps: certificate (upper bound),
measured profile, best known P and its lower bound (C15) on one axis, with the argmin of certificate
and profile; the ledger of the certificate; the additive identity. ``certificate_regimes`` has the
first row for all regimes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import TERMS, caption, keep_view, median_line, panel, record, upright
from linattn.report.style import LOOKS, Look, PageLook, legend, sheet
from linattn.report.words import in_words

NAME = "certificate"
SIMULATION = "certificate"
ROUNDS = "warm-up round"
LOOSENESS = (
    "Looseness: certificate minus P where P is lowest, relative to how far P has fallen there."
)
BOUND, MEASURED = LOOKS["bound"], LOOKS["measured"]
LEDGER = {
    "descent_paid": (-1.0, TERMS["paid"]._replace(label="− descent paid")),
    "tracking_cost": (1.0, TERMS["tracking"]._replace(label="+ tracking cost")),
    "drift_cost": (1.0, TERMS["drift"]._replace(label="+ drift cost")),
    "cross_term": (1.0, TERMS["cross"]._replace(label="+ cross term")),
    "step_term": (-1.0, TERMS["step"]._replace(label="− step term")),
}
IDENTITY = {
    "paid": (1.0, TERMS["paid"]),
    "tracking": (1.0, TERMS["tracking"]),
    "drift": (1.0, TERMS["drift"]),
    "curvature": (1.0, TERMS["step"]._replace(label="curvature")),
    "resolve": (1.0, TERMS["resolve"]),
}


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw both figures from the stored results in `output` into `folder`; return their files."""
    found = groups(results)
    return [*_headline(found, folder, look), *_all(found, folder, look)]


def summary(results: Sequence[Result]) -> str:
    """Return looseness and relative regret of the certificate's argmin with quantiles."""
    found = groups(results)
    lines = [
        f"{regime.title(steps)}: looseness {_looseness(regime, steps)}; {_regret(regime, steps)}"
        for regime in found
        for steps in regime.local_steps
    ]
    loose = np.concatenate([regime.values("looseness").ravel() for regime in found])
    regret = np.concatenate([regime.values("regret").ravel() for regime in found])
    kept, loose = _known(regret), _known(loose)
    lines.append(
        f"all {loose.size} runs: looseness {in_words(loose, percent=True, digits=2)}; "
        f"relative regret of the certificate's argmin {in_words(kept)} "
        f"in the {kept.size} with a trade-off"
    )
    return "\n".join(lines)


def _headline(found: list[Group], folder: Path, look: PageLook) -> list[Path]:
    regime = max(found, key=lambda r: (not r.factored, sum(r.heterogeneity), r.heterogeneity))
    steps = regime.local_steps
    with sheet(NAME, 3, len(steps), height=2.5, sharex=True, look=look) as drawn:
        for column, count in enumerate(steps):
            top, middle, bottom = drawn.axes[:, column]
            _bound(drawn, top, regime, count)
            _terms(drawn, middle, regime, count, LEDGER, _ledger(regime, count))
            _terms(drawn, bottom, regime, count, IDENTITY, _identity(regime, count))
        for row in drawn.axes:
            handles, labels = row[-1].get_legend_handles_labels()
            row[-1].legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5))
        caption(
            drawn,
            f"The warm-up as descent on the kernel profile P: {regime.label}. {LOOSENESS} "
            "Losses above the best known P of each seed. Lines: median over seeds, bands: 10–90 %; "
            "upright: argmin, same quantiles.",
        )
        return drawn.save(folder)


def _all(found: list[Group], folder: Path, look: PageLook) -> list[Path]:
    columns = max(len(regime.local_steps) for regime in found)
    height = 1.55 + 1.4 / len(found)
    name = f"{NAME}_regimes"
    with sheet(name, len(found), columns, height=height, sharey="row", look=look) as drawn:
        for row, regime in zip(drawn.axes, found, strict=True):
            for axes, steps in zip(row, regime.local_steps, strict=False):
                _bound(drawn, axes, regime, steps)
            for axes in row[len(regime.local_steps) :]:
                axes.set_visible(False)
        legend(drawn, columns=3)
        caption(
            drawn,
            "Certificate, measured profile and lower bound of every regime, above the best known P "
            f"of each seed. {LOOSENESS} Lines: median over seeds, bands: 10–90 %; upright: argmin, "
            "same quantiles.",
        )
        return drawn.save(folder)


def _bound(drawn: Any, axes: Any, regime: Group, steps: int) -> None:
    """Upper bound, measured profile and lower bound on one axis, with the argmin of each."""
    rounds, reference = regime.coordinate("round"), regime.values("reference")[:, None]
    words = f"looseness {_looseness(regime, steps)}"
    panel(drawn, axes, regime.title(steps), x=ROUNDS, y="loss above best P", below=words)
    above = regime.values("certificate", steps) - reference
    measured = regime.values("profile", steps) - reference
    median_line(drawn, axes, BOUND, rounds, above)
    median_line(drawn, axes, MEASURED, rounds, measured, label="measured P")
    lower = regime.values("reference_lower_bound")[:, None] - reference
    drawn.level(axes, "reference", 0.0, label="best known P (multi-start)", linestyle="-")
    if np.isfinite(lower).all():
        flat = np.broadcast_to(lower, above.shape)
        median_line(drawn, axes, "lower_bound", rounds, flat, linestyle=(0, (1, 1)))
    for name, look in (("certificate", BOUND), ("profile", MEASURED)):
        label = f"argmin of {'certificate' if look is BOUND else 'measured P'}"
        style = {"label": label, "linewidth": 0.8, "linestyle": look.line}
        upright(drawn, axes, look, regime.values(f"argmin_{name}", steps), **style)
    start = float(above[:, 0].max())
    keep_view(axes, -2.0 * start, 2.0 * start)
    record(drawn, axes, "looseness (1)", _known(regime.values("looseness", steps)))
    record(drawn, axes, "relative regret of its argmin (1)", _known(regime.values("regret", steps)))


def _terms(
    drawn: Any,
    axes: Any,
    regime: Group,
    steps: int,
    terms: Mapping[str, tuple[float, Look]],
    total: tuple[str, Look, Array, str],
) -> None:
    """Signed sums over all local steps so far, and what they add up to."""
    title, look, values, below = total
    panel(drawn, axes, f"{title}, E = {steps}", x=ROUNDS, y="sum so far (loss)", below=below)
    axes.tick_params(labelleft=True)
    rounds = regime.coordinate("round")
    for name, (sign, term) in terms.items():
        median_line(drawn, axes, term, rounds, sign * regime.values(name, steps))
    median_line(drawn, axes, look, rounds, values, linewidth=1.6)
    start = 100.0 * float(
        (regime.values("profile", steps)[:, 0] - regime.values("reference")).max()
    )
    keep_view(axes, -start, start)


def _ledger(regime: Group, steps: int) -> tuple[str, Look, Array, str]:
    values = regime.values("certificate", steps)
    look = BOUND._replace(label="= certificate − P(start)")
    count = int(regime.values("violations", steps).sum())
    words = f"violations: {count}"
    return "ledger of the certificate", look, values - values[:, :1], words


def _identity(regime: Group, steps: int) -> tuple[str, Look, Array, str]:
    values = regime.values("profile", steps)
    look = MEASURED._replace(label="= P − P(start), measured")
    residual = np.abs(regime.values("residual", steps))
    largest = residual[np.isfinite(residual)].max(initial=0.0)
    words = f"residual ≤ {largest:.0e}"
    return "exact additive identity", look, values - values[:, :1], words


def _looseness(regime: Group, steps: int) -> str:
    return in_words(_known(regime.values("looseness", steps)), percent=True, digits=2)


def _regret(regime: Group, steps: int) -> str:
    """Relative regret of freezing at the certificate's argmin, in words."""
    kept = _known(regime.values("regret", steps))
    if not kept.size:
        return "no trade-off in any seed"
    frozen, best = (
        in_words(regime.values(name, steps), digits=2)
        for name in ("argmin_certificate", "warmup_star")
    )
    return (
        f"freezing at its argmin ({frozen} rounds; T* {best}) has relative regret {in_words(kept)} "
        f"in the {kept.size} of {regime.seeds} seeds with a trade-off"
    )


def _known(values: Array) -> Array:
    return values[~np.isnan(values)]
