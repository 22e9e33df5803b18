"""Standard streams that are closed, full, broken or of few letters end no command."""

import io
import os
import subprocess
import sys

import pytest
from experiments.toy import SIMULATION, ToySpec

from linattn import _progress
from linattn.experiments.progress import reporter
from linattn.experiments.worker import Outcome

FULL = "/dev/full"
posix = pytest.mark.skipif(not os.path.exists(FULL), reason=f"needs a shell and {FULL}")


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Broken(), closed()], ids=["broken", "closed"])
def test_what_nobody_can_hear_is_not_said(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    _progress.say("a word")
    assert not _progress.is_terminal(stream)
    tasks = [SIMULATION.task(ToySpec())]
    with reporter(tasks, tasks) as observe:
        observe(tasks[0], Outcome("stored", 0.0))


def test_a_process_without_streams_gets_some(monkeypatch, capfd):
    """As a daemon, or a program with a window, starts it."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    _progress.say("a word")
    assert not _progress.is_terminal(sys.stderr)
    _progress.steady_streams()
    for stream in (sys.stdout, sys.stderr):
        print("ρ", file=stream, flush=True)
        stream.close()
    assert capfd.readouterr() == ("", "")


def test_letters_that_an_encoding_lacks_are_escaped(monkeypatch):
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding="cp1252"))
    _progress.steady_streams()
    print("rate ρ", flush=True)
    assert held.getvalue() == b"rate \\u03c1" + os.linesep.encode()


def linattn(words, tmp_path):
    """A command line of the shell, with what it printed on standard error."""
    line = f'"{sys.executable}" -m linattn {words}'
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@posix
@pytest.mark.parametrize("end", ["| true", ">&-", "<&- >/dev/null"])
def test_output_that_nobody_reads_is_no_error(end, tmp_path):
    code, err = linattn(f"list {end}", tmp_path)
    assert (code in (0, 1), err) == (True, "")  # 1: the pipe broke


@posix
def test_output_that_is_lost_is_an_error(tmp_path):
    code, err = linattn(f"list > {FULL}", tmp_path)
    assert code == 2
    assert err.startswith("linattn: ")
    assert err.count("\n") == 1
    assert "No space left" in err


def imports_scipy(end):
    """Whether scipy itself can be imported like that: version 1.13 needs a standard error."""
    command = f'"{sys.executable}" -c "import scipy.linalg" {end}'
    return subprocess.run(["sh", "-c", command], check=False).returncode == 0


@posix
@pytest.mark.parametrize("end", ["2>&-", f"2> {FULL}"])
def test_a_sweep_goes_on_though_its_progress_cannot_be_said(end, tmp_path):
    if not imports_scipy(end):
        pytest.skip("this scipy cannot be imported without a standard error")
    words = f'run "{SIMULATION.path}" --preset few --workers 1 --output store {end}'
    assert linattn(words, tmp_path)[0] == 0
    assert len(list((tmp_path / "store").glob("*.nc"))) == 2
