"""What drawn clients, small batches and unequal work do to both stages (C9, C19, C20, C21).

Upper row: loss after both stages and its kernel part against warm-up time, and the share of the
drift that sampling undoes. Lower row: the frozen stage alone, at the best kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page, log
from linattn.report.groups import Group
from linattn.report.looks import INK, LOOKS, MARKERS, SHADES, Look, shaded
from linattn.report.regimes import PAIR, TIME, drift, excess, time, worlds
from linattn.report.words import in_words, number

NAME = "noise"
SIMULATION = "noise"
STEP = log("step size η (1/curvature)")
CAPTION = (
    "{0}, {1} clients of which a share takes part in every round; means "
    "over draws of the warm-up, the frozen stage exact in expectation (C20). Upper row: "
    "expected loss above P_ref after both stages, and of the kernel alone, against warm-up "
    "time, in units of the lowest with everybody; lines: full batches, dots: batches of {2}. "
    "Right, how much of the client drift of all parameters the draws undo, at the horizon on "
    "full batches; κ is the variance of a sampled mean in units of that of one client, and the "
    "line holds where clients differ alike in all directions (C19). Lower row, at the kernel "
    "that is best with everybody: where averaging of the value block ends, in its bias and its "
    "noise; the step from which on its second moment grows without bound, though the mean "
    "settles up to the dashed line; bias of work between 1 and 2E − 1 steps under plain and "
    "normalized averaging, and of equal work."
)
UNEQUAL = {
    "plain": LOOKS["fed_avg"]._replace(label="unequal work, plain", marker=""),
    "normalized": LOOKS["fed_nova"]._replace(label="unequal work, normalized", marker=""),
    "equal": Look("equal work", INK, "--"),
}
BIAS = Look("bias, at any participation", INK, ":")


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    part = _main(results)
    told = (part.label, _clients(part), min(part.fields["batch_sizes"]))
    lines = _findings(part)
    page = Page(NAME, CAPTION.format(*told), lines[:3], lines[3:])
    shares = part.coordinate("participation")
    looks = shaded([f"participation {share:g}" for share in shares], marker=True)
    _curves(page, part, looks)
    _undone(page, results)
    _floor(page, part, looks)
    _critical(page, part)
    _unequal(page, part)
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return what the draws do to kernel, value block and drift."""
    return "\n".join(_findings(_main(results))[:3])


def _findings(part: Group) -> list[str]:
    shares = part.coordinate("participation")
    kernel, total = _lowest(part, "profile"), _lowest(part, "objective")
    best = shares[kernel.argmin(axis=1)]
    floors = {name: part.values(f"floor_{name}") for name in UNEQUAL}
    fall = {name: floor[:, -1] / floor[:, 0] for name, floor in floors.items()}
    halvings = np.log2(part.coordinate("small_step")[0] / part.coordinate("small_step")[-1])
    return [
        f"{part.label}, s = {drift(part):g}, kernel alone at its best length, in units of that "
        f"with everybody: {_each(shares, kernel)}; it ends best at {in_words(best)}",
        f"both stages at their best length, in these units: {_each(shares, total)}",
        f"share of the drift undone at the horizon: {_each(shares, _share_undone(part))}; "
        f"κE/(E − 1) = {', '.join(number(k) for k in _kappa(part)[1:])}",
        f"the second moment breaks at {in_words(_ratio(part).min(axis=(1, 2)))} of the step that "
        "breaks the mean",
        f"with {halvings:.0f} halvings of the step the bias floor of unequal work falls to "
        f"{in_words(fall['plain'])} of itself, normalized to {in_words(fall['normalized'])}",
    ]


def _main(results: Sequence[Result]) -> Group:
    """The regime with the most batch sizes, of the largest drift number and heterogeneity."""
    parts = [part for world in worlds(results) for part in world.split(*PAIR)]
    named = [(len(p.fields["batch_sizes"]), drift(p), k) for k, p in enumerate(parts)]
    return parts[max(named)[2]]


def _clients(part: Group) -> int:
    return int(part.fields["problem.num_clients"])


def _whole(part: Group, name: str) -> Array:
    """A variable at the largest batch, (S, participations, …)."""
    sizes = part.coordinate("batch_size")
    return np.asarray(part.values(name)[:, :, int(sizes.argmax())])


def _above(part: Group, name: str) -> Array:
    """A loss above P_ref at the largest batch, (S, participations, lengths)."""
    return np.asarray(excess(part, name)[:, :, int(part.coordinate("batch_size").argmax())])


