"""Files that are there whole or not at all, and folders that say when they cannot be written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import time

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
        probe = _temporary(path / "probe")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise unwritable(path, error) from error
    _remove(path.glob(".*.tmp"), older_than=_OLD)
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file: temporary name in the same folder, fsync, rename, fsync of the folder.

    Raises
    ------
    OSError
        If it cannot be written (full disk, no permission); a file of that name stays as it was.
    """
    temporary = _temporary(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        _remove([temporary])
        raise unwritable(path.parent, error) from error
    except BaseException:
        _remove([temporary])
        raise
    _sync(path.parent)


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


def _temporary(path: Path) -> Path:
    """A name no other process or call uses, and no reader takes for a result."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _remove(paths: Iterable[Path], *, older_than: float = -1.0) -> None:
    for path in paths:
        with suppress(OSError):  # gone already, or not ours to remove
            if time() - path.stat().st_mtime > older_than:
                path.unlink()


def _sync(folder: Path) -> None:
    """Make a rename survive a power cut, where folders can be synced (not on Windows)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
