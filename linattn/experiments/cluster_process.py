"""A Dask cluster of ours: ``python -m linattn.experiments.cluster_process '{"workers": 2}'``.

A process of its own, so that no worker ever imports the user's script, Ctrl-C reaches none of them,
and Dask's log stays apart. It prints one line of JSON, the address of its scheduler or why there is
none, and ends when its standard input closes, however the process at the other end went.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from threading import Thread
from time import sleep
from typing import Any

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

PULSE = 15.0
"""Seconds between two looks whether jobs have ended and are to be submitted again."""


def main() -> None:
    """Start what the first argument asks for, say where it is, wait for the end of input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = json.loads(sys.argv[1])
    try:
        cluster = _batch(**asked) if "cluster" in asked else _local(**asked)
    except Exception as error:
        print(json.dumps({"error": _sentence(asked, error)}), flush=True)
        return
    print(json.dumps({"address": cluster.scheduler_address}), flush=True)
    sys.stdin.read()
    cluster.close()


def _local(workers: int) -> Any:
    """Single-threaded workers of this machine."""
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,  # a worker of ours is never restarted for what a run needs
    )


def _batch(cluster: str, jobs: int, options: Mapping[str, Any]) -> Any:
    """Jobs of a batch system, one single-threaded worker per core, submitted again when they end.

    Raises
    ------
    TypeError, ValueError
        If the class refuses an option.
    RuntimeError
        If the batch system refuses the jobs.
    """
    import dask_jobqueue

    exports = [f"export {name}=1" for name in THREAD_VARIABLES]
    usual = {"processes": options["cores"], "scheduler_options": {"dashboard_address": None}}
    prologue = {"job_script_prologue": exports + options.get("job_script_prologue", [])}
    made = getattr(dask_jobqueue, BATCH_SYSTEMS[cluster])(**(usual | dict(options) | prologue))

    async def submitted() -> None:
        await made
        for job in list(made.workers.values()):
            await job  # raises what the batch system said of it

    def keep() -> None:
        while True:
            sleep(PULSE)
            made.scale(jobs=jobs)

    made.scale(jobs=jobs)
    made.sync(submitted)
    Thread(target=keep, daemon=True).start()
    return made


def _sentence(asked: Mapping[str, Any], error: Exception) -> str:
    """What a user can do something about."""
    said = " ".join(str(error).partition("stderr:")[2].split() or str(error).split())
    if "cluster" not in asked:
        return f"a Dask cluster of {asked['workers']} workers did not start: {said}"
    if isinstance(error, RuntimeError):
        return f"{asked['cluster']} refuses the jobs: {said}"
    return f"options of {asked['cluster']} must be right, but {said}"


if __name__ == "__main__":
    main()
