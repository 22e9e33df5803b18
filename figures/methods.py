"""All methods on the same clients, each at its best step and setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.analysis.study import bootstrapped
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.experiments.tables import write_table
from linattn.federated.methods.table import METHODS
from linattn.report.canvas import Axis, Page, Panel, log
from linattn.report.groups import Group, groups
from linattn.report.looks import MARKERS, Look, looks_of
from linattn.report.words import in_words, mostly, number, reproduced

NAME = "methods"
SIMULATION = "methods"
CAPTION = (
    "All methods from one start on the same clients, each at the step and setting with the "
    "smallest training objective at the end. (a) objective over that of FedAvg; (b) test accuracy "
    "on the clients' own sequences; (c) the best step in units of the safe step; (d) client drift "
    "in the kernel over that of FedAvg, last round (none where the kernel is frozen); (e), (f) "
    "floats and multiply-adds until FedAvg's objective + 1 % of its gain, over FedAvg's. Starred: "
    "judged by models that clients keep, which fit their own data only."
)
NOTHING = 1e-6
"""Relative drift below it is rounding."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files and those of the table."""
    found = groups(results)
    names = list(dict.fromkeys(name for world in found for name in world.names("method")))
    labels = tuple(_label(name) for name in names)
    rows = Axis("", names=labels)
    page = Page(NAME, CAPTION, summary(results).splitlines(), height=1.0 + 0.11 * len(names))
    panels = [page.panel(title, axis, rows) for title, axis in (
        ("final objective", log("relative to FedAvg (1)")),
        ("test accuracy", Axis("%", low=0.0, high=100.0)),
        ("best step", log("factor of the unit step (1)")),
        ("client drift", log("relative to FedAvg (1)")),
        ("floats to target", log("relative to FedAvg (1)")),
        ("multiply-adds to target", log("relative to FedAvg (1)")),
    )]  # fmt: skip
    for number_, world in enumerate(found):
        shown = Look(world.label, COLOURS[number_ % 6], "", MARKERS[number_ % len(MARKERS)], 0.9)
        shift = 0.5 * ((number_ + 0.5) / len(found) - 0.5)
        _world(panels, world, shown, {name: names.index(name) + shift for name in names})
    for panel in (panels[0], *panels[3:]):
        panel.level("reference", 1.0, upright=True, label="FedAvg")
    head = ("world", "method", "median", "low", "high", "lower in", "seeds", "step", "setting")
    table = write_table(folder / "tables", f"{NAME}_table", head, _table(found))
    return [*page.save(folder, look), *table]


def summary(results: Sequence[Result]) -> str:
    """Return how many best steps are interior, and whether the papers' claims come out."""
    found = groups(results)
    inside = np.concatenate([world.values("interior").ravel() for world in found])
    return "\n".join(
        [
            f"the best step is interior to its grid in {100 * inside.mean():.0f} % of "
            f"{inside.size} cells (world, seed, method)",
            "freezing ends lower than FedAvg, both at their best: "
            f"{_less(found, 'final_objective', 'fed_frozen')}; with one exact value round: "
            f"{_less(found, 'final_objective', 'frozen_one_shot')}",
            f"FedProx has less client drift: {_less(found, 'kernel_drift', 'fed_prox')}; FedPart "
            "reaches FedAvg's objective with fewer floats: "
            f"{_less(found, 'floats_to_target', 'fed_part')}",
        ]
    )


def _less(found: Sequence[Group], quantity: str, name: str) -> str:
    """Whether a method has less of something than FedAvg, over the worlds in which it was run."""
    held = [world for world in found if name in world.names("method")]
    return reproduced([mostly(_relative(world, quantity, name) < 1.0) for world in held])


def _world(panels: list[Panel], world: Group, shown: Look, place: dict[str, float]) -> None:
    quantities = ("final_objective", "test_accuracy", "factor", "kernel_drift", "floats_to_target",
                  "work_to_target")  # fmt: skip
    for panel, quantity in zip(panels, quantities, strict=True):
        for name in world.names("method"):
            if quantity in ("test_accuracy", "factor"):
                scale = 100.0 if quantity == "test_accuracy" else 1.0
                values = scale * world.values(quantity, method=name)
            else:
                values = _relative(world, quantity, name)
            panel.row(shown, place[name], np.where(values > NOTHING, values, np.nan))


def _relative(world: Group, quantity: str, name: str) -> Array:
    """A quantity over FedAvg's of the same seed."""
    values, base = (world.values(quantity, method=n) for n in (name, "fed_avg"))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(values / base)


def _label(name: str) -> str:
    personal = name in METHODS and METHODS[name].personal
    return looks_of([name])[name].label + ("*" if personal else "")


def _table(found: Sequence[Group]) -> list[list[str]]:
    """One row per world and method: paired differences to FedAvg with their bootstrap interval."""
    rows = []
    for world in found:
        base = world.values("final_objective", method="fed_avg")
        for name in world.names("method"):
            with np.errstate(invalid="ignore"):  # both diverged
                apart = world.values("final_objective", method=name) - base
            known = apart[np.isfinite(apart)]
            low, high = bootstrapped(known) if known.size > 1 else (np.nan, np.nan)
            middle = float(np.median(apart)) if known.size == apart.size else np.inf
            setting = world.values("setting", method=name)
            told = "" if np.isnan(setting).all() else in_words(setting, digits=2)
            rows.append([world.label, _label(name), *(number(v) for v in (middle, low, high)),
                         str(int((apart < 0.0).sum())), str(apart.size),
                         in_words(world.values("factor", method=name), digits=2),
                         told])  # fmt: skip
    return rows
