"""A file that is there whole or as it was before, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from linattn._checks import shown


def as_path(value: Any) -> Path:
    """Return the path of a file that a user named.

    Raises
    ------
    TypeError
        If it is no path.
    ValueError
        If it cannot name a file.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"path must be a path, got {type(value).__name__} {shown(value)}.")
    path = Path(value)
    if not path.name or "\0" in path.name:
        raise ValueError(f"path must name a file, got {shown(str(value))}.")
    return path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file: temporary name in the same folder, fsync, rename, fsync of the folder.

    Raises
    ------
    OSError
        If it cannot be written; a file of that name stays as it was. What is no file, as a device
        or a pipe, is never replaced by one.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "what is there is not a file")
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # not made yet, or not ours to remove
            temporary.unlink()
        raise
    _sync(path.parent)


def save_file(path: Path, content: bytes) -> None:
    """Write a file that a user named.

    Raises
    ------
    OSError
        As `replace_file`, in one sentence.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        raise type(error)(
            f"path must be a file that can be written, but {path} cannot "
            f"({error.strerror or error}); what was there is unharmed."
        ) from error


def temporary_name(path: Path) -> Path:
    """Return a name no other process or call uses, and no reader takes for a result."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _sync(folder: Path) -> None:
    """Make a rename survive a power cut, where folders can be synced (not on Windows)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
