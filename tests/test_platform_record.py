"""What was measured of schedulers and versions: whole, and as the notes say it."""

import json

import pytest
import try_versions
from kept import read_rows
from pages import RECORD, ROOT

FOLDER = RECORD / "platform"
VERSIONS = json.loads((FOLDER / "versions.json").read_text(encoding="utf-8"))
SCHEDULERS = json.loads((FOLDER / "schedulers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", ["empty", "busy", "certificate", "slurm"])
def test_a_scheduler_stores_the_bytes_of_the_pool(part):
    found = SCHEDULERS[part]
    assert found["equal_files"] == found["runs"] > 0
    assert len(found["pool_seconds"]) == len(found["scheduler_seconds"]) == found["repeats"]


def test_the_oldest_and_the_newest_dependencies_pass():
    """Every combination, all tests; the oldest has what is declared in its oldest version."""
    held = {entry["combination"]: entry for entry in VERSIONS["combinations"]}
    assert list(held) == list(try_versions.COMBINATIONS)
    assert VERSIONS["tests"] == ["all"]
    for entry in held.values():
        assert (entry["outcome"], entry["failed"]) == ("passed", [])
    oldest = dict(text.split("==") for text in held["oldest-3.11"]["versions"])
    for name, bound in try_versions.lower_bounds(try_versions.declared()).items():
        assert oldest[name].startswith(bound), name


def test_the_full_check_passed():
    rows = read_rows(FOLDER / "full.csv")
    assert {"run", "extras", "flower", "versions"} <= {row["step"] for row in rows}
    assert {row["outcome"] for row in rows} == {"passed"}


def test_the_notes_say_what_was_measured():
    text = (ROOT / "docs" / "maintainers.md").read_text(encoding="utf-8")
    empty, busy, slurm = (SCHEDULERS[part] for part in ("empty", "busy", "slurm"))
    real = SCHEDULERS["certificate"]
    more = real["scheduler_seconds"][0] - real["pool_seconds"][0]
    sentence = (
        f"{empty['overhead_ms']:.0f} ms a run more than the pool on {empty['runs']} runs of no "
        f"work, {busy['rate']:.2f} times its rate on {busy['runs']} runs of a fifth of a second, "
        f"at a load average of {SCHEDULERS['load']:.0f} on two processors. Short "
        f"sweeps pay its start and end: {real['runs']} "
        f"runs of `certificate` took {more:.1f} s more."
    )
    assert sentence in text
    assert f"{slurm['runs']} runs as jobs of {slurm['version']}" in text
