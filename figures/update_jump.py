"""Do update norms jump after averaging because layers do not match? (FedPart)

Norms just before and just after averaging when everything, one block at a time, or the value block
alone is trained; the last is convex in one block, so nothing can mismatch there. Beside it the
mismatch of outputs, which isolates the error of averaging.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS
from linattn.report.words import in_words, mostly, reproduced

NAME = "update_jump"
SIMULATION = "update_jump"
VARIANTS = {
    "full": LOOKS["fed_avg"]._replace(label="everything (FedAvg)"),
    "one_block": LOOKS["fed_part"]._replace(label="one block in turn (FedPart)"),
    "value_only": LOOKS["freeze_start"]._replace(label="value alone (convex control)"),
}
CYCLE = 6
"""Rounds that hold whole cycles over two blocks and over three."""
EXACT = 1e-13
"""Relative mismatch that is rounding."""
CAPTION = (
    "Norm of updates just after averaging over that just before (left; along rounds on the right) "
    "and the relative mismatch of outputs, ‖F(w̄) − Σp F(w)‖/‖Σp F(w)‖ (middle; none where it is "
    "rounding), means over the last half of the rounds, plain gradient steps. A band that reaches "
    "the top of its panel has no upper edge: at least a tenth of the seeds diverge there."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results)
    rows = Axis("", names=tuple(_short(world.label) for world in found))
    lines = [
        f"{world.label}: {shown.label}: jump {in_words(_known(_jump(world, name)))}, mismatch "
        f"{in_words(_known(_mismatch(world, name)), digits=2)}"
        for world in found
        for name, shown in VARIANTS.items()
    ]
    page = Page(NAME, CAPTION, summary(results).splitlines(), lines, height=1.6 + 0.3 * len(found))
    jump = page.panel("update norm, after / before", log("ratio (1)"), rows)
    mismatch = page.panel("output mismatch", log("relative (1)"), rows)
    world = max(found, key=lambda w: (not w.factored, sum(w.heterogeneity)))
    along = page.panel(f"along rounds, {_short(world.label)}", "round", log("ratio (1)"))
    for name, shift in zip(VARIANTS, (-0.22, 0.0, 0.22), strict=True):
        for row, each in enumerate(found):
            jump.row(VARIANTS[name], row + shift, _jump(each, name))
            values = _mismatch(each, name)
            mismatch.row(VARIANTS[name], row + shift, np.where(values > EXACT, values, np.nan))
        size = CYCLE if len(world.coordinate("round")) >= 6 * CYCLE else 1
        across = _cycles(world.coordinate("round")[None], size)[0]
        along.curve(VARIANTS[name], across, _cycles(_ratio(world, name), size), marker="")
    along.level("reference", 1.0, label="no jump")
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return FedPart's claim against the stored numbers, and against its control."""
    found = groups(results)
    pairs = [_known(_jump(w, "full") - _jump(w, "one_block")) for w in found]
    order = [mostly(apart > 0.0) for apart in pairs if len(apart)]
    control = sum(mostly(_known(_jump(w, "value_only")) > 1.0) for w in found)
    block = [_known(_mismatch(w, "one_block")) for w in found]
    exact = [mostly(values < EXACT) for values in block if len(values)]
    return "\n".join(
        [
            "claim (FedPart): full updates jump after averaging, one-block updates jump less, "
            f"because blocks mismatch: the order is {reproduced(order)}",
            f"but the convex control, where no blocks can mismatch, jumps too in {control} of "
            f"{len(found)} worlds: the jump also shows that clients fit their own data",
            "the mismatch of outputs vanishes for one block of one layer: " + reproduced(exact),
        ]
    )


def _short(label: str) -> str:
    return label.replace("target 0, covariate 0", "same distribution")


def _ratio(world: Group, name: str) -> Array:
    after, before = (world.values(quantity, variant=name) for quantity in ("after", "before"))
    with np.errstate(invalid="ignore"):  # diverged
        return np.asarray(after / before)


def _cycles(values: Array, size: int) -> Array:
    """Means over runs of `size` rounds, (seeds, rounds // size)."""
    count = values.shape[1] // size
    return np.asarray(values[:, : count * size].reshape(len(values), count, size).mean(axis=2))


def _second_half(values: Array) -> Array:
    return np.asarray(values[:, values.shape[1] // 2 :].mean(axis=1))


def _jump(world: Group, name: str) -> Array:
    return _second_half(_ratio(world, name))


def _mismatch(world: Group, name: str) -> Array:
    return _second_half(world.values("mismatch", variant=name))


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]
