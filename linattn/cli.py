"""The command line: run simulations, see what is stored, draw, verify, reproduce everything."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from linattn._checks import positive_int
from linattn._progress import say, steady_streams

if TYPE_CHECKING:
    from linattn.experiments import Report, Simulation
    from linattn.experiments.engine import MakeBackend
    from linattn.experiments.stages import Drawn, Verified

T = TypeVar("T")

Script = Annotated[str, typer.Argument(help="Path of a simulation, or its bare name.")]
Preset = Annotated[str, typer.Option(help="Size of the experiment: paper, quick or tiny.")]
DrawnPreset = Annotated[
    str | None, typer.Option("--preset", help="Draw this preset; default the last complete one.")
]
Output = Annotated[Path, typer.Option(help="Folder of the stored results.")]
Workers = Annotated[int | None, typer.Option(help="Processes; default one per processor.")]
Force = Annotated[bool, typer.Option(help="Compute stored runs again.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a field of the spec; repeatable."),
]
Only = Annotated[list[str] | None, typer.Option(help="Only this simulation; repeatable.")]
DryRun = Annotated[bool, typer.Option(help="Say what would be computed, and compute nothing.")]
Shard = Annotated[str, typer.Option(help="K/N: only every N-th run, from the K-th on.")]
SchedulerOption = Annotated[
    str | None,
    typer.Option(help="A Dask scheduler: tcp://HOST:PORT, local:N, or a TOML file of a cluster."),
]
Own = Annotated[
    Path | None, typer.Option("--from", help="A file with CLAIMS of your own, instead of ours.")
]
OwnScripts = Annotated[
    list[str] | None, typer.Argument(help="Simulations of your own that results are of, by path.")
]
Style = Annotated[str, typer.Option(help="A matplotlib style, or a file of one.")]
Width = Annotated[float, typer.Option(help="Width of figures in inches, as 3.5 or 7.2.")]
RESULTS = Path("results")
WIDTH = 7.2
INSTANCES = {"tiny": 2, "quick": 8, "paper": 200}
"""Random instances per claim that `reproduce` checks at each preset."""

app = typer.Typer(
    help="Validate theory for two-stage federated training of linear attention.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from linattn import __version__

        print(f"linattn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say it.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command("run")
def run_command(
    script: Script,
    preset: Preset = "quick",
    set_: Sets = None,
    workers: Workers = None,
    output: Output = RESULTS,
    force: Force = False,
    dry_run: DryRun = False,
    shard: Shard = "1/1",
    scheduler: SchedulerOption = None,
) -> None:
    """Run the sweep of a simulation; what is stored already is not computed again."""
    from linattn.experiments.find import find_script, load_simulation

    _simulate(
        [load_simulation(find_script(script))],
        preset=preset,
        sets=set_,
        workers=workers,
        output=output,
        force=force,
        dry_run=dry_run,
        shard=shard,
        scheduler=scheduler,
    )


@app.command("list")
def list_command(own: OwnScripts = None, output: Output = RESULTS) -> None:
    """List what there is: runs of every preset that are stored, missing or stale."""
    from linattn.experiments.find import load_simulations
    from linattn.experiments.inventory import inventory

    rows, others = inventory(load_simulations(own or ()), output)
    print(table([rows[0]._fields, *rows]))
    for note in others:
        print(note)
    print(f"Results are in {output}." if output.is_dir() else f"There is no {output} yet.")


@app.command("figures")
def figures_command(
    scripts: Annotated[
        list[str] | None, typer.Argument(help="Paths or names of figures; default all.")
    ] = None,
    output: Output = RESULTS,
    preset: DrawnPreset = None,
    style: Style = "",
    width: Width = WIDTH,
) -> None:
    """Draw figures whose results are stored; exit status 1 if some are not."""
    drawn = _draw(output, scripts=scripts, preset=preset, style=style, width=width)
    for path in drawn.made:
        print(path)
    raise typer.Exit(int(bool(drawn.lacking)))


@app.command("verify")
def verify_command(
    output: Output = RESULTS,
    instances: Annotated[
        int | None, typer.Option(help="Random instances; default 10, or 10 times --resolved.")
    ] = None,
    resolved: Annotated[
        int | None,
        typer.Option(
            help="Check each claim until so many verdicts, or as many as its record holds, had all "
            "conditions met and the measured quantity above 1e-8 of its scale."
        ),
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option(help="Check only this claim; repeatable.")
    ] = None,
    own: Own = None,
    seed: Annotated[int, typer.Option(help="Seed of the instances.")] = 0,
    workers: Workers = None,
) -> None:
    """Compare the two numbers of every claim; exit status 1 if a claim is
    violated or nothing was checked.

    Instances are checked in chunks that are stored in the output folder: a long
    run that was stopped continues. The table is written to its folder verify as
    CSV and Markdown, too, with its provenance.
    """
    from linattn.experiments.stages import verify

    if instances is None:
        instances = 10 if resolved is None else 10 * positive_int("resolved", resolved)
    verified = verify(
        output,
        instances=instances,
        seed=seed,
        workers=workers,
        resolved=resolved,
        chosen=claim,
        own=own or "",
    )
    raise typer.Exit(_tell(verified))


@app.command("tightness")
def tightness_command(
    claim: Annotated[str, typer.Argument(help="Id of a bound, such as 'C4'.")],
    evaluations: Annotated[int, typer.Option(help="Instances to try.")] = 20_000,
    minutes: Annotated[float, typer.Option(help="Time to try them in.")] = 10.0,
    factored: Annotated[bool, typer.Option(help="Use factored kernels.")] = False,
    own: Own = None,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    workers: Workers = None,
    output: Output = RESULTS,
) -> None:
    """Search for the instance on which a bound is tightest, and store it; exit
    status 1 if a claim of ours is violated there.
    """
    from linattn.claims.worst import write_found
    from linattn.experiments.verification import judged, tightest

    found = tightest(
        output,
        claim,
        evaluations=evaluations,
        minutes=minutes,
        factored=factored,
        seed=seed,
        workers=workers,
        own=own or "",
    )
    print(found)
    print(write_found(output / "worst", found))
    status = judged(found, own or "")
    if status != "holds":
        say(f"{claim} is {status} there")
    raise typer.Exit(int(status == "violated"))


@app.command("reproduce")
def reproduce_command(
    preset: Preset = "quick",
    workers: Workers = None,
    output: Output = RESULTS,
    force: Force = False,
    only: Only = None,
    scheduler: SchedulerOption = None,
    style: Style = "",
    width: Width = WIDTH,
    dry_run: DryRun = False,
) -> None:
    """Run every simulation, draw every figure, verify every claim, put all on one page."""
    from linattn.experiments.find import (
        PageLook,
        find_script,
        find_scripts,
        load_figure,
        load_simulations,
        shipped,
    )
    from linattn.experiments.stages import checked_look, verify

    began = perf_counter()
    asked = [find_script(name) for name in only or ()]
    for path in asked:
        if not shipped(path):
            raise ValueError(
                f"--only must name simulations of the package, got {path}; run your own with "
                "`linattn run`."
            )
    chosen = {path.stem for path in asked}
    simulations = [sim for sim in load_simulations() if not only or sim.name in chosen]
    if dry_run:
        _foresee(simulations, preset, output, workers=workers, force=force)
        return
    checked_look(PageLook(style, width))  # a mistake in it would be seen after all runs
    figures = [
        str(path)
        for path in find_scripts("figures")
        if not only or load_figure(path).simulation in chosen
    ]
    _timed(
        "simulations",
        lambda: _simulate(
            simulations,
            preset=preset,
            workers=None if scheduler else workers,
            output=output,
            force=force,
            scheduler=scheduler,
        ),
    )
    drawn = _timed(
        "figures",
        lambda: _draw(output, scripts=figures, preset=preset, style=style, width=width),
    )
    count = INSTANCES.get(preset, INSTANCES["quick"])
    code = _timed("claims", lambda: _tell(verify(output, instances=count, workers=workers)))
    print(f"all: {perf_counter() - began:.1f} s")
    print(f"Results are in {output}, {len(drawn.made)} files of figures in {output / 'figures'}.")
    print(f"Everything on one page: {_report(output)}")
    raise typer.Exit(code or int(bool(drawn.lacking)))


@app.command("report")
def report_command(output: Output = RESULTS) -> None:
    """Put verdicts, figures and runs of a folder into one page, report.html, for a browser."""
    print(_report(output))


@app.command("compare")
def compare_command(
    first: Annotated[Path, typer.Argument(help="A folder of results.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Say which numbers moved between two stores; exit status 1 if any did."""
    from linattn.experiments.inventory import compare

    moved = compare(first, second)
    print(moved)
    raise typer.Exit(int(not moved.equal))


