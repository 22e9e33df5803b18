"""The command line: commands, listings, errors in one sentence, exit statuses."""

import pytest
from processes import ROOT, finished

import linattn
from linattn.cli import main, simulation_main, table
from linattn.experiments import find
from scripts import call, simulation


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing"], "script must be a file or one of bias_drift"),
        (["bias_drift", "--preset", "huge"], "must be one of paper, quick, tiny, got 'huge'"),
        (["bias_drift", "--set", "nois=1"], "unknown key 'nois'; did you mean problem.noise?"),
        (["bias_drift", "--set", "horizon"], "--set must be given as key=value, got 'horizon'"),
        (["bias_drift", "--set", "horizon=-3"], "horizon must be a finite number > 0, got -3."),
        (["bias_drift", "--workers", "0"], "workers must be an integer >= 1, got 0."),
        (["bias_drift", "--shard", "3/2"], "--shard must be K/N with 1 <= K <= N"),
        (["bias_drift", "--set", "seed=1", "--set", "seed=2"], "every key once, got 'seed'"),
        ([str(ROOT / "pyproject.toml")], "script must be a Python file"),
        ([str(ROOT / "linattn" / "__main__.py")], "script must declare SIMULATION"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(arguments, sentence, capsys, tmp_path):
    assert call("run", *arguments, "--output", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert err.startswith("linattn: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_an_output_that_is_a_file(capsys, tmp_path):
    file = tmp_path / "results"
    file.write_text("precious")
    assert call("run", "bias_drift", "--preset", "tiny", "--output", str(file)) == 2
    assert "output must be a folder with room for new files" in capsys.readouterr().err
    assert call("list", "--output", str(file)) == 2
    assert f"store must be a folder, got {file}." in capsys.readouterr().err
    assert file.read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--width", "0"], "width must be >= 1 and <= 100, got 0.0."),
        (["--width", "nan"], "width must be a finite number >= 1 and <= 100, got nan."),
        (["--width", "1e9"], "width must be >= 1 and <= 100, got 1000000000.0."),
        (["--style", "none"], "style must be a matplotlib style or a file of one, got 'none' ("),
        (["--style", "."], "style must be a matplotlib style or a file of one, got '.' ("),
    ],
)
def test_a_look_that_cannot_be(arguments, sentence, capsys, tmp_path):
    assert call("figures", "bounds", "--output", str(tmp_path), *arguments) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


def test_debugging_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("LINATTN_DEBUG", "1")
    with pytest.raises(ValueError, match="script must be a file or one of"):
        main(["run", "nothing"])


def test_scripts_must_be_somewhere(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(find, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert call("list") == 2
    err = capsys.readouterr().err
    assert f"simulations/ must lie in {tmp_path / 'a'} or beside it" in err
    assert err.count("\n") == 1


def test_scripts_of_an_installed_package_lie_inside_it(monkeypatch, tmp_path):
    monkeypatch.setattr(find, "__file__", str(tmp_path / "linattn" / "b" / "c.py"))
    for folder in ("linattn/simulations", "simulations"):  # the second is another package's
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "mine.py").write_text("SIMULATION = 3\n")
    (found,) = find.find_scripts("simulations")
    assert found == tmp_path / "linattn" / "simulations" / "mine.py"
    with pytest.raises(ValueError, match="script must declare SIMULATION"):
        find.load_simulation(find.find_script("mine"))


def test_list_of_an_empty_place(tmp_path, capsys):
    assert call("list", "--output", str(tmp_path / "none")) == 0
    assert not (tmp_path / "none").exists()
    assert "bias_drift" in capsys.readouterr().out


def test_bias_drift_has_the_grids_of_the_contract():
    sweep = simulation("bias_drift")
    paper, quick, tiny = (sweep.specs(preset) for preset in ("paper", "quick", "tiny"))

    def grid(specs):
        return {
            (s.seed, s.problem.value_heterogeneity, s.problem.covariate_heterogeneity, s.local_lr,
             s.local_steps)
            for s in specs if s.horizon == 60.0
        }  # fmt: skip

    worlds = [(0.0, 0.3), (0.4, 0.3), (0.75, 0.0), (0.75, 0.3), (1.5, 0.3)]
    pairs = [(0.005, 9), (0.005, 21), (0.005, 41), (0.005, 81), (0.005, 201), (0.01, 5), (0.01, 11),
             (0.01, 21), (0.01, 41), (0.01, 101), (0.02, 3), (0.02, 6), (0.02, 11), (0.02, 21),
             (0.02, 51), (0.005, 1), (0.01, 1), (0.02, 1)]  # fmt: skip
    assert grid(paper) == {(s, *world, *pair) for s in range(10) for world in worlds
                           for pair in pairs}  # fmt: skip
    assert {"merged", "factored"} == {s.initial.kernel for s in paper}
    assert {0.0, 0.5} == {s.problem.kernel_heterogeneity for s in paper}
    assert {1, 2} == {s.initial.num_heads for s in paper}
    assert {0.25, 1.0} == {s.participation for s in paper}
    assert {None, 8} == {s.batch_size for s in paper}
    few = [(0.01, 1), (0.01, 11), (0.02, 11), (0.02, 21)]
    assert grid(quick) == {(s, *world, *pair) for s in range(3) for world in worlds[1:]
                           for pair in few}  # fmt: skip
    assert [(s.local_lr, s.local_steps, s.horizon) for s in tiny] == [(0.02, 6, 10.0)]


def test_a_table_is_aligned():
    assert table([("claim", "n"), ("C1", 10)]) == "claim  n\nC1     10"


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"linattn {linattn.__version__}\n"


def test_help_of_a_script(capsys):
    with pytest.raises(SystemExit) as end:
        simulation_main(simulation("bias_drift"), ["--help"])
    assert end.value.code == 0
    assert "--preset" in capsys.readouterr().out


def test_python_m_linattn():
    code, _, err = finished("-m", "linattn", "run", "nothing", place=ROOT)
    assert code == 2
    assert err.startswith("linattn: script must be")
