"""What there is: the simulation and figure scripts of the repository, and what a store has."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from linattn.experiments.specs import Spec, spec_json
from linattn.experiments.store import Entry, scan
from linattn.experiments.sweep import Sweep


class Row(NamedTuple):
    """How much of a preset is in a store: numbers of runs."""

    name: str
    preset: str
    runs: int
    stored: int
    missing: int
    stale: int


def find_folder(name: str) -> Path:
    """Return the folder `name` beside the package or, failing that, in the working directory.

    Raises
    ------
    ValueError
        If there is none; only the package itself is installed.
    """
    places = (Path(__file__).resolve().parents[2] / name, Path.cwd() / name)
    for place in places:
        if any(place.glob("*.py")):
            return place
    raise ValueError(
        f"{name}/ must lie beside the package or in the working directory, but it is in neither "
        f"{places[0].parent} nor {places[1].parent}; change into a clone of the repository."
    )


def find_scripts(name: str) -> list[Path]:
    """Return the public scripts of a folder, by name.

    Raises
    ------
    ValueError
        If the folder cannot be found.
    """
    return sorted(path for path in find_folder(name).glob("*.py") if path.name[0] != "_")


def find_script(script: str) -> Path:
    """Return the simulation script of a path or of a bare name such as ``bias_drift``.

    Raises
    ------
    ValueError
        If there is no such script.
    """
    if Path(script).is_file():
        return Path(script)
    known = find_scripts("simulations")
    for path in known:
        if Path(script).name in (path.name, path.stem):
            return path
    names = ", ".join(path.stem for path in known)
    raise ValueError(f"script must be a file or one of {names}, got {script!r}.")


def load_script(path: Path) -> ModuleType:
    """Import a script by its path.

    Raises
    ------
    ValueError
        If it is not a Python file.
    """
    name = f"_linattn_{path.parent.name}_{path.stem}"
    found = spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ValueError(f"script must be a Python file, got {path}.")
    module = module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def load_sweep(path: Path) -> Sweep:
    """Return the ``SWEEP`` that a simulation script declares.

    Raises
    ------
    ValueError
        If it declares none.
    """
    sweep = getattr(load_script(path), "SWEEP", None)
    if not isinstance(sweep, Sweep):
        raise ValueError(f"script must declare SWEEP = Sweep(...), but {path} does not.")
    return sweep


def load_sweeps() -> list[Sweep]:
    """Return the sweeps of all simulation scripts.

    Raises
    ------
    ValueError
        If the folder cannot be found or a script declares no sweep.
    """
    return [load_sweep(path) for path in find_scripts("simulations")]


def inventory(sweeps: Iterable[Sweep], store: Path) -> tuple[list[Row], list[Entry]]:
    """Compare what the presets ask for with what a store has.

    Returns
    -------
    rows : list of Row
        One for each preset of each sweep.
    others : list of Entry
        Damaged files, and files that no preset asks for.
    """
    entries = scan(store) if store.is_dir() else []
    known: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda e: e.state == "stored"):
        known[entry.spec] = entry  # a stored one overrides a stale one
    rows: list[Row] = []
    asked: set[str] = set()
    for sweep in sweeps:
        for preset in sweep.presets:
            specs = sweep.specs(preset)
            asked.update(spec_json(spec) for spec in specs)
            rows.append(_row(sweep.name, preset, specs, known))
    others = [e for e in entries if e.state == "damaged" or e.spec not in asked]
    return rows, others


def _row(name: str, preset: str, specs: list[Spec], known: dict[str, Entry]) -> Row:
    states = [known[text].state if text in known else "" for text in map(spec_json, specs)]
    stored, stale = states.count("stored"), states.count("stale")
    return Row(name, preset, len(specs), stored, len(specs) - stored - stale, stale)
