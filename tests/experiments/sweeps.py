"""Sweeps in processes of their own, to be killed, interrupted and compared."""

import os
import signal
import subprocess
import sys
import time

from processes import ENVIRONMENT, ROOT

TOY = ROOT / "tests" / "experiments" / "toy.py"
SMALL = {"num_clients": 3, "sequences_per_client": 8, "num_tokens": 6, "dim": 3, "num_outputs": 2}


def start(output, *arguments, prefix=(), script=TOY, **environment):
    """Start a sweep in a process group of its own."""
    command = [*prefix, sys.executable, str(script), "--output", str(output), *arguments]
    return subprocess.Popen(
        command, env=ENVIRONMENT | environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=listen if os.name == "posix" else None,
    )  # fmt: skip


def listen():
    """Let Ctrl-C be heard, which whoever starts the tests in the background has turned off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def finish(process, timeout=60):
    """Wait for the end; return exit status, standard output and standard error."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def results(folder):
    """Bytes of every result by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.nc")}


def wait_for_results(folder, number, seconds=30):
    """Wait until a sweep has stored some more runs."""
    deadline = time.monotonic() + seconds
    while len(list(folder.glob("*.nc"))) < number:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def small_certificates(seeds):
    """Settings of small real runs."""
    changes = {f"problem.{name}": size for name, size in SMALL.items()}
    return changes | {"horizon": 1.92, "local_steps": 8, "num_starts": 2, "seed": list(seeds)}


def as_options(changes):
    """The same on a command line."""
    return [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
