"""Fill in what the README takes from elsewhere: an answer, what pays, what sampling does, claims.

What stands between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` is made here, from the output of
the example and from ``docs/record``; a test compares it with what stands.

    python scripts/write_readme.py
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable

from kept import read_rows
from pages import RECORD, ROOT, tell
from response_findings import in_short as when_it_pays
from sampling_findings import in_short

import linattn as la

README = ROOT / "README.md"
HEADS = ("claim", "statement", "kind", "instances", "violated", "tightness")


def recorded() -> dict[str, dict[str, str]]:
    """Return the rows of every recorded table, by claim."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(RECORD.glob("*/claims.csv")):
        found.update((row["claim"], row) for row in read_rows(path))
    return found


def claims_part() -> str:
    """Return what the record says about every claim that is judged."""
    rows = recorded()
    judged = [claim for claim in la.claims() if claim.kind != "report" and claim.id in rows]
    ours = [claim for claim in judged if claim.provenance == "ours"]
    most = max(claim.record for claim in ours)
    many, few = ([c for c in ours if (c.record == most) is whole] for whole in (True, False))
    fewest, least = (min(int(rows[c.id]["resolved"]) for c in part) for part in (many, few))
    violated = sum(int(rows[claim.id]["violated"]) for claim in ours)
    lines = [
        f"{len(ours)} claims on random instances on which all conditions hold and there is "
        f"something to measure: {violated} violations. {len(many)} were checked on at least "
        f"{fewest:,} instances each, {len(few)} about whole runs or ensembles on at least "
        f"{least:,}. *Tightness* is the median of bound over measured, for lower bounds the "
        "inverse: 1 is attained.",
        "",
        *_table(_cells(claim, rows[claim.id]) for claim in ours),
        "",
        f"{len(judged) - len(ours)} published bounds that we could not compare with their papers "
        "are marked *recalled*, shown beside them and never judge.",
    ]
    return "\n".join(lines) + "\n"


def _cells(claim: la.Claim, row: dict[str, str]) -> list[str]:
    tightness = "" if claim.kind == "identity" else f"{float(row['tightness_median']):.3g}"
    statement = claim.statement.replace("|", "\\|")
    counts = [f"{int(row['resolved']):,}", row["violated"]]
    return [claim.id, statement, claim.kind, *counts, tightness]


def _table(rows: Iterable[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (HEADS, ["---"] * len(HEADS), *rows)]


def example_part(text: str) -> str:
    """Return what the first Python block of a page prints."""
    block = re.search(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert block is not None
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block.group(1), "README.md", "exec"), {})
    return f"```text\n{out.getvalue()}```\n"


def parts() -> dict[str, str]:
    """Return every part of the README, made anew."""
    example = example_part(README.read_text(encoding="utf-8"))
    pays, sampling = when_it_pays() + "\n", in_short()
    return {"example": example, "pays": pays, "sampling": sampling, "claims": claims_part()}


if __name__ == "__main__":
    for name, part in parts().items():
        tell(name, part, README)
