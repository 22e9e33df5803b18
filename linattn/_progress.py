"""A word about what takes long, in calls that have no progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

PAUSE = 3.0
"""Seconds after which a stage that still runs is named."""


@contextmanager
def stage(words: str) -> Iterator[None]:
    """Name the stage on standard error if it runs for longer than `PAUSE`."""
    timer = Timer(PAUSE, lambda: print(f"{words} ...", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
