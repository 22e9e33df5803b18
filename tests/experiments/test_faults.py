"""Faults from outside: kill -9, Ctrl-C, a full disk, two processes on one store."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NUM_RUNS = 30

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


def start(output, *arguments, prefix=()):
    """Start the toy sweep in a process group of its own."""
    script = [sys.executable, str(HERE / "toy_runs.py"), "--output", str(output)]
    command = [*prefix, *script, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process):
    """Wait for the end; return exit status, standard output and standard error."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def results(folder):
    """Bytes of every result by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.nc")}


def wait_for_results(folder, number):
    """Wait until a sweep has stored some more runs."""
    deadline = time.monotonic() + 30
    while len(list(folder.glob("*.nc"))) < number:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The store of a sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    code, out, err = finish(start(folder))
    assert (code, len(results(folder))) == (0, NUM_RUNS), out + err
    assert out.startswith(f"{NUM_RUNS} of {NUM_RUNS} runs stored in {folder} ({NUM_RUNS} computed")
    return results(folder)


def test_kill_loses_only_the_runs_in_flight(tmp_path, uninterrupted):
    moments = random.Random(7)
    for _ in range(5):
        before = results(tmp_path)
        process = start(tmp_path, "--workers", "2")
        wait_for_results(tmp_path, len(before) + 1)
        time.sleep(moments.uniform(0.0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        after = results(tmp_path)
        assert len(before) < len(after) < NUM_RUNS
        assert all(uninterrupted[name] == content for name, content in after.items())
    code, out, _ = finish(start(tmp_path))
    assert code == 0
    assert f"{NUM_RUNS} of {NUM_RUNS} runs stored" in out
    assert results(tmp_path) == uninterrupted


def test_interrupt_ends_cleanly_and_says_what_is_stored(tmp_path):
    process = start(tmp_path, "--workers", "2")
    wait_for_results(tmp_path, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    code, out, err = finish(process)
    number = len(results(tmp_path))
    assert code == 130
    assert 2 <= number < NUM_RUNS
    assert out.startswith(f"{number} of {NUM_RUNS} runs stored in {tmp_path}")
    assert "interrupted, the same command computes the rest" in out
    assert "Traceback" not in err
    assert not list(tmp_path.glob(".*"))


def test_two_processes_share_a_store(tmp_path, uninterrupted):
    pair = [start(tmp_path, "--workers", "1") for _ in range(2)]
    for process in pair:
        code, out, _ = finish(process)
        assert code == 0
        assert f"{NUM_RUNS} of {NUM_RUNS} runs stored" in out
    assert results(tmp_path) == uninterrupted


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    assert finish(start(tmp_path, "--set", "seed=[0,1]"))[0] == 0
    before = results(tmp_path)
    small_files = ("sh", "-c", 'ulimit -f 40; exec "$@"', "sh")
    arguments = ("--set", "size=9000", "--set", "seed=[2,3]")
    code, _, err = finish(start(tmp_path, *arguments, prefix=small_files))
    assert code == 2
    (sentence,) = [line for line in err.splitlines() if line.startswith("linattn:")]
    assert "cannot be written (File too large)" in sentence
    assert "what is stored is unharmed" in sentence
    assert results(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_a_crashed_run_is_a_sentence_and_an_exit_status(tmp_path):
    code, out, err = finish(start(tmp_path, "--preset", "bad"))
    assert code == 1
    assert "toy crashed: ArithmeticError: seven is not a square" in err
    assert "Traceback" not in err
    assert out.startswith("1 of 3 runs stored")
