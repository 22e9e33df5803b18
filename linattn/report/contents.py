"""What a folder of results holds, gathered for its report: verdicts, figures, runs, warnings."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from linattn.claims import Verdict
from linattn.experiments.stages import stored_verdicts
from linattn.experiments.store import Entry, read_manifest, scan
from linattn.experiments.verification import FOLDER as VERIFY
from linattn.report.groups import dotted
from linattn.report.panels import read_panels

DETAILS = ("source", "assumptions", "conditions", "constants")


class Judged(NamedTuple):
    """A row of the table of verdicts, in words.

    Attributes
    ----------
    claim, kind, state, statement : str
    instances : int or None
        Random instances it was judged on; None for what was judged on stored results.
    measured, bound, tightness : float or None
        Of the verdict that was least tight.
    details : dict of str to str
        Source, assumptions, conditions and constants, where there are some.
    """

    claim: str
    kind: str
    state: str
    statement: str
    instances: int | None
    measured: float | None
    bound: float | None
    tightness: float | None
    details: dict[str, str]


class Drawing(NamedTuple):
    """A figure: its panels, the caption beside it, its image (None if there is none)."""

    name: str
    caption: str
    panels: list[dict[str, Any]]
    image: Path | None


class Runs(NamedTuple):
    """The runs of a simulation: files by state, presets, specs, provenance.

    Attributes
    ----------
    name : str
    states : dict of str to int
        Number of files that are stored, stale, damaged.
    presets : dict of str to int
        Runs of every preset that ran to its end.
    same : dict of str to str
        Fields of the spec that all runs share.
    varied : list of str
        Fields that differ, the columns of `specs`.
    specs : list of list of str
    origins : list of dict
        Distinct provenances.
    """

    name: str
    states: dict[str, int]
    presets: dict[str, int]
    same: dict[str, str]
    varied: list[str]
    specs: list[list[str]]
    origins: list[dict[str, Any]]


class Contents(NamedTuple):
    """Everything that a report shows."""

    verdicts: list[Judged]
    figures: list[Drawing]
    runs: list[Runs]
    warnings: list[str]


def contents(store: Path) -> Contents:
    """Gather what a folder of results holds.

    Raises
    ------
    ValueError
        If the store is not a folder, or a CSV of its figures lacks a column.
    """
    entries = scan(store)
    names = sorted({entry.name for entry in entries})
    runs = [_runs(store, name, [e for e in entries if e.name == name]) for name in names]
    verdicts, figures = _verdicts(store), _figures(store / "figures")
    warnings = [*_warnings(store, entries, names), *_lacking(store, verdicts, figures, runs)]
    return Contents(verdicts, figures, runs, warnings)


def _verdicts(store: Path) -> list[Judged]:
    """What `linattn verify` wrote, then what the stored results themselves must satisfy."""
    path, found = store / VERIFY / "claims.csv", []
    if path.is_file():
        with open(path, encoding="utf-8", newline="") as file:
            found = [_tallied(row) for row in csv.DictReader(file)]
    return found + [_stored(verdict) for verdict in stored_verdicts(store)]


def _stored(verdict: Verdict) -> Judged:
    met = "; ".join(f"{c.name}: slack {c.slack:.3g}" for c in verdict.conditions)
    return Judged(
        verdict.claim,
        verdict.kind,
        verdict.status,
        "on the stored results",
        None,
        verdict.measured,
        verdict.bound,
        verdict.tightness,
        {"conditions": met} if met else {},
    )


def _tallied(row: Mapping[str, str]) -> Judged:
    def number(name: str) -> float | None:
        return float(row[name]) if row.get(name) else None

    recalled = ", recalled" if row.get("provenance") == "recalled" else ""
    return Judged(
        row["claim"],
        f"{row['kind']}{recalled}",
        row["status"],
        row["statement"],
        int(row["instances"]),
        number("measured"),
        number("bound"),
        number("tightness_max"),
        {name: row[name] for name in DETAILS if row.get(name)},
    )


def _figures(folder: Path) -> list[Drawing]:
    return [
        Drawing(
            path.stem,
            _text(path.with_suffix(".md")),
            read_panels(path),
            image if (image := path.with_suffix(".png")).is_file() else None,
        )
        for path in sorted(folder.glob("*.csv"))
    ]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _runs(store: Path, name: str, entries: Sequence[Entry]) -> Runs:
    specs = [_fields(entry.spec) for entry in entries if entry.spec]
    columns = list(dict.fromkeys(field for spec in specs for field in spec))
    said = {field: [spec.get(field, "") for spec in specs] for field in columns}
    varied = [field for field, values in said.items() if len(set(values)) > 1]
    order = sorted(range(len(specs)), key=lambda k: [_rank(said[field][k]) for field in varied])
    made = [entry.provenance for entry in entries if entry.provenance]
    origins = {json.dumps(origin, sort_keys=True): dict(origin) for origin in made}
    return Runs(
        name,
        dict(Counter(entry.state for entry in entries)),
        {preset: len(files) for preset, files in read_manifest(store, name).items()},
        {field: values[0] for field, values in said.items() if field not in varied},
        varied,
        [[said[field][k] for field in varied] for k in order],
        list(origins.values()),
    )


def _fields(spec: str) -> dict[str, str]:
    """Fields under dotted names, values as JSON."""
    flat = dotted(json.loads(spec))
    return {name: json.dumps(value, ensure_ascii=False) for name, value in flat.items()}


def _rank(text: str) -> tuple[float, str]:
    """Numbers by size, then everything else by its letters."""
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), text


def _warnings(store: Path, entries: Sequence[Entry], names: Sequence[str]) -> list[str]:
    found = [
        f"{entry.path.name} is {entry.state} and in no figure."
        for entry in entries
        if entry.state != "stored"
    ]
    for name in names:
        for preset, files in read_manifest(store, name).items():
            gone = sum(not (store / file).is_file() for file in files)
            if gone:
                found.append(f"{gone} of {len(files)} runs of {name} --preset {preset} are gone.")
    return found


def _lacking(
    store: Path, verdicts: Sequence[Judged], figures: Sequence[Drawing], runs: Sequence[Runs]
) -> list[str]:
    """What a command would add, and what did not go as the theory says."""
    found = [f"{v.claim} is violated." for v in verdicts if v.state == "violated"]
    if not any(v.instances for v in verdicts):
        found.append(f"No claim was checked: `linattn verify --output {store}` does it.")
    if runs and not figures:
        found.append(f"No figure was drawn: `linattn figures --output {store}` does it.")
    return found
