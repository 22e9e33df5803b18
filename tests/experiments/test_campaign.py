"""A sample of the campaign finds no fault, and the full one that is recorded found none."""

import json
import os
import random

import pytest
from hostile import files
from hostile.stores import small_sweep
from processes import ROOT, printed

RECORD = ROOT / "docs" / "record" / "campaign"
ASKED = {"kills": 1000, "files": 5000, "specs": 5000, "calls": 2000, "races": 30, "full disk": 300}
SAMPLE = ("kills", "races", "full disk", "files", "specs")  # commands: test_faults; calls: doors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_sample_finds_no_fault(tmp_path):
    only = [part for name in SAMPLE for part in ("--only", name)]
    script = ROOT / "scripts" / "campaign.py"
    printed(script, "--seed", 5, "--share", 0.006, *only, "--record", tmp_path)
    held = json.loads((tmp_path / "campaign.json").read_text())
    parts = {part["part"]: part for part in held["parts"]}
    assert parts.keys() == set(SAMPLE)
    assert parts["kills"]["counts"]["kills"] >= 1
    assert sum(n for name, n in parts["files"]["counts"].items() if "refused" in name) >= 20
    assert parts["specs"]["counts"]["task"] >= 1
    assert "| files | 30 |" in (tmp_path / "campaign.md").read_text()


def test_the_full_campaign_is_recorded_without_a_fault():
    parts = json.loads((RECORD / "campaign.json").read_text())["parts"]
    found = {part["part"]: part["asked"] for part in parts}
    assert all(found[name] >= number for name, number in ASKED.items())
    assert parts[0]["counts"]["kills"] >= ASKED["kills"]
    assert [fault for part in parts for fault in part["faults"]] == []
    assert (RECORD / "campaign.md").read_text().count("| 0 |") == len(parts)


def test_the_campaign_would_see_what_is_lost_or_wrong(tmp_path):
    sweep = small_sweep(2)
    sweep.fill(tmp_path)
    first, second = sorted(sweep.expected)
    assert sweep.faults(tmp_path, {first, second}) == []
    (tmp_path / first).unlink()
    (tmp_path / second).write_bytes(b"other")
    seen = [f"{first} is lost", f"{second} holds other bytes"]
    assert sweep.faults(tmp_path, {first, second}) == seen


def test_damage_is_damage():
    draw, whole = random.Random(0), bytes(range(1, 256)) * 8
    made = [files.damaged(whole, draw) for _ in range(60)]
    assert {how for how, _ in made} == {"bit", "cut", "block", "tail"}
    assert all(content != whole for _, content in made)