def _lowest(part: Group, name: str) -> Array:
    """A loss above P_ref at its best length over that of the first participation, (S, K)."""
    lowest = _above(part, name).min(axis=-1)
    return np.asarray(lowest / lowest[:, :1])


def _each(shares: Array, values: Array) -> str:
    told = zip(shares[1:], values.T[1:], strict=True)
    return ", ".join(f"{in_words(row)} at {share:g}" for share, row in told)


def _curves(page: Page, part: Group, looks: Sequence[Look]) -> None:
    """Losses of every seed in units of the lowest with everybody, lines; small batches as dots."""
    titles = {"objective": "loss after both stages", "profile": "loss of the kernel alone"}
    least = int(part.coordinate("batch_size").argmin())
    for name, title in titles.items():
        values, small = _above(part, name), excess(part, name)[:, :, least]
        unit = values[:, 0].min(axis=-1)[:, None]
        low = 0.7 * float(np.median(values / unit[..., None], axis=0).min())
        panel = page.panel(title, TIME, log("loss / best with everybody (1)", low=low))
        for k, shown in enumerate(looks):
            panel.curve(shown, time(part), values[:, k] / unit, marker="")
            dots = np.median(small[:, k] / unit, axis=0)
            panel.add("points", shown, time(part), dots, label="_", marker=".", weight=0.8)
        panel.rim(time(part), values.max(axis=1))


def _share_undone(part: Group) -> Array:
    """Share of the drift that is undone at the horizon, (S, participations)."""
    return np.asarray(_whole(part, "undone")[:, :, -1])


def _kappa(part: Group) -> Array:
    """κE/(E − 1) of every participation, the share that is undone for isotropic differences."""
    count, steps = _clients(part), int(part.fields["local_steps"])
    drawn = np.maximum(1, np.round(part.coordinate("participation") * count))
    kappa = (count - drawn) / (drawn * max(count - 1, 1))
    return np.asarray(kappa * steps / (steps - 1.0))


def _undone(page: Page, results: Sequence[Result]) -> None:
    panel = page.panel("drift that sampling undoes", "κE/(E − 1), κ = (C − K)/(K(C − 1))",
                       "share undone (1)")  # fmt: skip
    found = _by_drift(results)
    for k, (s, part) in enumerate(found):
        shown = Look(f"s = {s:g}", SHADES[k % len(SHADES)], "", MARKERS[k % len(MARKERS)])
        panel.spots(shown, _kappa(part), _share_undone(part))
    end = max(float(_kappa(part).max()) for _, part in found)
    panel.add("line", Look("isotropic differences", INK, "--"), [0.0, end], [0.0, end])


def _by_drift(results: Sequence[Result]) -> list[tuple[float, Group]]:
    """One part for every drift number above zero, of the world of the figure."""
    main = _main(results)
    own = [p for w in worlds(results) for p in w.split(*PAIR)
           if p.heterogeneity == main.heterogeneity]  # fmt: skip
    held = {drift(p): p for p in own if drift(p) > 0.0} | {drift(main): main}
    return sorted(held.items(), key=lambda item: item[0])


def _floor(page: Page, part: Group, looks: Sequence[Look]) -> None:
    panel = page.panel("floor of the value block", STEP, log("noise and bias (loss)"))
    steps, noise = part.coordinate("step"), _whole(part, "floor_noise")
    panel.curve(BIAS, steps, _whole(part, "floor_bias")[:, 0])
    for k, shown in enumerate(looks):
        if (noise[:, k] > 0.0).any():
            panel.curve(shown, steps, noise[:, k], marker="")


def _ratio(part: Group) -> Array:
    """Critical step of the second moment over the mean's, (S, participations, batch sizes)."""
    return part.values("critical_second_moment") / part.values("critical_mean")


def _critical(page: Page, part: Group) -> None:
    panel = page.panel("step that breaks the second moment", log("participation"),
                       "critical step / that of the mean")  # fmt: skip
    ratio = _ratio(part)
    for j, size in enumerate(part.coordinate("batch_size")):
        whole = size >= part.fields["problem.sequences_per_client"]
        label = "full batch" if whole else f"batch of {size:g}"
        shown = Look(label, SHADES[2 * j % len(SHADES)], "", MARKERS[j])
        panel.spots(shown, part.coordinate("participation"), ratio[:, :, j])
    panel.level(Look("mean unstable from here on", INK, "--"), 1.0)


def _unequal(page: Page, part: Group) -> None:
    panel = page.panel("bias of unequal work", STEP, log("bias floor (loss)"))
    for name, shown in UNEQUAL.items():
        panel.curve(shown, part.coordinate("small_step"), part.values(f"floor_{name}"))
