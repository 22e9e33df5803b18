"""Where the workers of a Dask scheduler come from: an address, this machine, or a batch system."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from linattn._checks import positive_int
from linattn.experiments.cluster_process import BATCH_SYSTEMS
from linattn.experiments.pool import single_threaded

JOIN = 60.0
"""Seconds that a scheduler has for its first worker; a queue may take any time."""


class Cluster(Protocol):
    """A scheduler to connect to, again after it was lost."""

    patience: float | None

    def address(self) -> str:
        """Return where the scheduler is, after starting it if it is ours."""

    def close(self) -> None:
        """End what we started."""


@dataclass
class Remote:
    """A scheduler that somebody else runs."""

    where: str
    patience: float | None = JOIN

    def address(self) -> str:
        """Return the address given."""
        return self.where

    def close(self) -> None:
        """Leave it running."""


@dataclass
class Started:
    """A scheduler and workers of ours, in a process of their own.

    Parameters
    ----------
    asked : mapping
        What `cluster_process` starts: ``{"workers": N}``, or ``cluster``, ``jobs``, ``options``.
    """

    asked: Mapping[str, Any]
    patience: float | None = JOIN
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def address(self) -> str:
        """Start it, anew if it was lost, and return where its scheduler is.

        Raises
        ------
        RuntimeError
            If it does not start.
        """
        self.close()
        command = [sys.executable, "-m", "linattn.experiments.cluster_process"]
        with single_threaded():
            self.process = subprocess.Popen(
                [*command, json.dumps(self.asked)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get("LINATTN_DEBUG") else subprocess.DEVNULL,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline() or '{"error": "it died"}')
        if "error" in answer:
            raise RuntimeError(f"no Dask cluster: {answer['error']}")
        return str(answer["address"])

    def close(self) -> None:
        """Close its standard input, and wait until it and its workers are gone."""
        if self.process is not None:
            with suppress(BrokenPipeError):
                self.process.communicate()
            self.process = None


def parse_scheduler(text: str) -> Cluster:
    """Return the cluster that ``--scheduler`` names.

    Parameters
    ----------
    text : str
        ``tcp://host:port`` (or ``tls://``), ``local:N``, or the path of a TOML file with
        ``cluster`` (a batch system), ``jobs`` and a table ``options``.

    Raises
    ------
    ValueError
        If it is anything else: one sentence.

    Examples
    --------
    >>> parse_scheduler("local:2")
    Started(asked={'workers': 2}, patience=60.0)
    """
    if re.fullmatch(r"(tcp|tls)://\S+:\d+", text):
        return Remote(text)
    if match := re.fullmatch(r"local:(\d+)", text):
        return Started({"workers": positive_int("workers of --scheduler", int(match[1]))})
    if text.endswith(".toml"):
        return Started(_read(Path(text)), patience=None)
    raise ValueError(
        f"--scheduler must be tcp://HOST:PORT, local:N or a TOML file of a cluster, got {text!r}."
    )


def _read(path: Path) -> dict[str, Any]:
    """A batch system, its number of jobs and its options, from a TOML file.

    Raises
    ------
    ValueError
        One sentence.
    """
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--scheduler must be a readable TOML file, but {path}: {error}."
        ) from None
    kind, options = held.get("cluster"), held.get("options", {})
    if unknown := sorted(held.keys() - {"cluster", "jobs", "options"}):
        raise ValueError(f"{path} may have cluster, jobs and [options], got {', '.join(unknown)}.")
    if kind not in BATCH_SYSTEMS:
        known = ", ".join(BATCH_SYSTEMS)
        raise ValueError(f"cluster in {path} must be one of {known}, got {kind!r}.")
    if not isinstance(options, dict) or not {"cores", "memory"} <= options.keys():
        raise ValueError(f"options in {path} must have at least cores and memory, got {options!r}.")
    jobs = positive_int(f"jobs in {path}", held.get("jobs", 1))
    return {"cluster": kind, "jobs": jobs, "options": options}
