"""Verification on the engine: chunks are runs, parts add up, nothing is checked twice."""

import csv
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hostile.stores import Inline
from processes import finished

from linattn.claims import Claim, Condition, Constant, get_claim
from linattn.claims.adversary import sizes
from linattn.claims.instances import random_instance, suited
from linattn.claims.judge import STATUSES, judge
from linattn.claims.record import Measurement
from linattn.claims.table import check_instance
from linattn.claims.tally import merged, tally
from linattn.claims.worst import Found
from linattn.experiments import stages, verification
from linattn.experiments.engine import Report, compute_tasks
from linattn.experiments.stages import verify
from linattn.experiments.store import load_results
from linattn.experiments.verification import checked, families, judged, tightest, write_tables
from scripts import simulation

FEW = ("C1", "C3", "C11")


def verdict(measured, bound, *, slack=1.0):
    claim = Claim("X", "test", "upper", "test", lambda instance: None)
    conditions, constants = (Condition("c", slack),), (Constant("k", 2.0, "h"),)
    return judge(claim, Measurement(measured, bound, 1.0, constants=constants), conditions)


@pytest.fixture
def inline(monkeypatch):
    """No workers: what is asked for, not how it is computed."""
    monkeypatch.setattr(verification, "compute_tasks", partial(compute_tasks, backend=Inline))


@pytest.fixture
def short(monkeypatch, inline):
    """Chunks of two instances, two of them between decisions."""
    monkeypatch.setattr(verification, "CHUNK", 2)
    monkeypatch.setattr(verification, "WAVE", 2)


def test_a_run_is_the_verdicts_on_its_instances(tmp_path, inline):
    parts, _ = checked(tmp_path, instances=3, seed=4, chosen=["C3 bound", "Khaled"], workers=1)
    assert [part.claim for part in parts] == ["C3 bound", "Khaled"]
    for part in parts:
        claim = get_claim(part.claim)
        alone = [check_instance(claim, suited(random_instance(4, k), claim)) for k in range(3)]
        assert part == tally(part.claim, alone)
        (found,) = (
            r.dataset.sel(claim=part.claim)
            for r in load_results(tmp_path, "claims")
            if part.claim in r.dataset.claim.values
        )
        assert [STATUSES[int(s)] for s in found.status.values] == [v.status for v in alone]
        np.testing.assert_array_equal(found.tightness, [v.tightness for v in alone])
        assert bool(found.recalled) is (part.claim == "Khaled")


def test_what_is_stored_is_not_checked_again(tmp_path, short):
    first, report = checked(tmp_path, instances=4, seed=1, chosen=FEW, workers=1)
    assert (report.computed, report.reused) == (6, 0)
    again, report = checked(tmp_path, instances=6, seed=1, chosen=FEW, workers=2)
    assert (report.computed, report.reused) == (3, 6)
    assert [part.total for part in first] == [4, 4, 4]
    assert [part.total for part in again] == [6, 6, 6]


def test_claims_are_checked_until_enough_verdicts_are_resolved(tmp_path, short):
    """C1 is resolved everywhere, C3 on merged kernels only: it needs more instances."""
    arguments = {"instances": 40, "seed": 1, "resolved": 5, "chosen": FEW}
    first, _ = checked(tmp_path / "one", workers=1, **arguments)
    assert all(part.resolved >= 5 for part in first)
    assert first[0].total == 6  # a wave of two chunks, and one more
    assert 6 < first[1].total < 40
    assert checked(tmp_path / "two", workers=2, **arguments)[0] == first
    _, report = checked(tmp_path / "one", workers=1, **arguments)
    assert report.computed == 0


