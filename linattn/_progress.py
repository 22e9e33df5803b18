"""Words on the standard streams, which never end a command: what is computed goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any, TextIO

PAUSE = 3.0
"""Seconds after which a stage that still runs is named."""


@contextmanager
def stage(words: str) -> Iterator[None]:
    """Name the stage on standard error if it runs for longer than `PAUSE`."""
    timer = Timer(PAUSE, lambda: say(f"{words} ..."))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def steady_streams() -> None:
    """Let what is printed always be printable.

    A stream that was closed before the start, as of a daemon, becomes one that keeps nothing; a
    letter that the encoding of a stream lacks becomes its escape, as ``\\u03c1`` for ρ.
    """
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print a line of progress or of an error on standard error, if that can be."""
    with suppress(OSError, ValueError):  # full, broken or closed
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at a stream as it is written."""
    with suppress(ValueError):  # closed
        return stream is not None and stream.isatty()
    return False
