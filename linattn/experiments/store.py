"""The store: one NetCDF file per run, written whole or not at all.

The bytes of a file depend on the task, the numbers and their provenance only; wall times go to a
side file. Every file carries a SHA-256 over all its bytes, so damage is seen before anything is
believed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from linattn._checks import shown
from linattn.experiments.files import open_folder, write_atomically
from linattn.experiments.find import loaded_sha, shipped, shipped_texts
from linattn.experiments.netcdf import RESERVED, storable
from linattn.experiments.provenance import provenance
from linattn.experiments.simulation import NUMERICS, Simulation, Task
from linattn.experiments.validation import canonical_json

if TYPE_CHECKING:
    import xarray as xr

_NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
State = Literal["stored", "stale", "damaged"]
TIMINGS = "timings.jsonl"
MANIFESTS = "sweeps"

_BLANK = b"0" * 64
# Name, type NC_CHAR and length of the attribute, as the header of a NetCDF-3 file spells them.
_MARK = b"checksum" + (2).to_bytes(4, "big") + (64).to_bytes(4, "big")


class Entry(NamedTuple):
    """A file of the store as `scan` sees it.

    Attributes
    ----------
    path : Path
    state : {"stored", "stale", "damaged"}
    name : str
        Of the simulation.
    spec : str
        Canonical JSON; empty if damaged.
    provenance : mapping
        With ``numerics``, ``version`` and ``script``, the SHA-256 of the simulation's file.
    """

    path: Path
    state: State
    name: str
    spec: str
    provenance: Mapping[str, Any]


class Result(NamedTuple):
    """A stored run: its spec, its arrays, where they come from and where they lie."""

    spec: Mapping[str, Any]
    dataset: xr.Dataset
    provenance: Mapping[str, Any]
    path: Path


class DamagedError(ValueError):
    """A stored file is not what was written."""


class SeveralTextsWarning(UserWarning):
    """Results of a simulation of one's own were made by several texts of its file."""


def encode(task: Task, simulation: Simulation[Any], dataset: xr.Dataset) -> bytes:
    """Return the NetCDF bytes of a run, checksum included; equal runs give equal bytes.

    Raises
    ------
    ValueError, TypeError
        If something in the dataset cannot be stored: one sentence names it.
    """
    fresh = storable(dataset)
    origin = provenance() | {"script": loaded_sha(simulation.path), "version": simulation.version}
    fresh.attrs = {
        "checksum": _BLANK.decode(),
        "simulation": task.name,
        "spec": task.spec,
        "provenance": canonical_json(origin),
        **fresh.attrs,
    }
    unfilled = {name: {"_FillValue": None} for name in fresh.variables}
    content = bytes(fresh.to_netcdf(engine="scipy", encoding=unfilled))
    start = content.index(_MARK) + len(_MARK)
    checksum = hashlib.sha256(content).hexdigest().encode()
    return content[:start] + checksum + content[start + 64 :]


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read one stored run.

    Raises
    ------
    DamagedError
        If the file is truncated or altered.
    OSError
        If it cannot be read.
    """
    import xarray as xr

    content = _intact(Path(path))
    dataset = xr.load_dataset(io.BytesIO(content), engine="scipy", decode_times=False)
    held = {name: dataset.attrs.pop(name, "{}") for name in RESERVED}
    return Result(json.loads(held["spec"]), dataset, json.loads(held["provenance"]), Path(path))


def inspect_file(path: Path, simulation: Simulation[Any] | None = None) -> Entry:
    """Return what a file of the store is, without loading its arrays.

    Stale is what was made with other numerics, or, where the simulation is known, by another
    version of it, or, if it is not one of the package's own, by another text of its script.
    """
    from scipy.io import netcdf_file

    lost = Entry(path, "damaged", path.name.rpartition("-")[0], "", {})
    try:
        content = _intact(path)
        with netcdf_file(io.BytesIO(content), mmap=False) as file:
            spec, origin = file.spec.decode(), json.loads(file.provenance)
            name = getattr(file, "simulation", b"").decode()
    except (DamagedError, OSError, ValueError, AttributeError):
        return lost
    current = origin.get("numerics") == NUMERICS and bool(name)
    if simulation is not None:
        current &= origin.get("version") == simulation.version
        current &= shipped(simulation.path) or not other_script(origin, simulation)
    return Entry(path, "stored" if current else "stale", name or lost.name, spec, origin)


def other_script(origin: Mapping[str, Any], simulation: Simulation[Any]) -> bool:
    """Whether a result was made by another text of its simulation's file."""
    return bool(origin.get("script") != loaded_sha(simulation.path))


def scan(store: str | os.PathLike[str], name: str | None = None) -> list[Entry]:
    """Return an entry for every result file of the store, or of one simulation, by file name.

    Raises
    ------
    ValueError
        If the store is not a folder.
    """
    folder = Path(store)
    if not folder.is_dir():
        raise ValueError(f"store must be a folder with results, got {folder}; run a sweep first.")
    return [inspect_file(path) for path in _files(folder, name)]


def set_aside(path: Path) -> str:
    """Rename a damaged file to ``*.damaged`` and return the sentence that says so."""
    aside = path.with_name(path.name + ".damaged")
    with suppress(FileNotFoundError):  # another process was faster
        os.replace(path, aside)
    return f"{path.name} is damaged; it is kept as {aside.name} and computed again."


