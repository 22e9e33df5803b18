"""Methods x settings x theorems: no verdict where a theorem does not speak or nothing was measured.

Draws random instances, gives most of them another method, minibatches, sampling or a step far from
any reasonable one, and checks every claim on each. A verdict *holds* or *violated* must come with
all its needs and conditions met and two finite numbers, of which what was measured is beyond the
rounding budget; none of ours may be violated. Writes the counts of every claim and of every method.

    python scripts/guard_settings.py --output docs/record/guards

Exit status 1 if a verdict should not be there. Claims that take long are checked on their share.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from kept import write_rows

import linattn as la
from linattn.analysis.applicable import unmet_needs
from linattn.claims import Claim, Instance, Verdict
from linattn.claims.instances import random_instance, suited
from linattn.claims.judge import STATUSES
from linattn.claims.record import UNJUDGED, shared_runs
from linattn.claims.table import check_instance
from linattn.experiments.provenance import provenance
from linattn.federated.method import Method
from linattn.streams import stream

Make = Callable[[np.random.Generator, Instance], Method | None]
METHODS: dict[str, Make] = {
    "FedAvg": lambda draw, at: None,
    "FedProx": lambda draw, at: la.fed_prox(prox=float(draw.uniform(0.1, 3.0)) / at.local_lr),
    "MOON": lambda draw, at: la.moon(weight=float(10.0 ** draw.uniform(-1, 3))),
    "SCAFFOLD": lambda draw, at: la.scaffold(),
    "momentum": lambda draw, at: la.fed_avg(server_momentum=float(draw.uniform(0.1, 0.9))),
    "server step": lambda draw, at: la.fed_avg(server_lr=float(draw.uniform(0.3, 1.5))),
    "FedAdam": lambda draw, at: la.fed_adam(server_lr=float(draw.uniform(0.01, 0.5))),
    "FedYogi": lambda draw, at: la.fed_yogi(server_lr=float(draw.uniform(0.01, 0.5))),
    "FedNova": lambda draw, at: la.fed_nova(),
    "FedPart": lambda draw, at: la.fed_part(
        groups="block", initial_rounds=int(draw.integers(0, 2)), rounds_per_group=1
    ),
    "FedFrozen": lambda draw, at: la.fed_frozen(warmup_rounds=int(draw.integers(0, at.rounds + 1))),
    "local attention": lambda draw, at: la.local_attention(
        blocks=[name for name in at.params.layout.names if name != "value"]
    ),
    "fine-tuning": lambda draw, at: la.fine_tuned(steps=2),
}
EXTREME = 0.2
"""Share of the settings whose step is moved by up to 18 orders of magnitude."""


def random_setting(seed: int, index: int) -> tuple[str, Instance]:
    """Return the name of a method and a random instance with it."""
    draw = stream(seed, "guards", index)
    at = random_instance(seed, index)
    at = at._replace(local_steps=min(12, at.local_steps))
    if draw.random() < EXTREME:
        at = at._replace(local_lr=at.local_lr * float(10.0 ** draw.uniform(-18.0, 6.0)))
    name = str(draw.choice(list(METHODS)))
    return name, at._replace(method=METHODS[name](draw, at))


def faults(claim: Claim, found: Verdict, at: Instance) -> list[str]:
    """What is wrong with a verdict; nothing where it is no judgement."""
    if found.status not in ("holds", "violated"):
        return []
    size = abs(found.measured)
    if claim.kind == "identity":
        size = max(size, abs(found.bound))
    listed = [
        ("a judgement of an unjudged kind", claim.kind in UNJUDGED),
        ("a need is unmet", bool(unmet_needs(claim.needs, at))),
        ("a condition is unmet", not all(condition.met for condition in found.conditions)),
        ("not finite", not np.isfinite([found.measured, found.bound, found.scale]).all()),
        ("nothing was measured", found.status == "holds" and size <= found.budget * found.scale),
        ("violated", found.status == "violated" and claim.provenance != "recalled"),
    ]
    return [words for words, wrong in listed if wrong]


def checked(claim: Claim, index: int) -> bool:
    """Whether a claim is checked in a setting: always, or on its share of them."""
    return index % max(1, round(1.0 / claim.share)) == 0


class Counts:
    """Verdicts by claim and by method, and those that should not be there."""

    def __init__(self) -> None:
        self.claims: dict[str, Counter[str]] = {claim.id: Counter() for claim in la.claims()}
        self.methods: dict[str, Counter[str]] = {name: Counter() for name in METHODS}
        self.wrong: list[str] = []

    def add(self, name: str, claim: Claim, found: Verdict, at: Instance) -> None:
        """Count a verdict of a claim under a method."""
        self.claims[claim.id][found.status] += 1
        self.methods[name][found.status] += 1
        self.wrong += [f"{words}: {found!r} under {name}" for words in faults(claim, found, at)]


def run(count: int, seed: int) -> Counts:
    """Check every claim in `count` settings."""
    counts = Counts()
    for index in range(count):
        name, at = random_setting(seed, index)
        with shared_runs():
            for claim in la.claims():
                if checked(claim, index):
                    own = at if claim.suit is None else suited(at, claim)
                    counts.add(name, claim, check_instance(claim, own), own)
        if (index + 1) % 10 == 0:
            print(f"{index + 1}/{count} settings, {len(counts.wrong)} wrong", flush=True)
    return counts


def write(folder: Path, rows: dict[str, Counter[str]], first: str) -> None:
    """Write one table of counts."""
    counts = ({first: k} | {status: row[status] for status in STATUSES} for k, row in rows.items())
    write_rows(folder / f"by_{first}.csv", counts, digits=8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, write the record, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    began = time.time()
    counts = run(given.settings, given.seed)
    total: Counter[str] = sum(counts.claims.values(), Counter())
    summary = {
        "settings": given.settings,
        "seed": given.seed,
        "verdicts": sum(total.values()),
        **{status: total[status] for status in STATUSES},
        "wrong": len(counts.wrong),
        "versions": provenance()["versions"],
    }
    given.output.mkdir(parents=True, exist_ok=True)
    write(given.output, counts.claims, "claim")
    write(given.output, counts.methods, "method")
    text = json.dumps(summary, indent=1)
    (given.output / "summary.json").write_text(text + "\n", encoding="utf-8")
    print("\n".join([*counts.wrong, text]), f"{time.time() - began:.0f} s")
    return 1 if counts.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
