"""What sampling does to kernel and value block: the record of stored runs, and what it says.

    python scripts/sampling_findings.py --results results
    python scripts/sampling_findings.py

The first writes one row per run and setting of the simulations `noise` and `participation` into
``docs/record/sampling`` and keeps their figures in ``docs/record/paper``; both fill in the part of
paper_notes.md between ``<!-- sampling -->`` and ``<!-- end of sampling -->`` from that record, and
`in_short` is what the README takes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from kept import all_whole, column, keep, origin, read_rows, write_json, write_rows
from pages import RECORD, main, table

from linattn.experiments.store import Result
from linattn.report.words import OF_BOOTSTRAP, OF_RUNS, OF_SEEDS, in_words, paired

FOLDER = RECORD / "sampling"
DIGITS = 8
"""Of a stored number; medians and intervals are told with three."""
WORLD = ("target", "covariate")
Row = dict[str, str]


# ------------------------------------------------------------------------- the record


def _world(result: Result) -> dict[str, Any]:
    spec = result.spec
    problem = spec["problem"]
    return {
        "target": problem["value_heterogeneity"],
        "covariate": problem["covariate_heterogeneity"],
        "local_steps": spec["local_steps"],
        "seed": spec["seed"],
    }


def noise_rows(result: Result) -> Iterator[dict[str, Any]]:
    """Losses above P_ref of every participation and batch size, and the critical steps."""
    data, spec = result.dataset, result.spec
    for share in data.participation.values:
        for size in data.batch_size.values:
            cell = data.sel(participation=share, batch_size=size)
            kernel, both = (
                cell[n].values - float(data.reference) for n in ("profile", "objective")
            )
            yield _world(result) | {
                "local_lr": spec["local_lr"],
                "participation": share,
                "batch_size": size,
                "kernel_best": kernel.min(),
                "kernel_end": kernel[-1],
                "both_best": both.min(),
                "undone": cell.undone.values[-1],
                **{f"{n}_end": cell[n].values[-1] for n in ("drift", "shift", "spread")},
                "critical_mean": float(cell.critical_mean),
                "critical_second_moment": float(cell.critical_second_moment),
            }


def participation_rows(result: Result) -> Iterator[dict[str, Any]]:
    """Losses above P_ref, that itself on digits, and scores of every participation and budget."""
    data = result.dataset
    reference = np.nan_to_num(float(data.reference))
    names = ("participation", "budget", "end")
    for place in np.ndindex(*(data.sizes[name] for name in names)):
        at = data.isel(dict(zip(names, place, strict=True)))
        yield {"data": result.spec["data"]} | _world(result) | {
            "rounds": result.spec["rounds"],
            **{name: at[name].item() for name in names},
            "loss": float(at.loss) - reference,
            "profile": float(at.profile) - reference,
            "score": float(at.score),
            "local_lr": float(at.local_lr),
            "interior": int(at.interior),
        }  # fmt: skip


RECORDS: dict[str, Callable[[Result], Iterator[dict[str, Any]]]] = {
    "noise": noise_rows,
    "participation": participation_rows,
}


def write_record(results: Path) -> None:
    """Write the rows of all stored runs, and where they come from."""
    provenance: dict[str, Any] = {}
    for name, found in all_whole(results, RECORDS).items():
        rows = (row for result in found for row in RECORDS[name](result))
        write_rows(FOLDER / f"{name}.csv", rows, DIGITS)
        provenance[name] = origin(found)
        keep(name, found, RECORD / "paper")
    write_json(FOLDER / "provenance.json", provenance)


def record(name: str) -> list[Row]:
    """Return the rows of a record."""
    return read_rows(FOLDER / f"{name}.csv")


# ---------------------------------------------------------------------- what it says


def grouped(rows: Iterable[Row], *names: str) -> list[tuple[tuple[str, ...], list[Row]]]:
    """Return rows that agree in some columns, in the order of their numbers."""

    def key(row: Row) -> tuple[str, ...]:
        return tuple(row[name] for name in names)

    held = sorted(rows, key=lambda row: [float(row[name]) for name in names])
    return [(values, list(part)) for values, part in groupby(held, key)]


def _with_full_batches(rows: Iterable[Row]) -> Iterator[tuple[str, float, list[Row]]]:
    """Every world, its drift number, and its rows with the largest batches."""
    _, held = grouped(rows, "batch_size")[-1]
    for (target, covariate, step, count), part in grouped(held, *WORLD, "local_lr", "local_steps"):
        yield f"{target}, {covariate}", 0.5 * float(step) * (int(count) - 1), part


def kernel_table(rows: list[Row]) -> list[str]:
    """The kernel with part of the clients in units of that with everybody, full batches."""
    lines = []
    for world, s, part in _with_full_batches(rows):
        for (share,), held in grouped(part, "participation")[-2::-1]:
            cells = [
                paired(column(held, name) / column(part, name, participation="1"))
                for name in ("kernel_best", "kernel_end", "both_best")
            ]
            undone = in_words(column(held, "undone")) if s else ""
            lines.append([world, f"{s:g}", share, *cells, undone])
    heads = ("target, covariate", "s", "participation", "kernel at its best length",
             "kernel at the horizon", "both stages", "drift undone")  # fmt: skip
    return table(heads, lines)


def best_line(rows: list[Row]) -> str:
    """The participation with the smallest median kernel loss of every world and drift number."""
    told = []
    for world, s, part in _with_full_batches(rows):
        base = {n: column(part, n, participation="1") for n in ("kernel_best", "kernel_end")}
        best = [
            min(
                grouped(part, "participation"),
                key=lambda item: float(np.median(column(item[1], name) / base[name])),
            )[0][0]
            for name in base
        ]
        told.append(f"{best[0]} and {best[1]} ({world}, s = {s:g})")
    return (
        "Participation with the best kernel, at its best length and at the horizon: "
        + "; ".join(told)
    )


def stability_line(rows: list[Row]) -> str:
    """How much smaller a step the second moment asks for."""
    ratios = [
        (share, size, column(part, "critical_second_moment") / column(part, "critical_mean"))
        for (share, size), part in grouped(rows, "participation", "batch_size")
    ]
    told = [f"{in_words(r)} with participation {q} and batches of {b}" for q, b, r in ratios
            if r.min() < 1.0 - 1e-3]  # fmt: skip
    return "The step that breaks the second moment, in units of that of the mean: " + "; ".join(
        told
    )


BUDGETS = {"rounds": "rounds", "floats": "floats", "multiply_adds": "client work"}
LAST = "multiply_adds"
BASE = ("0.75", "0.3", "10")
"""The setting that is told for every budget; others for `LAST`."""


def participation_table(rows: list[Row]) -> list[str]:
    """Few clients and one exact value round against everybody, tuned."""
    lines = []
    synthetic = [row for row in rows if row["data"] == "synthetic"]
    for (*world, count), part in grouped(synthetic, *WORLD, "local_steps"):
        told = [budget for budget in BUDGETS if (*world, count) == BASE or budget == LAST]
        for (share,), held in grouped(part, "participation")[-2::-1]:
            for budget in told:
                where = (", ".join(world), count, share, BUDGETS[budget])
                lines.append([*where, *_tuned_cells(part, held, budget)])
    heads = ("target, covariate", "E", "participation", "equal", "of FedAvg of everybody",
             "of everybody with an exact round", "FedAvg of these clients")  # fmt: skip
    return table(heads, lines)


def _tuned_cells(everybody: list[Row], few: list[Row], budget: str) -> list[str]:
    """Ratios of few clients with an exact round to both ends of everybody, and of FedAvg itself."""
    ends = ("fed_avg", "fed_frozen_exact")
    own, exact = (column(few, "loss", budget=budget, end=end) for end in ends)
    whole, whole_exact = (
        column(everybody, "loss", budget=budget, end=end, participation="1") for end in ends
    )
    return [paired(exact / whole), paired(exact / whole_exact), paired(own / whole)]


def digits_lines(rows: list[Row]) -> list[str]:
    """Test accuracy on digits."""
    digits = [row for row in rows if row["data"] == "digits"]
    lines = []
    for budget, word in BUDGETS.items():
        for (share,), held in grouped(digits, "participation")[::-1]:
            cells = [
                in_words(100.0 * column(held, "score", budget=budget, end=end))
                for end in ("fed_avg", "fed_frozen_exact")
            ]
            lines.append([word, share, *cells])
    return table(("equal", "participation", "FedAvg, %", "with one exact value round, %"), lines)


def in_short() -> str:
    """Return what few clients and one exact value round reach at equal client work."""
    rows = [row for row in record("participation") if row["budget"] == LAST]

    def cells(count: str) -> list[str]:
        ours = [row for row in rows if row["data"] == "synthetic" and row["local_steps"] == count]
        world = dict(grouped(ours, *WORLD))[BASE[:2]]
        few = [row for row in world if row["participation"] == "0.25"]
        return _tuned_cells(world, few, LAST)

    digits = [row for row in rows if row["data"] == "digits"]
    whole, few = (
        [row for row in digits if row["participation"] == share]
        for share in (max(row["participation"] for row in digits), "0.15")
    )
    scores = [
        in_words(100.0 * column(part, "score", end=end))
        for part, end in ((whole, "fed_avg"), (few, "fed_avg"), (few, "fed_frozen_exact"))
    ]
    drifting, still = cells(BASE[2]), cells("1")
    pays = "pay too" if float(still[0].split()[0]) < 1.0 else "do not pay"
    return (
        "*Few clients for the kernel, everybody once for the values, every run at its best step "
        "and at the same client work. Left: a warm-up with a quarter of the clients and one exact "
        "value round of everybody ends, in units of the loss of FedAvg of everybody, at "
        f"{drifting[0]} seeds ({OF_BOOTSTRAP}); in units of everybody with such a round at "
        f"{drifting[1]}. Middle: on digits FedAvg reaches {scores[0]} % with everybody "
        f"({OF_SEEDS}), {scores[1]} % with {few[0]['participation']} of the clients, and "
        f"{scores[2]} % after one exact value round. Right: other regimes. Without drift, at one "
        f"local step, few clients {pays}: {still[0]}, and {still[1]}.*\n"
    )


def findings() -> str:
    """Return what the record says, for the notes."""
    noise, tuned = record("noise"), record("participation")
    open_ = sum(row["interior"] == "0" for row in tuned)
    counts = {name: len({tuple(r[k] for k in keys) for r in rows}) for name, rows, keys in (
        ("noise", noise, (*WORLD, "local_lr", "local_steps", "seed")),
        ("tuned", tuned, ("data", *WORLD, "local_steps", "seed")),
    )}  # fmt: skip
    return "\n".join(
        [
            f"*At one step* (`noise`, {counts['noise']} runs, means over draws). Loss above P_ref "
            f"with part of the clients in units of that with everybody: {OF_BOOTSTRAP}; round "
            f"brackets: {OF_RUNS}.",
            "",
            *kernel_table(noise),
            "",
            best_line(noise) + ". " + stability_line(noise) + ".",
            "",
            f"*Each at its best step and length* (`participation`, {counts['tuned']} runs; "
            f"{open_} of {len(tuned)} best steps are not inside what was tried). Loss of a warm-up "
            "with part of the clients and one exact value round of everybody, at the budget of "
            "FedAvg of everybody in R rounds.",
            "",
            *participation_table(tuned),
            "",
            "Digits, Dirichlet .05, fourteen clients, E = 20: test accuracy at the smallest "
            f"training loss, {OF_SEEDS}.",
            "",
            *digits_lines(tuned),
            "",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main("sampling", findings, write_record, __doc__))
