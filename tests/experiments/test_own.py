"""Work of a stranger's own, in a folder whose name has a space and an umlaut, beside no package."""

import os
import signal

import numpy as np
import pytest
from experiments.sweeps import start, wait_for_results
from processes import finished

import linattn as la
from linattn.experiments import find, own
from linattn.experiments.files import file_sha
from linattn.experiments.stages import stored_results
from linattn.experiments.store import inspect_file, read_result
from linattn.experiments.worker import encoded
from linattn.report.groups import groups

SIMULATION = '''
"""Mean of some draws, from a module beside this one."""
import time
import numpy as np
import xarray as xr
from beside import SCALE
from linattn.experiments import Grid, Simulation, Spec

class MySpec(Spec):
    size: int = 4
    delay: float = 0.0

def run(spec):
    time.sleep(spec.delay)
    draws = SCALE * np.random.default_rng(spec.seed).normal(size=spec.size)
    return xr.Dataset({"draws": ("i", draws)})

SIMULATION = Simulation(MySpec, run, presets={"quick": [Grid(MySpec(), {"seed": range(4)})]})

if __name__ == "__main__":
    SIMULATION.main()
'''
FIGURE = '''
"""A figure of one's own."""
NAME = "mean"
SIMULATION = "mine"

def draw(results, folder, look):
    path = folder / f"{NAME}.txt"
    path.write_text(f"{len(results)} runs, {look.width} inches")
    return [path]
'''
METHOD = """
from linattn import Direction, Method
my_method = Method("mine", direction=lambda context, client, server, own: Direction(0.5))

def stronger(choices):
    return Method("stronger", direction=lambda *_: Direction(5.0 * choices.prox))

three = 3
"""


@pytest.fixture
def place(tmp_path):
    """A folder with everything in it."""
    folder = tmp_path / "Günthers Ordner"
    folder.mkdir()
    for name, text in (("mine", SIMULATION), ("figure", FIGURE), ("method", METHOD)):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "beside.py").write_text("SCALE = 2.0\n")
    return folder


def call(place, *arguments, script=None):
    """Run a command there; return exit status, standard output and standard error."""
    head = ["-m", "linattn"] if script is None else [script]
    return finished(*head, *arguments, place=place)


def test_a_simulation_by_path_and_as_a_script_with_two_workers(place):
    code, out, err = call(place, "run", "mine.py", "--workers", "2")
    assert code == 0, err
    assert out.endswith("4 computed, 0 there before\n")
    code, out, err = call(place, script="mine.py")
    assert code == 0, err
    assert out.endswith("0 computed, 4 there before\n")
    found = la.load_results(place / "results", "mine")
    assert [result.spec["seed"] for result in found] == [0, 1, 2, 3]
    draws = 2.0 * np.random.default_rng(3).normal(size=4)
    np.testing.assert_array_equal(found[3].dataset.draws, draws)


def test_another_text_of_the_script_is_computed_again(place):
    call(place, "run", "mine.py")
    (place / "mine.py").write_text(SIMULATION.replace("SCALE *", "3.0 *"), encoding="utf-8")
    code, out, _ = call(place, "run", "mine.py")
    assert code == 0
    assert out.endswith("4 computed, 0 there before\n")


def test_a_text_edited_while_it_runs_is_not_what_ran(place):
    """The file of a result names the text that was imported; the new one is another."""
    path = place / "mine.py"
    edited = "    with open(__file__, 'a') as file: file.write('# edited')\n    time.sleep("
    path.write_text(SIMULATION.replace("    time.sleep(", edited), encoding="utf-8")
    before = file_sha(path)
    held = find.load_simulation(path)
    task = held.task(held.spec())
    content, _ = encoded(task)
    (place / task.file).write_bytes(content)
    assert read_result(place / task.file).provenance["script"] == before != file_sha(path)
    assert inspect_file(place / task.file, find.load_simulation(path)).state == "stale"


