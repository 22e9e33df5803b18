"""The command line: run simulations, see what is stored, draw, verify, reproduce everything."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from linattn.experiments.sweep import Sweep, parse_override

if TYPE_CHECKING:
    from linattn.experiments.stages import Drawn

T = TypeVar("T")

Script = Annotated[str, typer.Argument(help="Path of a simulation script, or its bare name.")]
Preset = Annotated[str, typer.Option(help="Size of the experiment: paper, quick or tiny.")]
Output = Annotated[Path, typer.Option(help="Folder of the stored results.")]
Workers = Annotated[int | None, typer.Option(help="Processes; default one per processor.")]
Force = Annotated[bool, typer.Option(help="Compute stored runs again.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a field of the spec; repeatable."),
]
RESULTS = Path("results")
WORST = RESULTS / "worst"
INSTANCES = {"tiny": 2, "quick": 4, "paper": 20}
"""Random instances per claim that `reproduce` checks at each preset."""
QUIET_INSTANCES = 100
"""Up to this many instances `verify` says nothing before the table."""

app = typer.Typer(
    help="Validate theory for two-stage federated training of linear attention.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command("run")
def run_command(
    script: Script,
    preset: Preset = "quick",
    set_: Sets = None,
    workers: Workers = None,
    output: Output = RESULTS,
    force: Force = False,
) -> None:
    """Run the sweep of a simulation script; what is stored already is not computed again."""
    from linattn.experiments.catalog import find_script, load_sweep

    sweep = load_sweep(find_script(script))
    _simulate([sweep], preset=preset, sets=set_, workers=workers, output=output, force=force)


@app.command("list")
def list_command(output: Output = RESULTS) -> None:
    """List what there is: runs of every preset that are stored, missing or stale."""
    from linattn.experiments.catalog import inventory, load_sweeps

    rows, others = inventory(load_sweeps(), output)
    head = ("simulation", "preset", "runs", "stored", "missing", "stale")
    print(table([head, *rows]))
    for entry in others:
        note = entry.state if entry.state != "stored" else "stored, in no preset"
        print(f"{entry.path.name}: {note}")
    print(f"Results are in {output}.")


@app.command("figures")
def figures_command(output: Output = RESULTS) -> None:
    """Draw every figure whose results are stored; exit status 1 if some are not."""
    drawn = _draw(output)
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
            help="Check each claim until so many verdicts had all conditions met and the "
            "measured quantity above 1e-8 of its scale."
        ),
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option(help="Check only this claim; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the instances.")] = 0,
    workers: Workers = None,
) -> None:
    """Compare the two numbers of every claim; exit status 1 if a claim is violated.

    Instances are checked in chunks that are stored below the output folder:
    a long run that was stopped continues. The table is written there as CSV
    and Markdown, too, with its provenance.
    """
    if instances is None:
        instances = 10 if resolved is None else 10 * resolved
    raise typer.Exit(
        _verify(
            output,
            instances=instances,
            seed=seed,
            workers=workers,
            resolved=resolved,
            chosen=claim,
        )
    )


@app.command("tightness")
def tightness_command(
    claim: Annotated[str, typer.Argument(help="Id of a bound, such as 'C4'.")],
    evaluations: Annotated[int, typer.Option(help="Instances to try.")] = 20_000,
    minutes: Annotated[float, typer.Option(help="Time to try them in.")] = 10.0,
    factored: Annotated[bool, typer.Option(help="Use factored kernels.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder of the instance found.")] = WORST,
) -> None:
    """Search for the instance on which a bound is tightest, and store it."""
    from linattn._threads import one_blas_thread
    from linattn.claims import get_claim
    from linattn.claims.adversary import search
    from linattn.claims.worst import write_found

    with one_blas_thread():
        found = search(
            get_claim(claim),
            evaluations=evaluations,
            seconds=60.0 * minutes,
            factored=factored,
            seed=seed,
        )
    print(found)
    print(write_found(output, found))


@app.command("reproduce")
def reproduce_command(
    preset: Preset = "quick",
    workers: Workers = None,
    output: Output = RESULTS,
    force: Force = False,
) -> None:
    """Run every simulation, draw every figure, verify every claim."""
    from linattn.experiments.catalog import load_sweeps

    began = perf_counter()
    sweeps = load_sweeps()
    _timed(
        "simulations",
        lambda: _simulate(
            sweeps, preset=preset, sets=None, workers=workers, output=output, force=force
        ),
    )
    drawn = _timed("figures", lambda: _draw(output))
    count = INSTANCES.get(preset, INSTANCES["quick"])
    code = _timed("claims", lambda: _verify(output, instances=count, workers=workers))
    print(f"all: {perf_counter() - began:.1f} s")
    for path in drawn.made:
        print(path)
    print(f"Results are in {output}, figures in {output / 'figures'}.")
    raise typer.Exit(code or int(bool(drawn.lacking)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: expected errors become one sentence and exit status 2.

    With LINATTN_DEBUG set in the environment the traceback is shown instead.
    """
    _guarded(app, arguments)


