"""Parts of the campaign: what goes wrong outside of the library, on purpose and by seed."""

from __future__ import annotations

from typing import NamedTuple


class Tally(NamedTuple):
    """What a part of the campaign did: how much of what, and one line for every fault."""

    part: str
    counts: dict[str, int]
    faults: list[str]
