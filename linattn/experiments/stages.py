"""The stages of ``linattn reproduce``: simulate, draw, verify."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from linattn._checks import positive_int
from linattn.experiments.catalog import find_scripts, load_script
from linattn.experiments.files import open_folder
from linattn.experiments.pool import single_threaded
from linattn.experiments.progress import reporter
from linattn.experiments.provenance import provenance
from linattn.experiments.runner import SweepReport, available_workers, run_sweep
from linattn.experiments.store import write_manifest
from linattn.experiments.sweep import Sweep
from linattn.experiments.verification import checked, source_digest, write_tables

if TYPE_CHECKING:
    from linattn.claims import Verdict
    from linattn.claims.tally import Tally


FIGURES_PER_PROCESS = 4


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
    """Draw every figure whose results are stored, figures side by side in several processes.

    Raises
    ------
    ValueError
        If the folder ``figures/`` cannot be found.
    OSError
        If the output cannot be written.
    """
    scripts = find_scripts("figures")
    target = open_folder(output / "figures")
    # A process takes a second to start, a figure about as long to draw.
    count = min(available_workers(), len(scripts) // FIGURES_PER_PROCESS)
    if count <= 1:
        return _joined(draw_one(path, output, target) for path in scripts)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as executor:
        with single_threaded():  # submitting starts the processes
            futures = [executor.submit(draw_one, path, output, target) for path in scripts]
        return _joined(future.result() for future in futures)


def draw_one(path: Path, output: Path, target: Path) -> Drawn:
    """Draw the figure of one script, in a worker process or here."""
    module = load_script(path)
    if not hasattr(module, "draw"):
        return Drawn([], [], [])  # a module that figures share
    try:
        made = list(module.draw(output, target))
        said = [(path.stem, module.summary(output))] if hasattr(module, "summary") else []
    except FileNotFoundError as error:
        return Drawn([], [str(error)], [])
    return Drawn(made, [], said)


def _joined(parts: Iterable[Drawn]) -> Drawn:
    """All figures as one, in the order of their scripts."""
    every = list(parts)
    return Drawn(
        [path for part in every for path in part.made],
        [sentence for part in every for sentence in part.lacking],
        [said for part in every for said in part.summaries],
    )


def verify(
    output: Path,
    *,
    instances: int,
    seed: int = 0,
    workers: int | None = None,
    resolved: int | None = None,
    chosen: Sequence[str] | None = None,
    observe: Callable[[int, list[str]], None] | None = None,
) -> Verified:
    """Check every claim on random instances, and on the stored results.

    The table is also written to ``output/verify`` as CSV and Markdown.

    Parameters
    ----------
    output : Path
        The store; it may be missing.
    instances : int
        Random instances per claim, from the streams (seed, "instance").
    workers : int, optional
        Processes; default one per available processor.
    resolved : int, optional
        Check every claim only until so many of its verdicts were resolved: all conditions met and
        the measured quantity above 1e-8 of its scale.
    chosen : sequence of str, optional
        Ids of the claims to check, on random instances only; default all, and the stored results.
    observe : callable (number of instances done, ids of the claims being checked), optional

    Raises
    ------
    ValueError
        If `instances` or `resolved` is not positive, or there is no such claim.
    """
    from linattn.experiments.checks import verdicts

    positive_int("instances", instances)
    if resolved is not None:
        positive_int("resolved", resolved)
    count = available_workers() if workers is None else workers
    tallies = checked(
        output,
        instances=instances,
        seed=seed,
        workers=count,
        resolved=resolved,
        chosen=chosen,
        observe=observe,
    )
    stored = verdicts(output) if chosen is None else []
    rows = [_tally_row(part) for part in tallies] + [_row(v, v.status) for v in stored]
    if tallies:
        asked = {"instances": instances, "resolved": resolved, "seed": seed}
        write_tables(output, tallies, asked | {"source": source_digest()} | provenance())
    # A recalled bound that is violated is shown as such, but is no failure of ours.
    failed = [part.claim for part in tallies if part.status == "violated" and not _recalled(part)]
    return Verified(rows, failed + [v.claim for v in stored if v.status == "violated"])


def _recalled(part: Tally) -> bool:
    from linattn.claims import get_claim

    return get_claim(part.claim).provenance == "recalled"


def _tally_row(part: Tally) -> Row:
    provenance = ", recalled" if _recalled(part) else ""
    held = f"{part.status} ({part.total} instances{provenance}"
    refused = part.counts["refused"]
    note = f"{held}, {refused} refused)" if refused else f"{held})"
    return Row(part.claim, "", "", "", note) if part.worst is None else _row(part.worst, note)


def _row(verdict: Verdict, note: str) -> Row:
    """The two numbers of a verdict; for identities the tightness is the relative residual."""
    exact = verdict.kind == "identity"
    tightness = f"residual {verdict.tightness:.1e}" if exact else f"{verdict.tightness:.4g}"
    clear = "" if isnan(verdict.tightness) else tightness
    return Row(verdict.claim, f"{verdict.measured:.8g}", f"{verdict.bound:.8g}", clear, note)
