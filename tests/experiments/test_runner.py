"""The runner: same bytes whatever the workers, failures that stay small, nothing computed twice."""

import io
import os
import sys

import numpy as np
import pytest
from experiments.toy_runs import SWEEP, ToySpec

from linattn.cli import simulation_main
from linattn.experiments.pool import single_threaded
from linattn.experiments.progress import clock, reporter
from linattn.experiments.provenance import THREAD_VARIABLES
from linattn.experiments.runner import longest_first, run_sweep
from linattn.experiments.specs import BiasDriftSpec
from linattn.experiments.store import load_results, read_result, result_path
from linattn.experiments.worker import attempt

SPECS = [ToySpec(seed=seed) for seed in range(6)]


def stored(folder):
    """Bytes of every result by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.nc")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store made by one worker, and the report of making it."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_sweep(SPECS, folder, workers=1)


def test_workers_and_order_do_not_change_a_byte(whole, tmp_path):
    report = run_sweep([*reversed(SPECS), SPECS[2], SPECS[2]], tmp_path, workers=2)
    assert stored(tmp_path) == stored(whole[0])
    assert (report.total, report.computed, report.complete) == (6, 6, True)


def test_real_runs_are_the_same_bytes_with_one_and_two_workers(tmp_path):
    specs = SWEEP.specs("kinds")
    for workers in (1, 2):
        report = run_sweep(specs, tmp_path / str(workers), workers=workers)
        assert report.complete, [failure.sentence for failure in report.failures]
    assert len(stored(tmp_path / "1")) == len(specs)
    assert stored(tmp_path / "1") == stored(tmp_path / "2")


def test_what_is_stored_is_not_computed_again(whole):
    before = {p: p.stat().st_mtime_ns for p in whole[0].glob("*.nc")}
    report = run_sweep(SPECS, whole[0])
    assert (report.reused, report.computed) == (6, 0)
    assert before == {p: p.stat().st_mtime_ns for p in whole[0].glob("*.nc")}
    assert "6 of 6 runs stored" in str(report)


def test_a_damaged_file_is_kept_and_computed_again(whole):
    content = stored(whole[0])
    path = result_path(whole[0], SPECS[0])
    path.write_bytes(b"CDF")
    report = run_sweep(SPECS, whole[0], workers=1)
    assert (report.reused, report.computed) == (5, 1)
    assert report.damaged == [
        f"{path.name} is damaged; it is kept as {path.name}.damaged and computed again."
    ]
    assert stored(whole[0]) == content


def test_wall_times_lie_beside_the_results(whole):
    lines = (whole[0] / "timings.jsonl").read_text().splitlines()
    assert sum(result_path(whole[0], SPECS[1]).name in line for line in lines) >= 1
    assert b"seconds" not in b"".join(stored(whole[0]).values())


def test_crashes_and_deaths_do_not_end_the_sweep(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        simulation_main(SWEEP, [*["--preset", "bad", "--workers", "1", "--output"], str(tmp_path)])
    assert end.value.code == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert lines[-2:] == [
        "toy crashed: ArithmeticError: seven is not a square",
        "toy crashed: its worker process was killed by signal 9, perhaps out of memory.",
    ]
    assert [line.partition(" ")[0] for line in lines[:-2]] == [
        "[1/5]",
        "[2/5]",
        "[3/5]",
        "[4/5]",
        "[5/5]",
    ]
    assert lines[4].endswith("runs/s, 0:00 left")
    assert shown.out.startswith(
        f"3 of 5 runs stored in {tmp_path} (3 computed, 0 there before, 2 cr"
    )
    assert len(load_results(tmp_path)) == 3
    assert not list(tmp_path.glob(".*"))


def test_workers_have_one_thread_and_the_parent_keeps_its_own(whole, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    content = stored(whole[0])
    spec = ToySpec(mode="threads")
    report = run_sweep([spec, SPECS[1]], whole[0], workers=1, force=True)
    assert (report.reused, report.computed) == (0, 2)
    path = result_path(whole[0], spec)
    found = read_result(path)
    assert found.dataset.draws.size
    np.testing.assert_array_equal(found.dataset.draws, 1)
    assert found.provenance["threads"] == "1"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"
    assert "OMP_NUM_THREADS" not in os.environ
    path.unlink()
    assert stored(whole[0]) == content


def test_the_environment_is_restored_after_an_error(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    before = dict(os.environ)

    def fail_inside():
        with single_threaded():
            assert {os.environ[name] for name in THREAD_VARIABLES} == {"1"}
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert dict(os.environ) == before


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_workers_must_be_positive(tmp_path, workers):
    with pytest.raises(ValueError, match="workers must be an integer >= 1"):
        run_sweep(SPECS, tmp_path, workers=workers)


def test_nothing_to_do(tmp_path):
    assert run_sweep([], tmp_path).complete


def test_a_bad_spec_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="size must be an integer >= 1, got 0"):
        run_sweep([ToySpec(size=0)], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_unreadable_task_is_a_crash():
    outcome = attempt(b"nonsense")
    assert outcome.state == "crashed"
    assert outcome.sentence.startswith("a run crashed: UnpicklingError")


def test_long_runs_start_first():
    short, long = BiasDriftSpec(local_steps=(1,)), BiasDriftSpec(local_steps=(1, 50))
    assert longest_first([short, long, ToySpec()]) == [long, short, ToySpec()]


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    with reporter(2, 1, stream=screen) as report:
        report(ToySpec(), attempt(b""))
    assert "2/2" in screen.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (100, "1:40"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_progress_goes_to_standard_error(capsys):
    with reporter(1, 0) as report:
        report(ToySpec(), attempt(b""))
    assert capsys.readouterr().err.startswith("[1/1] toy ")
    assert not sys.stderr.isatty()
