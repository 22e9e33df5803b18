"""The figure that decides: final loss against step size, each method at its best warm-up length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.analysis.study import bootstrapped
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.experiments.tables import write_table
from linattn.report.canvas import Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS
from linattn.report.words import in_words, number, page_name

NAME = "step_size"
SIMULATION = "step_size"
SETTING = ("budget", "participation")
METHODS = {
    "fed_avg": LOOKS["fed_avg"],
    "fed_frozen": LOOKS["fed_frozen"],
    "frozen_scaffold": LOOKS["frozen_scaffold"],
    "fed_frozen_exact": LOOKS["frozen_one_shot"]._replace(label="FedFrozen, one exact round"),
}
BEYOND = 1.5
"""Room above and below what is shown."""
CAPTION = (
    "Loss above the best known profile value at the end of one budget against the step size, "
    "every method at its best warm-up length; stars mark the best step. {0}, E = {1}, {2} rounds "
    "of FedAvg or what they send."
)
SIDES = " Left: all clients in every round; right: a share of them."


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files and those of the table."""
    made: list[Path] = []
    for place, world in enumerate(groups(results, *SETTING)):
        told = (world.label, *(world.fields[n] for n in ("local_steps", "rounds")))
        parts, (*lines, inside) = _parts(world), _findings(world)
        caption = CAPTION.format(*told) + (SIDES if len(parts) > 1 else "")
        page = Page(page_name(NAME, place), caption, [*lines[:2], inside], lines[2:], columns=2)
        for part in parts:
            excess = log("F − P_ref (loss)", *_shown(part))
            panel = page.panel(_title(part), log("local step η (1/curvature)"), excess)
            steps = part.coordinate("local_lr")
            for name, shown in METHODS.items():
                panel.curve(shown, steps, _at_best(part, name))
                panel.best(steps, _at_best(part, name), LOOKS["oracle"]._replace(label="best step"))
        made += page.save(folder, look)
    head = ("world", "budget", "method", "excess", "over FedAvg", "low", "high", "step", "T")
    rows = [row for world in groups(results, *SETTING) for row in _table(world)]
    return [*made, *write_table(folder / "tables", f"{NAME}_table", head, rows)]


def summary(results: Sequence[Result]) -> str:
    """Return what the methods end with at their best steps in the last world, at equal rounds."""
    *lines, inside = _findings(groups(results, *SETTING)[-1])
    return "\n".join([*lines[:2], inside])


def _findings(world: Group) -> list[str]:
    parts = _parts(world)
    inside = np.concatenate([part.values("interior").ravel() for part in parts])
    lines = [
        f"{world.label}, {_title(part)}: excess over FedAvg's, each at its best step: "
        + ", ".join(
            f"{METHODS[name].label} {in_words(_ratio(part, name), digits=2)}"
            for name in list(METHODS)[1:]
        )
        for part in parts
    ]
    return [
        *lines,
        f"best steps are interior in {100 * inside.mean():.0f} % of {inside.size} cells",
    ]


def _parts(world: Group) -> list[Group]:
    """The settings, all clients before some, rounds before floats."""
    parts = world.split(*SETTING)
    return sorted(parts, key=lambda g: (g.fields["budget"] != "rounds", -g.fields["participation"]))


def _title(part: Group) -> str:
    share = part.fields["participation"]
    who = "all clients" if share == 1.0 else f"{share:g} of the clients"
    return f"equal {part.fields['budget']}, {who}"


def _at_best(part: Group, name: str) -> Array:
    """Excess at the best warm-up length by step size, (S, η)."""
    losses = np.nan_to_num(part.values("objective", method=name), nan=np.inf, posinf=np.inf)
    return np.asarray(losses.min(axis=2) - part.values("reference")[:, None])


def _shown(part: Group) -> tuple[float, float]:
    """From below all runs to above all medians: higher are single runs that nearly diverge."""
    every = np.stack([_at_best(part, name) for name in METHODS])
    medians = np.median(every, axis=1)
    lowest, highest = every[every > 0.0].min(), medians[np.isfinite(medians)].max()
    return float(lowest) / BEYOND, BEYOND * float(highest)


def _best(part: Group, name: str) -> tuple[Array, int]:
    """Excess at the step with the smallest median, by seed, and its place."""
    values = _at_best(part, name)
    place = int(np.argmin(np.median(values, axis=0)))
    return values[:, place], place


def _ratio(part: Group, name: str) -> Array:
    return np.asarray(_best(part, name)[0] / _best(part, "fed_avg")[0])


def _table(world: Group) -> list[list[str]]:
    rows = []
    for part in _parts(world):
        for name in METHODS:
            values, place = _best(part, name)
            ratio = _ratio(part, name)
            low, high = bootstrapped(ratio) if ratio.size > 1 else (np.nan, np.nan)
            losses = np.nan_to_num(part.values("objective", method=name)[:, place], nan=np.inf)
            lengths = part.coordinate("warmup")[losses.argmin(axis=1)]
            step = part.coordinate("local_lr")[place]
            rows.append([world.label, _title(part), METHODS[name].label, in_words(values),
                         *(number(float(v)) for v in (np.median(ratio), low, high, step)),
                         in_words(lengths, digits=2)])  # fmt: skip
    return rows
