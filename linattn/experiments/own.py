"""Files of the user's own inside a spec: named by path and SHA-256, opened where a run needs them.

``mine.py:my_method`` becomes ``/where/it/lies/mine.py#0123456789abcdef:my_method``: a changed file
is another spec, and a run never uses another text than the one its spec names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from linattn.experiments.files import file_sha

_OWN = re.compile(r"(?P<path>.+\.(?:py|npz))(?:#(?P<sha>[0-9a-f]{16}))?(?::(?P<name>\w+))?")


def is_own(text: str) -> bool:
    """Whether a text names a file of the user's own.

    Examples
    --------
    >>> is_own("mine.py:my_method"), is_own("data.npz"), is_own("fed_avg")
    (True, True, False)
    """
    return _OWN.fullmatch(text) is not None


def pinned(field: str, text: str) -> str:
    """Return the text with the file's full path and SHA-256; other texts stay.

    Raises
    ------
    ValueError
        If there is no such file.
    """
    match = _OWN.fullmatch(text)
    if match is None or match["sha"]:
        return text
    path = Path(match["path"]).expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"{field} must name a file that is there, got {match['path']!r}.")
    name = f":{match['name']}" if match["name"] else ""
    return f"{path}#{file_sha(path)[:16]}{name}"


def own_file(text: str) -> tuple[Path, str]:
    """Return path and name of a pinned text.

    Raises
    ------
    ValueError
        If it names no file of the user's own, or the file is not what it was.
    """
    match = _OWN.fullmatch(text)
    if match is None:
        raise ValueError(f"own object must be given as PATH.py:NAME or PATH.npz, got {text!r}.")
    path = Path(match["path"])
    if match["sha"] and file_sha(path)[:16] != match["sha"]:
        raise ValueError(f"{path} has changed since this run was asked for; ask for it again.")
    return path, match["name"] or ""


def own_name(text: str) -> str:
    """Return what a reader calls an own object: its name, or the stem of its file; texts else.

    Examples
    --------
    >>> own_name("/a/mine.py#0123456789abcdef:my_method"), own_name("my data.npz"), own_name("moon")
    ('my_method', 'my data', 'moon')
    """
    match = _OWN.fullmatch(text)
    return text if match is None else match["name"] or Path(match["path"]).stem


def own_object(text: str) -> Any:
    """Return the object that ``PATH.py:NAME`` names.

    Raises
    ------
    ValueError
        If the file cannot be imported or has no such name.
    """
    from linattn.experiments.find import load_module

    path, name = own_file(text)
    module = load_module(path)
    if not hasattr(module, name):
        raise ValueError(f"own object must be a name in {path}, got {name!r}.")
    return getattr(module, name)
