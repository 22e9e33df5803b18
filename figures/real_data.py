"""Figure (6): FedAvg and FedFrozen on the real data sets.

One sheet per number of heads, one row per data set and split: test accuracy, test loss and
stability against the warm-up length, with the server-refit V*; the exact parts of the remaining
training loss (C9); accuracy along rounds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn.analysis.bias_drift import PARTS
from linattn.experiments.store import Result
from linattn.report.groups import Group, groups
from linattn.report.marks import rounds_axis
from linattn.report.style import PageLook, Sheet, legend, sheet
from linattn.report.words import QUANTILES, in_words, number, spread
from linattn.streams import stream

NAME = "real_data"
SIMULATION = "real_data"

WARMUP = "warm-up length T (rounds)"
DASHES = ("-", "--", ":", "-.")


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the sheets from the results in `output` into `folder`; return the files made."""
    found = groups(results)
    heads = sorted({_heads(group) for group in found})
    made: list[Path] = []
    for count in heads:
        name = NAME if count == heads[0] else f"{NAME}_{count}_heads"
        made += _sheet(name, [group for group in found if _heads(group) == count], folder, look)
    return made


def summary(results: Sequence[Result]) -> str:
    """Return what FedFrozen gains over FedAvg in every group, one line per number of local steps.

    T is the length below R with the smallest median *training* objective; differences are paired
    over seeds, their interval is that of the bootstrapped median.
    """
    return "\n".join(
        _in_words(group, steps) for group in groups(results) for steps in group.local_steps
    )


def _in_words(group: Group, steps: int) -> str:
    lengths = group.coordinate("warmup")
    place = best_on_training(group, steps)
    accuracy = 100.0 * group.values("test_accuracy", steps)
    ceiling = 100.0 * group.values("refit_test_accuracy", steps)[:, -1]
    instability = 100.0 * group.values("stability", steps)
    gain = accuracy[:, place] - accuracy[:, -1]
    loss = group.values("test_loss", steps)
    return (
        f"{group.label}, H = {_heads(group)}, E = {steps}: FedAvg {in_words(accuracy[:, -1])} %, "
        f"with V* {in_words(ceiling)} %; FedFrozen({lengths[place]:g}) − FedAvg "
        f"{_bootstrapped(gain)} points of accuracy, "
        f"{_bootstrapped(loss[:, place] - loss[:, -1])} of test loss; instability "
        f"{in_words(instability[:, place])} and {in_words(instability[:, -1])} points"
    )


def best_on_training(group: Group, steps: int, first: int = 0) -> int:
    """Place of the length below R with the smallest median training objective, never test data."""
    return first + int(np.argmin(np.median(group.values("objective", steps)[:, first:-1], axis=0)))


def _bootstrapped(differences: np.ndarray[Any, Any]) -> str:
    """Median of paired differences with the 10–90 % interval of its bootstrap (1,000 draws)."""
    count = len(differences)
    drawn = stream(0, "bootstrap", count).integers(0, count, size=(1000, count))
    low, high = np.quantile(np.median(differences[drawn], axis=1), QUANTILES)
    return (
        f"{number(float(np.median(differences)))} ({number(float(low))} to {number(float(high))})"
    )


def _heads(group: Group) -> int:
    return int(group.fields["initial.num_heads"])


def _sheet(name: str, found: Sequence[Group], folder: Path, look: PageLook) -> list[Path]:
    with sheet(name, len(found), 5, height=1.95, width=11.5, look=look) as drawn:
        for row, group in zip(drawn.axes, found, strict=True):
            steps = group.local_steps
            last = row[0].get_subplotspec().is_last_row()
            _against_warmup(
                drawn, row[0], group, steps, "test_accuracy", "test accuracy (%)", 100.0
            )
            _against_warmup(drawn, row[1], group, steps, "test_loss", "test loss", 1.0)
            _stability(drawn, row[2], group, steps)
            _parts(drawn, row[3], group, steps[-1])
            _rounds(drawn, row[4], group, steps[-1])
            for axes in row if not last else ():
                axes.set_xlabel("")
            seeds = f"{len(group.results)} seed" + "s" * (len(group.results) > 1)
            row[0].annotate(
                f"{textwrap.fill(group.label, 26)}\n({seeds})",
                (-0.42, 0.5),
                xycoords="axes fraction",
                rotation=90,
                ha="right",
                va="center",
                weight="bold",
            )
        heads = _heads(found[0])
        drawn.figure.suptitle(
            f"Real data, {heads} head{'s' * (heads > 1)}: lines are medians, bands 10–90 % of seeds"
        )
        legend(drawn, columns=7)
        return drawn.save(folder)


