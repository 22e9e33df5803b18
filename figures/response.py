"""The trade-off predicted without the federated run, and what its best length hangs on (C18, C24).

Left: loss after both stages against warm-up time for several drift numbers, measured and predicted.
Right: the best time of every (η, E) against the drift number alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.linalg import lowest_point
from linattn.report.canvas import Axis, Page, Panel, log
from linattn.report.groups import Group, field, groups
from linattn.report.looks import INK, Look, shaded
from linattn.report.regimes import PAIR, by_drift, drift, excess, time
from linattn.report.words import in_words

NAME = "response"
SIMULATION = "response"
SHOWN = (0.02, 0.05, 0.2, 0.5)
TIME = Axis("warm-up time before freezing, ηET (1/curvature)", low=0.0)
PREDICTED = Look("predicted, no federated run", INK, "", "o", 0.6)
MEASURED_BEST = Look("best length, measured", INK, "", "*", 2.4)
LAW = Look("log law, slope 1/κ", INK, "--")
PREDICTED_BEST = Look("best length, predicted", "#D55E00", "", "$\u25cb$", 4.0)
CAPTION = (
    "{0}, one seed. Left: loss above the best known value after a warm-up of that time and "
    "averaging of the value block up to the horizon, for drift numbers s = η(E − 1)/2. Lines: "
    "measured federated runs; dots: predicted from centralized gradient steps and the clients' "
    "drift measured at these {1} rounds, no federated run (C24). Stars: best measured length, "
    "rings: best predicted length. Right: best measured time of every η and E; it depends on "
    "their drift number alone (C18), with the slope of the log law where drift lies beyond the "
    "optimum as seen from the approach."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    world = _main(results)
    chosen = by_drift(world, SHOWN)
    counts = [part.values("num_impulses").ravel()[-1] for _, part in chosen]
    impulses = in_words(counts, whole=True)
    page = Page(NAME, CAPTION.format(world.label, impulses), summary(results).splitlines(),
                columns=2, height=3.0)  # fmt: skip
    curves = page.panel("how long to warm up: measured and predicted", TIME,
                        log("final loss above the best known (loss)"))  # fmt: skip
    for (_, part), shown in zip(chosen, shaded(f"drift s = {s:g}" for s, _ in chosen), strict=True):
        _curve(curves, part, shown)
    _collapse(page, results)
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return how good prediction and collapse are."""
    parts = [part for world in _worlds(results) for part in world.split(*PAIR)]
    inside = [(part, part.values("tradeoff") > 0) for part in parts if drift(part) > 0.0]
    if not any(held.any() for _, held in inside):
        return "no run has a trade-off"
    regret, error, count = (
        np.concatenate([part.values(name)[:, -1][held] for part, held in inside])
        for name in ("regret", "worst_error", "num_impulses")
    )
    spread = [apart for world in _worlds(results) for apart in _spreads(world)]
    lines = [
        f"predicted from {in_words(count, whole=True)} measurements of drift instead of "
        f"{in_words([part.coordinate('warmup')[-1] for part, _ in inside], whole=True)} federated "
        f"rounds, the curve is within {in_words(error, percent=True)} of its excess at worst",
        f"the predicted length is the best one in {int((regret <= 0.0).sum())} of {regret.size} "
        f"runs with a trade-off; its relative regret is at most {regret.max():.2g}",
    ]
    if spread:
        lines.append(f"τ* at equal drift number varies by {in_words(spread, percent=True)} over η")
    lines += _law(parts)
    return "\n".join(lines)


