"""The stored verdicts on random settings, and what the script that stores them would notice."""

import csv
import json
from dataclasses import replace

import pytest
from claim_cases.pairs import small
from claim_cases.table import CASES
from pages import NOTES, RECORD

import linattn as la
from linattn.claims import Condition, Instance, get_claim
from linattn.claims.judge import STATUSES
from linattn.claims.table import check_instance
from scripts import module

SCRIPT = module("guard_settings", "scripts")
FOLDER = RECORD / "guards"
SUMMARY = json.loads((FOLDER / "summary.json").read_text(encoding="utf-8"))


def table(name):
    """The counts of each row by status."""
    with (FOLDER / name).open(encoding="utf-8") as file:
        rows = csv.reader(file)
        assert next(rows)[1:] == list(STATUSES)
        return {name: dict(zip(STATUSES, map(int, counts), strict=True)) for name, *counts in rows}


def test_the_record_is_of_every_claim_and_method_and_nothing_is_wrong():
    claims, methods = table("by_claim.csv"), table("by_method.csv")
    recorded = {name for name, case in CASES.items() if case.recorded}
    assert recorded <= set(claims) <= {claim.id for claim in la.claims()}
    assert set(methods) == set(SCRIPT.METHODS)
    for status in STATUSES:
        assert sum(row[status] for row in claims.values()) == SUMMARY[status]
        assert sum(row[status] for row in methods.values()) == SUMMARY[status]
    assert SUMMARY["settings"] >= 500
    assert SUMMARY["wrong"] == 0
    recalled = {claim.id for claim in la.claims() if claim.provenance == "recalled"}
    assert not any(claims[name]["violated"] for name in set(claims) - recalled)


def test_the_notes_say_what_the_record_says():
    notes = NOTES.read_text(encoding="utf-8")
    assert f"in {SUMMARY['settings']} settings" in notes
    assert f"{SUMMARY['verdicts']:,} verdicts" in notes


@pytest.fixture
def setting():
    problem, params = small()
    return Instance(problem=problem, params=params, local_steps=3, local_lr=0.02, rounds=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"kind": "report"}, "unjudged"),
        ({"needs": get_claim("C4").needs}, "need"),
        ({"bound": float("inf")}, "not finite"),
        ({"measured": 1e-20, "bound": 1.0, "scale": 1.0}, "nothing was measured"),
        ({"status": "violated"}, "violated"),
        ({"conditions": (Condition("never", -1.0),)}, "condition"),
    ],
)
def test_a_verdict_that_should_not_be_there_is_noticed(setting, change, words):
    """One thing of a verdict that holds is changed; FedProx is what C4 does not speak of."""
    at = setting._replace(method=la.fed_prox(prox=10.0))
    claim = get_claim("C5")
    found = check_instance(claim, at)
    assert found.status == "holds"
    of_claim = {name: change[name] for name in ("kind", "needs") if name in change}
    of_found = {name: value for name, value in change.items() if name not in of_claim}
    faults = SCRIPT.faults(replace(claim, **of_claim), replace(found, **of_found), at)
    assert bool(faults) == (words is not None)
    assert all(words in fault for fault in faults)


def test_a_setting_is_the_same_every_time_and_some_are_extreme():
    drawn = [SCRIPT.random_setting(1, k) for k in range(40)]
    assert all(SCRIPT.random_setting(1, k)[1].local_lr == drawn[k][1].local_lr for k in (0, 7))
    assert len({name for name, _ in drawn}) > 8
    steps = [at.local_lr for _, at in drawn]
    assert max(steps) / min(steps) > 1e10
