"""FedAvg and FedFrozen with three second stages, each at its best step: record, and what it says.

    python scripts/tuned_findings.py --results results
    python scripts/tuned_findings.py

The first keeps the figure and the table of the simulation `step_size` in ``docs/record/paper``, of
settings with at least ten seeds; both fill in the part of paper_notes.md between ``<!-- tuned -->``
and ``<!-- end of tuned -->`` from that table.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from kept import all_whole, keep, read_rows
from pages import RECORD, main

from linattn.report.groups import groups
from linattn.report.words import OF_BOOTSTRAP, OF_SEEDS

NAME = "step_size"
FOLDER = RECORD / "paper"
SEEDS = 10
BASE = "FedAvg"


def write_record(results: Path) -> None:
    """Keep the runs of all settings with enough seeds."""
    found = groups(all_whole(results, [NAME])[NAME])
    keep(NAME, [run for one in found if one.seeds >= SEEDS for run in one.results], FOLDER)


def rows() -> list[dict[str, str]]:
    """Return the rows of the table: a method in a world with a budget."""
    return read_rows(FOLDER / "tables" / f"{NAME}_table.csv")


def findings() -> str:
    """Return what the record says, as Markdown."""
    lines = [
        f"At least {SEEDS} seeds; every method at its best step (the one with the smallest median "
        f"over seeds) and length. *Excess* over P_ref and T* ({OF_SEEDS}); over that of FedAvg "
        f"on the same clients: paired ratio ({OF_BOOTSTRAP}).",
        "",
        "| world, budget | method | excess | over FedAvg's | step | T* |",
        "|---|---|---|---|---|---|",
    ]
    for (world, budget), part in groupby(rows(), lambda row: (row["world"], row["budget"])):
        for row in part:
            ratio = "1" if row["method"] == BASE else "{over FedAvg} [{low}, {high}]".format(**row)
            cells = (f"{world}; {budget}", row["method"], row["excess"], ratio, row["step"])
            lengths = "–" if row["method"] == BASE else row["T"]
            lines.append(f"| {' | '.join((*cells, lengths))} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main("tuned", findings, write_record, __doc__))
