"""The stages of ``linattn reproduce``: simulate, draw, verify."""

from __future__ import annotations

import multiprocessing
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from linattn._checks import real
from linattn._progress import say
from linattn.experiments.engine import MakeBackend, Report, available_workers, compute_tasks
from linattn.experiments.files import open_folder
from linattn.experiments.find import PageLook, load_figure, load_simulations, told
from linattn.experiments.pool import Pool, single_threaded, without_main
from linattn.experiments.progress import reporter
from linattn.experiments.simulation import Simulation, Task
from linattn.experiments.store import (
    Result,
    SeveralTextsWarning,
    load_results,
    read_manifest,
    write_manifest,
)
from linattn.experiments.verification import FOLDER, checked, standing, write_tables

if TYPE_CHECKING:
    from linattn.claims import Verdict
    from linattn.claims.tally import Tally

FIGURES_PER_PROCESS = 4
WIDTHS = (1.0, 100.0)
"""Inches of the narrowest and the widest figure."""
SET = "set"
"""What a run with ``--set`` is remembered as, beside the presets."""


class Row(NamedTuple):
    """A row of the table of claims."""

    claim: str
    measured: str
    analytical: str
    tightness: str
    verdict: str


class Verified(NamedTuple):
    """The table of claims, the names of those that are violated, and how many are in which state.

    Attributes
    ----------
    rows : list of Row
    violated : list of str
        Recalled bounds are not among them.
    counts : dict of str to int
    report : Report
        What the engine did.
    """

    rows: list[Row]
    violated: list[str]
    counts: dict[str, int]
    report: Report

    @property
    def holds(self) -> bool:
        """Whether something was checked, and nothing of it is violated."""
        return self.report.complete and self.counts.get("holds", 0) > 0 and not self.violated


class Drawn(NamedTuple):
    """What `draw` did.

    `made` are the files, `lacking` a sentence for each figure without results or that failed,
    `summaries` the name of a figure and the numbers to read beside it.
    """

    made: list[Path]
    lacking: list[str]
    summaries: list[tuple[str, str]]


def simulate(
    simulations: Iterable[Simulation[Any]],
    *,
    preset: str,
    output: Path,
    overrides: Mapping[str, Any] | None = None,
    workers: int | None = None,
    force: bool = False,
    backend: MakeBackend = Pool,
    shard: tuple[int, int] = (1, 1),
) -> Report:
    """Run the presets of several simulations in one pool of workers, reporting progress.

    Which runs a preset asked for is remembered once all of them are stored, so that a run that
    failed or was stopped never hides what a complete one stored.

    Parameters
    ----------
    shard : (k, N)
        Only every N-th task, from the k-th on, 1 ≤ k ≤ N, in the order of their digests.

    Raises
    ------
    ValueError, OSError, RuntimeError
        As `compute_tasks` does.
    """
    asked = {sim.name: sim.tasks(preset, overrides) for sim in simulations}
    chosen = part_of([task for tasks in asked.values() for task in tasks], shard)
    report = compute_tasks(
        chosen, output, workers=workers, force=force, observe=reporter, backend=backend
    )
    if report.complete:
        name = SET if overrides else preset
        for simulation, tasks in asked.items():
            if all((report.output / task.file).exists() for task in tasks):
                write_manifest(report.output, simulation, name, tasks)
    return report


def part_of(tasks: Sequence[Task], shard: tuple[int, int]) -> list[Task]:
    """Return every N-th task, from the k-th on in the order of digests, in the order given."""
    k, count = shard
    mine = set(sorted(task.digest for task in tasks)[k - 1 :: count])
    return [task for task in tasks if task.digest in mine]


def stored_results(output: Path, simulation: str, preset: str | None) -> list[Result]:
    """Return the results of a preset, by default of the one that last ran to its end.

    Raises
    ------
    FileNotFoundError
        If there are none; the sentence says which command makes them.
    """
    manifest = read_manifest(output, simulation)
    known = [name for name in manifest if name != SET]
    chosen = preset or (known[-1] if known else "")
    mixed = False
    with suppress(ValueError), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        results = load_results(output, simulation, preset=chosen)
        mixed = any(warning.category is SeveralTextsWarning for warning in warned)
        for warning in warned:
            if warning.category is not SeveralTextsWarning:  # refused below
                say(str(warning.message))
        if not mixed and len(results) == len(manifest[chosen]) > 0:
            return results
    why = "several texts of its file made the results of" if mixed else "no results of"
    asked = "" if preset is None else f" --preset {preset}"
    there = "; those of `--set` are found by `--preset set`" if SET in manifest else ""
    raise FileNotFoundError(
        f"{why} {simulation} in {output}; make them with "
        f"`linattn run {simulation}{asked} --output {output}`{there}."
    )