def test_results_of_several_texts_are_not_drawn_together(place):
    call(place, "run", "mine.py")
    (place / "mine.py").write_text(SIMULATION.replace("SCALE *", "3.0 *"), encoding="utf-8")
    call(place, "run", "mine.py", "--set", "seed=0")
    code, _, err = call(place, "figures", "figure.py")
    assert code == 1
    assert err.startswith("several texts of its file made the results of mine in results; make the")
    with pytest.warns(UserWarning, match="results of mine are of several texts of its file"):
        assert len(la.load_results(place / "results", "mine")) == 4


def test_a_run_that_exits_is_a_crash_with_its_word(place):
    path = place / "mine.py"
    leaving = "    if spec.seed == 1: raise SystemExit('enough')\n    time.sleep("
    path.write_text(SIMULATION.replace("    time.sleep(", leaving), encoding="utf-8")
    code, out, err = call(place, "run", "mine.py", "--workers", "1")
    assert code == 1
    assert err.splitlines()[-1] == "mine crashed: SystemExit: enough"
    assert out.startswith("3 of 4 runs stored in results")


def test_a_run_may_change_its_folder(place):
    (place / "elsewhere").mkdir()
    moves = "    import os; os.chdir('elsewhere' if spec.seed == 0 else '.')\n    time.sleep("
    path = place / "mine.py"
    path.write_text(SIMULATION.replace("    time.sleep(", moves), encoding="utf-8")
    assert call(place, "run", "mine.py", "--workers", "1")[0] == 0
    assert len(list(place.glob("results/*.nc"))) == 4


def test_a_simulation_has_a_name_of_its_own(place):
    """Under a name of the package its results would be taken for the package's."""
    ours, copied = find.find_script("bounds"), place / "bounds.py"
    copied.write_bytes(ours.read_bytes())
    assert find.load_simulation(copied).name == "bounds"
    copied.write_bytes(ours.read_bytes() + b"# changed\n")
    code, _, err = call(place, "run", "bounds.py", "--preset", "tiny")
    assert code == 2
    assert "is called like a simulation of the package; rename the file" in err
    assert call(place, "reproduce", "--only", "mine.py")[0] == 2


