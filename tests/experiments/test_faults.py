"""Faults from outside: kill -9, Ctrl-C, a full disk, two processes on one store."""

import os
import random
import signal
import time

import pytest
from experiments.sweeps import (
    as_options,
    finish,
    results,
    small_certificates,
    start,
    wait_for_results,
)
from experiments.toy import SIMULATION, ToySpec

from linattn.experiments.provenance import provenance
from linattn.experiments.store import encode, scan
from linattn.experiments.worker import compute
from scripts import put, simulation

NUM_RUNS = 30

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture
def single_threaded_provenance(monkeypatch):
    """Say of results made in this process what a worker says of its own: one thread."""
    provenance.cache_clear()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    yield
    provenance.cache_clear()


def test_kill_loses_only_the_runs_in_flight(tmp_path, single_threaded_provenance):
    store = tmp_path / "store"
    held = simulation("certificate")
    changes = small_certificates(range(24))
    tasks = held.tasks("tiny", changes)
    expected = {task.file: encode(task, held, compute(held, task)) for task in tasks}
    real = ("--preset", "tiny", *as_options(changes))
    script = held.path
    moments = random.Random(7)
    for workers in "12111":
        before = results(store)
        process = start(store, *real, "--workers", workers, script=script)
        wait_for_results(store, len(before) + 1)
        time.sleep(moments.uniform(0.0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        after = results(store)
        assert len(before) < len(after) < len(expected)
        assert all(expected[name] == content for name, content in after.items())
    code, out, _ = finish(start(store, *real, script=script))
    assert code == 0
    assert f"{len(expected)} of {len(expected)} runs stored" in out
    assert results(store) == expected


@pytest.mark.parametrize("send", [
    lambda process: os.killpg(process.pid, signal.SIGINT),  # as a terminal does: the whole group
    lambda process: process.terminate(),
], ids=["Ctrl-C", "SIGTERM"])  # fmt: skip
def test_interrupt_ends_cleanly_and_says_what_is_stored(tmp_path, send):
    process = start(tmp_path, "--workers", "2", "--set", "delay=0.4")  # on a busy machine too
    wait_for_results(tmp_path, 2)
    send(process)
    code, out, err = finish(process)
    number = len(results(tmp_path))
    assert code == 130
    assert 2 <= number < NUM_RUNS
    assert out.startswith(f"{number} of {NUM_RUNS} runs stored in {tmp_path}")
    assert "interrupted, the same command computes the rest" in out
    assert "Traceback" not in err
    assert not list(tmp_path.glob(".*"))


def test_two_processes_share_a_store(tmp_path):
    pair = [start(tmp_path, "--workers", "1") for _ in range(2)]
    for process in pair:
        code, out, _ = finish(process)
        assert code == 0
        assert f"{NUM_RUNS} of {NUM_RUNS} runs stored" in out
    assert {entry.state for entry in scan(tmp_path)} == {"stored"}
    assert len(results(tmp_path)) == NUM_RUNS
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    put(tmp_path, SIMULATION, ToySpec())
    before = results(tmp_path)
    small_files = ("sh", "-c", 'ulimit -f 40; exec "$@"', "sh")
    arguments = ("--set", "size=9000", "--set", "seed=[2,3]", "--workers", "1")
    code, _, err = finish(start(tmp_path, *arguments, prefix=small_files))
    assert code == 2
    (sentence,) = [line for line in err.splitlines() if line.startswith("linattn:")]
    assert "cannot be written (File too large)" in sentence
    assert "what is stored is unharmed" in sentence
    assert results(tmp_path) == before
    assert not list(tmp_path.glob(".*"))
