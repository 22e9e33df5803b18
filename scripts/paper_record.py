"""Every figure at paper size: the record of a store of whole presets, and what the figures say.

    python scripts/paper_record.py --results results
    python scripts/paper_record.py

The first keeps in ``docs/record/paper`` the figures of every simulation of which the store holds
the whole paper preset, and what its runs cost; both fill in the part of paper_notes.md between
``<!-- paper -->`` and ``<!-- end of paper -->`` from what is kept. What another store gave stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kept import NotWhole, keep, read_rows, whole, write_rows
from pages import RECORD, main

from linattn.experiments.find import find_scripts, load_figure
from linattn.experiments.inventory import wall_times
from linattn.report.words import OF_BOOTSTRAP, OF_RUNS, number

FOLDER = RECORD / "paper"
RUNS = FOLDER / "runs.csv"


def write_record(results: Path) -> None:
    """Keep figures and costs of all whole presets."""
    names = [path.stem for path in find_scripts("simulations")]
    stored = {name: runs for name in names if (runs := whole(results, name))}
    if not stored:
        raise NotWhole(
            "--results must be a folder with the whole paper preset of a simulation; none is whole "
            f"in {results}, and nothing was written."
        )
    times = wall_times(results)
    rows: dict[str, dict[str, Any]] = {}
    for path in FOLDER.glob("*_provenance.json"):  # of other stores, whose times may be lost
        origin = json.loads(path.read_text("utf-8"))
        name = origin["simulation"]
        rows[name] = {"simulation": name, "runs": origin["runs"], "minutes": ""}
    if RUNS.is_file():
        rows |= {row["simulation"]: dict(row) for row in read_rows(RUNS)}
    figures = [load_figure(path) for path in find_scripts("figures")]
    for name, runs in stored.items():
        spent = [times[run.path.name] for run in runs if run.path.name in times]
        known = len(spent) == len(runs)
        rows[name] = {
            "simulation": name,
            "runs": len(runs),
            "minutes": sum(spent) / 60.0 if known else "",
        }
        for figure in figures:
            if figure.simulation == name:
                keep(figure.name, runs, FOLDER)
    write_rows(RUNS, [rows[name] for name in sorted(rows)], 4)


def pages() -> Iterator[tuple[str, list[str]]]:
    """Yield the name of every kept page and the sentences that stand first in it."""
    for path in sorted(FOLDER.glob("*.md")):
        _, *told = path.read_text(encoding="utf-8").split("\n- ")
        first = "\n- ".join(told).split("\n\n")[0] if told else ""
        yield path.stem, first.strip().split("\n- ") if first else []


def findings() -> str:
    """Return what the record says, as Markdown."""
    rows = read_rows(RUNS)
    timed = [float(row["minutes"]) for row in rows if row["minutes"]]
    count = sum(int(row["runs"]) for row in rows)
    lines = [
        f"{len(rows)} simulations, {count:,} runs; the {len(timed)} whose times are kept took "
        f"{sum(timed):.0f} minutes of one processor. Round brackets: {OF_RUNS}; square "
        f"ones: {OF_BOOTSTRAP}.",
        "",
        "| simulation | runs | minutes |",
        "|---|---|---|",
    ]
    for row in rows:
        spent = number(float(row["minutes"])) if row["minutes"] else "–"
        lines.append(f"| {row['simulation']} | {row['runs']} | {spent} |")
    lines.append("")
    lines += [f"- **{name}**: {'; '.join(told)}" for name, told in pages() if told]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main("paper", findings, write_record, __doc__))
