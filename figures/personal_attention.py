"""Personal attention as clients need different kernels (FedTP)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Axis, Page, log
from linattn.report.groups import Group, groups
from linattn.report.looks import LOOKS, shaded
from linattn.report.words import bounded, in_words, mostly, reproduced

NAME = "personal_attention"
SIMULATION = "personal_attention"
SPREAD = "problem.kernel_heterogeneity"
METHODS = {
    "fed_avg": LOOKS["fed_avg"],
    "fed_avg_momentum": LOOKS["fed_avg_momentum"]._replace(label="FedAvg, as fast as FedTP"),
    "fine_tuned": LOOKS["fine_tuned"],
    "local_attention": LOOKS["local_attention"],
    "fed_tp_linear": LOOKS["fed_tp"],
    "fed_tp_mlp": LOOKS["fed_tp_mlp"],
}
CAPTION = (
    "Loss of the models that clients use on fresh sequences of their own, over that of local "
    "attention, against the planted spread of the clients' kernels; every method at its best step "
    "on the training data. Last panel: the spread of local kernels under one shared value block."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results, SPREAD)[:5]
    page = Page(NAME, CAPTION, summary(results).splitlines(), _lines(found))
    axis = Axis("planted kernel heterogeneity (1)", low=0.0)
    for world in found:
        panel = page.panel(world.label, axis, log("loss / loss of local (1)"))
        for method, shown in METHODS.items():
            local = [_loss(part, "local_attention") for part in world.split(SPREAD)]
            losses = [_loss(part, method) for part in world.split(SPREAD)]
            with np.errstate(invalid="ignore"):  # both diverged: nothing to compare
                panel.curve(shown, _levels(world), np.stack(losses, 1) / np.stack(local, 1))
    panel = page.panel("spread of local kernels", axis, Axis("relative spread (1)", low=0.0))
    for world, shown in zip(found, shaded(w.label for w in found), strict=True):
        values = [part.values("kernel_spread") for part in world.split(SPREAD)]
        panel.curve(shown, _levels(world), np.stack(values, axis=1))
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return FedTP's claims against the stored numbers."""
    parts = [part for world in groups(results, SPREAD) for part in world.split(SPREAD)]
    apart = [part for part in parts if part.fields[SPREAD] > 0.0]
    alike = [part for part in parts if part.fields[SPREAD] == 0.0]
    hurts = [mostly(_loss(p, "fed_avg") > _loss(p, "local_attention")) for p in apart]
    better, both, tuned = (
        [mostly(_best(p) < rival(p)) for p in apart]
        for rival in (lambda p: _loss(p, "local_attention"), _averaged,
                      lambda p: _loss(p, "fine_tuned"))
    )  # fmt: skip
    null = [mostly(_best(p) > 0.9 * _averaged(p)) for p in alike]
    return "\n".join(
        [
            "claim (FedTP), where kernels differ: averaging attention is worse than local "
            f"attention: {reproduced(hurts, 'setting')}",
            f"the hypernetwork beats local attention: {reproduced(better, 'setting')}, averaged "
            f"attention: {reproduced(both, 'setting')}, averaging with fine-tuning: "
            f"{reproduced(tuned, 'setting')}",
            "where kernels do not differ, the gain over averaging vanishes (below 10 %): "
            f"{reproduced(null, 'setting')}",
        ]
    )


def _lines(found: Sequence[Group]) -> list[str]:
    return [
        f"{world.label}, kernel {part.fields[SPREAD]:g}: test loss "
        + "; ".join(f"{look.label} {in_words(_loss(part, m))}" for m, look in METHODS.items())
        for world in found
        for part in world.split(SPREAD)
    ]


def _levels(world: Group) -> list[float]:
    return [float(part.fields[SPREAD]) for part in world.split(SPREAD)]


def _loss(part: Group, method: str) -> Array:
    return bounded(part.values("test_loss", method=method))


def _averaged(part: Group) -> Array:
    """The better of FedAvg and of FedAvg with the server step of FedTP, per seed."""
    return np.minimum(_loss(part, "fed_avg"), _loss(part, "fed_avg_momentum"))


def _best(part: Group) -> Array:
    """The better of the two hypernetworks by median, per seed."""
    made = [_loss(part, f"fed_tp_{network}") for network in ("linear", "mlp")]
    return min(made, key=lambda values: float(np.median(values)))
