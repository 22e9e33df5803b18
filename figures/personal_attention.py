"""Figure 11: personal attention as clients need different kernels.

Loss on fresh sequences of every client: averaged attention, averaged and fine-tuned, local, and
made by a hypernetwork (FedTP), against the spread of the clients' kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.groups import Group, field, groups
from linattn.report.marks import caption, median_line, panel
from linattn.report.style import LOOKS, PageLook, legend, sheet
from linattn.report.words import in_words, last_known, mostly, reproduced

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


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    found = groups(results, along=SPREAD)
    with sheet(NAME, len(found), 3, height=3.2 if len(found) == 1 else 2.3, look=look) as drawn:
        for number, (world, (loss, ratio, spread)) in enumerate(
            zip(found, drawn.axes, strict=True)
        ):
            lowest = number == len(found) - 1
            _losses(drawn, loss, world, relative=False, lowest=lowest)
            _losses(drawn, ratio, world, relative=True, lowest=lowest)
            _spread(drawn, spread, world, lowest=lowest)
        legend(drawn, columns=4)
        caption(
            drawn,
            "Loss of the models that clients use on fresh sequences of their own; lines: median "
            f"over seeds, bands: 10–90 %. {_claims(found)}",
        )
        return drawn.save(folder)


def summary(results: Sequence[Result]) -> str:
    """Return test losses at every planted spread with quantiles, then the claims."""
    found = groups(results, along=SPREAD)
    lines = []
    for world in found:
        for level in _levels(world):
            held = _at(world, level)
            named = [
                f"{look.label} {in_words(_loss(held, method))}" for method, look in METHODS.items()
            ]
            lines.append(f"{world.label}, kernel {level:g}: test loss {'; '.join(named)}")
    return "\n".join([*lines, _claims(found)])


def _losses(drawn: Any, axes: Any, world: Group, *, relative: bool, lowest: bool) -> None:
    y = "loss / loss of local" if relative else "test loss"
    x = "planted kernel heterogeneity" if lowest else ""
    panel(drawn, axes, f"{world.label}: {y}", x=x, y=y, outer=False)
    shown = "relative to local attention" if relative else fill(world.label, 34)
    axes.set_title(shown, fontsize=7)
    axes.set_yscale("log")
    levels = _levels(world)
    for method, look in METHODS.items():
        rows = [_loss(_at(world, level), method) for level in levels]
        if relative:
            local = [_loss(_at(world, level), "local_attention") for level in levels]
            with np.errstate(invalid="ignore"):  # both diverged: nothing to compare
                rows = [r / base for r, base in zip(rows, local, strict=True)]
        median_line(drawn, axes, look, levels, np.stack(rows, axis=1))


def _spread(drawn: Any, axes: Any, world: Group, *, lowest: bool) -> None:
    y = "relative spread"
    panel(drawn, axes, f"{world.label}: {y}", x="planted kernel heterogeneity" if lowest else "",
          y=y, outer=False)  # fmt: skip
    axes.set_title("spread of local kernels", fontsize=7)
    levels = _levels(world)
    rows = [_at(world, level).values("kernel_spread") for level in levels]
    shown = LOOKS["measured"]._replace(label="measured under one shared value block", marker="o")
    median_line(drawn, axes, shown, levels, np.stack(rows, axis=1))
    axes.set_ylim(bottom=0.0)


def _levels(world: Group) -> list[float]:
    return sorted({float(field(r, SPREAD)) for r in world.results})


def _at(world: Group, level: float) -> Group:
    """The runs of a world at one planted heterogeneity."""
    kept = [r for r in world.results if float(field(r, SPREAD)) == level]
    return Group(world.label, kept, world.fields)


def _loss(world: Group, method: str) -> Array:
    place = list(world.results[0].dataset["method"].values).index(method)
    return last_known(world.values("test_loss")[:, place])


def _claims(found: list[Group]) -> str:
    """FedTP's claims in our words against the stored numbers."""
    cases = [(world, level) for world in found for level in _levels(world)]
    apart = [_at(world, level) for world, level in cases if level > 0.0]
    alike = [_at(world, level) for world, level in cases if level == 0.0]
    hurts = [mostly(_loss(w, "fed_avg") > _loss(w, "local_attention")) for w in apart]
    better = [mostly(_best(w) < _loss(w, "local_attention")) for w in apart]
    both = [mostly(_best(w) < _averaged(w)) for w in apart]
    tuned = [mostly(_best(w) < _loss(w, "fine_tuned")) for w in apart]
    null = [mostly(_best(w) > 0.9 * _averaged(w)) for w in alike]
    return (
        "Claims (FedTP), where kernels differ: averaging attention is worse than local attention: "
        f"{reproduced(hurts, 'setting')}; the hypernetwork beats local attention: "
        f"{reproduced(better, 'setting')}, averaged attention: {reproduced(both, 'setting')}, "
        f"averaging with fine-tuning: {reproduced(tuned, 'setting')}. Where they do not, the gain "
        f"over averaging vanishes (below 10 %): {reproduced(null, 'setting')}."
    )


def _averaged(world: Group) -> Array:
    """The better of FedAvg and of FedAvg with the server step of FedTP, per seed."""
    return np.minimum(_loss(world, "fed_avg"), _loss(world, "fed_avg_momentum"))


def _best(world: Group) -> Array:
    """The better of the two hypernetworks by median, per seed."""
    made = [_loss(world, f"fed_tp_{network}") for network in ("linear", "mlp")]
    return min(made, key=lambda values: float(np.median(values)))
