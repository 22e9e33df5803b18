"""Pages as what they promise: blocks of code in order, and the output that stands beside them."""

import re
from typing import NamedTuple

from processes import ROOT

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
ROUNDING = 1e-15


class Block(NamedTuple):
    """A fenced block: its language, what follows it on that line, its text."""

    language: str
    argument: str
    text: str


def pages() -> list[str]:
    """Every page with code, by its path in the repository."""
    every = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    kept = [p for p in every if not {"record", "reference"} & set(p.relative_to(ROOT).parts)]
    return sorted(path.relative_to(ROOT).as_posix() for path in kept)


def blocks(page: str) -> list[Block]:
    """The blocks of a page in order; directives of the site are left out."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for head, body in FENCE.findall(text):
        language, _, argument = head.partition(" ")
        if not language.startswith("{"):
            found.append(Block(language, argument, body))
    return found


def same_output(shown: str, got: str) -> bool:
    """Whether an output is the one of the page: words equal, numbers to a thousandth."""
    if NUMBER.sub("#", " ".join(shown.split())) != NUMBER.sub("#", " ".join(got.split())):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(got), strict=True)
    return all(_close(float(one), float(two)) for one, two in pairs)


def _close(one: float, two: float) -> bool:
    return abs(one - two) <= 1e-3 * abs(one) or max(abs(one), abs(two)) < ROUNDING
