"""The engine: same bytes whatever the workers, failures that stay small, nothing computed twice."""

import io
import os
from dataclasses import replace

import numpy as np
import pytest
from experiments.toy import SIMULATION, ToySpec

from linattn.cli import simulation_main
from linattn.experiments import engine, progress
from linattn.experiments.engine import compute_tasks
from linattn.experiments.pool import single_threaded
from linattn.experiments.progress import clock, reporter
from linattn.experiments.provenance import THREAD_VARIABLES
from linattn.experiments.store import load_results, read_result
from linattn.experiments.worker import Outcome
from scripts import simulation

TASKS = [SIMULATION.task(ToySpec(seed=seed)) for seed in range(6)]
STORED = Outcome("stored", 0.1)


def stored(folder):
    """Bytes of every result by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.nc")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store made by one worker."""
    folder = tmp_path_factory.mktemp("whole")
    compute_tasks(TASKS, folder, workers=1)
    return folder


def test_workers_and_order_do_not_change_a_byte(whole, tmp_path):
    report = compute_tasks([*reversed(TASKS), TASKS[2], TASKS[2]], tmp_path, workers=2)
    assert stored(tmp_path) == stored(whole)
    assert (report.total, report.computed, report.complete) == (6, 6, True)


def test_real_runs_are_the_same_bytes_with_one_and_two_workers(tmp_path):
    small = {"problem.dim": 3, "problem.num_clients": 3, "problem.sequences_per_client": 8}
    tasks = [
        task
        for name in ("bias_drift", "certificate", "freeze_rule", "frozen_stage")
        for task in simulation(name).tasks("tiny", small)
    ]
    # Wide enough for BLAS to use threads if it were allowed to.
    wide = {"problem.dim": 160, "problem.num_clients": 2, "problem.sequences_per_client": 3}
    few = {"rounds": 2, "local_steps": 3, "warmup_rounds": 2, "settle_rounds": 3}
    tasks += simulation("frozen_stage").tasks("tiny", wide | few)
    for workers in (1, 2):
        report = compute_tasks(tasks, tmp_path / str(workers), workers=workers)
        assert report.complete, [failure.sentence for failure in report.failures]
    assert len(stored(tmp_path / "1")) == len(tasks)
    assert stored(tmp_path / "1") == stored(tmp_path / "2")


def test_what_is_stored_is_not_computed_again(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.glob("*.nc")}
    report = compute_tasks(TASKS, whole)
    assert before == {p: p.stat().st_mtime_ns for p in whole.glob("*.nc")}
    assert str(report).startswith("6 of 6 runs stored")
    assert str(report).endswith("0 computed, 6 there before")


@pytest.mark.parametrize("how", ["bytes", "folder", "loop"])
def test_a_damaged_file_is_kept_and_computed_again(whole, how):
    content = stored(whole)
    path = whole / TASKS[0].file
    path.unlink()
    if how == "bytes":
        path.write_bytes(b"CDF")
    elif how == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    report = compute_tasks(TASKS, whole, workers=1)
    assert (report.reused, report.computed) == (5, 1)
    assert report.damaged == [
        f"{path.name} is damaged; it is kept as {path.name}.damaged and computed again."
    ]
    assert stored(whole) == content
    aside = whole / f"{path.name}.damaged"
    aside.rmdir() if how == "folder" else aside.unlink()


def test_wall_times_lie_beside_the_results(whole):
    lines = (whole / "timings.jsonl").read_text().splitlines()
    assert sum(TASKS[1].file in line for line in lines) >= 1
    assert b"seconds" not in b"".join(stored(whole).values())


def test_crashes_and_deaths_do_not_end_the_sweep(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        simulation_main(
            SIMULATION, ["--preset", "bad", "--workers", "1", "--output", str(tmp_path)]
        )
    assert end.value.code == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-2:] == [
        "toy crashed: ArithmeticError: seven is not a square",
        "toy crashed: its worker process was killed by signal 9, perhaps out of memory.",
    ]
    assert shown.out.startswith(f"3 of 5 runs stored in {tmp_path} in ")
    assert shown.out.endswith("3 computed, 0 there before, 2 crashed\n")
    assert len(load_results(tmp_path)) == 3
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(ValueError, match="preset must be one that ran to its end, none did"):
        load_results(tmp_path, "toy", preset="bad")


def test_workers_have_one_thread_and_the_parent_keeps_its_own(whole, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    content = stored(whole)
    task = SIMULATION.task(ToySpec(mode="threads"))
    report = compute_tasks([task, TASKS[1]], whole, workers=1, force=True)
    assert (report.reused, report.computed) == (0, 2)
    assert str(report).startswith("2 of 2 runs computed again in ")
    assert "interrupted, --force begins again" in str(replace(report, interrupted=True))
    found = read_result(whole / task.file)
    assert found.dataset.draws.size
    np.testing.assert_array_equal(found.dataset.draws, 1)
    assert found.provenance["threads"] == "1"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"
    assert "OMP_NUM_THREADS" not in os.environ
    (whole / task.file).unlink()
    assert stored(whole) == content


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
        compute_tasks(TASKS, tmp_path, workers=workers)


def test_nothing_to_do(tmp_path):
    assert compute_tasks([], tmp_path).complete


def test_long_runs_start_first(tmp_path):
    order = []

    class Sequential:
        startup = 0.0

        def __init__(self, output, waiting, size):
            self.waiting = waiting

        def outcomes(self):
            for task in self.waiting:
                order.append(task.cost)
                yield task, STORED

        def stop(self):
            pass

    tasks = [SIMULATION.task(ToySpec(size=size)) for size in (2, 9, 5)]
    report = compute_tasks(tasks, tmp_path, backend=Sequential)
    assert order == [9.0, 5.0, 2.0]
    assert report.computed == 3


def test_processors_of_a_group_are_counted(tmp_path):
    assert engine._group_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert engine._group_quota(tmp_path) == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert engine._group_quota(tmp_path) is None
    assert engine.available_workers() >= 1


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with reporter(TASKS[:2], TASKS[1:2]) as report:
        report(TASKS[1], STORED)
    assert "2/2" in screen.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (100, "1:40"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_the_time_left_counts_dear_runs_as_dearer(capsys, monkeypatch):
    """They come first: with shares of the time as the roots of costs, 4 of 4 + 1 + 1."""
    now = [0.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    tasks = [task._replace(cost=cost) for task, cost in zip(TASKS, (16.0, 1.0, 1.0), strict=False)]
    with reporter([*tasks, *TASKS[3:]], tasks) as report:
        for task in tasks:
            now[0] += 12.0
            report(task, STORED)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "[4/6] toy, 0:06 left", "[5/6] toy, 0:05 left", "[6/6] toy: all 6 runs, 0:00 left",
    ]  # fmt: skip


def test_a_pipe_gets_a_line_per_simulation_and_at_most_one_in_ten_seconds(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    other = replace(SIMULATION, path=SIMULATION.path.with_stem("other")).task(ToySpec())
    tasks = [*TASKS, other]
    with reporter(tasks, tasks) as report:
        for k, task in enumerate([*TASKS[:3], other, *TASKS[3:]]):
            now[0] += 6.0 if k < 2 else 1.0
            report(task, Outcome("died", 0.1) if k == 4 else STORED)
    said = [line.rpartition(",")[0] for line in capsys.readouterr().err.splitlines()]
    lines = ["[2/7] toy", "[4/7] other: all 1 runs", "[5/7] toy died", "[7/7] toy: all 6 runs"]
    assert said == lines
