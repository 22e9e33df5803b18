"""The stored ensembles of docs/record/moments: whole, within errors, and of today's moments."""

import json

import numpy as np
import pytest
from kept import read_rows
from pages import RECORD

import linattn as la
from scripts import module

FOLDER = RECORD / "moments"
ROWS = read_rows(FOLDER / "ensembles.csv")


def test_the_summary_is_that_of_the_rows():
    summary = json.loads((FOLDER / "summary.json").read_text(encoding="utf-8"))
    z = np.abs([float(row["z"]) for row in ROWS])
    assert summary["settings"] == len(z) >= 40
    assert summary["runs_per_setting"] >= 2000
    assert summary["outside_two_errors"] == (z > 2).sum()
    assert summary["outside_four_errors"] == (z > 4).sum() == 0
    assert summary["largest"] == pytest.approx(z.max())
    # Gaussian errors: the mean square of z is 1, give or take √(2/settings).
    assert np.mean(z**2) == pytest.approx(1.0, abs=4 * np.sqrt(2 / len(z)))


def test_the_settings_are_varied():
    for name in ("sampling", "equal_weights", "readout", "stragglers", "batch_size"):
        assert len({row[name] for row in ROWS}) > 1, name
    assert any(len(set(row["local_steps"].split())) > 1 for row in ROWS)
    shares = [float(row["noise_share"]) for row in ROWS]
    assert max(shares) > 0.5 > 0.01 > min(shares)


@pytest.mark.parametrize("row", ROWS[::9], ids=lambda row: row["setting"])
def test_expectations_are_those_of_today(row):
    setting = module("moment_ensembles", "scripts").random_setting(int(row["setting"]))
    moments = la.frozen_moments(setting.problem, setting.params, **setting.run)
    expected = float(row["expected_gap"])
    assert moments.expected_gap(setting.rounds) == pytest.approx(expected, rel=1e-10)
    assert str(setting.rounds) == row["rounds"]