def test_every_wave_says_how_many_verdicts_are_there(tmp_path, short, monkeypatch, capsys):
    monkeypatch.setattr(verification, "WAVE", 1)
    names = ["C1", "C7"]
    found, _ = checked(tmp_path, instances=40, seed=1, resolved=3, chosen=names, workers=1)
    told = [line for line in capsys.readouterr().err.splitlines() if "verdicts" in line]
    assert len(told) > 1
    assert told[-1] == "2 of 2 claims have all their verdicts"
    (first,) = {f"{tally.claim} has 2 of 3" for tally in found} & {told[0].rpartition("; ")[2]}
    assert told[0] == f"0 of 2 claims have all their verdicts; {first}"


def test_a_claim_is_checked_no_further_than_its_record(tmp_path, short, monkeypatch):
    def of_three(names, own=""):
        return [replace(get_claim(name), record=3) for name in names]

    monkeypatch.setattr(verification, "chosen_claims", of_three)
    (one,), _ = checked(tmp_path, instances=40, seed=1, resolved=5, chosen=["C1"], workers=1)
    assert one.total == one.resolved == 4  # two chunks of two


def test_another_text_of_a_claim_is_another_run():
    by_claim = {name: family for family in families() for name in family.claims}
    held = simulation("claims")
    tasks = [
        held.task(held.spec(claims=("C1",), source=source))
        for source in (by_claim["C1"].source, "0" * 64)
    ]
    assert tasks[0].digest != tasks[1].digest
    assert by_claim["C15"].share < 1.0
    assert by_claim["C15"].claims == ("C15",)


def test_there_must_be_such_a_claim(tmp_path):
    with pytest.raises(ValueError, match="claim must be one of 'C1'"):
        checked(tmp_path, instances=2, chosen=["C99"])
    with pytest.raises(ValueError, match="instances must be"):
        checked(tmp_path, instances=0)
    for name in ("instances", "resolved"):
        with pytest.raises(ValueError, match=f"{name} must be an integer <= 10000000, got 1000"):
            checked(tmp_path, **({"instances": 1} | {name: 10**24}))


def test_tables_name_constants_and_slacks(tmp_path):
    parts = [tally("C3 bound", [verdict(1.0, 2.0)])]
    table, page, origin = write_tables(tmp_path, parts, {"seed": 3})
    held = json.loads(origin.read_text(encoding="utf-8"))
    assert held["seed"] == 3
    assert {"numerics", "library", "versions"} <= held.keys()
    (row,) = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    assert row["claim"] == "C3 bound"
    assert row["constants"] == "k = 2 (h)"
    assert row["conditions"] == "c: slack 1"
    assert (row["instances"], row["resolved"], row["tightness_median"]) == ("1", "1", "2")
    assert verification.source_of("C3 bound").startswith(row["file"])
    assert "| C3 bound | upper | ours |" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "measured", "failed", "holds"),
    [
        ("Khaled", 2.0, [], False),  # recalled: shown, but no failure of ours; nothing held
        ("C3 bound", 2.0, ["C3 bound"], False),
        ("C3 bound", 0.5, [], True),
    ],
)
def test_what_is_a_failure(tmp_path, monkeypatch, name, measured, failed, holds):
    whole = Report(tmp_path), [tally(name, [verdict(measured, 1.0)])]
    monkeypatch.setattr(stages, "checked", lambda *a, **k: whole[::-1])
    found = verify(tmp_path, instances=1, workers=1)
    assert found.violated == failed
    assert found.holds is holds
    assert found.rows[0].verdict.startswith("holds" if holds else "violated (1 instances")


def test_nothing_judged_is_no_success(tmp_path, monkeypatch):
    idle = [tally("C3 bound", [verdict(0.5, 1.0, slack=-1.0)])]
    monkeypatch.setattr(stages, "checked", lambda *a, **k: (idle, Report(tmp_path)))
    found = verify(tmp_path, instances=1)
    assert found.counts == {"refused": 1}
    assert not found.holds


