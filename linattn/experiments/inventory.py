"""What a store has: against what presets ask for, against another store, and what may go."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median_high
from typing import Any, NamedTuple

from linattn.experiments.engine import task_state, worker_count
from linattn.experiments.files import open_folder, write_atomically
from linattn.experiments.find import shipped
from linattn.experiments.progress import clock
from linattn.experiments.simulation import Simulation, Task
from linattn.experiments.store import (
    MANIFESTS,
    TIMINGS,
    Entry,
    inspect_file,
    other_script,
    read_manifest,
    read_result,
    scan,
    set_aside,
)


class Stored(NamedTuple):
    """How much of a preset is in a store: numbers of runs."""

    simulation: str
    preset: str
    runs: int
    stored: int
    missing: int
    stale: int


def inventory(
    simulations: Iterable[Simulation[Any]], store: Path
) -> tuple[list[Stored], list[str]]:
    """Compare what the presets ask for with what a store has.

    Returns
    -------
    rows : list of Stored
        One for each preset of each simulation.
    others : list of str
        A note on every damaged file, every file that no preset asks for, and every result that an
        older text of its script made.

    Raises
    ------
    ValueError
        If the store is a file.
    """
    if store.exists() and not store.is_dir():
        raise ValueError(f"store must be a folder, got {store}.")
    known = {simulation.name: simulation for simulation in simulations}
    entries = _judged(scan(store) if store.is_dir() else [], known)
    rows: list[Stored] = []
    asked: set[str] = set()
    for simulation in known.values():
        for preset in simulation.presets:
            tasks = simulation.tasks(preset)
            asked.update(task.file for task in tasks)
            stale = {e.spec for e in entries if e.name == simulation.name and e.state == "stale"}
            there = {e.path.name for e in entries if e.state == "stored"}
            stored = sum(task.file in there for task in tasks)
            old = sum(task.file not in there and task.spec in stale for task in tasks)
            missing = len(tasks) - stored - old
            rows.append(Stored(simulation.name, preset, len(tasks), stored, missing, old))
    return rows, [note for entry in entries if (note := _note(entry, asked, known))]


def _judged(entries: Iterable[Entry], known: Mapping[str, Simulation[Any]]) -> list[Entry]:
    """Every file, judged by its simulation where that is known."""
    return [inspect_file(entry.path, known.get(entry.name)) for entry in entries]


def _note(entry: Entry, asked: set[str], known: Mapping[str, Simulation[Any]]) -> str:
    name = entry.path.name
    if entry.state == "damaged":
        return f"{name}: damaged"
    if entry.name not in known:
        return f"{name}: {entry.state}, of {entry.name}, no simulation here; name its script"
    if name not in asked:
        return f"{name}: {entry.state}, in no preset"
    simulation = known[entry.name]
    if shipped(simulation.path) and other_script(entry.provenance, simulation):
        return f"{name}: {entry.state}, made by another text of {simulation.path.name}"
    return ""


def removable(simulations: Iterable[Simulation[Any]], store: Path) -> list[tuple[Path, str]]:
    """Return the files of a store that no simulation would read, each with the reason.

    Raises
    ------
    ValueError
        If the store is not a folder.
    """
    known = {simulation.name: simulation for simulation in simulations}
    entries = _judged(scan(store), known)
    found = [(path, "set aside as damaged") for path in sorted(store.glob("*.nc.damaged"))]
    for entry in entries:
        if entry.state != "stored":
            found.append((entry.path, entry.state))
        elif entry.name not in known:
            why = f"of {entry.name}, no simulation here; name its script to keep it"
            found.append((entry.path, why))
    return [(path, why) for path, why in found if path.is_file() or path.is_symlink()]


class Forecast(NamedTuple):
    """What a sweep would compute: numbers of runs, seconds and bytes, None where unknown."""

    runs: int
    stored: int
    seconds: float | None
    size: float | None

    def __str__(self) -> str:
        rest = self.runs - self.stored
        time = "unknown" if self.seconds is None else f"about {clock(self.seconds)}"
        disk = "unknown" if self.size is None else f"about {self.size / 2**20:.1f} MiB"
        return (
            f"{self.runs} runs, {self.stored} stored, {rest} to compute; time {time}, disk {disk}."
        )


def together(parts: Sequence[Forecast]) -> Forecast:
    """Return the forecast of several sweeps, unknown where one of them is."""

    def total(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    return Forecast(
        sum(part.runs for part in parts),
        sum(part.stored for part in parts),
        total([part.seconds for part in parts]),
        total([part.size for part in parts]),
    )


def forecast(
    tasks: Sequence[Task], store: Path, *, workers: int | None = None, force: bool = False
) -> Forecast:
    """Estimate time and disk of a sweep from what a store has of the same simulations.

    Seconds per unit of cost are the median of earlier runs of a simulation, divided by the number
    of workers, but not below the longest run; unknown where a simulation has no earlier run.

    Raises
    ------
    ValueError
        If the store is a file, or the number of workers not positive.
    """
    count = worker_count(workers)
    if store.exists() and not store.is_dir():
        raise ValueError(f"output must be a folder, got {store}.")
    missing = [task for task in tasks if force or task_state(store, task) != "stored"]
    times, sizes = _experience(store)
    names = {task.name for task in missing}
    seconds = size = None
    if names <= times.keys():
        spent = [task.cost * median_high(times[task.name]) for task in missing]
        seconds = max(sum(spent) / count, *spent, 0.0)
    if names <= sizes.keys():
        size = sum(median_high(sizes[task.name]) for task in missing)
    return Forecast(len(tasks), len(tasks) - len(missing), seconds, size)


def wall_times(store: str | os.PathLike[str]) -> dict[str, float]:
    """Return the seconds that the stored runs took, by name of the file; of repeated runs the last.

    A time is that of one process, and longer than its work where the machine was busy.
    """
    return {line["file"]: float(line["seconds"]) for line in _lines(Path(store) / TIMINGS)}


def _experience(store: Path) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds per cost of earlier runs, and sizes of stored files, by simulation."""
    times: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    for line in _lines(store / TIMINGS):
        name = line["file"].rpartition("-")[0]
        times.setdefault(name, []).append(line["seconds"] / max(line["cost"], 1.0))
    for path in filter(Path.is_file, store.glob("*.nc")):
        sizes.setdefault(path.name.rpartition("-")[0], []).append(float(path.stat().st_size))
    return times, sizes


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of the side file of wall times that can be read."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for text in texts:
        try:
            held = json.loads(text)
        except ValueError:
            continue
        if isinstance(held, dict) and {"file", "seconds", "cost"} <= held.keys():
            number = all(isinstance(held[key], int | float) for key in ("seconds", "cost"))
            if isinstance(held["file"], str) and number:
                yield held


