"""Campaign: kills, full disks, races, damaged files, random specs, calls with bad arguments.

Everything is drawn from a seed. What must hold: nothing that was stored is lost, nothing wrong is
believed, and what cannot be done is said in one sentence. Exit status 1 if anything else happened.

    python scripts/campaign.py --share 0.01
    python scripts/campaign.py --record docs/record/campaign

Needs a platform with `os.fork`.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

# Bytes of results name the threads, and a forked child has none of its parent's.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hostile import Tally, calls, files, processes, specs

from linattn.experiments.provenance import provenance

Part = Callable[[int, int, Path], Tally]
PARTS: dict[str, tuple[Part, int]] = {
    "kills": (processes.kills, 1000),
    "commands": (processes.commands, 8),
    "races": (processes.races, 30),
    "full disk": (processes.full_disk, 300),
    "files": (files.run, 5000),
    "specs": (specs.run, 5000),
    "calls": (calls.run, 2000),
}
"""What is done, and how often in a full campaign."""


def campaign(seed: int, share: float, names: Sequence[str]) -> list[dict[str, Any]]:
    """Run some parts, each a share of its full size."""
    found = []
    for name in names:
        part, size = PARTS[name]
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as place:
            tally = part(seed, max(1, round(share * size)), Path(place))
        seconds = time.perf_counter() - began
        counts = dict(sorted(tally.counts.items()))
        found.append({"part": name, "asked": max(1, round(share * size)), "counts": counts,
                      "faults": tally.faults, "seconds": round(seconds, 1)})  # fmt: skip
        print(f"{name}: {counts}, {len(tally.faults)} faults, {seconds:.0f} s", flush=True)
        for fault in tally.faults:
            print(f"  {fault}", flush=True)
    return found


def record(folder: Path, seed: int, found: Sequence[dict[str, Any]]) -> None:
    """Write what was done, with its seed and versions; parts of that seed that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "campaign.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if before.get("seed") == seed:
        parts = {part["part"]: part for part in [*before["parts"], *found]}
        found = [parts[name] for name in PARTS if name in parts]
    text = json.dumps({"seed": seed, "provenance": provenance(), "parts": found}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    rows = ["| part | asked | what happened | faults |", "|---|---|---|---|"]
    for part in found:
        counts = ", ".join(f"{name} {number:,}" for name, number in part["counts"].items())
        rows.append(f"| {part['part']} | {part['asked']:,} | {counts} | {len(part['faults'])} |")
    (folder / "campaign.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of a full campaign")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; may be repeated")
    parser.add_argument("--record", type=Path, help="folder for campaign.json and campaign.md")
    options = parser.parse_args(arguments)
    found = campaign(options.seed, options.share, options.only or list(PARTS))
    if options.record:
        record(options.record, options.seed, found)
    return int(any(part["faults"] for part in found))


if __name__ == "__main__":
    sys.exit(main())
