"""Claims on many random instances, in chunks that are stored: a long run continues."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from linattn.experiments.files import open_folder, write_atomically
from linattn.experiments.pool import single_threaded

if TYPE_CHECKING:
    from linattn.claims import Claim, Verdict
    from linattn.claims.tally import Tally

FOLDER = "verify"
CHUNK = 50
WAVE = 10
"""Chunks between two decisions which claims need no more instances."""
COLUMNS = (
    "claim", "kind", "provenance", "status", "instances", "holds", "resolved", "refused",
    "violated", "tightness_min", "tightness_median", "tightness_max", "measured", "bound",
    "budget", "statement", "source", "assumptions", "conditions", "constants",
)  # fmt: skip
SHOWN = (*COLUMNS[:3], "instances", "holds", "resolved", "refused", "violated", *COLUMNS[9:12])


class Chunk(NamedTuple):
    """Instances start..stop of a seed."""

    start: int
    stop: int

    @property
    def name(self) -> str:
        """File of its tallies."""
        return f"{self.start:06d}-{self.stop:06d}.json"

    def split(self, pieces: int) -> list[Chunk]:
        """Parts of nearly the same size, none empty."""
        size = self.stop - self.start
        count = min(pieces, size)
        ends = [self.start + size * k // count for k in range(count + 1)]
        return [Chunk(a, b) for a, b in itertools.pairwise(ends)]


def checked(
    output: Path,
    *,
    instances: int,
    seed: int,
    workers: int,
    resolved: int | None = None,
    chosen: Sequence[str] | None = None,
    observe: Callable[[int, list[str]], None] | None = None,
) -> list[Tally]:
    """Return the tally of every claim on instances 0..instances of a seed.

    What is stored below ``output/verify`` for the same source code is not checked again; chunks are
    stored as they are done.

    Parameters
    ----------
    output : Path
    instances, seed, workers : int
    resolved : int, optional
        Check a claim no further once so many of its verdicts were resolved (`Tally.resolved`); then
        `instances` is the most that are drawn. Without it claims are checked on their share.
    chosen : sequence of str, optional
        Ids of the claims to check; default all.
    observe : callable (number of instances done, ids of the claims being checked), optional

    Raises
    ------
    ValueError
        If there is no such claim.

    Notes
    -----
    Source: none; a service. Cost: about half a second per instance and processor.
    """
    from linattn.claims.table import claims, get_claim
    from linattn.claims.tally import merged

    table = claims() if chosen is None else [get_claim(name) for name in dict.fromkeys(chosen)]
    kind = "" if resolved is None else f"-until{resolved}"
    folder = open_folder(output / FOLDER / f"seed{seed}-{_fingerprint(table)}{kind}")
    wave = instances if resolved is None else CHUNK * min(WAVE, -(-resolved // CHUNK))
    tallies = {claim.id: merged(claim, []) for claim in table}
    for start in range(0, instances, wave):
        # Decided between waves, so that neither the number of workers nor a restart matters.
        short = [c for c in table if resolved is None or tallies[c.id].resolved < resolved]
        if not short:
            break
        work = _Work([c.id for c in short], seed, shares=resolved is None)
        ends = range(start, min(start + wave, instances), CHUNK)
        chunks = [Chunk(k, min(k + CHUNK, start + wave, instances)) for k in ends]
        parts = _stored_or_computed(folder, chunks, work, workers, observe)
        for claim in short:
            held = [tallies[claim.id], *(part[claim.id] for part in parts)]
            tallies[claim.id] = merged(claim, held)
    return list(tallies.values())


class _Work(NamedTuple):
    """What to do with a chunk: which claims, on the instances of which seed."""

    names: list[str]
    seed: int
    shares: bool


def _stored_or_computed(
    folder: Path,
    chunks: Sequence[Chunk],
    work: _Work,
    workers: int,
    observe: Callable[[int, list[str]], None] | None,
) -> list[dict[str, Tally]]:
    """The tallies of every chunk, in order."""
    parts = {chunk: _load(folder / chunk.name, work.names) for chunk in chunks}
    missing = [chunk for chunk, held in parts.items() if held is None]
    done = chunks[-1].stop - sum(c.stop - c.start for c in missing)
    for chunk, tallies in _computed(missing, work, workers=workers):
        _save(folder / chunk.name, tallies)
        parts[chunk] = tallies
        done += chunk.stop - chunk.start
        if observe is not None:
            observe(done, work.names)
    return [part for part in parts.values() if part is not None]


def tally_chunk(work: _Work, chunk: Chunk) -> dict[str, Tally]:
    """Check some claims on the instances of a chunk, in a worker process.

    Where shares count, a claim with share s is checked on every (1/s)-th instance.
    """
    from linattn.claims.instances import random_instance
    from linattn.claims.table import check_all, get_claim
    from linattn.claims.tally import tally

    listed = [get_claim(name) for name in work.names]
    every = {c.id: max(1, round(1.0 / c.share)) if work.shares else 1 for c in listed}
    verdicts: dict[str, list[Verdict]] = {name: [] for name in work.names}
    for k in range(*chunk):
        due = [claim for claim in listed if k % every[claim.id] == 0]
        for verdict in check_all(due, random_instance(work.seed, k)):
            verdicts[verdict.claim].append(verdict)
    return {name: tally(name, found) for name, found in verdicts.items()}


def _computed(
    chunks: Sequence[Chunk], work: _Work, *, workers: int
) -> Iterator[tuple[Chunk, dict[str, Tally]]]:
    """Every chunk with its tallies as it is done; few chunks are split among the workers."""
    if not chunks:
        return
    pieces = -(-2 * workers // len(chunks))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        futures: dict[Future[dict[str, Tally]], tuple[Chunk, int]] = {}
        with single_threaded():  # submitting starts the processes
            for chunk in chunks:
                for k, piece in enumerate(chunk.split(pieces)):
                    futures[executor.submit(tally_chunk, work, piece)] = chunk, k
        try:
            yield from _gathered(futures)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _gathered(
    futures: dict[Future[dict[str, Tally]], tuple[Chunk, int]],
) -> Iterator[tuple[Chunk, dict[str, Tally]]]:
    from linattn.claims.table import get_claim
    from linattn.claims.tally import merged

    total = Counter(chunk for chunk, _ in futures.values())
    waiting: dict[Chunk, dict[int, dict[str, Tally]]] = {chunk: {} for chunk in total}
    for future in as_completed(futures):
        chunk, k = futures[future]
        waiting[chunk][k] = future.result()
        if len(waiting[chunk]) == total[chunk]:
            parts = [part for _, part in sorted(waiting.pop(chunk).items())]
            yield chunk, {n: merged(get_claim(n), [p[n] for p in parts]) for n in parts[0]}


def _fingerprint(table: Sequence[Claim]) -> str:
    """Of the source, the claims and the numerical libraries: whatever changes verdicts."""
    names = " ".join(claim.id for claim in table)
    return hashlib.sha256(f"{source_digest()} {names}".encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Return the SHA-256 of the source that verdicts depend on, and of the numerical libraries."""
    package = Path(__file__).parents[1]
    rooms = ("experiments", "report", "deep", "cli.py")
    text = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in rooms:
            text.update(path.read_bytes())
    for name in ("numpy", "scipy", "numba"):
        text.update(version(name).encode())
    return text.hexdigest()


