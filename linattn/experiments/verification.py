"""Claims over many instances: which runs of the simulation ``claims`` to ask for, and the tallies.

Drivers only choose tasks and read results; what is computed, stored and stale is the engine's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from linattn._checks import positive_int, real
from linattn._progress import say
from linattn.experiments.engine import Report, compute_tasks, task_state
from linattn.experiments.files import csv_bytes, file_sha, open_folder, write_atomically
from linattn.experiments.find import find_script, load_module, load_simulation
from linattn.experiments.own import own_file, pinned
from linattn.experiments.progress import reporter
from linattn.experiments.provenance import provenance
from linattn.experiments.simulation import Task
from linattn.experiments.store import read_result

if TYPE_CHECKING:
    from linattn.claims import Claim
    from linattn.claims.tally import Tally
    from linattn.claims.worst import Found

FOLDER = "verify"
CHUNK = 50
MOST = 10_000_000
"""Instances of a claim: their chunks are listed before the first is checked."""
WAVE = 10
"""Chunks between two decisions which claims need no more instances."""
COLUMNS = (
    "claim", "kind", "provenance", "status", "instances", "holds", "resolved", "refused",
    "not applicable", "vacuous", "violated", "tightness_min", "tightness_median", "tightness_max",
    "measured", "bound", "budget", "statement", "source", "assumptions", "conditions", "constants",
    "file",
)  # fmt: skip
SHOWN = (*COLUMNS[:3], "instances", "holds", "resolved", "refused", "violated", *COLUMNS[11:14])


class Family(NamedTuple):
    """Claims of one file that are checked together.

    Attributes
    ----------
    claims : tuple of str
    source : str
        SHA-256 of the file.
    share : float
        Share of the instances to check them on.
    own : str
        The file, pinned, where it is the user's own.
    """

    claims: tuple[str, ...]
    source: str
    share: float
    own: str = ""


def families(chosen: Sequence[str] | None = None, *, own: str | Path = "") -> list[Family]:
    """Return the claims of every file, those that take long apart.

    Parameters
    ----------
    chosen : sequence of str, optional
        Ids; default all.
    own : path, optional
        A file of claims of the user's own, instead of the package's.

    Raises
    ------
    ValueError
        If there is no such claim.
    """
    from linattn.claims.table import families as by_file
    from linattn.claims.table import get_claim

    held = by_file() if not own else {Path(own): load_claims(Path(own))}
    known = [claim.id for family in held.values() for claim in family]
    for name in chosen or ():
        if name not in known:
            if not own:
                get_claim(name)  # says which there are
            raise ValueError(f"claim must be one of {', '.join(known)} of {own}, got {name!r}.")
    found = []
    for path, family in held.items():
        shares = sorted({claim.share for claim in family}, reverse=True)
        for share in shares:
            names = tuple(c.id for c in family if c.share == share and c.id in (chosen or known))
            if names:
                pin = pinned("own", str(path)) if own else ""
                found.append(Family(names, file_sha(path), share, pin))
    return found


def load_claims(path: Path) -> tuple[Claim, ...]:
    """Return the claims that a file declares.

    Raises
    ------
    ValueError
        If it cannot be imported, declares none, or two of one id.
    """
    from linattn.claims import Claim

    found = getattr(load_module(path), "CLAIMS", None)
    if not isinstance(found, tuple) or not all(isinstance(claim, Claim) for claim in found):
        raise ValueError(f"file must declare CLAIMS = (Claim(...), ...), but {path} does not.")
    repeated = [name for name, count in Counter(claim.id for claim in found).items() if count > 1]
    if repeated:
        raise ValueError(f"ids of CLAIMS must be distinct, but {path} repeats {repeated[0]!r}.")
    return found


def chosen_claims(names: Iterable[str], own: str = "") -> list[Claim]:
    """Return claims by their ids, from the table or from a pinned file."""
    from linattn.claims.table import get_claim

    if not own:
        return [get_claim(name) for name in names]
    held = {claim.id: claim for claim in load_claims(own_file(own)[0])}
    return [held[name] for name in names]


@cache
def _by_claim() -> dict[str, Family]:
    return {name: family for family in families() for name in family.claims}


def share_of(name: str) -> float:
    """Share of the instances on which a claim is checked; 1 for one that is not in the table."""
    family = _by_claim().get(name)
    return 1.0 if family is None else family.share


def source_of(name: str) -> str:
    """SHA-256 of the file that declares a claim."""
    return _by_claim()[name].source


def checked(
    output: Path,
    *,
    instances: int,
    seed: int = 0,
    workers: int | None = None,
    resolved: int | None = None,
    chosen: Sequence[str] | None = None,
    own: str | Path = "",
) -> tuple[list[Tally], Report]:
    """Return the tally of every claim on instances of a seed, and what the engine did.

    Parameters
    ----------
    output : Path
        The store.
    instances : int
        How many, those of slow claims times their share.
    seed, workers : int
    resolved : int, optional
        Check a claim no further once so many of its verdicts were resolved (`Tally.resolved`), or
        as many as its `Claim.record`; then `instances` is the most that are drawn of every claim,
        and decisions fall between waves, so that neither the number of workers nor a restart
        matters.
    chosen, own
        As in `families`.

    Raises
    ------
    ValueError
        If a number is not positive or too large, or there is no such claim.
    """
    from linattn.claims.tally import merged

    positive_int("instances", instances, maximum=MOST)
    if resolved is not None:
        positive_int("resolved", resolved, maximum=MOST)
    groups = families(chosen, own=own)
    table = {name: chosen_claims([name], g.own)[0] for g in groups for name in g.claims}
    parts: dict[str, list[Tally]] = {name: [] for name in table}
    reached = [0] * len(groups)
    whole = Report(output)
    while True:
        tasks: list[tuple[Family, Task]] = []
        for place, group in enumerate(groups):
            first, last = reached[place], max(1, round(group.share * instances))
            short = group
            if resolved is not None:
                missing = {n: _missing(table[n], parts[n], resolved) for n in group.claims}
                short = group._replace(claims=tuple(n for n in missing if missing[n] > 0))
                chunks = min(WAVE, -(-max(missing.values()) // CHUNK))
                last = min(instances, first + CHUNK * chunks)
            if short.claims and last > first:
                tasks += [(short, task) for task in _tasks(short, first, last, seed)]
                reached[place] = last
        if not tasks:
            break
        report = compute_tasks(
            [task for _, task in tasks], output, workers=workers, observe=reporter
        )
        whole = _added(whole, report)
        for group, task in tasks:
            if report.complete or task_state(output, task) == "stored":
                for part in _read(output / task.file, group.claims):
                    parts[part.claim].append(part)
        if not report.complete:
            break
        if resolved is not None:
            say(_how_far(table, parts, resolved))
    return [merged(table[name], found) for name, found in parts.items()], whole


def _how_far(
    table: Mapping[str, Claim], parts: Mapping[str, Sequence[Tally]], resolved: int
) -> str:
    """How many claims have their verdicts, and which lacks most."""
    missing = {name: _missing(claim, parts[name], resolved) for name, claim in table.items()}
    done = sum(count <= 0 for count in missing.values())
    last = max(missing, key=lambda name: missing[name])
    goal = min(resolved, table[last].record)
    lacking = f"; {last} has {goal - missing[last]:,} of {goal:,}" if missing[last] > 0 else ""
    return f"{done} of {len(table)} claims have all their verdicts{lacking}"


def _missing(claim: Claim, parts: Sequence[Tally], resolved: int) -> int:
    """How many verdicts a claim lacks."""
    return min(resolved, claim.record) - sum(part.resolved for part in parts)


def _tasks(family: Family, start: int, stop: int, seed: int) -> list[Task]:
    """Runs of the simulation ``claims`` for instances start..stop, in chunks."""
    simulation = load_simulation(find_script("claims"))
    return [
        simulation.task(
            simulation.spec(
                seed=seed,
                claims=family.claims,
                source=family.source,
                own=family.own,
                first=first,
                count=min(CHUNK, stop - first),
            )
        )
        for first in range(start, stop, CHUNK)
    ]


def _read(path: Path, names: Sequence[str]) -> list[Tally]:
    from linattn.claims.tally import from_record

    held = read_result(path).dataset
    records = dict(zip(held["claim"].values.tolist(), held["tally"].values.tolist(), strict=True))
    return [from_record(json.loads(records[name])) for name in names]


def _added(whole: Report, part: Report) -> Report:
    whole.total += part.total
    whole.reused += part.reused
    whole.computed += part.computed
    whole.failures += part.failures
    whole.damaged += part.damaged
    whole.interrupted |= part.interrupted
    whole.seconds += part.seconds
    return whole


def tightest(
    output: Path,
    name: str,
    *,
    evaluations: int,
    minutes: float,
    factored: bool = False,
    seed: int = 0,
    workers: int | None = None,
    own: str | Path = "",
) -> Found:
    """Search for the tightest instance of a bound until evaluations or minutes are used up.

    Every search is a stored run of the simulation ``tightest``, with a seed of its own, optimizers
    in turn; a stopped command goes on where it was, and loses no best.

    Raises
    ------
    ValueError
        If it is no bound, or nothing usable was found.
    """
    from linattn.claims.adversary import OPTIMIZERS, Part
    from linattn.claims.worst import joined

    positive_int("evaluations", evaluations)
    deadline = perf_counter() + 60.0 * real("minutes", minutes, above=0.0)
    (family,) = families([name], own=own)
    simulation = load_simulation(find_script("tightest"))
    size = simulation.spec().evaluations
    parts: dict[str, list[Part]] = {optimizer: [] for optimizer in OPTIMIZERS}
    count, turn = 0, seed
    while count < evaluations and (count == 0 or perf_counter() < deadline):
        tasks = {
            optimizer: simulation.task(
                simulation.spec(
                    seed=turn,
                    claim=name,
                    source=family.source,
                    own=family.own,
                    factored=factored,
                    optimizer=optimizer,
                    evaluations=min(size, evaluations),
                )
            )
            for optimizer in OPTIMIZERS
        }
        report = compute_tasks(tasks.values(), output, workers=workers)
        if report.failures:
            raise ValueError(report.failures[0].sentence)
        for optimizer, task in tasks.items():
            if (output / task.file).exists():
                parts[optimizer].append(_part(output / task.file))
                count += parts[optimizer][-1].evaluations
        if report.interrupted:
            break
        turn += 1
    return joined(name, factored, parts)


def judged(found: Found, own: str | Path = "") -> str:
    """Return how a claim stands on its tightest instance, see `standing`."""
    from linattn.claims.table import check_instance

    (family,) = families([found.claim], own=own)
    (claim,) = chosen_claims([found.claim], family.own)
    recalled = claim.provenance == "recalled" and not own
    return standing(check_instance(claim, found.instance).status, recalled=recalled)


def standing(status: str, *, recalled: bool) -> str:
    """Return a status in words: a recalled bound that is violated is no failure of ours."""
    return "recalled, violated" if recalled and status == "violated" else status


def _part(path: Path) -> Any:
    from linattn.claims.adversary import Part

    held = read_result(path).dataset
    numbers = float(held["value"]), bool(held["at_random"])
    return Part(held["vector"].values, *numbers, held["random"].values, int(held["evaluations"]))


def write_tables(
    folder: Path, tallies: Sequence[Tally], asked: Mapping[str, object], own: str | Path = ""
) -> list[Path]:
    """Write the claim table as CSV and Markdown, with its provenance as JSON; return the files.

    Parameters
    ----------
    folder : Path
    tallies : sequence of Tally
    asked : mapping
        What the run was asked for.
    own : path, optional
        The file that declares the claims, where it is the user's own.
    """
    target = open_folder(folder)
    sources = {name: family for family in families(own=own) for name in family.claims}
    table = {name: chosen_claims([name], family.own)[0] for name, family in sources.items()}
    rows = [_cells(table[part.claim], part) | {"file": sources[part.claim].source[:16]}
            for part in tallies]  # fmt: skip
    paths = [target / "claims.csv", target / "claims.md", target / "provenance.json"]
    write_atomically(paths[0], csv_bytes(COLUMNS, ([row[c] for c in COLUMNS] for row in rows)))
    lines = [SHOWN, ["---"] * len(SHOWN), *([row[c] for c in SHOWN] for row in rows)]
    page = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    write_atomically(paths[1], (page + "\n").encode())
    origin = dict(asked) | provenance() | {"library": library_digest()}
    write_atomically(paths[2], (json.dumps(origin, indent=1, sort_keys=True) + "\n").encode())
    return paths


@cache
def library_digest() -> str:
    """SHA-256 of the source below the claims: a record made with another one is listed as older."""
    import hashlib

    package = Path(__file__).parents[1]
    rooms = ("experiments", "report", "claims", "cli.py", "__main__.py")
    text = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in rooms:
            text.update(path.read_bytes())
    return text.hexdigest()


def _cells(claim: Claim, part: Tally) -> dict[str, str | int]:
    worst = part.worst
    numbers = {"measured": "", "bound": "", "budget": "", "conditions": "", "constants": ""}
    if worst is not None:
        numbers = {
            "measured": f"{worst.measured:.8g}",
            "bound": f"{worst.bound:.8g}",
            "budget": f"{worst.budget:g}",
            "conditions": "; ".join(f"{c.name}: slack {c.slack:.3g}" for c in worst.conditions),
            "constants": "; ".join(f"{c.name} = {c.value:.6g} ({c.how})" for c in worst.constants),
        }
    quantiles = zip(("min", "median", "max"), (0.0, 0.5, 1.0), strict=True)
    counted = ("holds", "refused", "not applicable", "vacuous", "violated")
    return {
        "claim": claim.id,
        "kind": claim.kind,
        "provenance": claim.provenance,
        "status": part.status,
        "instances": part.total,
        **{name: part.counts[name] for name in counted},
        "resolved": part.resolved,
        **{f"tightness_{name}": f"{part.quantile(share):.4g}" for name, share in quantiles},
        **numbers,
        "statement": claim.statement,
        "source": claim.source,
        "assumptions": "; ".join(claim.assumptions),
    }
