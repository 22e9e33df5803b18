"""All methods at their best steps: the record of stored runs, its figure, and what it says.

    python scripts/methods_findings.py --results results
    python scripts/methods_findings.py

The first writes one row per run and method of the simulation `methods` into ``docs/record/paper``
and draws its figure and tables there; both fill in the part of paper_notes.md between
``<!-- methods -->`` and ``<!-- end of methods -->`` from those rows. Settings of fewer than ten
seeds are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from kept import all_whole, column, keep, read_rows, write_rows
from pages import RECORD, main, table

from linattn.experiments import load_results
from linattn.federated.methods.table import METHODS
from linattn.report.groups import groups
from linattn.report.words import OF_BOOTSTRAP, OF_RUNS, OF_SEEDS, in_words, paired

FOLDER = RECORD / "paper"
SEEDS = 10
MEASURED = ("final_objective", "test_accuracy", "kernel_drift", "factor", "interior", "setting",
            "rounds_to_target", "floats_to_target", "work_to_target")  # fmt: skip
SHARED = ("start", "rounds", "unit_step")


def write_record(results: Path) -> None:
    """Write the rows of all settings with enough seeds, their figure, and where they come from."""
    all_whole(results, ["methods"])
    found = [world for world in groups(load_results(results, "methods")) if world.seeds >= SEEDS]
    runs = [run for world in found for run in world.results]
    rows = (
        {"world": world.label, "seed": run.spec["seed"], "method": name}
        | {k: float(run.dataset[k].sel({"method": name})) for k in MEASURED}
        | {k: float(run.dataset[k]) for k in SHARED}
        for world in found
        for run in world.results
        for name in world.names("method")
    )
    write_rows(FOLDER / "methods_runs.csv", rows, digits=8)
    keep("methods", runs, FOLDER)


def rows() -> list[dict[str, str]]:
    """Return the rows of the record."""
    return read_rows(FOLDER / "methods_runs.csv")


def findings() -> str:
    """Return what the record says, as Markdown."""
    held = rows()
    worlds = list(dict.fromkeys(row["world"] for row in held))
    inside = np.array([float(row["interior"]) for row in held])
    told = []
    for name in dict.fromkeys(row["method"] for row in held):
        cells = []
        for world in worlds:
            ends, base = (
                column(held, "final_objective", world=world, method=n) for n in (name, "fed_avg")
            )
            if not ends.size:  # gates are fixed where there are some
                cells.append("")
                continue
            step = in_words(column(held, "factor", world=world, method=name), digits=2)
            apart = "1" if name == "fed_avg" else paired(ends / base)
            cells.append(f"{apart}; step {step}")
        told.append([METHODS[name].label + ("*" if METHODS[name].personal else ""), *cells])
    rounds = np.array([float(row["rounds"]) for row in held if row["method"] == "fed_avg"])
    lines = [
        f"{len(worlds)} worlds, {len({row['seed'] for row in held})} seeds; the best step is "
        f"inside what was tried in {100.0 * inside.mean():.0f} % of {inside.size} cells (world, "
        "seed, method). Objective at the end over that of FedAvg on the same clients, both at "
        f"their best step and setting ({OF_BOOTSTRAP}), in how many seeds it is below 1, and the "
        f"best step in units of the safe step ({OF_SEEDS}).",
        "",
        *table(["method", *worlds], told),
        "",
        f"Rounds until FedAvg has settled ({OF_RUNS}): {in_words(rounds, whole=True)}. Starred: "
        "judged by models that clients keep, which fit their own data only.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main("methods", findings, write_record, __doc__))