def test_set_never_hides_a_preset_and_shards_share_it(place):
    code, out, _ = call(place, "run", "mine.py", "--shard", "1/2", "--output", "a")
    assert code == 0
    assert "2 of 2 runs" in out
    assert call(place, "run", "mine.py", "--shard", "2/2", "--output", "b")[0] == 0
    code, out, _ = call(place, "merge", "a", "b", "--output", "c")
    assert (code, out) == (0, "4 results copied into c, 4 there now.\n")
    code, out, _ = call(place, "run", "mine.py", "--output", "c")
    assert out.endswith("0 computed, 4 there before\n")
    assert call(place, "run", "mine.py", "--set", "size=9", "--output", "c")[0] == 0
    assert len(la.load_results(place / "c", "mine", preset="quick")) == 4
    assert {r.spec["size"] for r in la.load_results(place / "c", "mine", preset="quick")} == {4}
    assert {r.spec["size"] for r in la.load_results(place / "c", "mine", preset="set")} == {9}


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_and_resumed(place):
    options = ("--set", "delay=0.2", "--workers", "1")
    process = start(place / "results", *options, script=place / "mine.py")
    wait_for_results(place / "results", 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = len(list(place.glob("results/*.nc")))
    assert 1 <= before < 4
    code, out, _ = call(place, *options, script="mine.py")
    assert code == 0
    assert out.endswith(f"{4 - before} computed, {before} there before\n")


def test_a_figure(place):
    call(place, "run", "mine.py")
    code, _, err = call(place, "figures", "figure.py", "--width", "3.5")
    assert code == 0, err
    assert (place / "results" / "figures" / "mean.txt").read_text() == "4 runs, 3.5 inches"
    code, _, err = call(place, "figures", "figure.py", "--preset", "paper")
    assert code == 1
    assert err.startswith("no results of mine in results; make them with `linattn run mine --prese")


def test_methods_of_ones_own_in_a_sweep(place):
    small = ["num_clients=3", "sequences_per_client=6", "num_tokens=5", "dim=3"]
    sets = [part for text in small for part in ("--set", f"problem.{text}")]
    asked = 'methods=["fed_avg", "method.py:my_method", "method.py:stronger"]'
    where = ("--preset", "tiny", "--set", "deep=false", "--set", "seed=0", *sets)
    code, _, err = call(place, "run", "methods", *where, "--set", asked)
    assert code == 0, err
    (found,) = la.load_results(place / "results", "methods")
    assert list(found.dataset.method.values) == ["fed_avg", "my_method", "stronger"]
    assert (found.dataset.kernel_drift.values > 0.0).all()
    code, _, err = call(
        place, "run", "methods", *where, "--set", asked.replace("stronger", "three")
    )
    assert code == 1
    assert "methods must be Methods or functions of Choices that make one, but three is int." in err
    (place / "method.py").write_text(METHOD.replace("0.5)", "0.6)"), encoding="utf-8")
    code, out, _ = call(place, "run", "methods", *where, "--set", asked)
    assert out.endswith("1 computed, 0 there before\n")  # another text, another spec


def test_a_data_set_of_ones_own(place):
    """Items of unequal length, dealt at random or by a group; drawn under the name of its file."""
    rng, labels = np.random.default_rng(0), np.arange(40) % 2
    items = [rng.normal(size=(3 + k % 3, 2)) + label for k, label in enumerate(labels)]
    names = {"class_names": ["low", "high"], "channel_names": ["a", "b"]}
    wards = {"ward": np.repeat(["n", "s", "w", "e"], 10)}
    la.save_dataset(place / "mine own.npz", items, labels, **names, groups=wards)
    sets = ("dataset=mine own.npz", 'split=["iid", "ward"]', "alpha=null", "rounds=2",
            "factors=[1.0]", "warmup_shares=[0.5]")  # fmt: skip
    where = [word for text in sets for word in ("--set", text)]
    code, out, err = call(place, "run", "real_data", "--preset", "tiny", *where)
    assert code == 0, err
    assert out.endswith("2 computed, 0 there before\n")
    found = la.load_results(place / "results", "real_data")
    assert sorted(r.spec["split"] for r in found) == ["iid", "ward"]
    assert all(r.dataset.objective.notnull().all() for r in found)
    with pytest.raises(FileNotFoundError, match="those of `--set` are found by `--preset set`"):
        stored_results(place / "results", "real_data", None)
    labels = [
        group.label for group in groups(stored_results(place / "results", "real_data", "set"))
    ]
    assert labels == ["mine own, IID", "mine own, ward"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nothing_like_it\n", "line 1: ModuleNotFoundError: No module named 'nothing_like"),
        ("x = (\n", "line 1: '(' was never closed"),
        ("\nraise KeyError(3)\n", "line 2: KeyError: 3"),
        ("X = 1\n", "script must declare SIMULATION = Simulation(...)"),
    ],
)
def test_a_script_that_cannot_be_used_is_one_sentence(place, text, sentence):
    (place / "mine.py").write_text(text)
    code, _, err = call(place, "run", "mine.py")
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_files_of_ones_own_are_pinned(place):
    path = place / "method.py"
    text = own.pinned("methods", f"{path}:my_method")
    assert text.startswith(f"{path}#")
    assert own.pinned("methods", text) == text
    assert own.own_object(text).name == "mine"
    assert own.pinned("methods", "fed_avg") == "fed_avg"
    with pytest.raises(ValueError, match=r"methods must name a file that is there, got 'no\.py'"):
        own.pinned("methods", "no.py:x")
    with pytest.raises(ValueError, match="own object must be a name in"):
        own.own_object(f"{path}:nothing")
    with pytest.raises(ValueError, match="own object must be given as PATH"):
        own.own_file("fed_avg")
    path.write_text("X = 1\n")
    with pytest.raises(ValueError, match="has changed since this run was asked for"):
        own.own_object(text)


def test_a_file_is_imported_once_while_it_stays(place):
    path = place / "beside.py"
    assert find.load_module(path) is find.load_module(path)
    path.write_text("SCALE = 3.0\n")
    assert find.load_module(path).SCALE == 3.0
