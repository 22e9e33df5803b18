"""Parts of the campaign: what goes wrong outside of the library, on purpose and by seed."""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import linattn as la

PACKAGE = str(Path(la.__file__).parent)


class Tally(NamedTuple):
    """What a part of the campaign did: how much of what, and one line for every fault."""

    part: str
    counts: Counter[str]
    faults: list[str]


def is_sentence(error: BaseException) -> bool:
    """Whether a person of this package wrote the message: one line, a full stop, our own raise."""
    text = str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    ended = text.endswith(".") or isinstance(error, FloatingPointError)
    return "\n" not in text and ended and last.filename.startswith(PACKAGE)


def described(error: BaseException) -> str:
    """The kind of an error and where it came from."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(PACKAGE)]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "the call"
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:120]}"
