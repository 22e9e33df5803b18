"""Drawing and verifying from the store: what is lacking is said, what is violated is an exit."""

from pathlib import Path

import numpy as np
import pytest
from experiments.sweeps import small_certificates
from experiments.toy import SIMULATION, ToySpec

from linattn.claims import get_claim
from linattn.claims.judge import judge
from linattn.claims.record import Measurement
from linattn.claims.tally import tally
from linattn.experiments import find, stages
from linattn.experiments.checks import worst
from linattn.experiments.engine import Report
from linattn.experiments.inventory import compare, forecast, inventory, merge, removable
from linattn.experiments.stages import stored_verdicts
from linattn.experiments.store import load_results, read_manifest, write_manifest
from scripts import call, fill, put, simulation


@pytest.fixture
def certificates(tmp_path):
    """A store with one certificate."""
    changes = small_certificates([0]) | {"horizon": 0.9, "local_steps": 6}
    fill(tmp_path, "certificate", simulation("certificate").specs("tiny", changes))
    return tmp_path


@pytest.fixture
def no_instances(monkeypatch):
    """Verify the stored results only."""
    held = [tally("C1", [judge(get_claim("C1"), Measurement(1.0, 1.0, 1.0))])]
    monkeypatch.setattr(stages, "checked", lambda output, **options: (held, Report(output)))


def test_no_store_has_no_stored_claims(tmp_path):
    assert stored_verdicts(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("variable", "claim"), [("certificate", "C4 stored"), ("residual", "C4 identity stored")]
)
def test_a_violated_stored_claim_is_an_exit_status(
    certificates, no_instances, capsys, variable, claim
):
    assert call("verify", "--output", certificates) == 0
    assert "violated" not in capsys.readouterr().out
    (result,) = load_results(certificates, "certificate")
    true = (
        result.dataset["profile"] - 2e-6 if variable == "certificate" else result.dataset[variable]
    )
    broken = result.dataset.assign({variable: true + 1e-6})
    held = simulation("certificate")
    put(certificates, held, held.spec_from(result.spec), broken)
    assert call("verify", "--output", certificates) == 1
    shown = capsys.readouterr()
    assert shown.err == f"violated: {claim}\n"
    assert shown.out.splitlines()[0].split() == [
        "claim", "measured", "analytical", "tightness", "verdict"
    ]  # fmt: skip


def test_worst_finds_the_largest_excess_and_skips_divergence():
    measured = np.array([1.0, 3.0, np.inf])
    bound = np.array([2.0, 3.0 + 1e-12, np.inf])
    verdict = worst("x", "y", "upper", [(measured, bound, np.ones(3))])
    assert (verdict.measured, verdict.status) == (3.0, "holds")
    assert worst("x", "y", "lower", [(measured, bound, np.ones(3))]).status == "violated"
    assert worst("x", "y", "identity", [(measured, bound, 1.0)], 1e-13).status == "violated"
    assert worst("x", "y", "upper", [(np.inf, 1.0, 1.0)]).status == "vacuous"


def test_entries_of_rounding_decide_only_where_there_are_no_others():
    rounding, telling, broken = (1e-17, 9e-16, 1.0), (0.5, 0.5, 1.0), (1e-17, 1e-6, 1.0)
    for columns, status in (
        ([rounding, telling], "holds"), ([rounding], "vacuous"), ([broken, telling], "violated"),
    ):  # fmt: skip
        assert worst("x", "y", "identity", columns).status == status


