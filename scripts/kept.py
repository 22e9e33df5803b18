"""What the record keeps: tables of rows, and figures with where the runs in them come from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.experiments import load_results
from linattn.experiments.files import csv_bytes, write_atomically
from linattn.experiments.find import PageLook, find_script, load_figure, load_simulation
from linattn.experiments.store import Result, read_manifest
from linattn.report.page import smaller


class NotWhole(Exception):
    """A store has not what a record is written from."""


def whole(results: Path, name: str) -> list[Result]:
    """Return the runs of a simulation's paper preset as it is today, none unless all are there."""
    wanted = {task.file for task in load_simulation(find_script(name)).tasks("paper")}
    if wanted != set(read_manifest(results, name).get("paper", ())):
        return []
    runs = load_results(results, name, preset="paper")
    return runs if len(runs) == len(wanted) else []


def all_whole(results: Path, names: Iterable[str]) -> dict[str, list[Result]]:
    """Return the runs of the paper presets of some simulations.

    Raises
    ------
    NotWhole
        If one of them is not whole.
    """
    found = {name: whole(results, name) for name in names}
    missing = [name for name, runs in found.items() if not runs]
    if missing:
        raise NotWhole(
            f"--results must be a folder with whole paper presets; that of {', '.join(missing)} is "
            f"not whole in {results}, and nothing was written."
        )
    return found


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], digits: int) -> None:
    """Write rows of the same columns as CSV, numbers that are not whole with so many digits.

    Raises
    ------
    ValueError
        If there is no row; a file of that name stays as it was.
    """
    held = list(rows)
    if not held:
        raise ValueError(f"rows of {path.name} must be one or more, got none.")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ([row[k] for k in held[0]] for row in held)
    write_atomically(path, csv_bytes(held[0], lines, digits))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, as texts."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def column(rows: Iterable[Mapping[str, str]], name: str, **where: str) -> Array:
    """Return a column by seed, of rows with some entries."""
    kept = [row for row in rows if all(row[k] == v for k, v in where.items())]
    return np.array([float(r[name]) for r in sorted(kept, key=lambda r: int(r["seed"]))])


def write_json(path: Path, held: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, its keys in order."""
    write_atomically(path, (json.dumps(held, indent=1, sort_keys=True) + "\n").encode())


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
            write_atomically(path, smaller(path.read_bytes()))
    told = {"figure": name, "simulation": figure.simulation, **origin(runs)}
    write_json(folder / f"{name}_provenance.json", told)
