"""The stages of ``linattn reproduce``: simulate, draw, verify."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from linattn.experiments.catalog import find_scripts, load_script
from linattn.experiments.files import open_folder
from linattn.experiments.pool import single_threaded
from linattn.experiments.progress import reporter
from linattn.experiments.runner import SweepReport, available_workers, run_sweep
from linattn.experiments.store import write_manifest
from linattn.experiments.sweep import Sweep

if TYPE_CHECKING:
    from linattn.claims import Summary, Verdict


class Row(NamedTuple):
    """A row of the table of claims."""

    claim: str
    measured: str
    analytical: str
    tightness: str
    verdict: str


class Verified(NamedTuple):
    """The table of claims and the names of those that are violated."""

    rows: list[Row]
    violated: list[str]


class Drawn(NamedTuple):
    """What `draw` did.

    `made` are the files, `lacking` a sentence for each figure without results, `summaries` the
    name of a figure and the numbers to read beside it.
    """

    made: list[Path]
    lacking: list[str]
    summaries: list[tuple[str, str]]


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


def draw(output: Path) -> Drawn:
    """Draw every figure whose results are stored.

    Raises
    ------
    ValueError
        If the folder ``figures/`` cannot be found.
    OSError
        If the output cannot be written.
    """
    scripts = find_scripts("figures")
    target = open_folder(output / "figures")
    drawn = Drawn([], [], [])
    for path in scripts:
        module = load_script(path)
        if not hasattr(module, "draw"):
            continue  # a module that figures share
        try:
            drawn.made.extend(module.draw(output, target))
            if hasattr(module, "summary"):
                drawn.summaries.append((path.stem, module.summary(output)))
        except FileNotFoundError as error:
            drawn.lacking.append(str(error))
    return drawn


def verify(output: Path, *, instances: int, seed: int = 0, workers: int | None = None) -> Verified:
    """Check every claim on random instances, and on the stored results.

    Parameters
    ----------
    output : Path
        The store; it may be missing.
    instances : int
        Random instances per claim, from the streams (seed, "instance").
    workers : int, optional
        Processes; default one per available processor.

    Raises
    ------
    ValueError
        If `instances` is not positive.
    """
    from linattn.experiments.checks import verdicts

    count = available_workers() if workers is None else workers
    summaries, stored = _summaries(instances, seed, count), verdicts(output)
    rows = [_summary_row(summary) for summary in summaries] + [_row(v, v.status) for v in stored]
    states = [summary.status for summary in summaries] + [verdict.status for verdict in stored]
    pairs = zip(rows, states, strict=True)
    return Verified(rows, [row.claim for row, state in pairs if state == "violated"])


def summarize_claim(name: str, instances: int, seed: int) -> Summary:
    """Check one claim, in a worker process."""
    from linattn.claims import get_claim, summarize

    (summary,) = summarize(instances=instances, seed=seed, chosen=[get_claim(name)])
    return summary


def _summaries(instances: int, seed: int, workers: int) -> list[Summary]:
    """Every claim on the same instances, claims side by side in single-threaded processes."""
    from linattn.claims import claims

    names = [claim.id for claim in claims()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        with single_threaded():  # submitting starts the processes
            futures = [executor.submit(summarize_claim, name, instances, seed) for name in names]
        return [future.result() for future in futures]


def _summary_row(summary: Summary) -> Row:
    held = f"{summary.status} ({len(summary.verdicts)} instances"
    refused = summary.count("refused")
    note = f"{held}, {refused} refused)" if refused else f"{held})"
    worst = summary.worst
    return Row(summary.claim.id, "", "", "", note) if worst is None else _row(worst, note)


def _row(verdict: Verdict, note: str) -> Row:
    """The two numbers of a verdict; for identities the tightness is the relative residual."""
    exact = verdict.kind == "identity"
    tightness = f"residual {verdict.tightness:.1e}" if exact else f"{verdict.tightness:.4g}"
    clear = "" if isnan(verdict.tightness) else tightness
    return Row(verdict.claim, f"{verdict.measured:.8g}", f"{verdict.bound:.8g}", clear, note)