def _save(path: Path, tallies: dict[str, Tally]) -> None:
    from linattn.claims.tally import to_record

    records = [to_record(part) for part in tallies.values()]
    write_atomically(path, json.dumps(records, ensure_ascii=False, default=float).encode())


def _load(path: Path, names: Sequence[str]) -> dict[str, Tally] | None:
    """The tallies of a stored chunk; None if there is none, or not of all these claims."""
    from linattn.claims.tally import from_record

    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        parts = [from_record(record) for record in records]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    held = {part.claim: part for part in parts}
    return held if set(names) <= held.keys() else None


def write_tables(
    output: Path, tallies: Sequence[Tally], origin: Mapping[str, object]
) -> list[Path]:
    """Write the claim table as CSV and Markdown below ``output/verify``; return the files.

    Parameters
    ----------
    output : Path
    tallies : sequence of Tally
    origin : mapping
        Where the numbers come from; written beside them as JSON.

    Notes
    -----
    Source: contract (certificates and verdicts). Cost: none.
    """
    from linattn.claims.table import get_claim

    folder = open_folder(output / FOLDER)
    rows = [_cells(get_claim(part.claim), part) for part in tallies]
    paths = [folder / "claims.csv", folder / "claims.md", folder / "provenance.json"]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(paths[0], text.getvalue().encode())
    lines = [SHOWN, ["---"] * len(SHOWN), *([row[c] for c in SHOWN] for row in rows)]
    table = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    write_atomically(paths[1], (table + "\n").encode())
    write_atomically(paths[2], (json.dumps(origin, indent=1, sort_keys=True) + "\n").encode())
    return paths


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
    spread = {f"tightness_{name}": f"{part.quantile(share):.4g}" for name, share in quantiles}
    return {
        "claim": claim.id,
        "kind": claim.kind,
        "provenance": claim.provenance,
        "status": part.status,
        "instances": part.total,
        **{name: part.counts[name] for name in ("holds", "refused", "violated")},
        "resolved": part.resolved,
        **spread,
        **numbers,
        "statement": claim.statement,
        "source": claim.source,
        "assumptions": "; ".join(claim.assumptions),
    }
