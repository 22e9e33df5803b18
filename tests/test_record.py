"""The long runs whose results are stored in docs/record: whole, of today's claims, and unbroken.

And of every record that the notes sum up: they say what it says.
"""

import json
import sys

import pytest
import xarray as xr
from claim_cases.table import CASES
from kept import read_rows, write_rows
from pages import RECORD, main, told

import linattn as la
from linattn.claims.judge import STATUSES
from linattn.claims.record import UNJUDGED
from linattn.experiments.store import write_manifest
from linattn.experiments.verification import families
from scripts import module, put, simulation

# Parts of the notes, and the scripts that write them.
SUMMED_UP = {name: f"{name}_findings" for name in ("methods", "response", "sampling", "tuned")}
SUMMED_UP["paper"] = "paper_record"
# Residuals relative to the sum of |terms|.
RESIDUALS = ("C1", "C3", "C4 additive", "C7", "C9", "C10", "C11")


def stored():
    """Every row of every stored table, by claim."""
    found = {}
    for path in sorted(RECORD.glob("*/claims.csv")):
        for row in read_rows(path):
            assert row["claim"] not in found
            found[row["claim"]] = row
    return found


SOURCES = {name: family.source for family in families() for name in family.claims}
JUDGED = [claim for claim in la.claims() if claim.kind != "report"]


@pytest.mark.parametrize("claim", JUDGED, ids=lambda claim: claim.id)
def test_claim_was_checked_on_many_instances(claim):
    if not CASES[claim.id].recorded:
        assert claim.id not in stored(), "recorded after all: say so in its case"
        pytest.skip("not yet recorded")
    row = stored()[claim.id]
    # Records of numerics 3 name no file: they are of an older text.
    assert SOURCES[claim.id].startswith(row.get("file", "")), "recorded from another text"
    assert (row["statement"], row["kind"]) == (claim.statement, claim.kind)
    counts = {name: int(row.get(name, 0)) for name in ("instances", *STATUSES)}
    told = counts.pop("instances") - sum(counts.values())
    assert told == 0 or (told > 0 and claim.kind in UNJUDGED)  # judged as a whole, not one by one
    if claim.provenance != "recalled":
        assert int(row["resolved"]) >= claim.record
        assert counts["violated"] == 0


@pytest.mark.parametrize("name", RESIDUALS)
def test_residual_is_rounding_on_every_instance(name):
    assert float(stored()[name]["tightness_max"]) <= 1e-12


def test_tables_say_where_they_come_from():
    for path in RECORD.glob("*/claims.csv"):
        origin = json.loads(path.with_name("provenance.json").read_text(encoding="utf-8"))
        assert {"seed", "resolved", "numerics", "versions"} <= origin.keys()
        assert path.with_name("claims.md").exists()


@pytest.mark.parametrize("part", SUMMED_UP)
def test_the_notes_say_what_the_record_says(part):
    assert told(part) == module(SUMMED_UP[part], "scripts").findings()


PARTIAL = {"tuned": "step_size", "sampling": "noise", "paper": "noise"}


@pytest.mark.parametrize("part", SUMMED_UP)
def test_a_store_without_a_whole_paper_preset_leaves_the_record(
    part, tmp_path, monkeypatch, capsys
):
    held, script = simulation(PARTIAL.get(part, part)), module(SUMMED_UP[part], "scripts")
    spec = held.specs("paper")[0]
    put(tmp_path, held, spec, xr.Dataset({"one": 1.0}))
    write_manifest(tmp_path, held.name, "paper", [held.task(spec)])
    monkeypatch.setattr(sys, "argv", [part, "--results", str(tmp_path)])
    before = {path: path.stat().st_mtime_ns for path in RECORD.rglob("*")}
    assert main(part, script.findings, script.write_record, script.__doc__) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in RECORD.rglob("*")} == before


def test_no_rows_are_not_written(tmp_path):
    (tmp_path / "rows.csv").write_text("kept\n")
    with pytest.raises(ValueError, match="must be one or more, got none"):
        write_rows(tmp_path / "rows.csv", iter(()), digits=3)
    assert (tmp_path / "rows.csv").read_text() == "kept\n"
