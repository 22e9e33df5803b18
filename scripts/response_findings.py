"""The trade-off predicted without the federated run: the record of stored runs, and what it says.

    python scripts/response_findings.py --results results
    python scripts/response_findings.py

The first writes one row per run of the simulations `response`, `impulses`, `random_predictions`,
`sampled_response`, `predicted_worlds` and `tuned_prediction` into ``docs/record/response``; both
fill in the part of paper_notes.md between ``<!-- response -->`` and ``<!-- end of response -->``
from those rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from interpolation_orders import trials
from kept import read_rows
from pages import RECORD, main, table
from response_record import CONTROL, Row, Rows, column, drift, rows, write_record

from linattn._typing import Array
from linattn.report.words import OF_RUNS, in_words, number

SMALL = 0.11
"""Drift numbers up to a tenth, E rounded."""
WORTH = 0.05
"""Share of the excess that is worth a second stage."""
METHODS = {
    "fed_avg": "never freezing",
    "fed_frozen": "freezing",
    "fed_frozen_exact": "freezing and one exact value round",
}
ORDERS = ("C17", "C18", "C23")
KINDS = ("merged", "factored", "two heads", "unequal weights")


def findings() -> str:
    """Return what the record says, as Markdown."""
    goals = [*_c24(), *_lengths(), *_random_goal(), *_passes(), *_sampling(), *_spread()]
    goals += [*_tuned(), *_orders()]
    told = table(("quantity", "goal", "measured"), goals)
    parts = [_scope(), told, _by_kind(), _law(), _pays(), _others()]
    return "\n".join(line for part in parts if part for line in (*part, ""))


def _moving(held: Rows) -> Rows:
    return [row for row in held if row["kind"] != CONTROL and drift(row) > 0.0]


def _staked(held: Rows) -> Rows:
    return [row for row in _moving(held) if row["tradeoff"]]


def _scope() -> list[str]:
    held = _moving(rows("trade_offs"))
    cases = [
        f"{kind} {len(some)} ({len({row['seed'] for row in some})} seeds)"
        for kind in KINDS
        if (some := [row for row in held if row["kind"] == kind])
    ]
    return [
        f"Runs of the five regimes with drift: {', '.join(cases)}; "
        f"{len(_staked(held))} of them have a stake of at least 1e-3. T̂ and T* on the same grid "
        "of up to 200 lengths, tolerance .01 unless it says otherwise; errors are relative to the "
        f"excess over P_ref. Round brackets: {OF_RUNS}."
    ]


def _share(hits: Array) -> str:
    return f"{100.0 * float(np.mean(hits)):.3g} %"


def _c24() -> Iterator[Sequence[str]]:
    held = rows("trade_offs")
    staked = _staked(held)
    answered = [row for row in staked if row["trusted"]]
    regret = column(answered, "regret")
    yield (
        "relative regret of T̂ where the stake is at least 1e-3",
        "0 in 95 %, at most .05 in 99 %, refusals apart",
        f"0 in {_share(regret <= 0.0)}, at most .05 in {_share(regret <= 0.05)} of {len(regret)}; "
        f"at most {number(regret.max())}; {len(staked) - len(answered)} refused",
    )
    error, told = (column(_moving(held), name) for name in ("worst_error", "estimated_error"))
    yield (
        "worst error over T of the predicted excess, by run",
        "1 % in the median, 2 % in 90 %",
        f"{in_words(error, percent=True)}, at most 2 % in {_share(error <= 0.02)}; "
        f"{(told[error > 0.02] > 0.02).sum()} of the {(error > 0.02).sum()} others expect it "
        "themselves",
    )
    fine, coarse = (column(_moving(held), f"num_impulses{end}") for end in ("", "_coarse"))
    yield (
        "impulses, rejected ones counted",
        "median at most 45 at tolerance .03, 60 at .01",
        f"{in_words(coarse, whole=True)} at .03, {in_words(fine, whole=True)} at .01",
    )


def _lengths() -> Iterator[Sequence[str]]:
    """Impulses of the longest runs over those of 300 rounds, paired over seeds."""
    held = [
        row for row in rows("impulses") if row["by"] == "tolerance" and row["local_steps"] == 10
    ]
    for tolerance in (0.03, 0.01):
        some = [row for row in held if row["at"] == tolerance]
        ends = sorted({row["rounds"] for row in some})
        if len(ends) < 2:
            continue
        first, last = (
            column(sorted((r for r in some if r["rounds"] == end), key=lambda r: r["seed"]),
                   "num_impulses")
            for end in (ends[0], ends[-1])
        )  # fmt: skip
        count = min(len(first), len(last))
        yield (
            f"impulses from R = {ends[0]:g} to {ends[-1]:,.0f} at equal horizon, tolerance "
            f"{tolerance:g}",
            "at most 1.5 times more" if tolerance == 0.03 else "reported",
            f"{in_words(last[:count] / first[:count])} times, {count} seeds",
        )


def _random_goal() -> Iterator[Sequence[str]]:
    held = rows("random")
    if not held:
        return
    error = column(held, "path_error")
    beyond = [row for row in held if not row["path_error"] <= 0.05]
    flagged = [
        row for row in beyond
        if row["predicted_outcome"] == "unpredictable" or not row["estimated_path_error"] <= 0.05
    ]  # fmt: skip
    chaotic = sum(row["predicted_outcome"] == "unpredictable" for row in held)
    yield (
        f"{len(held)} random problems, seeds in order",
        "error of θ at most 5 % in 95 %, every other one flagged",
        f"at most 5 % in {_share(error <= 0.05)}, {in_words(error, percent=True)}; "
        f"{len(flagged)} of the {len(beyond)} others flagged; {chaotic} called chaotic",
    )
    staked = [row for row in held if row["tradeoff"] and row["trusted"]]
    regret = column(staked, "regret")
    yield (
        "the same, relative regret of a trusted T̂",
        "reported",
        f"0 in {_share(regret <= 0.0)} of {len(regret)}, at most {number(regret.max())}",
    )


def _passes() -> Iterator[Sequence[str]]:
    held = [row for row in _staked(rows("trade_offs")) if drift(row) <= SMALL
            and row["kind"] == "merged" and np.isfinite(row["pass"])]  # fmt: skip
    if not held:
        return
    seeds = sorted({row["seed"] for row in held})
    by_seed = [np.median(column([r for r in held if r["seed"] == s], "pass")) for s in seeds]
    yield (
        "one pass (C23, k = 1), s ≤ .1: relative regret",
        "median at most .01, by seed",
        f"{in_words(column(held, 'pass'))} in {len(held)} runs; medians of seeds "
        f"{', '.join(number(float(value), 2) for value in by_seed)}",
    )


def _sampling() -> Iterator[Sequence[str]]:
    held = [row for row in rows("sampled") if row["participation"] < 1.0 and drift(row) <= SMALL]
    for batch in sorted({row["batch_size"] for row in held}):
        some = [row for row in held if row["batch_size"] == batch]
        words = f"participation {some[0]['participation']:g}"
        words += f", batch {batch:g}" if batch else ""
        for label, name in (("E F", "regret"), ("E P", "profile_regret")):
            known = [row for row in some if np.isfinite(row[name])]
            wrong = [row for row in known if row[name] > 0.15]
            flagged = sum(not row["trusted"] for row in wrong)
            yield (
                f"{words}, s ≤ .1, {some[0]['num_runs']:g} runs: regret of T̂ for {label}",
                "at most .15 in 80 % of the seeds, the others flagged",
                f"at most .15 in {len(known) - len(wrong)} of {len(known)} settings "
                f"(seeds: {len({row['seed'] for row in some})}); {flagged} of the others flagged",
            )
        yield (
            f"{words}: E P at its T*",
            "within 15 % (median)",
            f"within {in_words(column(some, 'error_at_star'), percent=True)}",
        )


def _spread() -> Iterator[Sequence[str]]:
    def key(row: Row) -> tuple[Any, ...]:
        return (row["target"], row["covariate"], row["seed"], drift(row))

    held = [row for row in _staked(rows("trade_offs")) if row["kind"] == "merged"]
    found: dict[float, list[float]] = {}
    for _, group in groupby(sorted(held, key=key), key=key):
        some = list(group)
        times = [_best_time(row) for row in some]
        if len(times) > 1:
            found.setdefault(drift(some[0]), []).append((max(times) - min(times)) / np.mean(times))
    for s, spread in sorted(found.items()):
        steps = sorted({row["local_lr"] for row in held if drift(row) == s})
        yield (
            f"spread of τ*(s) over η = {', '.join(f'{step:g}' for step in steps)} at s = {s:g}",
            "at most 10 %",
            f"{in_words(spread, percent=True)} in {len(spread)} worlds and seeds",
        )


def _tuned() -> Iterator[Sequence[str]]:
    """The tuned optimum: how far the predicted excess is off, and what its choice costs."""
    for method, told in METHODS.items():
        held = [row for row in rows("tuned") if row["method"] == method]
        if not held:
            continue
        measured, predicted, reached = (
            column(held, f"{name}_excess") for name in ("measured", "predicted", "reached")
        )
        error, regret = np.abs(predicted / measured - 1.0), reached / measured - 1.0
        steps = column(held, "measured_local_lr") == column(held, "predicted_local_lr")
        yield (
            f"tuned over η and T, {told}: predicted excess",
            "within 10 % (median)",
            f"within {in_words(error, percent=True)} of {len(held)}; what is reached at the "
            f"predicted η and T is {in_words(regret, percent=True)} above the best; the same η in "
            f"{_share(steps)}",
        )


def _orders() -> Iterator[Sequence[str]]:
    """How far fitted orders fall short of the theory, from the record of the claims."""
    every = (row for path in RECORD.glob("*/claims.csv") for row in read_rows(path))
    held = sorted(
        (r for r in every if r["kind"] == "order" and r["claim"].split()[0] in ORDERS),
        key=lambda row: row["claim"],
    )
    told = [
        f"{row['claim']} {float(row['tightness_median']):.2g}, at most "
        f"{float(row['tightness_max']):.2g} ({int(row['resolved']):,} instances)"
        for row in held
    ]
    yield (
        f"fitted orders of {', '.join(ORDERS)}: how far they fall short",
        "within .2 of theory",
        f"in the median {'; '.join(told)}",
    )


def _pays() -> list[str]:
    """When freezing pays, both tuned: measured, and as predicted."""
    held = rows("tuned")
    if not held:
        return []

    def key(row: Row) -> tuple[Any, ...]:
        return (row["target"], row["covariate"], row["local_steps"], row["seed"])

    lines = [
        in_short(),
        "",
        "**When freezing pays**, every method at its best step and length for the same rounds: "
        "excess over that of FedAvg, and the runs where it is lower by more than "
        f"{100.0 * WORTH:g} %, as measured and, behind it, as predicted.",
        "",
        "| target, covariate, E | FedFrozen | | FedFrozen, one exact round | |",
        "|---|---|---|---|---|",
    ]
    cases = {key(row)[:3] for row in held}
    for case in sorted(cases):
        some = sorted((row for row in held if key(row)[:3] == case), key=key)
        cells = ["{:g}, {:g}, {:g}".format(*case)]
        for method in list(METHODS)[1:]:
            ratios = [_ratios(some, method, name) for name in ("measured", "predicted")]
            wins = [int((ratio < 1.0 - WORTH).sum()) for ratio in ratios]
            cells += [in_words(ratios[0], digits=2), f"{wins[0]}, {wins[1]} of {len(ratios[0])}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def in_short() -> str:
    """Return when freezing pays, in one sentence for who trains a model."""
    held = sorted(rows("tuned"), key=lambda row: (row["local_steps"], row["seed"]))
    regimes = len({(row["target"], row["covariate"]) for row in held})
    count = len(_ratios(held, "fed_avg", "measured"))
    told, same = [], []
    for method in list(METHODS)[1:]:
        ratios, foreseen = (_ratios(held, method, name) for name in ("measured", "predicted"))
        pays = ratios < 1.0 - WORTH
        told.append(f"in {pays.sum()} of {count} runs and leaves {in_words(ratios, digits=2)}")
        same.append(int((pays == (foreseen < 1.0 - WORTH)).sum()))
    return (
        f"*With step and length tuned for the same rounds, in {regimes} regimes: freezing the "
        f"kernel and averaging on pays {told[0]} of FedAvg's excess ({OF_RUNS}); freezing it and "
        f"solving for the values once, exactly, pays {told[1]}. Without one federated run, drift "
        f"interpolation says which, in {same[0]} and {same[1]} of {count} runs. Paying is to end "
        f"more than {100.0 * WORTH:g} % lower; the best step is inside its grid in "
        f"{sum(row['interior'] for row in held)} of {len(held)} cases.*"
    )


def _ratios(held: Rows, method: str, name: str) -> Array:
    """Excess of a method over FedAvg's, by seed."""
    one, base = (
        column([row for row in held if row["method"] == other], f"{name}_excess")
        for other in (method, "fed_avg")
    )
    return np.asarray(one / base)


