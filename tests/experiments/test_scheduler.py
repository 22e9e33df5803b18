"""Tasks on a Dask scheduler: the bytes of the pool, whoever dies; else one sentence."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from experiments import slurm
from experiments.sweeps import (
    as_options,
    finish,
    results,
    small_certificates,
    start,
    wait_for_results,
)
from experiments.toy import SIMULATION, ToySpec

from linattn.experiments import scheduler
from linattn.experiments.clusters import parse_scheduler
from linattn.experiments.engine import compute_tasks
from scripts import simulation

try:
    import distributed
    import psutil  # Dask brings it along
except ImportError:
    distributed = None

needs_dask = pytest.mark.skipif(distributed is None, reason="needs the extra [dask]")
needs_slurm = pytest.mark.skipif(bool(slurm.unavailable()), reason=slurm.unavailable() or "-")
CHANGES = small_certificates(range(12))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tcp:/x", "--scheduler must be tcp://HOST:PORT, local:N or a TOML file of a cluster, got"),
        ("local:0", "workers of --scheduler must be an integer >= 1, got 0"),
        ("none.toml", "--scheduler must be a readable TOML file, but none.toml"),
        ("cluster = 1 2", "--scheduler must be a readable TOML file, but"),
        (
            'cluster = "cray"',
            "must be one of htcondor, lsf, moab, oar, pbs, sge, slurm, got 'cray'",
        ),
        ('cluster = "slurm"', "must have at least cores and memory, got {}"),
        ('cluster = "slurm"\nworkers = 2', "may have cluster, jobs and [options], got workers"),
        (
            'cluster = "slurm"\njobs = 0\n[options]\ncores = 1\nmemory = "1 GB"',
            "must be an integer >= 1, got 0",
        ),
    ],
)
def test_a_scheduler_that_cannot_be_is_one_sentence(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    if " = " in text:
        (tmp_path / "cluster.toml").write_text(text)
        text = "cluster.toml"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        parse_scheduler(text)


def test_a_cluster_is_read_from_a_file(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text('cluster = "slurm"\njobs = 3\n[options]\ncores = 2\nmemory = "1 GB"\n')
    asked = {"cluster": "slurm", "jobs": 3, "options": {"cores": 2, "memory": "1 GB"}}
    assert parse_scheduler(str(path)).asked == asked


def test_without_dask_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(scheduler, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"install it with `pip install 'linattn\[dask\]'`"):
        scheduler.scheduler_backend("local:1")


def test_the_number_of_workers_is_the_schedulers(tmp_path):
    code, _, err = finish(start(tmp_path, "--scheduler", "local:2", "--workers", "2"))
    assert code == 2
    assert "--workers must be left to the scheduler, got 2" in err


def children(process, word):
    """Process ids below a sweep whose command line has a word."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [child.pid for child in below if any(word in part for part in child.cmdline())]


def pool_results(folder):
    """What the built-in pool stores."""
    compute_tasks(simulation("certificate").tasks("tiny", CHANGES), folder)
    return results(folder)


def certificates(output, *arguments, **environment):
    """Start the same sweep."""
    real = ("--preset", "tiny", *as_options(CHANGES), *arguments)
    return start(output, *real, script=simulation("certificate").path, **environment)


@needs_dask
def test_deaths_change_no_byte(tmp_path):
    process = certificates(tmp_path / "dask", "--scheduler", "local:2")
    wait_for_results(tmp_path / "dask", 2)
    os.kill(children(process, "spawn_main")[0], signal.SIGKILL)
    wait_for_results(tmp_path / "dask", 5)
    (cluster,) = children(process, "cluster_process")
    os.kill(cluster, signal.SIGKILL)  # scheduler and all workers with it
    code, out, err = finish(process, 120)
    assert code == 0, err
    assert "12 of 12 runs stored" in out
    assert results(tmp_path / "dask") == pool_results(tmp_path / "pool")
    assert not list((tmp_path / "dask").glob(".*"))


