"""What a Dask scheduler costs per run, and its rate beside the built-in pool's.

Runs of no work show the overhead; runs of a fixed processor time the rate. Pool and scheduler take
turns with two workers each, without their start-up, and what they store is compared byte by byte.
Small real runs, of `certificate`, go to Slurm jobs as well where Slurm can be started.

    python benchmarks/schedulers.py --record docs/record/platform/schedulers.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from linattn._fields import Count, NonNegative
from linattn.experiments import Grid, Simulation, Spec, compute_tasks
from linattn.experiments.engine import MakeBackend
from linattn.experiments.find import find_script, load_simulation
from linattn.experiments.pool import Pool
from linattn.experiments.provenance import provenance
from linattn.experiments.scheduler import scheduler_backend
from linattn.experiments.simulation import Task

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2
SLURM = """
cluster = "slurm"
jobs = {jobs}
[options]
cores = 1
memory = "1 GB"
walltime = "00:30:00"
interface = "lo"
log_directory = "{folder}"
"""


class BusySpec(Spec):
    """`seconds` of processor time, then one number."""

    seconds: NonNegative = 0.0
    size: Count = 1


def run(spec: BusySpec) -> Any:
    """Keep a processor busy."""
    import numpy as np
    import xarray as xr

    end = time.process_time() + spec.seconds
    while time.process_time() < end:
        pass
    draws = np.random.default_rng(spec.seed).normal(size=spec.size)
    return xr.Dataset({"draws": ("index", draws)})


SIMULATION = Simulation(
    BusySpec,
    run,
    presets={
        "empty": [Grid(BusySpec(), {"seed": range(200)})],
        "busy": [Grid(BusySpec(seconds=0.2), {"seed": range(150)})],
    },
)


def swept(tasks: Sequence[Task], folder: Path, backend: MakeBackend) -> float:
    """Seconds of a sweep into an empty store without its start-up.

    Raises
    ------
    RuntimeError
        If a run is not stored.
    """
    report = compute_tasks(tasks, folder, workers=WORKERS, backend=backend)
    if not report.complete:
        raise RuntimeError(f"the sweep must complete, got {report}.")
    return report.seconds - report.startup_seconds


def stored(folder: Path) -> dict[str, bytes]:
    """The results of a store."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.nc"))}


def in_turns(tasks: Sequence[Task], scheduler: str, repeats: int) -> dict[str, Any]:
    """Pool and scheduler one after the other, several times, on the same runs."""
    pool, dask = [], []
    with TemporaryDirectory() as place:
        for k in range(repeats):
            ours, theirs = Path(place) / f"pool{k}", Path(place) / f"dask{k}"
            pool.append(swept(tasks, ours, Pool))
            dask.append(swept(tasks, theirs, scheduler_backend(scheduler)))
            if stored(ours) != stored(theirs):
                raise RuntimeError(f"{scheduler} and the pool must store the same bytes.")
    found = {
        "runs": len(tasks),
        "equal_files": len(tasks),
        "repeats": repeats,
        "pool_seconds": pool,
        "scheduler_seconds": dask,
        "overhead_ms": 1e3 * median(d - p for p, d in zip(pool, dask, strict=True)) / len(tasks),
        "rate": median(p / d for p, d in zip(pool, dask, strict=True)),
    }
    print(f"{tasks[0].name}, {scheduler}: {found}", flush=True)
    return found


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[str]:
    """A Slurm of one node; the path of a file that asks it for jobs."""
    sys.path.append(str(ROOT / "tests"))
    from experiments import slurm  # type: ignore[import-not-found]

    if missing := slurm.unavailable():
        raise RuntimeError(missing)
    folder.chmod(0o755)
    with slurm.single_node(folder, cpus=WORKERS) as environment:
        os.environ["SLURM_CONF"] = environment["SLURM_CONF"]
        path = folder / "cluster.toml"
        path.write_text(SLURM.format(jobs=WORKERS, folder=folder), encoding="utf-8")
        yield str(path)


def with_slurm(tasks: Sequence[Task]) -> dict[str, Any]:
    """The same runs as jobs of Slurm, once."""
    with TemporaryDirectory() as place, slurm_cluster(Path(place)) as cluster:
        told = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, check=True)
        return {"version": told.stdout.strip(), **in_turns(tasks, cluster, repeats=1)}


def main() -> None:
    """Measure, print, and record where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--record", type=Path, help="JSON file for what was measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slurm", action=argparse.BooleanOptionalAction, default=True)
    chosen = parser.parse_args()
    import distributed

    own = load_simulation(Path(__file__).resolve())
    real = load_simulation(find_script("certificate")).tasks("tiny", {"seed": list(range(12))})
    local = f"local:{WORKERS}"
    found: dict[str, Any] = {
        "versions": {"distributed": distributed.__version__, **provenance()},
        "workers": WORKERS,
        "load": os.getloadavg()[0],
        "empty": in_turns(own.tasks("empty"), local, chosen.repeats),
        "busy": in_turns(own.tasks("busy"), local, chosen.repeats),
        "certificate": in_turns(real, local, 1),
    }
    if chosen.slurm:
        found["slurm"] = with_slurm(real)
    text = json.dumps(found, indent=1)
    if chosen.record:
        chosen.record.parent.mkdir(parents=True, exist_ok=True)
        chosen.record.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