def test_searches_are_runs_and_their_best_is_kept(tmp_path, inline):
    found = tightest(tmp_path, "C3 bound", evaluations=100, minutes=5.0, workers=1)
    runs = load_results(tmp_path, "tightest")
    assert len(runs) == 3
    assert found.tightness == pytest.approx(min(np.exp(float(r.dataset.value)) for r in runs))
    assert found.evaluations == sum(int(r.dataset.evaluations) for r in runs)
    assert check_instance(get_claim("C3 bound"), found.instance).tightness == found.tightness
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nc")}
    assert tightest(tmp_path, "C3 bound", evaluations=100, minutes=5.0, workers=1) == found
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nc")}


OWN = '''
"""A claim of one's own."""
from linattn.claims import Claim, Measurement
from linattn.objectives import Joint

def measure(instance):
    value = Joint(instance.problem).value(instance.params)
    return Measurement(value, FACTOR * value, abs(value))

FACTOR = 2.0
CLAIMS = (Claim("mine", "F ≤ 2F", "upper", "nowhere", measure),)
'''


def test_claims_of_ones_own(tmp_path):
    place = tmp_path / "Günthers Ordner"
    place.mkdir()
    path = place / "mine.py"
    path.write_text(OWN, encoding="utf-8")

    call = partial(finished, "-m", "linattn", "verify", "--from", "mine.py", place=place)
    code, out, err = call("--instances", "3", "--workers", "2")
    assert code == 0, err
    assert out.splitlines()[1].split()[0] == "mine"
    assert out.splitlines()[-1] == "1 holds"
    path.write_text(OWN.replace("FACTOR = 2.0", "FACTOR = 0.5"), encoding="utf-8")
    code, _, err = call("--instances", "3")
    assert code == 1
    assert err.splitlines()[-1] == "violated: mine"
    code, _, err = call("--claim", "other")
    assert code == 2
    assert "claim must be one of mine of mine.py, got 'other'" in err
    path.write_text("X = 1\n", encoding="utf-8")
    assert "file must declare CLAIMS = (Claim(...), ...)" in call()[2]


def test_a_claim_that_raises_is_named_and_hides_no_verdict(tmp_path, inline, monkeypatch):
    """What was checked is told, and the table of a complete run stays."""
    monkeypatch.setattr(verification, "CHUNK", 1)
    path = tmp_path / "mine.py"
    raising = OWN.replace(
        "    value =", "    if instance.seed == SEEDS[1]: raise KeyError('third')\n    value ="
    )
    seeds = [random_instance(0, k).seed for k in range(2)]
    path.write_text(
        raising.replace("FACTOR = 2.0", f"FACTOR, SEEDS = 0.5, {seeds}"), encoding="utf-8"
    )
    whole = verify(tmp_path, instances=1, workers=1, own=path)
    assert whole.violated == ["mine"]
    before = (tmp_path / "verify" / "claims.csv").read_bytes()
    broken = verify(tmp_path, instances=2, workers=1, own=path)
    (failure,) = broken.report.failures
    assert "RuntimeError: claim 'mine': KeyError: 'third'" in failure.sentence
    assert broken.rows[0].verdict == "violated (1 instances)"
    assert (tmp_path / "verify" / "claims.csv").read_bytes() == before
    assert merged(get_claim("C1"), []).status == "not checked"


def test_own_claims_have_distinct_ids(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN + "CLAIMS += CLAIMS\n", encoding="utf-8")
    with pytest.raises(ValueError, match="ids of CLAIMS must be distinct"):
        families(own=path)


@pytest.mark.parametrize(("factor", "status"), [(2.0, "holds"), (0.5, "violated")])
def test_the_tightest_instance_is_judged(tmp_path, factor, status):
    path = tmp_path / "mine.py"
    path.write_text(OWN.replace("FACTOR = 2.0", f"FACTOR = {factor}"), encoding="utf-8")
    vector = tuple(np.random.default_rng(0).uniform(-1.0, 1.0, sum(sizes(factored=False))))
    found = Found("mine", False, vector, factor, 1.0, 1, "random search")
    assert judged(found, path) == status
