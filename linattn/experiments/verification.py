"""Claims on many random instances, in chunks that are stored: a long run continues."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from linattn.experiments.files import open_folder, write_atomically
from linattn.experiments.pool import single_threaded

if TYPE_CHECKING:
    from linattn.claims import Claim
    from linattn.claims.tally import Tally

FOLDER = "verify"
CHUNK = 50
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


def checked(
    output: Path,
    *,
    instances: int,
    seed: int,
    workers: int,
    observe: Callable[[int], None] | None = None,
) -> list[Tally]:
    """Return the tally of every claim on instances 0..instances of a seed.

    What is stored below ``output/verify`` for the same source code is not checked again; chunks are
    stored as they are done.

    Parameters
    ----------
    output : Path
    instances, seed, workers : int
    observe : callable (number of instances done), optional

    Notes
    -----
    Source: none; a service. Cost: about a tenth of a second per instance and processor.
    """
    from linattn.claims.table import claims
    from linattn.claims.tally import merged

    table = claims()
    folder = open_folder(output / FOLDER / f"seed{seed}-{_fingerprint(table)}")
    chunks = [Chunk(k, min(k + CHUNK, instances)) for k in range(0, instances, CHUNK)]
    parts = {chunk: _load(folder / chunk.name) for chunk in chunks}
    missing = [chunk for chunk, held in parts.items() if held is None]
    done = instances - sum(c.stop - c.start for c in missing)
    for chunk, tallies in _computed(missing, [c.id for c in table], seed=seed, workers=workers):
        _save(folder / chunk.name, tallies)
        parts[chunk] = tallies
        done += chunk.stop - chunk.start
        if observe is not None:
            observe(done)
    held = [part for part in parts.values() if part is not None]
    return [merged(claim, [part[claim.id] for part in held]) for claim in table]


def tally_chunk(names: Sequence[str], chunk: Chunk, seed: int) -> dict[str, Tally]:
    """Check some claims on the instances of a chunk, in a worker process.

    A claim with share s is checked on every (1/s)-th instance.
    """
    from linattn.claims.instances import random_instance
    from linattn.claims.table import check_instance, get_claim
    from linattn.claims.tally import tally

    drawn = {k: random_instance(seed, k) for k in range(*chunk)}
    found = {}
    for name in names:
        claim = get_claim(name)
        every = max(1, round(1.0 / claim.share))
        verdicts = [check_instance(claim, x) for k, x in drawn.items() if k % every == 0]
        found[name] = tally(name, verdicts)
    return found


def _computed(
    chunks: Sequence[Chunk], names: Sequence[str], *, seed: int, workers: int
) -> Iterator[tuple[Chunk, dict[str, Tally]]]:
    """Every chunk with its tallies as it is done; few chunks are split by claims."""
    if not chunks:
        return
    groups = min(len(names), -(-2 * workers // len(chunks)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        futures: dict[Future[dict[str, Tally]], Chunk] = {}
        with single_threaded():  # submitting starts the processes
            for chunk in chunks:
                for k in range(groups):
                    part = executor.submit(tally_chunk, names[k::groups], chunk, seed)
                    futures[part] = chunk
        try:
            yield from _gathered(futures, groups)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _gathered(
    futures: dict[Future[dict[str, Tally]], Chunk], groups: int
) -> Iterator[tuple[Chunk, dict[str, Tally]]]:
    waiting: dict[Chunk, list[dict[str, Tally]]] = {chunk: [] for chunk in futures.values()}
    for future in as_completed(futures):
        chunk = futures[future]
        waiting[chunk].append(future.result())
        if len(waiting[chunk]) == groups:
            yield chunk, {name: t for part in waiting.pop(chunk) for name, t in part.items()}


def _fingerprint(table: Sequence[Claim]) -> str:
    """Of the source, the claims and the numerical libraries: whatever changes verdicts."""
    names = " ".join(claim.id for claim in table)
    return hashlib.sha256(f"{_source_digest()} {names}".encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def _source_digest() -> str:
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


def _load(path: Path) -> dict[str, Tally] | None:
    """The tallies of a stored chunk; None if there is none or it is damaged."""
    from linattn.claims.tally import from_record

    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        parts = [from_record(record) for record in records]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return {part.claim: part for part in parts}


def write_tables(output: Path, tallies: Sequence[Tally]) -> list[Path]:
    """Write the claim table as CSV and Markdown below ``output/verify``; return the files.

    Notes
    -----
    Source: contract (certificates and verdicts). Cost: none.
    """
    from linattn.claims.table import get_claim

    folder = open_folder(output / FOLDER)
    rows = [_cells(get_claim(part.claim), part) for part in tallies]
    paths = [folder / "claims.csv", folder / "claims.md"]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(paths[0], text.getvalue().encode())
    lines = [SHOWN, ["---"] * len(SHOWN), *([row[c] for c in SHOWN] for row in rows)]
    table = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    write_atomically(paths[1], (table + "\n").encode())
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
