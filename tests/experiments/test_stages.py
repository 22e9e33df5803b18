"""Drawing and verifying from the store: what is lacking is said, what is violated is an exit."""

import sys

import numpy as np
import pytest
import xarray as xr
from experiments.toy_runs import SMALL

from linattn.claims import get_claim
from linattn.cli import main
from linattn.experiments import catalog, stages
from linattn.experiments.checks import verdicts, worst
from linattn.experiments.specs import CertificateSpec, FrozenStageSpec
from linattn.experiments.stages import draw, verify
from linattn.experiments.store import load_results, write_manifest, write_result
from linattn.experiments.worker import compute

CERTIFICATE = CertificateSpec(problem=SMALL, rounds=6, local_steps=(1, 4), num_starts=2)
FROZEN = FrozenStageSpec(problem=SMALL, rounds=6, local_steps=(1, 4), settle_rounds=8)


@pytest.fixture
def filled(tmp_path):
    """A store with one certificate and one frozen stage."""
    for spec in (CERTIFICATE, FROZEN):
        write_result(tmp_path, spec, compute(spec))
        name = str(type(spec).__struct_config__.tag)
        write_manifest(tmp_path, name, preset="tiny", specs=[spec])
    return tmp_path


@pytest.fixture
def no_instances(monkeypatch):
    """Verify the stored results only."""
    monkeypatch.setattr(stages, "checked", lambda output, **options: [])


def tamper(store, **changes):
    """Change variables of the stored certificate."""
    (result,) = load_results(store, "certificate")
    changed = result.dataset.copy(deep=True)
    for name, value in changes.items():
        changed[name].values[:] = value(changed[name].values)
    write_result(store, result.spec, changed)


def test_stored_claims_hold(filled):
    found = {verdict.claim: verdict for verdict in verdicts(filled)}
    assert set(found) == {
        "C4 stored",
        "C4 identity stored",
        "C7 stored",
        "C8 stored",
        "C8 bound stored",
        "C8 null stored",
    }
    assert {verdict.status for verdict in found.values()} == {"holds"}
    assert found["C4 stored"].tightness >= 1.0
    assert found["C8 bound stored"].tightness > 1.0


def test_no_store_has_no_stored_claims(tmp_path):
    assert verdicts(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"certificate": lambda x: x - 1e-6}, "C4 stored"),
        ({"residual": lambda x: x + 1e-6}, "C4 identity stored"),
    ],
)
def test_a_violated_stored_claim_is_an_exit_status(filled, no_instances, capsys, changes, claim):
    tamper(filled, **changes)
    with pytest.raises(SystemExit) as end:
        main(["verify", "--output", str(filled)])
    assert end.value.code == 1
    shown = capsys.readouterr()
    assert shown.err == f"violated: {claim}\n"
    assert shown.out.splitlines()[0].split() == [
        "claim", "measured", "analytical", "tightness", "verdict"
    ]  # fmt: skip


def test_verify_of_a_good_store_is_status_0(filled, no_instances, capsys):
    with pytest.raises(SystemExit) as end:
        main(["verify", "--output", str(filled)])
    assert not end.value.code
    assert "violated" not in capsys.readouterr().out


def test_worst_finds_the_largest_excess_and_skips_divergence():
    measured = np.array([1.0, 3.0, np.inf])
    bound = np.array([2.0, 3.0 + 1e-12, np.inf])
    verdict = worst("x", "y", "upper", [(measured, bound, np.ones(3))])
    assert (verdict.measured, verdict.status) == (3.0, "holds")
    assert worst("x", "y", "lower", [(measured, bound, np.ones(3))]).status == "violated"
    assert worst("x", "y", "identity", [(measured, bound, 1.0)], 1e-13).status == "violated"
    assert worst("x", "y", "upper", [(np.inf, 1.0, 1.0)]).status == "holds"


def test_claims_are_checked_side_by_side(tmp_path, monkeypatch):
    chosen = tuple(get_claim(name) for name in ("C1", "C3"))
    monkeypatch.setattr(sys.modules["linattn.claims.table"], "claims", lambda: chosen)
    verified = verify(tmp_path, instances=2, workers=1)
    assert [row.claim for row in verified.rows] == ["C1", "C3"]
    assert verified.rows[0].tightness.startswith("residual")
    assert "2 instances" in verified.rows[0].verdict
    assert verified.violated == []


FIGURE = '''
from pathlib import Path

def draw(store, out):
    """Draw."""
    if not (Path(store) / "data").exists():
        raise FileNotFoundError("no results of {name}; make them.")
    path = Path(out) / "{name}.png"
    path.write_bytes(b"png")
    return [path]

def summary(store):
    """Say a number."""
    return "median 3"
'''


@pytest.fixture
def figure_scripts(tmp_path, monkeypatch):
    """Two figures and a module that they share, in a working directory of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "_shared.py").write_text("raise RuntimeError('not a figure')")
    (folder / "one.py").write_text(FIGURE.format(name="one"))
    (folder / "helper.py").write_text("X = 1")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("_linattn_figures")]:
        del sys.modules[name]


def test_figures_say_what_is_lacking(figure_scripts, capsys):
    store = figure_scripts / "results"
    assert draw(store).lacking == ["no results of one; make them."]
    with pytest.raises(SystemExit) as end:
        main(["figures", "--output", str(store)])
    assert end.value.code == 1
    assert capsys.readouterr().err == "no results of one; make them.\n"
    (store / "data").touch()
    assert draw(store).made == [store / "figures" / "one.png"]
    assert draw(store).summaries == [("one", "median 3")]
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["figures", "--output", str(store)])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("one\n  median 3\n")


def test_reproduce_goes_through_all_stages(figure_scripts, no_instances, capsys):
    (figure_scripts / "simulations").mkdir()
    script = "from experiments.toy_runs import SWEEP\n"
    (figure_scripts / "simulations" / "toy.py").write_text(script)
    store = figure_scripts / "results"
    store.mkdir()
    (store / "data").touch()
    with pytest.raises(SystemExit) as end:
        main(["reproduce", "--preset", "few", "--workers", "1", "--output", str(store)])
    shown = capsys.readouterr()
    assert end.value.code == 0, shown.err
    assert "2 of 2 runs stored" in shown.out
    for stage in ("simulations: ", "figures: ", "claims: ", "all: "):
        assert stage in shown.out
    assert shown.out.splitlines()[-2:] == [
        str(store / "figures" / "one.png"),
        f"Results are in {store}, figures in {store / 'figures'}.",
    ]
    assert isinstance(load_results(store)[0].dataset, xr.Dataset)
