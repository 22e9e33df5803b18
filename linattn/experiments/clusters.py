"""Where workers of a Dask scheduler come from: an address, this machine, or a batch system."""

from __future__ import annotations

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
from linattn.experiments.pool import single_threaded
from linattn.experiments.provenance import THREAD_VARIABLES

BATCH_SYSTEMS = {
    "htcondor": "HTCondorCluster",
    "lsf": "LSFCluster",
    "moab": "MoabCluster",
    "oar": "OARCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "slurm": "SLURMCluster",
}
"""Names in a TOML file, and the classes of dask-jobqueue."""

JOIN = 60.0
"""Seconds that a scheduler has for its first worker; a queue may take any time."""


class Cluster(Protocol):
    """A scheduler to connect to, again after it was lost."""

    patience: float | None

    def address(self) -> str:
        """Return where the scheduler is, after starting it if it is ours and not there."""

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
class Local:
    """Processes of this machine, started in a process of their own."""

    number: int
    process: subprocess.Popen[str] | None = None
    patience: float | None = JOIN

    def address(self) -> str:
        """Return the address of a scheduler of this machine.

        Raises
        ------
        RuntimeError
            If it does not start.
        """
        self.close()
        command = [sys.executable, "-m", "linattn.experiments.local_cluster", str(self.number)]
        with single_threaded():
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        assert self.process.stdout is not None
        where = self.process.stdout.readline().strip()
        if not where:
            raise RuntimeError(f"a Dask cluster of {self.number} workers did not start here.")
        return where

    def close(self) -> None:
        """Close its standard input, and wait until it and its workers are gone."""
        if self.process is not None:
            with suppress(BrokenPipeError):
                self.process.communicate()
            self.process = None


@dataclass
class Batch:
    """Jobs of a batch system, each with single-threaded workers.

    Parameters
    ----------
    kind : str
        One of `BATCH_SYSTEMS`.
    jobs : int
        Jobs to submit.
    options : mapping
        Arguments of the class of dask-jobqueue, as ``cores``, ``memory``, ``queue``.
    """

    kind: str
    jobs: int
    options: Mapping[str, Any]
    patience: float | None = None
    cluster: Any = field(default=None, repr=False)

    def address(self) -> str:
        """Return the address of a scheduler in this process, whose jobs are submitted.

        Raises
        ------
        ValueError
            If the batch system's class refuses an option.
        """
        import dask_jobqueue

        if self.cluster is None:
            exports = [f"export {name}=1" for name in THREAD_VARIABLES]
            cores = self.options.get("cores")
            ours = {"processes": cores, "scheduler_options": {"dashboard_address": None}}
            prologue = [*exports, *self.options.get("job_script_prologue", ())]
            try:
                self.cluster = getattr(dask_jobqueue, BATCH_SYSTEMS[self.kind])(
                    **(ours | dict(self.options) | {"job_script_prologue": prologue})
                )
            except TypeError as error:
                raise ValueError(f"options of {self.kind} must be right, but {error}.") from error
            self.cluster.scale(jobs=self.jobs)
        return str(self.cluster.scheduler_address)

    def close(self) -> None:
        """Cancel the jobs."""
        if self.cluster is not None:
            self.cluster.close()
            self.cluster = None


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
    >>> parse_scheduler("local:2").number
    2
    """
    if re.fullmatch(r"(tcp|tls)://\S+:\d+", text):
        return Remote(text)
    if match := re.fullmatch(r"local:(\d+)", text):
        return Local(positive_int("workers of --scheduler", int(match[1])))
    if text.endswith(".toml"):
        return _read_batch(Path(text))
    raise ValueError(
        f"--scheduler must be tcp://HOST:PORT, local:N or a TOML file of a cluster, got {text!r}."
    )


def _read_batch(path: Path) -> Batch:
    """The cluster of a TOML file.

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
        ) from error
    unknown = held.keys() - {"cluster", "jobs", "options"}
    if unknown:
        raise ValueError(f"{path} may have cluster, jobs and [options], got {sorted(unknown)}.")
    kind, options = held.get("cluster"), held.get("options", {})
    if kind not in BATCH_SYSTEMS:
        raise ValueError(
            f"cluster in {path} must be one of {', '.join(BATCH_SYSTEMS)}, got {kind!r}."
        )
    if not isinstance(options, dict) or not {"cores", "memory"} <= options.keys():
        raise ValueError(f"options in {path} must have at least cores and memory, got {options!r}.")
    return Batch(kind, positive_int(f"jobs in {path}", held.get("jobs", 1)), options)
