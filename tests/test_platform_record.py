"""What was measured of schedulers and versions: whole, and as the notes say it."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "record" / "platform"
SCHEDULERS = json.loads((FOLDER / "schedulers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", ["empty", "busy", "certificate", "slurm"])
def test_a_scheduler_stores_the_bytes_of_the_pool(part):
    found = SCHEDULERS[part]
    assert found["equal_files"] == found["runs"] > 0
    assert len(found["pool_seconds"]) == len(found["scheduler_seconds"]) == found["repeats"]


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
