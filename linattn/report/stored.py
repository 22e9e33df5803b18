"""Stored results as figures and tables want them: those of the last sweep, or a sentence."""

from __future__ import annotations

from pathlib import Path

from linattn.experiments.store import Result, load_results


def last_sweep(store: Path, name: str) -> list[Result]:
    """Return the results that the last sweep of a simulation asked for.

    Parameters
    ----------
    store : Path
        Folder of the stored results.
    name : str
        Name of the simulation, which is also the kind of its runs.

    Raises
    ------
    FileNotFoundError
        If there are none; the sentence says which command makes them.
    """
    found = load_results(store, name, sweep=name) if Path(store).is_dir() else []
    if not found:
        raise FileNotFoundError(
            f"no results of {name} in {store}; make them with "
            f"`linattn run simulations/{name}.py --output {store}`."
        )
    return found
