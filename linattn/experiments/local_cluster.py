"""A Dask cluster of this machine: ``python -m linattn.experiments.local_cluster N``.

A process of its own, so that restarted workers never import the user's script and Ctrl-C reaches
none of them. It prints the address of its scheduler and ends when its standard input closes,
however the process at the other end went.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Start the workers, say where they are, wait for the end of standard input."""
    from distributed import LocalCluster

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with LocalCluster(
        n_workers=int(sys.argv[1]),
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,  # a worker of ours is never restarted for what a run needs
        silence_logs="CRITICAL",
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
