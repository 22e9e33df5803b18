"""Processes: none runs the user's script again, none hangs after a fork."""

import os

import pytest
from processes import ROOT, printed

UNGUARDED = """
from pathlib import Path
from experiments.toy import SIMULATION
from linattn.experiments import compute_tasks

with open("runs.txt", "a") as file:
    file.write(f"{__name__}\\n")
report = compute_tasks(SIMULATION.tasks("few"), "store", workers=2)
print(report.complete)
"""

FORKED = """
import os, signal
import linattn as la
from linattn import _threads

problem = la.synthetic_problem(num_clients=4, sequences_per_client=40, num_tokens=8, dim=24,
    num_outputs=4, value_ridge=0.05, kernel_ridge=0.01)
params = la.initial_params(problem, num_heads=2)

def last():
    result = la.run(la.fed_avg(), problem, params, rounds=2, local_steps=20, local_lr=0.01)
    return result.params.value.tobytes()

held = last()
assert _threads.thread_pool.cache_info().misses, "the run was too small for threads"
child = os.fork()
if child == 0:
    signal.alarm(20)  # a hanging child ends by this signal
    os._exit(0 if last() == held else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def script(folder, text, **environment):
    """Run a script in a folder; return what it printed."""
    (folder / "driver.py").write_text(text)
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    return printed("driver.py", place=folder, timeout=120, **environment)


def test_a_script_without_a_guard_is_run_once(tmp_path):
    assert script(tmp_path, UNGUARDED) == "True\n"
    assert (tmp_path / "runs.txt").read_text() == "__main__\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_trains_with_threads(tmp_path):
    warned = {"PYTHONWARNINGS": "default", "NUMBA_NUM_THREADS": "2"}
    assert script(tmp_path, FORKED, **warned) == "0\n"
