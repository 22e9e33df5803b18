"""FedAvg and FedFrozen with every second stage on real data, each at its best step and length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.analysis.study import bootstrapped
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.experiments.tables import write_table
from linattn.report.canvas import Axis, Page, Panel, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS, Look
from linattn.report.words import in_words, number, page_name, pages

NAME = "real_data"
SIMULATION = "real_data"
ROWS = 12
"""Settings of a page."""
CURVES = 3
"""Settings along rounds."""
METHODS = ("fed_avg", "fed_frozen", "frozen_scaffold", "frozen_one_shot")
CEILING = LOOKS["reference"]._replace(label="trained centrally", line="", marker="|", weight=2.0)
CLASSIFIERS = {
    "linear": Look("logistic regression", "#999933", "", "2"),
    "kernel": Look("kernel machine", "#882255", "", "1"),
}
CAPTION = (
    "Every method at the step and warm-up length with the smallest training objective at the end. "
    "Test accuracy beside that of the same model trained centrally and of plain classifiers; "
    "training objective over the central one; floats sent over those of FedAvg. {0}"
)
UNSAID = ("classifiers", "factors")
"""No settings: what is trained beside one, and where its search for steps begins."""
ALONG = "The settings along rounds are those in which FedAvg is least accurate."


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figures of stored results into `folder`; return their files and the table's."""
    found, made = groups(results, *UNSAID), []
    for place, part in enumerate(pages(found, ROWS)):
        page = Page(page_name(NAME, place), CAPTION.format(""), summary(results).splitlines(),
                    height=0.6 + 0.32 * len(part))  # fmt: skip
        _ends(page, part)
        made += page.save(folder, look)
    hardest = sorted(found, key=lambda w: float(np.median(_accuracy(w, "fed_avg"))))[:CURVES]
    page = Page(f"{NAME}_rounds", CAPTION.format(ALONG), columns=len(hardest))
    for world in hardest:
        panel = page.panel(world.label, "round", Axis("test accuracy (%)", low=0.0, high=100.0))
        _along(panel, world, world.coordinate("round"), "accuracy", 100.0)
    for world in hardest:
        panel = page.panel(f"training: {world.label}", "round", log("objective (loss)"))
        _along(panel, world, world.coordinate("round"), "objective", 1.0)
        panel.curve("predicted", world.coordinate("round"), world.values("predicted_objective"),
                    marker="")  # fmt: skip
        panel.level("reference", float(np.median(world.values("ceiling_objective"))),
                    label="trained centrally")  # fmt: skip
    head = ("data", "method", "accuracy (%)", "over FedAvg", "low", "high", "objective", "step",
            "T", "stability")  # fmt: skip
    table = write_table(
        folder / "tables", f"{NAME}_table", head, [r for w in found for r in _table(w)]
    )
    return [*made, *page.save(folder, look), *table]


def summary(results: Sequence[Result]) -> str:
    """Return what the second stages change over all settings, and whether best steps are inside."""
    found = groups(results, *UNSAID)
    inside = np.concatenate([w.values("interior").ravel() for w in found])
    lines = []
    for name in ("fed_frozen", "frozen_one_shot"):
        gain = np.concatenate([_accuracy(w, name) - _accuracy(w, "fed_avg") for w in found])
        loss = np.concatenate([_of(w, name) / _of(w, "fed_avg") for w in found])
        lines.append(
            f"{LOOKS[name].label} over FedAvg, all settings and seeds: {in_words(gain)} points of "
            f"test accuracy, training objective {in_words(loss)} of FedAvg's"
        )
    top = max(float(np.median(_accuracy(w, name))) for w in found for name in METHODS)
    same = [w.label for w in found if (w.values("accuracy_rounds")[..., 0] >= 1.0).all()]
    lines.append(
        f"best steps are interior in {100 * inside.mean():.0f} % of {inside.size} cells; the "
        f"highest median accuracy is {top:.1f} %"
    )
    if same:
        lines[-1] += f"; before any training all is right, as with one class, in {', '.join(same)}"
    return "\n".join(lines)


def _ends(page: Page, part: Sequence[Group]) -> None:
    """Accuracy, objective and floats at the end, a row per setting."""
    rows = Axis("", names=tuple(world.label for world in part))
    accuracy, objective, floats = (
        page.panel(title, axis, rows)
        for title, axis in (
            ("test accuracy", Axis("%", high=100.0)),
            ("training objective", log("over the central one (1)")),
            ("floats sent", Axis("over FedAvg's (1)", low=0.0)),
        )
    )
    for place, world in enumerate(part):
        for name, shift in zip(METHODS, (-0.24, -0.08, 0.08, 0.24), strict=True):
            accuracy.row(LOOKS[name], place + shift, _accuracy(world, name))
            objective.row(LOOKS[name], place + shift,
                          _of(world, name) / world.values("ceiling_objective"))  # fmt: skip
            price = [world.values("floats", method=m) for m in (name, "fed_avg")]
            floats.row(LOOKS[name], place + shift, price[0] / price[1])
        accuracy.row(CEILING, place + 0.4, 100.0 * world.values("ceiling_accuracy"))
        for name in world.names("classifier"):
            values = world.values("classifier_accuracy", classifier=name)
            accuracy.row(CLASSIFIERS[name], place + 0.4, 100.0 * values)


def _along(panel: Panel, world: Group, across: Array, name: str, scale: float) -> None:
    for method in METHODS:
        values = scale * world.values(f"{name}_rounds", method=method)
        panel.curve(LOOKS[method], across, values, marker="")


def _table(world: Group) -> list[list[str]]:
    """One row per method: accuracy, and its paired difference to FedAvg with an interval."""
    made = []
    for name in METHODS:
        gain = _accuracy(world, name) - _accuracy(world, "fed_avg")
        low, high = bootstrapped(gain) if gain.size > 1 else (np.nan, np.nan)
        made.append(
            [
                world.label,
                LOOKS[name].label,
                in_words(_accuracy(world, name)),
                *(number(v) for v in (float(np.median(gain)), low, high)),
                in_words(_of(world, name)),
                in_words(world.values("factor", method=name), digits=2),
                in_words(world.values("length", method=name), digits=2),
                in_words(100.0 * world.values("stability", method=name), digits=2),
            ]
        )
    return made


def _accuracy(world: Group, name: str) -> Array:
    return np.asarray(100.0 * world.values("test_accuracy", method=name))


def _of(world: Group, name: str) -> Array:
    return world.values("objective", method=name)