def load_results(
    store: str | os.PathLike[str],
    name: str | None = None,
    *,
    preset: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> list[Result]:
    """Return the stored runs of current numerics, ordered by spec.

    Parameters
    ----------
    store : path
        The output folder of a sweep.
    name : str, optional
        Only runs of this simulation.
    preset : str, optional
        Only the runs that the last complete sweep of this preset asked for.
    where : mapping of str to value, optional
        Only runs with these values, by dotted field name, as ``{"problem.noise": 0.1}``.

    Returns
    -------
    list of Result
        Specs are mappings: the simulation's file is not needed.

    Raises
    ------
    ValueError
        If the store is not a folder, or has no run of this name or preset; the sentence says what
        it has.

    Warns
    -----
    UserWarning
        For every damaged file; it is left out.
    SeveralTextsWarning
        For results of one's own script that several texts of it made.

    Notes
    -----
    Cost: every file of the simulation is read, and its checksum compared.
    """
    for argument, text in (("name", name), ("preset", preset)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{argument} must be a text, got {shown(text)}.")
    entries = scan(store, name)
    if name is not None and not entries:
        raise ValueError(_no_such(name, Path(store)))
    if preset is not None:
        wanted = _listed(Path(store), entries, preset)
        entries = [entry for entry in entries if entry.path.name in wanted]
    newest: dict[str, int] = {}
    for entry in entries:
        version = int(entry.provenance.get("version", 0))
        newest[entry.name] = max(newest.get(entry.name, 0), version)
    kept = []
    for entry in entries:
        if entry.state == "damaged":
            warnings.warn(f"{entry.path.name} is damaged and left out.", stacklevel=3)
        current = entry.state == "stored" and entry.provenance["version"] == newest[entry.name]
        if current and _matches(json.loads(entry.spec), where or {}):
            kept.append(entry)
    # Those of the package change by version.
    for name in sorted({entry.name for entry in kept} - shipped_texts().keys()):
        if len({entry.provenance.get("script") for entry in kept if entry.name == name}) > 1:
            told = f"results of {name} are of several texts of its file."
            warnings.warn(told, SeveralTextsWarning, stacklevel=2)
    return [read_result(entry.path) for entry in sorted(kept, key=lambda e: _order(e.spec))]


def lookup(values: Mapping[str, Any], name: str) -> Any:
    """Return the value of a dotted field name in a nested mapping, None if it is not there."""
    found: Any = values
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def write_manifest(store: Path, name: str, preset: str, tasks: Iterable[Task]) -> None:
    """Remember which runs a complete sweep of a preset asked for, for those who draw it."""
    folder = open_folder(store / MANIFESTS)
    presets = read_manifest(store, name)
    presets.pop(preset, None)
    presets[preset] = [task.file for task in tasks]  # the last complete one comes last
    write_atomically(folder / f"{name}.json", json.dumps(presets, indent=1).encode())


def read_manifest(store: str | os.PathLike[str], name: str) -> dict[str, list[str]]:
    """Return the files of every preset of a simulation that ran to its end, the last run last."""
    try:
        text = (Path(store) / MANIFESTS / f"{name}.json").read_text(encoding="utf-8")
        held = json.loads(text)
    except (OSError, ValueError):
        return {}
    if not isinstance(held, dict):
        return {}
    return {str(k): [str(f) for f in v] for k, v in held.items() if isinstance(v, list)}


def record_time(store: Path, task: Task, seconds: float) -> None:
    """Append the wall time of a run to the side file (a lost line loses nothing else)."""
    line = canonical_json({"file": task.file, "cost": task.cost, "seconds": round(seconds, 4)})
    with suppress(OSError), open(store / TIMINGS, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _files(folder: Path, name: str | None) -> list[Path]:
    """Result files by name; those of one simulation by their stem, none opened."""
    every = sorted(folder.glob("*.nc"))
    return every if name is None else [p for p in every if p.name.rpartition("-")[0] == name]


def _no_such(name: str, store: Path) -> str:
    there = sorted({path.name.rpartition("-")[0] for path in _files(store, None)})
    near = get_close_matches(name, there, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(there) or 'none'}."
    return f"{store} has no results of {name!r}; {hint}"


def _listed(store: Path, entries: Iterable[Entry], preset: str) -> set[str]:
    """Files of the preset in the manifests of these simulations."""
    manifests = [read_manifest(store, name) for name in {entry.name for entry in entries}]
    if not any(preset in held for held in manifests):
        known = sorted({key for held in manifests for key in held})
        raise ValueError(
            f"preset must be one that ran to its end, {', '.join(known) or 'none did'}, "
            f"got {preset!r}."
        )
    return {file for held in manifests for file in held.get(preset, [])}


def _intact(path: Path) -> bytes:
    """Return the bytes of a file after comparing them with their checksum."""
    if not path.is_file():  # a folder, or a pipe or device that would never end
        raise DamagedError(f"{path} is damaged: it is no file.")
    content = path.read_bytes()
    start = content.find(_MARK) + len(_MARK)
    blanked = content[:start] + _BLANK + content[start + 64 :]
    expected = hashlib.sha256(blanked).hexdigest().encode()
    if start < len(_MARK) or content[start : start + 64] != expected:
        raise DamagedError(f"{path} is damaged: its bytes do not fit their checksum.")
    return content


def _matches(values: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    tidy = {name: list(v) if isinstance(v, tuple) else v for name, v in where.items()}
    return all(lookup(values, name) == value for name, value in tidy.items())


def _order(spec: str) -> tuple[Any, ...]:
    """Sort key of a canonical spec: numbers by size, not by their digits."""
    return tuple(
        (0, float(part), "") if index % 2 else (1, 0.0, part)
        for index, part in enumerate(_NUMBER.split(spec))
    )