def _law(parts: Sequence[Group]) -> list[str]:
    """How often the sign condition is right, and how far the time of the log law is off."""
    right, apart = [], []
    for part in parts:
        crossing = part.values("law_crossing")
        known = np.isfinite(crossing) & (drift(part) > 0.0)
        inside = part.values("tradeoff") > 0
        right += ((crossing < 0.0) == inside)[known].tolist()
        scale = part.fields["local_lr"] * part.fields["local_steps"]
        both = known & inside & (crossing < 0.0)
        measured = scale * part.values("warmup_star")[both]
        apart += (part.values("law_time")[both] / np.maximum(measured, scale)).tolist()
    if not right:
        return []
    told = f"; its time is {in_words(apart)} of the measured one" if apart else ""
    return [f"the sign of the log law is right in {sum(right)} of {len(right)} runs{told}"]


def _worlds(results: Sequence[Result]) -> list[Group]:
    return groups(results, *PAIR, "routes")


def _main(results: Sequence[Result]) -> Group:
    """The first seed of the world with most (η, E), among those of most trade-offs."""
    world = max(
        _worlds(results),
        key=lambda held: (len(held.split(*PAIR)), (held.values("tradeoff") > 0).sum()),
    )
    first = min(field(result, "seed") for result in world.results)
    return world.only(lambda result: field(result, "seed") == first)


def _curve(panel: Panel, part: Group, shown: Look) -> None:
    measured, reference = excess(part), part.values("reference")[:, None]
    panel.add("line", shown, time(part), measured[0], line="-", weight=1.3)
    scale = part.fields["local_lr"] * part.fields["local_steps"]
    at, values = part.values("impulse_round")[0] * scale, part.values("predicted_at_impulse")[0]
    panel.add("points", PREDICTED, at, values - reference[0])
    for name, best in (("warmup_star", MEASURED_BEST), ("predicted_star", PREDICTED_BEST)):
        length = part.values(name).ravel()[-1]
        height = np.interp(length, part.coordinate("warmup"), measured[0])
        panel.add("points", best, length * scale, height)


def _best_times(part: Group) -> list[tuple[int, float]]:
    """Seed and τ* of every run with a trade-off, between the lengths of the grid by a parabola."""
    scale = part.fields["local_lr"] * part.fields["local_steps"]
    lengths, inside = part.coordinate("warmup"), part.values("tradeoff") > 0
    return [
        (field(result, "seed"), scale * lowest_point(lengths, row))
        for result, held, row in zip(part.results, inside, excess(part), strict=True)
        if held
    ]


def _spreads(world: Group) -> Iterator[float]:
    """Relative spread of τ* over the steps of one seed and drift number."""
    held: dict[tuple[int, float], list[float]] = {}
    for part in world.split(*PAIR):
        if drift(part) > 0.0:
            for seed, best in _best_times(part):
                held.setdefault((seed, drift(part)), []).append(best)
    for values in held.values():
        if len(values) > 1:
            yield (max(values) - min(values)) / float(np.mean(values))


def _collapse(page: Page, results: Sequence[Result]) -> None:
    world = _main(results)
    panel = page.panel("best time depends on the drift number alone",
                       log("drift number s = η(E − 1)/2 (1/curvature)"),
                       "best warm-up time τ* (1/curvature)")  # fmt: skip
    steps = sorted({part.fields["local_lr"] for part in world.split(*PAIR)})
    for step, marker, shade, size in zip(
        steps, "so^", ("#7F7F7F", "#0072B2", "#D55E00"), (3.0, 1.8, 1.0), strict=False
    ):
        parts = [p for p in world.split(*PAIR) if p.fields["local_lr"] == step and drift(p) > 0.0]
        times = {drift(part): [best for _, best in _best_times(part)] for part in parts}
        found = [(s, float(np.median(held))) for s, held in times.items() if held]
        if found:
            look = Look(f"η = {step:g}", shade, "", marker, size)
            panel.add("points", look, *zip(*found, strict=True))
    told = {drift(p): float(p.values("law_time")[0]) for p in world.split(*PAIR)}
    lawful = sorted((s, time) for s, time in told.items() if s > 0.0 and np.isfinite(time))
    if len(lawful) > 1:
        panel.add("line", LAW, *zip(*lawful, strict=True))
