"""What the record keeps: tables of rows, and figures with where the runs in them come from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.files import csv_bytes
from linattn.experiments.find import PageLook, find_script, load_figure
from linattn.experiments.store import Result
from linattn.report.page import smaller


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], digits: int) -> None:
    """Write rows of the same columns as CSV, numbers that are not whole with so many digits."""
    held = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(csv_bytes(held[0], ([row[k] for k in held[0]] for row in held), digits))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, as texts."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def column(rows: Iterable[Mapping[str, str]], name: str, **where: str) -> Array:
    """Return a column by seed, of rows with some entries."""
    kept = [row for row in rows if all(row[k] == v for k, v in where.items())]
    return np.array([float(r[name]) for r in sorted(kept, key=lambda r: int(r["seed"]))])


def write_json(path: Path, held: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, its keys in order."""
    path.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def origin(runs: Sequence[Result]) -> dict[str, Any]:
    """Return how many runs there are, and every provenance among them once."""
    made = sorted({json.dumps(run.provenance, sort_keys=True) for run in runs})
    return {"runs": len(runs), "made by": [json.loads(text) for text in made]}


def keep(name: str, runs: Sequence[Result], folder: Path) -> None:
    """Draw a figure of runs into a folder, but for PDFs, which its CSV and JSON give again.

    Its image has a palette, as in the report.
    """
    figure = load_figure(find_script(name, "figures"))
    folder.mkdir(parents=True, exist_ok=True)
    for path in figure.draw(runs, folder, PageLook()):
        if path.suffix == ".pdf":
            path.unlink()
        if path.suffix == ".png":
            path.write_bytes(smaller(path.read_bytes()))
    told = {"figure": name, "simulation": figure.simulation, **origin(runs)}
    write_json(folder / f"{name}_provenance.json", told)
