"""Files that are there whole or not at all, and folders that say when they cannot be written."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import time

from linattn._files import replace_file, temporary_name

_OLD = 24 * 3600.0


def open_folder(folder: str | os.PathLike[str]) -> Path:
    """Make the output folder if needed, and see that files can be written there.

    Leftovers of processes killed while writing are removed once they are a day old.

    Raises
    ------
    OSError
        If the folder cannot be made or written; nothing stored is touched.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = temporary_name(path / "probe")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise unwritable(path, error) from error
    _remove(path.glob(".*.tmp"), older_than=_OLD)
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file of the store, whole or not at all.

    Raises
    ------
    OSError
        If it cannot be written (full disk, no permission); a file of that name stays as it was.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        raise unwritable(path.parent, error) from error


def file_sha(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def csv_bytes(
    head: Iterable[str], rows: Iterable[Iterable[object]], digits: int | None = None
) -> bytes:
    """Return a table as CSV of the same bytes everywhere; floats exactly, or to so many digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(f"{v:.{digits}g}" if digits and isinstance(v, float) else v for v in row)
    return text.getvalue().encode()


def remove_temporary(folder: Path, pids: Iterable[int]) -> None:
    """Remove the half-written files of processes that were ended."""
    for pid in pids:
        _remove(folder.glob(f".*.{pid}.*.tmp"))


def unwritable(folder: Path, error: OSError) -> OSError:
    """Return the error of the same kind whose text is one sentence for the user."""
    reason = error.strerror or str(error)
    sentence = (
        f"output must be a folder with room for new files, but {folder} cannot be written "
        f"({reason}); what is stored is unharmed, choose another --output or make room."
    )
    return OSError(sentence)


def _remove(paths: Iterable[Path], *, older_than: float = -1.0) -> None:
    for path in paths:
        with suppress(OSError):  # gone already, or not ours to remove
            if time() - path.stat().st_mtime > older_than:
                path.unlink()
