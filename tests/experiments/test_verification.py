"""Verification in chunks: what is stored is not checked again, parts add up, recalled is shown."""

import csv
import json
import sys

import numpy as np
import pytest

from linattn.claims import Claim, Condition, Constant, get_claim
from linattn.claims.record import Measurement, judge
from linattn.claims.tally import from_record, merged, tally, to_record
from linattn.experiments import stages, verification
from linattn.experiments.stages import verify
from linattn.experiments.verification import CHUNK, Chunk, checked, tally_chunk, write_tables


def verdict(measured, bound, *, slack=1.0, kind="upper"):
    claim = Claim("X", "test", kind, "test", lambda instance: None)
    conditions, constants = (Condition("c", slack),), (Constant("k", 2.0, "h"),)
    return judge(
        claim, Measurement(measured, bound, 1.0, conditions=conditions, constants=constants)
    )


@pytest.fixture
def two_claims(monkeypatch):
    chosen = tuple(get_claim(name) for name in ("C1", "C6 segment"))
    monkeypatch.setattr(sys.modules["linattn.claims.table"], "claims", lambda: chosen)
    return chosen


def test_tally_counts_and_finds_the_worst():
    part = tally("X", [verdict(1.0, 2.0), verdict(1.0, 5.0), verdict(1.0, 0.5, slack=-1.0),
                       verdict(1e-9, 1.0)])  # fmt: skip
    assert part.counts == {"holds": 3, "refused": 1, "violated": 0, "reported": 0}
    assert (part.total, part.resolved, part.status) == (4, 2, "holds")
    assert sorted(part.tightness)[:2] == [2.0, 5.0]
    assert part.worst.tightness == pytest.approx(1e9)
    assert part.quantile(0.0) == 2.0
    broken = tally("X", [verdict(1.0, 2.0), verdict(2.0, 1.0)])
    assert (broken.status, broken.worst.measured) == ("violated", 2.0)
    empty = tally("X", [verdict(1.0, 0.5, slack=-1.0)])
    assert (empty.status, empty.worst) == ("refused", None)
    assert np.isnan(empty.quantile(0.5))


def test_parts_add_up_and_survive_the_store():
    verdicts = [verdict(1.0, 2.0 + k) for k in range(5)] + [verdict(3.0, 1.0)]
    whole = tally("X", verdicts)
    claim = Claim("X", "test", "upper", "test", lambda instance: None)
    parts = merged(claim, [tally("X", verdicts[:2]), tally("X", verdicts[2:])])
    assert parts == whole
    assert from_record(json.loads(json.dumps(to_record(whole)))) == whole


def test_a_long_run_continues(tmp_path, two_claims, monkeypatch):
    first = checked(tmp_path, instances=8, seed=1, workers=1)
    (stored,) = tmp_path.glob("verify/seed1-*/*.json")
    assert stored.name == Chunk(0, 8).name
    monkeypatch.setattr(verification, "_computed", lambda chunks, *a, **k: pytest.fail("again")
                        if chunks else iter(()))  # fmt: skip
    assert checked(tmp_path, instances=8, seed=1, workers=1) == first
    assert first[0].total == 8
    assert first[1].total == 2  # a quarter of the instances


def test_a_damaged_chunk_is_checked_again(tmp_path, two_claims):
    first = checked(tmp_path, instances=2, seed=1, workers=1)
    (stored,) = tmp_path.glob("verify/seed1-*/*.json")
    stored.write_text('[{"claim": "C1"}]', encoding="utf-8")
    assert checked(tmp_path, instances=2, seed=1, workers=1) == first


def test_only_what_is_missing_is_computed(tmp_path, two_claims, monkeypatch):
    asked = []

    def computed(chunks, work, *, workers):
        for chunk in chunks:
            asked.append(chunk)
            yield chunk, tally_chunk(work, Chunk(chunk.start, chunk.start + 1))

    monkeypatch.setattr(verification, "_computed", computed)
    seen = []
    checked(tmp_path, instances=CHUNK, seed=3, workers=1)
    checked(
        tmp_path,
        instances=2 * CHUNK + 1,
        seed=3,
        workers=1,
        observe=lambda done, _: seen.append(done),
    )
    assert asked == [Chunk(0, CHUNK), Chunk(CHUNK, 2 * CHUNK), Chunk(2 * CHUNK, 2 * CHUNK + 1)]
    assert seen == [2 * CHUNK, 2 * CHUNK + 1]


def test_workers_do_not_change_the_tallies(tmp_path, two_claims):
    one = checked(tmp_path / "one", instances=3, seed=2, workers=1)
    assert checked(tmp_path / "two", instances=3, seed=2, workers=2) == one


def test_claims_are_checked_until_enough_verdicts_are_resolved(tmp_path, two_claims, monkeypatch):
    """C1 is resolved everywhere, C6 segment on merged kernels only: it needs more instances."""
    monkeypatch.setattr(verification, "CHUNK", 2)
    monkeypatch.setattr(verification, "WAVE", 2)
    arguments = {"instances": 40, "seed": 1, "resolved": 5}  # 5 / 2 chunks, at most 2 a wave
    first = checked(tmp_path / "one", workers=1, **arguments)
    assert all(part.resolved >= 5 for part in first)
    assert first[0].total == 8  # two waves of two chunks
    assert 8 < first[1].total < 40
    assert checked(tmp_path / "two", workers=2, **arguments) == first
    monkeypatch.setattr(verification, "_computed", lambda chunks, *a, **k: pytest.fail("again")
                        if chunks else iter(()))  # fmt: skip
    assert checked(tmp_path / "one", workers=1, **arguments) == first


def test_only_the_chosen_claims_are_checked(tmp_path):
    """Another choice is another folder, so that no chunk is taken for the whole table's."""
    (part,) = checked(tmp_path, instances=2, seed=1, workers=1, chosen=["C11"])
    assert (part.claim, part.total) == ("C11", 2)
    (part,) = checked(tmp_path, instances=2, seed=1, workers=1, chosen=["C1"])
    assert (part.claim, part.total) == ("C1", 2)
    with pytest.raises(ValueError, match="claim"):
        checked(tmp_path, instances=2, seed=1, workers=1, chosen=["C99"])
    assert verify(tmp_path, instances=2, workers=1, chosen=["C1"]).rows[0].claim == "C1"


def test_a_small_chunk_is_split_without_empty_parts():
    assert Chunk(3, 6).split(5) == [Chunk(3, 4), Chunk(4, 5), Chunk(5, 6)]
    assert Chunk(0, 50).split(1) == [Chunk(0, 50)]


def test_tables_name_constants_and_slacks(tmp_path):
    parts = [tally("C3 bound", [verdict(1.0, 2.0)])]
    table, page, origin = write_tables(tmp_path, parts, {"seed": 3})
    assert json.loads(origin.read_text(encoding="utf-8")) == {"seed": 3}
    (row,) = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    assert row["claim"] == "C3 bound"
    assert row["constants"] == "k = 2 (h)"
    assert row["conditions"] == "c: slack 1"
    assert (row["instances"], row["resolved"], row["tightness_median"]) == ("1", "1", "2")
    assert "| C3 bound | upper | ours |" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "failed"), [("Khaled", []), ("C3 bound", ["C3 bound"])])
def test_a_violated_recalled_bound_is_shown_but_no_failure(tmp_path, monkeypatch, name, failed):
    monkeypatch.setattr(stages, "checked", lambda *a, **k: [tally(name, [verdict(2.0, 1.0)])])
    found = verify(tmp_path, instances=1, workers=1)
    assert found.violated == failed
    assert found.rows[0].verdict.startswith("violated (1 instances")
