"""The stages of ``linattn reproduce``: simulate, draw, verify."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from linattn.experiments.catalog import find_scripts, load_script
from linattn.experiments.files import open_folder
from linattn.experiments.progress import reporter
from linattn.experiments.runner import SweepReport, run_sweep
from linattn.experiments.store import write_manifest
from linattn.experiments.sweep import Sweep


class Checked(NamedTuple):
    """A verdict in words: one row of the table of claims."""

    claim: str
    measured: str
    analytical: str
    tightness: str
    verdict: str


def simulate(
    sweeps: Iterable[Sweep],
    *,
    preset: str,
    output: Path,
    overrides: Mapping[str, Any] | None = None,
    workers: int | None = None,
    force: bool = False,
) -> SweepReport:
    """Run the presets of several sweeps in one pool of workers, reporting progress.

    Raises
    ------
    ValueError, OSError, RuntimeError
        As `run_sweep` does.
    """
    asked = {sweep.name: sweep.specs(preset, overrides) for sweep in sweeps}
    folder = open_folder(output)
    for name, specs in asked.items():
        write_manifest(folder, name, preset=preset, specs=specs)
    every = [spec for specs in asked.values() for spec in specs]
    return run_sweep(every, folder, workers=workers, force=force, observe=reporter)


def draw(output: Path) -> list[Path]:
    """Draw every figure from the store; return the files made.

    Raises
    ------
    ValueError
        If the folder ``figures/`` cannot be found.
    """
    target = open_folder(output / "figures")
    made: list[Path] = []
    for path in find_scripts("figures"):
        module = load_script(path)
        if hasattr(module, "draw"):
            made += module.draw(output, target)
    return made


def verify(output: Path) -> list[Any]:
    """Return the verdict of every claim on the stored results."""
    claims: Any = importlib.import_module("linattn.claims")
    return list(claims.verify(output))


def checked(verdict: Any) -> Checked:
    """Put a verdict into words."""
    return Checked(
        str(verdict.claim),
        _number(verdict.measured),
        _number(verdict.analytical),
        _number(verdict.tightness),
        str(verdict.status),
    )


def violated(verdicts: Sequence[Any]) -> bool:
    """Whether a claim is violated; refused and reported ones are not."""
    return any(verdict.status == "violated" for verdict in verdicts)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