def _panel(drawn: Sheet, axes: Any, group: Group, title: str, *, x: str, y: str) -> None:
    """Name a panel in full for the CSV; show its title in short above the first row only."""
    drawn.panel(axes, f"{group.label}: {title}", x=x, y=y)
    axes.set_title(title if axes.get_subplotspec().is_first_row() else "")


def _line(drawn: Sheet, axes: Any, look: str, x: Any, values: Any, **style: Any) -> None:
    """Draw the median over seeds with its band, or the one seed there is."""
    middle, band = spread(values)
    drawn.line(axes, look, x, middle, band=band if len(values) > 1 else None, **style)


def _against_warmup(
    drawn: Sheet,
    axes: Any,
    group: Group,
    steps: Sequence[int],
    name: str,
    label: str,
    scale: float,
) -> None:
    """FedFrozen over T, FedAvg at T = R, and V* at the same kernels, for every E."""
    _panel(drawn, axes, group, label.partition(" (")[0], x=WARMUP, y=label)
    lengths = group.coordinate("warmup")
    for count, dash in zip(reversed(steps), DASHES, strict=False):
        found = scale * group.values(name, count)
        shown = {"linestyle": dash, "markersize": 2.5}
        _line(
            drawn, axes, "fed_frozen", lengths, found, label=f"FedFrozen(T), E = {count}", **shown
        )
        ceiling = scale * group.values(f"refit_{name}", count)
        shown = {"linestyle": dash, "marker": "", "linewidth": 0.9}
        _line(drawn, axes, "refit", lengths, ceiling, label=f"V* at B_T, E = {count}", **shown)
        middle, band = spread(found[:, -1])
        drawn.points(
            axes,
            "fed_avg",
            lengths[-1],
            middle,
            band=band if len(found) > 1 else None,
            label="FedAvg (T = R)",
            zorder=3,
        )
    rounds_axis(axes, float(lengths[-1]))


def _stability(drawn: Sheet, axes: Any, group: Group, steps: Sequence[int]) -> None:
    """Spread of test accuracy over the last tenth of the rounds."""
    label = "std of accuracy (points)"
    _panel(drawn, axes, group, "instability, last R/10 rounds", x=WARMUP, y=label)
    lengths = group.coordinate("warmup")
    for count, dash in zip(reversed(steps), DASHES, strict=False):
        found = 100.0 * group.values("stability", count)
        shown = {"linestyle": dash, "markersize": 2.5}
        _line(
            drawn, axes, "fed_frozen", lengths, found, label=f"FedFrozen(T), E = {count}", **shown
        )
        middle = spread(found[:, -1])[0]
        drawn.points(axes, "fed_avg", lengths[-1], middle, label="FedAvg (T = R)", zorder=3)
    axes.set_ylim(bottom=0.0)
    rounds_axis(axes, float(lengths[-1]))


def _parts(drawn: Sheet, axes: Any, group: Group, steps: int) -> None:
    """C9 on the training objective at the largest E."""
    title = f"exact parts of training F, E = {steps}"
    _panel(drawn, axes, group, title, x=WARMUP, y="F − P_ref (loss)")
    lengths = group.coordinate("warmup")
    reference = np.array([[float(r.dataset["reference"])] for r in group.results])
    total = group.values("objective_simulated", steps) - reference
    _line(drawn, axes, "measured", lengths, total, label="F − P_ref, simulated", linewidth=1.0)
    for name in PARTS:
        _line(drawn, axes, name, lengths, group.values(name, steps))
    axes.axhline(0.0, color="#000000", linewidth=0.5)
    rounds_axis(axes, float(lengths[-1]))


def _rounds(drawn: Sheet, axes: Any, group: Group, steps: int) -> None:
    """Test accuracy along rounds of FedAvg, of no warm-up, of the best length on training data."""
    title = f"accuracy along rounds, E = {steps}"
    _panel(drawn, axes, group, title, x="round", y="test accuracy (%)")
    lengths, rounds = group.coordinate("warmup"), group.coordinate("round")
    found = 100.0 * group.values("accuracy_rounds", steps)
    best = best_on_training(group, steps, first=1) if len(lengths) > 2 else 0
    plain = {"marker": "", "linewidth": 1.0}
    for place, dash in {0: ":", best: "-"}.items():
        label = "FedFrozen(0)" if place == 0 else "FedFrozen, best T on training data"
        shown = plain | {"label": label, "linestyle": dash}
        _line(drawn, axes, "fed_frozen", rounds, found[:, place], **shown)
    _line(drawn, axes, "fed_avg", rounds, found[:, -1], **plain)
    if best:
        note = f"T = {lengths[best]}: lowest training F"
        axes.text(0.97, 0.05, note, transform=axes.transAxes, ha="right", fontsize=6.5)