def _by_kind() -> list[str]:
    """C24 by parametrization and regime."""
    held = rows("trade_offs")
    lines = [
        "By parametrization:", "",
        "| | runs, with a stake | regret 0 | worst error | impulses at .03 | at .01 |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for kind in KINDS:
        some = [row for row in _moving(held) if row["kind"] == kind]
        regret = column([row for row in _staked(some) if row["trusted"]], "regret")
        if some:
            lines.append(
                f"| {kind} | {len(some)}, {len(_staked(some))} | {_share(regret <= 0.0)} | "
                f"{in_words(column(some, 'worst_error'), percent=True)} | "
                f"{in_words(column(some, 'num_impulses_coarse'), whole=True)} | "
                f"{in_words(column(some, 'num_impulses'), whole=True)} |"
            )
    still = [row for row in held if row["kind"] == CONTROL or drift(row) == 0.0]
    if still:
        most = float(np.nanmax(np.maximum(column(still, "saved"), 0.0)))
        lines += ["", f"Controls, E = 1 and identical clients: of {len(still)} runs none saves "
                  f"more than {most:.1g} of its excess."]  # fmt: skip
    return lines


def _law() -> list[str]:
    """The sign condition and the slope of the log law, by parametrization and regime."""
    held = _moving(rows("trade_offs"))
    lines = [
        "**The log law**, by parametrization and by regime. *Sign:* β < 0 exactly where the run "
        "has a trade-off. *Time:* the τ* of the law over the measured one, where both have one. "
        "*Slope:* the measured fall of τ* per unit of log s from one drift number to the next "
        "over 1/κ. Behind each the share within a quarter of 1. Paths that do not come near a "
        "minimum by the horizon have no law.",
        "",
        "| | no law | sign right | time, s ≤ .1 | time beyond | slope, s ≤ .1 | slope beyond |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = [(kind, [row for row in held if row["kind"] == kind]) for kind in KINDS]
    worlds = sorted({(row["target"], row["covariate"]) for row in held})
    groups += [
        (f"target {world[0]:g}, covariate {world[1]:g}",
         [row for row in held if (row["target"], row["covariate"]) == world])
        for world in worlds
    ]  # fmt: skip
    return [*lines, *(_lawful(label, some) for label, some in groups if some)]


def _lawful(label: str, held: Rows) -> str:
    known = [row for row in held if np.isfinite(row["law_crossing"])]
    sign = np.array([(row["law_crossing"] < 0.0) == bool(row["tradeoff"]) for row in known])
    lawful = [row for row in known if row["tradeoff"] and row["law_crossing"] < 0.0]
    cells = [label, f"{len(held) - len(known)} of {len(held)}", _share(sign)]
    for ratios in (_times, _slopes):
        cells += [_quarter(list(ratios(lawful, *ends))) for ends in ((0.0, SMALL), (SMALL, np.inf))]
    return f"| {' | '.join(cells)} |"


def _quarter(ratios: Sequence[float]) -> str:
    """A ratio in words, and the share of it within a quarter of one."""
    if not ratios:
        return "–"
    return f"{in_words(ratios, digits=2)}; {_share(np.abs(np.array(ratios) - 1.0) <= 0.25)}"


def _best_time(row: Row) -> float:
    return float(row["best_length"] * row["local_lr"] * row["local_steps"])


def _times(held: Rows, least: float, most: float) -> Iterator[float]:
    """τ* of the law over the measured one."""
    for row in held:
        if least < drift(row) <= most and row["best_length"] > 0.0:
            yield row["law_time"] / _best_time(row)


def _slopes(held: Rows, least: float, most: float) -> Iterator[float]:
    """Measured slopes over 1/κ between neighbouring drift numbers of one step size."""

    def key(row: Row) -> tuple[Any, ...]:
        return (row["kind"], row["target"], row["covariate"], row["seed"], row["local_lr"])

    for _, group in groupby(sorted(held, key=lambda row: (key(row), drift(row))), key=key):
        for left, right in pairwise(group):
            if least < drift(right) <= most:
                ratio = drift(right) / drift(left)
                fall = (_best_time(left) - _best_time(right)) / np.log(ratio)
                yield fall * left["law_rate"]


def _others() -> list[str]:
    lines = []
    held = [row for row in _staked(rows("trade_offs")) if np.isfinite(row["pass"])]
    names = ("pass", "first_order", "log_law", "certificate", "profile", "certified", "observable")
    for s in sorted({drift(row) for row in held}):
        some = [row for row in held if drift(row) == s]
        told = [
            f"{name.replace('_', ' ')} {in_words(values[np.isfinite(values)])}"
            for name in names
            if np.isfinite(values := column(some, name)).any()
        ]
        told = [f"C24 {in_words(column(some, 'regret'))}", *told]
        lines.append(
            f"*Routes to T\\*, relative regret at s = {s:g} ({len(some)} runs):* {', '.join(told)}."
        )
    for world in sorted({row["world"] for row in rows("worlds")}):
        for tolerance in (0.03, 0.01):
            some = [r for r in rows("worlds") if (r["world"], r["tolerance"]) == (world, tolerance)]
            if some:
                lines.append(
                    f"*On {world}* (D = {some[0]['parameters']:g}, R = {some[0]['rounds']:g}, s = "
                    f"{in_words(column(some, 'drift'))}, {len(some)} run{'s' * (len(some) > 1)}, "
                    "tolerance "
                    f"{tolerance:g}): error of θ "
                    f"{in_words(column(some, 'path_error'), percent=True)}, of F relative to its "
                    f"fall {in_words(column(some, 'objective_error'), percent=True)}, impulses "
                    f"{in_words(column(some, 'num_impulses'), whole=True)}."
                )
    return ["\n\n".join([*lines, *trials()])]


if __name__ == "__main__":
    raise SystemExit(main("response", findings, write_record, __doc__))