@needs_dask
def test_an_interrupted_sweep_leaves_nothing_behind(tmp_path):
    process = start(tmp_path, "--scheduler", "local:1")
    wait_for_results(tmp_path, 2)
    started = children(process, "cluster_process") + children(process, "spawn_main")
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130
    assert "interrupted, the same command computes the rest" in out
    assert err == ""
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, started)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@needs_dask
def test_crashes_and_deaths_of_runs_are_sentences(tmp_path):
    code, out, err = finish(start(tmp_path, "--preset", "bad", "--scheduler", "local:2"), 180)
    assert code == 1
    assert "3 computed, 0 there before, 2 crashed" in out
    assert sorted(err.splitlines())[-2:] == [
        "toy crashed: ArithmeticError: seven is not a square",
        "toy crashed: every worker that tried it died, perhaps out of memory.",
    ]


@contextmanager
def foreign_cluster(folder, *options):
    """A scheduler and a worker that we did not start."""
    file = folder / "scheduler.json"
    usual = ["--no-dashboard", "--scheduler-file", str(file)]
    head = [sys.executable, "-m"]
    programs = [
        [*head, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *usual],
        [*head, "distributed.cli.dask_worker", *usual, "--death-timeout", "20", *options],
    ]
    running = [subprocess.Popen(p, stderr=subprocess.DEVNULL) for p in programs]
    try:
        while not file.exists() or not file.read_text():  # made first, then written
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in running:
            process.terminate()
            process.wait(20)


@needs_dask
@pytest.mark.parametrize(
    ("options", "environment", "sentence"),
    [
        (
            ["--nthreads", "2"],
            {},
            "has 2 threads, but results need one; start it with `dask worker",
        ),
        (
            ["--nthreads", "1", "--no-nanny"],
            {"OPENBLAS_NUM_THREADS": "3"},
            "differs from this process: threads '3' instead of '1'; its results would have other",
        ),
    ],
)
def test_a_worker_that_would_give_other_bytes_is_refused(
    tmp_path, monkeypatch, options, environment, sentence
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with foreign_cluster(tmp_path, *options) as address:
        code, _, err = finish(start(tmp_path / "store", "--scheduler", address))
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert not results(tmp_path / "store")


@needs_dask
def test_no_scheduler_and_no_worker_are_sentences(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "CONNECT", 0.5)
    tasks = [SIMULATION.task(ToySpec())]
    backend = scheduler.scheduler_backend("tcp://127.0.0.1:9")
    with pytest.raises(RuntimeError, match=r"there is no scheduler at tcp://127\.0\.0\.1:9; what"):
        compute_tasks(tasks, tmp_path, backend=backend)


@needs_dask
@needs_slurm
def test_jobs_of_slurm_give_the_same_bytes_and_are_replaced(tmp_path):
    folder = tmp_path / "slurm"
    folder.mkdir(mode=0o755)
    text = 'cluster = "slurm"\njobs = 2\n[options]\ncores = 1\nwalltime = "00:10:00"\n'
    text += f'interface = "lo"\nlog_directory = "{folder}"\n'
    for name, memory in (("good", 1), ("greedy", 900)):
        (folder / f"{name}.toml").write_text(f'{text}memory = "{memory} GB"\n')
    with slurm.single_node(folder) as environment:
        code, _, err = finish(
            certificates(folder / "x", "--scheduler", str(folder / "greedy.toml"), **environment)
        )
        assert code == 2
        assert "slurm refuses the jobs: sbatch: error: Memory specification" in err
        process = certificates(
            folder / "dask", "--scheduler", str(folder / "good.toml"), **environment
        )
        wait_for_results(folder / "dask", 2)
        subprocess.run(["scancel", "--user=root"], env=environment, check=True)  # every job
        code, out, err = finish(process, 120)
        assert code == 0, err
        queue = subprocess.run(
            ["squeue", "-h", "-t", "RUNNING,PENDING"],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert "12 of 12 runs stored" in out
    assert queue.stdout == ""
    assert results(folder / "dask") == pool_results(tmp_path / "pool")
