"""The stored ensembles of docs/record/moments: whole, within errors, and of today's moments."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import linattn as la

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "record" / "moments"


def rows():
    text = (FOLDER / "ensembles.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def script():
    path = ROOT / "scripts" / "moment_ensembles.py"
    spec = importlib.util.spec_from_file_location("moment_ensembles", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_summary_is_that_of_the_rows():
    summary = json.loads((FOLDER / "summary.json").read_text(encoding="utf-8"))
    z = np.abs([float(row["z"]) for row in rows()])
    assert summary["settings"] == len(z) >= 40
    assert summary["runs_per_setting"] >= 2000
    assert summary["outside_two_errors"] == (z > 2).sum()
    assert summary["outside_four_errors"] == (z > 4).sum() == 0
    assert summary["largest"] == pytest.approx(z.max())
    # Gaussian errors: the mean square of z is 1, give or take √(2/settings).
    assert np.mean(z**2) == pytest.approx(1.0, abs=4 * np.sqrt(2 / len(z)))


def test_the_settings_are_varied():
    table = rows()
    for name in ("sampling", "equal_weights", "readout", "stragglers", "batch_size"):
        assert len({row[name] for row in table}) > 1, name
    assert any(len(set(row["local_steps"].split())) > 1 for row in table)
    shares = [float(row["noise_share"]) for row in table]
    assert max(shares) > 0.5 > 0.01 > min(shares)


@pytest.mark.parametrize("row", rows()[::9], ids=lambda row: row["setting"])
def test_expectations_are_those_of_today(row):
    setting = script().random_setting(int(row["setting"]))
    moments = la.frozen_moments(setting.problem, setting.params, **setting.run)
    expected = float(row["expected_gap"])
    assert moments.expected_gap(setting.rounds) == pytest.approx(expected, rel=1e-10)
    assert str(setting.rounds) == row["rounds"]