class Moved(NamedTuple):
    """How two stores differ.

    Attributes
    ----------
    shared : int
        Runs of equal simulation and spec in both.
    only_first, only_second : int
    changes : list of (name of the run, variable, largest relative change)
        Infinite where shape, type or text differ.
    damaged : list of Path
        Left out.
    """

    shared: int
    only_first: int
    only_second: int
    changes: list[tuple[str, str, float]]
    damaged: list[Path]

    @property
    def equal(self) -> bool:
        """Whether every shared number is the same to the bit, and all could be read."""
        return not self.changes and not self.damaged

    def __str__(self) -> str:
        lines = [
            f"{run}: {name} moved by {size:.2g} of its largest entry"
            for run, name, size in self.changes
        ]
        lines += [f"{path} is damaged and left out." for path in self.damaged]
        count = len({run for run, _, _ in self.changes})
        end = (
            f"{self.shared} runs in both, {count} with numbers that moved; {self.only_first} only "
            f"in the first, {self.only_second} only in the second."
        )
        return "\n".join([*lines, end])


def compare(first: Path, second: Path) -> Moved:
    """Compare the numbers of all runs that two stores share.

    Raises
    ------
    ValueError
        If one is not a folder.
    """
    every = [scan(store) for store in (first, second)]
    left, right = (
        {(e.name, e.spec): e.path for e in entries if e.state != "damaged"} for entries in every
    )
    damaged = [e.path for entries in every for e in entries if e.state == "damaged"]
    shared = sorted(left.keys() & right.keys())
    changes = []
    for key in shared:
        one, two = read_result(left[key]).dataset, read_result(right[key]).dataset
        for name in sorted({*map(str, one.variables), *map(str, two.variables)}):
            size = _change(one, two, name)
            if size > 0.0:
                changes.append((left[key].name, name, size))
    return Moved(len(shared), len(left) - len(shared), len(right) - len(shared), changes, damaged)


def _change(one: Any, two: Any, name: str) -> float:
    """Largest difference of a variable relative to its largest entry."""
    import numpy as np

    if name not in one.variables or name not in two.variables:
        return float("inf")
    a, b = one[name].values, two[name].values
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else float("inf")
    if a.tobytes() == b.tobytes():
        return 0.0
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not np.isfinite(np.concatenate([a[~same].ravel(), b[~same].ravel()])).all():
        return float("inf")
    scale = max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)), np.finfo(float).tiny)
    return float(np.abs(a[~same] - b[~same]).max(initial=0.0)) / scale


def merge(sources: Sequence[Path], output: Path) -> str:
    """Copy the results of several stores into one; return what was done, in a sentence.

    Equal files are taken once. Manifests of presets are joined where all their files are there.

    Raises
    ------
    ValueError
        If two stores have different results of one run, or a source is not a folder; nothing is
        copied then.
    """
    found: dict[str, Path] = {}
    lost: list[Path] = []
    for store in [*([output] if output.is_dir() else []), *sources]:
        for entry in scan(store):
            if entry.state == "damaged":
                if store == output:
                    set_aside(entry.path)
                lost.append(entry.path)
                continue
            held = found.setdefault(entry.path.name, entry.path)
            if held != entry.path and held.read_bytes() != entry.path.read_bytes():
                raise ValueError(
                    f"{entry.path.name} differs between {held.parent} and {store}; remove one of "
                    "them, or compare the stores with `linattn compare`."
                )
    target = open_folder(output)
    new = [path for path in found.values() if path.parent != output]
    for path in new:
        write_atomically(target / path.name, path.read_bytes())
    _merge_manifests(sources, target)
    damaged = f" Damaged and left out: {', '.join(map(str, lost))}." if lost else ""
    return f"{len(new)} results copied into {output}, {len(found)} there now.{damaged}"


def _merge_manifests(sources: Sequence[Path], target: Path) -> None:
    folder = open_folder(target / MANIFESTS)
    for source in sources:
        for path in sorted((source / MANIFESTS).glob("*.json")):
            presets = read_manifest(source, path.stem) | read_manifest(target, path.stem)
            kept = {k: v for k, v in presets.items() if all((target / f).exists() for f in v)}
            write_atomically(folder / path.name, json.dumps(kept, indent=1).encode())