def draw(
    scripts: Sequence[Path], output: Path, *, look: PageLook, preset: str | None = None
) -> Drawn:
    """Draw figures whose results are stored, side by side in several processes.

    Raises
    ------
    ValueError
        If `output` is not a folder, or a script is not a figure.
    OSError
        If the output cannot be written.
    """
    if not output.is_dir():
        raise ValueError(f"output must be a folder with results, got {output}; run a sweep first.")
    look = checked_look(look)
    target = open_folder(output / "figures")
    # A process takes a second to start, a figure about as long to draw.
    count = min(available_workers(), len(scripts) // FIGURES_PER_PROCESS)
    one = partial(draw_one, output=output, target=target, look=look, preset=preset)
    if count <= 1:
        return _joined(map(one, scripts))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as executor:
        with single_threaded(), without_main():  # submitting starts the processes
            drawn = executor.map(one, scripts)
        return _joined(drawn)


def checked_look(look: PageLook) -> PageLook:
    """Return the look, if matplotlib has or reads its style, and its width is that of a page.

    Raises
    ------
    ValueError
        One sentence.
    """
    from matplotlib import style

    narrowest, widest = WIDTHS
    real("width", look.width, minimum=narrowest, maximum=widest)
    if look.style:
        try:
            with style.context(look.style):
                pass
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())
            raise ValueError(
                f"style must be a matplotlib style or a file of one, got {look.style!r} ({why})."
            ) from None
    return look


def draw_one(path: Path, output: Path, target: Path, look: PageLook, preset: str | None) -> Drawn:
    """Draw the figure of one script, in a worker process or here."""
    figure = load_figure(path)
    try:
        results = stored_results(output, figure.simulation, preset)
    except FileNotFoundError as error:
        return Drawn([], [str(error)], [])
    try:
        made = list(figure.draw(results, target, look))
        said = [] if figure.summary is None else [(figure.name, str(figure.summary(results)))]
    except OSError:
        raise  # the output cannot be written, whichever figure it is
    except (Exception, SystemExit) as error:  # a figure that fails must not end the others
        return Drawn([], [told(path, error, "cannot draw")], [])
    return Drawn(made, [], said)


def _joined(parts: Iterable[Drawn]) -> Drawn:
    """All figures as one, in the order of their scripts."""
    every = list(parts)
    return Drawn(
        [path for part in every for path in part.made],
        [sentence for part in every for sentence in part.lacking],
        [said for part in every for said in part.summaries],
    )


def stored_verdicts(output: Path) -> list[Verdict]:
    """Return the verdicts of every simulation on its runs of the last complete preset."""
    found: list[Verdict] = []
    for simulation in (one for one in load_simulations() if one.checks):
        try:
            results = stored_results(output, simulation.name, None)
        except FileNotFoundError:
            continue
        sets = [result.dataset for result in results]
        found += [check(sets) for check in simulation.checks]
    return found


def verify(
    output: Path,
    *,
    instances: int,
    seed: int = 0,
    workers: int | None = None,
    resolved: int | None = None,
    chosen: Sequence[str] | None = None,
    own: str | Path = "",
) -> Verified:
    """Check claims on random instances, and all of them on the stored results.

    Once all is checked the table is also written to ``output/verify`` as CSV and Markdown.

    Parameters
    ----------
    output : Path
        The store; it may be missing.
    instances, seed, workers, resolved, chosen, own
        As in `linattn.experiments.verification.checked`.

    Raises
    ------
    ValueError
        If a number is not positive, or there is no such claim.
    """
    tallies, report = checked(
        output,
        instances=instances,
        seed=seed,
        workers=workers,
        resolved=resolved,
        chosen=chosen,
        own=own,
    )
    from linattn.claims.table import claims as table_claims

    stored = [] if own or chosen else stored_verdicts(output)
    asked = {"instances": instances, "resolved": resolved, "seed": seed}
    if report.complete:  # a table of before stays else
        write_tables(output / FOLDER, tallies, asked, own)
    recalled = set() if own else {c.id for c in table_claims() if c.provenance == "recalled"}
    rows = [_tally_row(part, part.claim in recalled) for part in tallies]
    rows += [_row(verdict, verdict.status) for verdict in stored]
    states = [(p.claim, standing(p.status, recalled=p.claim in recalled)) for p in tallies]
    states += [(verdict.claim, verdict.status) for verdict in stored]
    failed = [claim for claim, state in states if state == "violated"]
    return Verified(rows, failed, dict(Counter(state for _, state in states)), report)


def _tally_row(part: Tally, recalled: bool) -> Row:
    others = ("refused", "not applicable", "vacuous")
    counts = [f"{part.counts[name]} {name}" for name in others if part.counts[name]]
    words = [f"{part.total} instances", *(["recalled"] if recalled else []), *counts]
    note = f"{part.status} ({', '.join(words)})"
    return Row(part.claim, "", "", "", note) if part.worst is None else _row(part.worst, note)


def _row(verdict: Verdict, note: str) -> Row:
    """The two numbers of a verdict; for identities the tightness is the relative residual."""
    exact = verdict.kind == "identity"
    tightness = f"residual {verdict.tightness:.1e}" if exact else f"{verdict.tightness:.4g}"
    clear = "" if isnan(verdict.tightness) else tightness
    return Row(verdict.claim, f"{verdict.measured:.8g}", f"{verdict.bound:.8g}", clear, note)