def simulation_main(sweep: Sweep, arguments: Sequence[str] | None = None) -> None:
    """Entry point of a simulation script: run its sweep."""
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @script.command(help=f"Run the simulation {sweep.name}.")
    def run(
        preset: Preset = "quick",
        set_: Sets = None,
        workers: Workers = None,
        output: Output = RESULTS,
        force: Force = False,
    ) -> None:
        _simulate([sweep], preset=preset, sets=set_, workers=workers, output=output, force=force)

    _guarded(script, arguments)


def table(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as aligned columns, the first row as a heading."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _simulate(
    sweeps: Sequence[Sweep],
    *,
    preset: str,
    sets: Sequence[str] | None,
    workers: int | None,
    output: Path,
    force: bool,
) -> None:
    """Run sweeps and say what happened; ends the command if not all runs are stored."""
    from linattn.experiments.stages import simulate

    overrides = dict(parse_override(text) for text in sets or ())
    report = simulate(
        sweeps, preset=preset, output=output, overrides=overrides, workers=workers, force=force
    )
    for sentence in report.damaged:
        print(sentence, file=sys.stderr)
    for failure in report.failures:
        print(failure.sentence, file=sys.stderr)
        if failure.trace and _debugging():
            print(failure.trace, file=sys.stderr)
    print(report)
    if report.interrupted:
        raise typer.Exit(130)
    if not report.complete:
        raise typer.Exit(1)


def _draw(output: Path) -> Drawn:
    from linattn.experiments.stages import draw

    drawn = draw(output)
    for name, text in drawn.summaries:
        print(f"{name}\n" + "\n".join(f"  {line}" for line in text.splitlines()))
    for sentence in drawn.lacking:
        print(sentence, file=sys.stderr)
    return drawn


def _verify(
    output: Path,
    *,
    instances: int,
    seed: int = 0,
    workers: int | None = None,
    resolved: int | None = None,
    chosen: Sequence[str] | None = None,
) -> int:
    """Print the table of claims; return the exit status."""
    from linattn.experiments.stages import Row, verify

    def observe(done: int, claims: list[str]) -> None:
        of = f"of {instances}" if resolved is None else f"(at most {instances})"
        left = "" if resolved is None else f", {len(claims)} claims not done"
        print(f"checked {done} {of} instances{left}", file=sys.stderr, flush=True)

    verified = verify(
        output,
        instances=instances,
        seed=seed,
        workers=workers,
        resolved=resolved,
        chosen=chosen,
        observe=observe if instances > QUIET_INSTANCES else None,
    )
    print(table([Row._fields, *verified.rows]))
    if verified.violated:
        print(f"violated: {', '.join(verified.violated)}", file=sys.stderr)
    return int(bool(verified.violated))


def _timed(stage: str, action: Callable[[], T]) -> T:
    began = perf_counter()
    result = action()
    print(f"{stage}: {perf_counter() - began:.1f} s", flush=True)
    return result


def _guarded(command: typer.Typer, arguments: Sequence[str] | None) -> None:
    try:
        command(args=None if arguments is None else list(arguments))
    except (ValueError, OSError, RuntimeError) as error:
        if _debugging():
            raise
        print(f"linattn: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _debugging() -> bool:
    return bool(os.environ.get("LINATTN_DEBUG"))