FIGURE = '''
NAME, SIMULATION = "one", "toy"

def draw(results, folder, look):
    """Draw."""
    path = folder / "one.png"
    path.write_bytes(b"png")
    return [path]

def summary(results):
    """Say a number."""
    return f"{len(results)} runs"
'''


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A working directory with a simulation and a figure, and no others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(find, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    for folder in ("figures", "simulations"):
        (tmp_path / folder).mkdir()
    (tmp_path / "figures" / "_shared.py").write_text("raise RuntimeError('not a figure')")
    (tmp_path / "figures" / "one.py").write_text(FIGURE)
    toy = SIMULATION.path.read_text(encoding="utf-8")
    (tmp_path / "simulations" / "toy.py").write_text(toy, encoding="utf-8")
    return tmp_path


def test_figures_say_what_is_lacking(repository, capsys):
    assert call("figures") == 2
    assert "output must be a folder with results, got results" in capsys.readouterr().err
    assert not (repository / "results").exists()
    (repository / "results").mkdir()
    assert call("figures") == 1
    lacking = "no results of toy in results; make them with `linattn run toy --output results`.\n"
    assert capsys.readouterr().err == lacking
    assert call("run", "toy", "--preset", "few", "--workers", 1) == 0
    capsys.readouterr()
    assert call("figures", "one") == 0
    assert capsys.readouterr().out == "one\n  2 runs\nresults/figures/one.png\n"


def test_reproduce_goes_through_all_stages(repository, no_instances, capsys):
    assert call("reproduce", "--preset", "few", "--workers", 1, "--only", "toy") == 0
    shown = capsys.readouterr().out
    assert "2 of 2 runs stored" in shown
    for stage in ("simulations: ", "figures: ", "claims: ", "all: "):
        assert stage in shown
    last = "Results are in results, 1 files of figures in results/figures."
    assert shown.splitlines()[-2:] == [last, "Everything on one page: results/report.html"]
    assert "2 stored runs" in (repository / "results" / "report.html").read_text(encoding="utf-8")
    assert list(read_manifest("results", "toy")) == ["few"]


def test_dry_run_computes_nothing_and_learns(repository, capsys):
    assert call("run", "toy", "--preset", "few", "--dry-run") == 0
    unknown = "2 runs, 0 stored, 2 to compute; time unknown, disk unknown.\n"
    assert capsys.readouterr().out == unknown
    assert not (repository / "results").exists()
    call("run", "toy", "--preset", "few", "--workers", 1)
    tasks = SIMULATION.tasks("few", {"seed": [0, 1, 2, 3]})
    known = forecast(tasks, repository / "results")
    assert (known.runs, known.stored) == (4, 2)
    assert known.seconds is not None
    assert known.size is not None
    capsys.readouterr()
    assert call("run", "toy", "--preset", "few", "--dry-run") == 0
    assert "2 runs, 2 stored, 0 to compute" in capsys.readouterr().out
    assert call("reproduce", "--preset", "few", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["toy", "all"]
    assert all("2 runs, 2 stored, 0 to compute" in line for line in lines)


def test_dry_run_foresees_what_was_asked_and_changes_nothing(repository, capsys):
    call("run", "toy", "--preset", "few", "--workers", 1)
    path = next(Path("results").glob("*.nc"))
    path.write_bytes(b"")
    capsys.readouterr()
    for options, told in (
        ((), "2 runs, 1 stored, 1 to compute"),
        (("--force",), "2 runs, 0 stored, 2 to compute"),
        (("--shard", "1/2"), "1 runs, "),
    ):
        assert call("run", "toy", "--preset", "few", "--dry-run", *options) == 0
        assert capsys.readouterr().out.startswith(told)
    assert path.read_bytes() == b""
    assert call("run", "toy", "--dry-run", "--workers", 0) == 2
    tasks = SIMULATION.tasks("few", {"seed": list(range(40))})
    few, many = (forecast(tasks, Path("results"), workers=k, force=True) for k in (1, 10_000))
    assert few.seconds > many.seconds > 0.0


def test_a_figure_that_fails_ends_no_other(repository, capsys):
    call("run", "toy", "--preset", "few", "--workers", 1)
    for name, broken in (
        ("two", "raise KeyError('i')"),
        ("three", "raise SystemExit(0)"),
        ("four", "return None"),
    ):
        text = FIGURE.replace('path = folder / "one.png"', broken).replace('"one"', f'"{name}"')
        (repository / "figures" / f"{name}.py").write_text(text)
    capsys.readouterr()
    assert call("figures") == 1
    shown = capsys.readouterr()
    assert shown.out.endswith("results/figures/one.png\n")
    assert [line.partition(".py cannot draw: ")[2] for line in shown.err.splitlines()] == [
        "TypeError: 'NoneType' object is not iterable",
        "line 6: SystemExit: 0",
        "line 6: KeyError: 'i'",
    ]
    (repository / "figures" / "one.py").write_text(FIGURE.replace('"toy"', "3"))
    assert call("figures", "one") == 2
    assert "SIMULATION of a figure must be a name" in capsys.readouterr().err


def test_a_bad_look_is_seen_before_the_runs(repository, capsys):
    assert call("reproduce", "--preset", "few", "--width", 0) == 2
    assert "width must be" in capsys.readouterr().err
    assert not (repository / "results").exists()


def stored(store, specs, held=SIMULATION):
    """Files of runs in a folder of their own."""
    store.mkdir(exist_ok=True)
    return [put(store, held, spec) for spec in specs]


def test_the_inventory_counts_and_notes(tmp_path):
    paths = stored(tmp_path, SIMULATION.specs("few"))
    own = put(tmp_path, SIMULATION, ToySpec(size=9))
    paths[1].write_bytes(b"")
    rows, notes = inventory([SIMULATION], tmp_path)
    few = next(row for row in rows if row.preset == "few")
    assert (few.runs, few.stored, few.missing, few.stale) == (2, 1, 1, 0)
    assert set(notes) == {f"{paths[1].name}: damaged", f"{own.name}: stored, in no preset"}
    assert removable([SIMULATION], tmp_path) == [(paths[1], "damaged")]
    gone = dict(removable([], tmp_path))
    assert gone[own] == "of toy, no simulation here; name its script to keep it"
    _, notes = inventory([], tmp_path)
    assert f"{own.name}: stored, of toy, no simulation here; name its script" in notes


def test_clean_asks_first(tmp_path, capsys, monkeypatch):
    path = put(tmp_path, SIMULATION, ToySpec())
    monkeypatch.setattr("typer.confirm", lambda text: False)
    assert call("clean", "--output", tmp_path) == 0
    assert path.exists()
    assert call("clean", "--output", tmp_path, "--yes") == 0
    assert not path.exists()
    assert capsys.readouterr().out.endswith("1 files removed.\n")
    assert call("clean", "--output", tmp_path) == 0
    assert "Nothing to remove" in capsys.readouterr().out


def test_own_simulations_are_judged_once_they_are_named(tmp_path, capsys):
    """Listed with their presets, stale when their script has changed, and not foreign."""
    script, store = tmp_path / "my sim ü.py", tmp_path / "store"
    text = SIMULATION.path.read_text(encoding="utf-8")
    script.write_text(text, encoding="utf-8")
    held = find.load_simulation(script)
    paths = stored(store, held.specs("few"), held)
    assert call("clean", script, "--output", store) == 0
    assert "Nothing to remove" in capsys.readouterr().out
    for added, counts in (("", ["2", "2", "0", "0"]), ("\n# other", ["2", "0", "0", "2"])):
        script.write_text(text + added, encoding="utf-8")
        assert call("list", script, "--output", store) == 0
        rows = [line.split()[-5:] for line in capsys.readouterr().out.splitlines()]
        assert ["few", *counts] in rows
    assert call("clean", script, "--output", store, "--yes") == 0
    assert not any(path.exists() for path in paths)
    assert call("list", tmp_path / "none.py") == 2
    assert "script must be a file or one of" in capsys.readouterr().err


def test_compare_says_what_moved(tmp_path, capsys):
    first, second = tmp_path / "a", tmp_path / "b"
    for store in (first, second):
        stored(store, SIMULATION.specs("few"))
    assert compare(first, second).equal
    changed = SIMULATION.run(ToySpec())
    changed["draws"].values[0] += 1e-3
    name = put(second, SIMULATION, ToySpec(), changed).name
    put(second, SIMULATION, ToySpec(seed=9))
    moved = compare(first, second)
    assert [(run, variable) for run, variable, _ in moved.changes] == [(name, "draws")]
    assert (moved.shared, moved.only_first, moved.only_second) == (2, 0, 1)
    assert call("compare", first, second) == 1
    assert "2 runs in both, 1 with numbers that moved" in capsys.readouterr().out
    (second / name).write_bytes(b"")
    assert call("compare", first, second) == 1
    assert f"{second / name} is damaged and left out." in capsys.readouterr().out


def test_stores_are_merged_unless_they_disagree(tmp_path):
    first, second, target = (tmp_path / name for name in "abc")
    stored(first, SIMULATION.specs("few"))
    stored(second, [ToySpec(seed=7)])
    write_manifest(first, "toy", "few", SIMULATION.tasks("few"))
    assert merge([first, second], target).startswith("3 results copied")
    assert len(load_results(target, "toy", preset="few")) == 2
    put(second, SIMULATION, ToySpec(), SIMULATION.run(ToySpec(seed=5)))
    with pytest.raises(ValueError, match="differs between"):
        merge([second], target)
    for path in second.glob("*.nc"):
        path.write_bytes(b"")
    assert merge([second], target).endswith(f"{path}.")