@app.command("clean")
def clean_command(
    own: OwnScripts = None,
    output: Output = RESULTS,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove stale, damaged and foreign files of a store, after asking."""
    from linattn.experiments.find import load_simulations
    from linattn.experiments.inventory import removable

    found = removable(load_simulations(own or ()), output)
    for path, why in found:
        print(f"{path.name}: {why}")
    if not found:
        print(f"Nothing to remove in {output}.")
        return
    if yes or typer.confirm(f"Remove these {len(found)} files?"):
        for path, _ in found:
            path.unlink()
        print(f"{len(found)} files removed.")


@app.command("merge")
def merge_command(
    sources: Annotated[list[Path], typer.Argument(help="Folders of results.")],
    output: Output = RESULTS,
) -> None:
    """Copy the results of other stores into one; conflicts are refused."""
    from linattn.experiments.inventory import merge

    print(merge(sources, output))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: expected errors become one sentence and exit status 2.

    With LINATTN_DEBUG set in the environment the traceback is shown instead.
    """
    _guarded(app, arguments)


def simulation_main(simulation: Simulation[Any], arguments: Sequence[str] | None = None) -> None:
    """Entry point of a simulation's file: run a preset."""
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @script.command(help=f"Run the simulation {simulation.name}.")
    def run(
        preset: Preset = "quick",
        set_: Sets = None,
        workers: Workers = None,
        output: Output = RESULTS,
        force: Force = False,
        dry_run: DryRun = False,
        shard: Shard = "1/1",
        scheduler: SchedulerOption = None,
    ) -> None:
        # As every worker loads it, not as the module __main__.
        run_command(
            str(simulation.path),
            preset=preset,
            set_=set_,
            workers=workers,
            output=output,
            force=force,
            dry_run=dry_run,
            shard=shard,
            scheduler=scheduler,
        )

    _guarded(script, arguments)


def table(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as aligned columns, the first row as a heading."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _simulate(
    simulations: Sequence[Simulation[Any]],
    *,
    preset: str,
    output: Path,
    sets: Sequence[str] | None = None,
    workers: int | None = None,
    force: bool = False,
    dry_run: bool = False,
    shard: str = "1/1",
    scheduler: str | None = None,
) -> None:
    """Run sweeps and say what happened; ends the command if not all runs are stored."""
    from linattn.experiments.inventory import forecast
    from linattn.experiments.pool import Pool
    from linattn.experiments.simulation import parse_overrides, parse_shard
    from linattn.experiments.stages import part_of, simulate

    backend: MakeBackend = Pool
    if scheduler is not None:
        from linattn.experiments.scheduler import scheduler_backend

        if workers is not None:
            raise ValueError(
                f"--workers must be left to the scheduler, got {workers} with {scheduler!r}."
            )
        backend = scheduler_backend(scheduler)
    overrides = parse_overrides(sets or ())
    part = parse_shard(shard)
    if dry_run:
        tasks = [task for sim in simulations for task in sim.tasks(preset, overrides)]
        print(forecast(part_of(tasks, part), output, workers=workers, force=force))
        return
    report = simulate(
        simulations,
        preset=preset,
        output=output,
        overrides=overrides,
        workers=workers,
        force=force,
        shard=part,
        backend=backend,
    )
    _complain(report)
    print(report)
    if report.interrupted:
        raise typer.Exit(130)
    if not report.complete:
        raise typer.Exit(1)


def _foresee(
    simulations: Sequence[Simulation[Any]],
    preset: str,
    output: Path,
    *,
    workers: int | None,
    force: bool,
) -> None:
    """Say what every simulation would compute, and all together."""
    from linattn.experiments.inventory import forecast, together

    found = {
        sim.name: forecast(sim.tasks(preset), output, workers=workers, force=force)
        for sim in simulations
    }
    found["all"] = together(list(found.values()))
    width = max(map(len, found))
    for name, expected in found.items():
        print(f"{name:{width}}  {expected}")


def _draw(
    output: Path, *, scripts: Sequence[str] | None, preset: str | None, style: str, width: float
) -> Drawn:
    from linattn.experiments.find import PageLook, find_script, find_scripts
    from linattn.experiments.stages import draw

    paths = [find_script(script, "figures") for script in scripts or ()]
    look = PageLook(style, width)
    drawn = draw(paths or find_scripts("figures"), output, look=look, preset=preset)
    for name, text in drawn.summaries:
        print(f"{name}\n" + "\n".join(f"  {line}" for line in text.splitlines()))
    for sentence in drawn.lacking:
        say(sentence)
    return drawn


def _report(output: Path) -> Path:
    from linattn.report.page import write_report

    return write_report(output)


def _tell(verified: Verified) -> int:
    """Print the table of claims; return the exit status."""
    from linattn.experiments.stages import Row

    _complain(verified.report)
    print(table([Row._fields, *verified.rows]))
    print(", ".join(f"{count} {state}" for state, count in sorted(verified.counts.items())))
    if verified.report.interrupted:
        say("interrupted; the same command checks the rest")
        return 130
    if verified.violated:
        say(f"violated: {', '.join(verified.violated)}")
    elif not verified.holds:
        say("nothing was checked and held")
    return int(not verified.holds)


def _complain(report: Report) -> None:
    """Say which files were damaged and which runs crashed."""
    for sentence in report.damaged:
        say(sentence)
    for failure in report.failures:
        say(failure.sentence)
        if failure.trace and _debugging():
            say(failure.trace)


def _timed(stage: str, action: Callable[[], T]) -> T:
    began = perf_counter()
    result = action()
    print(f"{stage}: {perf_counter() - began:.1f} s", flush=True)
    return result


def _guarded(command: typer.Typer, arguments: Sequence[str] | None) -> None:
    steady_streams()
    before = signal.signal(signal.SIGTERM, _terminated) if hasattr(signal, "SIGTERM") else None
    try:
        command(args=None if arguments is None else list(arguments))
    except (ValueError, OSError, RuntimeError) as error:
        if _debugging():
            raise
        say(f"linattn: {error}")
        raise SystemExit(2) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: object) -> NoReturn:
    """SIGTERM ends like Ctrl-C: what is stored stays, workers and half files go."""
    raise KeyboardInterrupt


def _debugging() -> bool:
    return bool(os.environ.get("LINATTN_DEBUG"))
